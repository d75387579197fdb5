import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { retryDelay } from '../../src/agent/retry.ts'
import { hours, milliseconds, seconds } from '../../src/kernel/duration.ts'
import { fakeProcess, startAgent, until } from './rig.ts'

describe('the delay between tries', () => {
  test('is the backoff’s while there is time, and an eighth of what is left when there is not', () => {
    expect(retryDelay(seconds(60), hours(1))).toBe(seconds(60))
    expect(retryDelay(seconds(60), seconds(80))).toBe(seconds(10))
    expect(retryDelay(seconds(60), Infinity)).toBe(seconds(60))
  })
  test('is never so short that a server is hammered, nor longer than the backoff', () => {
    fc.assert(
      fc.property(fc.double({ min: 500, max: 60_000, noNaN: true }), fc.double({ min: -1e9, max: 1e9, noNaN: true }), (delay, left) => {
        const actual = retryDelay(delay, left)
        expect(actual).toBeGreaterThanOrEqual(milliseconds(500))
        expect(actual).toBeLessThanOrEqual(delay)
      }),
    )
  })
})

test('Q-13 an SVID of 20 s outlives a server that is away for half of that', async () => {
  await using rig = await startAgent()
  rig.server.add('/web', ['test:name:web'], { x509SvidTtl: seconds(20) })
  await rig.clock.advance(seconds(5))
  const workload = await rig.identify(fakeProcess('test:name:web'))
  const { serial } = workload.identities.current.identities[0]!.chain[0]!
  rig.server.away = true
  await rig.clock.advance(seconds(12))
  rig.server.away = false
  for (let step = 0; step < 4; step++) {
    await rig.clock.advance(milliseconds(500))
    await new Promise((resolve) => setImmediate(resolve))
  }
  await until(() => (workload.identities.current.identities[0]?.chain[0]!.serial ?? serial) !== serial)
})
