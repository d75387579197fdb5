import type { IssuedJwtSvid } from '../ca/certificate-authority.ts'
import { Failure } from '../kernel/failure.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import type { AttestedNode } from '../registry/node.ts'
import { entitledById, notEntitled } from './entitled-entries.ts'
import type { Server } from './server.ts'

/**
 * Signs a token for one of an agent's workloads.
 * @throws Failure `server.not-entitled`, `server.no-audience`, `server.bad-audience`, `ca.*`
 */
export async function issueJwtSvid(
  server: Pick<Server, 'clock' | 'ca' | 'audit' | 'entryCache'>,
  agent: AttestedNode,
  entryId: string,
  audience: readonly string[],
  signal: AbortSignal,
): Promise<{ readonly entry: RegistrationEntry; readonly svid: IssuedJwtSvid }> {
  checkAudience(audience)
  const entry = (await entitledById(server, agent)).get(entryId)
  if (!entry) throw await notEntitled(server, agent, entryId)
  const context = { caller: agent.id, entry: entry.id, revision: String(entry.revision) }
  const until = entry.expiresAt === undefined ? {} : { until: entry.expiresAt }
  const { spiffeId, jwtSvidTtl: lifetime, claims } = entry
  const svid = await server.ca.issueJwtSvid({ spiffeId, audience, lifetime, claims, ...until, context }, signal)
  return { entry, svid }
}

function checkAudience(audience: readonly string[]): void {
  if (audience.length === 0) throw new Failure('invalid_argument', 'server.no-audience', { public: 'at least one audience is required' })
  if (audience.length > maxAudiences || audience.some((one) => one === '' || one.length > maxAudienceLength)) {
    throw new Failure('invalid_argument', 'server.bad-audience', {
      public: `the audience is not acceptable: expected at most ${maxAudiences}, each of 1 to ${maxAudienceLength} characters`,
    })
  }
}

const maxAudiences = 32
const maxAudienceLength = 2048
