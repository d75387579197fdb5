/**
 * Tests of policies, written beside them: documents of kind `PolicyTest`. A case is a request and the verdict its author expects;
 * a matrix is many of them, a row for each peer. What is asked again and again has a name under `fixtures`.
 * A case with a `target` is a call of our own API, or a node that wants to be admitted.
 */
import type { Instant } from '../kernel/clock.ts'
import { parseDuration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { parseSpiffeId, type SpiffeId } from '../spiffe/id.ts'
import { parseSelector } from '../spiffe/selector.ts'
import { parseTrustDomain } from '../spiffe/trust-domain.ts'
import type { WorkloadFacts } from './compile.ts'
import { isPolicyTest, tellProblem } from './language.ts'
import { parseAddress } from './matching.ts'
import type { Place, PolicyDocument } from './policy-set.ts'
import { oneOf, readMoment } from './reading.ts'
import {
  type Claims,
  headerValues,
  type OnboardingRequest,
  type PolicyRequest,
  type ServerApiAttributes,
  type ServerApiCaller,
  serverApiCallers,
  type ServerApiRequest,
} from './request.ts'
import { Problems, readYaml, refuseUnknownKeys, shorten, suggestion, tell, type MapTree, type Tree } from './yaml-tree.ts'

/** What is asked, by the `target` of the policies that answer it. */
export type PolicyQuestion =
  | { readonly target: 'workload'; readonly workload: WorkloadFacts; readonly request: PolicyRequest }
  | { readonly target: 'serverApi'; readonly request: ServerApiRequest }
  | { readonly target: 'onboarding'; readonly request: OnboardingRequest }

export type PolicyTestCase = PolicyQuestion & Expectation

interface Expectation {
  readonly name: string
  readonly expect: 'allowed' | 'denied'
  /** The policy, or `policy rule 2`, that must decide; absent: any, or none. */
  readonly by?: { readonly policy: string; readonly rule?: number }
  /** When: policies expire. Absent: the moment that the tests are run at. */
  readonly at?: Instant
  readonly place: Place
}

/** True if a document holds tests and nothing else. */
export function isPolicyTestFile(document: PolicyDocument): boolean {
  const trees = readYaml(document, new Problems())
  return trees.length > 0 && trees.every(isPolicyTest)
}

/**
 * Reads test documents, the cells of a matrix as cases of their own; documents of other kinds among them are passed over.
 * @throws Failure `policy-test.invalid`; `internal.problems` as with policies
 */
export function parsePolicyTests(documents: readonly PolicyDocument[]): PolicyTestCase[] {
  const problems = new Problems()
  const cases = documents.flatMap((document) =>
    readYaml(document, problems)
      .filter(isPolicyTest)
      .flatMap((tree) => readFile(tree, problems)),
  )
  if (problems.all.length === 0) return cases
  throw new Failure('invalid_argument', 'policy-test.invalid', {
    public: problems.all.map(tellProblem).join('; '),
    internal: { problems: problems.all },
  })
}

/** What requests are made of. Names of `fixtures`. */
interface Named {
  readonly workloads: ReadonlyMap<string, WorkloadFacts>
  readonly peers: ReadonlyMap<string, Asked>
  readonly requests: ReadonlyMap<string, Asked>
}

/** What a case says about its request, so far. A later one says it anew. */
interface Asked {
  readonly peer?: SpiffeId | 'nobody'
  readonly names?: readonly string[]
  readonly method?: string
  readonly path?: string
  readonly host?: string
  readonly headers?: readonly (readonly [string, string])[]
  readonly claims?: Claims
  readonly port?: number
  readonly sourceIp?: string
  readonly remoteIp?: string
  readonly destinationIp?: string
  readonly sni?: string
  readonly providers?: Readonly<Record<string, 'allowed' | 'denied'>>
  readonly metadata?: Readonly<Record<string, Claims>>
}

function readFile(tree: MapTree, problems: Problems): PolicyTestCase[] {
  refuseUnknownKeys(tree, ['apiVersion', 'kind', 'metadata', 'workloads', 'fixtures', 'cases', 'matrix'], problems)
  const [cases, matrices] = [readItems(tree, 'cases', maxCases, problems), readItems(tree, 'matrix', maxMatrices, problems)]
  const given = tree.entries.get('workloads')
  const needsNone = matrices.length === 0 && cases.length > 0 && cases.every((one) => one.kind === 'map' && one.entries.has('target'))
  const workloads = needsNone && !given ? new Map<string, WorkloadFacts>() : readWorkloads(given ?? tree, problems)
  const named = { workloads, ...readFixtures(tree, problems) }
  if (cases.length + matrices.length === 0 && !tree.entries.has('cases') && !tree.entries.has('matrix'))
    problems.add(tree, 'expected `cases` or `matrix`, with at least one case')
  const read = [
    ...cases.flatMap((item) => readCase(item, named, problems) ?? []),
    ...matrices.flatMap((item) => readMatrix(item, named, problems)),
  ]
  if (read.length > maxCases) return problems.add(tree, `at most ${maxCases} cases, found ${read.length}`) ?? []
  return read
}

function readItems(tree: MapTree, key: string, most: number, problems: Problems): readonly Tree[] {
  const list = tree.entries.get(key)
  if (!list) return []
  if (list.kind !== 'list' || list.items.length === 0)
    return problems.add(list, `expected \`${key}\` with at least one case, found ${tell(list)}`) ?? []
  if (list.items.length > most) return problems.add(list, `at most ${most} items, found ${list.items.length}`) ?? []
  return list.items
}

function readFixtures(tree: MapTree, problems: Problems): Pick<Named, 'peers' | 'requests'> {
  const fixtures = tree.entries.get('fixtures')
  if (!fixtures) return { peers: new Map(), requests: new Map() }
  if (fixtures.kind !== 'map') {
    problems.add(fixtures, `expected a map with \`peers\` and \`requests\`, found ${tell(fixtures)}`)
    return { peers: new Map(), requests: new Map() }
  }
  refuseUnknownKeys(fixtures, ['peers', 'requests'], problems)
  return {
    peers: readNamed(fixtures, 'peers', (one) => readPeer(one, problems), problems),
    requests: readNamed(
      fixtures,
      'requests',
      (one) => {
        if (one.kind !== 'map') return problems.add(one, `expected a request, found ${tell(one)}`)
        refuseUnknownKeys(one, requestKeys, problems)
        return readAsked(one, problems)
      },
      problems,
    ),
  }
}

function readNamed<T>(tree: MapTree, key: string, read: (one: Tree) => T | undefined, problems: Problems): Map<string, T> {
  const named = tree.entries.get(key)
  if (!named) return new Map()
  if (named.kind !== 'map') {
    problems.add(named, `expected a map from names, found ${tell(named)}`)
    return new Map()
  }
  if (named.entries.size > maxNamed) problems.add(named, `at most ${maxNamed} names, found ${named.entries.size}`)
  const found = [...named.entries].slice(0, maxNamed).flatMap(([name, one]): [string, T][] => {
    const value = read(one)
    return value === undefined ? [] : [[name, value]]
  })
  return new Map(found)
}

/** A SPIFFE ID, or a caller with more to show: an end user's token, an address. */
function readPeer(tree: Tree, problems: Problems): Asked | undefined {
  if (tree.kind !== 'map') {
    const peer = parsed(tree, parseSpiffeId, problems)
    return peer === undefined ? undefined : { peer }
  }
  refuseUnknownKeys(tree, ['spiffeId', ...peerKeys], problems)
  const peer = readOptional(tree, 'spiffeId', parseSpiffeId, problems)
  return { peer: peer ?? 'nobody', ...readAsked(tree, problems) }
}

function readWorkloads(tree: Tree, problems: Problems): Map<string, WorkloadFacts> {
  if (tree.kind !== 'map' || tree.path !== 'workloads') {
    problems.add(tree, 'expected `workloads`: a map from a name to `spiffeIds` and `selectors`')
    return new Map()
  }
  if (tree.entries.size > maxNamed) problems.add(tree, `at most ${maxNamed} names, found ${tree.entries.size}`)
  const workloads = new Map<string, WorkloadFacts>()
  for (const [name, facts] of [...tree.entries].slice(0, maxNamed)) {
    if (facts.kind !== 'map') {
      problems.add(facts, `expected a map, found ${tell(facts)}`)
      continue
    }
    refuseUnknownKeys(facts, ['spiffeIds', 'selectors'], problems)
    workloads.set(name, {
      spiffeIds: readList(facts, 'spiffeIds', parseSpiffeId, problems),
      selectors: readList(facts, 'selectors', parseSelector, problems),
    })
  }
  return workloads
}

function readCase(tree: Tree, named: Named, problems: Problems): PolicyTestCase | undefined {
  if (tree.kind !== 'map') return problems.add(tree, `expected a case, found ${tell(tree)}`)
  const target = tree.entries.has('target') ? oneOf(tree, 'target', ['serverApi', 'onboarding'] as const, problems) : 'workload'
  if (!target) return undefined
  refuseUnknownKeys(tree, [...expectationKeys, ...questionKeys[target]], problems)
  const name = readText(tree, 'name', problems)
  const given = tree.entries.get('expect')
  const expect = given ? readVerdict(given, problems) : problems.add(tree, 'expected the key `expect`')
  const by = readOptional(tree, 'by', readBy, problems)
  const at = readOptional(tree, 'at', momentOf, problems)
  const question = questionReaders[target](tree, named, problems)
  if (name === undefined || !question || !expect) return undefined
  return { name, ...question, expect, ...(by ? { by } : {}), ...(at === undefined ? {} : { at }), place: tree.place }
}

type QuestionReader = (tree: MapTree, named: Named, problems: Problems) => PolicyQuestion | undefined

const questionReaders: Readonly<Record<PolicyQuestion['target'], QuestionReader>> = {
  workload(tree, named, problems) {
    const workload = readWorkload(tree, named, problems)
    const peer = tree.entries.has('peer') ? namedPeer(tree.entries.get('peer')!, named, problems) : undefined
    const fixture = tree.entries.has('request') ? namedRequest(tree.entries.get('request')!, named, problems) : undefined
    const request = toRequest({ ...fixture, ...peer, ...readAsked(tree, problems) }, tree, problems)
    return workload && { target: 'workload', workload, request }
  },

  serverApi(tree, _named, problems) {
    const callers = tree.entries.get('caller')
    if (!callers || (callers.kind === 'list' && callers.items.length === 0))
      problems.add(callers ?? tree, `expected the key \`caller\`: one of \`${serverApiCallers.join('`, `')}\`, or a list of them`)
    const caller = (callers?.kind === 'list' ? callers.items : callers ? [callers] : []).flatMap(
      (one) => parsed(one, callerOf, problems) ?? [],
    )
    const method = readText(tree, 'method', problems)
    const attributes = readAttributes(tree.entries.get('attributes'), problems)
    return method === undefined ? undefined : { target: 'serverApi', request: { caller, method, attributes } }
  },

  onboarding(tree, _named, problems) {
    const type = readText(tree, 'evidence', problems)
    const selectors = readList(tree, 'selectors', parseSelector, problems)
    return type === undefined ? undefined : { target: 'onboarding', request: { type, selectors } }
  },
}

const callerOf = (text: string): ServerApiCaller =>
  serverApiCallers.find((one) => one === text) ?? wrong(`one of \`${serverApiCallers.join('`, `')}\``)

/** What a call is about, as policies of the server API name it. What is left out is not known. */
function readAttributes(tree: Tree | undefined, problems: Problems): ServerApiAttributes {
  if (!tree) return {}
  if (tree.kind !== 'map') return problems.add(tree, `expected a map, found ${tell(tree)}`) ?? {}
  refuseUnknownKeys(tree, attributeKeys, problems)
  const all: { readonly [Key in keyof ServerApiAttributes]: ServerApiAttributes[Key] | undefined } = {
    'entry.spiffeId': readOptional(tree, 'entry.spiffeId', parseSpiffeId, problems),
    'entry.parentId': readOptional(tree, 'entry.parentId', parseSpiffeId, problems),
    'entry.x509Ttl': readOptional(tree, 'entry.x509Ttl', parseDuration, problems),
    'entry.admin': readFlag(tree, 'entry.admin', problems),
    'entry.downstream': readFlag(tree, 'entry.downstream', problems),
    'agent.id': readOptional(tree, 'agent.id', parseSpiffeId, problems),
    trustDomain: readOptional(tree, 'trustDomain', parseTrustDomain, problems),
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

function readFlag(tree: MapTree, key: string, problems: Problems): boolean | undefined {
  const found = tree.entries.get(key)
  if (!found) return undefined
  if (found.kind !== 'boolean') return problems.add(found, `expected \`true\` or \`false\`, found ${tell(found)}`)
  return found.text === 'true'
}

/** Rows of verdicts, one for each peer; a column for each request. */
function readMatrix(tree: Tree, named: Named, problems: Problems): PolicyTestCase[] {
  if (tree.kind !== 'map') return problems.add(tree, `expected a matrix, found ${tell(tree)}`) ?? []
  refuseUnknownKeys(tree, ['name', 'workload', 'at', 'requests', 'verdicts'], problems)
  const workload = readWorkload(tree, named, problems)
  const title = readOptional(tree, 'name', (text) => text, problems) ?? readOptional(tree, 'workload', (text) => text, problems)
  const at = readOptional(tree, 'at', momentOf, problems)
  const columns = readItems(tree, 'requests', maxNamed, problems).map((item) => ({
    name: item.kind === 'text' ? item.text : '',
    asked: namedRequest(item, named, problems),
  }))
  const rows = tree.entries.get('verdicts')
  if (!tree.entries.has('requests')) problems.add(tree, 'expected the key `requests`')
  if (rows?.kind !== 'map' || rows.entries.size === 0)
    return problems.add(rows ?? tree, 'expected `verdicts`: a row of `allowed` and `denied` for each peer') ?? []
  if (columns.length * rows.entries.size > maxCases)
    return problems.add(rows, `at most ${maxCases} cases, found ${columns.length * rows.entries.size}`) ?? []
  return [...rows.entries].flatMap(([name, row]) => {
    const peer = peerNamed(name, row, named, problems)
    if (row.kind !== 'list' || row.items.length !== columns.length)
      return problems.add(row, `expected ${columns.length} verdicts, one for each request, found ${told(row)}`) ?? []
    return row.items.flatMap((cell, index) => {
      const expect = readVerdict(cell, problems)
      const { name: asks, asked } = columns[index]!
      if (!expect || !workload || !peer || !asked) return []
      const request = toRequest({ ...asked, ...peer }, cell, problems)
      return [
        {
          name: `${title}: ${name}, ${asks}`,
          target: 'workload' as const,
          workload,
          request,
          expect,
          ...(at === undefined ? {} : { at }),
          place: cell.place,
        },
      ]
    })
  })
}

const told = (row: Tree): string => (row.kind === 'list' ? String(row.items.length) : tell(row))

function readVerdict(tree: Tree, problems: Problems): PolicyTestCase['expect'] | undefined {
  if (tree.kind === 'text' && (tree.text === 'allowed' || tree.text === 'denied')) return tree.text
  return problems.add(tree, `expected \`allowed\` or \`denied\`, found ${tell(tree)}`)
}

function readWorkload(tree: MapTree, { workloads }: Named, problems: Problems): WorkloadFacts | undefined {
  const name = readText(tree, 'workload', problems)
  if (name === undefined) return undefined
  return workloads.get(name) ?? unknownName(tree.entries.get('workload')!, 'workload', name, workloads, problems)
}

function namedRequest(tree: Tree, { requests }: Named, problems: Problems): Asked | undefined {
  const name = parsed(tree, (text) => text, problems)
  return name === undefined ? undefined : (requests.get(name) ?? unknownName(tree, 'request', name, requests, problems))
}

const namedPeer = (tree: Tree, named: Named, problems: Problems): Asked | undefined =>
  tree.kind === 'text' ? peerNamed(tree.text, tree, named, problems) : problems.add(tree, `expected a text, found ${tell(tree)}`)

/** `nobody` has shown no certificate. */
function peerNamed(name: string, at: Tree, { peers }: Named, problems: Problems): Asked | undefined {
  const found = peers.get(name)
  if (found) return found
  if (name === 'nobody') return { peer: 'nobody' }
  if (peers.size > 0 && !name.includes('://')) return unknownName(at, 'peer', name, peers, problems)
  try {
    return { peer: parseSpiffeId(name) }
  } catch (cause) {
    return problems.add(at, Failure.from(cause).message)
  }
}

function unknownName(at: Tree, what: string, name: string, known: ReadonlyMap<string, unknown>, problems: Problems): undefined {
  return problems.add(at, `unknown ${what} \`${shorten(name)}\`${suggestion(name, [...known.keys()])}`)
}

function readAsked(tree: MapTree, problems: Problems): Asked {
  const text = (key: string) => readOptional(tree, key, (one) => one, problems)
  const address = (key: string) => readOptional(tree, key, readAddress, problems)
  const names = tree.entries.has('names') ? readList(tree, 'names', (one) => one, problems) : undefined
  const headers = tree.entries.get('headers')
  const claims = readJsonMap(tree.entries.get('claims'), problems)
  const metadata = tree.entries.get('metadata')
  const providers = tree.entries.get('providers')
  const all: { readonly [Key in keyof Asked]: Asked[Key] | undefined } = {
    names,
    method: text('method'),
    path: text('path'),
    host: text('host'),
    headers: headers && readHeaders(headers, problems),
    claims,
    port: readOptional(tree, 'port', portOf, problems),
    sourceIp: address('sourceIp'),
    remoteIp: address('remoteIp'),
    destinationIp: address('destinationIp'),
    sni: text('sni'),
    providers: providers && Object.fromEntries(readNamed(tree, 'providers', (one) => readVerdict(one, problems), problems)),
    metadata: metadata && Object.fromEntries(readNamed(tree, 'metadata', (one) => readJsonMap(one, problems), problems)),
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

function toRequest(asked: Asked, tree: Tree, problems: Problems): PolicyRequest {
  const { peer, names, method, path, host, headers, claims, port, sourceIp, remoteIp, destinationIp, sni, providers, metadata } = asked
  const isHttp = method !== undefined || path !== undefined
  const httpOnly = Object.entries({ host, headers, claims }).find(([, value]) => value !== undefined)
  const missing = method === undefined ? 'method' : path === undefined ? 'path' : undefined
  if (isHttp && missing) problems.add(tree, `expected the key \`${missing}\``)
  if (!isHttp && httpOnly) problems.add(tree, `\`${httpOnly[0]}\` needs \`method\` and \`path\``)
  return {
    ...(peer === undefined || peer === 'nobody' ? {} : { peer: { spiffeId: peer, ...(names && { names }) } }),
    ...(sourceIp === undefined ? {} : { sourceIp }),
    ...(remoteIp === undefined ? {} : { remoteIp }),
    ...(destinationIp === undefined ? {} : { destinationIp }),
    ...(port === undefined ? {} : { destinationPort: port }),
    ...(sni === undefined ? {} : { sni }),
    ...(claims && { token: { claims } }),
    ...(metadata && { filterMetadata: metadata }),
    ...(providers && { providers }),
    ...(isHttp && {
      http: { method: method ?? '', path: path ?? '', host: host ?? 'localhost', headers: headerValues(headers ?? []) },
    }),
  }
}

/** A map as JSON has it: the claims of a token. */
function readJsonMap(tree: Tree | undefined, problems: Problems): Claims | undefined {
  if (!tree) return undefined
  if (tree.kind !== 'map') return problems.add(tree, `expected a map, found ${tell(tree)}`)
  return Object.fromEntries([...tree.entries].map(([key, value]) => [key, toJson(value)]))
}

function toJson(tree: Tree): unknown {
  switch (tree.kind) {
    case 'map':
      return Object.fromEntries([...tree.entries].map(([key, value]) => [key, toJson(value)]))
    case 'list':
      return tree.items.map(toJson)
    case 'text':
      return tree.text
    case 'number':
      return Number(tree.text)
    case 'boolean':
      return tree.text === 'true'
    case 'null':
      return null
    default:
      throw new Error(`bug: tree ${JSON.stringify(tree satisfies never)}`)
  }
}

/** `name: value`, or `name: [value, value]` for a header that is sent several times. */
function readHeaders(tree: Tree, problems: Problems): [string, string][] {
  if (tree.kind !== 'map') return problems.add(tree, `expected a map, found ${tell(tree)}`) ?? []
  return [...tree.entries].flatMap(([name, value]) =>
    (value.kind === 'list' ? value.items : [value]).flatMap((one): [string, string][] =>
      one.kind === 'text' ? [[name, one.text]] : (problems.add(one, `expected a text, found ${tell(one)}`) ?? []),
    ),
  )
}

function readBy(text: string): { policy: string; rule?: number } {
  const parts = /^(\S+)(?: rule (\d{1,3}))?$/.exec(text)
  if (!parts) return wrong('the name of a policy, and `rule` with its number if that matters')
  return { policy: parts[1]!, ...(parts[2] === undefined ? {} : { rule: Number(parts[2]) }) }
}

const momentOf = (text: string): Instant => readMoment(text) ?? wrong('a date or a moment')
const portOf = (text: string): number => (/^\d{1,5}$/.test(text) && Number(text) <= 65_535 ? Number(text) : wrong('a port'))
const readAddress = (text: string): string => (parseAddress(text) ? text : wrong('an IP address'))

function readList<T>(tree: MapTree, key: string, parse: (text: string) => T, problems: Problems): T[] {
  const list = tree.entries.get(key)
  if (!list) return []
  if (list.kind !== 'list') return problems.add(list, `expected a list, found ${tell(list)}`) ?? []
  return list.items.flatMap((item) => parsed(item, parse, problems) ?? [])
}

function readOptional<T>(tree: MapTree, key: string, parse: (text: string) => T, problems: Problems): T | undefined {
  const value = tree.entries.get(key)
  return value && parsed(value, parse, problems)
}

function readText(tree: MapTree, key: string, problems: Problems): string | undefined {
  const value = tree.entries.get(key)
  return value ? parsed(value, (text) => text, problems) : problems.add(tree, `expected the key \`${key}\``)
}

function parsed<T>(tree: Tree, parse: (text: string) => T, problems: Problems): T | undefined {
  if (tree.kind !== 'text' && tree.kind !== 'number') return problems.add(tree, `expected a text, found ${tell(tree)}`)
  try {
    return parse(tree.text)
  } catch (cause) {
    return problems.add(tree, `${Failure.from(cause).message}, found ${tell(tree)}`)
  }
}

function wrong(expected: string): never {
  throw new Failure('invalid_argument', 'policy-test.value', { public: `expected ${expected}` })
}

/** What can be said of a peer beside its SPIFFE ID. */
const peerKeys = ['names', 'claims', 'sourceIp', 'remoteIp', 'sni'] as const
const requestKeys: readonly string[] = [
  'method', 'path', 'host', 'headers', 'claims', 'port', 'sourceIp', 'remoteIp', 'destinationIp', 'sni', 'providers', 'metadata',
] // prettier-ignore
const attributeKeys: readonly (keyof ServerApiAttributes)[] = [
  'entry.spiffeId', 'entry.parentId', 'entry.x509Ttl', 'entry.admin', 'entry.downstream', 'agent.id', 'trustDomain',
] // prettier-ignore
const expectationKeys = ['name', 'at', 'expect', 'by'] as const
const questionKeys: Readonly<Record<PolicyQuestion['target'], readonly string[]>> = {
  workload: ['workload', 'peer', 'names', 'request', ...requestKeys],
  serverApi: ['target', 'caller', 'method', 'attributes'],
  onboarding: ['target', 'evidence', 'selectors'],
}
/** Which keys there are, for editors. */
export const testKeys = {
  peer: peerKeys,
  request: requestKeys,
  attributes: attributeKeys,
  expectation: expectationKeys,
  question: questionKeys,
}
const maxCases = 10_000
const maxMatrices = 1000
const maxNamed = 1000
