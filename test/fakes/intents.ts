import type { Intent, Intents, Outcome } from '../../src/ca/intents.ts'

/** Intents in memory: what a disk would hold. */
export class FakeIntents implements Intents {
  readonly unresolved: readonly Intent[]
  readonly kept: Intent[] = []
  readonly outcomes = new Map<string, Outcome>()
  /** Called with each intent before it is kept. */
  readonly #onIntent: (intent: Intent) => void

  constructor({ unresolved = [], onIntent = () => {} }: { unresolved?: readonly Intent[]; onIntent?: (intent: Intent) => void } = {}) {
    this.unresolved = unresolved
    this.#onIntent = onIntent
  }

  async intend(intent: Intent): Promise<void> {
    this.#onIntent(intent)
    this.kept.push(intent)
  }

  settle({ name }: Intent, outcome: Outcome): void {
    this.outcomes.set(name, outcome)
  }

  async keepCopied(): Promise<void> {}

  complaints(): readonly string[] {
    return []
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
