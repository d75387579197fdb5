/** Whoever stands above our CA. */
import { upstreamRefused, upstreamTtlCapped } from '../audit/event.ts'
import type { AuditTrail } from '../audit/trail.ts'
import { hex, sameBytes } from '../kernel/bytes.ts'
import { formatInstant, type Clock, type Instant } from '../kernel/clock.ts'
import type { Driver } from '../kernel/driver.ts'
import { formatDuration, minutes, seconds, type Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import type { Watched } from '../kernel/watched.ts'
import { idOfTrustDomain } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { fingerprint, signedBy, type Certificate } from '../x509/certificate.ts'
import { buildChain } from '../x509/chain.ts'
import type { AuthorityIssuer } from './issuance.ts'
import { caMetrics, type capCauses } from './metrics.ts'

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
  /** A certificate for that key through the one issuing pipeline: signed by that key itself, or by an issuer that the driver holds. */
  certify(issuer?: AuthorityIssuer): Promise<Certificate>
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
  /** The roots that it announces, ahead of certificates below them (V-7). Left out by one whose roots come with what it mints. */
  readonly roots?: Watched<readonly Certificate[]>
  /** What the operator should know or change, in words. */
  complaints?(): readonly string[]
}

export type UpstreamAuthorityDriver<Config = never> = Driver<UpstreamAuthority, Config>
export const upstreamAuthority = <Config>(driver: UpstreamAuthorityDriver<Config>): UpstreamAuthorityDriver<Config> => driver

/** `issuer`: whoever is above us ends then. `limit`: the upstream lets nobody live longer, as far as it says. */
export interface Cap {
  readonly cause: (typeof capCauses)[number]
  readonly why: string
}

/** An authority that was looked at: it chains to a root, it is for our key and our name, and it lives until `until`. */
export interface CheckedAuthority extends MintedAuthority {
  readonly chain: readonly [Certificate, ...Certificate[]]
  /** The last moment at which every certificate up to the root is valid. */
  readonly until: Instant
  /** What the operator should change: a capped lifetime (V-4). */
  readonly complaints: readonly string[]
  /** Why it lives noticeably shorter than was asked for, where it does. */
  readonly capped?: Cap
}

export interface CheckedUpstream extends AsyncDisposable {
  /** @throws Failure `upstream.*` */
  mint(request: MintRequest, signal: AbortSignal): Promise<CheckedAuthority>
  /** See {@link UpstreamAuthority.roots}. */
  readonly roots?: Watched<readonly Certificate[]>
}

/** What an upstream's answers are checked with. A capped lifetime is written to log and trail (V-4). */
export interface UpstreamChecks {
  readonly clock: Clock
  readonly log: Log
  readonly meter: Meter
  readonly audit?: AuditTrail
}

/**
 * An upstream whose answers were checked (V-4 to V-6): nothing of them is believed that the certificates do not prove.
 * @throws Failure `upstream.empty-chain`, `upstream.wrong-key`, `upstream.not-a-ca`, `upstream.path-length`, `upstream.wrong-name`,
 *   `upstream.no-path`, `upstream.too-many-certificates`, `upstream.serial-again`, `upstream.lifetime-too-short`, `audit.*`
 */
export function checked(upstream: UpstreamAuthority, { clock, log, meter, audit }: UpstreamChecks): CheckedUpstream {
  const serials = new Serials()
  const mint = async (request: MintRequest, signal: AbortSignal): Promise<CheckedAuthority> => {
    const from = clock.now()
    try {
      const good = demand(await upstream.mint(request, signal), request, clock.now())
      serials.demandNew(good.chain[0])
      meter.timing(caMetrics.minting, { outcome: 'done' }).record(clock.now() - from)
      return good
    } catch (error) {
      signal.throwIfAborted()
      const { reason } = Failure.from(error)
      meter.timing(caMetrics.minting, { outcome: 'refused' }).record(clock.now() - from)
      meter.counter(caMetrics.mintRefusals, { reason }).add()
      // The refusal is what the caller hears of, also where it cannot be recorded.
      await audit?.append(upstreamRefused({ reason })).catch(() => {})
      throw error
    }
  }
  return {
    ...(upstream.roots && { roots: upstream.roots }),
    async mint(request, signal) {
      const good = await mint(request, signal)
      const asked = { lifetime: request.lifetime, got: good.until - clock.now() }
      if (good.capped) {
        meter.counter(caMetrics.ttlCapped, { cause: good.capped.cause }).add()
        log.warn('the lifetime of our CA was capped', { reason: 'upstream.ttl-capped', ...asked, ...good.capped })
        await audit?.append(upstreamTtlCapped({ serial: good.chain[0].serial, until: good.until, ...asked, ...good.capped }))
      }
      return good
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
    ...demandLifetime(until - at, until, request, whyCapped(path, warnings)),
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

function demandLifetime(
  life: Duration,
  until: Instant,
  { lifetime, leastLifetime }: MintRequest,
  cap: Cap,
): Pick<CheckedAuthority, 'complaints' | 'capped'> {
  if (life < leastLifetime) {
    throw refused(
      'lifetime-too-short',
      `our certificate ends at ${formatInstant(until)}, in ${formatDuration(Math.max(0, life))}: expected at least ${formatDuration(leastLifetime)}; ${cap.why}`,
    )
  }
  if (lifetime - life <= noticeable) return { complaints: [] }
  const text = `the upstream capped the lifetime of our CA: asked for ${formatDuration(lifetime)}, got ${formatDuration(life)}; ${cap.why}`
  return { complaints: [text], capped: cap }
}

/** Whose end it is, as far as the certificates tell: ours may outlive who signed it (V-4). */
function whyCapped([own, ...issuers]: readonly Certificate[], warnings: readonly string[]): Cap {
  const first = issuers.toSorted((a, b) => a.notAfter - b.notAfter)[0]
  if (own && first && first.notAfter <= own.notAfter)
    return { cause: 'issuer', why: `\`${printable(first.subject.text)}\` above us ends then: renew it` }
  const [warning] = warnings
  return {
    cause: 'limit',
    why: warning === undefined ? 'the upstream limits how long we may live: raise its limit' : `it says: ${warning}`,
  }
}

/** No serial number twice of one issuer, as far as we remember (V-6). */
class Serials {
  readonly #seen = new Set<string>()

  demandNew({ issuer, serial }: Certificate): void {
    const name = `${hex(issuer.raw)} ${serial}`
    if (this.#seen.has(name)) throw refused('serial-again', 'it gave our certificate a serial number that it had given before')
    this.#seen.add(name)
    if (this.#seen.size > maxSerials) this.#seen.delete(this.#seen.values().next().value ?? '')
  }
}

/** What somebody else wrote, fit for one line. */
const printable = (text: string): string => text.slice(0, 120).replace(/[^ -~]|`/g, '?')

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
const maxSerials = 1000
/** V-4. */
const noticeable = minutes(5)
