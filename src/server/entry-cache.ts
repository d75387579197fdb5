import { EntryIndex } from '../registry/entitlements.ts'
import type { EntryStore } from '../registry/entry.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'

/** The registry in memory, brought up to date with what changed whenever somebody looks. */
export class EntryCache {
  readonly #store: Pick<EntryStore, 'changes'>
  readonly #index: EntryIndex
  #version = 0n
  #refreshing: Promise<void> | undefined

  constructor(store: Pick<EntryStore, 'changes'>, trustDomain: TrustDomain) {
    this.#store = store
    this.#index = new EntryIndex(trustDomain)
  }

  /** The index with every write that was acknowledged before the call. */
  async current(): Promise<EntryIndex> {
    // A refresh that is under way may have begun before the write that the caller has to see.
    await this.#refreshing
    this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = undefined))
    await this.#refreshing
    return this.#index
  }

  async #refresh(): Promise<void> {
    const changes = await this.#store.changes(this.#version)
    this.#index.apply(changes)
    this.#version = changes.version
  }
}
