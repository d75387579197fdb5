/** What a run found: rule → kept, broken, not testable from outside, not built. */
import type { Rule } from './rule.ts'

export type Verdict =
  | { readonly verdict: 'kept' }
  | { readonly verdict: 'broken'; readonly expected: string; readonly found: string }
  | { readonly verdict: 'not testable'; readonly reason: string }
  | { readonly verdict: 'not built'; readonly reason: string }

export type Outcome = Verdict & { readonly rule: Rule }

/** `broken: expected …, found …` */
export function tellVerdict(outcome: Verdict): string {
  switch (outcome.verdict) {
    case 'kept':
      return 'kept'
    case 'broken':
      return `broken: expected ${outcome.expected}, found ${outcome.found}`
    case 'not testable':
      return `not testable: ${outcome.reason}`
    case 'not built':
      return `not built: ${outcome.reason}`
  }
}

export const isConformant = (outcomes: readonly Outcome[]): boolean => !outcomes.some(({ verdict }) => verdict === 'broken')

/** A line a rule, then those that are broken once more, then the sums. */
export function textReport(outcomes: readonly Outcome[]): string {
  const width = Math.max(...outcomes.map(({ rule }) => rule.id.length))
  const line = (outcome: Outcome) => `${outcome.rule.id.padEnd(width)}  ${tellVerdict(outcome)}`
  const broken = outcomes.filter(({ verdict }) => verdict === 'broken')
  const again = broken.flatMap((outcome) => [line(outcome), `${' '.repeat(width)}  the rule (${outcome.rule.level}): ${outcome.rule.says}`])
  const hint = isDenied(outcomes) ? ['this process has no identity: with one, more rules show', ''] : []
  return [...outcomes.map(line), '', ...(again.length > 0 ? ['broken rules:', ...again, ''] : []), ...hint, sums(outcomes)].join('\n')
}

export function jsonReport(outcomes: readonly Outcome[]): object {
  return {
    ...countsOf(outcomes),
    rules: outcomes.map(({ rule: { id, level, says }, ...verdict }) => ({ rule: id, level, says, ...verdict })),
  }
}

/** JUnit XML: a suite a section, a case a rule; what was not tested is skipped, with its reason. */
export function junitReport(outcomes: readonly Outcome[]): string {
  const sections = Map.groupBy(outcomes, ({ rule }) => rule.id.slice(0, rule.id.lastIndexOf('-')))
  const suites = [...sections].map(([name, list]) => {
    const [failures, skipped] = [count(list, 'broken'), count(list, 'not testable') + count(list, 'not built')]
    return `  <testsuite name="${name}" tests="${list.length}" failures="${failures}" skipped="${skipped}">\n${list.map(testCase).join('')}  </testsuite>\n`
  })
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="spiffe conformance">\n${suites.join('')}</testsuites>\n`
}

/** Whether the API told a caller without identity so. */
function isDenied(outcomes: readonly Outcome[]): boolean {
  return outcomes.some(
    (outcome) => outcome.verdict === 'not testable' && outcome.reason.startsWith('FetchX509SVID ended with PermissionDenied'),
  )
}

function testCase(outcome: Outcome): string {
  const name = `    <testcase classname="spiffe" name="${xml(`${outcome.rule.id} ${outcome.rule.says}`)}"`
  if (outcome.verdict === 'kept') return `${name}/>\n`
  const element = outcome.verdict === 'broken' ? 'failure' : 'skipped'
  return `${name}>\n      <${element} message="${xml(tellVerdict(outcome))}"/>\n    </testcase>\n`
}

function countsOf(outcomes: readonly Outcome[]) {
  return {
    kept: count(outcomes, 'kept'),
    broken: count(outcomes, 'broken'),
    notTestable: count(outcomes, 'not testable'),
    notBuilt: count(outcomes, 'not built'),
  }
}

function sums(outcomes: readonly Outcome[]): string {
  const { kept, broken, notTestable, notBuilt } = countsOf(outcomes)
  return `${kept} kept, ${broken} broken, ${notTestable} not testable from outside, ${notBuilt} not built\n`
}

const count = (outcomes: readonly Outcome[], verdict: Verdict['verdict']): number =>
  outcomes.filter((outcome) => outcome.verdict === verdict).length

const xml = (text: string): string =>
  text.replace(/[<>&"]/g, (one) => `&#${one.charCodeAt(0)};`).replaceAll(/[^\x20-\ud7ff\ue000-\ufffd]/gu, '?')
