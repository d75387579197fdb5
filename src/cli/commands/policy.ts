import { z } from 'zod'
import { formatInstant } from '../../kernel/clock.ts'
import { connectAdmin } from '../../server-api/client.ts'
import { checkPolicies, parsePolicySet } from '../../policy/language.ts'
import { isPolicyTestFile, parsePolicyTests, runPolicyTests } from '../../policy/test-file.ts'
import type { PolicyDocument } from '../../policy/policy-set.ts'
import { command } from '../command.ts'
import type { Disk } from '../context.ts'
import { positional, serverSocket, within } from '../flags.ts'
import { table } from '../output.ts'

const paths = positional(z.array(z.string().min(1)).min(1).max(1000))
const pathsArgument = [{ name: 'paths', help: 'policy files, or directories of them', many: true }]

export const policyCheck = command({
  name: 'policy check',
  summary: 'check policy files without applying them',
  flags: z.strictObject({ paths }),
  positional: pathsArgument,
  examples: ['vidimus policy check policies/'],
  async run({ paths }, { disk }) {
    const documents = await policyFiles(disk, paths)
    const { set, problems } = checkPolicies(documents)
    const lines = problems.map(
      ({ document, line, column, path, message }) => `${document}:${line}:${column}: ${path === '' ? '' : `\`${path}\`: `}${message}`,
    )
    const text = set
      ? `${set.policies.length} policies in ${documents.length} files: all valid`
      : `${lines.join('\n')}\n${problems.length} ${problems.length === 1 ? 'mistake' : 'mistakes'}`
    return { value: { valid: set !== undefined, problems }, text, ok: set !== undefined }
  },
})

export const policyTest = command({
  name: 'policy test',
  summary: 'run the test files that stand beside policies',
  flags: z.strictObject({ paths }),
  positional: pathsArgument,
  examples: ['vidimus policy test policies/'],
  async run({ paths }, { disk, clock }) {
    const documents = await disk.yamlFiles(paths)
    const [tests, policies] = [documents.filter(isPolicyTestFile), documents.filter((document) => !isPolicyTestFile(document))]
    const results = runPolicyTests(parsePolicySet(policies), parsePolicyTests(tests), { at: clock.now() })
    const failed = results.filter(({ passed }) => !passed)
    const lines = results.map(
      ({ test, passed, told }) => `${passed ? 'ok    ' : 'failed'}  ${test.name}${told.map((line) => `\n          ${line}`).join('')}`,
    )
    return {
      value: {
        passed: results.length - failed.length,
        failed: failed.length,
        tests: results.map(({ test, passed, decision, told }) => ({ name: test.name, passed, decision, told })),
      },
      text:
        results.length === 0
          ? 'there are no tests under these paths'
          : `${lines.join('\n')}\n${results.length - failed.length} passed, ${failed.length} failed`,
      ok: failed.length === 0 && results.length > 0,
    }
  },
})

export const policyApply = command({
  name: 'policy apply',
  summary: 'put a whole set of policies in force, in place of the one before',
  flags: z.strictObject({ ...serverSocket, paths }),
  positional: pathsArgument,
  examples: ['vidimus policy apply policies/'],
  async run({ serverSocket, paths }, { disk, stop }) {
    const documents = await policyFiles(disk, paths)
    await using server = connectAdmin(serverSocket)
    const applied = await server.policies.apply(documents, within(stop))
    return {
      value: { version: applied.version, documents: documents.map(({ name }) => name) },
      text: `applied ${documents.length} files as version ${applied.version.slice(0, 16)}`,
    }
  },
})

export const policyList = command({
  name: 'policy list',
  summary: 'show the policies in force',
  flags: z.strictObject(serverSocket),
  async run({ serverSocket }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const { version, documents, appliedAt } = await server.policies.list(within(stop))
    const { set } = checkPolicies(documents)
    const policies = (set?.policies ?? []).map(({ name, action, rules }) => ({ name, action, rules: rules.length }))
    const text =
      appliedAt === undefined
        ? 'no policies were applied: nothing is allowed'
        : `version ${version.slice(0, 16)}, applied ${formatInstant(appliedAt)}\n\n${table(
            ['POLICY', 'ACTION', 'RULES'],
            policies.map(({ name, action, rules }) => [name, action, String(rules)]),
          )}`
    return { value: { version, ...(appliedAt === undefined ? {} : { appliedAt: formatInstant(appliedAt) }), policies, documents }, text }
  },
})

/** Test files stand beside policies and are none. */
async function policyFiles(disk: Disk, paths: readonly string[]): Promise<readonly PolicyDocument[]> {
  return (await disk.yamlFiles(paths)).filter((document) => !isPolicyTestFile(document))
}
