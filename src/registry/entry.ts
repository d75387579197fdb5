import type { Instant } from '../kernel/clock.ts'
import type { Duration } from '../kernel/duration.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'

/** Who may hold which identity: workloads under `parentId` that satisfy every selector get `spiffeId`. */
export interface RegistrationEntry {
  readonly id: string
  readonly spiffeId: SpiffeId
  readonly parentId: SpiffeId
  /** At least one; sorted, each once. */
  readonly selectors: readonly Selector[]
  /** 0 means the default of the server's profile. */
  readonly x509SvidTtl: Duration
  readonly jwtSvidTtl: Duration
  readonly federatesWith: readonly TrustDomain[]
  readonly admin: boolean
  readonly downstream: boolean
  readonly storeSvid: boolean
  readonly expiresAt?: Instant
  readonly dnsNames: readonly string[]
  /** Tells the workload which of several identities this is. */
  readonly hint: string
  readonly disableX509SvidPrefetch: boolean
  readonly jwtSvidIncludeJti: boolean
  /** 0 when created, one more with each update. */
  readonly revision: bigint
  readonly createdAt: Instant
}

/** An entry as somebody asks for it: without what the registry decides itself. */
export type EntryDraft = Omit<RegistrationEntry, 'id' | 'revision' | 'createdAt'> & { readonly id?: string }

export interface EntryFilter {
  readonly spiffeId?: SpiffeId
  readonly parentId?: SpiffeId
  readonly selectors?: { readonly selectors: readonly Selector[]; readonly match: 'exact' | 'subset' | 'superset' | 'any' }
  readonly federatesWith?: { readonly trustDomains: readonly TrustDomain[]; readonly match: 'exact' | 'subset' | 'superset' | 'any' }
  readonly hint?: string
  readonly downstream?: boolean
}

export interface Page<T> {
  readonly items: readonly T[]
  /** Where the next page begins; absent on the last. */
  readonly next?: string
}

/** PORT: keeps registration entries. Every write has reached the disk when its promise resolves. */
export interface EntryStore {
  /** Stores it unless an entry with the same SPIFFE ID, parent and selectors exists: then that one, unchanged. */
  create(entry: RegistrationEntry): Promise<{ readonly created: boolean; readonly entry: RegistrationEntry }>
  find(id: string): Promise<RegistrationEntry | undefined>
  /** In order of id; `after` is the `next` of the page before; at most `limit` (1 to 500). */
  list(filter: EntryFilter, page: { readonly after?: string; readonly limit: number }): Promise<Page<RegistrationEntry>>
  count(filter: EntryFilter): Promise<number>
  /** Replaces the entry if it still has `revision`. @throws Failure `entry.not-found`, `entry.changed-meanwhile` */
  update(entry: RegistrationEntry, revision: bigint): Promise<void>
  /** The entry that was there. */
  remove(id: string): Promise<RegistrationEntry | undefined>
  /** Every entry there is, for the cache of entitlements. */
  all(): Promise<readonly RegistrationEntry[]>
  /** Grows with each write of any process. */
  version(): Promise<bigint>
}
