/** Counts the calls of a listener. */
import type { Clock, Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { type Meter, silentMeter, type Timing } from '../kernel/meter.ts'
import type { Wrap } from './handler.ts'
import { rpcMetrics } from './metrics.ts'
import { codeNameOf } from './status.ts'

/** Measures what stands behind it: how many calls of each method are open, how they end and after what time. Where nothing is counted, what stands behind it alone. */
export function measured<Peer>(
  { meter, clock }: { readonly meter: Meter; readonly clock: Clock },
  within?: Wrap<Peer>,
): Wrap<Peer> | undefined {
  if (meter === silentMeter) return within
  const open = new Map<string, number>()
  const answered = new Map<string, Timing>()
  meter.gauge(rpcMetrics.open, () => [...open].map(([method, value]) => ({ labels: { method }, value })))

  const end = (method: string, from: Instant, failure: Failure | undefined) => {
    open.set(method, (open.get(method) ?? 1) - 1)
    if (failure) {
      meter.counter(rpcMetrics.refusals, { reason: failure.reason }).add()
      meter.timing(rpcMetrics.calls, { method, code: codeNameOf(failure.category) }).record(clock.now() - from)
      return
    }
    let timing = answered.get(method)
    if (!timing) answered.set(method, (timing = meter.timing(rpcMetrics.calls, { method, code: 'ok' })))
    timing.record(clock.now() - from)
  }

  return async (call, next) => {
    const { method } = call
    const from = clock.now()
    open.set(method, (open.get(method) ?? 0) + 1)
    try {
      await (within ? within(call, next) : next())
    } catch (thrown) {
      end(method, from, Failure.from(call.signal.aborted ? call.signal.reason : thrown))
      throw thrown
    }
    end(method, from, call.signal.aborted ? Failure.from(call.signal.reason) : undefined)
  }
}
