import { z } from 'zod'
import { formatInstant } from '../../kernel/clock.ts'
import { Failure } from '../../kernel/failure.ts'
import { connectAdmin } from '../../server-api/client.ts'
import { checkPolicies } from '../../policy/language.ts'
import { isPolicyTestFile, parsePolicyTests, runPolicyTests } from '../../policy/test-file.ts'
import type { PolicyDocument, PolicySet } from '../../policy/policy-set.ts'
import type { Problem } from '../../policy/yaml-tree.ts'
import { command } from '../command.ts'
import type { Disk } from '../context.ts'
import { positional, serverSocket, within } from '../flags.ts'
import { counted, table } from '../output.ts'
import { listed } from '../wording.ts'

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
    const text = set
      ? `${counted(set.policies.length, 'policy', 'policies')} in ${counted(documents.length, 'file')}: all valid`
      : mistakes(problems)
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
    const results = runPolicyTests(valid(policies), parsePolicyTests(tests), { at: clock.now() })
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
    valid(documents)
    await using server = connectAdmin(serverSocket)
    const applied = await server.policies.apply(documents, within(stop))
    return {
      value: { version: applied.version, documents: documents.map(({ name }) => name) },
      text: `applied ${counted(documents.length, 'file')} as version ${applied.version.slice(0, 16)}`,
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
  const documents = (await disk.yamlFiles(paths)).filter((document) => !isPolicyTestFile(document))
  if (documents.length > 0) return documents
  // An empty set would allow nothing any more: nobody means that by naming the wrong folder.
  throw new Failure('invalid_argument', 'usage.no-file', { public: `there is no policy under ${listed(paths)}, only tests` })
}

/** @throws Failure `policy.invalid` with every problem on a line of its own */
function valid(documents: readonly PolicyDocument[]): PolicySet {
  const { set, problems } = checkPolicies(documents)
  if (set) return set
  throw new Failure('invalid_argument', 'policy.invalid', { public: mistakes(problems), internal: { problems } })
}

function mistakes(problems: readonly Problem[]): string {
  const lines = problems.map(
    ({ document, line, column, path, message }) => `\n  ${document}:${line}:${column}: ${path === '' ? '' : `\`${path}\`: `}${message}`,
  )
  return `the policies have ${counted(problems.length, 'mistake')}${lines.join('')}`
}
