/** The fields of sources and operations and the keys of conditions: one row each, from what is written to a clause (authorization.md 1.2 to 1.5, 2). */
import { parseDuration } from '../kernel/duration.ts'
import { parseSpiffeId } from '../spiffe/id.ts'
import { parseTrustDomain } from '../spiffe/trust-domain.ts'
import { parseCel, type CelCondition } from './cel.ts'
import {
  isTemplate,
  parseAddressBlock,
  parseStringMatch,
  parseTemplate,
  type AddressBlock,
  type PathMatch,
  type StringMatch,
} from './matching.ts'
import { foldPath, isCanonicalPath, normalizePath } from './normalize.ts'
import type {
  CallerClause,
  Clause,
  Condition,
  DurationMatch,
  FilterMetadataMatch,
  IdMatch,
  OperationClause,
  PeerMatch,
  PolicyTarget,
  RequestPrincipalMatch,
  Rule,
  SourceClause,
} from './policy-set.ts'
import {
  attempt,
  dnsLabel,
  dnsSubdomain,
  limits,
  listOf,
  mapOf,
  ourVersion,
  readIdMatch,
  readValues,
  refuseKeysWithReason,
  textOf,
  type PolicyReading,
} from './reading.ts'
import { serverApiCallers, type ServerApiCaller } from './request.ts'
import { refuseUnknownKeys, shorten, suggestion, tell, type MapTree, type Problems, type TextTree, type Tree } from './yaml-tree.ts'

/** One rule. Undefined where something about it is wrong. */
export function readRule(rule: Tree, reading: PolicyReading): Rule | undefined {
  const { problems } = reading
  if (rule.kind !== 'map') return problems.add(rule, `expected a rule with \`from\`, \`to\` or \`when\`, found ${tell(rule)}`)
  const ownKeys = reading.ours && reading.target === 'workload' ? ['condition'] : []
  if (!reading.ours) refuseOurKeys(rule, ['condition'], problems)
  const parts = reading.target === 'onboarding' ? ['when'] : ['from', 'to', 'when', ...ownKeys]
  refuseUnknownKeys(rule, parts, problems, reading.ours ? [] : ['condition'])
  const from = readTerms<SourceClause>(rule, 'from', 'source', sourceFields, reading)
  const to = readTerms<OperationClause>(rule, 'to', 'operation', operationFields, reading)
  const when = readConditions(rule, reading)
  const cel = ownKeys.length > 0 && rule.entries.has('condition') ? readCel(rule, reading) : undefined
  return from && to && when && { from, to, when, ...(cel && { cel }), place: rule.place }
}

function readCel(rule: MapTree, { problems }: PolicyReading): CelCondition | undefined {
  const condition = textOf(rule, 'condition', problems)
  return condition && attempt(() => parseCel(condition.text), condition, problems)
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
  const list = listOf(given, key === 'from' ? limits.sources : limits.items, problems)
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
  const known = [...fields]
    .filter(([, row]) => (row.target === 'both' || row.target === reading.target) && (reading.ours || !row.ours))
    .map(([name]) => name)
  const ourFields = [...fields].filter(([, row]) => row.ours).map(([name]) => name)
  if (!reading.ours) refuseOurKeys(term, ourFields, problems)
  refuseUnknownKeys(term, known, problems, reading.ours ? [] : ourFields)
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
  const list = listOf(given, limits.items, problems)
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

function conditionRow(key: TextTree, reading: PolicyReading): RowOf | undefined {
  const { problems } = reading
  const known = Object.entries(conditionKeys).filter(([, row]) => row.target === reading.target)
  const found = known.find(([name]) => name === key.text)
  if (found) return found[1].row
  const open = openKeys.filter(({ target }) => target === reading.target)
  for (const { pattern, row } of open) {
    const parts = pattern.exec(key.text)
    if (parts) return row(parts, key, reading)
  }
  const names = [...known.map(([name]) => name), ...open.map(({ shown }) => shown)]
  return problems.add(key, `unknown condition key \`${shorten(key.text)}\`${suggestion(key.text, names)}`)
}

type RowOf = (not: boolean) => FieldRow<Condition>

/** Keys with a name inside. */
const openKeys: readonly {
  readonly target: PolicyTarget
  readonly shown: string
  readonly pattern: RegExp
  row(parts: RegExpExecArray, key: TextTree, reading: PolicyReading): RowOf | undefined
}[] = [
  {
    target: 'workload',
    shown: 'request.headers[<name>]',
    pattern: /^request\.headers\[(:?[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128})\]$/,
    row: ([, name], key, reading) => headerRow(name!, key, reading),
  },
  {
    target: 'workload',
    shown: 'request.auth.claims[<name>]',
    pattern: /^request\.auth\.claims(\[.*\])$/s,
    row: ([, names], key, reading) => claimRow(claimPath(names!), key, reading),
  },
  {
    target: 'workload',
    shown: 'experimental.envoy.filters.<filter>[<key>]',
    pattern: /^experimental\.(envoy\.filters\.[^[\]]{1,200})\[(.{1,200})\]$/s,
    row:
      ([, filter, name]) =>
      (not) => ({ ...row<Condition>('filter-metadata', not, readFilterMetadata, { more: { filter: filter!, key: name! } }) }),
  },
  {
    target: 'onboarding',
    shown: 'attested.<type>.<selector name>',
    pattern: /^attested\.([a-z0-9_]{1,64})\.([A-Za-z0-9_:./-]{1,128})$/,
    row:
      ([, type, selector]) =>
      (not) => ({
        ...row<Condition>('attested', not, (text) => parseStringMatch(text), {
          target: 'onboarding',
          ours: true,
          more: { type: type!, selector: selector! },
        }),
      }),
  },
]

/** `[a][b]` is a path of keys; brackets that do not come in pairs are part of one key (authorization.md 1.3). */
function claimPath(names: string): string[] {
  return /^(?:\[[^[\]]*\])+$/s.test(names) ? names.slice(1, -1).split('][') : [names.slice(1, -1)]
}

function claimRow(path: readonly string[], key: TextTree, { mode, problems }: PolicyReading): RowOf | undefined {
  if (path.length > limits.claimDepth) return problems.add(key, `claims are at most ${limits.claimDepth} deep`)
  if (path.some((one) => one === '')) return problems.add(key, 'expected the name of a claim in each pair of brackets')
  if (mode === 'strict' && path.some((one) => /[[\]]/.test(one)))
    return problems.add(key, 'brackets in the name of a claim: expected `request.auth.claims[<name>][<name>]`')
  return (not) => row<Condition>('claim', not, (text) => parseStringMatch(text), { more: { path } })
}

function headerRow(name: string, key: TextTree, reading: PolicyReading): RowOf | undefined {
  if (reading.mode === 'strict' && (name.startsWith(':') || name.toLowerCase() === 'host')) {
    return reading.problems.add(key, `\`${name}\` is no header: use \`hosts\`, \`methods\` or \`paths\` of an operation`)
  }
  return (not) => row<Condition>('header', not, (text) => parseStringMatch(text), { more: { name: name.toLowerCase() } })
}

// Fields. One row each; a row and its `not` form differ in `not` alone.

interface FieldRow<C> {
  readonly target: PolicyTarget | 'both'
  /** Known to `vidimus.dev/v1` only. */
  readonly ours: boolean
  read(values: Tree, field: string, reading: PolicyReading): C | undefined
}

interface RowOptions {
  readonly target?: PolicyTarget | 'both'
  readonly ours?: boolean
  readonly most?: number
  /** What the clause says beside its values. */
  readonly more?: object
}

type ValueReader<Match> = (text: string, at: Tree, reading: PolicyReading) => Match | undefined

function row<C extends Clause>(
  on: C['on'],
  not: boolean,
  readOne: ValueReader<C['anyOf'][number]>,
  { target = 'workload', ours = false, most = limits.items, more = {} }: RowOptions = {},
): FieldRow<C> {
  return {
    target,
    ours,
    read(values, field, reading) {
      const anyOf = readValues(values, reading.problems, (text, at) => readOne(text, at, reading), reading.mode, most)
      // `on` and `readOne` were given together, as C has them.
      return anyOf && ({ on, ...more, not, anyOf, field, place: values.place } as unknown as C)
    },
  }
}

function both<C extends Clause>(
  name: string,
  on: C['on'],
  readOne: ValueReader<C['anyOf'][number]>,
  options: RowOptions = {},
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

const readTrustDomainGlob: ValueReader<PeerMatch> = (text, at, { mode, problems }) => {
  if (text.includes('/')) return problems.add(at, `expected a trust domain, without \`/\`, found ${tell(at)}`)
  const inside = text === '*' ? '' : text.startsWith('*') ? text.slice(1) : text.endsWith('*') ? text.slice(0, -1) : text
  if (inside.includes('*')) return problems.add(at, `\`*\` stands at one end only, found ${tell(at)}`)
  if (mode === 'strict' && inside !== '' && !trustDomainCharacters.test(inside))
    return problems.add(at, `expected a trust domain in lower case, found ${tell(at)}`)
  return { kind: 'trust-domain', glob: text }
}

/** authorization.md 1.4. Strict mode takes what can be meant in one way only. */
const readRequestPrincipal: ValueReader<RequestPrincipalMatch> = (text, at, { mode, problems }) => {
  const cut = text.lastIndexOf('/')
  const [issuer, subject] = cut === -1 ? [text, ''] : [text.slice(0, cut), text.slice(cut + 1)]
  if (
    mode === 'strict' &&
    text !== '*' &&
    (issuer === '' || subject === '' || cut === -1 || (issuer !== '*' && issuer.includes('*')) || subject.slice(0, -1).includes('*'))
  ) {
    return problems.add(
      at,
      `expected \`<issuer>/<subject>\`, the issuer whole or \`*\`, the subject with \`*\` at its end at most, found ${tell(at)}`,
    )
  }
  const any: StringMatch = { kind: 'present' }
  const exactly = (value: string): StringMatch => ({ kind: 'exact', value })
  if (text === '*') return { text, issuer: any, subject: any }
  // Strict mode reads both parts on their own; Istio looks at one end of the whole.
  if (mode === 'strict') return { text, issuer: parseStringMatch(issuer), subject: parseStringMatch(subject) }
  if (text.startsWith('*')) {
    if (cut === -1) return { text, issuer: any, subject: { kind: 'suffix', value: text.slice(1) } }
    return { text, issuer: issuer === '*' ? any : { kind: 'suffix', value: issuer.slice(1) }, subject: exactly(subject) }
  }
  if (text.endsWith('*')) {
    if (cut === -1) return { text, issuer: { kind: 'prefix', value: text.slice(0, -1) }, subject: any }
    return { text, issuer: exactly(issuer), subject: subject === '*' ? any : { kind: 'prefix', value: subject.slice(0, -1) } }
  }
  return { text, issuer: exactly(issuer), subject: exactly(subject) }
}

const readFilterMetadata: ValueReader<FilterMetadataMatch> = (text) => {
  const inList = text.startsWith('[') && text.endsWith(']')
  return { inList, match: parseStringMatch(inList ? text.replace(/^[[\]]+|[[\]]+$/g, '') : text) }
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

/** In the order in which Istio writes them. */
const sourceFields: ReadonlyMap<string, FieldRow<SourceClause>> = new Map<string, FieldRow<SourceClause>>([
  ...both<SourceClause>('principals', 'peer', readPrincipal),
  ...both<SourceClause>('requestPrincipals', 'request.auth.principal', readRequestPrincipal),
  ...both<SourceClause>('namespaces', 'peer', readNamespace),
  ...both<SourceClause>('serviceAccounts', 'peer', readServiceAccount, { most: limits.serviceAccounts }),
  ...both<SourceClause>('trustDomains', 'peer', readTrustDomainGlob),
  ...both<SourceClause>('remoteIpBlocks', 'remote.ip', readBlock),
  ...both<SourceClause>('ipBlocks', 'source.ip', readBlock),
  ...both<SourceClause>('spiffeIds', 'peer', readId, { ours: true }),
  ['callers', row<CallerClause>('caller', false, readCaller, { target: 'serverApi', ours: true })],
])

const operationFields: ReadonlyMap<string, FieldRow<OperationClause>> = new Map([
  ...both<OperationClause>('hosts', 'host', readHost),
  ...both<OperationClause>('methods', 'method', readMethod),
  ...both<OperationClause>('paths', 'path', readPath, { target: 'both' }),
  ...both<OperationClause>('ports', 'destination.port', readPort),
])

const namesOf = (fields: ReadonlyMap<string, { readonly ours: boolean }>) => [...fields].map(([name, { ours }]) => ({ name, ours }))
/** Which fields there are, and which of them are ours alone. */
export const fieldNames = { source: namesOf(sourceFields), operation: namesOf(operationFields) }

const conditionKeys: Readonly<Record<string, { readonly target: PolicyTarget; row(not: boolean): FieldRow<Condition> }>> = {
  'source.ip': { target: 'workload', row: (not) => row<Condition>('source.ip', not, readBlock) },
  'remote.ip': { target: 'workload', row: (not) => row<Condition>('remote.ip', not, readBlock) },
  'source.namespace': { target: 'workload', row: (not) => row<Condition>('peer', not, readNamespace) },
  'source.serviceAccount': { target: 'workload', row: (not) => row<Condition>('peer', not, readServiceAccount) },
  'source.trustDomain': { target: 'workload', row: (not) => row<Condition>('peer', not, readTrustDomainGlob) },
  'source.principal': { target: 'workload', row: (not) => row<Condition>('peer', not, readPrincipal) },
  'request.auth.principal': { target: 'workload', row: (not) => row<Condition>('request.auth.principal', not, readRequestPrincipal) },
  'request.auth.audiences': {
    target: 'workload',
    row: (not) => row<Condition>('claim', not, (text) => parseStringMatch(text), { more: { path: ['aud'] } }),
  },
  'request.auth.presenter': {
    target: 'workload',
    row: (not) => row<Condition>('claim', not, (text) => parseStringMatch(text), { more: { path: ['azp'] } }),
  },
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

export function refuseOurKeys(tree: MapTree, keys: readonly string[], problems: Problems): void {
  refuseKeysWithReason(
    tree,
    Object.fromEntries(keys.map((key) => [key, `\`${key}\` belongs to the \`AuthorizationPolicy\` of \`${ourVersion}\``])),
    problems,
  )
}
const namespaceGlob = /^[a-z0-9*-]{1,63}$/
/** RFC 9110 section 9.1, in upper case as every registered method is. */
const methodName = /^[A-Z][A-Z-]{0,31}$/
const hostCharacters = /^[a-z0-9._:[\]-]+$/
const trustDomainCharacters = /^[a-z0-9._-]+$/
