import { z } from 'zod'
import { Failure } from '../../kernel/failure.ts'
import { Coverage } from '../../policy/analysis/coverage.ts'
import { missingTests } from '../../policy/analysis/missing-tests.ts'
import { compileFor } from '../../policy/compile.ts'
import { isPolicyTestFile, parsePolicyTests, type PolicyTestCase } from '../../policy/test-file.ts'
import { runPolicyTests } from '../../policy/test-run.ts'
import { command } from '../command.ts'
import { asLanguageOptions, languageFlags, parsed } from '../flags.ts'
import type { Shown } from '../output.ts'
import { coverageText, missingTestsYaml, testJunit, testText } from '../policy-test-reports.ts'
import { paths, pathsArgument, valid } from './policy.ts'

export const policyTest = command({
  name: 'policy test',
  summary: 'run the test files that stand beside policies',
  flags: z.strictObject({
    paths,
    filter: z.string().default('').describe('run only tests with this text in their name').meta({ value: 'text' }),
    coverage: z.boolean().default(false).describe('say which values of which rules no test asked about'),
    minCoverage: parsed(readPercent).optional().describe('fail below this coverage').meta({ value: 'percent' }),
    generate: z.boolean().default(false).describe('print tests for what no test asked about, with the verdicts of now'),
    junit: z.string().optional().describe('write a JUnit report to this file as well').meta({ value: 'path' }),
    ...languageFlags,
  }),
  positional: pathsArgument,
  forms: ['junit'],
  examples: [
    'vidimus policy test policies/',
    'vidimus policy test policies/ --min-coverage 90 --junit policies.xml',
    'vidimus policy test policies/ --generate > policies/more-tests.yaml',
  ],
  async run({ paths, filter, coverage: wanted, minCoverage, generate, junit, ...language }, { disk, clock }): Promise<Shown> {
    const documents = await disk.yamlFiles(paths)
    const [tests, policies] = [documents.filter(isPolicyTestFile), documents.filter((document) => !isPolicyTestFile(document))]
    const set = valid(policies, asLanguageOptions(language))
    const all = parsePolicyTests(tests)
    const cases = all.filter(({ name }) => name.includes(filter))
    const at = clock.now()
    const coverage = new Coverage(set)
    const ofWorkloads = cases.filter((test) => test.target === 'workload')
    for (const test of ofWorkloads) coverage.note(compileFor(set, test.workload, { at: test.at ?? at }), test.request)
    if (generate) {
      const missing = missingTests(set, workloadsOf(ofWorkloads), coverage, { at })
      return { value: missing, text: missingTestsYaml(missing.tests, missing.unknown) }
    }
    const results = runPolicyTests(set, cases, { at })
    if (junit !== undefined) await disk.write(junit, testJunit(results), false)
    if (cases.length === 0) {
      const text = all.length === 0 ? 'there are no tests under these paths' : `none of ${all.length} tests has \`${filter}\` in its name`
      return { value: { passed: 0, failed: 0, tests: [] }, text, junit: testJunit([]), ok: false }
    }
    const failed = results.filter(({ passed }) => !passed).length
    const covered = coverage.report()
    const tooLittle = minCoverage !== undefined && covered.percent < minCoverage
    const shortage = tooLittle ? [`coverage ${covered.percent} % is below ${minCoverage} %`] : []
    return {
      value: {
        passed: results.length - failed,
        failed,
        tests: results.map(({ test, passed, decision, told }) => ({ name: test.name, passed, decision, told })),
        coverage: covered,
      },
      text: [testText(results), ...(wanted || tooLittle ? ['', coverageText(covered)] : []), ...shortage].join('\n'),
      junit: testJunit(results),
      ok: failed === 0 && !tooLittle,
    }
  },
})

const workloadsOf = (cases: readonly Extract<PolicyTestCase, { target: 'workload' }>[]) => [
  ...new Map(cases.map(({ workload }) => [JSON.stringify(workload), workload])).values(),
]

function readPercent(text: string): number {
  if (/^(?:100|\d{1,2}(?:\.\d)?)$/.test(text)) return Number(text)
  throw new Failure('invalid_argument', 'usage.wrong', { public: `expected a percentage from 0 to 100, found \`${text.slice(0, 80)}\`` })
}
