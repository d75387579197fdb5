/** Trust bundles: SPIFFE Trust Domain and Bundle, section 4. */
import type { Instant } from '../kernel/clock.ts'
import { minutes, seconds, type Duration } from '../kernel/duration.ts'
import type { Certificate } from '../x509/certificate.ts'
import type { TrustDomain } from './trust-domain.ts'

/** A root that X509-SVIDs of the trust domain may chain to. */
export interface X509Authority {
  readonly certificate: Certificate
  /** Announced as distrusted soon: whoever holds an SVID under it asks for a new one now. */
  readonly tainted: boolean
}

/** A key that tokens of the trust domain may be signed with. */
export interface TokenAuthority {
  /** One of its own in the whole bundle, whatever the key is for (W-19). */
  readonly keyId: string
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  readonly expiresAt?: Instant
  readonly tainted: boolean
}

/** What is needed to verify the SVIDs of one trust domain. Empty lists trust nothing (B-6). */
export interface TrustBundle {
  readonly trustDomain: TrustDomain
  readonly x509Authorities: readonly X509Authority[]
  /** For JWT-SVIDs, and for nothing else (API-19). */
  readonly jwtAuthorities: readonly TokenAuthority[]
  /** For WIT-SVIDs, and for nothing else (API-25). */
  readonly witAuthorities: readonly TokenAuthority[]
  /** Grows with every change of content (B-2). */
  readonly sequence: bigint
  readonly refreshHint?: Duration
}

/** How long after one reading of another trust domain's bundle the next is due: as it hints, else five minutes (B-14); never less than ten seconds. */
export function refreshInterval({ refreshHint }: Pick<TrustBundle, 'refreshHint'>): Duration {
  return Math.max(refreshHint ?? minutes(5), seconds(10))
}
