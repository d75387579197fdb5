/** Running tests of policies: what was expected beside what was decided. */
import type { Instant } from '../kernel/clock.ts'
import { compileFor, type CompiledPolicies } from './compile.ts'
import type { Decision } from './decision.ts'
import { decide } from './evaluate.ts'
import { explain } from './explain.ts'
import type { PolicySet } from './policy-set.ts'
import type { PolicyTestCase } from './test-file.ts'

export interface PolicyTestResult {
  readonly test: PolicyTestCase
  readonly passed: boolean
  readonly decision: Decision
  /** What was expected and found, and why it was decided so. Empty where the test passed. */
  readonly told: readonly string[]
}

/** Runs tests against a set. `at` is the moment for cases that name none. */
export function runPolicyTests(set: PolicySet, cases: readonly PolicyTestCase[], { at }: { readonly at: Instant }): PolicyTestResult[] {
  const compiled = new Map<string, CompiledPolicies>()
  return cases.map((test) => {
    const key = JSON.stringify([test.workload, test.at ?? at])
    const policies = compiled.get(key) ?? compileFor(set, test.workload, { at: test.at ?? at })
    compiled.set(key, policies)
    return judge(test, policies)
  })
}

function judge(test: PolicyTestCase, policies: CompiledPolicies): PolicyTestResult {
  const decision = decide(policies, test.request)
  const verdict = decision.allowed ? 'allowed' : 'denied'
  const { by } = test
  const byAsExpected =
    !by || decision.decidedBy.some(({ policy, rule }) => policyNamed(policy, by.policy) && (by.rule === undefined || by.rule === rule))
  const passed = verdict === test.expect && byAsExpected
  if (passed) return { test, passed, decision, told: [] }
  const expected = `expected ${test.expect}${by ? ` by \`${by.policy}\`${by.rule === undefined ? '' : ` rule ${by.rule}`}` : ''}, found ${verdict}`
  return { test, passed, decision, told: [expected, ...explain(policies, test.request, decision)] }
}

/** `orders` names `shop/orders` as well. */
const policyNamed = (policy: string, wanted: string): boolean => policy === wanted || policy.endsWith(`/${wanted}`)
