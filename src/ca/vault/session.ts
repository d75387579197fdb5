/** A session at a vault: a token that is kept alive, and calls made with it. Does what `token.ts` says. */
import { backoff } from '../../kernel/backoff.ts'
import { deadline, formatInstant, type Instant } from '../../kernel/clock.ts'
import type { World } from '../../kernel/driver.ts'
import { formatDuration, seconds, type Duration } from '../../kernel/duration.ts'
import { Failure, failedWith, tellChain } from '../../kernel/failure.ts'
import type { Secret } from '../../kernel/log.ts'
import { fraction } from '../../kernel/random.ts'
import { caMetrics } from '../metrics.ts'
import { logIn, readGrant, readTls, type LoginMemory } from './login.ts'
import type { VaultSettings } from './settings.ts'
import {
  accepted,
  begin,
  denied,
  endOf,
  failed,
  isUsable,
  loggedIn,
  nextMove,
  noToken,
  renewed,
  type Deed,
  type TokenState,
} from './token.ts'
import { connectVault, passes, type Connection, type VaultAnswer, type VaultCall } from './wire.ts'

export interface VaultSession extends AsyncDisposable {
  readonly settings: VaultSettings
  /**
   * Makes a call with our token. What may pass is tried again a few times, a denial once with a new token, everything else not (V-9).
   * @throws Failure `vault.*`
   */
  call(call: VaultCall, signal: AbortSignal): Promise<VaultAnswer>
  /** Resolves when we are logged in, with the moment at which the token ends; Infinity for one without an end. @throws Failure `vault.*` */
  ready(signal: AbortSignal): Promise<Instant>
  /** Makes a call that needs no token, once. @throws Failure `vault.*` */
  ask(call: VaultCall, signal: AbortSignal): Promise<VaultAnswer>
  /** What the operator should know of our token. */
  complaints(): readonly string[]
}

/** Opens a session. The vault may be away: whoever calls then is told so, and the login is tried until it works (V-10). */
export function openVaultSession(settings: VaultSettings, world: World, use: 'pki' | 'transit'): VaultSession {
  if (settings.dangerouslySkipTlsVerification)
    world.log.error('the certificate of the vault is not verified: anybody between us and it can become our root', {
      address: settings.address,
    })
  return new Session(settings, world, use)
}

interface Holding {
  readonly token: Secret
  readonly ours: boolean
  readonly connection: Connection
}

class Session implements VaultSession {
  readonly settings: VaultSettings
  readonly #world: World
  readonly #memory: LoginMemory = {}
  readonly #stop = new AbortController()
  readonly #keeping: Promise<void>
  readonly #gauge: Disposable
  #state: TokenState = noToken
  /** Ends the pause of whoever waits for a change. */
  #change = new AbortController()
  #holding: Holding | undefined
  #refusal: Failure | undefined
  #pauses: Iterator<Duration, void>
  #complaints: readonly string[] = []
  /** Of the last connection, said whenever it changes (C-32). */
  #keyExchange: string | undefined

  constructor(settings: VaultSettings, world: World, use: 'pki' | 'transit') {
    this.settings = settings
    this.#world = world
    this.#gauge = world.meter.gauge(caMetrics.vaultTokenExpiry, () => {
      const end = this.#state.held ? endOf(this.#state.held) : 0
      return end === Infinity ? [] : [{ labels: { use }, value: end / 1000 }]
    })
    this.#pauses = backoff(world.random, loginPauses)
    this.#keeping = this.#keep()
  }

  async call(call: VaultCall, signal: AbortSignal): Promise<VaultAnswer> {
    const { clock, log, random } = this.#world
    const pauses = backoff(random, callPauses)
    let relogged = false
    for (;;) {
      const { token, connection } = await this.#ready(signal)
      const { epoch } = this.#state
      try {
        const answer = await connection.send(call, token, signal)
        this.#set(accepted(this.#state, epoch))
        return answer
      } catch (error) {
        signal.throwIfAborted()
        const failure = Failure.from(error)
        if (failure.reason === 'vault.permission-denied') {
          if (relogged || (await isAlive(token, connection, signal)) || !this.#denied(epoch, failure)) throw failure
          relogged = true
          continue
        }
        const pause = passes(failure) ? pauses.next().value : undefined
        if (pause === undefined) throw failure
        log.warn('a call to the vault is tried again', { reason: failure.reason, path: call.path.join('/') })
        await clock.sleep(Math.max(pause, retryAfter(failure)), signal)
      }
    }
  }

  async ready(signal: AbortSignal): Promise<Instant> {
    await this.#ready(signal)
    const { held } = this.#state
    return held ? endOf(held) : -Infinity
  }

  async ask(call: VaultCall, signal: AbortSignal): Promise<VaultAnswer> {
    using connection = await this.#connect()
    return await connection.send(call, undefined, signal)
  }

  complaints(): readonly string[] {
    const { held, failures } = this.#state
    const now = this.#world.clock.now()
    if (failures === 0 || !this.#refusal) return this.#complaints
    const left = held && now < endOf(held) ? `ends in ${formatDuration(endOf(held) - now)} and cannot be kept` : 'is missing'
    return [`our token for the vault ${left}: ${tellChain(this.#refusal)}`, ...this.#complaints]
  }

  /** Gives the token back if it was made for us: nobody is left who needs it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#gauge[Symbol.dispose]()
    this.#stop.abort()
    await this.#keeping
    const holding = this.#holding
    if (!holding) return
    if (holding.ours && isUsable(this.#state, this.#world.clock.now())) {
      const call = { method: 'POST', path: ['auth', 'token', 'revoke-self'] } as const
      await holding.connection.send(call, holding.token, deadline(farewell)).catch((error: unknown) => {
        this.#world.log.debug('the token for the vault was not given back', { reason: Failure.from(error).reason })
      })
    }
    holding.connection[Symbol.dispose]()
  }

  /** One login or renewal at a time, each when it is due. */
  async #keep(): Promise<void> {
    const { clock } = this.#world
    while (!this.#stop.signal.aborted) {
      const move = nextMove(this.#state, clock.now())
      if (move.do !== 'wait') await this.#perform(move.do)
      else await this.#pause(move.until - clock.now())
    }
  }

  async #perform(deed: Deed): Promise<void> {
    const { clock, log, meter, random } = this.#world
    const counted = deed === 'login' ? caMetrics.vaultLogins : caMetrics.vaultRenewals
    this.#set(begin(this.#state, deed))
    try {
      await (deed === 'login' ? this.#login() : this.#renew())
      meter.counter(counted, { outcome: 'done' }).add()
      this.#refusal = undefined
      this.#pauses = backoff(random, loginPauses)
    } catch (error) {
      if (this.#stop.signal.aborted) return this.#set({ ...this.#state, underway: undefined })
      const failure = Failure.from(error)
      meter.counter(counted, { outcome: 'refused' }).add()
      this.#refusal = failure
      log.error(`the vault refused a ${deed === 'login' ? 'login' : 'renewal of our token'}`, {
        reason: failure.reason,
        error: tellChain(failure),
      })
      const pause = Math.max((passes(failure) ? this.#pauses.next().value : undefined) ?? loginPauses.longest, retryAfter(failure))
      const { epoch } = this.#state
      this.#set(failed(this.#state, clock.now(), pause))
      if (deed === 'renew' && failedWith(failure, 'vault.permission-denied')) this.#denied(epoch, failure)
    }
  }

  /** What proves who we are is read anew, and a new connection made with it (V-12). */
  async #login(): Promise<void> {
    const { clock, log, random, secrets } = this.#world
    const signal = this.#stop.signal
    const connection = await this.#connect()
    try {
      const login = await logIn(this.settings.auth, { connection, secrets, memory: this.#memory, signal })
      const before = this.#holding
      this.#holding = { token: login.token, ours: login.ours, connection }
      before?.connection[Symbol.dispose]()
      this.#set(loggedIn(this.#state, login.grant, clock.now(), fraction(random)))
      this.#complaints = login.complaints
      log.info('logged in to the vault', { method: this.settings.auth.method, epoch: this.#state.epoch, ...this.#tellEnd() })
    } catch (error) {
      connection[Symbol.dispose]()
      throw error
    }
  }

  async #renew(): Promise<void> {
    const { clock, log, random } = this.#world
    const { epoch } = this.#state
    const { connection, token } = this.#holding!
    const { body } = await connection.send({ method: 'POST', path: ['auth', 'token', 'renew-self'] }, token, this.#stop.signal)
    this.#set(renewed(this.#state, epoch, readGrant(body), clock.now(), fraction(random)))
    log.info('renewed our token for the vault', { epoch, ...this.#tellEnd() })
  }

  /** The token in hand, as soon as there is one that may be used; what its login met if there is none. */
  async #ready(signal: AbortSignal): Promise<Holding> {
    for (;;) {
      signal.throwIfAborted()
      if (this.#holding && isUsable(this.#state, this.#world.clock.now())) return this.#holding
      if (this.#stop.signal.aborted) throw new Failure('cancelled', 'vault.closed', { public: 'the session with the vault was closed' })
      if (this.#refusal && this.#state.failures > 0 && !this.#state.underway) throw this.#refusal
      const news = AbortSignal.any([this.#change.signal, this.#stop.signal, signal])
      await new Promise<void>((resolve) => (news.aborted ? resolve() : news.addEventListener('abort', () => resolve(), { once: true })))
    }
  }

  /** True if a new token may help. */
  #denied(epoch: number, failure: Failure): boolean {
    // A call that began with an earlier token.
    if (epoch !== this.#state.epoch || !this.#state.held) return true
    const next = denied(this.#state, epoch, this.#world.clock.now())
    if (next === this.#state) return false
    this.#refusal = failure
    this.#set(next)
    return true
  }

  /** A connection whose requests are counted. */
  async #connect(): Promise<Connection> {
    const { clock, log, meter, requirePostQuantum } = this.#world
    const connection = await connectVault(this.settings, await readTls(this.settings), {
      requirePostQuantum,
      connected: (secured) => {
        meter.counter(caMetrics.vaultConnections, { key_exchange: secured.keyExchange }).add()
        if (secured.keyExchange === this.#keyExchange) return
        this.#keyExchange = secured.keyExchange
        log.info('connected to the vault', secured)
      },
    })
    return {
      async send(call, token, signal) {
        const from = clock.now()
        try {
          const answer = await connection.send(call, token, signal)
          meter.timing(caMetrics.vaultCalls, { outcome: 'done' }).record(clock.now() - from)
          return answer
        } catch (error) {
          meter.timing(caMetrics.vaultCalls, { outcome: 'refused' }).record(clock.now() - from)
          meter.counter(caMetrics.vaultRefusals, { reason: Failure.from(error).reason }).add()
          throw error
        }
      },
      [Symbol.dispose]: () => connection[Symbol.dispose](),
    }
  }

  #set(state: TokenState): void {
    if (state === this.#state) return
    this.#state = state
    const change = this.#change
    this.#change = new AbortController()
    change.abort()
  }

  async #pause(duration: Duration): Promise<void> {
    const signal = AbortSignal.any([this.#stop.signal, this.#change.signal])
    await this.#world.clock.sleep(Math.min(duration, longestPause), signal).catch((error: unknown) => {
      if (!signal.aborted) throw error
    })
  }

  #tellEnd(): { readonly until?: string } {
    const { held } = this.#state
    return held && held.ttl !== Infinity ? { until: formatInstant(endOf(held)) } : {}
  }
}

/** A token that can look itself up is not at fault: then the policy lacks a path, and a new token would not help (V-9). */
async function isAlive(token: Secret, connection: Connection, signal: AbortSignal): Promise<boolean> {
  const call = { method: 'GET', path: ['auth', 'token', 'lookup-self'] } as const
  return connection.send(call, token, signal).then(
    () => true,
    () => false,
  )
}

const retryAfter = ({ internal }: Failure): Duration => (typeof internal['retryAfter'] === 'number' ? internal['retryAfter'] : 0)

/** V-9. A call gives up after a few tries: whoever made it knows when it is worth another. */
const callPauses = { first: seconds(1), longest: seconds(8), tries: 3 }
const loginPauses = { first: seconds(1), longest: seconds(60) }
const farewell = seconds(2)
/** The clock may be set meanwhile. A token can live for months: the clock splits what a timer cannot hold (V-14). */
const longestPause = seconds(3600 * 24 * 365)
