/**
 * Requests that a client can send to a real proxy: for each rule one that meets it, and from there each attribute through near misses of all that rules say of it.
 * Knows nothing of the classes that `src/policy/analysis/cover.ts` makes its requests of: what those leave out by mistake is met here.
 */
import type { CelTest, CelTree } from '../../src/policy/cel.ts'
import type { CompiledPolicies } from '../../src/policy/compile.ts'
import type { CompiledRule } from '../../src/policy/compiled-rule.ts'
import { namesPort } from '../../src/policy/evaluate.ts'
import type { AddressBlock, PathMatch, StringMatch } from '../../src/policy/matching.ts'
import type { Clause } from '../../src/policy/policy-set.ts'
import type { Caller, Sent } from '../e2e/policy-rows.ts'

type Attribute = 'caller' | 'method' | 'path' | 'host' | 'sni' | 'sourceIp' | 'remoteIp' | 'meta' | `header ${string}`
type Classes = Map<Attribute, unknown[]>

/** At most `most` of them, each once. */
export function coveringRequests({ custom, audit, deny, allow }: CompiledPolicies, callers: readonly Caller[], most: number): Sent[] {
  const rules = [...custom, ...audit, ...deny, ...allow]
  const classes: Classes = new Map<Attribute, unknown[]>([['caller', [...callers]]])
  for (const clause of rules.flatMap(clausesOf)) add(classes, ...classesOf(clause))
  for (const test of rules.flatMap(({ cel }) => (cel ? testsOf(cel.tree) : []))) add(classes, ...classesOfTest(test))

  const bases = [{}, ...rules.flatMap((rule) => meeting(rule))]
  const found = new Map<string, Sent>()
  for (const base of bases) {
    for (const [attribute, values] of classes) for (const value of values) keep(found, changed(base, attribute, value))
    keep(found, base)
  }
  return [...found.values()].slice(0, most)
}

function keep(found: Map<string, Sent>, sent: Sent): void {
  found.set(JSON.stringify(sent), sent)
}

function add(classes: Classes, attribute: Attribute | undefined, values: readonly unknown[] = []): void {
  if (attribute === undefined) return
  const known = classes.get(attribute) ?? []
  classes.set(attribute, [...known, ...values.filter((value) => !known.includes(value))])
}

function changed(sent: Sent, attribute: Attribute, value: unknown): Sent {
  if (!attribute.startsWith('header ')) return { ...sent, [attribute]: value }
  const name = attribute.slice('header '.length)
  const others = (sent.headers ?? []).filter(([one]) => one !== name)
  return { ...sent, headers: [...others, ...(value as readonly string[]).map((one) => [name, one] as const)] }
}

/** A request a branch of the rule that has the first class of everything the branch names. */
function meeting(rule: CompiledRule): Sent[] {
  const sources = rule.sources === 'any' ? [[]] : rule.sources
  const operations = rule.operations === 'any' ? [[]] : rule.operations
  return sources.flatMap((source) =>
    operations.map((operation) =>
      [...source, ...operation, ...rule.conditions].reduce<Sent>((sent, clause) => {
        const [attribute, values] = classesOf(clause)
        return clause.not || attribute === undefined || values === undefined ? sent : changed(sent, attribute, values[0])
      }, {}),
    ),
  )
}

const clausesOf = ({ sources, operations, conditions }: CompiledRule): readonly Clause[] => [
  ...(sources === 'any' ? [] : sources.flat()),
  ...(operations === 'any' ? [] : operations.flat()),
  ...conditions,
]
const testsOf = (tree: CelTree): readonly CelTest[] => (tree.kind === 'test' ? [tree] : tree.of.flatMap(testsOf))

/** One value of each class; callers and tokens are given by who asks. */
function classesOf(clause: Clause): readonly [Attribute?, (readonly unknown[])?] {
  switch (clause.on) {
    case 'method':
      return ['method', [...clause.anyOf.flatMap(textsOf).filter((text) => knownMethods.includes(text)), 'GET', 'POST', 'DELETE']]
    case 'path':
      return ['path', [...clause.anyOf.flatMap(pathsOf), '/', '/zz']]
    case 'host':
      return ['host', clause.anyOf.flatMap((match) => hostsOf(match))]
    case 'connection.sni':
      return ['sni', [...clause.anyOf.flatMap(textsOf).filter((text) => /^[a-z0-9.-]+$/.test(text)), undefined]]
    case 'header':
      return [`header ${clause.name}`, clause.anyOf.flatMap(textsOf).flatMap((text) => [[text], [text, 'zz'], ['zz', text], [], ['']])]
    case 'filter-metadata':
      return ['meta', [...clause.anyOf.flatMap(({ match }) => textsOf(match)).filter((text) => text !== ''), undefined]]
    case 'remote.ip':
      return ['remoteIp', [...clause.anyOf.map(addressIn), '203.0.113.9', undefined]]
    case 'source.ip':
      return ['sourceIp', [undefined, '127.0.0.2', '127.0.0.3']]
    default:
      return []
  }
}

function classesOfTest({ attribute, comparison }: CelTest): readonly [Attribute?, (readonly unknown[])?] {
  const texts =
    comparison.is === 'one-of' ? comparison.values : 'value' in comparison ? [comparison.value.replace(/[^a-z0-9/.-]/gi, '')] : ['v']
  const near = texts.flatMap((text) => [text, `${text}z`])
  if (attribute.on === 'request.headers')
    return [`header ${attribute.name}`, near.flatMap((text) => [[text], [text, text], [`${text},`], []])]
  if (attribute.on === 'request.method') return ['method', [...texts.filter((text) => knownMethods.includes(text)), 'DELETE']]
  if (attribute.on === 'request.url_path') return ['path', [...near.filter((text) => text.startsWith('/')), '/zz']]
  if (attribute.on === 'connection.requested_server_name') return ['sni', [...near, undefined]]
  return []
}

/** Texts just inside and just outside of a match. */
function textsOf(match: StringMatch): string[] {
  switch (match.kind) {
    case 'exact':
      return [match.value, `${match.value}z`, `z${match.value}`, match.value.slice(0, -1)].filter((text) => text !== '')
    case 'prefix':
      return [`${match.value}z`, match.value, `z${match.value}`, match.value.slice(0, -1)].filter((text) => text !== '')
    case 'suffix':
      return [`z${match.value}`, match.value, `${match.value}z`, match.value.slice(1)].filter((text) => text !== '')
    case 'present':
      return ['z']
    default:
      throw new Error(`bug: ${JSON.stringify(match satisfies never)}`)
  }
}

function hostsOf(match: StringMatch): string[] {
  const texts = textsOf(match)
  return [
    ...texts,
    ...texts.flatMap((text) => (namesPort(match) ? [] : [`${text}:8080`])),
    ...texts.map((text) => text.toUpperCase()),
    `${texts[0]!}.`,
  ]
}

function pathsOf(match: PathMatch): string[] {
  if (match.kind !== 'template') return textsOf(match).map((text) => (text.startsWith('/') ? text : `/${text}`))
  const filled = (one: string, rest: string) =>
    match.parts.map((part) => (part.kind === 'literal' ? part.text : part.kind === 'one' ? one : rest)).join('/')
  return [
    filled('z', 'z'),
    filled('z', ''),
    filled('z', 'z/z'),
    filled('z/z', 'z'),
    filled('', 'z'),
    filled('a[0]', 'a[0]'),
    filled('a%20b', 'a|b'),
    `${filled('z', 'z')}/z`,
  ]
}

const addressIn = ({ bytes }: AddressBlock): string =>
  bytes.length === 4
    ? bytes.join('.')
    : Array.from({ length: 8 }, (_, index) => ((bytes[index * 2]! << 8) | bytes[index * 2 + 1]!).toString(16)).join(':')

/** What the proxy's own parser takes. */
const knownMethods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']
