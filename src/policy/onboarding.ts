/** Which nodes are admitted by what they proved, said in the same language: policies with `target: onboarding`. Always deny by default, whatever the mode. */
import type { Instant } from '../kernel/clock.ts'
import { tellChain } from '../kernel/failure.ts'
import { compilePolicies, type CompiledPolicies } from './compile.ts'
import type { CompiledRule } from './compiled-rule.ts'
import type { Decision } from './decision.ts'
import { stringMatches } from './matching.ts'
import type { Clause, PolicyAction, PolicySet } from './policy-set.ts'
import type { OnboardingRequest } from './request.ts'

/** The onboarding policies of a set, ready for {@link decideOnboarding}. */
export function onboardingPolicy(set: PolicySet): CompiledPolicies {
  const policies = set.policies.filter((policy) => policy.target === 'onboarding' && !policy.dryRun)
  return compilePolicies(policies, { mode: 'strict', pathNormalization: set.pathNormalization }, -Infinity)
}

/** Decides about one node at this moment: rules that have expired by then count no more. Total: whatever goes wrong is a denial. */
export function decideOnboarding(compiled: CompiledPolicies, request: OnboardingRequest, at: Instant): Decision {
  const matches = (rule: CompiledRule) =>
    (rule.expires === undefined || at < rule.expires) &&
    rule.conditions.every((clause) => attestedClauseHolds(clause, rule.action, request))
  const decidedBy = ({ id, policy, rule, action }: CompiledRule): Decision => {
    const allowed = action === 'ALLOW'
    return { allowed, reason: allowed ? 'allowed' : 'denied', decidedBy: [{ id, policy, rule }], errors: [] }
  }
  try {
    const deciding = compiled.deny.find(matches) ?? compiled.allow.find(matches)
    if (deciding) return decidedBy(deciding)
    return { allowed: false, reason: compiled.allowSelected ? 'no-rule-matched' : 'no-policy', decidedBy: [], errors: [] }
  } catch (cause) {
    return { allowed: false, reason: 'error', decidedBy: [], errors: [tellChain(cause)] }
  }
}

/**
 * What a node proved by evidence of another type, or not at all, never satisfies an ALLOW rule, negated or not; in a DENY rule it satisfies
 * negations. Of several values one is enough.
 */
export function attestedClauseHolds(clause: Clause, action: PolicyAction, { type, selectors }: OnboardingRequest): boolean {
  if (clause.on !== 'attested') throw new Error(`bug: \`${clause.on}\` in a rule of onboarding`)
  const beginning = `${clause.selector}:`
  const values = selectors
    .filter((selector) => type === clause.type && selector.type === clause.type && selector.value.startsWith(beginning))
    .map(({ value }) => value.slice(beginning.length))
  if (values.length === 0) return clause.not && action !== 'ALLOW'
  return values.some((value) => clause.anyOf.some((match) => stringMatches(match, value))) !== clause.not
}
