/** The registration entries, in tables. */
import { createHash } from 'node:crypto'
import type { Insertable, Kysely, SelectQueryBuilder, Transaction } from 'kysely'
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { EntryChanges, EntryFilter, EntryStore, RegistrationEntry } from '../registry/entry.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { counterValue, countUp, setCounter } from './counters.ts'
import { addList, listMatches, readSelectors, replaceList, selectorItems, writeSelectors } from './lists.ts'
import { pageOf } from './page.ts'
import type { Database, EntryRow, Tables } from './schema.ts'
import type { Writes } from './writes.ts'

export function entryTables(db: Kysely<Tables>, writes: Writes): EntryStore {
  return {
    create: (entry) => writes.run((tx) => create(tx, entry)),
    find: (id) => findEntry(db, id),
    async list(filter, page) {
      let query = filtered(db.selectFrom('entries'), filter)
      if (page.after !== undefined) query = query.where('entries.id', '>', page.after)
      const rows = await query
        .selectAll('entries')
        .orderBy('entries.id')
        .limit(page.limit + 1)
        .execute()
      return pageOf(rows.map(fromRow), page.limit)
    },
    async count(filter) {
      const row = await filtered(db.selectFrom('entries'), filter)
        .select((eb) => eb.fn.countAll<number>().as('count'))
        .executeTakeFirstOrThrow()
      return row.count
    },
    update: (entry, revision) => writes.run((tx) => update(tx, entry, revision)),
    remove: (id) => writes.run((tx) => remove(tx, id)),
    prune: (at) => writes.run((tx) => prune(tx, at)),
    changes: (since) => changes(db, since),
  }
}

async function create(
  tx: Transaction<Tables>,
  entry: RegistrationEntry,
): Promise<{ readonly created: boolean; readonly entry: RegistrationEntry }> {
  const similar = await findSimilar(tx, entry)
  if (similar) return { created: false, entry: similar }
  if (await findEntry(tx, entry.id)) {
    throw new Failure('already_exists', 'entry.id-taken', { public: `another entry has the id \`${entry.id}\`` })
  }
  await tx
    .insertInto('entries')
    .values(toRow(entry, await countUp(tx, counter)))
    .execute()
  await tx.deleteFrom('removed_entries').where('id', '=', entry.id).execute()
  await addList(tx, 'entry_selectors', entry.id, selectorItems(entry.selectors))
  await addList(tx, 'entry_federations', entry.id, entry.federatesWith)
  return { created: true, entry }
}

async function update(tx: Transaction<Tables>, entry: RegistrationEntry, revision: bigint): Promise<void> {
  const stored = await tx.selectFrom('entries').select('revision').where('id', '=', entry.id).executeTakeFirst()
  if (!stored) throw new Failure('not_found', 'entry.not-found', { public: `there is no entry \`${entry.id}\`` })
  if (BigInt(stored.revision) !== revision) {
    throw new Failure('failed_precondition', 'entry.changed-meanwhile', {
      public: `entry \`${entry.id}\` has revision ${stored.revision}: expected ${revision}; read it again and repeat the change`,
    })
  }
  const similar = await findSimilar(tx, entry)
  if (similar && similar.id !== entry.id) {
    throw new Failure('already_exists', 'entry.similar-exists', {
      public: `entry \`${similar.id}\` has the same SPIFFE ID, parent and selectors`,
    })
  }
  await tx
    .updateTable('entries')
    .set(toRow(entry, await countUp(tx, counter)))
    .where('id', '=', entry.id)
    .execute()
  await replaceList(tx, 'entry_selectors', entry.id, selectorItems(entry.selectors))
  await replaceList(tx, 'entry_federations', entry.id, entry.federatesWith)
}

async function remove(tx: Transaction<Tables>, id: string): Promise<RegistrationEntry | undefined> {
  const entry = await findEntry(tx, id)
  if (!entry) return undefined
  const change = await countUp(tx, counter)
  await tx.deleteFrom('entries').where('id', '=', id).execute()
  await tx.insertInto('removed_entries').values({ id, change }).execute()
  return entry
}

async function prune(tx: Transaction<Tables>, at: Instant): Promise<readonly string[]> {
  const expired = await tx.selectFrom('entries').select('id').where('expires_at', '<', at).limit(maxPruned).execute()
  for (const { id } of expired) await remove(tx, id)
  await forgetRemoved(tx)
  return expired.map(({ id }) => id)
}

/** Removals are remembered for a while only; who has not looked since then gets everything. */
async function forgetRemoved(tx: Transaction<Tables>): Promise<void> {
  const horizon = (await counterValue(tx, counter)) - rememberedChanges
  if (horizon <= (await counterValue(tx, horizonCounter))) return
  await tx.deleteFrom('removed_entries').where('change', '<=', horizon).execute()
  await setCounter(tx, horizonCounter, horizon)
}

async function changes(db: Kysely<Tables>, since: bigint): Promise<EntryChanges> {
  // Mostly nothing changed, and one read of one row says so.
  if (since !== 0n && BigInt(await counterValue(db, counter)) === since) return { version: since, whole: false, changed: [], removed: [] }
  return db.transaction().execute(async (tx) => {
    const version = await counterValue(tx, counter)
    const whole = since < BigInt(await counterValue(tx, horizonCounter)) || since === 0n || since > BigInt(version)
    const after = whole ? 0 : Number(since)
    const rows = await tx.selectFrom('entries').selectAll().where('change', '>', after).execute()
    const removed = whole ? [] : await tx.selectFrom('removed_entries').select('id').where('change', '>', after).execute()
    return { version: BigInt(version), whole, changed: rows.map(fromRow), removed: removed.map(({ id }) => id) }
  })
}

async function findEntry(db: Database, id: string): Promise<RegistrationEntry | undefined> {
  const row = await db.selectFrom('entries').selectAll().where('id', '=', id).executeTakeFirst()
  return row && fromRow(row)
}

async function findSimilar(db: Database, entry: RegistrationEntry): Promise<RegistrationEntry | undefined> {
  const row = await db
    .selectFrom('entries')
    .selectAll()
    .where('spiffe_id', '=', entry.spiffeId)
    .where('parent_id', '=', entry.parentId)
    .where('selectors_digest', '=', digestOf(writeSelectors(entry.selectors)))
    .executeTakeFirst()
  return row && fromRow(row)
}

function filtered<T>(query: SelectQueryBuilder<Tables, 'entries', T>, filter: EntryFilter): SelectQueryBuilder<Tables, 'entries', T> {
  let narrowed = query
  const { selectors, federatesWith } = filter
  if (filter.spiffeId !== undefined) narrowed = narrowed.where('entries.spiffe_id', '=', filter.spiffeId)
  if (filter.parentId !== undefined) narrowed = narrowed.where('entries.parent_id', '=', filter.parentId)
  if (filter.hint !== undefined) narrowed = narrowed.where('entries.hint', '=', filter.hint)
  if (filter.downstream !== undefined) narrowed = narrowed.where('entries.downstream', '=', Number(filter.downstream))
  if (selectors)
    narrowed = narrowed.where((eb) => listMatches(eb, 'entries', 'entry_selectors', selectorItems(selectors.selectors), selectors.match))
  if (federatesWith)
    narrowed = narrowed.where((eb) => listMatches(eb, 'entries', 'entry_federations', federatesWith.trustDomains, federatesWith.match))
  return narrowed
}

function toRow(entry: RegistrationEntry, change: number): Insertable<EntryRow> {
  const selectors = writeSelectors(entry.selectors)
  return {
    id: entry.id,
    spiffe_id: entry.spiffeId,
    parent_id: entry.parentId,
    selectors,
    selectors_digest: digestOf(selectors),
    x509_svid_ttl_ms: entry.x509SvidTtl,
    jwt_svid_ttl_ms: entry.jwtSvidTtl,
    federates_with: JSON.stringify(entry.federatesWith),
    admin: Number(entry.admin),
    downstream: Number(entry.downstream),
    store_svid: Number(entry.storeSvid),
    expires_at: entry.expiresAt ?? null,
    dns_names: JSON.stringify(entry.dnsNames),
    subject: entry.subject ? JSON.stringify(entry.subject) : null,
    claims: entry.claims ? JSON.stringify(entry.claims) : null,
    hint: entry.hint,
    disable_x509_svid_prefetch: Number(entry.disableX509SvidPrefetch),
    jwt_svid_include_jti: Number(entry.jwtSvidIncludeJti),
    revision: Number(entry.revision),
    created_at: entry.createdAt,
    change,
  }
}

/** What is in the tables was checked before it was written. */
function fromRow(row: EntryRow): RegistrationEntry {
  return {
    id: row.id,
    spiffeId: row.spiffe_id as SpiffeId,
    parentId: row.parent_id as SpiffeId,
    selectors: readSelectors(row.selectors),
    x509SvidTtl: row.x509_svid_ttl_ms,
    jwtSvidTtl: row.jwt_svid_ttl_ms,
    federatesWith: JSON.parse(row.federates_with) as TrustDomain[],
    admin: row.admin === 1,
    downstream: row.downstream === 1,
    storeSvid: row.store_svid === 1,
    ...(row.expires_at === null ? {} : { expiresAt: row.expires_at }),
    dnsNames: JSON.parse(row.dns_names) as string[],
    ...(row.subject === null ? {} : { subject: JSON.parse(row.subject) as NonNullable<RegistrationEntry['subject']> }),
    ...(row.claims === null ? {} : { claims: JSON.parse(row.claims) as NonNullable<RegistrationEntry['claims']> }),
    hint: row.hint,
    disableX509SvidPrefetch: row.disable_x509_svid_prefetch === 1,
    jwtSvidIncludeJti: row.jwt_svid_include_jti === 1,
    revision: BigInt(row.revision),
    createdAt: row.created_at,
  }
}

const digestOf = (text: string): string => createHash('sha256').update(text).digest('hex')

/** Grows with each write to the entries. */
const counter = 'entries'
/** The last change whose removals may have been forgotten. */
const horizonCounter = 'entries.horizon'
const rememberedChanges = 100_000
const maxPruned = 10_000
