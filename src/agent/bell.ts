import type { Clock, Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'

/** Lets a task sleep until a moment, or until somebody has news for it. A ring while nobody waits ends the next wait at once. */
export class Bell {
  #rung = false
  #wake: (() => void) | undefined

  ring(): void {
    this.#rung = true
    this.#wake?.()
  }

  /** Ends at `until`, at a ring, or after half a minute: a clock that was set, or a machine that slept, is noticed by then. */
  async waitUntil(until: Instant, clock: Clock, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const woken = new AbortController()
    this.#wake = () => woken.abort()
    if (this.#rung) this.#wake()
    try {
      await clock.sleep(Math.min(until - clock.now(), longestWait), AbortSignal.any([signal, woken.signal]))
    } catch (error) {
      if (signal.aborted || !woken.signal.aborted) throw error
    } finally {
      this.#wake = undefined
      this.#rung = false
    }
  }
}

const longestWait = seconds(30)
