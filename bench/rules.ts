/** Policies of any size for one workload, and calls whose verdicts follow from how they were made. */
import type { PolicyDocument } from '../src/policy/policy-set.ts'

export interface MadeCall {
  readonly peer: string
  readonly method: string
  readonly path: string
  readonly allowed: boolean
}

/**
 * `count` rules, ten a policy, each for a caller and an area of its own; callers and areas are shared by many rules.
 * Every tenth policy is a DENY, for methods that no call here uses.
 */
export function makePolicies(workload: string, count: number): PolicyDocument[] {
  const policies: string[] = []
  for (let first = 0; first < count; first += rulesPerPolicy) {
    const index = first / rulesPerPolicy
    const rules = Array.from({ length: Math.min(rulesPerPolicy, count - first) }, (_, offset) => ruleText(first + offset))
    policies.push(
      `apiVersion: vidimus.dev/v1\nkind: AuthorizationPolicy\nmetadata: { name: bench-${index} }\n` +
        `spec:\n  identities: ['${workload}']\n  action: ${isDeny(index) ? 'DENY' : 'ALLOW'}\n  rules:\n${rules.join('')}`,
    )
  }
  return Array.from({ length: Math.ceil(policies.length / policiesPerDocument) }, (_, index) => ({
    name: `bench-${index}.yaml`,
    text: policies.slice(index * policiesPerDocument, (index + 1) * policiesPerDocument).join('---\n'),
  }))
}

/** Calls that meet rules spread over all of them; every fourth asks for what no rule allows. */
export function makeCalls(rules: number, count = 1024): MadeCall[] {
  const allowing = Array.from({ length: rules }, (_, rule) => rule).filter((rule) => !isDeny(Math.floor(rule / rulesPerPolicy)))
  return Array.from({ length: count }, (_, index) => {
    const rule = allowing[(index * stride) % allowing.length]!
    const allowed = index % 4 !== 3
    return { peer: callerOf(rule), method: allowed ? 'GET' : 'DELETE', path: `/area-${rule % areas}/items/${index}`, allowed }
  })
}

export interface MadeRule {
  readonly deny: boolean
  readonly caller: string
  readonly methods: readonly string[]
  readonly area: number
}

/** The rules of {@link makePolicies}, for who writes them in another language. */
export const makeRules = (count: number): MadeRule[] => Array.from({ length: count }, (_, rule) => ruleOf(rule))

function ruleOf(rule: number): MadeRule {
  const deny = isDeny(Math.floor(rule / rulesPerPolicy))
  return {
    deny,
    caller: callerOf(rule),
    methods: deny ? ['CONNECT', 'TRACE'] : rule % 2 === 0 ? ['GET'] : ['GET', 'POST'],
    area: rule % areas,
  }
}

function ruleText(rule: number): string {
  const { caller, methods, area } = ruleOf(rule)
  return `    - from: [{ source: { spiffeIds: ['${caller}'] } }]\n      to: [{ operation: { methods: [${methods.join(', ')}], paths: ['/area-${area}/items/{*}'] } }]\n`
}

const callerOf = (rule: number): string => `spiffe://bench.test/ns/shop/sa/caller-${rule % callers}`
/** The first policy allows, however few there are. */
const isDeny = (policy: number): boolean => policy % 10 === 9
const rulesPerPolicy = 10
const policiesPerDocument = 20
/** Primes, so that no two rules have both in common. */
const callers = 97
const areas = 107
const stride = 7919
