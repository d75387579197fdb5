/** Counts how a set of policies that is tried would decide beside the one in force, and tells the server. */
import { hex } from '../kernel/bytes.ts'
import { deadline, type Clock } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import type { Random } from '../kernel/random.ts'
import { WatchedValue } from '../kernel/watched.ts'
import { agentMetrics } from './metrics.ts'
import { isRejection } from './rejection.ts'
import type { ShadowCount, ShadowObservations } from '../policy/shadow.ts'
import type { UpstreamServer } from './upstream-server.ts'

/** One request, decided twice. */
export type ShadowVerdict = Omit<ShadowCount, 'count'> & { readonly candidateVersion: string }

interface Parts {
  readonly upstream: Pick<UpstreamServer, 'reportShadow'>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly meter: Meter
}

export class ShadowVerdicts {
  readonly #run: string
  readonly #parts: Omit<Parts, 'random'>
  #version = ''
  #rows = new Map<string, ShadowCount>()
  #unlisted = 0
  /** Counts what there is to tell. */
  readonly #news = new WatchedValue(0)

  constructor({ random, ...parts }: Parts) {
    this.#parts = parts
    this.#run = hex(random.bytes(8))
  }

  /** Counts a request. The first of another candidate begins anew. */
  note({ candidateVersion, ...verdict }: ShadowVerdict): void {
    if (candidateVersion !== this.#version) {
      this.#version = candidateVersion
      this.#rows = new Map()
      this.#unlisted = 0
    }
    const { allowed, candidateAllows } = verdict
    const told = allowed === candidateAllows ? 'same' : candidateAllows ? 'newly-allowed' : 'newly-denied'
    this.#parts.meter.counter(agentMetrics.shadow, { verdict: told }).add()
    this.#news.set(this.#news.current + 1)
    const key = JSON.stringify([verdict.workload, verdict.allowed, verdict.candidateAllows, verdict.rule])
    const known = this.#rows.get(key)
    if (known) this.#rows.set(key, { ...known, count: known.count + 1 })
    else if (this.#rows.size < maxRows) this.#rows.set(key, { ...verdict, path: withoutQuery(verdict.path), count: 1 })
    else this.#unlisted++
  }

  /** Tells the server what is new, at most every few seconds, until the signal aborts. @throws Failure the server's rejection of this agent */
  async keepTelling(signal: AbortSignal): Promise<void> {
    const { clock, upstream, log } = this.#parts
    for await (const seen of this.#news.changes(signal)) {
      if (seen === 0 || !upstream.reportShadow) continue
      try {
        await upstream.reportShadow(this.#seen(), deadline(interval, signal))
      } catch (error) {
        signal.throwIfAborted()
        const failure = Failure.from(error)
        if (isRejection(failure)) throw failure
        log.debug('the server was not told what a candidate of policies would decide', { error: tellChain(failure) })
        this.#news.set(this.#news.current + 1)
      }
      await clock.sleep(interval, signal)
    }
  }

  /** Of the candidate that was seen last. */
  #seen(): ShadowObservations {
    return { candidateVersion: this.#version, run: this.#run, counts: [...this.#rows.values()], unlisted: this.#unlisted }
  }
}

const withoutQuery = (path: string): string => path.replace(/[?#].*$/s, '').slice(0, longestPath)

const interval = seconds(5)
const maxRows = 2000
const longestPath = 200
