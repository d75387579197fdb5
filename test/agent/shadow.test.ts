import { describe, expect, test } from 'vitest'
import { type ShadowVerdict, ShadowVerdicts } from '../../src/agent/shadow.ts'
import type { ShadowObservations } from '../../src/policy/shadow.ts'
import { seconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { agentMetrics } from '../../src/agent/metrics.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'
import { TestMeter } from '../support/counted.ts'
import { until } from './rig.ts'

const verdict = (more: Partial<ShadowVerdict> = {}): ShadowVerdict => ({
  candidateVersion: 'c1', workload: 'w', allowed: true, candidateAllows: false, rule: 'r', peer: 'p', method: 'GET', path: '/a?token=secret', ...more,
}) // prettier-ignore

describe('verdicts of a set that is tried', () => {
  test('are counted by what decided, and told without queries, once for each change', async () => {
    await using rig = start()
    rig.verdicts.note(verdict())
    rig.verdicts.note(verdict({ path: '/b' }))
    rig.verdicts.note(verdict({ candidateAllows: true, rule: 's' }))
    await until(() => rig.told.length === 1)
    await rig.pass()
    expect(rig.told).toEqual([
      expect.objectContaining({
        candidateVersion: 'c1',
        counts: [expect.objectContaining({ count: 2, path: '/a' }), expect.objectContaining({ count: 1, rule: 's' })],
      }),
    ])
    expect(rig.meter.of(agentMetrics.shadow, { verdict: 'newly-denied' })).toBe(2)
    expect(rig.meter.of(agentMetrics.shadow, { verdict: 'same' })).toBe(1)
    expect(rig.meter.of(agentMetrics.shadow, { verdict: 'newly-allowed' })).toBe(0)
  })

  test('are told again when the server did not hear them', async () => {
    await using rig = start()
    rig.away(true)
    rig.verdicts.note(verdict())
    await until(() => rig.clock.sleepers > 0)
    rig.away(false)
    await rig.pass()
    await until(() => rig.told.length === 1)
  })

  test('begin anew with another set', async () => {
    await using rig = start()
    rig.verdicts.note(verdict())
    rig.verdicts.note(verdict({ candidateVersion: 'c2', rule: 't' }))
    await until(() => rig.told.length === 1)
    expect(rig.told[0]).toMatchObject({ candidateVersion: 'c2', counts: [{ rule: 't', count: 1 }] })
  })

  test('are limited: beyond 2,000 kinds requests are counted, not listed', async () => {
    await using rig = start()
    for (let i = 0; i < 2003; i++) rig.verdicts.note(verdict({ rule: `r${i}` }))
    await until(() => rig.told.length === 1)
    expect([rig.told[0]!.counts.length, rig.told[0]!.unlisted]).toEqual([2000, 3])
  })
})

function start() {
  const clock = new FakeClock()
  const told: ShadowObservations[] = []
  const meter = new TestMeter()
  let isAway = false
  const upstream = {
    async reportShadow(seen: ShadowObservations) {
      if (isAway) throw new Failure('unavailable', 'server.away', { public: 'away' })
      told.push(seen)
    },
  }
  const verdicts = new ShadowVerdicts({ upstream, clock, random: seededRandom('shadow'), log: silentLog, meter })
  const stop = new AbortController()
  const telling = verdicts.keepTelling(stop.signal).catch(() => {})
  return {
    clock,
    meter,
    verdicts,
    told,
    away: (value: boolean) => void (isAway = value),
    async pass() {
      await until(() => clock.sleepers > 0)
      await clock.advance(seconds(5))
    },
    async [Symbol.asyncDispose]() {
      stop.abort()
      await telling
    },
  }
}
