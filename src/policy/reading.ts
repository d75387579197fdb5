/** Small readers that all kinds of the language share: a tree in, a value out, and what is wrong noted with its place. */
import { formatInstant, parseInstant, type Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { parseSpiffeId } from '../spiffe/id.ts'
import { isTemplate, parseTemplate } from './matching.ts'
import type { IdMatch, PolicyMode, PolicyTarget, TargetRef } from './policy-set.ts'
import { refuseUnknownKeys, shorten, tell, type ListTree, type MapTree, type Problems, type TextTree, type Tree } from './yaml-tree.ts'

/** What all readers of one document share. */
export interface Reading {
  readonly problems: Problems
  readonly mode: PolicyMode
  readonly rootNamespace: string
}
export interface PolicyReading extends Reading {
  readonly ours: boolean
  readonly target: PolicyTarget
  readonly namespace: string
}

/** SPIFFE ID patterns: exact, `{*}` one segment, `{**}` the rest. Undefined where the problem was noted. */
export function readIdMatch(text: string, at: Tree, problems: Problems): IdMatch | undefined {
  if (isTemplate(text)) {
    const template = parseTemplate(text)
    if ('wrong' in template) return problems.add(at, template.wrong)
    if (template.parts.slice(0, -1).some((part) => part.kind === 'rest'))
      return problems.add(at, '`{**}` must be the last segment of a SPIFFE ID')
    return attempt(() => parseSpiffeId(text.replaceAll(/\{\*\*?\}/g, 'x')), at, problems) && template
  }
  if (text.includes('*')) return problems.add(at, `\`${shorten(text)}\` is not a pattern: \`{*}\` is one segment, \`{**}\` the rest`)
  const id = attempt(() => parseSpiffeId(text), at, problems)
  return id && { kind: 'id', id }
}

/** Reads a date, which means its first moment in UTC, or an RFC 3339 time. Undefined for anything else. */
export function readMoment(text: string): Instant | undefined {
  if (!dateOnly.test(text)) return parseInstant(text)
  const at = parseInstant(`${text}T00:00:00Z`)
  // The platform's parser takes 30 February for the first days of March.
  return at !== undefined && formatInstant(at).startsWith(text) ? at : undefined
}

/** `selector`: labels that a workload must have, compared exactly. */
export function readSelector(selector: Tree, problems: Problems): { key: string; value: string }[] {
  if (selector.kind !== 'map') {
    problems.add(selector, `expected a map, found ${tell(selector)}`)
    return []
  }
  refuseUnknownKeys(selector, ['matchLabels'], problems)
  const labels = selector.entries.has('matchLabels') ? mapOf(selector, 'matchLabels', problems) : undefined
  if (!labels) return []
  return [...labels.entries].flatMap(([key, value]) => {
    if (value.kind !== 'text') problems.add(value, `expected a text, found ${tell(value)}`)
    else if (key === '' || key.includes('*') || value.text.includes('*'))
      problems.add(value, 'labels are compared exactly: no `*`, and no empty key')
    else return [{ key, value: value.text }]
    return []
  })
}

/** `targetRefs` (authorization.md 1.6), or the one `targetRef` of before. */
export function readTargetRefs(
  spec: MapTree,
  { problems, namespace, rootNamespace }: Pick<PolicyReading, 'problems' | 'namespace' | 'rootNamespace'>,
): TargetRef[] | undefined {
  const many = spec.entries.get('targetRefs')
  const one = spec.entries.get('targetRef')
  if (!many && !one) return undefined
  const given = (many ?? one)!
  if (many && one) problems.add(one, '`targetRef` cannot stand beside `targetRefs`')
  if (spec.entries.has('selector'))
    problems.add(given, '`selector` cannot stand beside `targetRefs`: a policy is for workloads or for a gateway')
  const list = many ? listOf(many, limits.targetRefs, problems)?.items : [one!]
  if (list?.length === 0) problems.add(given, 'an empty list: leave `targetRefs` out, or name what the policy is attached to')
  return list?.flatMap((item) => readTargetRef(item, { problems, namespace, rootNamespace }) ?? [])
}

function readTargetRef(
  item: Tree,
  { problems, namespace, rootNamespace }: Pick<PolicyReading, 'problems' | 'namespace' | 'rootNamespace'>,
): TargetRef | undefined {
  if (item.kind !== 'map') return problems.add(item, `expected a map with \`kind\` and \`name\`, found ${tell(item)}`)
  refuseUnknownKeys(item, ['group', 'kind', 'name', 'namespace'], problems)
  const given = item.entries.get('group')
  const group = given?.kind === 'text' ? given.text : ''
  if (given && given.kind !== 'text') problems.add(given, `expected a text, found ${tell(given)}`)
  const kind = textOf(item, 'kind', problems)
  const name = textOf(item, 'name', problems)
  const elsewhere = item.entries.get('namespace')
  if (elsewhere && !(elsewhere.kind === 'text' && elsewhere.text === namespace))
    problems.add(elsewhere, 'a policy is attached in its own namespace: leave `namespace` out')
  if (!kind || !name) return undefined
  if (!attachable.includes(`${group}/${kind.text}`))
    return problems.add(
      kind,
      `a policy cannot be attached to \`${shorten(`${group}/${kind.text}`)}\`: expected one of \`${attachable.join('`, `')}\``,
    )
  if (kind.text === 'GatewayClass' && namespace !== rootNamespace)
    return problems.add(kind, `a policy for a \`GatewayClass\` stands in the root namespace \`${rootNamespace}\``)
  return { group, kind: kind.text, name: name.text }
}

export function readValues<Match>(
  values: Tree,
  problems: Problems,
  readOne: (text: string, at: Tree) => Match | undefined,
  mode: PolicyMode = 'strict',
  most: number = limits.items,
): Match[] | undefined {
  const list = listOf(values, most, problems)
  if (!list) return undefined
  if (list.items.length === 0) return mode === 'istio' ? undefined : problems.add(list, 'an empty list: leave it out, or name values')
  const read = list.items.map((item) => {
    if (item.kind !== 'text')
      return problems.add(
        item,
        `expected a text${item.kind === 'number' || item.kind === 'boolean' ? ' in quotes' : ''}, found ${tell(item)}`,
      )
    if (item.text === '') return problems.add(item, 'expected a value, found an empty text')
    if (item.text.length > limits.value)
      return problems.add(item, `a value has at most ${limits.value} characters, this one ${item.text.length}`)
    return readOne(item.text, item)
  })
  return read.filter((one) => one !== undefined)
}

export function listOf(tree: Tree, most: number, problems: Problems): ListTree | undefined {
  if (tree.kind !== 'list') return problems.add(tree, `expected a list, found ${tell(tree)}`)
  if (tree.items.length > most) return problems.add(tree, `at most ${most} items, found ${tree.items.length}`)
  return tree
}

export function mapOf(tree: MapTree, key: string, problems: Problems): MapTree | undefined {
  const found = tree.entries.get(key)
  if (found?.kind === 'map') return found
  return problems.add(found ?? tree, found ? `expected a map, found ${tell(found)}` : `expected the key \`${key}\``)
}

export function textOf(tree: MapTree, key: string, problems: Problems): TextTree | undefined {
  const found = tree.entries.get(key)
  if (found?.kind === 'text') return found
  return problems.add(found ?? tree, found ? `expected a text, found ${tell(found)}` : `expected the key \`${key}\``)
}

export function textAt(tree: MapTree, key: string): string | undefined {
  const found = tree.entries.get(key)
  return found?.kind === 'text' ? found.text : undefined
}

export function oneOf<const Choice extends string>(
  tree: MapTree,
  key: string,
  choices: readonly Choice[],
  problems: Problems,
): Choice | undefined {
  const found = textOf(tree, key, problems)
  if (!found) return undefined
  return (
    choices.find((choice) => choice === found.text) ??
    problems.add(found, `expected ${choices.map((choice) => `\`${choice}\``).join(' or ')}, found ${tell(found)}`)
  )
}

/** Runs a parser of another room and notes its refusal as a problem. */
export function attempt<T>(parse: () => T, at: Tree, problems: Problems): T | undefined {
  try {
    return parse()
  } catch (cause) {
    return problems.add(at, Failure.from(cause).message)
  }
}

export function refuseKeysWithReason(tree: MapTree, reasons: Readonly<Record<string, string>>, problems: Problems): void {
  for (const [key, reason] of Object.entries(reasons)) {
    const place = tree.keys.get(key)
    if (place) problems.add({ path: tree.path === '' ? key : `${tree.path}.${key}`, place }, reason)
  }
}

/** Limits of Istio's validation where it has one (authorization.md 1.2, 1.8). */
export const limits = {
  documents: 10_000,
  policies: 10_000,
  rules: 512,
  sources: 512,
  /** Where Istio has no limit of its own. */
  items: 4096,
  value: 2048,
  name: 253,
  serviceAccounts: 16,
  serviceAccount: 320,
  targetRefs: 16,
  claimDepth: 16,
} as const

export const istioVersion = 'security.istio.io/v1'
export const ourVersion = 'vidimus.dev/v1'
/** RFC 1123 names, as Kubernetes uses them. */
export const dnsLabel = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/
export const dnsSubdomain = /^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/
/** authorization.md 1.6; the group of a `Service` is empty. */
export const attachable: readonly string[] = [
  'gateway.networking.k8s.io/Gateway',
  'gateway.networking.k8s.io/GatewayClass',
  '/Service',
  'networking.istio.io/ServiceEntry',
]
const dateOnly = /^\d{4}-\d{2}-\d{2}$/
