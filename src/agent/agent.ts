import type { Peer } from '../attestation/peer.ts'
import type { Clock } from '../kernel/clock.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import type { Watched } from '../kernel/watched.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Workload } from './identities.ts'
import type { ValidateJwt } from './jwt-validation.ts'
import type { HeldWitSvid } from './wit-cache.ts'
import type { ShadowVerdict } from './shadow.ts'
import type { SignedJwtSvid } from './upstream-server.ts'

export type HintedWitSvid = HeldWitSvid & { readonly hint: string }

/** What the agent's doors may ask of it. */
export interface Agent {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly log: Log
  readonly meter: Meter
  readonly bundle: Watched<TrustBundle>
  /** Counts a request that was decided by the policies in force and by a set that is tried. */
  noteShadow(verdict: ShadowVerdict): void
  /**
   * Peer → selectors → identities: the one path that all local doors use.
   * Resolves also for a workload without identity; see {@link requireIdentity}.
   * @throws Failure `workload.attestation-failed` (unavailable), `workload.gone`
   */
  identify(peer: Peer, signal: AbortSignal): Promise<Workload>
  /**
   * JWT-SVIDs of a workload for an audience: of all its identities, or of the one named.
   * @throws Failure `workload.no-identity`, `jwt.no-audience`
   */
  jwtSvids(
    workload: Workload,
    audience: readonly string[],
    spiffeId: SpiffeId | undefined,
    signal: AbortSignal,
  ): Promise<readonly (SignedJwtSvid & { readonly hint: string })[]>
  /** Whether a token holds for an audience. @throws Failure `jwt-svid.*` */
  readonly validateJwt: ValidateJwt
  /**
   * WIT-SVIDs of a workload, of all its identities or of the one named: at once, and again after each change. Absent where they are switched off.
   * @throws Failure `workload.no-identity`, `wit.unavailable`, `wit.not-issued`
   */
  witSvids?(workload: Workload, spiffeId: SpiffeId | undefined, signal: AbortSignal): AsyncIterable<readonly HintedWitSvid[]>
}
