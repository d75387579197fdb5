import { describe, expect, test } from 'vitest'
import { counter, CountingMeter, gauge, reasonCodes, silentMeter, timing, timingBounds } from '../../src/kernel/meter.ts'

const calls = counter('vidimus_calls_total', 'Calls', { outcome: ['done', 'refused'] })
const refusals = counter('vidimus_refused_total', 'Refusals', { reason: reasonCodes })
const lengths = timing('vidimus_call_seconds', 'How long calls take', {})
const level = gauge('vidimus_level', 'How high it stands', { of: ['water', 'wine'] })
const open = () => new CountingMeter([calls, refusals, lengths, level])
const seriesOf = (meter: CountingMeter, name: string) => meter.read().find(({ metric }) => metric.name === name)!.series

describe('the names of metrics', () => {
  test.for([
    ['of another product', () => counter('spire_calls_total', 'Calls', {})],
    ['of a counter that does not say that it is one', () => counter('vidimus_calls', 'Calls', {})],
    ['of a gauge that says it is a counter', () => gauge('vidimus_calls_total', 'Calls', {})],
    ['of a timing without its unit', () => timing('vidimus_calls', 'Calls', {})],
    ['with what Prometheus does not take', () => gauge('vidimus_calls.now', 'Calls', {})],
    ['without a word of what it is', () => gauge('vidimus_calls', '', {})],
    ['with a label that Prometheus does not take', () => gauge('vidimus_calls', 'Calls', { 'a-b': ['x'] })],
  ] as const)('a name %s is refused where it is declared', ([, declare]) => {
    expect(declare).toThrow(/^bug: the metric/)
  })

  test('two metrics of one name are refused', () => {
    expect(() => new CountingMeter([calls, counter('vidimus_calls_total', 'Calls of others', {})])).toThrow(/one name/)
  })

  test('what is in no list is not counted in silence', () => {
    expect(() => open().counter(counter('vidimus_other_total', 'Other', {}), {})).toThrow(/is in no list/)
  })
})

describe('how many series there can be', () => {
  test('a label takes what is in its set, and calls everything else `other`', () => {
    const meter = open()
    meter.counter(calls, { outcome: 'spiffe://example.org/attacker' as 'done' }).add()
    expect(seriesOf(meter, 'vidimus_calls_total')).toContainEqual({ labels: { outcome: 'other' }, value: 1 })
  })

  test('reason codes are counted each by itself, up to two hundred; the rest is one', () => {
    const meter = open()
    for (let n = 0; n < 1000; n++) meter.counter(refusals, { reason: `lint.rule-${n}` }).add()
    const series = seriesOf(meter, 'vidimus_refused_total')
    expect(series).toHaveLength(201)
    expect(series).toContainEqual({ labels: { reason: 'other' }, value: 800 })
  })

  test.for(['', 'a b', 'a\nb', 'a"b', 'ä', 'x'.repeat(129)])('what has not the form of a name is `other`: %j', (reason) => {
    const meter = open()
    meter.counter(refusals, { reason }).add()
    expect(seriesOf(meter, 'vidimus_refused_total')).toEqual([{ labels: { reason: 'other' }, value: 1 }])
  })

  test('one metric has at most two thousand series, and one more for the rest', () => {
    const wide = counter('vidimus_wide_total', 'Wide', { a: { most: 100 }, b: { most: 100 } })
    const meter = new CountingMeter([wide])
    for (let a = 0; a < 100; a++) for (let b = 0; b < 100; b++) meter.counter(wide, { a: `a${a}`, b: `b${b}` }).add()
    const series = seriesOf(meter, 'vidimus_wide_total')
    expect(series).toHaveLength(2001)
    expect(series.at(-1)).toEqual({ labels: { a: 'other', b: 'other' }, value: 8000 })
  })
})

describe('counting', () => {
  test('a counter never goes down', () => {
    const meter = open()
    const done = meter.counter(calls, { outcome: 'done' })
    done.add()
    done.add(-5)
    done.add(Number.NaN)
    done.add(2)
    expect(seriesOf(meter, 'vidimus_calls_total')).toContainEqual({ labels: { outcome: 'done' }, value: 3 })
  })

  test('what has only closed labels is there with zero before anything happened', () => {
    expect(seriesOf(open(), 'vidimus_calls_total')).toEqual([
      { labels: { outcome: 'done' }, value: 0 },
      { labels: { outcome: 'refused' }, value: 0 },
    ])
  })

  test('so is what a label is known to be beside others, and it counts among them', () => {
    const events = counter('vidimus_events_total', 'Events', { event: { most: 2, known: ['clone'] } })
    const meter = new CountingMeter([events])
    expect(seriesOf(meter, 'vidimus_events_total')).toEqual([{ labels: { event: 'clone' }, value: 0 }])
    for (const event of ['a', 'b', 'clone']) meter.counter(events, { event }).add()
    expect(seriesOf(meter, 'vidimus_events_total').map(({ labels }) => Object.values(labels)[0])).toEqual(['clone', 'a', 'other'])
  })

  test('a series that is asked for twice is one', () => {
    const meter = open()
    meter.counter(calls, { outcome: 'done' }).add()
    meter.counter(calls, { outcome: 'done' }).add()
    expect(seriesOf(meter, 'vidimus_calls_total')).toContainEqual({ labels: { outcome: 'done' }, value: 2 })
  })

  test('a time at a bound counts below it, one that is longer than all in the last; a clock that was set back counts as nothing', () => {
    const meter = open()
    const length = meter.timing(lengths, {})
    for (const milliseconds of [-1000, 1, 1.1, 30_000, 30_001]) length.record(milliseconds)
    const [series] = seriesOf(meter, 'vidimus_call_seconds')
    const counts = timingBounds.map(() => 0)
    counts[0] = 2
    counts[1] = 1
    counts[timingBounds.length - 1] = 1
    expect(series).toMatchObject({ labels: {}, counts: [...counts, 1] })
    expect(series).toHaveProperty('sum', expect.closeTo(60.0031, 6))
  })

  test('a gauge is read when somebody looks, until it is disposed of', () => {
    const meter = open()
    let height = 1
    const shown = meter.gauge(level, () => [{ labels: { of: 'water' }, value: height }])
    height = 7
    expect(seriesOf(meter, 'vidimus_level')).toEqual([{ labels: { of: 'water' }, value: 7 }])
    shown[Symbol.dispose]()
    expect(seriesOf(meter, 'vidimus_level')).toEqual([])
  })

  test('nobody notices a meter that counts nothing', () => {
    silentMeter.counter(calls, { outcome: 'done' }).add()
    silentMeter.timing(lengths, {}).record(5)
    silentMeter.gauge(level, () => [{ labels: { of: 'wine' }, value: 1 }])[Symbol.dispose]()
  })
})
