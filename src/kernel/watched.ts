/** A value that changes, seen by readers: what it is now, and what it becomes. */
export interface Watched<T> {
  readonly current: T
  /**
   * The current value at once, then each later one. A slow reader skips to the latest.
   * Ends quietly when `signal` aborts or when the value is closed; throws what it was closed with.
   */
  changes(signal: AbortSignal): AsyncGenerator<T, void, void>
}

/** The writing side of a {@link Watched}. */
export class WatchedValue<T> implements Watched<T> {
  #value: T
  #version = 0
  #closed: { readonly error?: unknown } | undefined
  readonly #waiting = new Set<() => void>()

  constructor(initial: T) {
    this.#value = initial
  }

  get current(): T {
    return this.#value
  }

  /** Publishes `value` to every reader. After close() it does nothing. */
  set(value: T): void {
    if (this.#closed) return
    this.#value = value
    this.#version++
    this.#wake()
  }

  /** Ends every reader: quietly, or with `error` if one is given. */
  close(error?: unknown): void {
    this.#closed ??= error === undefined ? {} : { error }
    this.#wake()
  }

  async *changes(signal: AbortSignal): AsyncGenerator<T, void, void> {
    let seen = -1
    while (!signal.aborted) {
      if (this.#version !== seen) {
        seen = this.#version
        yield this.#value
        continue
      }
      if (this.#closed) {
        if ('error' in this.#closed) throw this.#closed.error
        return
      }
      await this.#next(signal)
    }
  }

  #next(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      signal.addEventListener('abort', wake, { once: true })
    })
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake()
  }
}

/** The first value, now or later, that `test` accepts; rejects with the signal's reason if it aborts first. */
export async function firstOf<T>(watched: Watched<T>, test: (value: T) => boolean, signal: AbortSignal): Promise<T> {
  for await (const value of watched.changes(signal)) if (test(value)) return value
  signal.throwIfAborted()
  throw new Error('bug: a watched value was closed while somebody waited for it')
}
