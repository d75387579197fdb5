import { deadline } from './clock.ts'
import { type Duration, seconds } from './duration.ts'

export interface ScopeOptions {
  /** How long tasks may take to end after they were told to. */
  readonly grace?: Duration
}

/**
 * Tasks that live and die together. The first failure, or `stop`, tells every task to end;
 * `finished` settles when all have, with the first failure if there was one.
 */
export class Scope implements AsyncDisposable {
  readonly #stopping = new AbortController()
  readonly #tasks = new Map<Promise<void>, string>()
  readonly #grace: Duration
  readonly #end: PromiseWithResolvers<void> = Promise.withResolvers()
  #failure: { readonly error: unknown } | undefined

  constructor(stop: AbortSignal, options: ScopeOptions = {}) {
    this.#grace = options.grace ?? seconds(10)
    this.#end.promise.catch(() => {})
    if (stop.aborted) this.stop()
    else stop.addEventListener('abort', () => this.stop(), { once: true, signal: this.#stopping.signal })
  }

  get signal(): AbortSignal {
    return this.#stopping.signal
  }

  /** Starts a task. It must end when its signal aborts; ending earlier without an error is fine. */
  run(name: string, task: (signal: AbortSignal) => Promise<void>): void {
    const running = (async () => {
      try {
        await task(this.signal)
      } catch (error) {
        if (!this.signal.aborted) this.#failure ??= { error }
        this.stop()
      }
    })()
    this.#tasks.set(running, name)
    void running.then(() => {
      this.#tasks.delete(running)
      if (this.#tasks.size === 0 && this.signal.aborted) this.#settle()
    })
  }

  /** Tells every task to end. */
  stop(): void {
    if (this.signal.aborted) return
    this.#stopping.abort()
    if (this.#tasks.size === 0) this.#settle()
    else {
      deadline(this.#grace).addEventListener('abort', () => {
        const late = [...this.#tasks.values()].join('`, `')
        this.#failure ??= { error: new Error(`\`${late}\` did not end within the grace period`) }
        this.#settle()
      })
    }
  }

  /** Settles when every task has ended after a stop or a failure. */
  get finished(): Promise<void> {
    return this.#end.promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop()
    await this.#end.promise.catch(() => {})
  }

  #settle(): void {
    if (this.#failure) this.#end.reject(this.#failure.error)
    else this.#end.resolve()
  }
}
