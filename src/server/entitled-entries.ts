import { Failure } from '../kernel/failure.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import type { AttestedNode } from '../registry/node.ts'
import type { Server } from './server.ts'

/** Every entry that this agent may fetch and serve, in order of id. */
export async function entitledEntries(
  server: Pick<Server, 'clock' | 'entryCache'>,
  agent: AttestedNode,
): Promise<readonly RegistrationEntry[]> {
  const index = await server.entryCache.current()
  return index.entitled(agent.id, agent.selectors, server.clock.now()).sort((a, b) => (a.id < b.id ? -1 : 1))
}

/** The agent's entries by id, to look up those that it asks for. */
export async function entitledById(
  server: Pick<Server, 'clock' | 'entryCache'>,
  agent: AttestedNode,
): Promise<ReadonlyMap<string, RegistrationEntry>> {
  return new Map((await entitledEntries(server, agent)).map((entry) => [entry.id, entry]))
}

/** One text for both cases, so that an agent cannot tell which entries there are. */
export function notEntitled(entryId: string): Failure {
  return new Failure('not_found', 'server.not-entitled', {
    public: 'entry not found or not authorized',
    internal: { entryId: entryId.slice(0, 255) },
  })
}
