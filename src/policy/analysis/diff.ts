/** Who can do what after a change that they could not before: for every class of workloads (authorization.md 5.3). */
import type { Instant } from '../../kernel/clock.ts'
import { compileFor } from '../compile.ts'
import type { PolicySet } from '../policy-set.ts'
import { assumptions, type Unknown } from './answer.ts'
import { Budget, BudgetExhausted } from './budget.ts'
import { type Destination, destinationsOf } from './destinations.ts'
import { type Difference, differenceOf, type DifferenceOptions } from './difference.ts'
import { compareTargets, targetAssumptions, type TargetDifference } from './own-targets.ts'

export interface PolicyDiff {
  /** `same` is proved; `different` has a replayed witness; `unknown` is neither. */
  readonly answer: 'same' | 'different' | 'unknown'
  /** The classes of workloads at which something changes, or may. */
  readonly destinations: readonly (Difference & { readonly destination: Destination })[]
  /** Our own API and onboarding, as far as either set is about them. */
  readonly targets: readonly TargetDifference[]
  /** What is open about the whole comparison. */
  readonly unknown: readonly Unknown[]
  /** Classes of workloads that were compared. */
  readonly compared: number
  readonly assumptions: readonly string[]
}

export interface DiffOptions extends DifferenceOptions {
  /** Policies expire: the moment that both sets are looked at. */
  readonly at: Instant
  /** Only at these workloads. */
  readonly destinations?: readonly Destination[]
}

/** Compares two sets. */
export function diffSets(before: PolicySet, after: PolicySet, { at, destinations, ...options }: DiffOptions): PolicyDiff {
  const unknown: Unknown[] = []
  const targets = compareTargets(before, after, { at, most: options.most ?? 20, limits: options.limits })
  let places: readonly Destination[]
  try {
    places = destinations ?? destinationsOf([before, after], new Budget(options.limits))
  } catch (error) {
    if (!(error instanceof BudgetExhausted)) throw error
    places = []
    unknown.push({ reason: 'budget', what: 'all workloads: there are too many kinds of them' })
  }
  const differences = places.flatMap((destination) => {
    const [was, is] = [before, after].map((set) => compileFor(set, destination.facts, { at }))
    const difference = differenceOf(was!, is!, options)
    const isEmpty = [difference.newlyAllowed, difference.newlyDenied, difference.unknown].every((list) => list.length === 0)
    return isEmpty ? [] : [{ destination, ...difference }]
  })
  const all = [...differences, ...targets]
  const regions = all.flatMap(({ newlyAllowed, newlyDenied }) => [...newlyAllowed, ...newlyDenied])
  const isOpen = unknown.length > 0 || all.some((one) => one.unknown.length > 0) || regions.length > 0
  return {
    answer: regions.some(({ dependsOn }) => dependsOn.length === 0) ? 'different' : isOpen ? 'unknown' : 'same',
    destinations: differences,
    targets,
    unknown,
    compared: places.length,
    assumptions: [...assumptions(before.mode), ...(targets.length > 0 ? targetAssumptions : [])],
  }
}
