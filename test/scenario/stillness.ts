/** Whether this process has anything to do that time alone does not bring: how a world on a fake clock knows that everybody is done. */
import { setTimeout as pause } from 'node:timers/promises'
import { performance } from 'node:perf_hooks'
import { working } from '../fakes/work-under-way.ts'

/** Calls that somebody waits for, by object. */
export class Calls {
  readonly #open = new Map<symbol, string>()

  get open(): readonly string[] {
    return [...this.#open.values()]
  }

  /** The same object; whoever calls it is seen to wait for what its promises bring. */
  of<T extends object>(called: T): T {
    return new Proxy(called, {
      get: (target, key) => {
        const found: unknown = Reflect.get(target, key, target)
        if (typeof found !== 'function') return found
        return (...args: unknown[]): unknown => {
          const result: unknown = Reflect.apply(found, target, args)
          return result instanceof Promise ? this.#noted(String(key), result) : result
        }
      },
    })
  }

  async #noted<R>(name: string, result: Promise<R>): Promise<R> {
    const call = Symbol(name)
    this.#open.set(call, name)
    try {
      return await result
    } finally {
      this.#open.delete(call)
    }
  }
}

/**
 * Resolves when nobody waits for a call, no other thread works for us, and the event loop brings nothing new for a while: what goes on from here waits for the clock.
 * How many tasks there are, and how many of them sleep, does not matter.
 * @throws Error saying what goes on, after `longestMs` of real time
 */
export async function stillness(calls: Calls, longestMs: number): Promise<void> {
  const end = performance.now() + longestMs
  for (let calm = 0; calm < turns;) {
    const before = events()
    // What one socket of this process was told, another one has; only its turn may be late.
    if (calm === turns - 1) await pause(1)
    else await new Promise((resolve) => setImmediate(resolve))
    const isCalm = calls.open.length === 0 && working().length === 0 && events() === before
    calm = isCalm ? calm + 1 : 0
    if (performance.now() > end) throw new Error(`there is no end to it: ${[...calls.open, ...working()].join(', ')}`)
  }
}

/** Everything that the event loop ever took up from outside, timers aside. */
const events = (): number => performance.nodeTiming.uvMetricsInfo.events
const turns = 10
