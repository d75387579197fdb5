/**
 * Finds the rules that can match a request without reading the others. Each rule stands under what tells it best from the rest:
 * its peer and its path together, one of them, or its method; one that names none of them is always read.
 * INVARIANT: a rule that matches is among the candidates.
 */
import type { CompiledRule } from './compiled-rule.ts'
import { literalPrefix } from './matching.ts'
import type { Clause, Operation, PolicyMode, Source } from './policy-set.ts'

/** Numbers of rules in a list, ascending. */
type Bucket = number[]

export interface RuleIndex {
  /** By peer exactly, then by path. */
  readonly pair: ReadonlyMap<string, TextIndex>
  readonly path: TextIndex
  readonly peer: TextIndex
  readonly method: TextIndex
  /** Rules that have to be read for every request. */
  readonly always: Bucket
}

export interface TextIndex {
  readonly exact: ReadonlyMap<string, Bucket>
  readonly prefix: ReadonlyMap<string, Bucket>
  /** How many slashes the prefixes have that end with one, each number once. */
  readonly depths: readonly number[]
  /** The lengths of the others, each once. */
  readonly lengths: readonly number[]
}

/** What is looked up; the path folded as rules are compared with it. Without a verified peer: no peers. */
export class IndexKeys {
  readonly path: string
  readonly peers: readonly string[]
  readonly method: string
  /** Beginnings of the path by their length: a text that was looked up once is looked up quickly again. */
  readonly #beginnings: string[] = []
  /** Behind each slash, as far as was asked. */
  readonly #ends: number[] = []

  constructor(path: string, peers: readonly string[], method: string) {
    this.path = path
    this.peers = peers
    this.method = method
  }

  beginning(length: number): string {
    return (this.#beginnings[length] ??= this.path.slice(0, length))
  }

  /** The beginning with so many slashes that ends with one; undefined if there are fewer. */
  levels(depth: number): string | undefined {
    while (this.#ends.length < depth) {
      const slash = this.path.indexOf('/', this.#ends.at(-1) ?? 0)
      if (slash === -1) return undefined
      this.#ends.push(slash + 1)
    }
    return this.beginning(this.#ends[depth - 1]!)
  }
}

/** Puts every rule where a request that it matches will look. */
export function indexRules(rules: readonly CompiledRule[], mode: PolicyMode): RuleIndex {
  const placements = rules.map((rule) => placementsOf(rule, mode))
  const crowds = new Map<string, number>()
  for (const key of placements.flat().flatMap(({ keys }) => keys)) crowds.set(tag(key), (crowds.get(tag(key)) ?? 0) + 1)

  const pair = new Map<string, Building>()
  const single = { path: building(), peer: building(), method: building() }
  const always: Bucket = []
  for (const [number, choices] of placements.entries()) {
    const sized = choices.map((choice) => ({ ...choice, crowd: Math.max(...choice.keys.map((key) => crowds.get(tag(key))!)) }))
    const best = sized.reduce<(typeof sized)[number] | undefined>((a, b) => (a && a.crowd <= b.crowd ? a : b), undefined)
    if (!best) always.push(number)
    for (const key of best?.keys ?? []) {
      const into = key.within === 'pair' ? (pair.get(key.peer) ?? building()) : single[key.within]
      if (key.within === 'pair') pair.set(key.peer, into)
      put(into[key.exact ? 'exact' : 'prefix'], key.text, number)
    }
  }
  return {
    pair: new Map([...pair].map(([peer, one]) => [peer, finished(one, true)])),
    path: finished(single.path, true),
    peer: finished(single.peer, false),
    method: finished(single.method, false),
    always,
  }
}

/** The number of the first rule that `matches`, trying only those that can; -1 if none does. */
export function firstMatch<Rule, Seen>(
  index: RuleIndex,
  keys: IndexKeys,
  rules: readonly Rule[],
  seen: Seen,
  matches: (rule: Rule, seen: Seen) => boolean,
): number {
  const tryBucket = (bucket: Bucket | undefined, before: number): number => {
    if (bucket === undefined) return before
    // As long as it can still improve on what was found before.
    for (let at = 0; at < bucket.length; at++) {
      const rule = bucket[at]!
      if (before !== -1 && rule >= before) return before
      if (matches(rules[rule]!, seen)) return rule
    }
    return before
  }
  const tryPath = (text: TextIndex, before: number): number => {
    let found = text.exact.size > 0 ? tryBucket(text.exact.get(keys.path), before) : before
    for (let at = 0; at < text.depths.length; at++) {
      const levels = keys.levels(text.depths[at]!)
      if (levels !== undefined) found = tryBucket(text.prefix.get(levels), found)
    }
    for (let at = 0; at < text.lengths.length; at++) {
      const length = text.lengths[at]!
      if (length <= keys.path.length) found = tryBucket(text.prefix.get(keys.beginning(length)), found)
    }
    return found
  }
  let first = tryBucket(index.always, -1)
  first = tryPath(index.path, first)
  if (index.method.exact.size > 0) first = tryBucket(index.method.exact.get(keys.method), first)
  for (let at = 0; at < keys.peers.length; at++) {
    const peer = keys.peers[at]!
    if (index.peer.exact.size > 0) first = tryBucket(index.peer.exact.get(peer), first)
    for (const length of index.peer.lengths) {
      if (length <= peer.length) first = tryBucket(index.peer.prefix.get(peer.slice(0, length)), first)
    }
    const ofPeer = index.pair.get(peer)
    if (ofPeer) first = tryPath(ofPeer, first)
  }
  return first
}

/** Texts of which one must be equal to, or a prefix of, what the request has; undefined if the rule does not say. */
type Keys = readonly Key[] | undefined
interface Key {
  readonly exact: boolean
  readonly text: string
}
type Placed = Key & ({ readonly within: 'path' | 'peer' | 'method' } | { readonly within: 'pair'; readonly peer: string })

/** The ways to place a rule; the best known first. */
function placementsOf(rule: CompiledRule, mode: PolicyMode): { readonly keys: readonly Placed[] }[] {
  const path = pathKeys(rule)
  const peer = peerKeys(rule, mode)
  const method = methodKeys(rule)
  const pairs =
    path && peer?.every(({ exact }) => exact) && path.length * peer.length <= maxPairs
      ? peer.flatMap((one) => path.map((key): Placed => ({ ...key, within: 'pair', peer: one.text })))
      : undefined
  const single = (keys: Keys, within: 'path' | 'peer' | 'method') => keys?.map((key): Placed => ({ ...key, within }))
  return [pairs, single(path, 'path'), single(peer, 'peer'), single(method, 'method')].flatMap((keys) => (keys ? [{ keys }] : []))
}

function pathKeys(rule: CompiledRule): Keys {
  return keysOf(rule.operations, (clause) => {
    if (clause.on !== 'path' || clause.not) return undefined
    return every(clause.anyOf, (match) => {
      if (match.kind === 'exact') return { exact: true, text: match.value }
      if (match.kind === 'prefix') return pathPrefixKey(match.value)
      return match.kind === 'template' ? pathPrefixKey(literalPrefix(match)) : undefined
    })
  })
}

function peerKeys(rule: CompiledRule, mode: PolicyMode): Keys {
  return keysOf(rule.sources, (clause) => {
    if (clause.on !== 'peer' || clause.not) return undefined
    return every(clause.anyOf, (match) => {
      if (match.kind === 'id') return { exact: true, text: match.id }
      if (match.kind === 'below') return prefixKey(match.prefix)
      if (match.kind === 'template') return prefixKey(literalPrefix(match))
      if (match.kind !== 'principal' || mode !== 'istio') return undefined
      if (match.match.kind === 'exact') return { exact: true, text: `spiffe://${match.match.value}` }
      return match.match.kind === 'prefix' ? prefixKey(`spiffe://${match.match.value}`) : undefined
    })
  })
}

function methodKeys(rule: CompiledRule): Keys {
  return keysOf(rule.operations, (clause) =>
    clause.on !== 'method' || clause.not
      ? undefined
      : every(clause.anyOf, (match) => (match.kind === 'exact' ? { exact: true, text: match.value } : undefined)),
  )
}

/** The keys of a clause in each of the terms, if every term has such a clause. */
function keysOf(terms: 'any' | readonly (Source | Operation)[], of: (clause: Clause) => Keys): Keys {
  if (terms === 'any') return undefined
  const keys = terms.map((term: readonly Clause[]) => term.map(of).find((one) => one !== undefined))
  return keys.length > 0 && keys.every((one) => one !== undefined && one.length > 0) ? keys.flatMap((one) => one ?? []) : undefined
}

function every<M, K>(list: readonly M[], of: (one: M) => K | undefined): K[] | undefined {
  const keys = list.map(of).filter((one) => one !== undefined)
  return keys.length === list.length ? keys : undefined
}

/** Paths that end with a slash are looked up level by level, whatever their lengths. */
const pathPrefixKey = (text: string): Key => (text.endsWith('/') ? { exact: false, text } : prefixKey(text))

/** Long prefixes share one length, so that a request looks up a handful of them and not hundreds. */
function prefixKey(text: string): Key {
  const step = text.length > 64 ? 64 : text.length > 24 ? text.length - (text.length % 8) : text.length
  return { exact: false, text: text.slice(0, step) }
}

function put(index: Map<string, Bucket>, key: string, rule: number): void {
  const bucket = index.get(key)
  if (!bucket) index.set(key, [rule])
  else if (bucket.at(-1) !== rule) bucket.push(rule)
}

interface Building {
  readonly exact: Map<string, Bucket>
  readonly prefix: Map<string, Bucket>
}
const building = (): Building => ({ exact: new Map(), prefix: new Map() })
/** `levels`: of paths. */
function finished({ exact, prefix }: Building, levels: boolean): TextIndex {
  const keys = [...prefix.keys()]
  const byLevel = (key: string) => levels && key.endsWith('/')
  return {
    exact,
    prefix,
    depths: [...new Set(keys.filter(byLevel).map((key) => key.split('/').length - 1))],
    lengths: [...new Set(keys.filter((key) => !byLevel(key)).map((key) => key.length))],
  }
}
const tag = (key: Placed): string => `${key.within === 'pair' ? key.peer : key.within}\n${key.exact ? '=' : '^'}${key.text}`
/** A rule of many peers and many paths would stand in too many places. */
const maxPairs = 64
