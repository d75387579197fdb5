/** Policies that concern one workload, as rules in normal form: what the evaluator, the proxy's RBAC and every analysis start from. */
import { createHash } from 'node:crypto'
import type { Instant } from '../kernel/clock.ts'
import { pathOf, trustDomainOf, type SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import { aliasesIn } from './aliases.ts'
import type { CelTest, CelTree } from './cel.ts'
import type { CompiledRule } from './compiled-rule.ts'
import type { PathNormalization } from './normalize.ts'
import { templateMatches } from './matching.ts'
import { effectiveMtls, type EffectiveMtls, permissive } from './mtls.ts'
import type { Clause, IdMatch, JwtRule, Policy, PolicyAction, PolicyMode, PolicySet, Rule, Selection } from './policy-set.ts'
import { indexRules, type RuleIndex } from './rule-index.ts'

/** What is known about a workload by attestation; nothing it said itself. */
export interface WorkloadFacts {
  readonly spiffeIds: readonly SpiffeId[]
  readonly selectors: readonly Selector[]
}

/** Every policy that selects a workload, ready to decide. */
export interface CompiledPolicies {
  readonly mode: PolicyMode
  readonly pathNormalization: PathNormalization
  /** Connections that are refused for want of mTLS, before anything else. */
  readonly mtls: EffectiveMtls
  /** Which end-user tokens are taken. Where there are any, a token that none takes is refused. */
  readonly tokens: readonly JwtRule[]
  /** For each of these that matches its provider is asked, and may refuse. */
  readonly custom: readonly CompiledRule[]
  /** These mark requests, and decide nothing. */
  readonly audit: readonly CompiledRule[]
  /** Any of these that matches refuses. In the order in which a proxy tries them: by id. */
  readonly deny: readonly CompiledRule[]
  /** Then any of these that matches allows. */
  readonly allow: readonly CompiledRule[]
  /** True if an ALLOW policy applies here, also one without rules or one that has expired. In istio mode its absence opens the workload. */
  readonly allowSelected: boolean
  /** Ids for the ALLOW policies that have no rules at all: they match nothing, and that is what a proxy is told. */
  readonly withoutRules: readonly string[]
  /** Strict mode: methods that a request may have at all; any other is refused before the rules are read. */
  readonly knownMethods: readonly string[]
  /** True if a rule compares paths. In strict mode a path that is not canonical is then refused before the rules are read. */
  readonly comparesPaths: boolean
  /** When the next policy expires and this must be compiled again. */
  readonly validUntil?: Instant
  /** SHA-256 in hex of what was compiled: the same for texts that mean the same rules. */
  readonly fingerprint: string
  /** How the evaluator finds its rules; says nothing that `deny` and `allow` do not say. */
  readonly index: { readonly deny: RuleIndex; readonly allow: RuleIndex }
  /** What would be in force if the policies on dry run were enforced as well. Absent where there are none. */
  readonly candidate?: CompiledPolicies
}

/** The policies of a set that select this workload at this moment. */
export function compileFor(set: PolicySet, facts: WorkloadFacts, { at }: { readonly at: Instant }): CompiledPolicies {
  const aliases = aliasesIn(set, facts.spiffeIds[0] && trustDomainOf(facts.spiffeIds[0]))
  const selected = set.policies
    .filter((policy) => policy.target === 'workload' && selects(policy.selection, facts))
    .map((policy) => ({ ...policy, rules: policy.rules.map(aliases) }))
  const around = {
    mtls: effectiveMtls(set, (selection) => selects(selection, facts)),
    tokens: set.requestAuthentications.flatMap(({ selection, jwtRules }) => (selects(selection, facts) ? jwtRules : [])),
  }
  const enforced = compilePolicies(
    selected.filter(({ dryRun }) => !dryRun),
    set,
    at,
    around,
  )
  if (selected.every(({ dryRun }) => !dryRun)) return enforced
  return Object.freeze({ ...enforced, candidate: compilePolicies(selected, set, at, around) })
}

/** Policies that were selected already. Expired ones give no rules, but an expired ALLOW policy opens nothing by its absence. */
export function compilePolicies(
  policies: readonly Policy[],
  set: Pick<PolicySet, 'mode' | 'pathNormalization'>,
  at: Instant,
  around: Pick<CompiledPolicies, 'mtls' | 'tokens'> = { mtls: permissive, tokens: [] },
): CompiledPolicies {
  const alive = policies.filter((policy) => policy.expires === undefined || at < policy.expires)
  const rules = alive.flatMap(compileRules).sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))
  const of = (action: PolicyAction) => rules.filter((rule) => rule.action === action)
  const [custom, audit, deny, allow] = [of('CUSTOM'), of('AUDIT'), of('DENY'), of('ALLOW')]
  const allowSelected = policies.some((policy) => policy.action === 'ALLOW')
  const validUntil = Math.min(...alive.map((policy) => policy.expires ?? Infinity))
  const { mode, pathNormalization } = set
  return Object.freeze({
    mode,
    pathNormalization,
    ...around,
    custom,
    audit,
    deny,
    allow,
    allowSelected,
    withoutRules: policies.filter(({ action, rules: own }) => action === 'ALLOW' && own.length === 0).map((policy) => idOf(policy, 0)),
    knownMethods: [...new Set([...registeredMethods, ...methodsNamedIn(rules)])],
    comparesPaths:
      operationClauses(rules).some((clause) => clause.on === 'path') ||
      celTests(rules).some(({ attribute }) => attribute.on === 'request.url_path'),
    ...(validUntil === Infinity ? {} : { validUntil }),
    fingerprint: fingerprintOf([mode, pathNormalization, around, allowSelected, custom, audit, deny, allow]),
    index: { deny: indexRules(deny, mode), allow: indexRules(allow, mode) },
  })
}

/** True if a selection is for this workload: by namespace, labels and identities, as far as it names them (authorization.md 1.6, 3). */
export function selects({ namespace, matchLabels, identities, targetRefs }: Selection, facts: WorkloadFacts): boolean {
  if (targetRefs) return false
  if (namespace !== undefined && !namespacesOf(facts).includes(namespace)) return false
  if (identities && !facts.spiffeIds.some((id) => identities.some((match) => idMatches(match, id)))) return false
  const labels = matchLabels.length > 0 ? labelsOf(facts) : undefined
  return matchLabels.every(({ key, value }) => labels?.has(`${key}=${value}`))
}

/** Compares a SPIFFE ID with a pattern of whole segments. */
export function idMatches(match: IdMatch, id: SpiffeId): boolean {
  return match.kind === 'id' ? match.id === id : templateMatches(match, id)
}

/** The attested namespace, or else the one that a SPIFFE path `/ns/<name>/…` names. */
function namespacesOf(facts: WorkloadFacts): string[] {
  const attested = facts.selectors
    .filter(({ type, value }) => type === 'k8s' && value.startsWith('ns:'))
    .map(({ value }) => value.slice('ns:'.length))
  if (attested.length > 0) return attested
  return facts.spiffeIds.flatMap((id) => namespacePath.exec(pathOf(id))?.[1] ?? [])
}

function labelsOf(facts: WorkloadFacts): Set<string> {
  return new Set(
    facts.selectors.flatMap(({ type, value }) => {
      const prefix = labelSelectors[type]
      if (prefix === undefined || !value.startsWith(prefix)) return []
      const label = value.slice(prefix.length)
      const colon = label.indexOf(':')
      return colon === -1 ? [] : [`${label.slice(0, colon)}=${label.slice(colon + 1)}`]
    }),
  )
}

function compileRules(policy: Policy): CompiledRule[] {
  return policy.rules.map((rule, index) => ({
    id: idOf(policy, index),
    action: policy.action,
    ...(policy.provider === undefined ? {} : { provider: policy.provider }),
    policy: policy.namespace === '' ? policy.name : `${policy.namespace}/${policy.name}`,
    rule: index,
    requirePeer: policy.requirePeer,
    sources: rule.from,
    operations: rule.to,
    conditions: rule.when,
    ...(rule.cel && { cel: rule.cel }),
    needsHttp: needsHttp(rule),
    ...(policy.expires === undefined ? {} : { expires: policy.expires }),
    place: rule.place,
  }))
}

const idOf = ({ namespace, name }: Policy, rule: number): string => `ns[${namespace}]-policy[${name}]-rule[${rule}]`

function needsHttp({ from, to, when, cel }: Rule): boolean {
  const clauses: readonly Clause[] = [...(from === 'any' ? [] : from.flat()), ...(to === 'any' ? [] : to.flat()), ...when]
  return (
    clauses.some(({ on }) => onlyHttp.has(on)) ||
    (cel !== undefined && testsOf(cel.tree).some(({ attribute }) => attribute.on.startsWith('request.')))
  )
}

function methodsNamedIn(rules: readonly CompiledRule[]): string[] {
  const inOperations = operationClauses(rules).flatMap((clause) =>
    clause.on === 'method' ? clause.anyOf.flatMap((match) => (match.kind === 'exact' ? [match.value] : [])) : [],
  )
  const inConditions = celTests(rules).flatMap(({ attribute, comparison }) =>
    attribute.on === 'request.method' && comparison.is === 'one-of' ? comparison.values : [],
  )
  return [...inOperations, ...inConditions]
}

const celTests = (rules: readonly CompiledRule[]): CelTest[] => rules.flatMap(({ cel }) => (cel ? testsOf(cel.tree) : []))
const testsOf = (tree: CelTree): readonly CelTest[] => (tree.kind === 'test' ? [tree] : tree.of.flatMap(testsOf))

function operationClauses(rules: readonly CompiledRule[]): Clause[] {
  return rules.flatMap((rule) => (rule.operations === 'any' ? [] : rule.operations.flat()))
}

/** Places and spellings of fields do not change what rules mean. */
function fingerprintOf(value: unknown): string {
  const text = JSON.stringify(value, (key, part: unknown) => (key === 'place' || key === 'field' ? undefined : part))
  return createHash('sha256').update(text).digest('hex')
}

/** What Istio refuses to say of plain connections (authorization.md 1.2). */
export const onlyHttp: ReadonlySet<Clause['on']> = new Set(['host', 'method', 'path', 'header', 'request.auth.principal', 'claim'])
const namespacePath = /^\/ns\/([^/]+)\//
const labelSelectors: Readonly<Record<string, string>> = { k8s: 'pod-label:', docker: 'label:' }
/** RFC 9110 section 9.3 and RFC 5789. */
const registeredMethods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'CONNECT']
