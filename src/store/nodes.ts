/** The attested nodes, in tables. */
import type { Insertable, Kysely, SelectQueryBuilder, Transaction } from 'kysely'
import type { AttestedNode, CloneEvidence, NodeFilter, NodeStore } from '../registry/node.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { listMatches, readSelectors, replaceList, selectorItems, writeSelectors } from './lists.ts'
import { pageOf } from './page.ts'
import type { Database, NodeRow, Tables } from './schema.ts'
import type { Writes } from './writes.ts'

export function nodeTables(db: Kysely<Tables>, writes: Writes): NodeStore {
  return {
    put: (node) => writes.run((tx) => put(tx, node)),
    find: (id) => findNode(db, id),
    change: (id, change) =>
      writes.run(async (tx) => {
        const before = await findNode(tx, id)
        const after = before && change(before)
        if (!after) return before
        await put(tx, after)
        return after
      }),
    async list(filter, page) {
      let query = filtered(db.selectFrom('nodes'), filter)
      if (page.after !== undefined) query = query.where('nodes.id', '>', page.after)
      const rows = await query
        .selectAll('nodes')
        .orderBy('nodes.id')
        .limit(page.limit + 1)
        .execute()
      return pageOf(rows.map(fromRow), page.limit)
    },
    async count(filter) {
      const row = await filtered(db.selectFrom('nodes'), filter)
        .select((eb) => eb.fn.countAll<number>().as('count'))
        .executeTakeFirstOrThrow()
      return row.count
    },
    remove: (id) =>
      writes.run(async (tx) => {
        const node = await findNode(tx, id)
        await tx.deleteFrom('nodes').where('id', '=', id).execute()
        return node
      }),
  }
}

async function put(tx: Transaction<Tables>, node: AttestedNode): Promise<void> {
  const row = toRow(node)
  await tx
    .insertInto('nodes')
    .values(row)
    .onConflict((conflict) => conflict.column('id').doUpdateSet(row))
    .execute()
  await replaceList(tx, 'node_selectors', node.id, selectorItems(node.selectors))
}

async function findNode(db: Database, id: SpiffeId): Promise<AttestedNode | undefined> {
  const row = await db.selectFrom('nodes').selectAll().where('id', '=', id).executeTakeFirst()
  return row && fromRow(row)
}

function filtered<T>(query: SelectQueryBuilder<Tables, 'nodes', T>, filter: NodeFilter): SelectQueryBuilder<Tables, 'nodes', T> {
  let narrowed = query
  const { selectors } = filter
  if (filter.attestationType !== undefined) narrowed = narrowed.where('nodes.attestation_type', '=', filter.attestationType)
  if (filter.banned !== undefined) narrowed = narrowed.where('nodes.banned', '=', Number(filter.banned))
  if (filter.frozen !== undefined) narrowed = narrowed.where('nodes.frozen', filter.frozen ? 'is not' : 'is', null)
  if (filter.canReattest !== undefined) narrowed = narrowed.where('nodes.can_reattest', '=', Number(filter.canReattest))
  if (filter.expiresBefore !== undefined) narrowed = narrowed.where('nodes.expires_at', '<', filter.expiresBefore)
  if (selectors)
    narrowed = narrowed.where((eb) => listMatches(eb, 'nodes', 'node_selectors', selectorItems(selectors.selectors), selectors.match))
  return narrowed
}

function toRow(node: AttestedNode): Insertable<NodeRow> {
  return {
    id: node.id,
    attestation_type: node.attestationType,
    serial: node.serial,
    expires_at: node.expiresAt,
    pending: JSON.stringify(node.pending),
    superseded: JSON.stringify(node.superseded),
    frozen: node.frozen ? JSON.stringify(node.frozen) : null,
    selectors: writeSelectors(node.selectors),
    can_reattest: Number(node.canReattest),
    banned: Number(node.banned),
    agent_version: node.agentVersion,
  }
}

/** What is in the tables was checked before it was written. */
function fromRow(row: NodeRow): AttestedNode {
  return {
    id: row.id as SpiffeId,
    attestationType: row.attestation_type,
    serial: row.serial,
    expiresAt: row.expires_at,
    pending: JSON.parse(row.pending) as AttestedNode['pending'],
    superseded: JSON.parse(row.superseded) as AttestedNode['superseded'],
    ...(row.frozen !== null && { frozen: JSON.parse(row.frozen) as CloneEvidence }),
    selectors: readSelectors(row.selectors),
    canReattest: row.can_reattest === 1,
    banned: row.banned === 1,
    agentVersion: row.agent_version,
  }
}
