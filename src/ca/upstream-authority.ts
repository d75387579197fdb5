/** Whoever stands above our CA. */
import { sameBytes } from '../kernel/bytes.ts'
import { formatInstant, type Clock, type Instant } from '../kernel/clock.ts'
import type { Driver } from '../kernel/driver.ts'
import { formatDuration, minutes, seconds, type Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { idOfTrustDomain } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { fingerprint, signedBy, type Certificate } from '../x509/certificate.ts'
import { buildChain } from '../x509/chain.ts'

/** What an upstream needs to know to make us an authority. */
export interface MintRequest {
  readonly trustDomain: TrustDomain
  /** SubjectPublicKeyInfo of the key that is to be certified, DER. */
  readonly publicKey: Uint8Array
  readonly lifetime: Duration
  /** Less is of no use to us and refused (V-4). */
  readonly leastLifetime: Duration
  /** How many CAs there are to be below ours (V-6). */
  readonly pathLength: number
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
  /** What the upstream says beside it, for the log. */
  readonly warnings: readonly string[]
}

/** PORT: whoever stands above our CA. */
export interface UpstreamAuthority extends AsyncDisposable {
  mint(request: MintRequest, signal: AbortSignal): Promise<MintedAuthority>
}

export type UpstreamAuthorityDriver<Config = never> = Driver<UpstreamAuthority, Config>
export const upstreamAuthority = <Config>(driver: UpstreamAuthorityDriver<Config>): UpstreamAuthorityDriver<Config> => driver

/** An authority that was looked at: it chains to a root, it is for our key and our name, and it lives until `until`. */
export interface CheckedAuthority extends MintedAuthority {
  readonly chain: readonly [Certificate, ...Certificate[]]
  /** The last moment at which every certificate up to the root is valid. */
  readonly until: Instant
  /** What the operator should change: a capped lifetime (V-4). */
  readonly complaints: readonly string[]
}

export interface CheckedUpstream extends AsyncDisposable {
  /** @throws Failure `upstream.*` */
  mint(request: MintRequest, signal: AbortSignal): Promise<CheckedAuthority>
}

/**
 * An upstream whose answers were checked (V-4 to V-6): nothing of them is believed that the certificates do not prove.
 * @throws Failure `upstream.empty-chain`, `upstream.wrong-key`, `upstream.not-a-ca`, `upstream.path-length`, `upstream.wrong-name`,
 *   `upstream.no-path`, `upstream.too-many-certificates`, `upstream.lifetime-too-short`
 */
export function checked(upstream: UpstreamAuthority, { clock }: { readonly clock: Clock }): CheckedUpstream {
  return {
    async mint(request, signal) {
      const minted = await upstream.mint(request, signal)
      return demand(minted, request, clock.now())
    },
    [Symbol.asyncDispose]: () => upstream[Symbol.asyncDispose](),
  }
}

function demand({ chain, roots, warnings }: MintedAuthority, request: MintRequest, at: Instant): CheckedAuthority {
  const [own, ...intermediates] = chain
  if (!own || roots.length === 0) throw refused('empty-chain', 'it answered without a certificate for us or without a root')
  if (chain.length > maxCertificates || roots.length > maxCertificates)
    throw refused('too-many-certificates', `it answered with more than ${maxCertificates} certificates`)
  demandOwn(own, request)
  const path = pathOf(own, intermediates, roots, at)
  const until = Math.min(...path.map(({ notAfter }) => notAfter)) + seconds(1) - 1
  return {
    chain: [own, ...path.slice(1, -1)],
    roots: unique(roots),
    until,
    warnings,
    complaints: demandLifetime(until - at, until, request),
  }
}

function demandOwn(own: Certificate, { publicKey, pathLength, trustDomain }: MintRequest): void {
  const { basicConstraints, keyUsage, subjectAltName } = own
  if (!sameBytes(own.spki, publicKey)) throw refused('wrong-key', 'it certified another key than ours')
  if (!basicConstraints?.ca || !keyUsage?.keyCertSign)
    throw refused('not-a-ca', 'our certificate is not that of a CA that may sign certificates')
  const allowed = basicConstraints.pathLength ?? Infinity
  if (allowed < pathLength) throw refused('path-length', `our certificate allows ${allowed} CAs below us: expected at least ${pathLength}`)
  const expected = idOfTrustDomain(trustDomain)
  if (subjectAltName?.uris.length !== 1 || subjectAltName.uris[0] !== expected) {
    throw refused(
      'wrong-name',
      `our certificate names \`${(subjectAltName?.uris ?? []).join(' ').slice(0, 120)}\`: expected only \`${expected}\``,
    )
  }
  const strangers = subjectAltName.dnsNames.length + subjectAltName.emails.length + subjectAltName.ips.length + subjectAltName.others
  if (strangers > 0) throw refused('wrong-name', 'our certificate has names that we did not ask for')
}

/** From our certificate to a root, each signed by the next; a root of our own is its own path. */
function pathOf(own: Certificate, intermediates: readonly Certificate[], roots: readonly Certificate[], at: Instant): Certificate[] {
  if (roots.some((root) => sameBytes(root.raw, own.raw))) {
    if (!signedBy(own, own)) throw refused('no-path', 'it announced our certificate as a root, and it is not signed by its own key')
    return [own, own]
  }
  try {
    return buildChain({ leaf: own, intermediates, roots, at })
  } catch (cause) {
    throw refused('no-path', 'our certificate does not lead to a root that it announced', cause)
  }
}

function demandLifetime(life: Duration, until: Instant, { lifetime, leastLifetime }: MintRequest): string[] {
  if (life < leastLifetime) {
    throw refused(
      'lifetime-too-short',
      `our certificate ends at ${formatInstant(until)}, in ${formatDuration(Math.max(0, life))}: expected at least ${formatDuration(leastLifetime)}`,
    )
  }
  if (lifetime - life <= noticeable) return []
  return [`the upstream capped the lifetime of our CA: asked for ${formatDuration(lifetime)}, got ${formatDuration(life)}`]
}

function unique(certificates: readonly Certificate[]): Certificate[] {
  return [...new Map(certificates.map((certificate) => [fingerprint(certificate), certificate])).values()]
}

function refused(what: string, problem: string, cause?: unknown): Failure {
  return new Failure('failed_precondition', `upstream.${what}`, {
    public: `the upstream authority cannot be used: ${problem}`,
    ...(cause === undefined ? {} : { cause }),
  })
}

const maxCertificates = 16
/** V-4. */
const noticeable = minutes(5)
