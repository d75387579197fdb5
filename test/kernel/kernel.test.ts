import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { backoff } from '../../src/kernel/backoff.ts'
import { formatDuration, hours, minutes, parseDuration, seconds } from '../../src/kernel/duration.ts'
import { Failure, tellChain } from '../../src/kernel/failure.ts'
import { Secret } from '../../src/kernel/log.ts'
import { systemRandom, uuid } from '../../src/kernel/random.ts'
import { Scope } from '../../src/kernel/scope.ts'
import { firstOf, WatchedValue } from '../../src/kernel/watched.ts'

const never = new AbortController().signal

describe('durations', () => {
  test.each(['', '5', '1.5h', '-1s', '1h1h', '1s1h', 'abc', '1 h', '999999d99999999h'])('refuses `%s`', (text) => {
    expect(() => parseDuration(text)).toThrow(Failure)
  })

  test('reads what people write', () => {
    expect(parseDuration('1h30m')).toBe(hours(1) + minutes(30))
    expect(parseDuration('20s')).toBe(seconds(20))
    expect(parseDuration('250ms')).toBe(250)
  })

  test('what is written is read back', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 10 ** 11 }), (duration) => parseDuration(formatDuration(duration)) === duration))
  })
})

describe('failures', () => {
  test('an unknown error tells the caller nothing and keeps its cause', () => {
    const cause = new Error('the database password is hunter2')
    const failure = Failure.from(cause)
    expect(failure.message).toBe('internal error')
    expect(failure.cause).toBe(cause)
    expect(failure.category).toBe('internal')
  })

  test('an abort is a cancellation, a time-out a missed deadline', () => {
    const stop = new AbortController()
    stop.abort()
    expect(Failure.from(stop.signal.reason).category).toBe('cancelled')
    expect(Failure.from(new DOMException('late', 'TimeoutError')).category).toBe('deadline_exceeded')
  })

  test('the chain of causes is told in order, each once', () => {
    const failure = new Failure('unavailable', 'a.b', { public: 'outer', cause: new Error('inner', { cause: new Error('inner') }) })
    expect(tellChain(failure)).toBe('outer: inner')
  })
})

describe('secrets', () => {
  test('V-15 a secret does not show in text, JSON or inspection', async () => {
    const secret = new Secret('canary')
    const { inspect } = await import('node:util')
    expect(`${String(secret)} ${JSON.stringify({ secret })} ${inspect(secret)}`).not.toContain('canary')
    expect(secret.reveal()).toBe('canary')
  })
})

describe('watched values', () => {
  test('a reader sees the current value at once and skips to the latest', async () => {
    const value = new WatchedValue(1)
    const stop = new AbortController()
    const seen: number[] = []
    for await (const now of value.changes(stop.signal)) {
      seen.push(now)
      if (now === 1) {
        value.set(2)
        value.set(3)
      } else stop.abort()
    }
    expect(seen).toEqual([1, 3])
  })

  test('a reader that waits is woken by close with the error it was closed with', async () => {
    const value = new WatchedValue(1)
    const changes = value.changes(never)
    await changes.next()
    const waiting = changes.next()
    value.close(new Error('gone'))
    await expect(waiting).rejects.toThrow('gone')
  })

  test('firstOf waits for the value it is asked for', async () => {
    const value = new WatchedValue(0)
    const found = firstOf(value, (now) => now > 1, never)
    value.set(1)
    value.set(2)
    await expect(found).resolves.toBe(2)
  })
})

describe('scopes', () => {
  test('the first failure stops the other tasks, and is what the scope ends with', async () => {
    const scope = new Scope(never)
    let ended = false
    scope.run('waits', async (signal) => {
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
      ended = true
    })
    scope.run('fails', () => Promise.reject(new Error('boom')))
    await expect(scope.finished).rejects.toThrow('boom')
    expect(ended).toBe(true)
  })

  test('a stop that comes before anything runs ends it without an error', async () => {
    const stop = new AbortController()
    stop.abort()
    await expect(new Scope(stop.signal).finished).resolves.toBeUndefined()
  })

  test('a task that does not end within the grace period is named', async () => {
    const scope = new Scope(never, { grace: 1 })
    scope.run('stubborn', () => new Promise(() => {}))
    scope.stop()
    await expect(scope.finished).rejects.toThrow('stubborn')
  })
})

describe('chance', () => {
  test('delays double up to the longest, with jitter, and end after the tries', () => {
    const delays = [...backoff(systemRandom, { first: 100, longest: 400, tries: 5 })]
    expect(delays).toHaveLength(5)
    for (const [index, delay] of delays.entries()) {
      const step = Math.min(100 * 2 ** index, 400)
      expect(delay).toBeGreaterThanOrEqual(step / 10)
      expect(delay).toBeLessThanOrEqual(step)
    }
  })

  test('a UUID has its version and variant', () => {
    expect(uuid(systemRandom)).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  })
})
