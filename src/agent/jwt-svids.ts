import { Failure } from '../kernel/failure.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { uniqueHints } from './entry-index.ts'
import { groupOf, noIdentity } from './identify.ts'
import type { Workload } from './identities.ts'
import type { JwtCache } from './jwt-cache.ts'
import type { SignedJwtSvid } from './upstream-server.ts'

export interface JwtWish {
  readonly audience: readonly string[]
  /** All identities of the workload when undefined. */
  readonly spiffeId: SpiffeId | undefined
}

/**
 * One JWT-SVID for each identity that is asked for, the default first (API-18).
 * @throws Failure `jwt.no-audience`, `jwt.bad-audience`, `workload.no-identity`, `jwt.unavailable`
 */
export async function jwtSvidsOf(
  cache: JwtCache,
  workload: Workload,
  { audience, spiffeId }: JwtWish,
  signal: AbortSignal,
): Promise<readonly (SignedJwtSvid & { readonly hint: string })[]> {
  checkAudience(audience)
  const entitled = groupOf(workload).entries
  const entries = entitled.filter((one) => spiffeId === undefined || one.spiffeId === spiffeId)
  if (entries.length === 0) throw noIdentity(workload)
  const hints = uniqueHints(entries)
  return Promise.all(entries.map(async (entry) => ({ ...(await cache.fetch(entry, audience, signal)), hint: hints.get(entry.id)! })))
}

function checkAudience(audience: readonly string[]): void {
  if (audience.length === 0) throw new Failure('invalid_argument', 'jwt.no-audience', { public: 'a JWT-SVID needs at least one audience' })
  if (audience.length > maxAudiences || audience.some((one) => one === '' || one.length > maxAudienceLength)) {
    throw new Failure('invalid_argument', 'jwt.bad-audience', {
      public: `expected at most ${maxAudiences} audiences of 1 to ${maxAudienceLength} characters each`,
    })
  }
}

const maxAudiences = 16
const maxAudienceLength = 256
