import { createPrivateKey, type KeyObject } from 'node:crypto'
import { z } from 'zod'
import { fromUtf8, hex, sameBytes } from '../../kernel/bytes.ts'
import { formatInstant, type Instant } from '../../kernel/clock.ts'
import type { World } from '../../kernel/driver.ts'
import { seconds } from '../../kernel/duration.ts'
import { Failure, tellChain } from '../../kernel/failure.ts'
import { WatchedValue } from '../../kernel/watched.ts'
import { fingerprint, isSelfIssued, signedBy, type Certificate } from '../../x509/certificate.ts'
import { buildChain } from '../../x509/chain.ts'
import { parseCertificatesPem } from '../../x509/pem.ts'
import { signerOf } from '../../x509/signature.ts'
import type { AuthorityIssuer } from '../issuance.ts'
import { upstreamAuthority, type MintedAuthority, type MintRequest, type UpstreamAuthority } from '../upstream-authority.ts'

interface Settings {
  readonly certFile: string
  readonly keyFile: string
  readonly bundleFile?: string | undefined
}

/** Signs our CA with a certificate and key that stand in files, as another system puts them there and renews them. */
export const diskUpstream = upstreamAuthority({
  kind: 'disk',
  config: z.strictObject({
    /** PEM: the certificate of a CA, then the intermediates above it, up to and not including a root. */
    certFile: z.string().min(1),
    /** PEM, PKCS #8: the key of that certificate, mode 0600. */
    keyFile: z.string().min(1),
    /** PEM: the roots. Not needed if that certificate is a root. */
    bundleFile: z.string().min(1).optional(),
  }),
  example: { certFile: '/etc/vidimus/upstream.pem', keyFile: '/etc/vidimus/upstream.key', bundleFile: '/etc/vidimus/roots.pem' },

  async open(settings, world) {
    const first = await readFiles(settings, world)
    return new DiskUpstream(settings, world, first)
  },
})

/** What the files said when they were last good. */
interface Held {
  readonly issuer: AuthorityIssuer
  /** From the issuer up to, not including, a root; empty if the issuer is one. */
  readonly chain: readonly Certificate[]
  readonly roots: readonly Certificate[]
}

/** INVARIANT: what is held was good as a whole. Files that are not, or not yet, change nothing but the complaints. */
class DiskUpstream implements UpstreamAuthority {
  readonly roots: WatchedValue<readonly Certificate[]>
  readonly #settings: Settings
  readonly #world: World
  readonly #stop = new AbortController()
  readonly #watching: Promise<void>
  #held: Held
  #problem: string | undefined

  constructor(settings: Settings, world: World, held: Held) {
    this.#settings = settings
    this.#world = world
    this.#held = held
    this.roots = new WatchedValue(held.roots)
    this.#watching = this.#watch()
  }

  async mint(request: MintRequest): Promise<MintedAuthority> {
    await this.#reload()
    const { issuer, chain, roots } = this.#held
    return { chain: [await request.certify(issuer), ...chain], roots, warnings: [] }
  }

  complaints(): readonly string[] {
    return this.#problem === undefined
      ? []
      : [`the files of the upstream authority cannot be used, and those of before are: ${this.#problem}`]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#watching
    this.roots.close()
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      await this.#world.clock.sleep(pollEvery, signal).catch(() => {})
      if (!signal.aborted) await this.#reload()
    }
  }

  async #reload(): Promise<void> {
    const { log } = this.#world
    try {
      const read = await readFiles(this.#settings, this.#world)
      this.#problem = undefined
      if (sameHeld(read, this.#held)) return
      this.#held = read
      this.roots.set(read.roots)
      const { subject, notAfter } = read.issuer.certificate
      log.info('the upstream authority on disk changed', { issuer: subject.text, until: formatInstant(notAfter) })
    } catch (error) {
      const text = tellChain(error)
      if (this.#problem !== text)
        log.error('the files of the upstream authority are not used', { reason: Failure.from(error).reason, error: text })
      this.#problem = text
    }
  }
}

/** @throws Failure `upstream.file-missing`, `upstream.unreadable`, `upstream.wrong-key`, `upstream.not-a-ca`, `upstream.no-root`, `chain.*`, `secret.*` */
async function readFiles({ certFile, keyFile, bundleFile }: Settings, world: World): Promise<Held> {
  const at = world.clock.now()
  const [certificate, ...others] = await readCertificates(certFile, world)
  const key = signerOf(await readKey(keyFile, world))
  if (!sameBytes(certificate!.spki, key.publicKey))
    throw refused('wrong-key', `\`${keyFile}\` is not the key of the certificate in \`${certFile}\``)
  const roots = bundleFile === undefined ? [certificate!, ...others].filter(isRoot) : await readCertificates(bundleFile, world)
  if (roots.length === 0) throw refused('no-root', `there is no root in \`${certFile}\`: name a \`bundleFile\` that holds it`)
  demandIssuer(certificate!, certFile, at)
  const issuer = { certificate: certificate!, key }
  if (roots.some((root) => fingerprint(root) === fingerprint(certificate!))) return { issuer, chain: [], roots }
  const path = buildChain({ leaf: certificate!, intermediates: others, roots, at })
  return { issuer, chain: path.slice(0, -1), roots }
}

function demandIssuer({ basicConstraints, keyUsage, notBefore, notAfter }: Certificate, file: string, at: Instant): void {
  if (!basicConstraints?.ca || keyUsage?.keyCertSign === false)
    throw refused('not-a-ca', `the certificate in \`${file}\` is not that of a CA`)
  if (basicConstraints.pathLength === 0)
    throw refused('path-length', `the certificate in \`${file}\` has the path length 0 and cannot sign a CA`)
  if (at < notBefore || at > notAfter) throw refused('expired', `the certificate in \`${file}\` is valid until ${formatInstant(notAfter)}`)
}

async function readCertificates(path: string, { files }: World): Promise<readonly Certificate[]> {
  const content = await files.read(path)
  if (!content) throw refused('file-missing', `there is no file \`${path}\``)
  try {
    return parseCertificatesPem(fromUtf8(content))
  } catch (cause) {
    throw refused('unreadable', `\`${path}\` does not hold certificates in PEM`, cause)
  }
}

/** Read like a secret: by its owner alone. */
async function readKey(path: string, { secrets }: World): Promise<KeyObject> {
  const text = await secrets.read({ file: path })
  try {
    return createPrivateKey(text.reveal())
  } catch (cause) {
    throw refused('unreadable', `\`${path}\` does not hold a private key in PEM`, cause)
  }
}

const sameHeld = (a: Held, b: Held): boolean => tell(a) === tell(b)
const tell = ({ issuer, chain, roots }: Held): string =>
  [hex(issuer.key.publicKey), ...[issuer.certificate, ...chain, ...roots].map(fingerprint)].join()
const isRoot = (one: Certificate): boolean => isSelfIssued(one) && signedBy(one, one)

function refused(what: string, problem: string, cause?: unknown): Failure {
  return new Failure('failed_precondition', `upstream.${what}`, { public: problem, ...(cause === undefined ? {} : { cause }) })
}

const pollEvery = seconds(30)
