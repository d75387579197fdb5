import type { Instant } from '../kernel/clock.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import { formatSelector, missingSelectors, satisfies, type Selector } from '../spiffe/selector.ts'
import type { ConsideredEntry } from './identities.ts'

/**
 * The entries that this agent may serve, found by what was seen of a process.
 * Each is filed under its rarest selector, so that few have to be looked at for one process.
 */
export class EntryIndex {
  readonly entries: readonly RegistrationEntry[]
  readonly #filed = new Map<string, RegistrationEntry[]>()

  /** Entries whose SVIDs go to a store are not for processes of this node. */
  constructor(entries: Iterable<RegistrationEntry>) {
    this.entries = [...entries].filter((one) => !one.storeSvid).sort(byAge)
    const count = new Map<string, number>()
    for (const entry of this.entries) for (const text of entry.selectors.map(formatSelector)) count.set(text, (count.get(text) ?? 0) + 1)
    for (const entry of this.entries) {
      const [rarest] = entry.selectors.map(formatSelector).sort((a, b) => count.get(a)! - count.get(b)!)
      if (rarest === undefined) continue
      const file = this.#filed.get(rarest)
      if (file) file.push(entry)
      else this.#filed.set(rarest, [entry])
    }
  }

  /** The entries that a process with these selectors satisfies at a moment: the oldest first, so that the default identity stays the same (API-26). */
  match(seen: readonly Selector[], at: Instant): RegistrationEntry[] {
    return seen
      .flatMap((one) => this.#filed.get(formatSelector(one)) ?? [])
      .filter((entry) => isInForce(entry, at) && satisfies(seen, entry.selectors))
      .sort(byAge)
  }

  /** The entries that come nearest, with what is missing for each: for the person who wants to know why. */
  consider(seen: readonly Selector[], most: number): ConsideredEntry[] {
    return this.entries
      .map((entry) => ({ entry, missing: missingSelectors(entry.selectors, seen) }))
      .sort((a, b) => a.missing.length - b.missing.length)
      .slice(0, most)
  }
}

/** False once an entry has expired. */
export const isInForce = (entry: RegistrationEntry, at: Instant): boolean => entry.expiresAt === undefined || at < entry.expiresAt

/**
 * The hints that go with entries in this order: each at most once, for the oldest entry that asks for it (API-14).
 * The others keep their identity and lose the hint.
 */
export function uniqueHints(entries: readonly RegistrationEntry[]): ReadonlyMap<string, string> {
  const taken = new Set<string>()
  const hints = new Map<string, string>()
  for (const { id, hint } of entries) {
    hints.set(id, taken.has(hint) ? '' : hint)
    taken.add(hint)
  }
  return hints
}

const byAge = (a: RegistrationEntry, b: RegistrationEntry): number => a.createdAt - b.createdAt || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
