import { type Duration, milliseconds } from '../kernel/duration.ts'

/**
 * How long to wait before asking again for something that runs out: what the backoff says, but never more than an eighth of the time that is left,
 * so that a short-lived SVID outlives a server that was away for a moment.
 */
export function retryDelay(backoff: Duration, left: Duration): Duration {
  return Math.min(backoff, Math.max(shortest, left / 8))
}

const shortest: Duration = milliseconds(500)
