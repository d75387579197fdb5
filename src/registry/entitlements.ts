/** Which entries an agent may fetch and serve. Pure: entries and node selectors in, entries out. */
import type { Instant } from '../kernel/clock.ts'
import { spiffeId, type SpiffeId } from '../spiffe/id.ts'
import { formatSelector, satisfies, type Selector } from '../spiffe/selector.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { EntryChanges, RegistrationEntry } from './entry.ts'

/** Every entry there is, ordered so that the entitlements of one agent cost what they contain and not what the registry holds. */
export class EntryIndex {
  readonly #byId = new Map<string, RegistrationEntry>()
  readonly #byParent = new Map<SpiffeId, Map<string, RegistrationEntry>>()
  /** Node aliases under one of their selectors: who satisfies an alias has that one too. */
  readonly #aliases = new Map<string, Map<string, RegistrationEntry>>()
  /** Entries that give their holder a say at our own API. */
  readonly #privileged = new Map<SpiffeId, Map<string, RegistrationEntry>>()
  readonly #aliasParent: SpiffeId

  constructor(trustDomain: TrustDomain) {
    this.#aliasParent = spiffeId(trustDomain, '/spire/server')
  }

  get size(): number {
    return this.#byId.size
  }

  find(id: string): RegistrationEntry | undefined {
    return this.#byId.get(id)
  }

  /** Brings the index to the state that the changes describe. */
  apply(changes: Pick<EntryChanges, 'whole' | 'changed' | 'removed'>): void {
    if (changes.whole) this.#clear()
    for (const id of changes.removed) this.#remove(id)
    for (const entry of changes.changed) {
      this.#remove(entry.id)
      this.#add(entry)
    }
  }

  /**
   * The entries below the agent's own ID and below every node alias whose selectors the node has, at any depth, each once.
   * An alias is an entry with the parent `spiffe://<trust domain>/spire/server`. Entries that expired are left out, with what hangs on them.
   */
  entitled(agent: SpiffeId, nodeSelectors: readonly Selector[], at: Instant): RegistrationEntry[] {
    const found: RegistrationEntry[] = []
    const visited = new Set<SpiffeId>()
    const parents = [agent, ...this.#aliasesOf(nodeSelectors, at)]
    for (let parent = parents.pop(); parent !== undefined; parent = parents.pop()) {
      // INVARIANT: each parent is walked once, so that entries which name each other as parents end the walk.
      if (visited.has(parent)) continue
      visited.add(parent)
      for (const entry of this.#byParent.get(parent)?.values() ?? []) {
        if (isExpired(entry, at)) continue
        found.push(entry)
        parents.push(entry.spiffeId)
      }
    }
    return found
  }

  /** True if an entry that has not expired makes this identity an administrator, or the server of a downstream authority. */
  isPrivileged(id: SpiffeId, as: 'admin' | 'downstream', at: Instant): boolean {
    for (const entry of this.#privileged.get(id)?.values() ?? []) if (entry[as] && !isExpired(entry, at)) return true
    return false
  }

  #aliasesOf(nodeSelectors: readonly Selector[], at: Instant): SpiffeId[] {
    const aliases: SpiffeId[] = []
    for (const one of nodeSelectors) {
      for (const alias of this.#aliases.get(formatSelector(one))?.values() ?? []) {
        if (!isExpired(alias, at) && satisfies(nodeSelectors, alias.selectors)) aliases.push(alias.spiffeId)
      }
    }
    return aliases
  }

  #add(entry: RegistrationEntry): void {
    this.#byId.set(entry.id, entry)
    put(this.#byParent, entry.parentId, entry)
    if (entry.parentId === this.#aliasParent) put(this.#aliases, aliasKey(entry), entry)
    if (entry.admin || entry.downstream) put(this.#privileged, entry.spiffeId, entry)
  }

  #remove(id: string): void {
    const entry = this.#byId.get(id)
    if (!entry) return
    this.#byId.delete(id)
    take(this.#byParent, entry.parentId, entry)
    if (entry.parentId === this.#aliasParent) take(this.#aliases, aliasKey(entry), entry)
    if (entry.admin || entry.downstream) take(this.#privileged, entry.spiffeId, entry)
  }

  #clear(): void {
    this.#byId.clear()
    this.#byParent.clear()
    this.#aliases.clear()
    this.#privileged.clear()
  }
}

/** True from the second on in which the entry expires. */
const isExpired = (entry: Pick<RegistrationEntry, 'expiresAt'>, at: Instant): boolean =>
  entry.expiresAt !== undefined && entry.expiresAt <= at

function aliasKey(entry: RegistrationEntry): string {
  const first = entry.selectors[0]
  if (!first) throw new Error('bug: an entry without selectors was stored')
  return formatSelector(first)
}

function put<K>(index: Map<K, Map<string, RegistrationEntry>>, key: K, entry: RegistrationEntry): void {
  const there = index.get(key)
  if (there) there.set(entry.id, entry)
  else index.set(key, new Map([[entry.id, entry]]))
}

function take<K>(index: Map<K, Map<string, RegistrationEntry>>, key: K, entry: RegistrationEntry): void {
  const there = index.get(key)
  there?.delete(entry.id)
  if (there?.size === 0) index.delete(key)
}
