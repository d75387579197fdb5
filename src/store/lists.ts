/** Lists that belong to a row: how they are kept, and how a filter compares them. */
import { type ExpressionBuilder, type ExpressionWrapper, type SqlBool } from 'kysely'
import type { ListMatch } from '../registry/entry.ts'
import { formatSelector, type Selector } from '../spiffe/selector.ts'
import type { Database, Tables } from './schema.ts'

type ListTable = 'entry_selectors' | 'entry_federations' | 'node_selectors'

export const writeSelectors = (selectors: readonly Selector[]): string => JSON.stringify(selectors.map(({ type, value }) => [type, value]))
export const readSelectors = (text: string): Selector[] =>
  (JSON.parse(text) as [string, string][]).map(([type, value]) => ({ type, value }))
export const selectorItems = (selectors: readonly Selector[]): string[] => selectors.map(formatSelector)

/** Makes the list of `owner` what `items` says. */
export async function replaceList(db: Database, table: ListTable, owner: string, items: readonly string[]): Promise<void> {
  await db.deleteFrom(table).where('owner', '=', owner).execute()
  await addList(db, table, owner, items)
}

/** Gives a new `owner` its list. */
export async function addList(db: Database, table: ListTable, owner: string, items: readonly string[]): Promise<void> {
  const unique = [...new Set(items)]
  if (unique.length > 0)
    await db
      .insertInto(table)
      .values(unique.map((item) => ({ owner, item })))
      .execute()
}

/** The condition that the list of the row `of.id` compares with `items` as asked. Nothing compares with an empty list. */
export function listMatches(
  eb: ExpressionBuilder<Tables, 'entries' | 'nodes'>,
  of: 'entries' | 'nodes',
  table: ListTable,
  items: readonly string[],
  match: ListMatch,
): ExpressionWrapper<Tables, 'entries' | 'nodes', SqlBool> {
  const wanted = [...new Set(items)]
  if (wanted.length === 0) return eb.or([])
  const own = () => eb.selectFrom(table).whereRef(`${table}.owner`, '=', `${of}.id`)
  const shared = () => own().where(`${table}.item`, 'in', wanted)
  const has = eb.exists(shared().select(`${table}.item`))
  const hasAll = eb(
    shared().select((inner) => inner.fn.countAll<number>().as('count')),
    '=',
    wanted.length,
  )
  const hasOther = eb.exists(own().where(`${table}.item`, 'not in', wanted).select(`${table}.item`))
  switch (match) {
    case 'any':
      return eb.and([has])
    case 'superset':
      return eb.and([hasAll])
    case 'subset':
      return eb.and([has, eb.not(hasOther)])
    case 'exact':
      return eb.and([hasAll, eb.not(hasOther)])
    default:
      throw new Error(`bug: no such comparison: ${String(match satisfies never)}`)
  }
}
