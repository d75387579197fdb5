import { utf8 } from '../kernel/bytes.ts'
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
    this.entries = [...entries].filter((one) => !one.storeSvid).sort(byRank)
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

  /** The entries that a process with these selectors satisfies at a moment: that of its default identity first (API-26), see {@link byRank}. */
  match(seen: readonly Selector[], at: Instant): RegistrationEntry[] {
    return seen
      .flatMap((one) => this.#filed.get(formatSelector(one)) ?? [])
      .filter((entry) => isInForce(entry, at) && satisfies(seen, entry.selectors))
      .sort(byRank)
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

/** The same entry in the same revision; an entry that was removed and made again under its old id is another. */
export function isSameEntry(a: RegistrationEntry, b: RegistrationEntry | undefined): boolean {
  return b !== undefined && a.id === b.id && a.revision === b.revision && a.createdAt === b.createdAt
}

/**
 * The hints that go with entries in this order: each at most once, for the first entry that asks for it (API-14), and none that is longer
 * than clients have to take (API-27). The others keep their identity and lose the hint.
 */
export function uniqueHints(entries: readonly RegistrationEntry[]): ReadonlyMap<string, string> {
  const taken = new Set<string>()
  const hints = new Map<string, string>()
  for (const { id, hint } of entries) {
    hints.set(id, taken.has(hint) || utf8(hint).length > longestHint ? '' : hint)
    taken.add(hint)
  }
  return hints
}

/**
 * Which identity is the default is said, not drawn (API-26): the entry whose hint is `default`, else the oldest; of those made in one second,
 * which is as well as the wire tells it, the one whose SPIFFE ID comes first.
 */
function byRank(a: RegistrationEntry, b: RegistrationEntry): number {
  return rank(a) - rank(b) || a.createdAt - b.createdAt || inOrder(a.spiffeId, b.spiffeId) || inOrder(a.id, b.id)
}

const rank = ({ hint }: RegistrationEntry): number => (hint === defaultHint ? 0 : 1)
const inOrder = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
const defaultHint = 'default'
/** In bytes: SPIFFE Workload API section 8. */
const longestHint = 1024
