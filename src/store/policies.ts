/** Applied policy sets, in a table: the last row is in force. */
import type { Kysely } from 'kysely'
import type { AppliedPolicies, PolicyDocument, PolicyStore } from '../registry/policy-documents.ts'
import type { Tables } from './schema.ts'
import type { Writes } from './writes.ts'

export function policyTable(db: Kysely<Tables>, writes: Writes): PolicyStore {
  const newest = async (limit: number): Promise<AppliedPolicies[]> => {
    const rows = await db.selectFrom('policy_sets').selectAll().orderBy('serial', 'desc').limit(limit).execute()
    return rows.map((row) => ({
      version: row.version,
      appliedAt: row.applied_at,
      documents: JSON.parse(row.documents) as PolicyDocument[],
    }))
  }
  return {
    current: async () => (await newest(1))[0],
    apply: (documents, version, at) =>
      writes.run(async (tx) => {
        await tx
          .insertInto('policy_sets')
          .values({ version, applied_at: at, documents: JSON.stringify(documents) })
          .execute()
        const oldest = await tx
          .selectFrom('policy_sets')
          .select('serial')
          .orderBy('serial', 'desc')
          .offset(keptSets)
          .limit(1)
          .executeTakeFirst()
        if (oldest) await tx.deleteFrom('policy_sets').where('serial', '<=', oldest.serial).execute()
      }),
    history: newest,
  }
}

const keptSets = 100
