/** What was issued, in a table: one row a signature, until it expires. */
import type { IssuanceRecords } from '../ca/intents.ts'
import type { Writes } from './writes.ts'

export function issuanceTable(writes: Writes): IssuanceRecords {
  return {
    put: (records) =>
      writes.run(async (tx) => {
        if (records.length === 0) return []
        const rows = records.map(({ kind, name, hash, id, entry, revision, until, outcome }) => ({
          kind,
          name,
          hash,
          spiffe_id: id,
          entry,
          revision,
          expires_at: until,
          outcome,
        }))
        const { numInsertedOrUpdatedRows } = await tx
          .insertInto('issuances')
          .values(rows)
          .onConflict((conflict) => conflict.doNothing())
          .executeTakeFirstOrThrow()
        if (numInsertedOrUpdatedRows === BigInt(rows.length)) return []
        const names = rows.map(({ name }) => name)
        const stored = await tx.selectFrom('issuances').select(['kind', 'name', 'hash']).where('name', 'in', names).execute()
        const hashes = new Map(stored.map(({ kind, name, hash }) => [`${kind} ${name}`, hash]))
        return rows.filter(({ kind, name, hash }) => hashes.get(`${kind} ${name}`) !== hash).map(({ name }) => name)
      }),
    prune: (before) => writes.run(async (tx) => void (await tx.deleteFrom('issuances').where('expires_at', '<', before).execute())),
  }
}
