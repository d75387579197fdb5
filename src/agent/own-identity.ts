/** The agent's own SVID and the bundle it trusts: kept on disk, renewed at half life, told to the server connection. */
import { backoff } from '../kernel/backoff.ts'
import type { Instant } from '../kernel/clock.ts'
import { minutes, seconds } from '../kernel/duration.ts'
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
  /** Issued, and not on the disk yet. */
  #renewed: AgentCredentials | undefined
  /** Why what the agent has is not on the disk, and when that is tried again. */
  #unkept: { readonly problem: string; readonly tryAt: Instant } | undefined
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

  /** Why a restart would not find what the agent has, in words; empty when it would. */
  complaints(): readonly string[] {
    return this.#unkept ? [`the identity of the agent cannot be kept on disk: ${this.#unkept.problem}`] : []
  }

  /**
   * Takes over a bundle that the server sent, also where the disk does not take it: whom workloads trust must not wait for a disk. One without X.509 authorities is refused: nothing could be verified with it,
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
    await this.#change((state) => ({ ...state, bundle }), 'use')
    this.#bell.ring()
  }

  /**
   * Renews the SVID whenever it is due, and keeps on disk what could not be kept before. Ends with the signal.
   * @throws Failure `agent.identity-expired`, or the server's rejection
   */
  async keepFresh(signal: AbortSignal): Promise<void> {
    for (;;) {
      const now = this.#parts.clock.now()
      const tryAt = this.#unkept?.tryAt ?? Infinity
      if (this.#due() <= now || this.#isTainted()) await this.#renew(signal)
      else if (tryAt <= now) await this.#keepAgain()
      else await this.#bell.waitUntil(Math.min(this.#due(), tryAt), this.#parts.clock, signal)
    }
  }

  /**
   * Proves this node anew, by evidence that can be shown again, and goes on with the identity that brings: where the disk does not take it,
   * a restart shows the evidence again. @throws Failure as {@link join}
   */
  async rejoin(signal: AbortSignal): Promise<void> {
    const kept = { ...this.#parts.kept, save: async () => {} }
    const { credentials, reattestable } = await attest({ ...this.#parts, kept }, this.#bundle.current, signal)
    this.#renewed = undefined
    await this.#change((state) => ({ credentials, reattestable, bundle: state.bundle }), 'use')
  }

  /** Removes the identity from the disk: the next start proves the node anew. Where the disk does not let go of it, the server refuses it. */
  async forget(): Promise<void> {
    const { kept, log } = this.#parts
    await this.#writing
    await kept.forget().catch((error: unknown) => log.error('the identity of the agent cannot be removed', { error: tellChain(error) }))
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
      if (await this.#isOver()) return
      await clock.sleep(retryDelay(delay, this.#leaf.notAfter - clock.now()), signal)
      if (await this.#isOver()) return
    }
  }

  async #renewOnce(signal: AbortSignal): Promise<void> {
    const { upstream, clock, log } = this.#parts
    // What was issued and could not be kept will do: a disk that is full for long is no reason to ask for ever more.
    if (!this.#renewed || !this.#isGood(this.#renewed)) {
      const key = await makeSvidKey()
      const svid = await upstream.renew(await createCertificateRequest({ signer: key.signer }), signal)
      const credentials = checkedCredentials(svid, key, this.#bundle.current, clock.now())
      this.#renewed = sameAgent(credentials, this.#state.current.credentials)
    }
    await this.#useRenewed(this.#renewed, 'keep')
    log.info('the agent renewed its SVID', { spiffeId: this.#state.current.credentials.spiffeId })
  }

  /**
   * True where a renewed SVID was taken into use although the disk does not take it: the one in use is about to end, so a restart could hardly use it either,
   * and whoever still calls with one that has ended is rejected. @throws Failure `agent.identity-expired` where it ended and nothing was renewed
   */
  async #isOver(): Promise<boolean> {
    const { clock, log } = this.#parts
    const { notBefore, notAfter } = this.#leaf
    const left = notAfter - clock.now()
    if (left < Math.min((notAfter - notBefore) / 10, longestEnding) && this.#renewed && this.#isGood(this.#renewed)) {
      await this.#useRenewed(this.#renewed, 'use')
      log.warn('the renewed SVID of the agent is used although it cannot be kept', { spiffeId: this.#state.current.credentials.spiffeId })
      return true
    }
    if (!this.#isExpired()) return false
    throw new Failure('unauthenticated', 'agent.identity-expired', {
      public: 'the SVID of the agent expired before it could be renewed: the agent must join again',
    })
  }

  async #useRenewed(credentials: AgentCredentials, unkept: 'keep' | 'use'): Promise<void> {
    await this.#change((state) => ({ ...state, credentials }), unkept)
    this.#renewed = undefined
  }

  /**
   * On the disk first, then in use: the server forgets the old SVID as soon as the new one is used, and takes whoever restarts with the old one
   * for a copy. With `use`, where that cannot be, a change is used although the disk does not take it.
   */
  #change(change: (state: AgentState) => AgentState, must: 'keep' | 'use'): Promise<void> {
    const written = this.#writing.then(async () => {
      const state = change(this.#state.current)
      await this.#keep(state).catch((error: unknown) => {
        if (must === 'keep') throw error
      })
      this.#parts.upstream.use(state.credentials, state.bundle)
      this.#publish(state)
    })
    this.#writing = written.catch(() => {})
    return written
  }

  #keepAgain(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#keep(this.#state.current)).catch(() => {})
    return this.#writing
  }

  async #keep(state: AgentState): Promise<void> {
    const { kept, clock, log } = this.#parts
    try {
      await kept.save(state)
      if (this.#unkept) log.info('the identity of the agent is kept on disk again')
      this.#unkept = undefined
    } catch (error) {
      const problem = tellChain(error)
      if (!this.#unkept) log.error('the identity of the agent cannot be kept on disk', { error: problem })
      this.#unkept = { problem, tryAt: clock.now() + tryDiskEvery }
      throw error
    }
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

  #isExpired(): boolean {
    return this.#parts.clock.now() >= this.#leaf.notAfter
  }

  #isGood({ chain }: AgentCredentials): boolean {
    const now = this.#parts.clock.now()
    return now < chain[0]!.notAfter && !hasTaintedPath(chain, this.#bundle.current, now)
  }
}

/** How long before its end an SVID gives way to one that is not on the disk: a tenth of its life, and no more than this. */
const longestEnding = minutes(1)
const tryDiskEvery = seconds(5)

/** A renewal is of the same agent. */
function sameAgent(renewed: AgentCredentials, before: AgentCredentials): AgentCredentials {
  if (renewed.spiffeId === before.spiffeId) return renewed
  throw new Failure('unauthenticated', 'agent.bad-identity', {
    public: `the server renewed the identity of \`${before.spiffeId}\` as \`${renewed.spiffeId}\``,
  })
}
