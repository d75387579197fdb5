import type { Kysely } from 'kysely'

/** What entries add to their SVIDs: JSON objects. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const name of ['subject', 'claims']) await db.schema.alterTable('entries').addColumn(name, 'text').execute()
}
