import type { Duration } from './duration.ts'

/** A moment, in milliseconds since 1970-01-01T00:00:00Z. */
export type Instant = number

/** Time comes in through this port, so that tests can hold it. */
export interface Clock {
  now(): Instant
  /** Resolves after `duration`, or rejects with the signal's reason as soon as it aborts. */
  sleep(duration: Duration, signal?: AbortSignal): Promise<void>
}

/** The machine's own clock. Waits longer than a timer can hold are made of several (rule V-14). */
export const systemClock: Clock = {
  now: () => Date.now(),
  async sleep(duration, signal) {
    const until = performance.now() + duration
    for (;;) {
      signal?.throwIfAborted()
      const left = until - performance.now()
      if (left <= 0) return
      await oneTimer(Math.min(left, longestTimer), signal)
    }
  },
}

/** A signal that aborts with a `TimeoutError` after `duration`, or earlier when `parent` does. */
export function deadline(duration: Duration, parent?: AbortSignal): AbortSignal {
  const own = AbortSignal.timeout(Math.min(Math.ceil(duration), longestTimer))
  return parent ? AbortSignal.any([parent, own]) : own
}

/** RFC 3339 text of a moment, whole seconds, UTC. */
export function formatInstant(at: Instant): string {
  return new Date(at).toISOString().replace(/\.\d{3}Z$/, 'Z')
}

/** The moment that an RFC 3339 text names, `2026-01-01T00:00:00Z` or with an offset; undefined for anything else. */
export function parseInstant(text: string): Instant | undefined {
  if (!rfc3339.test(text)) return undefined
  const at = Date.parse(text)
  return Number.isNaN(at) ? undefined : at
}

function oneTimer(duration: Duration, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer)
      reject(signal?.reason as Error)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, duration)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/** Node fires a timer at once when it is asked to wait longer than a signed 32-bit number of milliseconds. */
const longestTimer = 2 ** 31 - 1

const rfc3339 = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})$/
