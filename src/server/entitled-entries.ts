import { issuanceRefused } from '../audit/event.ts'
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

/**
 * Records that an agent asked for what is not its own. One text for both cases, so that it cannot tell which entries there are.
 * Where the record cannot be written, the refusal is what the agent hears of.
 */
export async function notEntitled({ audit }: Pick<Server, 'audit'>, agent: AttestedNode, entryId: string): Promise<Failure> {
  const entry = entryId.slice(0, 255)
  await audit.append(issuanceRefused({ spiffeId: '', reason: 'server.not-entitled' }, { caller: agent.id, entry })).catch(() => {})
  return new Failure('not_found', 'server.not-entitled', {
    public: 'entry not found or not authorized',
    internal: { entryId: entry },
  })
}
