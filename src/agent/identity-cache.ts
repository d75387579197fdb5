/** The X509-SVIDs of this node's workloads: signed ahead of need, renewed at half life, and seen by everybody who may have them. */
import { backoff } from '../kernel/backoff.ts'
import type { Clock, Instant } from '../kernel/clock.ts'
import { deadline } from '../kernel/clock.ts'
import { type Duration, seconds } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import { fraction, type Random } from '../kernel/random.ts'
import { firstOf, WatchedValue } from '../kernel/watched.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { bundleSet } from '../spiffe/bundle-set.ts'
import { renewalDue } from '../spiffe/lifetime.ts'
import { formatSelector, type Selector, uniqueSelectors } from '../spiffe/selector.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { Bell } from './bell.ts'
import { EntryIndex, isInForce, isSameEntry, uniqueHints } from './entry-index.ts'
import type { ConsideredEntry, HeldIdentity, WorkloadIdentities } from './identities.ts'
import { agentMetrics } from './metrics.ts'
import { isRejection } from './rejection.ts'
import { retryDelay } from './retry.ts'
import { SelectorGroup } from './selector-group.ts'
import { hasTaintedPath } from './taint.ts'
import type { SignedX509Svid, UpstreamServer } from './upstream-server.ts'
import { checkedIdentity, svidRequest, type SvidRequest } from './workload-svid.ts'

/** What the server says that this node may serve. */
export interface Entitlements {
  readonly entries: readonly RegistrationEntry[]
  readonly bundle: TrustBundle
  readonly federated: ReadonlyMap<TrustDomain, TrustBundle>
}

export interface IdentityCacheParts {
  readonly upstream: Pick<UpstreamServer, 'signX509'>
  readonly bundle: TrustBundle
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly meter: Meter
}

/** What is known of one entry's SVID, for `explain`. */
export interface EntryState {
  readonly expiresAt?: Instant
  readonly failure?: Failure
}

export class IdentityCache {
  readonly #parts: IdentityCacheParts
  readonly #bell = new Bell()
  /** Rung where something may end sooner than what was known to. */
  readonly #endings = new Bell()
  readonly #serverIsThere = new Bell()
  /** Grows whenever something became known that a waiting workload may have waited for. */
  readonly #news = new WatchedValue(0)
  #synced = false
  #index = new EntryIndex([])
  #entries: ReadonlyMap<string, RegistrationEntry> = new Map()
  #bundle: TrustBundle
  #federated: ReadonlyMap<TrustDomain, TrustBundle> = new Map()
  readonly #held = new Map<string, Held>()
  readonly #failed = new Map<string, Failed>()
  /** Groups by their selectors. One that nobody refers to is collected, and its key removed. */
  readonly #groups = new Map<string, WeakRef<SelectorGroup>>()
  readonly #collected = new FinalizationRegistry<string>((key) => {
    if (this.#groups.get(key)?.deref() === undefined) this.#groups.delete(key)
  })
  /** INVARIANT: a group that is being watched is referred to from here, so that it stays in `#groups`. */
  readonly #watched = new Set<SelectorGroup>()
  #soonestExpiry: Instant = Infinity
  /** A process without identity may ask often, and looking at every entry each time would be its weapon. */
  readonly #considered = new WeakMap<
    readonly Selector[],
    { readonly index: EntryIndex; readonly most: number; readonly list: readonly ConsideredEntry[] }
  >()

  constructor(parts: IdentityCacheParts) {
    this.#parts = parts
    this.#bundle = parts.bundle
  }

  /** True once the server said for the first time which entries there are. */
  get isSynced(): boolean {
    return this.#synced
  }

  get counts(): { readonly entries: number; readonly svids: number; readonly groups: number } {
    return { entries: this.#index.entries.length, svids: this.#held.size, groups: this.#groups.size }
  }

  /** When the first of the SVIDs that are held ends; undefined while there is none. */
  get firstEnd(): Instant | undefined {
    return this.#held.size === 0 ? undefined : this.#held.values().reduce((first, { notAfter }) => Math.min(first, notAfter), Infinity)
  }

  /** Until the first SVID that is held runs out; short as well while one is missing. */
  get timeLeft(): Duration {
    const isOneMissing = !this.#synced || this.#index.entries.some((one) => !this.#held.has(one.id) && !one.disableX509SvidPrefetch)
    return Math.min(this.#soonestExpiry - this.#parts.clock.now(), isOneMissing ? leftWhenMissing : Infinity)
  }

  /** What processes with these selectors hold; the same object for the same selectors, as long as anybody refers to it. */
  group(seen: readonly Selector[]): SelectorGroup {
    const selectors = uniqueSelectors(seen)
    const key = selectors.map(formatSelector).join('\n')
    const known = this.#groups.get(key)?.deref()
    if (known) return known
    const group = new SelectorGroup(selectors, { identities: [], bundle: this.#bundle, federated: new Map() }, this.#keeper)
    this.#groups.set(key, new WeakRef(group))
    this.#collected.register(group, key)
    this.#rematch(group)
    this.#bell.ring()
    return group
  }

  /**
   * Resolves when the server was heard of and an SVID was asked for on behalf of each entry that the group matches.
   * That entries match and none is signed is a trouble of ours, and not the workload's lack of an identity.
   * @throws Failure `agent.not-synced`, `workload.identity-not-ready`
   */
  async ready(group: SelectorGroup, patience: Duration, signal: AbortSignal): Promise<void> {
    if (!this.#isSettled(group)) await this.#settled(group, patience, signal)
    const entries = this.#inForce(group)
    if (entries.length > 0 && !entries.some((one) => this.#held.has(one.id))) throw notReady(group)
  }

  /** Takes over what the server says now. Entries that it does not name any more are dropped at once. */
  update({ entries, bundle, federated }: Entitlements): void {
    const now = new Map(entries.map((one) => [one.id, one]))
    const isChanged = now.size !== this.#entries.size || entries.some((one) => !isSameEntry(one, this.#entries.get(one.id)))
    const isNewBundle = bundle !== this.#bundle
    this.#federated = federated
    this.#bundle = bundle
    if (isChanged) {
      for (const [id, held] of this.#held) if (now.get(id)?.spiffeId !== held.identity.spiffeId) this.#held.delete(id)
      for (const id of this.#failed.keys()) if (!isSameEntry(this.#entries.get(id)!, now.get(id))) this.#failed.delete(id)
      this.#entries = now
      this.#index = new EntryIndex(entries)
    }
    if (isNewBundle) this.#markTainted()
    this.#synced = true
    for (const group of this.#liveGroups()) {
      if (isChanged) this.#rematch(group)
      else this.#publish(group)
    }
    this.#announce()
    if (isChanged || isNewBundle) this.#bell.ring()
    this.#serverIsThere.ring()
  }

  /** Drops everything: the server does not accept this agent any more. */
  clear(): void {
    this.update({ entries: [], bundle: this.#bundle, federated: new Map() })
  }

  /** Takes away what has expired, in time, also while the server keeps a signature waiting. Ends with the signal. */
  async expire(signal: AbortSignal): Promise<void> {
    for (;;) {
      this.#dropExpired()
      await this.#endings.waitUntil(this.#soonestExpiry, this.#parts.clock, signal)
    }
  }

  /** Keeps every wanted SVID signed and fresh. Ends with the signal. @throws Failure the server's rejection of this agent */
  async run(signal: AbortSignal): Promise<void> {
    let delays = this.#delays()
    for (;;) {
      const { due, next } = this.#survey()
      if (due.length === 0) {
        await this.#bell.waitUntil(next, this.#parts.clock, signal)
        continue
      }
      try {
        await this.#sign(due.slice(0, maxBatch), signal)
        delays = this.#delays()
      } catch (error) {
        signal.throwIfAborted()
        const failure = Failure.from(error)
        this.#parts.meter.counter(agentMetrics.unsigned, { reason: failure.reason }).add()
        if (isRejection(failure)) throw error
        const delay = retryDelay(delays.next().value ?? 0, this.timeLeft)
        this.#parts.log.warn('the server does not sign SVIDs; trying again', {
          error: tellChain(error),
          inMs: Math.round(delay),
          waiting: due.length,
        })
        await this.#serverIsThere.waitUntil(this.#parts.clock.now() + delay, this.#parts.clock, signal)
      }
    }
  }

  /** The entries that come nearest to these selectors, and what each would need beyond them. */
  consider(seen: readonly Selector[], most: number): readonly ConsideredEntry[] {
    const known = this.#considered.get(seen)
    if (known?.index === this.#index && known.most === most) return known.list
    const list = this.#index.consider(seen, most)
    this.#considered.set(seen, { index: this.#index, most, list })
    return list
  }

  stateOf(entryId: string): EntryState {
    const held = this.#held.get(entryId)
    const failed = this.#failed.get(entryId)
    return { ...(held && { expiresAt: held.notAfter }), ...(failed && { failure: failed.failure }) }
  }

  readonly #keeper = {
    refresh: (): void => {
      if (this.#soonestExpiry <= this.#parts.clock.now()) this.#dropExpired()
    },
    watched: (group: SelectorGroup, yes: boolean): void => {
      if (yes) this.#watched.add(group)
      else this.#watched.delete(group)
    },
  }

  async #sign(entries: readonly RegistrationEntry[], signal: AbortSignal): Promise<void> {
    const requests: SvidRequest[] = []
    for (const entry of entries) requests.push(await svidRequest(entry))
    const answers = await this.#parts.upstream.signX509(
      requests.map(({ entry, csr }) => ({ entryId: entry.id, csr })),
      signal,
    )
    if (answers.length !== requests.length) {
      throw new Failure('internal', 'svid.wrong-count', { public: `the server answered ${answers.length} of ${requests.length} requests` })
    }
    for (const [at, request] of requests.entries()) this.#take(request, answers[at]!)
    this.#publishTo(new Set(entries.map((one) => one.id)))
  }

  /** Holds a signed SVID if it is right and its entry is still the one it was asked for. */
  #take(request: SvidRequest, answer: SignedX509Svid | Failure): void {
    const { entry } = request
    const now = this.#parts.clock.now()
    if (!isSameEntry(entry, this.#entries.get(entry.id))) return
    try {
      if (answer instanceof Failure) throw answer
      const identity = checkedIdentity(request, answer, bundleSet([this.#bundle]), now)
      const { notAfter } = identity.chain[0]!
      const due = renewalDue(now, notAfter, fraction(this.#parts.random))
      this.#held.set(entry.id, { entry, identity, notAfter, due, isTainted: false })
      this.#failed.delete(entry.id)
      this.#parts.meter.counter(agentMetrics.signed, {}).add()
    } catch (error) {
      const failure = Failure.from(error)
      this.#parts.meter.counter(agentMetrics.unsigned, { reason: failure.reason }).add()
      const delays = this.#failed.get(entry.id)?.delays ?? this.#delays()
      const left = (this.#held.get(entry.id)?.notAfter ?? Infinity) - now
      this.#failed.set(entry.id, { failure, delays, retryAt: now + retryDelay(delays.next().value ?? 0, left) })
      this.#parts.log.warn('an SVID was not signed', {
        entry: entry.id,
        spiffeId: entry.spiffeId,
        reason: failure.reason,
        error: tellChain(failure),
      })
    }
  }

  /** What has to be signed now, the most urgent first, and when to look again. */
  #survey(): { readonly due: readonly RegistrationEntry[]; readonly next: Instant } {
    const now = this.#parts.clock.now()
    const due: { readonly entry: RegistrationEntry; readonly left: Duration }[] = []
    let next = Infinity
    const onDemand = this.#matchedByGroups()
    for (const entry of this.#index.entries) {
      if (!isInForce(entry, now)) continue
      const held = this.#held.get(entry.id)
      if (entry.disableX509SvidPrefetch && !onDemand.has(entry.id)) continue
      const from = Math.max(
        held && !held.isTainted && isSameEntry(entry, held.entry) ? held.due : now,
        this.#failed.get(entry.id)?.retryAt ?? now,
      )
      if (from <= now) due.push({ entry, left: held ? held.notAfter - now : onDemand.has(entry.id) ? -1 : 0 })
      else next = Math.min(next, from)
    }
    due.sort((a, b) => a.left - b.left)
    return { due: due.map((one) => one.entry), next }
  }

  /** Forgets SVIDs that expired, and entries that did, and tells their groups. */
  #dropExpired(): void {
    const now = this.#parts.clock.now()
    const gone = new Set<string>()
    this.#soonestExpiry = Infinity
    for (const [id, held] of this.#held) {
      const end = Math.min(held.notAfter, this.#entries.get(id)?.expiresAt ?? Infinity)
      if (end <= now) {
        this.#held.delete(id)
        gone.add(id)
      } else this.#soonestExpiry = Math.min(this.#soonestExpiry, end)
    }
    if (gone.size > 0) this.#publishTo(gone)
    // An entry may end after its last SVID did: whoever waits for another is told that there will be none.
    let ended = false
    for (const group of this.#liveGroups()) {
      if (!group.entries.every((one) => isInForce(one, now))) {
        this.#publish(group)
        ended = true
      }
      this.#soonestExpiry = Math.min(this.#soonestExpiry, ...group.entries.map(endOf))
    }
    if (ended) this.#announce()
  }

  #markTainted(): void {
    const now = this.#parts.clock.now()
    for (const held of this.#held.values()) held.isTainted = hasTaintedPath(held.identity.chain, this.#bundle, now)
  }

  #rematch(group: SelectorGroup): void {
    group.match(this.#index.match(group.selectors, this.#parts.clock.now()))
    this.#publish(group)
  }

  #publishTo(entryIds: ReadonlySet<string>): void {
    for (const group of this.#liveGroups()) if (group.entries.some((one) => entryIds.has(one.id))) this.#publish(group)
    this.#announce()
  }

  /** Tells a group what it holds now, if that is news. */
  #publish(group: SelectorGroup): void {
    const now = this.#parts.clock.now()
    const matched = group.entries.length
    const entries = this.#inForce(group)
    this.#soonestExpiry = Math.min(this.#soonestExpiry, ...entries.map(endOf))
    const hints = uniqueHints(entries)
    const identities = entries.flatMap((entry) => {
      const held = this.#held.get(entry.id)
      if (!held || held.notAfter <= now) return []
      this.#soonestExpiry = Math.min(this.#soonestExpiry, held.notAfter)
      return [withHint(held.identity, hints.get(entry.id)!)]
    })
    const federated = new Map<TrustDomain, TrustBundle>()
    for (const name of entries.flatMap((one) => one.federatesWith)) {
      const bundle = this.#federated.get(name)
      if (bundle) federated.set(name, bundle)
    }
    const next: WorkloadIdentities = Object.freeze({ identities: Object.freeze(identities), bundle: this.#bundle, federated })
    const lostAll = matched > 0 && entries.length === 0
    if (lostAll || !isSame(next, group.published)) group.publish(next)
  }

  #isSettled(group: SelectorGroup): boolean {
    return this.#synced && this.#inForce(group).every((one) => this.#held.has(one.id) || this.#failed.has(one.id))
  }

  /** What the group matches. An entry that expired is none, also before the server takes it away, and is forgotten here. */
  #inForce(group: SelectorGroup): readonly RegistrationEntry[] {
    const now = this.#parts.clock.now()
    if (!group.entries.every((one) => isInForce(one, now))) group.match(group.entries.filter((one) => isInForce(one, now)))
    return group.entries
  }

  async #settled(group: SelectorGroup, patience: Duration, signal: AbortSignal): Promise<void> {
    const waited = deadline(patience, signal)
    try {
      await firstOf(this.#news, () => this.#isSettled(group), waited)
    } catch (error) {
      signal.throwIfAborted()
      if (!waited.aborted) throw error
      throw this.#synced
        ? notReady(group)
        : new Failure('unavailable', 'agent.not-synced', { public: 'the agent has not heard from its server yet' })
    }
  }

  #matchedByGroups(): ReadonlySet<string> {
    const ids = new Set<string>()
    for (const group of this.#liveGroups()) for (const entry of group.entries) ids.add(entry.id)
    return ids
  }

  *#liveGroups(): Generator<SelectorGroup, void, void> {
    for (const reference of [...this.#groups.values()]) {
      const group = reference.deref()
      if (group) yield group
    }
  }

  #announce(): void {
    this.#news.set(this.#news.current + 1)
    this.#endings.ring()
  }

  #delays(): Generator<Duration, void, void> {
    return backoff(this.#parts.random, { first: seconds(1), longest: seconds(60) })
  }
}

/** An SVID that is held, and what it was made for. */
interface Held {
  readonly entry: RegistrationEntry
  readonly identity: HeldIdentity
  readonly notAfter: Instant
  /** Drawn once for its lifetime. */
  readonly due: Instant
  isTainted: boolean
}

interface Failed {
  readonly failure: Failure
  readonly retryAt: Instant
  readonly delays: Generator<Duration, void, void>
}

const endOf = ({ expiresAt }: RegistrationEntry): Instant => expiresAt ?? Infinity

/** The same object for the same hint, so that what is unchanged can be recognised. */
function withHint(identity: HeldIdentity, hint: string): HeldIdentity {
  if (identity.hint === hint) return identity
  const known = rehinted.get(identity)
  if (known?.hint === hint) return known
  const made = Object.freeze({ ...identity, hint })
  rehinted.set(identity, made)
  return made
}

function isSame(a: WorkloadIdentities, b: WorkloadIdentities): boolean {
  const sameFederated =
    a.federated.size === b.federated.size && [...a.federated].every(([name, bundle]) => b.federated.get(name) === bundle)
  return (
    a.bundle === b.bundle &&
    sameFederated &&
    a.identities.length === b.identities.length &&
    a.identities.every((one, at) => one === b.identities[at])
  )
}

/** Entries match, and nothing is signed for them: a trouble of ours, and not the workload's lack of an identity. */
export function notReady(group: SelectorGroup): Failure {
  return new Failure('unavailable', 'workload.identity-not-ready', {
    public: 'the identity of the calling workload is not ready yet',
    internal: { entries: group.entries.map((one) => one.id) },
  })
}

const rehinted = new WeakMap<HeldIdentity, HeldIdentity>()
/** As long as an SVID is missing, the server is asked for it every five seconds at least (retry.ts). */
const leftWhenMissing: Duration = seconds(40)
/** A server signs up to 500 at once; in fewer, the first workload waits for less, and checking them holds this thread for a few milliseconds only. */
const maxBatch = 50
