import type { Kysely } from 'kysely'

/** The registry, the CA's journal and the policies. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('counters')
    .addColumn('name', 'text', (column) => column.primaryKey())
    .addColumn('value', 'bigint', (column) => column.notNull())
    .execute()
  await db.schema
    .createTable('entries')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('spiffe_id', 'text', (column) => column.notNull())
    .addColumn('parent_id', 'text', (column) => column.notNull())
    .addColumn('selectors', 'text', (column) => column.notNull())
    .addColumn('selectors_digest', 'text', (column) => column.notNull())
    .addColumn('x509_svid_ttl_ms', 'bigint', (column) => column.notNull())
    .addColumn('jwt_svid_ttl_ms', 'bigint', (column) => column.notNull())
    .addColumn('federates_with', 'text', (column) => column.notNull())
    .addColumn('admin', 'integer', (column) => column.notNull())
    .addColumn('downstream', 'integer', (column) => column.notNull())
    .addColumn('store_svid', 'integer', (column) => column.notNull())
    .addColumn('expires_at', 'bigint')
    .addColumn('dns_names', 'text', (column) => column.notNull())
    .addColumn('hint', 'text', (column) => column.notNull())
    .addColumn('disable_x509_svid_prefetch', 'integer', (column) => column.notNull())
    .addColumn('jwt_svid_include_jti', 'integer', (column) => column.notNull())
    .addColumn('revision', 'bigint', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('change', 'bigint', (column) => column.notNull())
    .addUniqueConstraint('entries_similar', ['spiffe_id', 'parent_id', 'selectors_digest'])
    .execute()
  await db.schema.createIndex('entries_by_parent').on('entries').column('parent_id').execute()
  await db.schema.createIndex('entries_by_change').on('entries').column('change').execute()
  await db.schema.createIndex('entries_by_expiry').on('entries').column('expires_at').execute()
  await db.schema
    .createTable('removed_entries')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('change', 'bigint', (column) => column.notNull())
    .execute()
  await db.schema.createIndex('removed_entries_by_change').on('removed_entries').column('change').execute()
  await db.schema
    .createTable('nodes')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('attestation_type', 'text', (column) => column.notNull())
    .addColumn('serial', 'text', (column) => column.notNull())
    .addColumn('expires_at', 'bigint', (column) => column.notNull())
    .addColumn('pending_serial', 'text')
    .addColumn('pending_expires_at', 'bigint')
    .addColumn('selectors', 'text', (column) => column.notNull())
    .addColumn('can_reattest', 'integer', (column) => column.notNull())
    .addColumn('banned', 'integer', (column) => column.notNull())
    .addColumn('agent_version', 'text', (column) => column.notNull())
    .execute()
  await listTable(db, 'entry_selectors', 'entries')
  await listTable(db, 'entry_federations', 'entries')
  await listTable(db, 'node_selectors', 'nodes')
  await db.schema
    .createTable('join_tokens')
    .addColumn('digest', 'text', (column) => column.primaryKey())
    .addColumn('expires_at', 'bigint', (column) => column.notNull())
    .execute()
  await db.schema
    .createTable('ca_journals')
    .addColumn('server_id', 'text', (column) => column.primaryKey())
    .addColumn('revision', 'bigint', (column) => column.notNull())
    .addColumn('record', 'text', (column) => column.notNull())
    .execute()
  await db.schema
    .createTable('policy_sets')
    .addColumn('serial', 'integer', (column) => column.primaryKey().autoIncrement())
    .addColumn('version', 'text', (column) => column.notNull())
    .addColumn('applied_at', 'bigint', (column) => column.notNull())
    .addColumn('documents', 'text', (column) => column.notNull())
    .execute()
}

/** A list that belongs to a row of another table, and goes with it. */
async function listTable(db: Kysely<unknown>, name: string, of: string): Promise<void> {
  await db.schema
    .createTable(name)
    .addColumn('owner', 'text', (column) => column.notNull().references(`${of}.id`).onDelete('cascade'))
    .addColumn('item', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint(`${name}_key`, ['owner', 'item'])
    .execute()
  await db.schema.createIndex(`${name}_by_item`).on(name).column('item').execute()
}
