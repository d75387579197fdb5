/** Questions about policies that are answered for every request there could be. */
import { z } from 'zod'
import type { Instant } from '../../kernel/clock.ts'
import { Failure } from '../../kernel/failure.ts'
import { assumptions } from '../../policy/analysis/answer.ts'
import { diffSets, type PolicyDiff } from '../../policy/analysis/diff.ts'
import { lint, lintRules } from '../../policy/analysis/lint.ts'
import { nearestChange } from '../../policy/analysis/nearest.ts'
import { rulesOf } from '../../policy/analysis/places.ts'
import { reachChanges, type ReachDiff, reachOf } from '../../policy/analysis/reach.ts'
import { whoCan } from '../../policy/analysis/who-can.ts'
import { compileFor, type WorkloadFacts } from '../../policy/compile.ts'
import { decide } from '../../policy/evaluate.ts'
import { explain, ruleSentence } from '../../policy/explain.ts'
import type { PolicySet } from '../../policy/policy-set.ts'
import { parseSpiffeId, trustDomainOf, type SpiffeId } from '../../spiffe/id.ts'
import { selector } from '../../spiffe/selector.ts'
import { command } from '../command.ts'
import type { Context } from '../context.ts'
import { asLanguageOptions, languageFlags, parsed, positional, positive } from '../flags.ts'
import { type Shown, table } from '../output.ts'
import { parseRequestLine, parseWorkloadLine } from '../policy-lines.ts'
import {
  conclusion,
  csvOf,
  diffMarkdown,
  diffSarif,
  diffText,
  diffValue,
  hasChange,
  type Kind,
  lintText,
  nearestLines,
  openQuestions,
  sarif,
  toRequestLine,
  unknownLine,
  whoCanText,
} from '../policy-reports.ts'
import { paths, pathsArgument, policyFiles, valid } from './policy.ts'

const policyPaths = z.array(z.string().min(1)).min(1).max(1000).describe('policy files, or directories of them').meta({ value: 'path' })
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
    const at = context.clock.now()
    const diff = diffSets(before!, after!, { at, most: flags.most })
    const filtered = await replayInFilters(diff, [before!, after!], at, context)
    const kinds: readonly Kind[] =
      flags.failOn === 'any' ? ['newly-allowed', 'newly-denied'] : flags.failOn === 'nothing' ? [] : [flags.failOn]
    const fails = kinds.some((kind) => hasChange(diff, kind)) || (openQuestions(diff).length > 0 && flags.failOn !== 'nothing')
    return {
      value: { ...(diffValue(diff) as object), replayedInFilters: filtered },
      text: diffText(diff, filtered),
      markdown: diffMarkdown(diff),
      sarif: diffSarif(diff),
      ok: !fails,
    }
  },
})

/**
 * Asks a second judge about every example: the filters that a proxy would get. Returns how many they decided by themselves.
 * @throws Failure `policy.analysis-disagrees`
 */
async function replayInFilters(
  diff: PolicyDiff,
  sets: readonly PolicySet[],
  at: Instant,
  { proxies }: Pick<Context, 'proxies'>,
): Promise<number> {
  let replayed = 0
  for (const { destination, newlyAllowed, newlyDenied } of diff.destinations) {
    const [id] = destination.facts.spiffeIds
    if (id === undefined) continue
    const compiled = sets.map((set) => compileFor(set, destination.facts, { at }))
    for (const { request, before, after } of [...newlyAllowed, ...newlyDenied].map(({ witness }) => witness)) {
      const verdicts = await Promise.all(compiled.map((policies) => proxies.allows(policies, request, trustDomainOf(id))))
      if (verdicts.includes(undefined)) continue
      if (verdicts[0] !== before.allowed || verdicts[1] !== after.allowed) {
        throw new Failure('internal', 'policy.analysis-disagrees', {
          public: 'the filters of a proxy and the evaluator disagree about a request: neither is to be trusted with these policies',
          internal: { request },
        })
      }
      replayed++
    }
  }
  return replayed
}

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
async function setsOf(
  paths: readonly (string | readonly string[])[],
  flags: LanguageFlags,
  { disk }: Pick<Context, 'disk'>,
): Promise<PolicySet[]> {
  const options = asLanguageOptions(flags)
  return Promise.all(paths.map(async (path) => valid(await policyFiles(disk, typeof path === 'string' ? [path] : path), options)))
}

const workloadFlags = {
  identity: parsed(parseSpiffeId).optional().describe('the SPIFFE ID of the workload').meta({ value: 'spiffe-id' }),
  namespace: z.string().optional().describe('its attested namespace; by default the one in its SPIFFE ID').meta({ value: 'name' }),
  label: z.array(z.string()).default([]).describe('an attested label, as often as needed').meta({ value: 'key=value' }),
}
const identitiesFlag = {
  identities: z.string().optional().describe('a file of SPIFFE IDs that exist, one a line').meta({ value: 'path' }),
}

export const policyWhoCan = command({
  name: 'policy who-can',
  summary: 'say who can make a request at a workload: never, always, or under which conditions',
  flags: z.strictObject({
    method: positional(z.string().min(1).max(100)),
    destination: positional(parsed(parseSpiffeId)),
    path: positional(z.string().min(1).max(8192)),
    policies: policyPaths,
    namespace: workloadFlags.namespace,
    label: workloadFlags.label,
    host: z.string().optional().describe('the host that is asked for; by default any').meta({ value: 'host' }),
    port: parsed(readPort).optional().describe('the port that is asked for; by default any').meta({ value: 'number' }),
    ...identitiesFlag,
    ...languageFlags,
  }),
  positional: [
    { name: 'method', help: 'the method, GET for example' },
    { name: 'destination', help: 'the SPIFFE ID of the workload' },
    { name: 'path', help: 'the path as a client sends it' },
  ],
  examples: ['vidimus policy who-can GET spiffe://example.org/payments /charges --policies policies/'],
  async run(flags, context) {
    const [set] = await setsOf([flags.policies], flags, context)
    const facts = factsOf({ ...flags, identity: flags.destination })
    const identities = await identitiesIn(flags.identities, context)
    const answer = whoCan(compileFor(set!, facts, { at: context.clock.now() }), {
      method: flags.method,
      path: flags.path,
      ...(flags.host === undefined ? {} : { host: flags.host }),
      ...(flags.port === undefined ? {} : { port: flags.port }),
      identities,
    })
    const value = {
      ...answer,
      callers: answer.callers.map((one) => ({ ...one, witness: toRequestLine(facts, one.witness) })),
      assumptions: assumptions(set!.mode),
    }
    return { value, text: whoCanText(answer, set!.mode), ok: answer.unknown.length === 0 }
  },
})

export const policyReach = command({
  name: 'policy reach',
  summary: 'print which sources reach which workloads: not at all, somehow, or whatever they ask',
  flags: z.strictObject({
    paths,
    diff: z
      .string()
      .min(1)
      .optional()
      .describe('policies of before: print only where the matrix is another, and what of it')
      .meta({ value: 'path' }),
    ...identitiesFlag,
    ...languageFlags,
  }),
  positional: pathsArgument,
  forms: ['csv'],
  examples: [
    'vidimus policy reach policies/',
    'vidimus policy reach policies/ --identities live.txt --output csv',
    'vidimus policy reach --diff policies-in-force/ policies/',
  ],
  async run(flags, context) {
    const [set] = await setsOf([flags.paths], flags, context)
    const identities = flags.identities === undefined ? undefined : await identitiesIn(flags.identities, context)
    if (flags.diff !== undefined) {
      const [before] = await setsOf([flags.diff], flags, context)
      return shownReachDiff(reachChanges(before!, set!, { at: context.clock.now(), ...(identities && { identities }) }))
    }
    const reach = reachOf(set!, { at: context.clock.now(), ...(identities && { identities }) })
    const open = reach.unknown.map(unknownLine)
    const rows = reach.cells.map(({ source, destination, reach: how, summary }) => [source, destination, how, summary])
    return {
      value: reach,
      text: [table(['SOURCE', 'DESTINATION', 'REACH', 'WHAT'], rows), ...open].join('\n'),
      csv: csvOf([['source', 'destination', 'reach', 'what'], ...rows]),
      ok: reach.unknown.length === 0,
    }
  },
})

function shownReachDiff(diff: ReachDiff): Shown {
  const rows = diff.changes.map(({ source, destination, before, after, gained, lost }) => [
    source,
    destination,
    before,
    after,
    gained,
    lost,
  ])
  const matrix =
    rows.length > 0
      ? table(['SOURCE', 'DESTINATION', 'BEFORE', 'AFTER', 'GAINED', 'LOST'], rows)
      : diff.unknown.length === 0
        ? 'every source reaches what it reached before, and nothing else'
        : 'no change was found'
  return {
    value: diff,
    text: [matrix, ...diff.unknown.map(unknownLine)].join('\n'),
    csv: csvOf([['source', 'destination', 'before', 'after', 'gained', 'lost'], ...rows]),
    ok: diff.unknown.length === 0,
  }
}

export const policyExplain = command({
  name: 'policy explain',
  summary: 'say why a request is decided as it is, and what would have to be different',
  flags: z.strictObject({
    request: positional(z.string().min(1).optional()),
    policies: policyPaths,
    ...languageFlags,
  }),
  positional: [{ name: 'request', help: 'one JSON request as for `policy eval`; by default standard input', optional: true }],
  examples: [
    `vidimus policy explain --policies policies/ '{"workload":{"identities":["spiffe://example.org/orders"]},"peer":{"principal":"example.org/web"},"method":"PUT","host":"orders","path":"/orders"}'`,
  ],
  async run(flags, context) {
    const [set] = await setsOf([flags.policies], flags, context)
    const line = flags.request ?? (await context.disk.read('-'))
    const { workload, request, at } = parseRequestLine(line.trim())
    const policies = compileFor(set!, workload, { at: at ?? context.clock.now() })
    const decision = decide(policies, request)
    const told = explain(policies, request, decision)
    const rules = rulesOf(policies).filter(({ id }) => decision.decidedBy.some((one) => one.id === id))
    const sentences = rules.map((rule) => `rule ${rule.rule} of \`${rule.policy}\` ${ruleSentence(rule)}`)
    const nearest = nearestChange(policies, request)
    return {
      value: {
        decision,
        told,
        sentences,
        nearest: typeof nearest === 'string' ? nearest : { ...nearest, request: toRequestLine(workload, nearest.request) },
      },
      text: [...told, ...sentences, ...nearestLines(nearest, decision.allowed)].join('\n'),
      ok: decision.allowed,
    }
  },
})

export const policyLint = command({
  name: 'policy lint',
  summary: 'name what is suspicious about policies: dead, shadowed and redundant rules, and what they let through unseen',
  flags: z.strictObject({
    paths,
    failOn: z
      .enum(['error', 'warning', 'note', 'nothing'])
      .default('warning')
      .describe('the least finding that makes the command exit with 1'),
    trustDomain: z
      .array(z.string())
      .optional()
      .describe('a trust domain whose peers there are, as often as needed')
      .meta({ value: 'name' }),
    workloads: z
      .string()
      .optional()
      .describe('a file of workloads that exist, one a line, as `workload` in the requests of `policy eval`')
      .meta({ value: 'path' }),
    ...identitiesFlag,
    ...languageFlags,
  }),
  positional: pathsArgument,
  forms: ['sarif'],
  examples: ['vidimus policy lint policies/ --trust-domain example.org', 'vidimus policy lint policies/ --compat istio --output sarif'],
  async run(flags, context) {
    const [set] = await setsOf([flags.paths], flags, context)
    const identities = flags.identities === undefined ? undefined : await identitiesIn(flags.identities, context)
    const { findings, unknown } = lint(set!, {
      at: context.clock.now(),
      ...(identities && { identities }),
      ...(flags.workloads !== undefined && { workloads: await workloadsIn(flags.workloads, context) }),
      ...(flags.trustDomain && { trustDomains: flags.trustDomain }),
    })
    const levels = ['error', 'warning', 'note', 'nothing'] as const
    const isBad = findings.some(({ level }) => levels.indexOf(level) <= levels.indexOf(flags.failOn) && flags.failOn !== 'nothing')
    return {
      value: { findings, unknown },
      text: lintText(findings, unknown),
      sarif: sarif(
        findings.map(({ rule, level, sentence, fix, place }) => ({
          rule,
          level,
          text: `${sentence}: ${fix}`,
          places: place ? [place] : [],
        })),
        lintRules,
      ),
      ok: !isBad && (unknown.length === 0 || flags.failOn === 'nothing'),
    }
  },
})

function factsOf({
  identity,
  namespace,
  label,
}: {
  identity?: SpiffeId | undefined
  namespace?: string | undefined
  label: readonly string[]
}): WorkloadFacts {
  return {
    spiffeIds: identity === undefined ? [] : [identity],
    selectors: [
      ...(namespace === undefined ? [] : [selector('k8s', `ns:${namespace}`)]),
      ...label.map((one) => selector('k8s', `pod-label:${one.replace('=', ':')}`)),
    ],
  }
}

/** SPIFFE IDs, one a line; empty lines and those that begin with `#` are passed over. @throws Failure `spiffe-id.*` */
async function identitiesIn(path: string | undefined, { disk }: Pick<Context, 'disk'>): Promise<SpiffeId[]> {
  if (path === undefined) return []
  const lines = (await disk.read(path)).split('\n').map((line) => line.trim())
  return lines.filter((line) => line !== '' && !line.startsWith('#')).map(parseSpiffeId)
}

/** Workloads as JSON, one a line; empty lines are passed over. @throws Failure `usage.request` with the number of the line */
async function workloadsIn(path: string, { disk }: Pick<Context, 'disk'>) {
  const lines = (await disk.read(path)).split('\n')
  return lines.flatMap((line, index) => {
    if (line.trim() === '') return []
    try {
      return [parseWorkloadLine(line)]
    } catch (error) {
      const { message } = Failure.from(error)
      throw new Failure('invalid_argument', 'usage.request', { public: `${path}:${index + 1}: ${message}` })
    }
  })
}

function readPort(text: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) <= 65_535) return Number(text)
  throw new Failure('invalid_argument', 'usage.wrong', { public: `expected a port from 0 to 65535, found \`${text.slice(0, 80)}\`` })
}
