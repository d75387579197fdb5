/** Applied policy sets, in a table: the last row is in force. */
import type { Kysely, Selectable } from 'kysely'
import { Failure } from '../kernel/failure.ts'
import type { AppliedPolicies, PolicyDocument, PolicyOptions, PolicyStore } from '../registry/policy-documents.ts'
import type { Database, PolicySetRow, Tables } from './schema.ts'
import type { Writes } from './writes.ts'

export function policyTable(db: Kysely<Tables>, writes: Writes): PolicyStore {
  const newest = async (from: Database, limit: number): Promise<AppliedPolicies[]> =>
    (await from.selectFrom('policy_sets').selectAll().orderBy('serial', 'desc').limit(limit).execute()).map(read)
  return {
    current: async () => (await newest(db, 1))[0],
    apply: ({ version, documents, options, signature, appliedAt, appliedBy }, after) =>
      writes.run(async (tx) => {
        const [before] = await newest(tx, 1)
        if ((before?.serial ?? 0) !== after) throw changedMeanwhile()
        await tx
          .insertInto('policy_sets')
          .values({
            version,
            applied_at: appliedAt,
            documents: JSON.stringify(documents),
            options: JSON.stringify(options),
            signature: signature ?? null,
            applied_by: appliedBy,
          })
          .execute()
        await forgetOld(tx)
        return (await newest(tx, 1))[0]!
      }),
    history: (limit) => newest(db, limit),
    async find(serial) {
      const row = await db.selectFrom('policy_sets').selectAll().where('serial', '=', serial).executeTakeFirst()
      return row && read(row)
    },
    async candidate() {
      const row = await db.selectFrom('policy_candidate').selectAll().executeTakeFirst()
      return (
        row && {
          version: row.version,
          documents: JSON.parse(row.documents) as PolicyDocument[],
          options: JSON.parse(row.options) as PolicyOptions,
          startedAt: row.started_at,
          startedBy: row.started_by,
        }
      )
    },
    setCandidate: (candidate) =>
      writes.run(async (tx) => {
        await tx.deleteFrom('policy_candidate').execute()
        if (!candidate) return
        const { version, documents, options, startedAt, startedBy } = candidate
        await tx
          .insertInto('policy_candidate')
          .values({
            id: 1,
            version,
            documents: JSON.stringify(documents),
            options: JSON.stringify(options),
            started_at: startedAt,
            started_by: startedBy,
          })
          .execute()
      }),
  }
}

function read(row: Selectable<PolicySetRow>): AppliedPolicies {
  return {
    serial: row.serial,
    version: row.version,
    documents: JSON.parse(row.documents) as PolicyDocument[],
    options: JSON.parse(row.options) as PolicyOptions,
    ...(row.signature === null ? {} : { signature: row.signature }),
    appliedAt: row.applied_at,
    appliedBy: row.applied_by,
  }
}

async function forgetOld(tx: Database): Promise<void> {
  const oldest = await tx.selectFrom('policy_sets').select('serial').orderBy('serial', 'desc').offset(keptSets).limit(1).executeTakeFirst()
  if (oldest) await tx.deleteFrom('policy_sets').where('serial', '<=', oldest.serial).execute()
}

function changedMeanwhile(): Failure {
  return new Failure('failed_precondition', 'policy.changed-meanwhile', {
    public: 'somebody else changed the policies meanwhile: look at what is in force, and try again',
  })
}

const keptSets = 100
