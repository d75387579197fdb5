import type { Instant } from '../kernel/clock.ts'
import type { LanguageOptions } from '../policy/language.ts'
import type { PolicyDocument } from '../policy/policy-set.ts'
import type { ShadowObservations } from '../policy/shadow.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Failure } from '../kernel/failure.ts'
import type { Certificate } from '../x509/certificate.ts'
import type { NodeProver } from '../attestation/node-attestor.ts'

/** A certificate chain as the server issued it, parsed but not yet verified: `own-identity.ts` and the caches verify. */
export interface SignedX509Svid {
  readonly spiffeId: SpiffeId
  /** Leaf first, no root. */
  readonly chain: readonly Certificate[]
  readonly hint: string
}

export interface SignedJwtSvid {
  readonly spiffeId: SpiffeId
  readonly token: string
  readonly issuedAt: Instant
  readonly expiresAt: Instant
}

export type SignedWitSvid = SignedJwtSvid

/** Policy files as they were applied, and how they are to be read. */
export interface PolicyDocuments {
  readonly version: string
  readonly documents: readonly PolicyDocument[]
  /** Absent: as the language reads them by default. */
  readonly options?: LanguageOptions
  /** Compact JWS over documents and options; absent for a set that nobody signed. */
  readonly signature?: string
  /** A set that is tried beside this one, and not enforced. */
  readonly candidate?: PolicyDocuments
}

/** The agent's certificate and key, to speak to the server with. */
export interface AgentCredentials {
  readonly spiffeId: SpiffeId
  readonly chain: readonly Certificate[]
  /** PKCS#8 PEM. */
  readonly privateKeyPem: string
}

/**
 * PORT: what an agent needs from a server. Each call has a deadline of its own and throws Failure;
 * `reason` `server.agent-banned`, `server.agent-cloned`, `server.agent-not-attested`, `server.agent-not-active`, `server.agent-expired` and
 * `server.agent-must-reattest` tell the agent that its identity is no longer accepted, any `unavailable` that it should try again.
 */
export interface UpstreamServer extends AsyncDisposable {
  /** First contact: no client certificate. The server must prove itself against `bundle`. */
  attest(
    prover: NodeProver,
    csr: Uint8Array,
    bundle: TrustBundle,
    signal: AbortSignal,
  ): Promise<{ readonly svid: SignedX509Svid; readonly reattestable: boolean }>
  /** Uses these credentials and this bundle for all later calls; open connections on older ones are closed. */
  use(credentials: AgentCredentials, bundle: TrustBundle): void
  renew(csr: Uint8Array, signal: AbortSignal): Promise<SignedX509Svid>
  bundle(signal: AbortSignal): Promise<TrustBundle>
  /** The bundle of a federated trust domain; undefined if the server has none. Absent where federation is not spoken. */
  federatedBundle?(trustDomain: TrustDomain, signal: AbortSignal): Promise<TrustBundle | undefined>
  /** Every entry that this agent may serve. */
  entries(signal: AbortSignal): Promise<readonly RegistrationEntry[]>
  /** One answer for each request, in order; at most 500. */
  signX509(
    requests: readonly { readonly entryId: string; readonly csr: Uint8Array }[],
    signal: AbortSignal,
  ): Promise<readonly (SignedX509Svid | Failure)[]>
  signJwt(entryId: string, audience: readonly string[], signal: AbortSignal): Promise<SignedJwtSvid>
  /**
   * WIT-SVIDs bound to keys of workloads (SubjectPublicKeyInfo): one answer for each request, in order; at most 500.
   * @throws Failure of category `unimplemented` where the server issues none
   */
  signWit(
    requests: readonly { readonly entryId: string; readonly publicKey: Uint8Array; readonly signingAlgorithm?: string }[],
    signal: AbortSignal,
  ): Promise<readonly (SignedWitSvid | Failure)[]>
  /** The policies in force, at once and after each change, until the signal aborts or the stream breaks. */
  policies(signal: AbortSignal): AsyncIterable<PolicyDocuments>
  /** Tells how a set that is tried would decide. Absent where nothing is tried. */
  reportShadow?(seen: ShadowObservations, signal: AbortSignal): Promise<void>
  /** Tells the server which agent this is. Failing is harmless. */
  postStatus(status: { readonly agentVersion: string; readonly bundleSequence: bigint }, signal: AbortSignal): Promise<void>
}
