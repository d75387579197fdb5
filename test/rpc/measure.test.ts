import { describe, expect, test } from 'vitest'
import { milliseconds, seconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { clientOf } from '../../src/rpc/client.ts'
import { Health } from '../../src/rpc/gen/grpc/health/v1/health_pb.ts'
import { mount, type Wrap } from '../../src/rpc/handler.ts'
import { measured } from '../../src/rpc/measure.ts'
import { rpcMetrics } from '../../src/rpc/metrics.ts'
import { FakeClock } from '../fakes/clock.ts'
import { TestMeter } from '../support/counted.ts'
import { carriers, keptLog } from './carriers.ts'

const check = '/grpc.health.v1.Health/Check'
const watch = '/grpc.health.v1.Health/Watch'

describe.each(Object.entries(carriers))('calls over %s are counted', (_name, open) => {
  /** A service whose one answer is what `answer` says, and whose stream goes on until its caller leaves. */
  async function serving(answer: () => Promise<object>, within?: Wrap<string>) {
    const [meter, clock] = [new TestMeter(), new FakeClock()]
    const service = mount<typeof Health, string>(Health, {
      check: answer,
      async *watch(_request, { signal }) {
        yield {}
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
      },
    })
    const carried = await open({ services: [service], log: keptLog(), wrap: measured({ meter, clock }, within) })
    return { meter, clock, health: clientOf(Health, carried.channel), [Symbol.asyncDispose]: () => carried[Symbol.asyncDispose]() }
  }

  test('that fail, by method, status and reason code', async () => {
    await using rig = await serving(() =>
      Promise.reject(new Failure('permission_denied', 'server.agent-banned', { public: 'agent is banned' })),
    )
    await rig.health.check({}).catch(() => {})
    await rig.health.check({}).catch(() => {})
    expect(rig.meter.of(rpcMetrics.calls, { method: check, code: 'permission-denied' })).toBe(2)
    expect(rig.meter.of(rpcMetrics.refusals, { reason: 'server.agent-banned' })).toBe(2)
    expect(rig.meter.of(rpcMetrics.calls, { method: check, code: 'ok' })).toBe(0)
  })

  test('that somebody refuses before they are answered', async () => {
    const refuse: Wrap<string> = () => Promise.reject(new Failure('invalid_argument', 'workload-api.security-header', { public: 'no' }))
    await using rig = await serving(() => Promise.resolve({}), refuse)
    await rig.health.check({}).catch(() => {})
    expect(rig.meter.of(rpcMetrics.refusals, { reason: 'workload-api.security-header' })).toBe(1)
  })

  test('that are answered, with their time', async () => {
    await using rig = await serving(async () => {
      await rig.clock.advance(milliseconds(300))
      return {}
    })
    await rig.health.check({})
    const [series] = rig.meter.read().find(({ metric }) => metric === rpcMetrics.calls)!.series
    expect(series).toMatchObject({ labels: { method: check, code: 'ok' }, sum: 0.3 })
    expect(rig.meter.of(rpcMetrics.open, { method: check })).toBe(0)
  })

  test('that are streams: open as long as they are, and then ended by their caller', async () => {
    await using rig = await serving(() => Promise.resolve({}))
    const leaving = new AbortController()
    const stream = rig.health.watch({}, { signal: leaving.signal })[Symbol.asyncIterator]()
    await stream.next()
    expect(rig.meter.of(rpcMetrics.open, { method: watch })).toBe(1)
    await rig.clock.advance(seconds(20))
    leaving.abort()
    await stream.next().catch(() => {})
    await expect.poll(() => rig.meter.of(rpcMetrics.open, { method: watch }), { timeout: 10_000 }).toBe(0)
    expect(rig.meter.of(rpcMetrics.calls, { method: watch, code: 'cancelled' })).toBe(1)
  })
})
