import type { Kysely } from 'kysely'

/** Who put a policy set in force, how it is to be read, and who signed it. */
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
}
