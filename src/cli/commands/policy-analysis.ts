/** Questions about policies that are answered for every request there could be. */
import { z } from 'zod'
import { diffSets } from '../../policy/analysis/diff.ts'
import type { PolicySet } from '../../policy/policy-set.ts'
import { command } from '../command.ts'
import type { Context } from '../context.ts'
import { asLanguageOptions, languageFlags, positional, positive } from '../flags.ts'
import { conclusion, diffMarkdown, diffSarif, diffText, diffValue, hasChange, type Kind, openQuestions } from '../policy-reports.ts'
import { policyFiles, valid } from './policy.ts'

const oneSet = positional(z.string().min(1))
const twoSets = [
  { name: 'old', help: 'a policy file, or a directory of them' },
  { name: 'new', help: 'the same for what it is compared with' },
]

type LanguageFlags = Parameters<typeof asLanguageOptions>[0]

export const policyDiff = command({
  name: 'policy diff',
  summary: 'say who can do what under new policies that they could not before, and the other way round',
  flags: z.strictObject({
    old: oneSet,
    new: oneSet,
    failOn: z
      .enum(['newly-allowed', 'newly-denied', 'any', 'nothing'])
      .default('any')
      .describe('what makes the command exit with 1; what is unknown always does, but for `nothing`'),
    most: positive.prefault('20').describe('regions that are listed of each kind and workload').meta({ value: 'count' }),
    ...languageFlags,
  }),
  positional: twoSets,
  forms: ['markdown', 'sarif'],
  examples: [
    'vidimus policy diff policies-in-force/ policies/',
    'vidimus policy diff main/policies policies --fail-on newly-allowed --output markdown',
  ],
  async run(flags, context) {
    const [before, after] = await setsOf([flags.old, flags.new], flags, context)
    const diff = diffSets(before!, after!, { at: context.clock.now(), most: flags.most })
    const kinds: readonly Kind[] =
      flags.failOn === 'any' ? ['newly-allowed', 'newly-denied'] : flags.failOn === 'nothing' ? [] : [flags.failOn]
    const fails = kinds.some((kind) => hasChange(diff, kind)) || (openQuestions(diff).length > 0 && flags.failOn !== 'nothing')
    return { value: diffValue(diff), text: diffText(diff), markdown: diffMarkdown(diff), sarif: diffSarif(diff), ok: !fails }
  },
})

export const policyEquivalent = command({
  name: 'policy equivalent',
  summary: 'prove that two sets of policies decide every request alike, or show one that they do not',
  flags: z.strictObject({ old: oneSet, new: oneSet, ...languageFlags }),
  positional: twoSets,
  examples: ['vidimus policy equivalent policies/ policies-rewritten/'],
  async run(flags, context) {
    const [before, after] = await setsOf([flags.old, flags.new], flags, context)
    const diff = diffSets(before!, after!, { at: context.clock.now(), most: 1 })
    const answers = { same: 'proved', different: 'witness', unknown: 'unknown' } as const
    const text =
      diff.answer === 'same'
        ? `equivalent: ${conclusion(diff)}`
        : diff.answer === 'different'
          ? `not equivalent:\n\n${diffText(diff)}`
          : `unknown whether equivalent:\n\n${diffText(diff)}`
    return { value: { ...(diffValue(diff) as object), answer: answers[diff.answer] }, text, ok: diff.answer === 'same' }
  },
})

/** Sets that are read alike. @throws Failure `policy.invalid` */
async function setsOf(paths: readonly string[], flags: LanguageFlags, { disk }: Pick<Context, 'disk'>): Promise<PolicySet[]> {
  const options = asLanguageOptions(flags)
  return Promise.all(paths.map(async (path) => valid(await policyFiles(disk, [path]), options)))
}
