/** The rules of each workload, compiled once for all its proxies and services. */
import type { Workload, WorkloadIdentities, WorkloadPolicies } from '../agent/identities.ts'
import type { PolicyDocuments } from '../agent/upstream-server.ts'
import type { Clock } from '../kernel/clock.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import { type Watched, WatchedValue } from '../kernel/watched.ts'
import { compileFor, type CompiledPolicies, type WorkloadFacts } from '../policy/compile.ts'
import { type LanguageOptions, parsePolicySet, ReadBefore } from '../policy/language.ts'
import type { PolicyDocument, PolicySet } from '../policy/policy-set.ts'
import { formatSelector } from '../spiffe/selector.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Resources } from '../xds/resources.ts'
import {
  type DeliveredFilters,
  deliveredFilters,
  noPlaces,
  type ProxyPlaces,
  refuseEverything,
  toFilterResources,
} from './delivered-filters.ts'
import { toCandidateResources } from './messages.ts'

export interface Rules {
  /** Nothing where no policies are known that could be read: then nothing is allowed. */
  readonly compiled: CompiledPolicies | undefined
  /** The same rules as filters for a proxy, as {@link toFilterResources} names them. */
  readonly filters: Resources
  /** A whole set that is tried: what it would decide is counted, and enforced by nobody. */
  readonly candidate?: Candidate
}

export interface Candidate {
  readonly version: string
  readonly compiled: CompiledPolicies
}

/**
 * Finds the rules of a workload. A policy set that does not parse, or that a proxy cannot enforce, changes nothing: the last good one
 * stays in force and the log says so. Without any, nothing is allowed.
 */
export class WorkloadRules {
  readonly #clock: Clock
  readonly #log: Log
  readonly #language: LanguageOptions
  readonly #readBefore = new ReadBefore()
  readonly #sets = new WeakMap<readonly PolicyDocument[], PolicySet | undefined>()
  /** What was found last for a workload, as long as nothing about it changes. */
  readonly #recent = new WeakMap<
    WorkloadPolicies,
    { readonly held: WorkloadIdentities; readonly places: ProxyPlaces; readonly rules: Rules }
  >()
  /** By documents and facts; the least recently used first. */
  readonly #rules = new Map<string, Rules>()
  /** By facts, what could be enforced last. */
  readonly #lastFilters = new Map<string, Resources>()
  #lastGood: PolicySet | undefined

  constructor({ clock, log, language = {} }: { readonly clock: Clock; readonly log: Log; readonly language?: LanguageOptions }) {
    this.#clock = clock
    this.#log = log
    this.#language = language
  }

  /** What is in force for this workload now, and the filters for a proxy that has these places. */
  of({ identities, policies }: Workload, places: ProxyPlaces = noPlaces): Rules {
    const recent = this.#recent.get(policies.current)
    if (recent?.held === identities.current && recent.places === places && this.#isCurrent(recent.rules)) return recent.rules
    const rules = this.#find(policies.current, identities.current, places)
    this.#recent.set(policies.current, { held: identities.current, places, rules })
    return rules
  }

  #find(
    { documents, options, version, spiffeIds, selectors, candidate: tried }: WorkloadPolicies,
    held: WorkloadIdentities,
    places: ProxyPlaces,
  ): Rules {
    if (spiffeIds.length === 0) return nothingAllowed(places)
    const trustDomains = [held.bundle.trustDomain, ...held.federated.keys()].toSorted()
    const facts = [spiffeIds, selectors.map(formatSelector), trustDomains, [written(places)]].map((part) => part.join(' ')).join('\n')
    const set = this.#read(version, documents, options)
    if (!set) return nothingAllowed(places)
    const key = `${set.fingerprint} ${tried?.version ?? ''}\n${facts}`
    const known = this.#rules.get(key)
    if (known && this.#isCurrent(known)) return remember(this.#rules, key, known)

    const compiled = compileFor(set, { spiffeIds, selectors }, { at: this.#clock.now() })
    const enforced = this.#enforceable(() => deliveredFilters(compiled, trustDomains, places), { version, facts, places })
    const candidate = tried ? this.#compileCandidate(tried, { spiffeIds, selectors }) : dryRun(version, compiled)
    const filters = new Map([...enforced, ...this.#lookingOnly(candidate, trustDomains, places)])
    return remember(this.#rules, key, { compiled, filters, ...(candidate && { candidate }) })
  }

  /** A candidate that cannot be read is not tried; the log says why. */
  #compileCandidate({ version, documents, options }: PolicyDocuments, facts: WorkloadFacts): Candidate | undefined {
    try {
      const set = parsePolicySet(documents, { ...this.#language, ...options }, this.#readBefore)
      return { version, compiled: compileFor(set, facts, { at: this.#clock.now() }) }
    } catch (error) {
      this.#log.error('the policies that were to be tried cannot be read', { version, error: tellChain(error) })
      return undefined
    }
  }

  #lookingOnly(candidate: Candidate | undefined, trustDomains: readonly TrustDomain[], places: ProxyPlaces): Resources {
    if (!candidate) return toCandidateResources(undefined)
    try {
      return toCandidateResources({ version: candidate.version, filters: deliveredFilters(candidate.compiled, trustDomains, places) })
    } catch (error) {
      this.#log.error('a proxy cannot tell what the policies that are tried would decide', {
        version: candidate.version,
        error: tellChain(error),
      })
      return toCandidateResources(undefined)
    }
  }

  #isCurrent({ compiled, candidate }: Rules): boolean {
    const until = Math.min(compiled?.validUntil ?? Infinity, candidate?.compiled.validUntil ?? Infinity)
    return this.#clock.now() < until
  }

  /** The filters of a workload: now, and whenever policies, identities, trust or the time change them. */
  filtersOf(workload: Workload, places: ProxyPlaces = noPlaces): Watched<Resources> {
    const now = () => this.of(workload, places)
    const changes = (signal: AbortSignal) => this.#changes(workload, places, signal)
    return {
      get current() {
        return now().filters
      },
      changes,
    }
  }

  async *#changes(workload: Workload, places: ProxyPlaces, signal: AbortSignal): AsyncGenerator<Resources, void, void> {
    const left = new AbortController()
    const until = AbortSignal.any([signal, left.signal])
    const news = new WatchedValue(0)
    const tell = () => news.set(news.current + 1)
    const following = [workload.policies, workload.identities].map((source) =>
      follow(source, tell, until).catch((error: unknown) => news.close(error)),
    )
    let timer = new AbortController()
    try {
      for await (const _ of news.changes(until)) {
        timer.abort()
        timer = new AbortController()
        const { compiled, filters } = this.of(workload, places)
        if (compiled?.validUntil !== undefined) {
          this.#clock.sleep(compiled.validUntil - this.#clock.now(), AbortSignal.any([until, timer.signal])).then(tell, () => {})
        }
        yield filters
      }
    } finally {
      timer.abort()
      left.abort()
      await Promise.all(following)
    }
  }

  #read(version: string, documents: readonly PolicyDocument[], options: LanguageOptions | undefined): PolicySet | undefined {
    if (!this.#sets.has(documents)) this.#sets.set(documents, this.#parse(version, documents, options))
    const set = this.#sets.get(documents)
    if (set) this.#lastGood = set
    return set ?? this.#lastGood
  }

  #parse(version: string, documents: readonly PolicyDocument[], options: LanguageOptions | undefined): PolicySet | undefined {
    try {
      return parsePolicySet(documents, { ...this.#language, ...options }, this.#readBefore)
    } catch (error) {
      const failure = Failure.from(error)
      this.#log.error('the policies cannot be read; the last good ones stay in force', {
        version,
        reason: failure.reason,
        error: tellChain(failure),
      })
      return undefined
    }
  }

  #enforceable(
    make: () => DeliveredFilters,
    { version, facts, places }: { readonly version: string; readonly facts: string; readonly places: ProxyPlaces },
  ): Resources {
    try {
      const filters = make()
      if (filters.notes.length > 0) this.#log.warn('the proxy cannot do all that the policies say', { version, notes: filters.notes })
      return remember(this.#lastFilters, facts, toFilterResources(filters))
    } catch (error) {
      const failure = Failure.from(error)
      this.#log.error('the policies cannot be enforced by a proxy; the last ones that can stay in force', {
        version,
        reason: failure.reason,
        error: tellChain(failure),
      })
      return this.#lastFilters.get(facts) ?? nothingAllowed(places).filters
    }
  }
}

/** Policies on dry run are tried with all those in force, as the set that they would make. */
const dryRun = (version: string, { candidate }: CompiledPolicies): Candidate | undefined =>
  candidate && { version: version.replace(/[+~].*$/, ''), compiled: candidate }

async function follow(source: Watched<unknown>, tell: () => void, signal: AbortSignal): Promise<void> {
  for await (const _ of source.changes(signal)) tell()
}

/** Keeps a value as the most recently used, and lets the least recently used go. */
function remember<T>(kept: Map<string, T>, key: string, value: T): T {
  kept.delete(key)
  kept.set(key, value)
  if (kept.size > maxKept) kept.delete(kept.keys().next().value!)
  return value
}

const nothingAllowed = (places: ProxyPlaces): Rules => ({
  compiled: undefined,
  filters: new Map([...toFilterResources(refuseEverything(places)), ...toCandidateResources(undefined)]),
})

const written = ({ tokens, audit, providers, keys }: ProxyPlaces): string => JSON.stringify([tokens, audit, [...providers], [...keys]])

/** Workloads with different facts on one machine. */
const maxKept = 256
