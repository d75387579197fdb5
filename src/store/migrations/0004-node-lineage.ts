import { sql, type Kysely } from 'kysely'

/** Every certificate of an agent that may still be seen: what waits for its first use, what was replaced, and who was seen with a copy (C-29). */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const list of ['pending', 'superseded']) {
    await db.schema
      .alterTable('nodes')
      .addColumn(list, 'text', (column) => column.notNull().defaultTo('[]'))
      .execute()
  }
  await db.schema.alterTable('nodes').addColumn('frozen', 'text').execute()
  const waiting = sql<{ id: string; serial: string; expiresAt: number }>`
    select id, pending_serial as serial, pending_expires_at as "expiresAt" from nodes where pending_serial is not null`
  for (const { id, serial, expiresAt } of (await waiting.execute(db)).rows) {
    await sql`update nodes set pending = ${JSON.stringify([{ serial, expiresAt }])} where id = ${id}`.execute(db)
  }
  await db.schema.alterTable('nodes').dropColumn('pending_serial').execute()
  await db.schema.alterTable('nodes').dropColumn('pending_expires_at').execute()
}
