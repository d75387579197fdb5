/** Tests of policies, written beside them: documents of kind `PolicyTest`. Each case is a request and the verdict its author expects. */
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { parseSpiffeId } from '../spiffe/id.ts'
import { parseSelector } from '../spiffe/selector.ts'
import { compileFor, type CompiledPolicies, type WorkloadFacts } from './compile.ts'
import type { Decision } from './decision.ts'
import { decide } from './evaluate.ts'
import { explain } from './explain.ts'
import { isPolicyTest, tellProblem } from './language.ts'
import { readMoment } from './reading.ts'
import { parseAddress } from './matching.ts'
import type { Place, PolicyDocument, PolicySet } from './policy-set.ts'
import { headerValues, type PolicyRequest } from './request.ts'
import { Problems, readYaml, refuseUnknownKeys, shorten, suggestion, tell, type MapTree, type Tree } from './yaml-tree.ts'

export interface PolicyTestCase {
  readonly name: string
  readonly workload: WorkloadFacts
  readonly request: PolicyRequest
  readonly expect: 'allowed' | 'denied'
  /** The policy, or `policy rule 2`, that must decide; absent: any, or none. */
  readonly by?: { readonly policy: string; readonly rule?: number }
  /** When: policies expire. Absent: the moment that the tests are run at. */
  readonly at?: Instant
  readonly place: Place
}

export interface PolicyTestResult {
  readonly test: PolicyTestCase
  readonly passed: boolean
  readonly decision: Decision
  /** What was expected and found, and why it was decided so. Empty where the test passed. */
  readonly told: readonly string[]
}

/** True if a document holds tests and nothing else. */
export function isPolicyTestFile(document: PolicyDocument): boolean {
  const trees = readYaml(document, new Problems())
  return trees.length > 0 && trees.every(isPolicyTest)
}

/**
 * Reads test documents; documents of other kinds among them are passed over.
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

/** Runs tests against a set. `at` is the moment for cases that name none. */
export function runPolicyTests(set: PolicySet, cases: readonly PolicyTestCase[], { at }: { readonly at: Instant }): PolicyTestResult[] {
  const compiled = new Map<string, CompiledPolicies>()
  return cases.map((test) => {
    const key = JSON.stringify([test.workload, test.at ?? at])
    const policies = compiled.get(key) ?? compileFor(set, test.workload, { at: test.at ?? at })
    compiled.set(key, policies)
    return judge(test, policies)
  })
}

function judge(test: PolicyTestCase, policies: CompiledPolicies): PolicyTestResult {
  const decision = decide(policies, test.request)
  const verdict = decision.allowed ? 'allowed' : 'denied'
  const { by } = test
  const byAsExpected =
    !by || decision.decidedBy.some(({ policy, rule }) => policyNamed(policy, by.policy) && (by.rule === undefined || by.rule === rule))
  const passed = verdict === test.expect && byAsExpected
  if (passed) return { test, passed, decision, told: [] }
  const expected = `expected ${test.expect}${by ? ` by \`${by.policy}\`${by.rule === undefined ? '' : ` rule ${by.rule}`}` : ''}, found ${verdict}`
  return { test, passed, decision, told: [expected, ...explain(policies, test.request, decision)] }
}

/** `orders` names `shop/orders` as well. */
const policyNamed = (policy: string, wanted: string): boolean => policy === wanted || policy.endsWith(`/${wanted}`)

function readFile(tree: MapTree, problems: Problems): PolicyTestCase[] {
  refuseUnknownKeys(tree, ['apiVersion', 'kind', 'metadata', 'workloads', 'cases'], problems)
  const workloads = readWorkloads(tree.entries.get('workloads') ?? tree, problems)
  const cases = tree.entries.get('cases')
  if (cases?.kind !== 'list' || cases.items.length === 0)
    return problems.add(cases ?? tree, 'expected `cases` with at least one case') ?? []
  if (cases.items.length > maxCases) return problems.add(cases, `at most ${maxCases} cases, found ${cases.items.length}`) ?? []
  return cases.items.flatMap((item) => readCase(item, workloads, problems) ?? [])
}

function readWorkloads(tree: Tree, problems: Problems): Map<string, WorkloadFacts> {
  const workloads = new Map<string, WorkloadFacts>()
  if (tree.kind !== 'map' || tree.path !== 'workloads')
    problems.add(tree, 'expected `workloads`: a map from a name to `spiffeIds` and `selectors`')
  else {
    for (const [name, facts] of tree.entries) {
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
  }
  return workloads
}

function readCase(tree: Tree, workloads: ReadonlyMap<string, WorkloadFacts>, problems: Problems): PolicyTestCase | undefined {
  if (tree.kind !== 'map') return problems.add(tree, `expected a case, found ${tell(tree)}`)
  refuseUnknownKeys(tree, caseKeys, problems)
  const name = readText(tree, 'name', problems)
  const workloadName = readText(tree, 'workload', problems)
  const workload = workloadName === undefined ? undefined : workloads.get(workloadName)
  if (workloadName !== undefined && !workload)
    problems.add(
      tree.entries.get('workload')!,
      `unknown workload \`${shorten(workloadName)}\`${suggestion(workloadName, [...workloads.keys()])}`,
    )
  const expect = readText(tree, 'expect', problems)
  if (expect !== undefined && expect !== 'allowed' && expect !== 'denied')
    problems.add(tree.entries.get('expect')!, `expected \`allowed\` or \`denied\`, found \`${shorten(expect)}\``)
  const by = readOptional(tree, 'by', readBy, problems)
  const at = readOptional(tree, 'at', (text) => readMoment(text) ?? wrong('a date or a moment'), problems)
  const request = readRequest(tree, problems)
  if (name === undefined || !workload || (expect !== 'allowed' && expect !== 'denied')) return undefined
  return { name, workload, request, expect, ...(by ? { by } : {}), ...(at === undefined ? {} : { at }), place: tree.place }
}

function readRequest(tree: MapTree, problems: Problems): PolicyRequest {
  const peer = readOptional(tree, 'peer', parseSpiffeId, problems)
  const sourceIp = readOptional(tree, 'sourceIp', readAddress, problems)
  const remoteIp = readOptional(tree, 'remoteIp', readAddress, problems)
  const destinationIp = readOptional(tree, 'destinationIp', readAddress, problems)
  const destinationPort = readOptional(
    tree,
    'port',
    (text) => (/^\d{1,5}$/.test(text) && Number(text) <= 65_535 ? Number(text) : wrong('a port')),
    problems,
  )
  const sni = readOptional(tree, 'sni', (text) => text, problems)
  const http = tree.entries.has('method') || tree.entries.has('path')
  const httpKey = [...tree.keys.keys()].find((key) => key === 'host' || key === 'headers')
  if (!http && httpKey) problems.add(tree.entries.get(httpKey) ?? tree, `\`${httpKey}\` needs \`method\` and \`path\``)
  return {
    ...(peer === undefined ? {} : { peer: { spiffeId: peer } }),
    ...(sourceIp === undefined ? {} : { sourceIp }),
    ...(remoteIp === undefined ? {} : { remoteIp }),
    ...(destinationIp === undefined ? {} : { destinationIp }),
    ...(destinationPort === undefined ? {} : { destinationPort }),
    ...(sni === undefined ? {} : { sni }),
    ...(http
      ? {
          http: {
            method: readText(tree, 'method', problems) ?? '',
            path: readText(tree, 'path', problems) ?? '',
            host: readOptional(tree, 'host', (text) => text, problems) ?? 'localhost',
            headers: headerValues(readHeaders(tree.entries.get('headers'), problems)),
          },
        }
      : {}),
  }
}

/** `name: value`, or `name: [value, value]` for a header that is sent several times. */
function readHeaders(tree: Tree | undefined, problems: Problems): [string, string][] {
  if (!tree) return []
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

const caseKeys = [
  'name', 'workload', 'peer', 'method', 'path', 'host', 'headers', 'port', 'sourceIp', 'remoteIp', 'destinationIp', 'sni', 'at', 'expect', 'by',
] // prettier-ignore
const maxCases = 10_000
