/** What tests of policies showed, for people and for pipelines, and tests to be added. */
import { Document, isMap, isSeq } from 'yaml'
import type { Unknown } from '../policy/analysis/answer.ts'
import type { CoverageReport } from '../policy/analysis/coverage.ts'
import type { MissingTest } from '../policy/analysis/missing-tests.ts'
import type { WorkloadFacts } from '../policy/compile.ts'
import type { PolicyRequest } from '../policy/request.ts'
import type { PolicyTestResult } from '../policy/test-run.ts'
import { pathOf } from '../spiffe/id.ts'
import { unknownLine } from './policy-reports.ts'

export function testText(results: readonly PolicyTestResult[]): string {
  const failed = results.filter(({ passed }) => !passed).length
  const lines = results.map(
    ({ test, passed, told }) => `${passed ? 'ok    ' : 'failed'}  ${test.name}${told.map((line) => `\n          ${line}`).join('')}`,
  )
  return `${lines.join('\n')}\n${results.length - failed} passed, ${failed} failed`
}

export function coverageText({ percent, exercised, outcomes, unexercised }: CoverageReport): string {
  const lines = unexercised.map(({ place, policy, rule, atom, never }) => {
    const what = atom === 'the rule' ? 'never matches' : `never ${never.join(', never ')}`
    return `${place.document}:${place.line}: rule ${rule} of \`${policy}\`: ${atom} is ${what}`.replace(
      ' is never matches',
      ' never matches',
    )
  })
  return [`coverage ${percent} % (${exercised} of ${outcomes})`, ...lines].join('\n')
}

/** JUnit XML: a suite a file, a case a test. */
export function testJunit(results: readonly PolicyTestResult[]): string {
  const suites = [...Map.groupBy(results, ({ test }) => test.place.document)].map(([file, list]) => {
    const failures = list.filter(({ passed }) => !passed).length
    const cases = list.map(({ test: { name, place }, passed, told }) => {
      const start = `    <testcase classname="policy" name="${xml(name)}" file="${xml(file)}" line="${place.line}"`
      const [first = '', ...why] = told
      return passed
        ? `${start}/>\n`
        : `${start}>\n      <failure message="${xml(first)}">${xml(why.join('\n'))}</failure>\n    </testcase>\n`
    })
    return `  <testsuite name="${xml(file)}" tests="${list.length}" failures="${failures}">\n${cases.join('')}  </testsuite>\n`
  })
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="policies">\n${suites.join('')}</testsuites>\n`
}

/** Tests as a document of kind `PolicyTest`, each with the verdict that the policies give now. */
export function missingTestsYaml(tests: readonly MissingTest[], unknown: readonly Unknown[]): string {
  const notes = unknown.map((one) => `# ${unknownLine(one)}\n`).join('')
  if (tests.length === 0) return `${notes}# every value of every rule is exercised already\n`
  const names = namesOf(tests.map(({ workload }) => workload))
  const document = new Document({
    apiVersion: 'vidimus.dev/v1',
    kind: 'PolicyTest',
    workloads: Object.fromEntries(
      [...names].map(([key, name]) => {
        const { spiffeIds, selectors } = JSON.parse(key) as WorkloadFacts
        return [name, { spiffeIds, ...(selectors.length > 0 && { selectors: selectors.map(({ type, value }) => `${type}:${value}`) }) }]
      }),
    ),
    cases: tests.map(({ workload, about, request, decision: { allowed, decidedBy } }) => ({
      name: about,
      workload: names.get(JSON.stringify(workload)),
      ...requestKeys(request),
      expect: allowed ? 'allowed' : 'denied',
      ...(decidedBy[0] && { by: `${decidedBy[0].policy} rule ${decidedBy[0].rule}` }),
    })),
  })
  const cases = document.get('cases')
  if (isSeq(cases)) for (const item of cases.items) if (isMap(item)) item.flow = true
  return `# What no test asked, with the verdicts that these policies give now: look at each, then keep it.\n${notes}${document.toString({ lineWidth: 0 })}`
}

/** A request in the keys of a test case. */
function requestKeys({ peer, http, token, filterMetadata, destinationPort, ...same }: PolicyRequest): object {
  const headers = [...(http?.headers ?? [])].map(([name, values]) => [name, values.length === 1 ? values[0] : values] as const)
  return {
    ...(peer && { peer: peer.spiffeId, ...(peer.names && { names: peer.names }) }),
    ...(http && { method: http.method, path: http.path, host: http.host }),
    ...(headers.length > 0 && { headers: Object.fromEntries(headers) }),
    ...(token && { claims: token.claims }),
    ...(destinationPort === undefined ? {} : { port: destinationPort }),
    ...same,
    ...(filterMetadata && { metadata: filterMetadata }),
  }
}

/** A short name for each workload: how its SPIFFE ID ends. */
function namesOf(workloads: readonly WorkloadFacts[]): Map<string, string> {
  const names = new Map<string, string>()
  const taken = new Set<string>()
  for (const workload of workloads) {
    const key = JSON.stringify(workload)
    if (names.has(key)) continue
    const id = workload.spiffeIds[0]
    const base = (id && pathOf(id).split('/').at(-1)) || 'workload'
    let name = base
    for (let number = 2; taken.has(name); number++) name = `${base}-${number}`
    names.set(key, name)
    taken.add(name)
  }
  return names
}

const xml = (text: string): string =>
  text.replace(/[<>&"\n]/g, (one) => `&#${one.charCodeAt(0)};`).replaceAll(/[^\x20-\ud7ff\ue000-\ufffd]/gu, '?')
