/** The policies that come with the program: read at run time, tested like code. */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { Coverage } from '../../src/policy/analysis/coverage.ts'
import { compileFor } from '../../src/policy/compile.ts'
import { checkPolicies, parsePolicySet } from '../../src/policy/language.ts'
import { isPolicyTestFile, parsePolicyTests } from '../../src/policy/test-file.ts'
import { runPolicyTests } from '../../src/policy/test-run.ts'
import { noon } from './make.ts'

const folder = (name: string) => new URL(`../../policies/${name}/`, import.meta.url)
const documentsOf = (name: string) =>
  readdirSync(folder(name))
    .filter((file) => file.endsWith('.yaml'))
    .sort()
    .map((file) => ({ name: file, text: readFileSync(new URL(file, folder(name)), 'utf8') }))

test.each(['demo', 'server-api'])('policies/%s is valid', (name) => expect(checkPolicies(documentsOf(name)).problems).toEqual([]))

describe('policies/demo', () => {
  const results = runPolicyTests(parsePolicySet(documentsOf('demo')), parsePolicyTests(documentsOf('demo')), { at: noon })
  test('its test file is told apart', () =>
    expect(
      documentsOf('demo')
        .filter(isPolicyTestFile)
        .map(({ name }) => name),
    ).toEqual(['tests.yaml']))
  test.each(results.map((result) => [result.test.name, result] as const))('%s', (_, { told, passed }) =>
    expect([passed, told]).toEqual([true, []]),
  )
})

describe('policies/examples', () => {
  const names = readdirSync(folder('examples'), { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []))
  const readme = readFileSync(new URL('README.md', folder('examples')), 'utf8')

  test('the table names every example', () => expect(names.filter((name) => !readme.includes(`| \`${name}\` |`))).toEqual([]))

  test.each(names)('%s is valid, its tests pass, and they ask about every value of every rule', (name) => {
    const documents = documentsOf(`examples/${name}`)
    const options = { mode: name === 'istio-migration' ? ('istio' as const) : ('strict' as const) }
    expect(checkPolicies(documents, options).problems).toEqual([])
    const set = parsePolicySet(documents, options)
    const cases = parsePolicyTests(documents)
    expect(cases.length).toBeGreaterThan(0)
    const results = runPolicyTests(set, cases, { at: noon })
    expect(results.flatMap(({ test: { name: which }, told }) => (told.length > 0 ? [[which, ...told]] : []))).toEqual([])
    const coverage = new Coverage(set)
    for (const { at = noon, ...test } of cases)
      if (test.target === 'workload') coverage.note(compileFor(set, test.workload, { at }), test.request)
    expect(coverage.report().unexercised).toEqual([])
  })

  test('all of them stand side by side in one set', () => {
    const documents = names.flatMap((name) =>
      documentsOf(`examples/${name}`).map(({ name: file, text }) => ({ name: `${name}/${file}`, text })),
    )
    expect(checkPolicies(documents).problems).toEqual([])
  })
})

test('the set that docs/policies.md begins with passes the tests that it shows', () => {
  const text = readFileSync(new URL('../../docs/policies.md', import.meta.url), 'utf8')
  const documents = [...text.matchAll(/^```yaml\n(.*?)^```/gms)].map(([, block], index) => ({ name: `${index}.yaml`, text: block! }))
  const results = runPolicyTests(parsePolicySet(documents), parsePolicyTests(documents), { at: noon })
  expect(results.map(({ test: { name }, passed }) => `${passed ? 'ok    ' : 'failed'}  ${name}`).join('\n')).toBe(
    /^\$ vidimus policy test policies\n(.*?)\n\d+ passed/ms.exec(text)?.[1],
  )
})
