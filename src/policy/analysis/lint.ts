/** What is suspicious about a set of policies, each with its place, why, and what to do (authorization.md 5.3). */
import type { Instant } from '../../kernel/clock.ts'
import { trustDomainOf, type SpiffeId } from '../../spiffe/id.ts'
import { compileFor, idMatches, selects, type CompiledPolicies, type WorkloadFacts } from '../compile.ts'
import type { CompiledRule } from '../compiled-rule.ts'
import { formatMatch } from '../explain.ts'
import type { Clause, Place, Policy, PolicySet } from '../policy-set.ts'
import type { Unknown } from './answer.ts'
import { type AnalysisLimits, Budget, BudgetExhausted, defaultLimits } from './budget.ts'
import { type Destination, destinationsOf } from './destinations.ts'
import { never, type Node } from './diagram.ts'
import { rulesOf, statementsOf } from './places.ts'
import { Space } from './space.ts'
import { joined } from './words.ts'

/** Every kind of finding, and what it is about. `hole` findings are Istio's semantics, and are named in istio mode alone. */
export const lintRules = {
  'vacuous-rule': 'no request can match the rule',
  'shadowed-rule': 'a DENY refuses everything that the rule allows',
  'redundant-rule': 'other rules say everything that the rule says',
  'dead-value': 'nothing can be equal to the value',
  'expired-policy': 'the policy has ended',
  'expires-soon': 'the policy is about to end',
  'token-never-read': 'a rule is about an end-user token, and no `RequestAuthentication` reads one there',
  'unknown-trust-domain': 'a peer of a trust domain that is not among those known',
  'selects-nothing': 'the policy, or a rule of it, is for workloads or ports that there are none of',
  'plain-connections': 'a DENY about HTTP refuses connections that are not HTTP as well',
  'hole-unauthenticated-negation': 'a negation that a peer without mTLS, or a request without a token, satisfies',
  'hole-deny-template': 'a template in a DENY does not match every path below it',
  'hole-host-without-port': 'a host that does not match when the client names a port',
  'hole-free-path': 'a namespace or account that is found anywhere in a SPIFFE ID',
  'hole-open-workload': 'workloads that no ALLOW policy selects are open',
} as const
export type LintRule = keyof typeof lintRules

export interface Finding {
  readonly rule: LintRule
  readonly level: 'error' | 'warning' | 'note'
  /** Absent where it is about the whole set. */
  readonly place?: Place
  /** `shop/orders`, or `shop/orders rule 2`. */
  readonly policy?: string
  readonly sentence: string
  readonly fix: string
}

export interface KnownWorkload extends WorkloadFacts {
  readonly port?: number
}

export interface LintReport {
  /** By document and line. */
  readonly findings: readonly Finding[]
  readonly unknown: readonly Unknown[]
}

export interface LintOptions {
  readonly at: Instant
  /** Trust domains whose peers there can be; absent: not asked. */
  readonly trustDomains?: readonly string[]
  /** Identities that exist; absent: not asked. */
  readonly identities?: readonly SpiffeId[]
  /** Workloads that there are, with the ports that they listen on as far as those are known. */
  readonly workloads?: readonly KnownWorkload[]
  readonly limits?: AnalysisLimits
}

/** Looks at every policy, and at what the rules of each kind of workload mean together. */
export function lint(set: PolicySet, options: LintOptions): LintReport {
  const { at, limits = defaultLimits } = options
  const unknown: Unknown[] = []
  const together = new Together()
  const attempt = <T>(what: string, work: () => T): T | undefined => {
    try {
      return work()
    } catch (error) {
      if (!(error instanceof BudgetExhausted)) throw error
      unknown.push({ reason: 'budget', what })
      return undefined
    }
  }
  const destinations = attempt('all workloads: there are too many kinds of them', () => destinationsOf([set], new Budget(limits))) ?? []
  for (const destination of destinations) {
    attempt(`rules of ${destination.words}`, () => together.look(compileFor(set, destination.facts, { at }), destination, limits))
  }
  const findings = [...set.policies.flatMap((policy) => ofPolicy(policy, set, options)), ...together.findings(set)]
  return { findings: findings.toSorted(byPlace), unknown }
}

/** What the rules of a workload mean together. A rule is suspicious only if it is everywhere that it applies. */
class Together {
  readonly #rules = new Map<
    string,
    { readonly rule: CompiledRule; applies: number; vacuous: number; shadowed: number; redundant: number; tokenless: string[] }
  >()
  readonly #dead = new Map<string, { readonly clause: Clause; readonly text: string; readonly rule: CompiledRule; alive: boolean }>()
  readonly #open: string[] = []

  look(policies: CompiledPolicies, destination: Destination, limits: AnalysisLimits): void {
    if (policies.mode === 'istio' && !policies.allowSelected) this.#open.push(destination.words)
    const rules = rulesOf(policies)
    if (rules.length === 0) return
    const space = new Space([policies], new Budget(limits))
    const denied = space.diagram.union(policies.deny.map((rule) => space.rule(rule)))
    for (const rule of rules) {
      const noted = this.#noteOf(rule)
      noted.applies++
      const meaning = space.rule(rule)
      if (meaning === never) noted.vacuous++
      else if (rule.action === 'ALLOW' && space.diagram.without(meaning, denied) === never) noted.shadowed++
      const { clauses } = statementsOf(rule)
      if (policies.tokens.length === 0 && clauses.some(({ on }) => on === 'claim' || on === 'request.auth.principal'))
        noted.tokenless.push(destination.words)
      for (const clause of clauses) this.#lookAtValues(space, rule, clause)
    }
    for (const list of [policies.allow, policies.deny]) for (const rule of redundantIn(space, list)) this.#noteOf(rule).redundant++
  }

  *findings(set: PolicySet): Iterable<Finding> {
    for (const { rule, applies, vacuous, shadowed, redundant, tokenless } of this.#rules.values()) {
      const about = { place: rule.place, policy: `${rule.policy} rule ${rule.rule}` }
      if (vacuous === applies) {
        yield { ...about, rule: 'vacuous-rule', level: 'error', sentence: 'no request can match this rule: what it asks for excludes itself', fix: 'take it away, or correct the values that exclude each other' }
      } else if (shadowed === applies) {
        yield { ...about, rule: 'shadowed-rule', level: 'warning', sentence: 'a DENY refuses everything that this rule allows, at every workload it is for', fix: 'take it away, or narrow the DENY' }
      } else if (redundant === applies) {
        yield { ...about, rule: 'redundant-rule', level: 'note', sentence: `other ${rule.action} rules match everything that this rule matches, at every workload it is for`, fix: 'take it away: no request is decided differently (`vidimus policy equivalent` proves it)' }
      }
      if (tokenless.length > 0) {
        yield { ...about, rule: 'token-never-read', level: 'warning', sentence: `no \`RequestAuthentication\` is for ${tokenless[0]!}: there is never a token there, so a value never matches and its negation always does`, fix: 'add a `RequestAuthentication` with the issuer' }
      }
    }
    for (const { clause, text, rule, alive } of this.#dead.values()) {
      if (alive) continue
      yield { rule: 'dead-value', level: 'warning', place: clause.place, policy: `${rule.policy} rule ${rule.rule}`, sentence: `nothing that a proxy compares with \`${clause.field}\` can be \`${text}\``, fix: clause.on === 'path' ? 'write the path as it is after normalisation' : 'correct the value' }
    }
    if (this.#open.length > 0) {
      yield { rule: 'hole-open-workload', level: 'warning', sentence: `no ALLOW policy is for these, and they take every request that no DENY refuses: ${joined(this.#open, 'and')}`, fix: `add an ALLOW policy without rules in \`${set.rootNamespace}\`: then nothing is open` }
    }
  } // prettier-ignore

  #noteOf(rule: CompiledRule) {
    const key = `${rule.place.document}:${rule.id}`
    const noted = this.#rules.get(key) ?? { rule, applies: 0, vacuous: 0, shadowed: 0, redundant: 0, tokenless: [] }
    this.#rules.set(key, noted)
    return noted
  }

  #lookAtValues(space: Space, rule: CompiledRule, clause: Clause): void {
    if (!comparedTexts.has(clause.on)) return
    for (const match of clause.anyOf) {
      const text = formatMatch(match)
      const key = `${rule.place.document}:${rule.id}:${clause.place.line}:${clause.place.column}:${text}`
      // One value of the clause's own kind, alone and not negated.
      const alone = { ...clause, not: false, anyOf: [match] } as Clause
      const noted = this.#dead.get(key) ?? { clause, text, rule, alive: false }
      noted.alive ||= space.clause(alone, 'ALLOW') !== never
      this.#dead.set(key, noted)
    }
  }
}

/** Rules that match nothing which the other rules do not match: looked for from the last, so that of two equal ones the first stays. */
function redundantIn(space: Space, rules: readonly CompiledRule[]): CompiledRule[] {
  const { diagram } = space
  const upTo: Node[] = [never]
  for (const rule of rules) upTo.push(diagram.or(upTo.at(-1)!, space.rule(rule)))
  const redundant: CompiledRule[] = []
  let kept: Node = never
  for (const [index, rule] of [...rules.entries()].toReversed()) {
    const meaning = space.rule(rule)
    if (meaning === never) continue
    if (diagram.without(meaning, diagram.or(upTo[index]!, kept)) === never) redundant.push(rule)
    else kept = diagram.or(kept, meaning)
  }
  return redundant
}

/** What can be seen in one policy alone. */
/** Only where every workload says its port: one that says none may listen on any. */
const isAtNoPort = (ports: readonly number[], workloads: readonly KnownWorkload[]): boolean =>
  workloads.length > 0 && workloads.every(({ port }) => port !== undefined && !ports.includes(port))

function ofPolicy(policy: Policy, { mode }: PolicySet, { at, trustDomains, identities, workloads }: LintOptions): Finding[] {
  const name = policy.namespace === '' ? policy.name : `${policy.namespace}/${policy.name}`
  const findings: Finding[] = []
  const add = (rule: LintRule, level: Finding['level'], place: Place, sentence: string, fix: string, number?: number) =>
    findings.push({ rule, level, place, policy: number === undefined ? name : `${name} rule ${number}`, sentence, fix })

  if (policy.expires !== undefined && policy.expires <= at) {
    add('expired-policy', 'warning', policy.place, 'this policy has ended: its rules match nothing', 'take it away, or give it a new date')
  } else if (policy.expires !== undefined && policy.expires - at < soon) {
    const days = Math.ceil((policy.expires - at) / day)
    add(
      'expires-soon',
      'note',
      policy.place,
      `this policy ends in ${days} ${days === 1 ? 'day' : 'days'}`,
      'take it away when it is no longer needed, or give it a new date',
    )
  }
  const { identities: patterns } = policy.selection
  if (patterns && identities && !identities.some((id) => patterns.some((match) => idMatches(match, id)))) {
    add(
      'selects-nothing',
      'warning',
      policy.place,
      'none of the known identities fulfils `identities` of this policy',
      'correct the pattern, or take the policy away',
    )
  }
  if (policy.target !== 'workload') return findings
  const selected = workloads?.filter((one) => selects(policy.selection, one))
  if (selected?.length === 0 && !policy.selection.targetRefs) {
    add(
      'selects-nothing',
      'warning',
      policy.place,
      'none of the known workloads has the namespace, the labels and the identity that this policy is for',
      'correct what it selects by, or take the policy away',
    )
  }
  for (const [number, rule] of policy.rules.entries()) {
    const clauses: readonly Clause[] = [
      ...(rule.from === 'any' ? [] : rule.from.flat()),
      ...(rule.to === 'any' ? [] : rule.to.flat()),
      ...rule.when,
    ]
    const aboutHttp = clauses.filter(({ on }) => httpAlone.has(on))
    if (policy.action === 'DENY' && aboutHttp.length > 0) {
      const ports = clauses.find(({ on, not }) => on === 'destination.port' && !not)
      const where = ports ? `to port ${ports.anyOf.map(formatMatch).join(', ')}` : 'to any port'
      add('plain-connections', 'note', rule.place, `a connection ${where} that is not HTTP is refused whatever \`${aboutHttp[0]!.field}\` says: it has none`, 'name the `ports` that speak HTTP', number) // prettier-ignore
    }
    for (const clause of clauses) {
      if (clause.on === 'destination.port' && !clause.not && selected && isAtNoPort(clause.anyOf, selected)) {
        add(
          'selects-nothing',
          'warning',
          clause.place,
          `no known workload that this policy is for listens on ${joined(clause.anyOf.map(String), 'or')}`,
          'name a port that one listens on, as the workload numbers it, or take the rule away',
          number,
        )
      }
      if (trustDomains && clause.on === 'peer') {
        for (const domain of foreignDomains(clause, trustDomains)) add('unknown-trust-domain', 'warning', clause.place, `\`${domain}\` is not among the known trust domains (${trustDomains.join(', ')}): nobody of it is ever verified`, 'correct the name, or federate with it', number) // prettier-ignore
      }
      if (mode === 'istio')
        for (const { rule: kind, sentence, fix } of holesOf(policy, clause)) add(kind, 'warning', clause.place, sentence, fix, number)
    }
  }
  return findings
}

/** Istio's semantics where they surprise (authorization.md 1.5 to 1.8). */
function* holesOf(policy: Policy, clause: Clause): Iterable<Pick<Finding, 'rule' | 'sentence' | 'fix'>> {
  const ofToken = clause.on === 'request.auth.principal' || clause.on === 'claim'
  if (policy.action === 'ALLOW' && clause.not && (ofToken || (clause.on === 'peer' && !policy.requirePeer))) {
    yield {
      rule: 'hole-unauthenticated-negation',
      sentence: `\`${clause.field}\` is satisfied by ${ofToken ? 'a request without a token' : 'a peer without mTLS'} as well`,
      fix: ofToken
        ? "add `requestPrincipals: ['*']`"
        : "add `principals: ['*']` to the same source, or refuse plain text by a `PeerAuthentication`",
    }
  }
  if (policy.action === 'DENY' && clause.on === 'path' && !clause.not) {
    for (const match of clause.anyOf) {
      if (match.kind !== 'template') continue
      yield {
        rule: 'hole-deny-template',
        sentence: `\`${match.text}\` does not match paths with \`*\`, \`[\`, \`]\` or \`|\` in the segments it stands for, such as \`${match.text.replaceAll(/\{\*\*?\}/g, 'a[0]')}\``,
        fix: 'deny by a prefix',
      }
    }
  }
  if (clause.on === 'host') {
    for (const match of clause.anyOf) {
      const covered = clause.anyOf.some(
        (other) => other.kind === 'prefix' && match.kind === 'exact' && `${match.value}:`.startsWith(other.value),
      )
      if (match.kind !== 'exact' || match.value.includes(':') || covered) continue
      yield {
        rule: 'hole-host-without-port',
        sentence: `\`${match.value}\` is not the host of a request that names its port, \`${match.value}:8080\``,
        fix: `add \`${match.value}:*\``,
      }
    }
  }
  if (clause.on === 'peer') {
    for (const match of clause.anyOf) {
      if (match.kind !== 'namespace' && match.kind !== 'service-account') continue
      const written = formatMatch(match)
      const example = match.kind === 'namespace' ? `spiffe://example.org/ns/other/sa/x/ns/${match.glob.replaceAll('*', 'x')}/y` : `spiffe://example.org/other/ns/${match.namespace}/x/sa/${match.name}/y` // prettier-ignore
      yield {
        rule: 'hole-free-path',
        sentence: `\`${written}\` is found anywhere in a name: \`${example}\` matches too`,
        fix: 'name `principals`, or issue no SPIFFE IDs but `/ns/<namespace>/sa/<account>`',
      }
    }
  }
}

function foreignDomains(clause: Clause & { on: 'peer' }, known: readonly string[]): string[] {
  return clause.anyOf.flatMap((match) => {
    const domain =
      match.kind === 'id'
        ? trustDomainOf(match.id)
        : match.kind === 'trust-domain' && !match.glob.includes('*')
          ? match.glob
          : match.kind === 'below'
            ? match.prefix.split('/')[2]
            : match.kind === 'principal' && match.match.kind === 'exact'
              ? match.match.value.split('/')[0]
              : match.kind === 'template' && match.parts[2]?.kind === 'literal'
                ? match.parts[2].text
                : undefined
    return domain === undefined || known.includes(domain) ? [] : [domain]
  })
}

function byPlace(a: Finding, b: Finding): number {
  if (!a.place || !b.place) return Number(a.place === undefined) - Number(b.place === undefined)
  return a.place.document < b.place.document
    ? -1
    : a.place.document > b.place.document
      ? 1
      : a.place.line - b.place.line || a.place.column - b.place.column
}

const comparedTexts: ReadonlySet<Clause['on']> = new Set(['path', 'host', 'method', 'peer', 'header', 'connection.sni'])
const httpAlone: ReadonlySet<Clause['on']> = new Set(['host', 'method', 'path', 'header', 'request.auth.principal', 'claim'])
const day = 86_400_000
/** Long enough to be read in a weekly round. */
const soon = 14 * day
