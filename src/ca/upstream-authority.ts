import type { Driver } from '../kernel/driver.ts'
import type { Duration } from '../kernel/duration.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Certificate } from '../x509/certificate.ts'

/** What an upstream needs to know to make us an authority. */
export interface MintRequest {
  readonly trustDomain: TrustDomain
  /** SubjectPublicKeyInfo of the key that is to be certified, DER. */
  readonly publicKey: Uint8Array
  readonly lifetime: Duration
  /** Our certificate request, signed by that key. */
  csr(): Promise<Uint8Array>
  /** A certificate for that key, signed by that key, through the one issuing pipeline. */
  selfSigned(): Promise<Certificate>
}

/** Our CA as the upstream made it. */
export interface MintedAuthority {
  /** Our certificate first, then the intermediates up to, not including, a root. For a self-signed CA our certificate alone. */
  readonly chain: readonly Certificate[]
  /** What is to be trusted: the roots that the upstream announces. */
  readonly roots: readonly Certificate[]
  /** What the operator should know: a capped lifetime, a warning text of the upstream. */
  readonly warnings: readonly string[]
}

/** PORT: whoever stands above our CA. */
export interface UpstreamAuthority extends AsyncDisposable {
  mint(request: MintRequest, signal: AbortSignal): Promise<MintedAuthority>
}

export type UpstreamAuthorityDriver<Config = never> = Driver<UpstreamAuthority, Config>
export const upstreamAuthority = <Config>(driver: UpstreamAuthorityDriver<Config>): UpstreamAuthorityDriver<Config> => driver
