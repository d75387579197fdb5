/** Entries and bundles, from the server into this agent, again and again; a server that is away is asked less and less often. */
import { backoff } from '../kernel/backoff.ts'
import type { Clock, Instant } from '../kernel/clock.ts'
import { deadline } from '../kernel/clock.ts'
import { type Duration, seconds } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import type { Random } from '../kernel/random.ts'
import { type Watched, WatchedValue } from '../kernel/watched.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Entitlements } from './identity-cache.ts'
import { agentMetrics } from './metrics.ts'
import type { OwnIdentity } from './own-identity.ts'
import { isRejection } from './rejection.ts'
import { retryDelay } from './retry.ts'
import type { UpstreamServer } from './upstream-server.ts'

export interface SyncParts {
  readonly upstream: Pick<UpstreamServer, 'entries' | 'bundle' | 'federatedBundle' | 'postStatus'>
  readonly own: Pick<OwnIdentity, 'trust' | 'bundle'>
  readonly into: { update(entitlements: Entitlements): void; readonly timeLeft: Duration }
  readonly interval: Duration
  readonly agentVersion: string
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly meter: Meter
}

/** How the last syncs went. */
export interface SyncStatus {
  readonly lastSuccess?: Instant
  /** Why the last one failed; absent when it did not. */
  readonly failure?: Failure
}

export class Sync {
  readonly #parts: SyncParts
  readonly #status = new WatchedValue<SyncStatus>({})
  #federated: ReadonlyMap<TrustDomain, TrustBundle> = new Map()

  constructor(parts: SyncParts) {
    this.#parts = parts
  }

  get status(): Watched<SyncStatus> {
    return this.#status
  }

  /** Syncs until the signal aborts. @throws Failure the server's rejection of this agent */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log, meter, interval } = this.#parts
    let delays = this.#delays()
    let isFirst = true
    for (;;) {
      let wait = interval
      try {
        await this.#once(deadline(longestSync, signal))
        this.#status.set({ lastSuccess: clock.now() })
        meter.counter(agentMetrics.syncs, { outcome: 'done' }).add()
        delays = this.#delays()
        if (isFirst) await this.#tellStatus(signal)
        isFirst = false
      } catch (error) {
        signal.throwIfAborted()
        const failure = Failure.from(error)
        meter.counter(agentMetrics.syncs, { outcome: 'failed' }).add()
        meter.counter(agentMetrics.syncFailures, { reason: failure.reason }).add()
        if (isRejection(failure)) throw failure
        this.#status.set({ ...this.#status.current, failure })
        wait = retryDelay(delays.next().value ?? interval, this.#parts.into.timeLeft)
        log.warn('the agent cannot sync with its server; trying again', {
          reason: failure.reason,
          error: tellChain(failure),
          inMs: Math.round(wait),
        })
      }
      await clock.sleep(wait, signal)
    }
  }

  /** The bundle first: what the entries lead to is verified with it. */
  async #once(signal: AbortSignal): Promise<void> {
    const { upstream, own, into } = this.#parts
    await own.trust(await upstream.bundle(signal))
    const entries = await upstream.entries(signal)
    const foreign = new Set(entries.flatMap((one) => one.federatesWith))
    foreign.delete(own.bundle.current.trustDomain)
    await this.#refreshFederated(foreign, signal)
    into.update({ entries, bundle: own.bundle.current, federated: this.#federated })
  }

  /** One that cannot be had now is kept as it was last seen; one that the server does not have is dropped. */
  async #refreshFederated(wanted: ReadonlySet<TrustDomain>, signal: AbortSignal): Promise<void> {
    const { upstream, log } = this.#parts
    const next = new Map<TrustDomain, TrustBundle>()
    for (const trustDomain of wanted) {
      const known = this.#federated.get(trustDomain)
      try {
        const bundle = await upstream.federatedBundle?.(trustDomain, signal)
        // a foreign bundle is for the trust domain that was asked for, and for no other.
        if (bundle?.trustDomain === trustDomain) next.set(trustDomain, known?.sequence === bundle.sequence ? known : bundle)
      } catch (error) {
        signal.throwIfAborted()
        if (known) next.set(trustDomain, known)
        log.warn('the bundle of a federated trust domain cannot be had', { trustDomain, error: tellChain(error) })
      }
    }
    this.#federated = next
  }

  async #tellStatus(signal: AbortSignal): Promise<void> {
    const { upstream, agentVersion, own, log } = this.#parts
    try {
      await upstream.postStatus({ agentVersion, bundleSequence: own.bundle.current.sequence }, signal)
    } catch (error) {
      signal.throwIfAborted()
      log.debug('the server does not take the status of this agent', { error: tellChain(error) })
    }
  }

  #delays(): Generator<Duration, void, void> {
    return backoff(this.#parts.random, { first: Math.min(this.#parts.interval, seconds(1)), longest: seconds(60) })
  }
}

/** All calls of one sync together. */
const longestSync = seconds(60)
