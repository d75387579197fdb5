import { type Watched, WatchedValue } from '../kernel/watched.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { WorkloadIdentities } from './identities.ts'

/** Who keeps groups up to date. */
export interface GroupKeeper {
  /** Brings all groups up to this moment: nothing that expired is in them afterwards. */
  refresh(): void
  /** Somebody watches the group from now on, or nobody does any more. */
  watched(group: SelectorGroup, yes: boolean): void
}

/** What all processes with the same selectors hold. Watching one is watching its identities. */
export class SelectorGroup implements Watched<WorkloadIdentities> {
  readonly selectors: readonly Selector[]
  readonly #identities: WatchedValue<WorkloadIdentities>
  readonly #entries = new WatchedValue<readonly RegistrationEntry[]>([])
  readonly #keeper: GroupKeeper
  #watchers = 0

  constructor(selectors: readonly Selector[], initial: WorkloadIdentities, keeper: GroupKeeper) {
    this.selectors = selectors
    this.#identities = new WatchedValue(initial)
    this.#keeper = keeper
  }

  get current(): WorkloadIdentities {
    this.#keeper.refresh()
    return this.#identities.current
  }

  /** The entries that match, that of the default identity first. */
  get entries(): readonly RegistrationEntry[] {
    return this.#entries.current
  }

  /** The identities as they were last published. */
  get published(): WorkloadIdentities {
    return this.#identities.current
  }

  changes(signal: AbortSignal): AsyncGenerator<WorkloadIdentities, void, void> {
    this.#keeper.refresh()
    return this.#follow(this.#identities, signal)
  }

  entryChanges(signal: AbortSignal): AsyncGenerator<readonly RegistrationEntry[], void, void> {
    return this.#follow(this.#entries, signal)
  }

  publish(identities: WorkloadIdentities): void {
    this.#identities.set(identities)
  }

  match(entries: readonly RegistrationEntry[]): void {
    this.#entries.set(entries)
  }

  async *#follow<T>(watched: Watched<T>, signal: AbortSignal): AsyncGenerator<T, void, void> {
    if (this.#watchers++ === 0) this.#keeper.watched(this, true)
    try {
      yield* watched.changes(signal)
    } finally {
      if (--this.#watchers === 0) this.#keeper.watched(this, false)
    }
  }
}
