/** A reader of what strangers send, and what must be true of it whatever it is fed. */
export interface Target {
  readonly name: string
  /** What is read, in one line. */
  readonly about: string
  /** Good inputs to start from, made by our own code. */
  seeds(): Promise<readonly Uint8Array[]>
  /** Words of the format, to be put in anywhere; where no character is above U+00FF, each is one byte. */
  readonly words: readonly string[]
  /** Reads. A Failure is a refusal; anything else that is thrown is a finding. */
  feed(input: Uint8Array): void | Promise<void>
  /** Ends what `seeds` opened. */
  close?(): Promise<void>
}

/** A finding, where something is accepted that may not be. */
export function promise(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`a promise is broken: ${what}`)
}

export const text = (input: Uint8Array): string => Buffer.from(input.buffer, input.byteOffset, input.byteLength).toString('utf8')
export const bytes = (content: string): Uint8Array => Buffer.from(content, 'utf8')
