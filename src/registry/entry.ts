import type { Instant } from '../kernel/clock.ts'
import type { Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { pathOf, trustDomainOf, type SpiffeId } from '../spiffe/id.ts'
import type { AddedClaims } from '../spiffe/claims.ts'
import { uniqueSelectors, type Selector } from '../spiffe/selector.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { mayBeTakenForHost, type SubjectAttributes } from '../x509/subject.ts'

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
  /** Laid over the subject of its certificates. */
  readonly subject?: SubjectAttributes | undefined
  /** Added to its tokens. */
  readonly claims?: AddedClaims | undefined
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

/** How a stored list compares with the one asked for: the same, within it, around it, or sharing something with it. */
export type ListMatch = 'exact' | 'subset' | 'superset' | 'any'

/** Every given condition must hold. */
export interface EntryFilter {
  readonly spiffeId?: SpiffeId
  readonly parentId?: SpiffeId
  readonly selectors?: { readonly selectors: readonly Selector[]; readonly match: ListMatch }
  readonly federatesWith?: { readonly trustDomains: readonly TrustDomain[]; readonly match: ListMatch }
  readonly hint?: string
  readonly downstream?: boolean
}

export interface Page<T> {
  readonly items: readonly T[]
  /** Where the next page begins; absent on the last. */
  readonly next?: string
}

/** What changed in the registry since somebody last looked. */
export interface EntryChanges {
  /** Where the next look begins. */
  readonly version: bigint
  /** True if `changed` holds every entry there is, and what is not in it is gone. */
  readonly whole: boolean
  readonly changed: readonly RegistrationEntry[]
  /** The ids of entries that were removed. */
  readonly removed: readonly string[]
}

/** PORT: keeps registration entries. Every write has reached the disk when its promise resolves. */
export interface EntryStore {
  /**
   * Stores it unless an entry with the same SPIFFE ID, parent and selectors exists: then that one, unchanged.
   * @throws Failure `entry.id-taken` if another entry has its id
   */
  create(entry: RegistrationEntry): Promise<{ readonly created: boolean; readonly entry: RegistrationEntry }>
  find(id: string): Promise<RegistrationEntry | undefined>
  /** In order of id; `after` is the `next` of the page before; at most `limit` (1 to 500). */
  list(filter: EntryFilter, page: { readonly after?: string; readonly limit: number }): Promise<Page<RegistrationEntry>>
  count(filter: EntryFilter): Promise<number>
  /** Replaces the entry if it still has `revision`. @throws Failure `entry.not-found`, `entry.changed-meanwhile`, `entry.similar-exists` */
  update(entry: RegistrationEntry, revision: bigint): Promise<void>
  /** The entry that was there. */
  remove(id: string): Promise<RegistrationEntry | undefined>
  /** Removes those that expired before `at`; returns their ids. */
  prune(at: Instant): Promise<readonly string[]>
  /** What any process wrote after `since`; 0n asks for everything. */
  changes(since: bigint): Promise<EntryChanges>
}

/**
 * The draft as it may be stored: every invariant of an entry holds, selectors and trust domains are sorted and unique.
 * @throws Failure `entry.id-malformed`, `entry.foreign-spiffe-id`, `entry.reserved-spiffe-id`, `entry.no-path`, `entry.foreign-parent`, `entry.no-selectors`,
 *   `entry.too-many`, `entry.ttl-negative`, `entry.hint-too-long`, `entry.dns-name-malformed`, `entry.common-name`
 */
export function checkEntry(draft: EntryDraft, trustDomain: TrustDomain): EntryDraft {
  if (draft.id !== undefined) checkId(draft.id)
  checkSpiffeId(draft.spiffeId, trustDomain)
  checkParent(draft.parentId, trustDomain)
  const selectors = uniqueSelectors(draft.selectors)
  if (selectors.length === 0) {
    throw refused('no-selectors', 'field `selectors` is empty: expected at least one selector, for example `unix:uid:1000`')
  }
  checkCount('selectors', selectors.length)
  checkCount('federates_with', draft.federatesWith.length)
  checkCount('dns_names', draft.dnsNames.length)
  checkTtl('x509_svid_ttl', draft.x509SvidTtl)
  checkTtl('jwt_svid_ttl', draft.jwtSvidTtl)
  if (draft.hint.length > maxHint) {
    throw refused('hint-too-long', `field \`hint\` has ${draft.hint.length} characters: expected at most ${maxHint}`)
  }
  for (const name of draft.dnsNames) checkDnsName(name)
  checkCommonName(draft)
  return { ...draft, selectors, federatesWith: [...new Set(draft.federatesWith)].sort() }
}

/** True for the IDs that SPIFFE's servers keep to themselves: `/spire` and everything below. */
export function isReserved(id: SpiffeId): boolean {
  const path = pathOf(id)
  return path === '/spire' || path.startsWith('/spire/')
}

function checkId(id: string): void {
  if (idPattern.test(id)) return
  throw refused('id-malformed', `field \`id\` is \`${id.slice(0, 80)}\`: expected 1 to 255 letters, digits, \`.\`, \`_\`, \`-\` or \`/\``)
}

function checkSpiffeId(id: SpiffeId, trustDomain: TrustDomain): void {
  if (trustDomainOf(id) !== trustDomain) {
    throw refused('foreign-spiffe-id', `field \`spiffe_id\` is \`${id}\`: expected an ID of the trust domain \`${trustDomain}\``)
  }
  if (pathOf(id) === '') throw refused('no-path', `field \`spiffe_id\` is \`${id}\`: expected an ID with a path`)
  if (isReserved(id)) {
    throw refused(
      'reserved-spiffe-id',
      `field \`spiffe_id\` is \`${id}\`: expected the ID of a workload, and those under \`/spire\` are reserved`,
    )
  }
}

function checkParent(id: SpiffeId, trustDomain: TrustDomain): void {
  if (trustDomainOf(id) !== trustDomain) {
    throw refused('foreign-parent', `field \`parent_id\` is \`${id}\`: expected an ID of the trust domain \`${trustDomain}\``)
  }
  if (pathOf(id) === '') throw refused('no-path', `field \`parent_id\` is \`${id}\`: expected an ID with a path`)
}

function checkCount(field: string, count: number): void {
  if (count <= maxItems) return
  throw refused('too-many', `field \`${field}\` has ${count} items: expected at most ${maxItems}`)
}

function checkTtl(field: string, ttl: Duration): void {
  if (ttl >= 0 && Number.isSafeInteger(ttl)) return
  throw refused('ttl-negative', `field \`${field}\` is ${ttl / 1000}: expected a number of seconds, 0 for the default`)
}

/** RFC 1123 section 2.1; a wildcard may stand for the first label (RFC 9525 section 6.3). */
function checkDnsName(name: string): void {
  const labels = (name.startsWith('*.') ? name.slice(2) : name).split('.')
  if (name.length <= maxDnsName && labels.every((label) => dnsLabel.test(label))) return
  throw refused(
    'dns-name-malformed',
    `field \`dns_names\` holds \`${name.slice(0, 80)}\`: expected a DNS name, for example \`web.example.org\``,
  )
}

/** Some verifiers take a common name for the host where no DNS name is there, and not one of the entry's is to say so (RFC 6125 section 6.4.4). */
function checkCommonName({ subject, dnsNames }: EntryDraft): void {
  const name = subject?.commonName
  if (name === undefined || dnsNames.includes(name) || !mayBeTakenForHost(name)) return
  throw refused(
    'common-name',
    `field \`subject\` holds the common name \`${name}\`, which may be taken for a host: expected one of \`dns_names\`, or a name with a space`,
  )
}

function refused(what: string, text: string): Failure {
  return new Failure('invalid_argument', `entry.${what}`, { public: text })
}

const idPattern = /^[a-zA-Z0-9._/-]{1,255}$/
const dnsLabel = /^[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?$/
/** RFC 1035 section 2.3.4, in presentation form. */
const maxDnsName = 253
/** SPIFFE Workload API section 5.2.1 leaves the length open; SPIRE's limit. */
const maxHint = 1024
const maxItems = 256
