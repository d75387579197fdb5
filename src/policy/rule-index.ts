/**
 * Finds the rules that can match a request without reading the others. Each rule stands under the one property
 * (path, peer or method) that tells it best from the rest; one that names none of them is always read.
 * INVARIANT: a rule that matches is among the candidates.
 */
import type { CompiledRule } from './compile.ts'
import { literalPrefix } from './matching.ts'
import type { Clause, Operation, PolicyMode, Source } from './policy-set.ts'

/** Numbers of rules in a list, ascending. */
type Bucket = number[]

export interface RuleIndex {
  readonly path: TextIndex
  readonly peer: TextIndex
  readonly method: TextIndex
  /** Rules that have to be read for every request. */
  readonly always: Bucket
}

export interface TextIndex {
  readonly exact: ReadonlyMap<string, Bucket>
  readonly prefix: ReadonlyMap<string, Bucket>
  /** The lengths of the prefixes, each once. */
  readonly lengths: readonly number[]
}

/** What is looked up; the path folded as rules are compared with it. */
export interface IndexKeys {
  readonly path: string
  /** Without a verified peer: none. */
  readonly peers: readonly string[]
  readonly method: string
}

/** Puts every rule where a request that it matches will look. */
export function indexRules(rules: readonly CompiledRule[], mode: PolicyMode): RuleIndex {
  const keys = rules.map((rule) => ({ path: pathKeys(rule), peer: peerKeys(rule, mode), method: methodKeys(rule) }))
  const crowds = { path: crowd(keys.map((one) => one.path)), peer: crowd(keys.map((one) => one.peer)), method: crowd(keys.map((one) => one.method)) }
  const built = { path: builder(), peer: builder(), method: builder() }
  const always: Bucket = []
  for (const [number, one] of keys.entries()) {
    const sizes = dimensions.flatMap((dimension) => {
      const own = one[dimension]
      return own ? [{ dimension, own, size: Math.max(...own.map((key) => crowds[dimension].get(tag(key))!)) }] : []
    })
    const best = sizes.sort((a, b) => a.size - b.size)[0]
    if (best) for (const key of best.own) put(built[best.dimension][key.exact ? 'exact' : 'prefix'], key.text, number)
    else always.push(number)
  }
  const finish = ({ exact, prefix }: ReturnType<typeof builder>): TextIndex => ({ exact, prefix, lengths: [...new Set([...prefix.keys()].map((key) => key.length))] })
  return { path: finish(built.path), peer: finish(built.peer), method: finish(built.method), always }
}

/** The number of the first rule that `matches`, trying only those that can; -1 if none does. */
export function firstMatch(index: RuleIndex, keys: IndexKeys, matches: (rule: number) => boolean): number {
  let first = tryBucket(index.always, -1, matches)
  first = tryText(index.path, keys.path, first, matches)
  first = tryText(index.method, keys.method, first, matches)
  for (const peer of keys.peers) first = tryText(index.peer, peer, first, matches)
  return first
}

function tryText(index: TextIndex, text: string, first: number, matches: (rule: number) => boolean): number {
  first = tryBucket(index.exact.get(text), first, matches)
  for (const length of index.lengths) {
    if (length <= text.length) first = tryBucket(index.prefix.get(text.slice(0, length)), first, matches)
  }
  return first
}

/** Reads a bucket as long as it can still improve on `first`. */
function tryBucket(bucket: Bucket | undefined, first: number, matches: (rule: number) => boolean): number {
  if (!bucket) return first
  for (const rule of bucket) {
    if (first !== -1 && rule >= first) return first
    if (matches(rule)) return rule
  }
  return first
}

/** Texts of which one must be equal to, or a prefix of, what the request has; undefined if the rule does not say. */
type Keys = readonly { readonly exact: boolean; readonly text: string }[] | undefined

function pathKeys(rule: CompiledRule): Keys {
  return keysOf(rule.operations, (clause) => {
    if (clause.on !== 'path' || clause.not) return undefined
    return every(clause.anyOf, (match) => {
      if (match.kind === 'exact') return { exact: true, text: match.value }
      if (match.kind === 'prefix') return prefixKey(match.value)
      return match.kind === 'template' ? prefixKey(literalPrefix(match)) : undefined
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
    clause.on !== 'method' || clause.not ? undefined : every(clause.anyOf, (match) => (match.kind === 'exact' ? { exact: true, text: match.value } : undefined)),
  )
}

/** The keys of a clause in each of the terms, if every term has such a clause. */
function keysOf<Term extends Source | Operation>(terms: 'any' | readonly Term[], of: (clause: Clause) => Keys): Keys {
  if (terms === 'any') return undefined
  const keys = terms.map((term) => term.map(of).find((one) => one !== undefined))
  return keys.length > 0 && keys.every((one) => one !== undefined && one.length > 0) ? keys.flatMap((one) => one ?? []) : undefined
}

function every<M, K>(list: readonly M[], of: (one: M) => K | undefined): K[] | undefined {
  const keys = list.map(of).filter((one) => one !== undefined)
  return keys.length === list.length ? keys : undefined
}

/** Long prefixes share one length, so that a request looks up a handful of them and not hundreds. */
function prefixKey(text: string): { exact: boolean; text: string } {
  const step = text.length > 64 ? 64 : text.length > 24 ? text.length - (text.length % 8) : text.length
  return { exact: false, text: text.slice(0, step) }
}

/** How many rules stand under each key. */
function crowd(keys: readonly Keys[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const own of keys) for (const key of own ?? []) counts.set(tag(key), (counts.get(tag(key)) ?? 0) + 1)
  return counts
}

function put(index: Map<string, Bucket>, key: string, rule: number): void {
  const bucket = index.get(key)
  if (!bucket) index.set(key, [rule])
  else if (bucket.at(-1) !== rule) bucket.push(rule)
}

const tag = (key: { readonly exact: boolean; readonly text: string }): string => `${key.exact ? '=' : '^'}${key.text}`
const builder = () => ({ exact: new Map<string, Bucket>(), prefix: new Map<string, Bucket>() })
const dimensions = ['path', 'peer', 'method'] as const
