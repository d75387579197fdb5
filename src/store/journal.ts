/** The CA's journals, in a table: one record for each server. */
import type { Kysely } from 'kysely'
import type { CaJournal } from '../ca/journal.ts'
import { Failure } from '../kernel/failure.ts'
import type { Tables } from './schema.ts'
import type { Writes } from './writes.ts'

export function journalTable(db: Kysely<Tables>, writes: Writes): CaJournal {
  return {
    async read(serverId) {
      const row = await db.selectFrom('ca_journals').selectAll().where('server_id', '=', serverId).executeTakeFirst()
      return row && { record: row.record, revision: BigInt(row.revision) }
    },
    async others(serverId) {
      const rows = await db.selectFrom('ca_journals').select('record').where('server_id', '!=', serverId).limit(maxServers).execute()
      if (rows.length < maxServers) return rows.map(({ record }) => record)
      throw new Failure('resource_exhausted', 'journal.too-many', {
        public: `there are ${maxServers} journals or more: remove those of servers that are gone`,
      })
    },
    write: (serverId, record, revision) =>
      writes.run(async (tx) => {
        const stored = await tx.selectFrom('ca_journals').select('revision').where('server_id', '=', serverId).executeTakeFirst()
        if (BigInt(stored?.revision ?? 0) !== revision) {
          throw new Failure('failed_precondition', 'journal.changed-meanwhile', {
            public: `the journal of \`${serverId}\` has revision ${stored?.revision ?? 0}: expected ${revision}; is another server running under this name?`,
          })
        }
        const next = { record, revision: Number(revision) + 1 }
        await tx
          .insertInto('ca_journals')
          .values({ server_id: serverId, ...next })
          .onConflict((conflict) => conflict.column('server_id').doUpdateSet(next))
          .execute()
      }),
  }
}

const maxServers = 1000
