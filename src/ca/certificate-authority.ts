/** The CA as the server's deeds use it. */
import type { Instant } from '../kernel/clock.ts'
import type { Duration } from '../kernel/duration.ts'
import type { Watched } from '../kernel/watched.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import type { AddedClaims } from '../spiffe/claims.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Certificate } from '../x509/certificate.ts'
import type { ProvenKey } from '../x509/certificate-request.ts'
import type { SubjectAttributes } from '../x509/subject.ts'
import type { Authorities } from './authorities.ts'

/** For whom a certificate is: decides the profile. */
export type SvidKind = 'workload' | 'agent' | 'server'

export interface X509SvidRequest {
  readonly kind: SvidKind
  readonly spiffeId: SpiffeId
  /** A PKCS #10 request, of which the key is used and nothing else, or a key that was proven before. */
  readonly key: Uint8Array | ProvenKey
  /** 0 or absent: the default of the profile. Longer than the profile's maximum is refused, not capped. */
  readonly lifetime?: Duration
  readonly dnsNames?: readonly string[]
  /** Laid over the subject of the profile. */
  readonly subject?: SubjectAttributes | undefined
  /** When the right to it ends: it does not live longer. */
  readonly until?: Instant
  /** What is written to the audit trail beside it: entry id and revision, caller. */
  readonly context: Readonly<Record<string, string>>
}

export interface IssuedX509Svid {
  readonly spiffeId: SpiffeId
  /** Leaf first, then intermediates; no root. DER. */
  readonly der: readonly Uint8Array[]
  /** The same, read. */
  readonly chain: readonly Certificate[]
  readonly notAfter: Instant
  /** Lower-case hex. */
  readonly serial: string
}

export interface JwtSvidRequest {
  readonly spiffeId: SpiffeId
  readonly audience: readonly string[]
  /** Beside those that every token has. */
  readonly claims?: AddedClaims | undefined
  readonly lifetime?: Duration
  /** When the right to it ends: it does not live longer. */
  readonly until?: Instant
  readonly context: Readonly<Record<string, string>>
}

export interface IssuedJwtSvid {
  readonly spiffeId: SpiffeId
  readonly token: string
  readonly issuedAt: Instant
  readonly expiresAt: Instant
}

export interface WitSvidRequest {
  readonly spiffeId: SpiffeId
  /** SubjectPublicKeyInfo of the key that the token is bound to. */
  readonly proofKey: Uint8Array
  /** What proofs will be signed with, the JWS name; the usual one of the key where left out. */
  readonly proofAlgorithm?: string
  /** Beside those that every token has. */
  readonly claims?: AddedClaims | undefined
  readonly lifetime?: Duration
  /** When the right to it ends: it does not live longer. */
  readonly until?: Instant
  readonly context: Readonly<Record<string, string>>
}

export interface IssuedWitSvid {
  readonly spiffeId: SpiffeId
  readonly token: string
  readonly issuedAt: Instant
  readonly expiresAt: Instant
}

/** What an entry adds to its SVIDs, DNS names aside, which every entry may have. */
export interface Additions {
  readonly subject?: SubjectAttributes | undefined
  readonly claims?: AddedClaims | undefined
}

/** The CA as the server's deeds use it. The only way to a signature by one of its keys. */
export interface CertificateAuthority extends AsyncDisposable {
  readonly trustDomain: TrustDomain
  /** Our trust bundle: changes before a new authority is used. */
  readonly bundle: Watched<TrustBundle>
  /** @throws Failure `ca.*`, `lint.*`, `issuance.*`, `audit.*` */
  issueX509Svid(request: X509SvidRequest, signal: AbortSignal): Promise<IssuedX509Svid>
  /** @throws Failure `ca.*`, `issuance.*`, `audit.*` */
  issueJwtSvid(request: JwtSvidRequest, signal: AbortSignal): Promise<IssuedJwtSvid>
  /** @throws Failure `ca.wit-off`, `ca.*`, `issuance.*`, `audit.*` */
  issueWitSvid(request: WitSvidRequest, signal: AbortSignal): Promise<IssuedWitSvid>
  /** Refuses what no SVID would be issued with. @throws Failure `ca.subject-not-allowed`, `ca.claim-not-allowed` */
  demandAllowed(additions: Additions): void
  /** The keys and certificates that sign, for operators. */
  readonly authorities: Authorities
  /** Rotates keys and certificates for as long as the signal lives. */
  keepFresh(signal: AbortSignal): Promise<void>
  /** Why the CA is not well, in words; empty when it is. */
  complaints(): readonly string[]
}
