import type { CaJournal } from '../../src/ca/journal.ts'
import { Failure } from '../../src/kernel/failure.ts'

/** Journals in memory. What was written stays when whoever wrote it is gone, as on a disk. */
export class FakeJournal implements CaJournal {
  readonly #records = new Map<string, { readonly record: string; readonly revision: bigint }>()
  /** How many writes arrived. */
  writes = 0

  async read(serverId: string): Promise<{ readonly record: string; readonly revision: bigint } | undefined> {
    return this.#records.get(serverId)
  }

  async others(serverId: string): Promise<readonly string[]> {
    return [...this.#records].filter(([id]) => id !== serverId).map(([, { record }]) => record)
  }

  async write(serverId: string, record: string, revision: bigint): Promise<void> {
    const stored = this.#records.get(serverId)?.revision ?? 0n
    if (stored !== revision)
      throw new Failure('failed_precondition', 'journal.changed-meanwhile', { public: 'the journal was changed meanwhile' })
    this.#records.set(serverId, { record, revision: revision + 1n })
    this.writes++
  }
}
