/** The policies that come with the program: read at run time, tested like code. */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
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

test.each(['demo', 'examples', 'server-api'])('policies/%s is valid', (name) =>
  expect(checkPolicies(documentsOf(name)).problems).toEqual([]),
)

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
