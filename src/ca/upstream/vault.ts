import { z } from 'zod'
import { hex } from '../../kernel/bytes.ts'
import { formatInstant, type Instant } from '../../kernel/clock.ts'
import type { World } from '../../kernel/driver.ts'
import { minutes, seconds } from '../../kernel/duration.ts'
import { Failure, failedWith } from '../../kernel/failure.ts'
import { WatchedValue } from '../../kernel/watched.ts'
import { fingerprint, isSelfIssued, signedBy, type Certificate } from '../../x509/certificate.ts'
import { buildChain } from '../../x509/chain.ts'
import { formatPem, parseCertificatesPem } from '../../x509/pem.ts'
import { keyIdentifier } from '../../x509/template.ts'
import { upstreamAuthority, type MintedAuthority, type MintRequest, type UpstreamAuthority } from '../upstream-authority.ts'
import { formatRight, pkiRights, sessionRights, type Right } from '../vault/rights.ts'
import { openVaultSession, type VaultSession } from '../vault/session.ts'
import { vaultPath, vaultSegment, vaultSettings, type VaultPkiSettings } from '../vault/settings.ts'
import { VaultWatch } from '../vault/watch.ts'
import { tame, type VaultAnswer } from '../vault/wire.ts'

/** Signs our CA with a PKI mount of HashiCorp Vault or OpenBao. Wire: Vault's HTTP API, `sign-intermediate`. */
export const vault = upstreamAuthority({
  kind: 'vault',
  config: z.strictObject({
    ...vaultSettings,
    /** Path of the PKI mount. */
    mount: vaultPath.default('pki'),
    /** Name or id of the issuer within the mount; the mount's default issuer, which can change under us, when left out (V-3). */
    issuer: vaultSegment.optional(),
  }),
  example: {
    address: 'https://vault.example.test:8200',
    mount: 'pki',
    issuer: 'vidimus-root',
    auth: { method: 'approle', roleId: 'vidimus', secretId: { file: '/etc/vidimus/vault-secret-id' } },
  },

  async open(settings, world) {
    return new VaultUpstream(openVaultSession(settings, world, 'pki'), settings, world)
  },
})

/** The issuer that we are pinned to, as the vault last told it. */
interface KnownIssuer {
  /** Subject key identifier, hex. */
  readonly keyId: string
  readonly root: Certificate
}

class VaultUpstream implements UpstreamAuthority {
  readonly roots = new WatchedValue<readonly Certificate[]>([])
  readonly #session: VaultSession
  readonly #world: World
  readonly #mount: readonly string[]
  readonly #issuer: string | undefined
  /** The right to have our CA signed first. */
  readonly #rights: readonly Right[]
  readonly #watch: VaultWatch
  #known: KnownIssuer | undefined
  /** Fingerprints of the roots that were announced, by the poll or by an earlier answer. */
  readonly #announced = new Set<string>()

  constructor(session: VaultSession, { mount, issuer }: VaultPkiSettings, world: World) {
    this.#session = session
    this.#world = world
    this.#mount = mount.split('/')
    this.#issuer = issuer
    this.#rights = [...pkiRights({ mount, issuer }), ...sessionRights]
    this.#watch = new VaultWatch(world)
    this.#watch.every('issuer', minutes(5), (signal) => this.#readIssuer(signal))
    this.#watch.demandRights(session, this.#rights)
  }

  async mint(request: MintRequest, signal: AbortSignal): Promise<MintedAuthority> {
    if (!this.#known) await this.#readIssuer(signal).catch((error: unknown) => this.#demandMountThere(error, signal))
    const { body } = await this.#sign(
      {
        csr: formatPem('CERTIFICATE REQUEST', await request.csr()),
        // Our request holds the one URI name and the key, and nothing that would have to be taken out again.
        use_csr_values: true,
        common_name: '',
        exclude_cn_from_sans: true,
        ttl: `${Math.floor(request.lifetime / seconds(1))}s`,
        max_path_length: request.pathLength,
        format: 'pem',
      },
      signal,
    )
    const { path, warnings } = readAnswer(body, this.#world.clock.now(), this.#announced)
    await this.#demandIssuer(path, signal)
    const root = path.at(-1)!
    this.#announced.add(fingerprint(root))
    return { chain: path.slice(0, -1), roots: [root], warnings }
  }

  complaints(): readonly string[] {
    return [...this.#session.complaints(), ...this.#watch.complaints()]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#watch[Symbol.asyncDispose]()
    this.roots.close()
    await this.#session[Symbol.asyncDispose]()
  }

  async #sign(body: Readonly<Record<string, unknown>>, signal: AbortSignal): Promise<VaultAnswer> {
    const [right] = this.#rights
    try {
      return await this.#session.call({ method: 'POST', path: right!.path.split('/'), body }, signal)
    } catch (error) {
      if (!failedWith(error, 'vault.permission-denied')) throw error
      throw new Failure(error.category, error.reason, {
        public: `the vault does not let us have our CA signed: its policy needs ${formatRight(right!)}`,
        cause: error,
      })
    }
  }

  /** V-7: what the pinned issuer leads to is announced as soon as the vault says so, long before it signs for us. */
  async #readIssuer(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#world
    const { body } = await this.#session.call(
      { method: 'GET', path: [...this.#mount, 'issuer', this.#issuer ?? 'default', 'json'] },
      signal,
    )
    const read = issuerAnswer.safeParse(body)
    if (!read.success) throw refused('malformed-answer', 'the vault answered with something else than an issuer', read.error)
    const [issuer, ...others] = parsed([read.data.data.certificate, ...(read.data.data.ca_chain ?? [])])
    const known = { keyId: keyIdOf(issuer!), root: rootOf(issuer!, others, clock.now()) }
    if (this.#known?.keyId === known.keyId && sameCertificate(this.#known.root, known.root)) return
    log.info(this.#known ? 'the vault has another issuer for us' : 'the vault named its issuer', {
      issuer: known.keyId,
      root: fingerprint(known.root),
      until: formatInstant(known.root.notAfter),
    })
    this.#known = known
    this.#announced.add(fingerprint(known.root))
    this.roots.set([known.root])
  }

  /** An issuer that cannot be read is no reason not to sign; one that is not there is. */
  #demandMountThere(error: unknown, signal: AbortSignal): void {
    signal.throwIfAborted()
    if (failedWith(error, 'vault.permission-denied') || failedWith(error, 'upstream.no-root')) return
    throw error
  }

  /** V-3: another issuer than the pinned one is an alarm, and good only below a root that was announced. */
  async #demandIssuer(path: readonly Certificate[], signal: AbortSignal): Promise<void> {
    const signer = keyIdOf(path[1]!)
    const root = fingerprint(path.at(-1)!)
    if (!this.#known || this.#known.keyId === signer) return this.#watch.complain('answer', undefined)
    // The operator may have changed it since it was read.
    await this.#readIssuer(signal)
    if (this.#known.keyId === signer) return this.#watch.complain('answer', undefined)
    const text = `the vault signed our CA with the issuer \`${signer}\`: expected \`${this.#known.keyId}\``
    this.#watch.complain('answer', text)
    this.#world.log.error(text, { reason: 'upstream.other-issuer', root })
    if (!this.#announced.has(root)) throw refused('other-issuer', `${text}, and its root was never announced`)
  }
}

/** Our certificate, its issuers and its root, and what the vault remarked. */
function readAnswer(answer: unknown, at: Instant, announced: ReadonlySet<string>): { path: readonly Certificate[]; warnings: string[] } {
  const read = answerSchema.safeParse(answer)
  if (!read.success) throw refused('malformed-answer', 'the vault answered with something else than a certificate', read.error)
  const { certificate, issuing_ca, ca_chain } = read.data.data
  const [own, ...others] = parsed([
    certificate,
    ...(ca_chain ?? []),
    ...(issuing_ca === undefined || issuing_ca === '' ? [] : [issuing_ca]),
  ])
  return { path: pathOf(own!, others, at, announced), warnings: (read.data.warnings ?? []).slice(0, maxWarnings).map(tame) }
}

/**
 * The parts come in any order, some twice, some missing (V-5): what counts is who signed whom. Strangers are dropped.
 * Where several roots are reached, one that was announced is taken; of several that were not, none.
 */
function pathOf(own: Certificate, others: readonly Certificate[], at: Instant, announced: ReadonlySet<string>): readonly Certificate[] {
  const unique = [...new Map(others.map((one) => [fingerprint(one), one])).values()].filter((one) => !sameCertificate(one, own))
  const roots = unique.filter(isRoot)
  if (roots.length === 0)
    throw refused('no-root', 'the vault answered without a root: give its issuer the whole chain up to a self-signed certificate')
  const intermediates = unique.filter((one) => !roots.includes(one))
  let problem: unknown
  const paths = roots.flatMap((root) => {
    try {
      return [buildChain({ leaf: own, intermediates, roots: [root], at })]
    } catch (error) {
      problem ??= error
      return []
    }
  })
  const known = paths.find((path) => announced.has(fingerprint(path.at(-1)!)))
  if (known) return known
  if (paths.length > 1)
    throw refused('two-roots', `the certificate that the vault signed leads to ${paths.length} roots, and none of them was announced`)
  if (paths[0]) return paths[0]
  throw refused('no-path', 'the certificate that the vault signed does not lead to a root that it told us', problem)
}

/** The root above an issuer, or the issuer itself. */
function rootOf(issuer: Certificate, others: readonly Certificate[], at: Instant): Certificate {
  return isRoot(issuer) ? issuer : pathOf(issuer, others, at, new Set()).at(-1)!
}

function parsed(texts: readonly string[]): Certificate[] {
  try {
    const certificates = texts.flatMap((text) => parseCertificatesPem(text))
    if (certificates.length <= maxCertificates) return certificates
  } catch (cause) {
    throw refused('malformed-answer', 'the vault answered with certificates that cannot be used', cause)
  }
  throw refused('malformed-answer', `the vault answered with more than ${maxCertificates} certificates`)
}

const isRoot = (one: Certificate): boolean => isSelfIssued(one) && signedBy(one, one)
const sameCertificate = (a: Certificate, b: Certificate): boolean => fingerprint(a) === fingerprint(b)
const keyIdOf = ({ subjectKeyId, spki }: Certificate): string => hex(subjectKeyId ?? keyIdentifier(spki))

const certificates = z.array(z.string()).max(32).nullish()
const issuerAnswer = z.object({ data: z.object({ certificate: z.string().min(1), ca_chain: certificates }) })
const answerSchema = z.object({
  data: z.object({ certificate: z.string().min(1), issuing_ca: z.string().optional(), ca_chain: certificates }),
  warnings: z.array(z.string()).nullish(),
})

function refused(what: string, problem: string, cause?: unknown): Failure {
  return new Failure('failed_precondition', `upstream.${what}`, { public: problem, ...(cause === undefined ? {} : { cause }) })
}

const maxWarnings = 8
const maxCertificates = 64
