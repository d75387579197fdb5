/** JWT-SVIDs that workloads have validated here: a token that comes again costs no second verification. */
import type { Clock, Instant } from '../kernel/clock.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { bundleSet } from '../spiffe/bundle-set.ts'
import { trustDomainOf } from '../spiffe/id.ts'
import { type VerifiedJwtSvid, verifyJwtSvid } from '../spiffe/jwt-svid.ts'
import type { WorkloadIdentities } from './identities.ts'

/** Says whether a token holds for an audience, to a workload that trusts certain bundles. @throws Failure as `verifyJwtSvid` */
export type ValidateJwt = (
  held: Pick<WorkloadIdentities, 'bundle' | 'federated'>,
  audience: string,
  token: string,
) => Promise<VerifiedJwtSvid>

/**
 * Callers send one token with many requests, and its signature does not change: what verified under a bundle is remembered with that bundle,
 * which a rotation or a taint replaces. Time and audience are judged each time; whatever is not plainly right is verified in full.
 */
export function jwtValidation(clock: Pick<Clock, 'now'>): ValidateJwt {
  const verifiedUnder = new WeakMap<TrustBundle, RecentTokens>()
  const remembered = (bundle: TrustBundle, token: string) => verifiedUnder.get(bundle)?.find(token)

  const remember = (bundle: TrustBundle | undefined, token: string, verified: VerifiedJwtSvid, at: Instant) => {
    if (!bundle || token.length > longestRemembered) return
    let tokens = verifiedUnder.get(bundle)
    if (!tokens) verifiedUnder.set(bundle, (tokens = new RecentTokens()))
    tokens.keep(token, { verified, at })
  }

  return async ({ bundle, federated }, audience, token) => {
    const now = clock.now()
    for (const trusted of [bundle, ...federated.values()]) {
      const known = remembered(trusted, token)
      if (known && holds(known, audience, now)) return known.verified
    }
    const bundles = bundleSet([...federated.values(), bundle])
    const verified = await verifyJwtSvid(token, bundles, audience, now)
    remember(bundles.find(trustDomainOf(verified.spiffeId)), token, verified, now)
    return verified
  }
}

/** A moment before the one it was verified at proves nothing: `nbf` may lie between them. */
function holds({ verified, at }: Remembered, audience: string, now: Instant): boolean {
  return at <= now && now < verified.expiresAt && verified.audience.includes(audience)
}

interface Remembered {
  readonly verified: VerifiedJwtSvid
  readonly at: Instant
}

/** The least recently used is forgotten first. */
class RecentTokens {
  readonly #tokens = new Map<string, Remembered>()

  find(token: string): Remembered | undefined {
    const known = this.#tokens.get(token)
    if (known) this.#move(token, known)
    return known
  }

  keep(token: string, remembered: Remembered): void {
    this.#move(token, remembered)
    if (this.#tokens.size > mostRemembered) this.#tokens.delete(this.#tokens.keys().next().value!)
  }

  #move(token: string, remembered: Remembered): void {
    this.#tokens.delete(token)
    this.#tokens.set(token, remembered)
  }
}

/** For each bundle; with the next limit some 4 MiB. */
const mostRemembered = 1000
const longestRemembered = 2048
