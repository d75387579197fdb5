import { Kysely, type Dialect } from 'kysely'
import { countUp } from './counters.ts'
import { entryTables } from './entries.ts'
import { issuanceTable } from './issuances.ts'
import { journalTable } from './journal.ts'
import { migrate } from './migrate.ts'
import { nodeTables } from './nodes.ts'
import { policyTable } from './policies.ts'
import type { Tables } from './schema.ts'
import type { Store } from './store.ts'
import { tokenTable } from './tokens.ts'
import { Writes } from './writes.ts'

/** A store on an SQL database: brings its tables up to date and opens the ports over them. @throws Failure `store.schema-too-new` */
export async function openTables(dialect: Dialect): Promise<Store> {
  const db = new Kysely<Tables>({ dialect })
  try {
    await migrate(db)
  } catch (error) {
    await db.destroy()
    throw error
  }
  const writes = new Writes(db)
  return {
    entries: entryTables(db, writes),
    nodes: nodeTables(db, writes),
    tokens: tokenTable(writes),
    journal: journalTable(db, writes),
    issuances: issuanceTable(writes),
    policies: policyTable(db, writes),
    async tryWrite() {
      await writes.run((tx) => countUp(tx, 'tries'))
    },
    async [Symbol.asyncDispose]() {
      await writes.settled()
      await db.destroy()
    },
  }
}
