/** Counts what a store could not do. */
import { Failure } from '../kernel/failure.ts'
import { type Meter, silentMeter } from '../kernel/meter.ts'
import { storeMetrics } from './metrics.ts'
import type { Store } from './store.ts'

/** The same store; where one of its ports fails by its own fault, that is counted. A refusal of what was asked (there is none, it is taken) is none. */
export function measured(store: Store, meter: Meter): Store {
  if (meter === silentMeter) return store
  const failed = (thrown: unknown) => {
    const { category, reason } = Failure.from(thrown, 'store.failed')
    if (faults.has(category)) meter.counter(storeMetrics.failures, { reason }).add()
    throw thrown
  }
  const watched = <Port extends object>(port: Port): Port =>
    new Proxy(port, {
      get(target, name) {
        const method: unknown = Reflect.get(target, name)
        if (typeof method !== 'function') return method
        return (...args: unknown[]): unknown => {
          const answer: unknown = Reflect.apply(method, target, args)
          return answer instanceof Promise ? answer.catch(failed) : answer
        }
      },
    })
  return {
    entries: watched(store.entries),
    nodes: watched(store.nodes),
    tokens: watched(store.tokens),
    journal: watched(store.journal),
    issuances: watched(store.issuances),
    policies: watched(store.policies),
    tryWrite: () => store.tryWrite().catch(failed),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  }
}

const faults: ReadonlySet<string> = new Set<Failure['category']>(['internal', 'unavailable', 'resource_exhausted', 'deadline_exceeded'])
