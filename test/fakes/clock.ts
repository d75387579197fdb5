import type { Clock, Instant } from '../../src/kernel/clock.ts'
import type { Duration } from '../../src/kernel/duration.ts'
import { settle } from './work-under-way.ts'

/** A clock that moves when it is told to, and wakes its sleepers in the order of their time. */
export class FakeClock implements Clock {
  #now: Instant
  readonly #sleepers = new Set<Sleeper>()

  /** Starts at 2026-01-01T00:00:00Z when nothing is said. */
  constructor(now: Instant = 1_767_225_600_000) {
    this.#now = now
  }

  now(): Instant {
    return this.#now
  }

  /** How many sleeps are under way. */
  get sleepers(): number {
    return this.#sleepers.size
  }

  async sleep(duration: Duration, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    if (duration <= 0) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const sleeper: Sleeper = { until: this.#now + duration, wake: resolve }
    const onAbort = () => {
      this.#sleepers.delete(sleeper)
      reject(signal?.reason as Error)
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    this.#sleepers.add(sleeper)
    await promise.finally(() => signal?.removeEventListener('abort', onAbort))
  }

  /**
   * Moves on by `duration`. Every sleep that ends on the way ends at its own time, and what it woke runs
   * until it waits again, before the next one ends.
   */
  async advance(duration: Duration): Promise<void> {
    const until = this.#now + duration
    await settle()
    for (let next = this.#earliest(until); next; next = this.#earliest(until)) {
      this.#now = Math.max(this.#now, next.until)
      this.#sleepers.delete(next)
      next.wake()
      await settle()
    }
    this.#now = until
    await settle()
  }

  /** Jumps, forwards or back, as a machine's clock does when it is set. Sleeps keep what they had left, so none ends. */
  set(now: Instant): void {
    for (const sleeper of this.#sleepers) sleeper.until += now - this.#now
    this.#now = now
  }

  #earliest(until: Instant): Sleeper | undefined {
    let first: Sleeper | undefined
    for (const sleeper of this.#sleepers) if (sleeper.until <= until && (!first || sleeper.until < first.until)) first = sleeper
    return first
  }
}

interface Sleeper {
  until: Instant
  readonly wake: () => void
}
