import type { Page } from '../registry/entry.ts'

/** A page of what a query found that asked for one more than `limit`: the one too many says that there is a next page. */
export function pageOf<T extends { readonly id: string }>(found: readonly T[], limit: number): Page<T> {
  const items = found.slice(0, limit)
  const last = items.at(-1)
  return found.length > limit && last ? { items, next: last.id } : { items }
}
