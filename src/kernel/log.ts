/** What a log line may carry: plain values, never a {@link Secret}. */
export type LogField = string | number | boolean | bigint | null | undefined | readonly LogField[] | { readonly [key: string]: LogField }
export type LogFields = Readonly<Record<string, LogField>>

/** Where rooms write what they did. The real one is opened in `main/log.ts`. */
export interface Log {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
  /** A log whose lines all carry these fields. */
  with(fields: LogFields): Log
}

/** Writes nothing. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {}, with: () => silentLog }

/**
 * A value that must not be shown. It has no enumerable content: printing, JSON and string conversion say `[secret]`.
 * `reveal()` is the only way to it.
 */
export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
  }

  reveal(): string {
    return this.#value
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[secret]'
  }
}
