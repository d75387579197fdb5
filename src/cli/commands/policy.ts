import { z } from 'zod'
import { Failure } from '../../kernel/failure.ts'
import { checkPolicies, type LanguageOptions } from '../../policy/language.ts'
import { languageSchema } from '../../policy/schema.ts'
import { isPolicyTestFile } from '../../policy/test-file.ts'
import type { PolicyDocument, PolicySet } from '../../policy/policy-set.ts'
import type { Problem } from '../../policy/yaml-tree.ts'
import { command } from '../command.ts'
import type { Disk } from '../context.ts'
import { asLanguageOptions, languageFlags, positional } from '../flags.ts'
import { counted } from '../output.ts'
import { listed } from '../wording.ts'

export const paths = positional(z.array(z.string().min(1)).min(1).max(1000))
export const pathsArgument = [{ name: 'paths', help: 'policy files, or directories of them', many: true }]

export const policyCheck = command({
  name: 'policy check',
  summary: 'check policy files without applying them',
  flags: z.strictObject({ paths, ...languageFlags }),
  positional: pathsArgument,
  examples: ['vidimus policy check policies/', 'vidimus policy check policies/ --compat istio'],
  async run({ paths, ...language }, { disk }) {
    const documents = await policyFiles(disk, paths)
    const { set, problems } = checkPolicies(documents, asLanguageOptions(language))
    const text = set
      ? `${counted(set.policies.length, 'policy', 'policies')} in ${counted(documents.length, 'file')}: all valid`
      : mistakes(problems)
    return { value: { valid: set !== undefined, problems }, text, ok: set !== undefined }
  },
})

export const policySchema = command({
  name: 'policy schema',
  summary: 'print the JSON Schema of policies and their tests, for editors',
  flags: z.strictObject({}),
  examples: ['vidimus policy schema > policies.schema.json'],
  async run() {
    const value = languageSchema()
    return { value, text: JSON.stringify(value, undefined, 2) }
  },
})

/** Test files stand beside policies and are none. @throws Failure `usage.no-file` where there is nothing else */
export async function policyFiles(disk: Disk, paths: readonly string[]): Promise<readonly PolicyDocument[]> {
  const documents = (await disk.yamlFiles(paths)).filter((document) => !isPolicyTestFile(document))
  if (documents.length > 0) return documents
  // An empty set would allow nothing any more: nobody means that by naming the wrong folder.
  throw new Failure('invalid_argument', 'usage.no-file', { public: `there is no policy under ${listed(paths)}, only tests` })
}

/** @throws Failure `policy.invalid` with every problem on a line of its own */
export function valid(documents: readonly PolicyDocument[], options?: LanguageOptions): PolicySet {
  const { set, problems } = checkPolicies(documents, options)
  if (set) return set
  throw new Failure('invalid_argument', 'policy.invalid', { public: mistakes(problems), internal: { problems } })
}

function mistakes(problems: readonly Problem[]): string {
  const lines = problems.map(
    ({ document, line, column, path, message }) => `\n  ${document}:${line}:${column}: ${path === '' ? '' : `\`${path}\`: `}${message}`,
  )
  return `the policies have ${counted(problems.length, 'mistake')}${lines.join('')}`
}
