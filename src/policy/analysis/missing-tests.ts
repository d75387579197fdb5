/** Tests that nobody wrote yet: requests of the covering set that exercise what a suite does not. */
import type { Instant } from '../../kernel/clock.ts'
import { compileFor, type WorkloadFacts } from '../compile.ts'
import type { Decision } from '../decision.ts'
import { decide } from '../evaluate.ts'
import type { PolicySet } from '../policy-set.ts'
import type { PolicyRequest } from '../request.ts'
import type { Unknown } from './answer.ts'
import { type AnalysisLimits, Budget, BudgetExhausted, defaultLimits } from './budget.ts'
import { coveringRequests } from './cover.ts'
import type { Coverage } from './coverage.ts'
import { destinationsOf } from './destinations.ts'

/** A request and what the set decides about it now, to be looked at by somebody. */
export interface MissingTest {
  readonly workload: WorkloadFacts
  readonly about: string
  readonly request: PolicyRequest
  readonly decision: Decision
}

/**
 * Goes through the covering requests of these workloads, then of a workload for every other class that policies select, and keeps each that
 * exercises something new; `coverage` knows it afterwards. At most `most`.
 */
export function missingTests(
  set: PolicySet,
  workloads: readonly WorkloadFacts[],
  coverage: Coverage,
  { at, most = 1000, limits = defaultLimits }: { readonly at: Instant; readonly most?: number; readonly limits?: AnalysisLimits },
): { readonly tests: readonly MissingTest[]; readonly unknown: readonly Unknown[] } {
  const tests: MissingTest[] = []
  const unknown: Unknown[] = []
  const orUnknown = <T>(what: string, find: () => readonly T[]): readonly T[] => {
    try {
      return find()
    } catch (error) {
      if (!(error instanceof BudgetExhausted)) throw error
      unknown.push({ reason: 'budget', what })
      return []
    }
  }
  const others = orUnknown('which other workloads the policies select', () => destinationsOf([set], new Budget(limits)))
  for (const workload of [...workloads, ...others.map(({ facts }) => facts)]) {
    const policies = compileFor(set, workload, { at })
    const covering = orUnknown(`requests at \`${workload.spiffeIds[0] ?? 'a workload'}\``, () => coveringRequests(policies, { limits }))
    for (const { request, about } of covering) {
      if (tests.length >= most) return { tests, unknown }
      if (coverage.note(policies, request) > 0) tests.push({ workload, about, request, decision: decide(policies, request) })
    }
  }
  return { tests, unknown }
}
