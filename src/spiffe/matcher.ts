import type { SpiffeId } from './id.ts'
import { trustDomainOf } from './id.ts'
import type { TrustDomain } from './trust-domain.ts'

/** Decides whether a verified peer is one of those expected. Typed comparison, never a regular expression. */
export type PeerMatcher = (peer: SpiffeId) => boolean

/** Exactly these identities. Nobody, if none is given. */
export function exactly(...ids: readonly SpiffeId[]): PeerMatcher {
  const expected = new Set<string>(ids)
  return (peer) => expected.has(peer)
}

/** Any identity of a trust domain. */
export function memberOf(trustDomain: TrustDomain): PeerMatcher {
  return (peer) => trustDomainOf(peer) === trustDomain
}

/** Any identity that was verified at all. */
export const anyVerified: PeerMatcher = () => true
