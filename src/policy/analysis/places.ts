/** The parts of requests that policies compare: what is said about each, its classes, and how its values stand in requests. */
import type { CelAttribute, CelTest, CelTree } from '../cel.ts'
import type { CompiledPolicies } from '../compile.ts'
import type { CompiledRule } from '../compiled-rule.ts'
import { see } from '../evaluate.ts'
import { formatMatch } from '../explain.ts'
import { blockHolds, formatStringMatch, parseAddress, type AddressBlock, type PathMatch, type StringMatch } from '../matching.ts'
import { asksForParts } from '../evaluate.ts'
import { isJoinedByEnvoy, leftByEnvoy } from '../joined-headers.ts'
import { normalizePath } from '../normalize.ts'
import type { Clause, PolicyMode, RequestPrincipalMatch } from '../policy-set.ts'
import type { PolicyRequest } from '../request.ts'
import type { Budget } from './budget.ts'
import { Atoms, type Dimension, List, Scalar } from './dimension.ts'
import * as domains from './domains.ts'
import { type NumberRange, partitionAddresses, partitionNumbers, partitionTexts } from './partition.ts'
import { anyOf, celPattern, hostPattern, pathAndQueryPattern, pathPattern, peerPattern, stringPattern } from './patterns.ts'
import { type Domain, literal, matchedBy, regular, type Regular } from './regular.ts'

/** A request while its parts come together. */
export interface Draft {
  peer?: string
  sourceIp?: string
  remoteIp?: string
  destinationIp?: string
  destinationPort?: number
  sni?: string
  method: string
  path: string
  host: string
  readonly headers: Map<string, string[]>
  hasToken: boolean
  readonly claims: Record<string, unknown>
  readonly providers: Record<string, 'allowed' | 'denied'>
}

/** A dimension and how it stands in requests. */
export interface Place {
  /** What it is: `peer`, `path`, `header x-reason`, `provider opa`. */
  readonly key: string
  readonly dimension: Dimension
  /** Only HTTP has it. */
  readonly http: boolean
  /** Why nobody can say beforehand which of its classes a request has, and what it is. */
  readonly opaque?: { readonly reason: 'opaque' | 'regex'; readonly what: string }
  /** Takes the values of the dimension out of a request; where it is absent, `put` is enough. */
  clear?(draft: Draft): void
  /** Puts a value of the dimension into a request; undefined: there is none. */
  put(draft: Draft, value: unknown): void
  /** The classes of what a request has, one a value; undefined where it has something outside of the domain. */
  classesIn(request: PolicyRequest): readonly number[] | undefined
}

/** What a rule says: its clauses, and the tests of its condition in CEL. */
export function statementsOf(rule: CompiledRule): { readonly clauses: readonly Clause[]; readonly tests: readonly CelTest[] } {
  return {
    clauses: [
      ...(rule.sources === 'any' ? [] : rule.sources.flat()),
      ...(rule.operations === 'any' ? [] : rule.operations.flat()),
      ...rule.conditions,
    ],
    tests: rule.cel ? testsOf(rule.cel.tree) : [],
  }
}

const testsOf = (tree: CelTree): readonly CelTest[] => (tree.kind === 'test' ? [tree] : tree.of.flatMap(testsOf))

export const rulesOf = ({ custom, audit, deny, allow }: CompiledPolicies): readonly CompiledRule[] => [
  ...custom,
  ...audit,
  ...deny,
  ...allow,
]

/** Where a clause is answered. In istio mode Envoy finds pseudo headers, and `host`, among the headers. */
export function keyOfClause(clause: Clause, mode: PolicyMode): string {
  switch (clause.on) {
    case 'header':
      return (mode === 'istio' ? pseudoHeaders.get(clause.name) : undefined) ?? `header ${clause.name}`
    case 'claim':
      return claimKey(clause.path)
    default:
      return clause.on
  }
}

export const claimKey = (path: readonly string[]): string => `claim ${JSON.stringify(path)}`

/** Where a test in CEL is answered. */
export function keyOfTest({ attribute, comparison }: CelTest): string {
  if (comparison.is === 'matches' && !celPattern(comparison)) return `expression ${attributeName(attribute)} ${comparison.value}`
  switch (attribute.on) {
    case 'request.headers':
      return `header ${attribute.name}`
    case 'request.method':
      return 'method'
    case 'request.url_path':
      return 'path'
    case 'connection.requested_server_name':
      return 'connection.sni'
    case 'connection.uri_san_peer_certificate':
    case 'connection.mtls':
      return 'peer'
    case 'destination.port':
      return 'destination.port'
    default:
      throw new Error(`bug: attribute ${JSON.stringify(attribute satisfies never)}`)
  }
}

const attributeName = (attribute: CelAttribute): string =>
  attribute.on === 'request.headers' ? `request.headers["${attribute.name}"]` : attribute.on

/** What another filter says is known by its whole comparison alone. */
export const filterKey = (clause: Clause & { on: 'filter-metadata' }, index: number): string =>
  `filter ${clause.filter}[${clause.key}] ${formatMatch(clause.anyOf[index]!)}`

/** The atoms of each place, found by reading every rule. */
export class Vocabulary {
  readonly mode: PolicyMode
  readonly texts = new Map<string, Atoms<Regular>>()
  readonly blocks = new Map<string, Atoms<AddressBlock>>()
  readonly ports = new Atoms<NumberRange>()
  readonly opaque = new Map<string, Place['opaque'] & object>()
  /** Headers for which it matters whether they were sent twice: CEL does not know them then, and a proxy cannot tell the values of some apart. */
  readonly repeatable = new Set<string>()
  readonly providers = new Set<string>()
  readonly keys = new Set<string>()

  constructor(mode: PolicyMode) {
    this.mode = mode
  }

  /** The atoms of a clause in its place. */
  atomsOf(clause: Clause): number[] {
    const key = keyOfClause(clause, this.mode)
    this.keys.add(key)
    if (clause.on === 'source.ip' || clause.on === 'remote.ip' || clause.on === 'destination.ip') {
      return clause.anyOf.map((block) => entry(this.blocks, key).number(`${block.bytes.join('.')}/${block.bits}`, block.text, () => block))
    }
    if (clause.on === 'destination.port') {
      return clause.anyOf.map((port) => this.ports.number(`${port}-${port}`, String(port), () => ({ from: port, to: port })))
    }
    if (clause.on === 'header' && isJoinedByEnvoy(clause.name)) {
      this.repeatable.add(key)
      if (this.mode === 'strict' && asksForParts(clause)) this.commaAtom(key)
    }
    const atoms = entry(this.texts, key)
    // A header and a field compare the same text in two ways.
    const kind = clause.on === 'header' ? 'header ' : ''
    return clause.anyOf.map((match) =>
      atoms.number(`${kind}${JSON.stringify(match)}`, formatMatch(match), () => this.#patternOf(clause, match)),
    )
  }

  /** Issuer and subject of what a token may name. */
  principalAtoms({ issuer, subject }: RequestPrincipalMatch): { readonly issuer: number; readonly subject: number } {
    const atom = (path: string, match: StringMatch) =>
      this.textAtom(claimKey([path]), JSON.stringify(match), formatStringMatch(match), () => stringPattern(match, { empty: false }))
    return { issuer: atom('iss', issuer), subject: atom('sub', subject) }
  }

  textAtom(key: string, atom: string, text: string, make: () => Regular): number {
    this.keys.add(key)
    return entry(this.texts, key).number(atom, text, make)
  }

  /** A place for which nothing is compared yet. */
  need(key: string): void {
    this.keys.add(key)
  }

  /** The atom of a test in its place; undefined for tests of presence, and for those that are opaque. */
  atomOfTest(test: CelTest): number | undefined {
    const { attribute, comparison } = test
    const key = keyOfTest(test)
    this.keys.add(key)
    if (comparison.is === 'matches' && key.startsWith('expression ')) {
      this.opaque.set(key, { reason: 'regex', what: `\`${attributeName(attribute)}.matches("${comparison.value}")\`` })
      return undefined
    }
    if (attribute.on === 'request.headers') {
      this.repeatable.add(key)
      this.commaAtom(key)
    }
    if (comparison.is === 'present' || comparison.is === 'true') return undefined
    if (comparison.is === 'between') {
      const { from, to } = comparison
      return this.ports.number(`${from}-${to}`, from === to ? String(from) : `${from}-${to}`, () => ({ from, to }))
    }
    const written =
      'value' in comparison ? `${comparison.is} ${comparison.value}` : 'values' in comparison ? comparison.values.join(', ') : ''
    return this.textAtom(key, `cel ${JSON.stringify(comparison)}`, written, () => celPattern(comparison)!)
  }

  /** A value with a comma can be read in two ways. */
  commaAtom(key: string): number {
    return this.textAtom(key, 'comma', '', () => regular('.*,.*'))
  }

  #patternOf(clause: Clause, match: Clause['anyOf'][number]): Regular {
    switch (clause.on) {
      case 'peer':
        return peerPattern(match as Parameters<typeof peerPattern>[0], this.mode)
      case 'path':
        return this.#pathsHaveQueries ? pathAndQueryPattern(match as PathMatch, domains.query) : pathPattern(match as PathMatch, this.mode)
      case 'host':
        return hostPattern(match as StringMatch, this.mode)
      case 'connection.sni':
      case 'claim':
        return stringPattern(match as StringMatch, { empty: false })
      default:
        return stringPattern(match as StringMatch, { empty: true })
    }
  }

  #pathsHaveQueries = false
  /** The pseudo header `:path` has the query as well, so paths are followed by one. Before the first clause is read. */
  withQueries(): void {
    this.#pathsHaveQueries = true
  }
  get pathsHaveQueries(): boolean {
    return this.#pathsHaveQueries
  }
}

/** Reads every rule, and whatever else these policies say about requests. */
export function vocabularyOf(compared: readonly CompiledPolicies[]): Vocabulary {
  const { mode } = compared[0]!
  const words = new Vocabulary(mode)
  const statements = compared.flatMap(rulesOf).map(statementsOf)
  const clauses = statements.flatMap((one) => one.clauses)
  if (mode === 'istio' && clauses.some((clause) => clause.on === 'header' && clause.name === ':path')) words.withQueries()
  for (const clause of clauses) {
    if (clause.on === 'request.auth.principal') {
      words.need('token')
      for (const match of clause.anyOf) words.principalAtoms(match)
    } else if (clause.on === 'filter-metadata') {
      for (const index of clause.anyOf.keys())
        words.opaque.set(filterKey(clause, index), {
          reason: 'opaque',
          what: `\`${clause.filter}[${clause.key}]\` is \`${formatMatch(clause.anyOf[index]!)}\``,
        })
    } else {
      if (clause.on === 'claim') words.need('token')
      words.atomsOf(clause)
    }
  }
  for (const test of statements.flatMap(({ tests }) => tests)) words.atomOfTest(test)
  for (const { allow, mtls, tokens, custom } of compared) {
    const strictPorts = [...mtls.ports.keys()]
    if (allow.some(({ requirePeer }) => requirePeer) || mtls.mode === 'STRICT' || [...mtls.ports.values()].includes('STRICT'))
      words.need('peer')
    for (const port of strictPorts) words.ports.number(`${port}-${port}`, String(port), () => ({ from: port, to: port }))
    if (strictPorts.length > 0) words.need('destination.port')
    for (const { issuer, audiences } of tokens) {
      words.need('token')
      words.textAtom(claimKey(['iss']), JSON.stringify({ kind: 'exact', value: issuer }), issuer, () => literal(issuer))
      for (const audience of audiences)
        words.textAtom(claimKey(['aud']), JSON.stringify({ kind: 'exact', value: audience }), audience, () => literal(audience))
    }
    for (const { provider } of custom) words.providers.add(provider!)
  }
  return words
}

/**
 * A dimension for everything that these policies are about, in an order that keeps diagrams small.
 * @throws BudgetExhausted
 */
export function placesOf(compared: readonly CompiledPolicies[], words: Vocabulary, firstLevel: number, budget: Budget): Place[] {
  const { mode, pathNormalization } = compared[0]!
  const places: Place[] = []
  let level = firstLevel
  const add = (place: Place) => {
    places.push(place)
    level += place.dimension.sizes.length
  }
  const seen = (request: PolicyRequest) => see(compared[0]!, request)
  const text = (key: string, of: Omit<TextPlace, 'key'>) =>
    add(textPlace({ ...of, key }, words.texts.get(key) ?? new Atoms(), level, budget))

  if (words.keys.has('peer')) {
    text('peer', { name: 'peer', domain: domains.spiffeIds, absent: true, http: false, put: (draft, value) => setOrNot(draft, 'peer', value), of: ({ peer }) => peer?.spiffeId }) // prettier-ignore
  }
  for (const key of ['source.ip', 'remote.ip', 'destination.ip'] as const) {
    const atoms = words.blocks.get(key)
    if (atoms) add(addressPlace(key, atoms, level))
  }
  if (words.keys.has('destination.port')) add(portPlace(words.ports, level))
  if (words.keys.has('connection.sni')) {
    text('connection.sni', { name: 'server name', domain: domains.serverNames, absent: true, http: false, put: (draft, value) => setOrNot(draft, 'sni', value), of: ({ sni }) => sni }) // prettier-ignore
  }

  // Where all compare paths, or none does, a path that cannot be read in one way makes no difference.
  const pathsMayBeRefused = mode === 'strict' && compared.some(({ comparesPaths }) => comparesPaths !== compared[0]!.comparesPaths)
  if (words.keys.has('path') || pathsMayBeRefused) {
    const { pathsHaveQueries } = words
    text('path', {
      name: 'path',
      domain: pathsHaveQueries ? domains.pathsAndQueries(pathNormalization) : domains.paths(mode, pathNormalization),
      absent: pathsMayBeRefused,
      http: true,
      put: (draft, value) => void (draft.path = value === undefined ? '/a;b' : rawPath(value as string, compared[0]!)),
      of(request) {
        const { path } = seen(request)
        return path === undefined || !pathsHaveQueries ? path : `${path}${/\?.*/s.exec(request.http!.path)?.[0] ?? ''}`
      },
    })
  }

  const knownMethods = mode === 'strict' ? compared.map((one) => [...new Set(one.knownMethods)].sort()) : []
  const methodsDiffer = new Set(knownMethods.map((known) => known.join())).size > 1
  if (words.keys.has('method') || methodsDiffer) {
    if (methodsDiffer) {
      for (const known of knownMethods) words.textAtom('method', `known ${known.join()}`, '', () => anyOf(known.map(literal)))
    }
    text('method', {
      name: 'method',
      // A method that none of them knows is refused by all.
      domain: mode === 'strict' ? { must: [anyOf([...new Set(knownMethods.flat())].map(literal))], mustNot: [] } : domains.methods,
      absent: false,
      http: true,
      put: (draft, value) => void (draft.method = value as string),
      of: (request) => request.http?.method,
    })
  }
  if (words.keys.has('host')) {
    text('host', {
      name: 'host',
      domain: domains.hosts[mode],
      absent: false,
      http: true,
      put: (draft, value) => void (draft.host = value as string),
      of: (request) => (mode === 'strict' ? seen(request).host?.whole : request.http?.host),
    })
  }
  for (const key of [...words.keys].filter((one) => one.startsWith('header ')).sort()) {
    add(headerPlace(key, words, level, budget))
  }
  if (words.keys.has('token')) for (const place of tokenPlaces(words, level, budget)) add(place)
  for (const provider of [...words.providers].sort()) add(providerPlace(provider, level))
  for (const [key, opaque] of [...words.opaque].sort(([a], [b]) => (a < b ? -1 : 1))) {
    add({
      key,
      http: false,
      opaque,
      dimension: new Scalar(opaque.what, level, [], [{ matched: [0], witness: 'no' }, { matched: [1], witness: 'yes' }], true),
      put() {},
      classesIn: () => [0],
    }) // prettier-ignore
  }
  return places
}

interface TextPlace {
  readonly key: string
  readonly name: string
  readonly domain: Domain
  /** There may be none. */
  readonly absent: boolean
  readonly http: boolean
  put(draft: Draft, value: unknown): void
  of(request: PolicyRequest): string | undefined
}

function textPlace({ key, name, domain, absent, http, put, of }: TextPlace, atoms: Atoms<Regular>, level: number, budget: Budget): Place {
  const dimension = new Scalar(name, level, atoms.texts, partitionTexts(domain, atoms.compared, budget), absent)
  const matched = matchedBy(domain, atoms.compared)
  return { key, http, put, dimension, classesIn: (request) => scalarClass(dimension, of(request), matched) }
}

function scalarClass(dimension: Scalar<unknown>, value: string | undefined, matched: ReturnType<typeof matchedBy>): number[] | undefined {
  const atoms = value === undefined ? undefined : matched(value)
  if (atoms === undefined) return dimension.classes[0] === 'absent' ? [0] : undefined
  const index = dimension.classOf(atoms)
  return index === -1 ? undefined : [index]
}

function addressPlace(key: keyof typeof addressFields, atoms: Atoms<AddressBlock>, level: number): Place {
  const { name, field } = addressFields[key]
  const blocks = atoms.compared
  const dimension = new Scalar(name, level, atoms.texts, partitionAddresses(blocks), false)
  return {
    key,
    http: false,
    put: (draft, value) => void (draft[field] = value as string),
    dimension,
    classesIn(request) {
      const written = request[field] ?? (field === 'remoteIp' ? request.sourceIp : undefined)
      const bytes = written === undefined ? undefined : parseAddress(written)
      return bytes && [dimension.classOf(blocks.flatMap((block, index) => (blockHolds(block, bytes) ? [index] : [])))]
    },
  }
}

function portPlace(atoms: Atoms<NumberRange>, level: number): Place {
  const ranges = atoms.compared
  const dimension = new Scalar('port', level, atoms.texts, partitionNumbers({ from: 0, to: 65_535 }, ranges, [8080, 443]), false)
  return {
    key: 'destination.port',
    http: false,
    put: (draft, value) => void (draft.destinationPort = value as number),
    dimension,
    classesIn: ({ destinationPort: port }) =>
      port === undefined
        ? undefined
        : [dimension.classOf([...ranges.keys()].filter((at) => port >= ranges[at]!.from && port <= ranges[at]!.to))],
  }
}

function headerPlace(key: string, words: Vocabulary, level: number, budget: Budget): Place {
  const name = key.slice('header '.length)
  const atoms = words.texts.get(key) ?? new Atoms<Regular>()
  const classes = partitionTexts(domains.headerValues, atoms.compared, budget)
  const matched = matchedBy(domains.headerValues, atoms.compared)
  // a second `authorization` header is refused whatever the rules say. Istio compares what Envoy made of several.
  const once = words.mode === 'strict' ? name === 'authorization' : isJoinedByEnvoy(name)
  const title = `header \`${name}\``
  const single = once ? new Scalar(title, level, atoms.texts, classes, true) : undefined
  const list = new List(title, level, atoms.texts, classes, words.repeatable.has(key))
  return {
    key,
    http: true,
    dimension: single ?? list,
    clear: (draft) => void draft.headers.delete(name),
    put(draft, value) {
      if (value === undefined) return
      const values = draft.headers.get(name)
      if (values) values.push(value as string)
      else draft.headers.set(name, [value as string])
    },
    classesIn(request) {
      const sent = request.http?.headers.get(name) ?? []
      const values = single ? leftByEnvoy(sent) : sent
      if (single) {
        if (words.mode === 'strict' && values.length > 1) return undefined
        return scalarClass(single, values.length > 1 ? values.join(',') : values[0], matched)
      }
      const atomsThere = values.map(matched)
      const known = atomsThere.filter((one) => one !== undefined)
      return known.length < values.length ? undefined : known.map((one) => list.classOf(one))
    },
  }
}

/** Whether there is a token; its issuer and subject; and every claim that is asked for, as a list. */
function* tokenPlaces(words: Vocabulary, firstLevel: number, budget: Budget): Iterable<Place> {
  let level = firstLevel
  yield {
    key: 'token',
    http: true,
    dimension: new Scalar('end-user token', level++, [], [{ matched: [], witness: true }], true),
    put: (draft, value) => void (draft.hasToken = value === true),
    classesIn: ({ token }) => [token ? 1 : 0],
  }
  const issuerKey = claimKey(['iss'])
  for (const key of [...new Set([...words.keys, issuerKey])].filter((one) => one.startsWith('claim ')).sort()) {
    const path = JSON.parse(key.slice('claim '.length)) as readonly string[]
    const atoms = words.texts.get(key) ?? new Atoms<Regular>()
    // A token is read by its issuer: without one there is none.
    const isIssuer = key === issuerKey
    const domain = isIssuer ? domains.someTexts : domains.anyTexts
    const classes = partitionTexts(domain, atoms.compared, budget)
    const matched = matchedBy(domain, atoms.compared)
    const title = `claim \`${path.join('.')}\``
    const isSingle = path.length === 1 && (path[0] === 'iss' || path[0] === 'sub')
    const single = isSingle ? new Scalar(title, level, atoms.texts, classes, !isIssuer) : undefined
    const list = new List(title, level, atoms.texts, classes)
    yield {
      key,
      http: true,
      dimension: single ?? list,
      clear: (draft) => clearClaim(draft.claims, path),
      put(draft, value) {
        if (value === undefined) return
        if (isSingle) draft.claims[path[0]!] = value
        else putClaim(draft.claims, path, value as string)
      },
      classesIn({ token }) {
        const value = path.reduce<unknown>(
          (at, name) =>
            typeof at === 'object' && at !== null && Object.hasOwn(at, name) ? (at as Record<string, unknown>)[name] : undefined,
          token?.claims,
        )
        if (single) {
          if (!token) return [0]
          return value === undefined || typeof value === 'string' ? scalarClass(single, value, matched) : undefined
        }
        const values: readonly unknown[] =
          value === undefined
            ? []
            : Array.isArray(value)
              ? value
              : splitClaims.has(path.join('.')) && typeof value === 'string'
                ? value.split(' ').filter((word) => word !== '')
                : [value]
        return values.flatMap((one) => (typeof one === 'string' ? [list.classOf(matched(one)!)] : []))
      },
    }
    level += (single ?? list).sizes.length
  }
}

function clearClaim(claims: Record<string, unknown>, path: readonly string[]): void {
  const [name, ...rest] = path
  const inner = claims[name!]
  if (rest.length === 0) delete claims[name!]
  else if (typeof inner === 'object' && inner !== null && !Array.isArray(inner)) clearClaim(inner as Record<string, unknown>, rest)
}

function putClaim(claims: Record<string, unknown>, path: readonly string[], value: string): void {
  let at = claims
  for (const name of path.slice(0, -1)) {
    const next = at[name]
    at = (typeof next === 'object' && next !== null && !Array.isArray(next) ? next : (at[name] = {})) as Record<string, unknown>
  }
  const last = path.at(-1)!
  const before = at[last]
  at[last] = Array.isArray(before) ? [...(before as unknown[]), value] : [value]
}

function providerPlace(provider: string, level: number): Place {
  return {
    key: `provider ${provider}`,
    http: false,
    opaque: { reason: 'opaque', what: `the answer of the provider \`${provider}\`` },
    dimension: new Scalar(`answer of \`${provider}\``, level, ['allowed', 'denied'], [{ matched: [0], witness: 'allowed' }, { matched: [1], witness: 'denied' }], false), // prettier-ignore
    put: (draft, value) => void (draft.providers[provider] = value as 'allowed' | 'denied'),
    classesIn: ({ providers }) => [providers && Object.hasOwn(providers, provider) && providers[provider] === 'allowed' ? 0 : 1],
  }
}

/**
 * A path as a client sends it, so that it is the given one after normalisation. That is nearly always the same;
 * `/.;x` is left over only where a `\` was before it.
 */
function rawPath(path: string, { pathNormalization }: CompiledPolicies): string {
  const [bare, rest] = path.includes('?') ? [path.slice(0, path.indexOf('?')), path.slice(path.indexOf('?'))] : [path, '']
  const spellings = [bare, `/x\\..${bare.replaceAll('/', '\\')}`, bare.replaceAll(/\/(?=\.\.?;)/g, '\\')]
  const sent = spellings.find((one) => normalizePath(one, pathNormalization) === bare)
  return `${sent ?? bare}${rest}`
}

function setOrNot(draft: Draft, key: 'peer' | 'sni', value: unknown): void {
  if (value === undefined) delete draft[key]
  else draft[key] = value as string
}

function entry<Compared>(map: Map<string, Atoms<Compared>>, key: string): Atoms<Compared> {
  const known = map.get(key)
  if (known) return known
  const made = new Atoms<Compared>()
  map.set(key, made)
  return made
}

const pseudoHeaders: ReadonlyMap<string, string> = new Map([
  [':authority', 'host'],
  ['host', 'host'],
  [':method', 'method'],
  [':path', 'path'],
])
const addressFields = {
  'source.ip': { name: 'source address', field: 'sourceIp' },
  'remote.ip': { name: 'remote address', field: 'remoteIp' },
  'destination.ip': { name: 'destination address', field: 'destinationIp' },
} as const
/** authorization.md 1.3: lists that are written with spaces. */
const splitClaims: ReadonlySet<string> = new Set(['scope', 'permission'])
