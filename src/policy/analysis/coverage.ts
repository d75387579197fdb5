/** What a suite of tests exercised: for every value that rules compare whether some request had it and some other had not. */
import { celHolds, type CelTest } from '../cel.ts'
import { compilePolicies, type CompiledPolicies } from '../compile.ts'
import type { CompiledRule } from '../compiled-rule.ts'
import { celFactsOf, clauseHolds, ruleMatches, see, type SeenRequest } from '../evaluate.ts'
import { formatMatch } from '../explain.ts'
import type { Clause, Place, PolicySet } from '../policy-set.ts'
import type { PolicyRequest } from '../request.ts'
import { rulesOf, statementsOf } from './places.ts'

/** Something that no request of the suite was. */
export interface Unexercised {
  readonly policy: string
  readonly rule: number
  readonly place: Place
  /** ``paths `/orders` ``, or `the rule`. */
  readonly atom: string
  /** What no request did: have the value, or have another. */
  readonly never: readonly ('true' | 'false')[]
}

export interface CoverageReport {
  /** Atoms times two, and a match of each rule. */
  readonly outcomes: number
  readonly exercised: number
  /** Of 100, cut to one decimal: 100 means all of them. A set without rules is covered. */
  readonly percent: number
  readonly unexercised: readonly Unexercised[]
}

/** Counts outcomes as requests come. Rules of workloads alone; what is on dry run decides nothing and is not counted. */
export class Coverage {
  readonly #atoms = new Map<string, Atom & { readonly seen: Set<boolean> }>()

  constructor(set: PolicySet) {
    const policies = set.policies.filter(({ target, dryRun }) => target === 'workload' && !dryRun)
    for (const rule of rulesOf(compilePolicies(policies, set, -Infinity)))
      for (const atom of atomsOf(rule)) this.#atoms.set(atom.key, { ...atom, seen: new Set() })
  }

  /** Takes a request into account, at the workload that the policies were compiled for. Says how many outcomes are new. */
  note(policies: CompiledPolicies, request: PolicyRequest): number {
    const seen = see(policies, request)
    // No rule is read then.
    if (seen.malformed !== undefined) return 0
    let news = 0
    for (const rule of rulesOf(policies)) {
      for (const { key, outcomes, holds } of atomsOf(rule)) {
        const known = this.#atoms.get(key)?.seen
        const outcome = holds(seen)
        if (!known || known.has(outcome) || !outcomes.includes(outcome)) continue
        known.add(outcome)
        news++
      }
    }
    return news
  }

  report(): CoverageReport {
    const atoms = [...this.#atoms.values()]
    const outcomes = atoms.reduce((sum, atom) => sum + atom.outcomes.length, 0)
    const exercised = atoms.reduce((sum, { seen }) => sum + seen.size, 0)
    return {
      outcomes,
      exercised,
      percent: outcomes === 0 ? 100 : Math.floor((exercised / outcomes) * 1000) / 10,
      unexercised: atoms.flatMap(({ outcomes: possible, seen, policy, rule, place, atom }) => {
        const never = possible.filter((outcome) => !seen.has(outcome)).map((outcome) => (outcome ? 'true' : 'false'))
        return never.length === 0 ? [] : [{ policy, rule, place, atom, never }]
      }),
    }
  }
}

interface Atom extends Omit<Unexercised, 'never'> {
  readonly key: string
  readonly outcomes: readonly boolean[]
  holds(seen: SeenRequest): boolean
}

/** The rule as a whole, every value of its clauses, and every comparison of its condition, each on its own and without negation. */
function atomsOf(rule: CompiledRule): Atom[] {
  const known = atomsByRule.get(rule)
  if (known) return known
  const { clauses, tests } = statementsOf(rule)
  const values = [
    ...clauses.flatMap((clause, index) =>
      clause.anyOf.map((match) => ({
        atom: `${fieldOf(clause)} \`${formatMatch(match)}\``,
        statement: index,
        place: clause.place,
        holds: clauseOf(clause, match),
      })),
    ),
    ...tests.flatMap(comparisonsOf).map((test, index) => ({
      atom: `condition ${celWords(test)}`,
      statement: clauses.length + index,
      place: rule.place,
      holds: (seen: SeenRequest) => celHolds({ ...test, not: false }, celFactsOf(seen), false),
    })),
  ]
  const about = { policy: rule.policy, rule: rule.rule }
  const atoms = [
    {
      ...about,
      key: rule.id,
      atom: 'the rule',
      place: rule.place,
      outcomes: [true],
      holds: (seen: SeenRequest) => ruleMatches(rule, seen),
    },
    ...values.map(({ statement, ...value }) => ({
      ...about,
      ...value,
      key: `${rule.id} ${statement} ${value.atom}`,
      outcomes: [true, false],
    })),
  ]
  atomsByRule.set(rule, atoms)
  return atoms
}

/** A suite asks the same rules again and again. */
const atomsByRule = new WeakMap<CompiledRule, Atom[]>()

/** Whatever is not known is not the value: as an ALLOW rule, without negation, sees it. */
function clauseOf(clause: Clause, match: Clause['anyOf'][number]): Atom['holds'] {
  // One value of the clause is a clause of its kind.
  const single = { ...clause, not: false, anyOf: [match] } as Clause
  return (seen) => clauseHolds(single, 'ALLOW', seen)
}

const fieldOf = ({ field }: Clause): string => field.replace(/(?: values| notValues)$/, '')

function comparisonsOf(test: CelTest): CelTest[] {
  const { comparison } = test
  return comparison.is === 'one-of'
    ? comparison.values.map((value) => ({ ...test, comparison: { is: 'one-of', values: [value] } }))
    : [test]
}

function celWords({ attribute, comparison }: CelTest): string {
  const name = attribute.on === 'request.headers' ? `request.headers[${attribute.name}]` : attribute.on
  switch (comparison.is) {
    case 'one-of':
      return `${name} \`${comparison.values.join()}\``
    case 'prefix':
    case 'suffix':
    case 'contains':
    case 'matches':
      return `${name} ${comparison.is} \`${comparison.value}\``
    case 'between':
      return `${name} from ${comparison.from} to ${comparison.to}`
    case 'present':
    case 'true':
      return name
    default:
      throw new Error(`bug: comparison ${JSON.stringify(comparison satisfies never)}`)
  }
}
