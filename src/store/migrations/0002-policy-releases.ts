import type { Kysely } from 'kysely'

/** Who put a policy set in force, how it is to be read, and who signed it; and the set that is tried beside it. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .alterTable('policy_sets')
    .addColumn('options', 'text', (column) => column.notNull().defaultTo('{}'))
    .execute()
  await db.schema.alterTable('policy_sets').addColumn('signature', 'text').execute()
  await db.schema
    .alterTable('policy_sets')
    .addColumn('applied_by', 'text', (column) => column.notNull().defaultTo(''))
    .execute()
  await db.schema
    .createTable('policy_candidate')
    .addColumn('id', 'integer', (column) => column.primaryKey())
    .addColumn('version', 'text', (column) => column.notNull())
    .addColumn('documents', 'text', (column) => column.notNull())
    .addColumn('options', 'text', (column) => column.notNull())
    .addColumn('started_at', 'bigint', (column) => column.notNull())
    .addColumn('started_by', 'text', (column) => column.notNull())
    .execute()
}
