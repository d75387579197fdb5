/**
 * The language of policies: YAML of `security.istio.io/v1` and `vidimus.dev/v1` in, {@link Policy} out (authorization.md 1.2 to 1.8, authorization.md 2).
 * The only file that knows it. Whatever is not understood is an error with its place; nothing is skipped.
 */
import { formatInstant, parseInstant, type Instant } from '../kernel/clock.ts'
import { parseDuration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { parseSpiffeId } from '../spiffe/id.ts'
import { parseTrustDomain } from '../spiffe/trust-domain.ts'
import {
  isTemplate,
  parseAddressBlock,
  parseStringMatch,
  parseTemplate,
  type AddressBlock,
  type PathMatch,
  type StringMatch,
} from './matching.ts'
import { foldPath, isCanonicalPath, normalizePath, type PathNormalization } from './normalize.ts'
import type {
  CallerClause,
  Clause,
  Condition,
  DurationMatch,
  IdMatch,
  OperationClause,
  PeerMatch,
  Policy,
  PolicyDocument,
  PolicyMode,
  PolicySet,
  Rule,
  Selection,
  SourceClause,
} from './policy-set.ts'
import { policySet } from './policy-set.ts'
import { serverApiCallers, type ServerApiCaller } from './request.ts'
import {
  Problems,
  readYaml,
  refuseUnknownKeys,
  shorten,
  suggestion,
  tell,
  type ListTree,
  type MapTree,
  type Problem,
  type TextTree,
  type Tree,
} from './yaml-tree.ts'

export interface LanguageOptions {
  /** `strict` by default. */
  readonly mode?: PolicyMode
  /** The namespace whose policies apply everywhere: `istio-system` by default. */
  readonly rootNamespace?: string
  /** What the proxies do to paths. Strict mode has `decode-and-merge-slashes` only; istio mode has `base` by default, as Istio. */
  readonly pathNormalization?: PathNormalization
}

/**
 * Reads and checks policies together.
 * @throws Failure `policy.invalid`; `internal.problems` is a list of {@link Problem}
 */
export function parsePolicySet(documents: readonly PolicyDocument[], options: LanguageOptions = {}): PolicySet {
  const { set, problems } = checkPolicies(documents, options)
  if (set) return set
  const told = problems.slice(0, shownProblems).map(tellProblem)
  const more = problems.length > shownProblems ? [`and ${problems.length - shownProblems} more`] : []
  throw new Failure('invalid_argument', 'policy.invalid', { public: [...told, ...more].join('; '), internal: { problems } })
}

/** Reads and checks policies together: a set, or everything that is wrong with every document, in order. */
export function checkPolicies(
  documents: readonly PolicyDocument[],
  options: LanguageOptions = {},
): { readonly set?: PolicySet; readonly problems: readonly Problem[] } {
  const mode = options.mode ?? 'strict'
  const pathNormalization = options.pathNormalization ?? (mode === 'strict' ? 'decode-and-merge-slashes' : 'base')
  const rootNamespace = options.rootNamespace ?? 'istio-system'
  const problems = new Problems()
  const whole = { path: '', place: { document: documents[0]?.name ?? '', line: 1, column: 1 } }
  if (mode === 'strict' && pathNormalization !== 'decode-and-merge-slashes') {
    problems.add(whole, `strict mode needs the path normalization \`decode-and-merge-slashes\`, found \`${pathNormalization}\``)
  }
  if (documents.length > limits.documents) problems.add(whole, `at most ${limits.documents} documents, found ${documents.length}`)

  const policies: Policy[] = []
  const kept: PolicyDocument[] = []
  for (const document of documents.slice(0, limits.documents)) {
    const trees = readYaml(document, problems)
    if (trees.length > 0 && trees.every(isPolicyTest)) continue
    kept.push(document)
    for (const tree of trees) {
      const policy = isPolicyTest(tree) ? undefined : readPolicy(tree, { problems, mode, rootNamespace })
      if (policy) policies.push(policy)
    }
  }
  if (policies.length > limits.policies) problems.add(whole, `at most ${limits.policies} policies, found ${policies.length}`)
  refuseTwins(policies, problems)
  if (problems.all.length > 0) return { problems: problems.all }
  return { set: policySet({ mode, rootNamespace, pathNormalization, policies, documents: kept }), problems: [] }
}

/** A problem on one line: `orders.yaml:7:12: spec.rules[0].to[0].operation.paths[1]: expected …`. */
export function tellProblem(problem: Problem): string {
  const where = `${problem.document}:${problem.line}:${problem.column}`
  return problem.path === '' ? `${where}: ${problem.message}` : `${where}: ${problem.path}: ${problem.message}`
}

/** True for the kind that `test-file.ts` reads: no policy, and allowed to stand beside them. */
export function isPolicyTest(tree: MapTree): boolean {
  return textAt(tree, 'apiVersion') === ourVersion && textAt(tree, 'kind') === 'PolicyTest'
}

/** SPIFFE ID patterns: exact, `{*}` one segment, `{**}` the rest. Undefined where the problem was noted. */
function readIdMatch(text: string, at: Tree, problems: Problems): IdMatch | undefined {
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

/** What all readers of one policy share. */
interface Reading {
  readonly problems: Problems
  readonly mode: PolicyMode
  readonly rootNamespace: string
}
interface PolicyReading extends Reading {
  readonly ours: boolean
  readonly target: Policy['target']
  readonly namespace: string
}

function readPolicy(tree: MapTree, reading: Reading): Policy | undefined {
  const { problems } = reading
  refuseUnknownKeys(tree, ['apiVersion', 'kind', 'metadata', 'spec', 'status'], problems)
  const apiVersion = oneOf(tree, 'apiVersion', [istioVersion, ourVersion] as const, problems)
  const kind = textOf(tree, 'kind', problems)
  if (kind !== undefined && kind.text !== 'AuthorizationPolicy') {
    const unsupported = unsupportedKinds.includes(kind.text) ? `\`${kind.text}\` is not supported` : `unknown kind ${tell(kind)}`
    problems.add(kind, `${unsupported}: expected \`AuthorizationPolicy\``)
    return undefined
  }
  const spec = mapOf(tree, 'spec', problems)
  if (!apiVersion || !kind || !spec) return undefined

  const ours = apiVersion === ourVersion
  if (!ours) refuseOurKeys(spec, ourSpecKeys, problems)
  refuseKeysWithReason(spec, unsupportedSpecKeys, problems)
  refuseUnknownKeys(spec, ours ? [...istioSpecKeys, ...ourSpecKeys] : istioSpecKeys, problems, [
    ...Object.keys(unsupportedSpecKeys),
    ...ourSpecKeys,
  ])
  const target = ours && spec.entries.has('target') ? readTarget(spec, problems) : 'workload'
  const action = spec.entries.has('action') ? readAction(spec, problems) : 'ALLOW'
  const { name, namespace } = readMetadata(tree, target ?? 'workload', problems)
  const requirePeer = readRequirePeer(spec, { ours, target, action }, problems)
  const expires = spec.entries.has('expires') ? readExpires(spec, problems) : undefined
  const selection = readSelection(
    spec,
    tree,
    { ours, target: target ?? 'workload', namespace, rootNamespace: reading.rootNamespace },
    problems,
  )
  const rules = readRules(spec, action ?? 'ALLOW', { ...reading, ours, target: target ?? 'workload', namespace })
  if (!target || !action || name === undefined || !selection) return undefined
  return {
    apiVersion,
    namespace,
    name,
    action,
    target,
    selection,
    requirePeer,
    ...(expires === undefined ? {} : { expires }),
    rules,
    place: tree.place,
  }
}

function readMetadata(tree: MapTree, target: Policy['target'], problems: Problems): { name?: string; namespace: string } {
  const metadata = mapOf(tree, 'metadata', problems)
  if (!metadata) return { namespace: '' }
  refuseUnknownKeys(metadata, metadataKeys, problems)
  const annotations = metadata.entries.get('annotations')
  const dryRun = annotations?.kind === 'map' ? annotations.entries.get('istio.io/dry-run') : undefined
  if (dryRun) problems.add(dryRun, '`istio.io/dry-run` is not supported: the policy would be enforced')
  const name = textOf(metadata, 'name', problems)
  if (name && (name.text.length > limits.name || !dnsSubdomain.test(name.text))) {
    problems.add(name, `expected a name of lower-case letters, digits, \`-\` and \`.\`, found ${tell(name)}`)
  }
  const namespace = metadata.entries.has('namespace') ? textOf(metadata, 'namespace', problems) : undefined
  if (namespace && target === 'serverApi') problems.add(namespace, 'a policy of the server API has no namespace')
  if (namespace && !dnsLabel.test(namespace.text)) {
    problems.add(namespace, `expected a namespace of at most 63 lower-case letters, digits and \`-\`, found ${tell(namespace)}`)
  }
  return { ...(name ? { name: name.text } : {}), namespace: namespace?.text ?? '' }
}

function readTarget(spec: MapTree, problems: Problems): Policy['target'] | undefined {
  const target = textOf(spec, 'target', problems)
  if (target?.text === 'serverApi') return 'serverApi'
  if (target?.text === 'onboarding') problems.add(target, 'the target `onboarding` is not supported: expected `serverApi`')
  else if (target) problems.add(target, `expected \`serverApi\`, found ${tell(target)}`)
  return undefined
}

function readAction(spec: MapTree, problems: Problems): Policy['action'] | undefined {
  const action = textOf(spec, 'action', problems)
  if (!action) return undefined
  if (action.text === 'ALLOW' || action.text === 'DENY') return action.text
  const unsupported = action.text === 'AUDIT' || action.text === 'CUSTOM'
  problems.add(
    action,
    unsupported
      ? `the action \`${action.text}\` is not supported: expected \`ALLOW\` or \`DENY\``
      : `expected \`ALLOW\` or \`DENY\`, found ${tell(action)}`,
  )
  return undefined
}

function readRequirePeer(
  spec: MapTree,
  { ours, target, action }: { ours: boolean; target: Policy['target'] | undefined; action: Policy['action'] | undefined },
  problems: Problems,
): boolean {
  const given = spec.entries.get('requirePeer')
  if (!given) return ours && target === 'workload' && action === 'ALLOW'
  if (target === 'serverApi') problems.add(given, '`requirePeer` is for workloads: the server API has `callers`')
  if (action === 'DENY')
    problems.add(given, '`requirePeer` is for ALLOW policies: a DENY rule that must not match a request without a peer names its peers')
  if (given.kind !== 'boolean') problems.add(given, `expected \`true\` or \`false\`, found ${tell(given)}`)
  return given.kind === 'boolean' && given.text === 'true'
}

function readExpires(spec: MapTree, problems: Problems): Instant | undefined {
  const expires = textOf(spec, 'expires', problems)
  if (!expires) return undefined
  const at = readMoment(expires.text)
  if (at === undefined)
    problems.add(expires, `expected a date or a moment, \`2030-12-31\` or \`2030-12-31T18:00:00Z\`, found ${tell(expires)}`)
  return at
}

function readSelection(
  spec: MapTree,
  policy: MapTree,
  { ours, target, namespace, rootNamespace }: { ours: boolean; target: Policy['target']; namespace: string; rootNamespace: string },
  problems: Problems,
): Selection | undefined {
  const selector = spec.entries.get('selector')
  const identities = spec.entries.get('identities')
  if (target === 'serverApi') {
    for (const one of [selector, identities]) if (one) problems.add(one, 'a policy of the server API selects no workloads')
    return { matchLabels: [] }
  }
  if (namespace === '' && !(ours && identities)) {
    const expected = ours ? '`metadata.namespace` or `spec.identities`' : '`metadata.namespace`'
    problems.add(policy.entries.get('metadata') ?? policy, `expected ${expected}, to say which workloads it is for`)
    return undefined
  }
  const patterns = identities && ours ? readValues(identities, problems, (text, at) => readIdMatch(text, at, problems)) : undefined
  return {
    ...(namespace === '' || namespace === rootNamespace ? {} : { namespace }),
    matchLabels: selector ? readSelector(selector, problems) : [],
    ...(patterns ? { identities: patterns } : {}),
  }
}

function readSelector(selector: Tree, problems: Problems): { key: string; value: string }[] {
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

function readRules(spec: MapTree, action: Policy['action'], reading: PolicyReading): Rule[] {
  const { problems } = reading
  const rules = spec.entries.get('rules')
  if (action === 'DENY' && (!rules || (rules.kind === 'list' && rules.items.length === 0))) {
    problems.add(rules ?? spec, 'a DENY policy without rules denies nothing: expected at least one rule')
  }
  if (!rules) return []
  const list = listOf(rules, limits.rules, problems)
  return list?.items.flatMap((rule) => readRule(rule, reading) ?? []) ?? []
}

function readRule(rule: Tree, reading: PolicyReading): Rule | undefined {
  const { problems } = reading
  if (rule.kind !== 'map') return problems.add(rule, `expected a rule with \`from\`, \`to\` or \`when\`, found ${tell(rule)}`)
  refuseKeysWithReason(rule, { condition: 'conditions in CEL are not supported' }, problems)
  refuseUnknownKeys(rule, ['from', 'to', 'when'], problems, ['condition'])
  const from = readTerms<SourceClause>(rule, 'from', 'source', sourceFields, reading)
  const to = readTerms<OperationClause>(rule, 'to', 'operation', operationFields, reading)
  const when = readConditions(rule, reading)
  return from && to && when && { from, to, when, place: rule.place }
}

/** `from` and `to`: a list of maps with one key, each a conjunction of fields. */
function readTerms<C extends Clause>(
  rule: MapTree,
  key: 'from' | 'to',
  inner: 'source' | 'operation',
  fields: ReadonlyMap<string, FieldRow<C>>,
  reading: PolicyReading,
): 'any' | C[][] | undefined {
  const { problems } = reading
  const given = rule.entries.get(key)
  if (!given) return 'any'
  const list = listOf(given, limits.terms, problems)
  if (!list) return undefined
  if (list.items.length === 0) {
    // Istio's decoder drops an empty list, so that it means any (authorization.md 1.8).
    if (reading.mode === 'istio') return 'any'
    return problems.add(list, `an empty list allows nothing: leave \`${key}\` out to mean any, or name a ${inner}`)
  }
  return list.items.flatMap((item) => {
    if (item.kind !== 'map') return problems.add(item, `expected a map with \`${inner}\`, found ${tell(item)}`) ?? []
    refuseUnknownKeys(item, [inner], problems)
    const term = mapOf(item, inner, problems)
    return term ? [readFields(term, inner, fields, reading)] : []
  })
}

function readFields<C extends Clause>(term: MapTree, inner: string, fields: ReadonlyMap<string, FieldRow<C>>, reading: PolicyReading): C[] {
  const { problems } = reading
  refuseKeysWithReason(term, unsupportedSourceKeys, problems)
  const known = [...fields]
    .filter(([, row]) => (row.target === 'both' || row.target === reading.target) && (reading.ours || !row.ours))
    .map(([name]) => name)
  const ourFields = [...fields].filter(([, row]) => row.ours).map(([name]) => name)
  if (!reading.ours) refuseOurKeys(term, ourFields, problems)
  refuseUnknownKeys(term, known, problems, [...Object.keys(unsupportedSourceKeys), ...(reading.ours ? [] : ourFields)])
  const clauses = known.flatMap((name) => {
    const values = term.entries.get(name)
    return (values && fields.get(name)!.read(values, name, reading)) ?? []
  })
  const nothingSaid = [...term.entries.values()].every((value) => value.kind === 'list' && value.items.length === 0)
  if (nothingSaid) problems.add(term, `an empty ${inner} is refused: leave it out to mean any, or name what it must be`)
  refuseMixedAccounts(term, problems)
  return clauses
}

/** authorization.md 1.2: `serviceAccounts` does not go with `principals` or `namespaces`. */
function refuseMixedAccounts(term: MapTree, problems: Problems): void {
  const accounts = term.entries.get('serviceAccounts') ?? term.entries.get('notServiceAccounts')
  const others = ['principals', 'notPrincipals', 'namespaces', 'notNamespaces'].filter((name) => term.entries.has(name))
  if (accounts && others.length > 0) problems.add(accounts, `\`serviceAccounts\` cannot stand beside \`${others[0]}\``)
}

function readConditions(rule: MapTree, reading: PolicyReading): Condition[] | undefined {
  const { problems } = reading
  const given = rule.entries.get('when')
  if (!given) return []
  const list = listOf(given, limits.terms, problems)
  if (!list) return undefined
  if (list.items.length === 0 && reading.mode === 'strict')
    return problems.add(list, 'an empty list: leave `when` out, or name a condition')
  return list.items.flatMap((item) =>
    item.kind === 'map'
      ? readCondition(item, reading)
      : (problems.add(item, `expected a condition with \`key\`, found ${tell(item)}`) ?? []),
  )
}

function readCondition(condition: MapTree, reading: PolicyReading): Condition[] {
  const { problems } = reading
  refuseUnknownKeys(condition, ['key', 'values', 'notValues'], problems)
  const key = textOf(condition, 'key', problems)
  const row = key && conditionRow(key, reading)
  if (!row || !key) return []
  const clauses = (['values', 'notValues'] as const).flatMap((name) => {
    const values = condition.entries.get(name)
    return (values && row(name === 'notValues').read(values, `${key.text} ${name}`, reading)) ?? []
  })
  const lists = ['values', 'notValues'].map((name) => condition.entries.get(name))
  if (lists.every((list) => list === undefined || (list.kind === 'list' && list.items.length === 0))) {
    problems.add(condition, 'expected `values` or `notValues`')
  }
  return clauses
}

function conditionRow(key: TextTree, reading: PolicyReading): ((not: boolean) => FieldRow<Condition>) | undefined {
  const { problems } = reading
  const known = Object.entries(conditionKeys).filter(([, row]) => row.target === reading.target)
  const found = known.find(([name]) => name === key.text)
  if (found) return found[1].row
  if (reading.target === 'workload') {
    const header = headerKey.exec(key.text)
    if (header) return headerRow(header[1]!, key, reading)
    const unsupported = unsupportedConditionKeys.find((prefix) => key.text.startsWith(prefix))
    if (unsupported) return problems.add(key, `the condition key \`${shorten(key.text)}\` is not supported`)
  }
  const names = [...known.map(([name]) => name), ...(reading.target === 'workload' ? ['request.headers[<name>]'] : [])]
  return problems.add(key, `unknown condition key \`${shorten(key.text)}\`${suggestion(key.text, names)}`)
}

function headerRow(name: string, key: TextTree, reading: PolicyReading): ((not: boolean) => FieldRow<Condition>) | undefined {
  if (reading.mode === 'strict' && (name.startsWith(':') || name.toLowerCase() === 'host')) {
    return reading.problems.add(key, `\`${name}\` is no header: use \`hosts\`, \`methods\` or \`paths\` of an operation`)
  }
  return (not) => ({
    target: 'workload',
    ours: false,
    read(values, field, { problems }) {
      const anyOf = readValues(values, problems, (text) => parseStringMatch(text), reading.mode)
      return anyOf && { on: 'header', name: name.toLowerCase(), not, anyOf, field, place: values.place }
    },
  })
}

/** Limits of Istio's validation where it has one (authorization.md 1.2, 1.8). */
const limits = {
  documents: 10_000,
  policies: 10_000,
  rules: 512,
  terms: 512,
  values: 512,
  value: 2048,
  name: 253,
  serviceAccount: 320,
} as const

// Fields. One row each; a row and its `not` form differ in `not` alone.

interface FieldRow<C> {
  readonly target: Policy['target'] | 'both'
  /** Known to `vidimus.dev/v1` only. */
  readonly ours: boolean
  read(values: Tree, field: string, reading: PolicyReading): C | undefined
}

type ValueReader<Match> = (text: string, at: Tree, reading: PolicyReading) => Match | undefined

function row<C extends Clause>(
  on: C['on'],
  not: boolean,
  readOne: ValueReader<C['anyOf'][number]>,
  { target = 'workload', ours = false, most = limits.values }: { target?: FieldRow<C>['target']; ours?: boolean; most?: number } = {},
): FieldRow<C> {
  return {
    target,
    ours,
    read(values, field, reading) {
      const anyOf = readValues(values, reading.problems, (text, at) => readOne(text, at, reading), reading.mode, most)
      // `on` and `readOne` were given together, as C has them.
      return anyOf && ({ on, not, anyOf, field, place: values.place } as unknown as C)
    },
  }
}

function both<C extends Clause>(
  name: string,
  on: C['on'],
  readOne: ValueReader<C['anyOf'][number]>,
  options: { target?: FieldRow<C>['target']; ours?: boolean; most?: number } = {},
): [string, FieldRow<C>][] {
  return [
    [name, row<C>(on, false, readOne, options)],
    [`not${name[0]!.toUpperCase()}${name.slice(1)}`, row<C>(on, true, readOne, options)],
  ]
}

const readPrincipal: ValueReader<PeerMatch> = (text, at, { mode, problems }) => {
  if (mode === 'istio') return { kind: 'principal', match: parseStringMatch(text) }
  if (text === '*') return { kind: 'any' }
  if (text.startsWith('spiffe://'))
    return problems.add(at, `a principal is written without \`spiffe://\`: expected \`${shorten(text.slice(9))}\``)
  const inside = text.startsWith('*/') ? text.slice(1) : text.endsWith('/*') ? text.slice(0, -2) : text
  if (inside.includes('*')) {
    return problems.add(at, `\`${shorten(text)}\`: \`*\` stands for whole segments, as in \`example.org/ns/a/*\` or \`*/sa/web\` (R-6)`)
  }
  if (text.startsWith('*/')) return attempt(() => parseSpiffeId(`spiffe://x${inside}`), at, problems) && { kind: 'ending', suffix: inside }
  const id = attempt(() => parseSpiffeId(`spiffe://${inside}`), at, problems)
  if (!id) return undefined
  return text.endsWith('/*') ? { kind: 'below', prefix: `${id}/` } : { kind: 'id', id }
}

const readNamespace: ValueReader<PeerMatch> = (text, at, { mode, problems }) => {
  if (mode === 'strict' && !namespaceGlob.test(text)) {
    return problems.add(at, `expected a namespace of lower-case letters, digits, \`-\` and \`*\`, found ${tell(at)}`)
  }
  return { kind: 'namespace', glob: text }
}

const readServiceAccount: ValueReader<PeerMatch> = (text, at, { namespace, problems }) => {
  const parts = text.split('/')
  const [ns, name] = parts.length === 1 ? [namespace, parts[0]!] : [parts[0]!, parts[1]!]
  if (parts.length > 2 || ns === '' || !dnsSubdomain.test(name) || !dnsLabel.test(ns) || text.length > limits.serviceAccount) {
    return problems.add(at, `expected \`<namespace>/<name>\`${namespace === '' ? '' : ' or `<name>`'} without \`*\`, found ${tell(at)}`)
  }
  return { kind: 'service-account', namespace: ns, name }
}

const readBlock: ValueReader<AddressBlock> = (text, at, { mode, problems }) => {
  const block = parseAddressBlock(text)
  if ('wrong' in block) return problems.add(at, `${block.wrong}, found ${tell(at)}`)
  const bare = parseAddressBlock(text.split('/')[0]!)
  if (mode === 'strict' && !('wrong' in bare) && bare.bytes.join() !== block.bytes.join()) {
    return problems.add(at, `${tell(at)} has bits set beyond its prefix length`)
  }
  return block
}

const readPort: ValueReader<number> = (text, at, { problems }) =>
  /^(?:0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65_535
    ? Number(text)
    : problems.add(at, `expected a port from 0 to 65535, found ${tell(at)}`)

const readMethod: ValueReader<StringMatch> = (text, at, { mode, problems }) => {
  if (mode === 'strict' && text !== '*' && !methodName.test(text)) {
    return problems.add(at, `expected a whole method in upper case, \`GET\`, or \`*\`, found ${tell(at)}`)
  }
  return parseStringMatch(text)
}

const readHost: ValueReader<StringMatch> = (text, at, { mode, problems }) => {
  const match = parseStringMatch(text.toLowerCase())
  if (mode === 'strict' && match.kind !== 'present' && !hostCharacters.test(match.value)) {
    return problems.add(at, `expected a host, with \`*\` at one end at most, found ${tell(at)}`)
  }
  return match
}

const readPath: ValueReader<PathMatch> = (text, at, { mode, problems }) => {
  const match = isTemplate(text) ? parseTemplate(text) : parseStringMatch(text)
  if ('wrong' in match) return problems.add(at, match.wrong)
  if (mode === 'istio' || match.kind === 'present') return match
  return checkStrictPath(text, match, at, problems) ? foldedPath(match) : undefined
}

/** Strict mode refuses what could never match, since paths are compared normalised. */
function checkStrictPath(text: string, match: PathMatch, at: Tree, problems: Problems): boolean {
  const literal = match.kind === 'template' ? text.replaceAll(/\{\*\*?\}/g, 'x') : match.kind === 'present' ? '/' : match.value
  const whole = match.kind === 'suffix' ? `/x${literal}` : literal
  const expected = 'expected a path as the proxy normalises it'
  if (match.kind !== 'template' && literal.includes('*'))
    problems.add(at, `\`${shorten(text)}\`: \`*\` stands at one end only: for one segment write \`{*}\``)
  else if (!whole.startsWith('/')) problems.add(at, `${expected}, beginning with \`/\`, found ${tell(at)}`)
  else if (
    !isCanonicalPath(match.kind === 'prefix' ? whole.replace(/\/\.{1,2}$/, '/x') : whole) ||
    normalizePath(whole, 'decode-and-merge-slashes') === undefined
  ) {
    problems.add(at, `${expected}, without query, \`;\`, empty or dot segments and unneeded escapes: ${tell(at)} never matches`)
  } else return true
  return false
}

function foldedPath(match: PathMatch): PathMatch {
  if (match.kind === 'present') return match
  if (match.kind !== 'template') return { ...match, value: foldPath(match.value) }
  return { ...match, parts: match.parts.map((part) => (part.kind === 'literal' ? { ...part, text: foldPath(part.text) } : part)) }
}

const readCaller: ValueReader<ServerApiCaller> = (text, at, { problems }) =>
  serverApiCallers.find((caller) => caller === text) ?? problems.add(at, `unknown caller ${tell(at)}${suggestion(text, serverApiCallers)}`)

const readTtl: ValueReader<DurationMatch> = (text, at, { problems }) => {
  const sign = /^(?:<=|>=)?/.exec(text)![0]
  const duration = attempt(() => parseDuration(text.slice(sign.length).trim()), at, problems)
  return duration === undefined ? undefined : { comparison: sign === '<=' ? 'at-most' : sign === '>=' ? 'at-least' : 'equal', duration }
}

const readBoolean: ValueReader<string> = (text, at, { problems }) =>
  text === 'true' || text === 'false' ? text : problems.add(at, `expected \`"true"\` or \`"false"\`, found ${tell(at)}`)

const readTrustDomain: ValueReader<string> = (text, at, { problems }) => attempt(() => parseTrustDomain(text), at, problems)
const readId: ValueReader<IdMatch> = (text, at, { problems }) => readIdMatch(text, at, problems)

const sourceFields: ReadonlyMap<string, FieldRow<SourceClause>> = new Map<string, FieldRow<SourceClause>>([
  ...both<SourceClause>('principals', 'peer', readPrincipal),
  ...both<SourceClause>('namespaces', 'peer', readNamespace),
  ...both<SourceClause>('serviceAccounts', 'peer', readServiceAccount, { most: 16 }),
  ...both<SourceClause>('ipBlocks', 'source.ip', readBlock),
  ...both<SourceClause>('remoteIpBlocks', 'remote.ip', readBlock),
  ...both<SourceClause>('spiffeIds', 'peer', readId, { ours: true }),
  ['callers', row<CallerClause>('caller', false, readCaller, { target: 'serverApi', ours: true })],
])

const operationFields: ReadonlyMap<string, FieldRow<OperationClause>> = new Map([
  ...both<OperationClause>('hosts', 'host', readHost),
  ...both<OperationClause>('ports', 'destination.port', readPort),
  ...both<OperationClause>('methods', 'method', readMethod),
  ...both<OperationClause>('paths', 'path', readPath, { target: 'both' }),
])

const conditionKeys: Readonly<Record<string, { readonly target: Policy['target']; row(not: boolean): FieldRow<Condition> }>> = {
  'source.ip': { target: 'workload', row: (not) => row<Condition>('source.ip', not, readBlock) },
  'remote.ip': { target: 'workload', row: (not) => row<Condition>('remote.ip', not, readBlock) },
  'source.namespace': { target: 'workload', row: (not) => row<Condition>('peer', not, readNamespace) },
  'source.serviceAccount': { target: 'workload', row: (not) => row<Condition>('peer', not, readServiceAccount) },
  'source.principal': { target: 'workload', row: (not) => row<Condition>('peer', not, readPrincipal) },
  'destination.ip': { target: 'workload', row: (not) => row<Condition>('destination.ip', not, readBlock) },
  'destination.port': { target: 'workload', row: (not) => row<Condition>('destination.port', not, readPort) },
  'connection.sni': { target: 'workload', row: (not) => row<Condition>('connection.sni', not, (text) => parseStringMatch(text)) },
  'entry.spiffeId': { target: 'serverApi', row: (not) => row<Condition>('entry.spiffeId', not, readId) },
  'entry.parentId': { target: 'serverApi', row: (not) => row<Condition>('entry.parentId', not, readId) },
  'entry.x509Ttl': { target: 'serverApi', row: (not) => row<Condition>('entry.x509Ttl', not, readTtl) },
  'entry.admin': { target: 'serverApi', row: (not) => row<Condition>('entry.admin', not, readBoolean) },
  'entry.downstream': { target: 'serverApi', row: (not) => row<Condition>('entry.downstream', not, readBoolean) },
  'agent.id': { target: 'serverApi', row: (not) => row<Condition>('agent.id', not, readId) },
  trustDomain: { target: 'serverApi', row: (not) => row<Condition>('trustDomain', not, readTrustDomain) },
}

// Small readers.

function readValues<Match>(
  values: Tree,
  problems: Problems,
  readOne: (text: string, at: Tree) => Match | undefined,
  mode: PolicyMode = 'strict',
  most: number = limits.values,
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

function listOf(tree: Tree, most: number, problems: Problems): ListTree | undefined {
  if (tree.kind !== 'list') return problems.add(tree, `expected a list, found ${tell(tree)}`)
  if (tree.items.length > most) return problems.add(tree, `at most ${most} items, found ${tree.items.length}`)
  return tree
}

function mapOf(tree: MapTree, key: string, problems: Problems): MapTree | undefined {
  const found = tree.entries.get(key)
  if (found?.kind === 'map') return found
  return problems.add(found ?? tree, found ? `expected a map, found ${tell(found)}` : `expected the key \`${key}\``)
}

function textOf(tree: MapTree, key: string, problems: Problems): TextTree | undefined {
  const found = tree.entries.get(key)
  if (found?.kind === 'text') return found
  return problems.add(found ?? tree, found ? `expected a text, found ${tell(found)}` : `expected the key \`${key}\``)
}

function textAt(tree: MapTree, key: string): string | undefined {
  const found = tree.entries.get(key)
  return found?.kind === 'text' ? found.text : undefined
}

function oneOf<const Choice extends string>(
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
function attempt<T>(parse: () => T, at: Tree, problems: Problems): T | undefined {
  try {
    return parse()
  } catch (cause) {
    return problems.add(at, Failure.from(cause).message)
  }
}

function refuseKeysWithReason(tree: MapTree, reasons: Readonly<Record<string, string>>, problems: Problems): void {
  for (const [key, reason] of Object.entries(reasons)) {
    const place = tree.keys.get(key)
    if (place) problems.add({ path: tree.path === '' ? key : `${tree.path}.${key}`, place }, reason)
  }
}

function refuseOurKeys(tree: MapTree, keys: readonly string[], problems: Problems): void {
  refuseKeysWithReason(
    tree,
    Object.fromEntries(keys.map((key) => [key, `\`${key}\` belongs to the \`AuthorizationPolicy\` of \`${ourVersion}\``])),
    problems,
  )
}

/** Two policies of one name would report the same rule ids. */
function refuseTwins(policies: readonly Policy[], problems: Problems): void {
  const seen = new Map<string, Policy>()
  for (const policy of policies) {
    const key = `${policy.target} ${policy.namespace}/${policy.name}`
    const first = seen.get(key)
    if (first) {
      problems.add(
        { path: 'metadata.name', place: policy.place },
        `\`${policy.name}\` is there already: ${first.place.document}:${first.place.line}`,
      )
    } else seen.set(key, policy)
  }
}

const istioVersion = 'security.istio.io/v1'
const ourVersion = 'vidimus.dev/v1'
const unsupportedKinds: readonly string[] = ['PeerAuthentication', 'RequestAuthentication']
const istioSpecKeys = ['selector', 'action', 'rules'] as const
/** authorization.md 2. */
const ourSpecKeys = ['identities', 'requirePeer', 'expires', 'target'] as const
const unsupportedSpecKeys = {
  targetRefs: '`targetRefs` is not supported: select workloads with `selector`',
  targetRef: '`targetRef` is not supported: select workloads with `selector`',
  provider: '`provider` belongs to the action `CUSTOM`, which is not supported',
}
const unsupportedSourceKeys = {
  requestPrincipals: '`requestPrincipals` is not supported: end-user tokens are not read',
  notRequestPrincipals: '`notRequestPrincipals` is not supported: end-user tokens are not read',
  trustDomains: '`trustDomains` is not supported: name principals, `example.org/*`',
  notTrustDomains: '`notTrustDomains` is not supported: name principals, `example.org/*`',
}
const unsupportedConditionKeys = ['request.auth.', 'source.trustDomain', 'experimental.']
/** What a Kubernetes API server adds to an object is accepted, so that its output can be read as it is. */
const metadataKeys = [
  'name', 'namespace', 'labels', 'annotations', 'uid', 'resourceVersion', 'generation', 'creationTimestamp', 'managedFields', 'ownerReferences', 'finalizers',
] // prettier-ignore

const shownProblems = 20
/** RFC 1123 names, as Kubernetes uses them. */
const dnsLabel = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/
const dnsSubdomain = /^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/
const namespaceGlob = /^[a-z0-9*-]{1,63}$/
/** RFC 9110 section 9.1, in upper case as every registered method is. */
const methodName = /^[A-Z][A-Z-]{0,31}$/
const hostCharacters = /^[a-z0-9._:[\]-]+$/
const headerKey = /^request\.headers\[(:?[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128})\]$/
const dateOnly = /^\d{4}-\d{2}-\d{2}$/
