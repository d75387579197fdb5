import type { Duration } from './duration.ts'
import { fraction, type Random } from './random.ts'

export interface BackoffOptions {
  readonly first: Duration
  readonly longest: Duration
  /** How many delays there are before giving up; endless when left out. */
  readonly tries?: number
}

/** Delays between tries: doubling, with full jitter, never under a tenth of the step and never above `longest`. */
export function* backoff(random: Random, options: BackoffOptions): Generator<Duration, void, void> {
  let step = options.first
  for (let tried = 0; tried < (options.tries ?? Infinity); tried++) {
    yield step * (0.1 + 0.9 * fraction(random))
    step = Math.min(step * 2, options.longest)
  }
}
