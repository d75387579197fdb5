/** Who may call which method of our own API, said in the same language: policies with `target: serverApi`. Always deny by default, whatever the mode. */
import type { Instant } from '../kernel/clock.ts'
import { tellChain } from '../kernel/failure.ts'
import { compilePolicies, idMatches, type CompiledPolicies } from './compile.ts'
import type { CompiledRule } from './compiled-rule.ts'
import type { Decision } from './decision.ts'
import { stringMatches, templateMatches, type PathMatch } from './matching.ts'
import type { Clause, DurationMatch, PolicyAction, PolicySet } from './policy-set.ts'
import type { ServerApiCaller, ServerApiRequest } from './request.ts'

/** The server API's policies of a set, ready for {@link decideServerApi}. */
export function serverApiPolicy(set: PolicySet): CompiledPolicies {
  const policies = set.policies.filter((policy) => policy.target === 'serverApi' && !policy.dryRun)
  return compilePolicies(policies, { mode: 'strict', pathNormalization: set.pathNormalization }, -Infinity)
}

/** Decides one call at this moment: rules that have expired by then count no more. Total: whatever goes wrong is a denial. */
export function decideServerApi(compiled: CompiledPolicies, request: ServerApiRequest, at: Instant): Decision {
  const matches = (rule: CompiledRule) => (rule.expires === undefined || at < rule.expires) && serverApiRuleMatches(rule, request)
  try {
    const denying = compiled.deny.find(matches)
    if (denying) return decidedBy(denying)
    const allowing = compiled.allow.find(matches)
    if (allowing) return decidedBy(allowing)
    return { allowed: false, reason: compiled.allowSelected ? 'no-rule-matched' : 'no-policy', decidedBy: [], errors: [] }
  } catch (cause) {
    return { allowed: false, reason: 'error', decidedBy: [], errors: [tellChain(cause)] }
  }
}

/** True if a rule matches a call. */
function serverApiRuleMatches(rule: CompiledRule, request: ServerApiRequest): boolean {
  const holds = (clause: Clause) => serverApiClauseHolds(clause, rule.action, request)
  if (rule.sources !== 'any' && !rule.sources.some((source) => source.every(holds))) return false
  if (rule.operations !== 'any' && !rule.operations.some((operation) => operation.every(holds))) return false
  return rule.conditions.every(holds)
}

/** True if one clause holds. An attribute that the call does not have, or that is not known, fails in an ALLOW rule and holds in a DENY rule. */
export function serverApiClauseHolds(clause: Clause, action: PolicyAction, { caller, method, attributes }: ServerApiRequest): boolean {
  switch (clause.on) {
    case 'caller':
      return clause.anyOf.some((one) => one === 'anyone' || calledBy(caller, one)) !== clause.not
    case 'path':
      return clause.anyOf.some((match) => methodMatches(match, method)) !== clause.not
    case 'entry.spiffeId':
    case 'entry.parentId':
    case 'agent.id': {
      const id = attributes[clause.on]
      return id === undefined ? action === 'DENY' : clause.anyOf.some((match) => idMatches(match, id)) !== clause.not
    }
    case 'entry.admin':
    case 'entry.downstream':
    case 'trustDomain': {
      const value = attributes[clause.on]
      return value === undefined ? action === 'DENY' : clause.anyOf.includes(String(value)) !== clause.not
    }
    case 'entry.x509Ttl': {
      const ttl = attributes['entry.x509Ttl']
      return ttl === undefined ? action === 'DENY' : clause.anyOf.some((match) => durationMatches(match, ttl)) !== clause.not
    }
    case 'peer':
    case 'source.ip':
    case 'remote.ip':
    case 'destination.ip':
    case 'destination.port':
    case 'connection.sni':
    case 'method':
    case 'host':
    case 'header':
    case 'request.auth.principal':
    case 'claim':
    case 'filter-metadata':
    case 'attested':
      throw new Error(`bug: \`${clause.on}\` in a rule of the server API`)
    default:
      throw new Error(`bug: clause ${JSON.stringify(clause satisfies never)}`)
  }
}

function calledBy(caller: ServerApiRequest['caller'], wanted: ServerApiCaller): boolean {
  return typeof caller === 'string' ? caller === wanted : caller.includes(wanted)
}

/** gRPC paths are not normalised: a server looks them up as they are. */
function methodMatches(match: PathMatch, method: string): boolean {
  return match.kind === 'template' ? templateMatches(match, method) : stringMatches(match, method)
}

function durationMatches({ comparison, duration }: DurationMatch, value: number): boolean {
  switch (comparison) {
    case 'equal':
      return value === duration
    case 'at-most':
      return value <= duration
    case 'at-least':
      return value >= duration
    default:
      throw new Error(`bug: comparison ${String(comparison satisfies never)}`)
  }
}

function decidedBy(rule: CompiledRule): Decision {
  const allowed = rule.action === 'ALLOW'
  return { allowed, reason: allowed ? 'allowed' : 'denied', decidedBy: [{ id: rule.id, policy: rule.policy, rule: rule.rule }], errors: [] }
}
