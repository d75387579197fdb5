import { generateKeyPair } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { seconds } from '../../src/kernel/duration.ts'
import { FakeClock } from './clock.ts'
import { seededRandom } from './random.ts'

test('sleeps end in the order of their time, each at its own time', async () => {
  const clock = new FakeClock(0)
  const log: string[] = []
  const sleeper = async (name: string, duration: number) => {
    await clock.sleep(duration)
    log.push(`${name} at ${clock.now()}`)
  }
  const all = Promise.all([sleeper('late', seconds(3)), sleeper('early', seconds(1)), sleeper('never', seconds(9)).catch(() => {})])
  await clock.advance(seconds(5))
  expect(log).toEqual(['early at 1000', 'late at 3000'])
  expect(clock.now()).toBe(5000)
  await clock.advance(seconds(4))
  await all
})

test('a loop that sleeps runs as often as it would have', async () => {
  const clock = new FakeClock(0)
  let rounds = 0
  const stop = new AbortController()
  const loop = (async () => {
    for (;;) {
      await clock.sleep(seconds(1), stop.signal)
      rounds++
    }
  })().catch((error: unknown) => error)
  await clock.advance(seconds(10))
  expect(rounds).toBe(10)
  stop.abort(new Error('enough'))
  expect(await loop).toEqual(new Error('enough'))
  expect(clock.sleepers).toBe(0)
})

test('setting the clock ends no sleep, and what was left stays left', async () => {
  const clock = new FakeClock(0)
  let awake = false
  const sleep = clock.sleep(seconds(10)).then(() => (awake = true))
  clock.set(seconds(3600))
  await clock.advance(seconds(9))
  expect(awake).toBe(false)
  await clock.advance(seconds(1))
  await sleep
  expect(clock.now()).toBe(seconds(3610))
})

test('the same seed gives the same bytes, another one others, however they are drawn', () => {
  const draw = (seed: number, ...counts: number[]) => {
    const random = seededRandom(seed)
    return counts.flatMap((count) => [...random.bytes(count)])
  }
  expect(draw(1, 40)).toEqual(draw(1, 1, 6, 33))
  expect(draw(1, 40)).not.toEqual(draw(2, 40))
})

test.each([
  ['a key is being made', () => promisify(generateKeyPair)('rsa', { modulusLength: 2048 })],
  ['a file is being read', () => readFile(import.meta.filename)],
])('no sleep ends while %s that was begun before it', async (_what, work) => {
  const clock = new FakeClock(0)
  const log: string[] = []
  const all = [work().then(() => log.push('work')), clock.sleep(seconds(1)).then(() => log.push('sleep'))]
  await clock.advance(seconds(1))
  await Promise.all(all)
  expect(log).toEqual(['work', 'sleep'])
})
