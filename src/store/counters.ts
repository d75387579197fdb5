import type { Database } from './schema.ts'

/** Adds one to a counter and returns what it is now. */
export async function countUp(db: Database, name: string): Promise<number> {
  const row = await db
    .insertInto('counters')
    .values({ name, value: 1 })
    .onConflict((conflict) => conflict.column('name').doUpdateSet((eb) => ({ value: eb('counters.value', '+', 1) })))
    .returning('value')
    .executeTakeFirstOrThrow()
  return row.value
}

export async function setCounter(db: Database, name: string, value: number): Promise<void> {
  await db
    .insertInto('counters')
    .values({ name, value })
    .onConflict((conflict) => conflict.column('name').doUpdateSet({ value }))
    .execute()
}

/** What a counter is now; 0 before it was first used. */
export async function counterValue(db: Database, name: string): Promise<number> {
  return (await db.selectFrom('counters').select('value').where('name', '=', name).executeTakeFirst())?.value ?? 0
}
