/** The agent's own SVID and the bundle it trusts: kept on disk, renewed at half life, told to the server connection. */
import { backoff } from '../kernel/backoff.ts'
import type { Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import { fraction } from '../kernel/random.ts'
import { type Watched, WatchedValue } from '../kernel/watched.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { sameAuthorities } from '../spiffe/bundle-document.ts'
import { renewalDue } from '../spiffe/lifetime.ts'
import type { Certificate } from '../x509/certificate.ts'
import { createCertificateRequest } from '../x509/certificate-request.ts'
import { Bell } from './bell.ts'
import { attest, checkedCredentials, join, type Joining } from './join.ts'
import type { AgentState } from './kept-state.ts'
import { isRejection } from './rejection.ts'
import { retryDelay } from './retry.ts'
import { makeSvidKey } from './svid-key.ts'
import { hasTaintedPath } from './taint.ts'
import type { AgentCredentials, UpstreamServer } from './upstream-server.ts'

export interface OwnIdentityParts extends Joining {
  readonly upstream: Pick<UpstreamServer, 'attest' | 'use' | 'renew'>
}

/** The agent as the server knows it. */
export class OwnIdentity {
  readonly #parts: OwnIdentityParts
  readonly #state: WatchedValue<AgentState>
  readonly #bundle: WatchedValue<TrustBundle>
  readonly #bell = new Bell()
  /** Writes one after the other, so that each builds on the one before. */
  #writing: Promise<void> = Promise.resolve()
  #renewal: { readonly leaf: Certificate; readonly due: Instant } | undefined
  /** The bundle that taints were last looked for in. */
  #examined: TrustBundle | undefined

  private constructor(parts: OwnIdentityParts, state: AgentState) {
    this.#parts = parts
    this.#state = new WatchedValue(state)
    this.#bundle = new WatchedValue(state.bundle)
  }

  /** Resolves when the agent has an identity. @throws Failure as {@link join} */
  static async open(parts: OwnIdentityParts, signal: AbortSignal): Promise<OwnIdentity> {
    return new OwnIdentity(parts, await join(parts, signal))
  }

  get state(): Watched<AgentState> {
    return this.#state
  }

  get bundle(): Watched<TrustBundle> {
    return this.#bundle
  }

  /**
   * Takes over a bundle that the server sent. One without X.509 authorities is refused: nothing could be verified with it,
   * the server itself included.
   * @throws Failure `agent.empty-bundle`, `agent.foreign-bundle`
   */
  async trust(bundle: TrustBundle): Promise<void> {
    const { trustDomain, x509Authorities } = bundle
    if (trustDomain !== this.#bundle.current.trustDomain) {
      throw new Failure('unauthenticated', 'agent.foreign-bundle', {
        public: `the server sent a bundle of \`${trustDomain.slice(0, 80)}\``,
      })
    }
    if (x509Authorities.length === 0)
      throw new Failure('unavailable', 'agent.empty-bundle', { public: 'the server sent a bundle without X.509 authorities' })
    if (bundle.sequence === this.#bundle.current.sequence && sameAuthorities(bundle, this.#bundle.current)) return
    await this.#change((state) => ({ ...state, bundle }))
    this.#bell.ring()
  }

  /**
   * Renews the SVID whenever it is due. Ends with the signal.
   * @throws Failure `agent.identity-expired`, or the server's rejection
   */
  async keepFresh(signal: AbortSignal): Promise<void> {
    for (;;) {
      if (this.#due() <= this.#parts.clock.now() || this.#isTainted()) await this.#renew(signal)
      else await this.#bell.waitUntil(this.#due(), this.#parts.clock, signal)
    }
  }

  /** Proves this node anew and goes on with the identity that brings. @throws Failure as {@link join} */
  async rejoin(signal: AbortSignal): Promise<void> {
    const { credentials, reattestable } = await attest(this.#parts, this.#bundle.current, signal)
    await this.#change((state) => ({ credentials, reattestable, bundle: state.bundle }))
  }

  /** Removes the identity from the disk: the next start proves the node anew. */
  async forget(): Promise<void> {
    await this.#writing
    await this.#parts.kept.forget()
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const { clock, random, log } = this.#parts
    for (const delay of backoff(random, { first: seconds(1), longest: seconds(60) })) {
      try {
        return await (this.#state.current.reattestable && this.#parts.prover ? this.rejoin(signal) : this.#renewOnce(signal))
      } catch (error) {
        signal.throwIfAborted()
        if (isRejection(Failure.from(error))) throw error
        log.warn('the SVID of the agent cannot be renewed; trying again', { error: tellChain(error), inMs: Math.round(delay) })
      }
      this.#checkNotExpired()
      await clock.sleep(retryDelay(delay, this.#leaf.notAfter - clock.now()), signal)
      this.#checkNotExpired()
    }
  }

  async #renewOnce(signal: AbortSignal): Promise<void> {
    const { upstream, clock, log } = this.#parts
    const key = await makeSvidKey()
    const svid = await upstream.renew(await createCertificateRequest({ signer: key.signer }), signal)
    const credentials = checkedCredentials(svid, key, this.#bundle.current, clock.now())
    await this.#change((state) => ({ ...state, credentials: sameAgent(credentials, state.credentials) }))
    log.info('the agent renewed its SVID', { spiffeId: credentials.spiffeId })
  }

  /** On the disk first, then in use: the server forgets the old SVID as soon as the new one is used. */
  #change(change: (state: AgentState) => AgentState): Promise<void> {
    const written = this.#writing.then(async () => {
      const state = change(this.#state.current)
      await this.#parts.kept.save(state)
      this.#parts.upstream.use(state.credentials, state.bundle)
      this.#publish(state)
    })
    this.#writing = written.catch(() => {})
    return written
  }

  #publish(state: AgentState): void {
    this.#state.set(state)
    if (this.#bundle.current !== state.bundle) this.#bundle.set(state.bundle)
  }

  /** Asked once for each bundle: a server that has nothing better to sign with is not asked again and again. */
  #isTainted(): boolean {
    const bundle = this.#bundle.current
    if (this.#examined === bundle) return false
    this.#examined = bundle
    return hasTaintedPath(this.#state.current.credentials.chain, bundle, this.#parts.clock.now())
  }

  #due(): Instant {
    if (this.#renewal?.leaf !== this.#leaf) {
      // A kept SVID is older than this process: counted from now, the half life of one that restarts often would never come.
      const from = this.#renewal ? this.#parts.clock.now() : this.#leaf.notBefore
      this.#renewal = { leaf: this.#leaf, due: renewalDue(from, this.#leaf.notAfter, fraction(this.#parts.random)) }
    }
    return this.#renewal.due
  }

  get #leaf(): Certificate {
    return this.#state.current.credentials.chain[0]!
  }

  #checkNotExpired(): void {
    if (this.#parts.clock.now() < this.#leaf.notAfter) return
    throw new Failure('unauthenticated', 'agent.identity-expired', {
      public: 'the SVID of the agent expired before it could be renewed: the agent must join again',
    })
  }
}

/** A renewal is of the same agent. */
function sameAgent(renewed: AgentCredentials, before: AgentCredentials): AgentCredentials {
  if (renewed.spiffeId === before.spiffeId) return renewed
  throw new Failure('unauthenticated', 'agent.bad-identity', {
    public: `the server renewed the identity of \`${before.spiffeId}\` as \`${renewed.spiffeId}\``,
  })
}
