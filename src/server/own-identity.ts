import type { KeyObject } from 'node:crypto'
import type { Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { fraction } from '../kernel/random.ts'
import { WatchedValue, type Watched } from '../kernel/watched.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { bundleSet } from '../spiffe/bundle-set.ts'
import { spiffeId, type SpiffeId } from '../spiffe/id.ts'
import { renewalDue } from '../spiffe/lifetime.ts'
import { verifyX509Svid } from '../spiffe/x509-svid.ts'
import type { Certificate } from '../x509/certificate.ts'
import { createCertificateRequest, parseCertificateRequest, proven } from '../x509/certificate-request.ts'
import { generateKeyPair } from '../x509/key-type.ts'
import { formatPem } from '../x509/pem.ts'
import { signerOf } from '../x509/signature.ts'
import type { Server } from './server.ts'

/** What the server proves itself with to those who connect. */
export interface ServerIdentity {
  readonly spiffeId: SpiffeId
  /** Leaf first, no root. */
  readonly chain: readonly Certificate[]
  /** The chain, PEM. */
  readonly cert: string
  readonly key: KeyObject
}

type Needs = Pick<Server, 'trustDomain' | 'clock' | 'random' | 'log' | 'ca'>

/** The server's own X509-SVID: `spiffe://<trust domain>/spire/server`, the exact ID that every agent expects. */
export class OwnIdentity {
  readonly #server: Needs
  readonly #held: WatchedValue<ServerIdentity>
  #due: Instant
  #changed = new AbortController()

  private constructor(server: Needs, first: ServerIdentity) {
    this.#server = server
    this.#held = new WatchedValue(first)
    this.#due = dueFor(server, first)
  }

  /** Issues the first one. @throws Failure `ca.*` */
  static async open(server: Needs, signal: AbortSignal): Promise<OwnIdentity> {
    return new OwnIdentity(server, await issue(server, signal))
  }

  get identity(): Watched<ServerIdentity> {
    return this.#held
  }

  /** True while the certificate is valid and those who have our bundle can verify it. */
  get isGood(): boolean {
    return this.#verifies(this.#server.ca.bundle.current)
  }

  /** True if its authority is to be trusted no longer soon (C-28). */
  get #isTainted(): boolean {
    const bundle = this.#server.ca.bundle.current
    const x509Authorities = bundle.x509Authorities.filter(({ tainted }) => !tainted)
    return x509Authorities.length < bundle.x509Authorities.length && !this.#verifies({ ...bundle, x509Authorities })
  }

  #verifies(bundle: TrustBundle): boolean {
    try {
      verifyX509Svid(this.#held.current.chain, bundleSet([bundle]), this.#server.clock.now())
      return true
    } catch {
      return false
    }
  }

  /** Renews at half life, or at once when its authority was tainted or left the bundle. A CA that fails is asked again. */
  async keepFresh(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#server
    const listening = this.#heedBundle(signal)
    while (!signal.aborted) {
      const pause = Math.min(longestPause, Math.max(shortestPause, this.#due - clock.now()))
      await clock.sleep(pause, AbortSignal.any([signal, this.#changed.signal])).catch(() => {})
      if (this.#changed.signal.aborted) this.#changed = new AbortController()
      if (signal.aborted || (clock.now() < this.#due && this.isGood && !this.#isTainted)) continue
      try {
        const next = await issue(this.#server, signal)
        this.#due = dueFor(this.#server, next)
        this.#held.set(next)
      } catch (error) {
        if (!signal.aborted) log.error('the server certificate could not be renewed', { reason: Failure.from(error).reason })
      }
    }
    await listening
  }

  /** An operator may revoke an authority right after tainting it, and whoever connects then must not meet what it signed. */
  async #heedBundle(signal: AbortSignal): Promise<void> {
    for await (const _ of this.#server.ca.bundle.changes(signal)) this.#changed.abort()
  }
}

async function issue({ trustDomain, ca }: Needs, signal: AbortSignal): Promise<ServerIdentity> {
  const id = spiffeId(trustDomain, '/spire/server')
  const { privateKey } = await generateKeyPair('ec-p256')
  // The CA takes keys that are proven to be held, from us as from everybody.
  const key = await proven(parseCertificateRequest(await createCertificateRequest({ signer: signerOf(privateKey) })))
  const { chain } = await ca.issueX509Svid({ kind: 'server', spiffeId: id, key, context: { caller: 'server' } }, signal)
  return { spiffeId: id, chain, cert: chain.map(({ raw }) => formatPem('CERTIFICATE', raw)).join(''), key: privateKey }
}

function dueFor({ clock, random }: Needs, { chain }: ServerIdentity): Instant {
  const leaf = chain[0]
  if (!leaf) throw new Error('bug: the CA issued a certificate without a leaf')
  return renewalDue(clock.now(), leaf.notAfter, fraction(random))
}

/** The clock may be set meanwhile. */
const longestPause = seconds(5)
/** Between two tries; well below half of the shortest life that a certificate can be given. */
const shortestPause = seconds(1)
