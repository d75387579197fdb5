import { sql, type Kysely } from 'kysely'
import { Failure } from '../kernel/failure.ts'
import { up as registry } from './migrations/0001-registry.ts'
import { up as policyReleases } from './migrations/0002-policy-releases.ts'
import { up as issuances } from './migrations/0003-issuances.ts'
import { up as nodeLineage } from './migrations/0004-node-lineage.ts'
import { up as additions } from './migrations/0005-additions.ts'
import type { Tables } from './schema.ts'

/**
 * Brings the tables to the form that this program knows, in one transaction.
 * @throws Failure `store.schema-too-new` if a newer program has changed them: nothing is touched then
 */
export async function migrate(db: Kysely<Tables>): Promise<void> {
  await db.transaction().execute(async (tx) => {
    await tx.schema
      .createTable('schema_version')
      .ifNotExists()
      .addColumn('version', 'integer', (column) => column.notNull())
      .execute()
    const found = (await tx.selectFrom('schema_version').select('version').executeTakeFirst())?.version
    if (found === undefined) await tx.insertInto('schema_version').values({ version: 0 }).execute()
    const have = found ?? 0
    if (have > migrations.length) {
      throw new Failure('failed_precondition', 'store.schema-too-new', {
        public: `the store has schema version ${have}: this program knows versions up to ${migrations.length}; run the newer program, or restore a backup made before it ran`,
      })
    }
    for (const up of migrations.slice(have)) await up(tx as unknown as Kysely<unknown>)
    await tx
      .updateTable('schema_version')
      .set({ version: sql.lit(migrations.length) })
      .execute()
  })
}

/** In order; a migration that was released is never changed. */
const migrations = [registry, policyReleases, issuances, nodeLineage, additions] as const
