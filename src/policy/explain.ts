/** A decision, told to a person who may know: which rule decided, or which came nearest and what was in its way. */
import { formatDuration } from '../kernel/duration.ts'
import { formatSelector } from '../spiffe/selector.ts'
import type { CompiledPolicies } from './compile.ts'
import type { CompiledRule } from './compiled-rule.ts'
import type { Decision } from './decision.ts'
import { clauseHolds, see, type SeenRequest } from './evaluate.ts'
import { formatStringMatch, type PathMatch } from './matching.ts'
import { attestedClauseHolds } from './onboarding.ts'
import type { Clause, PeerMatch } from './policy-set.ts'
import type { OnboardingRequest, PolicyRequest, ServerApiRequest } from './request.ts'
import { serverApiClauseHolds } from './server-api.ts'

/** Sentences about a decision on a request, the most important first. For operators; callers are told nothing of it. */
export function explain(compiled: CompiledPolicies, request: PolicyRequest, decision: Decision): string[] {
  const seen = see(compiled, request)
  return tell(compiled, decision, {
    missingPeer: seen.peers.length === 0,
    holds: (clause, rule) => clauseHolds(clause, rule.action, seen),
    found: (clause) => foundOf(clause, seen),
  })
}

/** The same for a call of our own API. */
export function explainServerApi(compiled: CompiledPolicies, request: ServerApiRequest, decision: Decision): string[] {
  return tell(compiled, decision, {
    missingPeer: false,
    holds: (clause, rule) => serverApiClauseHolds(clause, rule.action, request),
    found: (clause) => foundInCall(clause, request),
  })
}

/** The same for a node that wants to be admitted. */
export function explainOnboarding(compiled: CompiledPolicies, request: OnboardingRequest, decision: Decision): string[] {
  return tell(compiled, decision, {
    missingPeer: false,
    holds: (clause, rule) => attestedClauseHolds(clause, rule.action, request),
    found: () => (request.selectors.length === 0 ? 'nothing' : request.selectors.map((one) => `\`${formatSelector(one)}\``).join(', ')),
  })
}

/** A rule as a sentence: who may, or may not, do what, and when. */
export function ruleSentence({ action, provider, requirePeer, sources, operations, conditions, cel }: CompiledRule): string {
  const verb = action === 'CUSTOM' ? `asks \`${provider}\` about` : { ALLOW: 'allows', DENY: 'denies', AUDIT: 'marks' }[action]
  const oneOf = (terms: 'any' | readonly (readonly Clause[])[]) =>
    terms === 'any' ? [] : [terms.map((term) => term.map(clausePhrase).join(' and ')).join(', or ')]
  const who = [...(requirePeer && sources === 'any' ? ['any verified peer'] : []), ...oneOf(sources)]
  const what = oneOf(operations)
  const when = [...conditions.map(clausePhrase), ...(cel ? [`\`${cel.text}\``] : [])]
  return [
    `${verb} ${what.length > 0 ? `requests with ${what.join()}` : 'every request'}`,
    ...(who.length > 0 ? [`from ${who.join()}`] : []),
    ...(when.length > 0 ? [`when ${when.join(' and ')}`] : []),
  ].join(' ')
}

function clausePhrase(clause: Clause): string {
  const values = clause.anyOf.slice(0, shownValues).map((match) => `\`${formatMatch(match)}\``)
  const more = clause.anyOf.length > shownValues ? [`${clause.anyOf.length - shownValues} more`] : []
  const name = clause.field.replace(/^not(?=[A-Z])|(?: values| notValues)$/g, '')
  return `${name.charAt(0).toLowerCase()}${name.slice(1)} ${clause.not ? 'none of ' : ''}${[...values, ...more].join(' or ')}`
}

interface Teller {
  readonly missingPeer: boolean
  holds(clause: Clause, rule: CompiledRule): boolean
  found(clause: Clause): string
}

function tell(compiled: CompiledPolicies, decision: Decision, teller: Teller): string[] {
  const notes = decision.errors.map((error) => `note: ${error}`)
  switch (decision.reason) {
    case 'allowed':
    case 'denied':
      return [
        ...decision.decidedBy.map(
          ({ id, policy, rule }) => `${decision.reason} by rule ${rule} of policy \`${policy}\`${standsAt(compiled, id)}`,
        ),
        ...notes,
      ]
    case 'open':
      return ['allowed: no ALLOW policy selects this workload, and in istio mode that opens it', ...notes]
    case 'provider-denied':
    case 'provider-silent':
    case 'plaintext-refused':
    case 'token-refused':
      return [
        `denied: ${refusals[decision.reason]}`,
        ...decision.decidedBy.map(({ id, policy, rule }) => `by rule ${rule} of policy \`${policy}\`${standsAt(compiled, id)}`),
        ...notes,
      ]
    case 'no-policy':
      return ['denied: no ALLOW policy selects this workload', ...notes]
    case 'malformed-request':
      return [`denied before any rule was read: ${decision.errors.join('; ')}`]
    case 'error':
      return [`denied, because deciding failed: ${decision.errors.join('; ')}`]
    case 'no-rule-matched':
      return ['denied: no ALLOW rule matches', ...nearest(compiled, teller), ...notes]
    default:
      throw new Error(`bug: reason ${String(decision.reason satisfies never)}`)
  }
}

/** The rule with the fewest clauses in the way; of equals the first. */
function nearest(compiled: CompiledPolicies, teller: Teller): string[] {
  if (compiled.allow.length === 0) return ['the ALLOW policies that select this workload have no rules in force']
  const best = compiled.allow
    .map((rule) => ({ rule, obstacles: obstaclesOf(rule, teller) }))
    .reduce((a, b) => (b.obstacles.length < a.obstacles.length ? b : a))
  const { rule, obstacles } = best
  return [
    `nearest is rule ${rule.rule} of policy \`${rule.policy}\`${standsAt(compiled, rule.id)}`,
    ...obstacles.map((obstacle) => `it fails on ${obstacle}`),
  ]
}

function obstaclesOf(rule: CompiledRule, teller: Teller): string[] {
  const peer = rule.requirePeer && teller.missingPeer ? ['`requirePeer`: the request has no verified peer'] : []
  const terms = [rule.sources, rule.operations].flatMap((list) => {
    if (list === 'any') return []
    return fewest(
      list.map((term: readonly Clause[]) => term.filter((clause) => !teller.holds(clause, rule)).map((clause) => obstacle(clause, teller))),
    )
  })
  const conditions = rule.conditions.filter((clause) => !teller.holds(clause, rule)).map((clause) => obstacle(clause, teller))
  return [...peer, ...terms, ...conditions]
}

function obstacle(clause: Clause, teller: Teller): string {
  const values = clause.anyOf.slice(0, shownValues).map((match) => `\`${formatMatch(match)}\``)
  const more = clause.anyOf.length > shownValues ? ` and ${clause.anyOf.length - shownValues} more` : ''
  return `\`${clause.field}\` (line ${clause.place.line}): expected ${clause.not ? 'none of ' : ''}${values.join(', ')}${more}, found ${teller.found(clause)}`
}

function foundOf(clause: Clause, seen: SeenRequest): string {
  const { request } = seen
  switch (clause.on) {
    case 'peer':
      return quoted(seen.peers[0], 'no verified peer')
    case 'source.ip':
      return quoted(request.sourceIp)
    case 'remote.ip':
      return quoted(request.remoteIp ?? request.sourceIp)
    case 'destination.ip':
      return quoted(request.destinationIp)
    case 'destination.port':
      return quoted(request.destinationPort?.toString())
    case 'connection.sni':
      return quoted(request.sni)
    case 'method':
      return quoted(request.http?.method)
    case 'host':
      return quoted(request.http?.host)
    case 'path':
      return quoted(seen.path)
    case 'header':
      return quoted(request.http?.headers.get(clause.name)?.length.toString(), 'no such header').replace(
        /^`(\d+)`$/,
        '$1 value(s) that do not agree',
      )
    default:
      return 'something else'
  }
}

function foundInCall(clause: Clause, { caller, method, attributes }: ServerApiRequest): string {
  if (clause.on === 'caller') return quoted(typeof caller === 'string' ? caller : caller.join(', '))
  if (clause.on === 'path') return quoted(method)
  const value = Object.entries(attributes).find(([key]) => key === clause.on)?.[1] as string | number | boolean | undefined
  return quoted(value === undefined ? undefined : typeof value === 'number' ? formatDuration(value) : String(value))
}

/** What a clause compares with, as it was written. */
export function formatMatch(match: Clause['anyOf'][number]): string {
  if (typeof match === 'string') return match
  if (typeof match === 'number') return String(match)
  if ('issuer' in match) return match.text
  if ('inList' in match) return match.inList ? `[${formatStringMatch(match.match)}]` : formatStringMatch(match.match)
  if ('comparison' in match) return `${signs[match.comparison]}${formatDuration(match.duration)}`
  if ('bits' in match) return match.text
  return formatText(match)
}

function formatText(match: PathMatch | PeerMatch): string {
  switch (match.kind) {
    case 'template':
      return match.text
    case 'exact':
    case 'prefix':
    case 'suffix':
    case 'present':
      return formatStringMatch(match)
    case 'any':
      return '*'
    case 'id':
      return match.id
    case 'below':
      return `${match.prefix}*`
    case 'ending':
      return `*${match.suffix}`
    case 'namespace':
      return match.glob
    case 'trust-domain':
      return match.glob
    case 'service-account':
      return `${match.namespace}/${match.name}`
    case 'principal':
      return formatStringMatch(match.match)
    default:
      throw new Error(`bug: match ${JSON.stringify(match satisfies never)}`)
  }
}

function standsAt(compiled: CompiledPolicies, id: string): string {
  const rule = [...compiled.custom, ...compiled.deny, ...compiled.allow].find((one) => one.id === id)
  return rule ? ` (${rule.place.document}:${rule.place.line})` : ''
}

function fewest(lists: readonly string[][]): string[] {
  return lists.reduce((a, b) => (b.length < a.length ? b : a))
}

const quoted = (text: string | undefined, otherwise = 'nothing that is known'): string => (text === undefined ? otherwise : `\`${text}\``)
const signs = { equal: '', 'at-most': '<=', 'at-least': '>=' } as const
const refusals = {
  'provider-denied': 'the provider of a CUSTOM policy refuses',
  'provider-silent': 'the provider of a CUSTOM policy has not answered',
  'plaintext-refused': 'a `PeerAuthentication` takes no connection without mTLS here',
  'token-refused': 'no `RequestAuthentication` here takes this token',
} as const
const shownValues = 5
