import type { IssuanceRecords } from '../ca/intents.ts'
import type { CaJournal } from '../ca/journal.ts'
import type { Driver } from '../kernel/driver.ts'
import type { EntryStore } from '../registry/entry.ts'
import type { TokenStore } from '../registry/join-token.ts'
import type { NodeStore } from '../registry/node.ts'
import type { PolicyStore } from '../registry/policy-documents.ts'

/** Everything that a server keeps, behind the small ports of those who ask for it. */
export interface Store extends AsyncDisposable {
  readonly entries: EntryStore
  readonly nodes: NodeStore
  readonly tokens: TokenStore
  readonly journal: CaJournal
  readonly issuances: IssuanceRecords
  readonly policies: PolicyStore
  /** Writes something that nobody reads: a store that only answers questions is not well. @throws Failure `store.failed` */
  tryWrite(): Promise<void>
}

export type StoreDriver<Config = never> = Driver<Store, Config>
export const store = <Config>(driver: StoreDriver<Config>): StoreDriver<Config> => driver
