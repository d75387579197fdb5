import type { Kysely } from 'kysely'

/** What the CA signed: no serial number twice (C-1, C-10). */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('issuances')
    .addColumn('kind', 'text', (column) => column.notNull())
    .addColumn('name', 'text', (column) => column.notNull())
    .addColumn('hash', 'text', (column) => column.notNull())
    .addColumn('spiffe_id', 'text', (column) => column.notNull())
    .addColumn('entry', 'text', (column) => column.notNull())
    .addColumn('revision', 'text', (column) => column.notNull())
    .addColumn('expires_at', 'bigint', (column) => column.notNull())
    .addColumn('outcome', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('issuances_key', ['kind', 'name'])
    .execute()
  await db.schema.createIndex('issuances_by_expiry').on('issuances').column('expires_at').execute()
}
