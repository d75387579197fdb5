/** Running tests of policies: what was expected beside what was decided. */
import type { Instant } from '../kernel/clock.ts'
import { compileFor, type CompiledPolicies } from './compile.ts'
import type { Decision } from './decision.ts'
import { decide } from './evaluate.ts'
import { explain, explainOnboarding, explainServerApi } from './explain.ts'
import { decideOnboarding, onboardingPolicy } from './onboarding.ts'
import type { PolicySet } from './policy-set.ts'
import { decideServerApi, serverApiPolicy } from './server-api.ts'
import type { PolicyTestCase } from './test-file.ts'

export interface PolicyTestResult {
  readonly test: PolicyTestCase
  readonly passed: boolean
  readonly decision: Decision
  /** What was expected and found, and why it was decided so. Empty where the test passed. */
  readonly told: readonly string[]
}

/** Runs tests against a set, which for our own API and for onboarding is all there is. `at` is the moment for cases that name none. */
export function runPolicyTests(set: PolicySet, cases: readonly PolicyTestCase[], { at }: { readonly at: Instant }): PolicyTestResult[] {
  const compiled = new Map<string, CompiledPolicies>()
  const own = { api: serverApiPolicy(set), onboarding: onboardingPolicy(set) }
  return cases.map((test) => {
    if (test.target === 'serverApi') {
      const decision = decideServerApi(own.api, test.request, test.at ?? at)
      return judge(test, decision, () => explainServerApi(own.api, test.request, decision))
    }
    if (test.target === 'onboarding') {
      const decision = decideOnboarding(own.onboarding, test.request, test.at ?? at)
      return judge(test, decision, () => explainOnboarding(own.onboarding, test.request, decision))
    }
    const key = JSON.stringify([test.workload, test.at ?? at])
    const policies = compiled.get(key) ?? compileFor(set, test.workload, { at: test.at ?? at })
    compiled.set(key, policies)
    const decision = decide(policies, test.request)
    return judge(test, decision, () => explain(policies, test.request, decision))
  })
}

function judge(test: PolicyTestCase, decision: Decision, why: () => readonly string[]): PolicyTestResult {
  const verdict = decision.allowed ? 'allowed' : 'denied'
  const { by } = test
  const byAsExpected =
    !by || decision.decidedBy.some(({ policy, rule }) => policyNamed(policy, by.policy) && (by.rule === undefined || by.rule === rule))
  const passed = verdict === test.expect && byAsExpected
  if (passed) return { test, passed, decision, told: [] }
  const expected = `expected ${test.expect}${by ? ` by \`${by.policy}\`${by.rule === undefined ? '' : ` rule ${by.rule}`}` : ''}, found ${verdict}`
  return { test, passed, decision, told: [expected, ...why()] }
}

/** `orders` names `shop/orders` as well. */
const policyNamed = (policy: string, wanted: string): boolean => policy === wanted || policy.endsWith(`/${wanted}`)
