/**
 * Compiled policies as Envoy's RBAC: one filter that denies, one that allows.
 *
 * Istio mode emits what Istio emits (authorization.md 1.3, 1.4), holes included. Strict mode closes the holes of 1.8:
 * identities are typed SANs of validated certificates, and what is not certain never allows and always denies.
 * Where Envoy shows its filters less than was sent (repeated headers that it joins), the filters refuse more than the evaluator, never less.
 */
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import { Failure } from '../kernel/failure.ts'
import { type CompiledPolicies, onlyHttp } from '../policy/compile.ts'
import type { CompiledRule } from '../policy/compiled-rule.ts'
import { hostPattern, namesPort } from '../policy/evaluate.ts'
import { isJoinedByEnvoy, repeatedAuthorization } from '../policy/joined-headers.ts'
import type { AddressBlock, PathMatch, StringMatch, Template } from '../policy/matching.ts'
import { canonicalPath } from '../policy/normalize.ts'
import type {
  Clause,
  FilterMetadataClause,
  HeaderClause,
  JwtRule,
  PathClause,
  PeerClause,
  PeerMatch,
  PolicyMode,
  RequestPrincipalMatch,
} from '../policy/policy-set.ts'
import {
  type PolicySchema,
  RBAC_Action,
  type RBAC as EnvoyRules,
  RBACSchema as RulesSchema,
} from '../rpc/gen/envoy/config/rbac/v3/rbac_pb.ts'
import { UriTemplateMatchConfigSchema } from '../rpc/gen/envoy/extensions/path/match/uri_template/v3/uri_template_match_pb.ts'
import { ConfigSchema as MtlsAuthenticatedSchema } from '../rpc/gen/envoy/extensions/rbac/principals/mtls_authenticated/v3/mtls_authenticated_pb.ts'
import type { ValueMatcherSchema } from '../rpc/gen/envoy/type/matcher/v3/matcher_pb.ts'
import { SubjectAltNameMatcher_SanType } from '../rpc/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { toExpression } from './cel-messages.ts'
import { hasOneSpelling, spellings } from './paths.ts'
import {
  all,
  always,
  asPermission,
  asPrincipal,
  type Matcher,
  not,
  notIf,
  oneOf,
  type Permission,
  type Principal,
  type Requirement,
} from './requirement.ts'
import { globbed, noneOf, quoted, templated } from './regex.ts'

/** Where rules are enforced: requests of HTTP, or connections of any kind. */
export type Point = 'http' | 'tcp'

/** Rules by what they do. What is absent is not enforced by a filter; present but empty, ALLOW allows nothing. */
export interface RbacRules {
  /** By provider: what it is asked about. */
  readonly custom: ReadonlyMap<string, Rules>
  /** False in istio mode where rules name several providers: then none is asked, and what the rules match is refused (authorization.md 1.8). */
  readonly canAsk: boolean
  readonly audit?: Rules
  readonly deny?: Rules
  readonly allow?: Rules
  /** What this point cannot enforce as it is written, and what it does instead. */
  readonly notes: readonly string[]
}

export type Rules = EnvoyRules

interface Surroundings {
  /** Whose certificates the proxy accepts: our trust domain and the federated ones. */
  readonly trustDomains: readonly TrustDomain[]
  readonly point: Point
  /** True where the filters must refuse connections without mTLS themselves, because the listener takes them. */
  readonly refusePlaintext: boolean
  /** False where nothing in front of the rules reads the tokens of end users. */
  readonly tokensRead?: boolean
}

/** Rules that refuse what a provider cannot be asked about. */
export const withoutProvider = ({ action, policies }: Rules): Rules =>
  ruleSet(
    action,
    Object.entries(policies).map(([id, policy]) => [`${id}-deny-due-to-bad-CUSTOM-action`, policy]),
  )

/**
 * All rules at one point.
 * @throws Failure `rbac.not-enforceable`
 */
export function rbacRules(compiled: CompiledPolicies, around: Surroundings): RbacRules {
  const { mode, deny, allow, allowSelected } = compiled
  const { point } = around
  const unread = around.tokensRead === false && compiled.tokens.length > 0
  const notes = notesOn(compiled, point)
  const policies = (rules: readonly CompiledRule[]) => rules.flatMap((rule) => policyOf(rule, { mode, point, unread }))
  const custom = Map.groupBy(compiled.custom, ({ provider }) => provider!)
  const first = [
    ...(mode === 'strict' ? strictDenials(compiled, around) : []),
    ...(around.refusePlaintext ? plaintextDenials(compiled) : []),
    ...(unread && point === 'http' ? [denial('vidimus[unread-token]', asPermission(oneOf(compiled.tokens.flatMap(placesOfTokens))))] : []),
  ]
  const never = compiled.withoutRules.map((id): Named => [id, matchingNothing])
  return {
    custom: new Map([...custom].map(([provider, rules]) => [provider, ruleSet(RBAC_Action.DENY, asked(policies(rules), provider))])),
    canAsk: mode === 'strict' || custom.size < 2,
    ...(compiled.audit.length > 0 && { audit: ruleSet(RBAC_Action.LOG, policies(compiled.audit)) }),
    ...((first.length > 0 || deny.length > 0) && { deny: ruleSet(RBAC_Action.DENY, [...first, ...policies(deny)]) }),
    ...((mode === 'strict' || allowSelected) && { allow: ruleSet(RBAC_Action.ALLOW, [...never, ...policies(allow)]) }),
    notes,
  }
}

/** Rules of one kind, by their ids. */
export const ruleSet = (action: RBAC_Action, named: Iterable<Named>): Rules =>
  create(RulesSchema, { action, policies: Object.fromEntries(named) })

/** The name says whom to ask: external authorization looks for it (authorization.md 1.8). */
const asked = (named: readonly Named[], provider: string): Named[] => named.map(([id, policy]) => [`${askedPrefix(provider)}${id}`, policy])
export const askedPrefix = (provider: string): string => `istio-ext-authz-${provider}-`

type Policy = MessageInitShape<typeof PolicySchema>
type Named = readonly [id: string, policy: Policy]

/** What HTTP alone has is dropped where there is none (authorization.md 1.7). */
function notesOn({ mode, custom, audit, deny, allow, tokens }: CompiledPolicies, point: Point): string[] {
  const rules = [...custom, ...audit, ...deny, ...allow]
  const readsTokens = rules.some((rule) => clausesOf(rule).some(({ on }) => aboutTokens.has(on)))
  if (point === 'http') {
    return readsTokens && tokens.length === 0 ? ['rules ask about tokens of end users, and no `RequestAuthentication` here reads any'] : []
  }
  return rules
    .filter(({ needsHttp }) => needsHttp)
    .map(({ id, action }) => {
      const instead =
        action !== 'ALLOW'
          ? 'it matches whatever the rest of it matches'
          : mode === 'istio'
            ? 'the whole rule allows nothing'
            : 'what asks for HTTP in it allows nothing'
      return `\`${id}\` is about HTTP: on connections without, ${instead}`
    })
}

const clausesOf = ({ sources, operations, conditions }: CompiledRule): readonly Clause[] => [
  ...(sources === 'any' ? [] : sources.flat()),
  ...(operations === 'any' ? [] : operations.flat()),
  ...conditions,
]

/** One rule as an Envoy policy: operations are permissions, sources principals, and conditions go where Istio puts them. None for a rule that nothing matches. */
function policyOf(rule: CompiledRule, at: At): Named[] {
  const { mode, point } = at
  const { sources, operations, conditions } = rule
  if ((sources !== 'any' && sources.length === 0) || (operations !== 'any' && operations.length === 0)) return []
  if (mode === 'istio' && point === 'tcp' && rule.action === 'ALLOW' && rule.needsHttp) return []
  const withSources = conditions.filter(({ on }) => withTheSources.has(on))
  const withOperations = conditions.filter(({ on }) => !withTheSources.has(on))
  const together = mode === 'strict' ? all : istioAll
  const read = (clauses: readonly Clause[]) => together(clauses.flatMap((clause) => readAt(rule, clause, at)))
  const permissions = branches(operations).map((operation) => asPermission(read([...operation, ...withOperations])))
  const principals = branches(sources).map((source) => {
    const requirement = read([...source, ...withSources])
    return asPrincipal(rule.requirePeer ? all([verifiedPeer, requirement]) : requirement)
  })
  const condition = rule.cel && toExpression(rule.cel.tree, { unknown: rule.action !== 'ALLOW', http: point === 'http' })
  return [[rule.id, { permissions, principals, ...(condition && { condition }) }]]
}

interface At {
  readonly mode: PolicyMode
  readonly point: Point
  /** There are tokens to be read, and nothing reads them. */
  readonly unread: boolean
}

function readAt(rule: CompiledRule, clause: Clause, { mode, point, unread }: At): Requirement[] {
  if (unread && aboutTokens.has(clause.on)) return [rule.action === 'ALLOW' ? not(always) : always]
  const unanswerable = point === 'tcp' && onlyHttp.has(clause.on)
  if (mode === 'istio') return unanswerable ? [] : [asIstioReads(rule, clause)]
  if (unanswerable) return [rule.action === 'ALLOW' ? not(always) : always]
  return [strictly(rule, clause)]
}

/** Istio writes a conjunction also around one thing, or nothing. */
const istioAll = (of: readonly Requirement[]): Requirement => ({ kind: 'all', of: of.length === 0 ? [always] : of })

const branches = <T>(list: 'any' | readonly (readonly T[])[]): readonly (readonly T[])[] => (list === 'any' ? [[]] : list)

const withTheSources: ReadonlySet<Clause['on']> = new Set(['peer', 'source.ip', 'remote.ip', 'header', 'request.auth.principal', 'claim'])

const aboutTokens: ReadonlySet<Clause['on']> = new Set(['request.auth.principal', 'claim'])

/** Where a token would be looked for, as Envoy's `jwt_authn` looks: anywhere in a header that has the prefix somewhere. */
function placesOfTokens({ fromHeaders, fromParams, fromCookies }: JwtRule): Requirement[] {
  const usual = fromHeaders.length + fromParams.length + fromCookies.length === 0
  const headers = usual ? [{ name: 'authorization', prefix: 'Bearer ' }] : fromHeaders
  return [
    ...headers.map(({ name, prefix }) => header(name.toLowerCase(), prefix === '' ? regex('.*') : containing(prefix))),
    ...(usual ? ['access_token'] : fromParams).map((name) => header(':path', regex(String.raw`[^?]*\?(?:.*&)?${quoted(name)}=.*`))),
    ...fromCookies.map((name) => header('cookie', regex(String.raw`(?:.*;[ \t]*)?${quoted(name)}=.*`))),
  ]
}

const matchingNothing: Policy = { permissions: [asPermission(not(always))], principals: [asPrincipal(not(always))] }

/** `PeerAuthentication` where the listener itself takes connections without mTLS (authorization.md 1.9). */
function plaintextDenials({ mtls }: CompiledPolicies): Named[] {
  const ports = (wanted: (mode: string) => boolean) =>
    oneOf(
      [...mtls.ports]
        .filter(([, mode]) => wanted(mode))
        .map(([value]) => ({ kind: 'permission', permission: { rule: { case: 'destinationPort', value } } })),
    )
  const strictEverywhere = mtls.mode === 'STRICT'
  if (!strictEverywhere && ![...mtls.ports.values()].includes('STRICT')) return []
  const where = strictEverywhere ? not(ports((mode) => mode !== 'STRICT')) : ports((mode) => mode === 'STRICT')
  return [denial('vidimus[plaintext]', asPermission(where), asPrincipal(not(verifiedPeer)))]
}

/** What strict mode refuses before any rule is read: what can be read in two ways, and what nobody knows. */
function strictDenials({ knownMethods, comparesPaths }: CompiledPolicies, { trustDomains, point }: Surroundings): Named[] {
  const several =
    trustDomains.length > 1 ? [denial('vidimus[several-trust-domains]', asPermission(always), asPrincipal(severalOf(trustDomains)))] : []
  if (point === 'tcp') return several
  const known = knownMethods.toSorted().map((value) => header(':method', exactly(value)))
  return [
    denial('vidimus[unknown-method]', asPermission(not(oneOf(known)))),
    denial('vidimus[unreadable-host]', asPermission(not(header(':authority', regex(hostPattern))))),
    denial('vidimus[repeated-authorization]', asPermission(header('authorization', regex(repeatedAuthorization)))),
    ...(comparesPaths ? [denial('vidimus[ambiguous-path]', asPermission(not(canonical)))] : []),
    ...several,
  ]
}

const denial = (id: string, permission: Permission, principal: Principal = asPrincipal(always)): Named => [
  id,
  { permissions: [permission], principals: [principal] },
]

/**
 * Envoy verifies a certificate by its first URI SAN and compares all of them: with two, a federated CA could put
 * a name of our trust domain beside its own.
 */
function severalOf(trustDomains: readonly TrustDomain[]): Requirement {
  const has = (name: TrustDomain) => uriSan(prefixed(`spiffe://${name}/`))
  return oneOf(trustDomains.flatMap((one, index) => trustDomains.slice(index + 1).map((other) => all([has(one), has(other)]))))
}

/** One clause as Istio reads it, and writes it: a disjunction also around one value. */
function asIstioReads(rule: CompiledRule, clause: Clause): Requirement {
  const said = <T>(list: readonly T[], make: (one: T) => Requirement) => notIf(clause.not, { kind: 'oneOf', of: list.map(make) })
  switch (clause.on) {
    case 'peer':
      return said(clause.anyOf, istioPeer)
    case 'header':
      return said(clause.anyOf, (match) => headerThat(clause.name, match))
    case 'host':
      return said(clause.anyOf, (match) => headerThat(':authority', match, { ignoreCase: true }))
    case 'path':
      return said(clause.anyOf, (match) => (match.kind === 'template' ? uriTemplate(match) : path(notEmpty(match))))
    case 'connection.sni':
      return said(clause.anyOf, (match) => serverName(notEmpty(match)))
    case 'request.auth.principal':
      return notIf(clause.not, oneOf(clause.anyOf.map(requestPrincipal)))
    case 'claim':
      return notIf(clause.not, claim(clause.path, clause.anyOf))
    case 'filter-metadata':
      return said([clause], (one) => filterMetadata(one))
    default:
      return plainly(rule, clause, said)
  }
}

/** One clause as strict mode reads it, of a request that can be read in one way only. */
function strictly(rule: CompiledRule, clause: Clause): Requirement {
  const said = (matches: readonly Requirement[]) => notIf(clause.not, oneOf(matches))
  switch (clause.on) {
    case 'peer':
      return strictPeers(rule, clause)
    case 'header':
      return strictHeader(rule, clause)
    case 'host':
      return said(clause.anyOf.map(strictHost))
    case 'path':
      return said(strictPaths(rule, clause))
    case 'connection.sni': {
      // Without a name nothing is known of it.
      const name = said(clause.anyOf.map((match) => serverName(notEmpty(match))))
      return rule.action === 'ALLOW' ? all([name, not(noServerName)]) : oneOf([name, noServerName])
    }
    case 'request.auth.principal':
    case 'claim': {
      const one = clause.on === 'claim' ? claim(clause.path, clause.anyOf) : oneOf(clause.anyOf.map(requestPrincipal))
      // As without a peer: who shows no token never satisfies a negation in an ALLOW rule, and always in any other.
      return clause.not && rule.action === 'ALLOW' ? all([anyToken, not(one)]) : notIf(clause.not, one)
    }
    case 'filter-metadata': {
      const known = metadata(clause.filter, [clause.key], { matchPattern: { case: 'presentMatch', value: true } })
      const one = notIf(clause.not, filterMetadata(clause))
      return rule.action === 'ALLOW' ? all([known, one]) : oneOf([not(known), one])
    }
    default:
      return plainly(rule, clause, (list, make) => notIf(clause.not, oneOf(list.map(make))))
  }
}

/** Clauses about what is always known: the same in both modes. */
function plainly(
  rule: CompiledRule,
  clause: Clause,
  said: <T>(list: readonly T[], make: (one: T) => Requirement) => Requirement,
): Requirement {
  switch (clause.on) {
    case 'method':
      return said(clause.anyOf, (match) => headerThat(':method', match))
    case 'destination.port':
      return said(clause.anyOf, (value) => ({ kind: 'permission', permission: { rule: { case: 'destinationPort', value } } }))
    case 'destination.ip':
      return said(clause.anyOf, (block) => ({ kind: 'permission', permission: { rule: { case: 'destinationIp', value: cidr(block) } } }))
    case 'source.ip':
      return said(clause.anyOf, (block) => ({
        kind: 'principal',
        principal: { identifier: { case: 'directRemoteIp', value: cidr(block) } },
      }))
    case 'remote.ip':
      return said(clause.anyOf, (block) => ({ kind: 'principal', principal: { identifier: { case: 'remoteIp', value: cidr(block) } } }))
    default:
      throw notEnforceable(rule, clause, 'it is not about a request at a workload')
  }
}

/** An unauthenticated peer never satisfies a negation in an ALLOW rule, and always in a DENY rule. */
function strictPeers({ action }: CompiledRule, clause: PeerClause): Requirement {
  const one = oneOf(clause.anyOf.map(strictPeer))
  if (!clause.not) return one
  return action === 'ALLOW' ? all([verifiedPeer, not(one)]) : not(one)
}

/** ALLOW needs every value of a repeated header to agree, DENY one of them. Envoy's matcher says "some value matches". */
function strictHeader(rule: CompiledRule, clause: HeaderClause): Requirement {
  const { name, anyOf } = clause
  const everyValue = clause.not === (rule.action !== 'ALLOW')
  return notIf(clause.not, everyValue ? everyValueMatches(rule, clause) : oneOf(anyOf.flatMap((match) => someValueMatches(name, match))))
}

/** The header is there, and none of its values is outside. */
function everyValueMatches(rule: CompiledRule, clause: HeaderClause): Requirement {
  const { name, anyOf } = clause
  const some = oneOf(anyOf.map((match) => headerThat(name, match)))
  if (anyOf.some(({ kind }) => kind === 'present')) return some
  const outside = noneOf(anyOf)
  if (outside === undefined) {
    const why =
      'each value of a repeated header must match here, and a proxy cannot tell that of prefixes beside suffixes or of characters outside of ASCII'
    throw notEnforceable(rule, clause, why)
  }
  const oneValue = isJoinedByEnvoy(name) && anyOf.some(({ kind }) => kind !== 'exact') ? [not(header(name, containing(',')))] : []
  return all([some, not(header(name, regex(outside))), ...oneValue])
}

/** A value, or a part of several that Envoy has joined. */
function someValueMatches(name: string, match: StringMatch): Requirement[] {
  const parts: Matcher[] = []
  if (isJoinedByEnvoy(name) && match.kind !== 'present') {
    const { kind, value } = match
    if (kind === 'exact') parts.push(prefixed(`${value},`), suffixed(`,${value}`), containing(`,${value},`))
    else parts.push(containing(kind === 'prefix' ? `,${value}` : `${value},`))
  }
  return [headerThat(name, match), ...parts.map((part) => header(name, part))]
}

/** A host without its port and trailing dot, unless the pattern says something about the port. */
function strictHost(match: StringMatch): Requirement {
  if (match.kind === 'present') return always
  const colon = namesPort(match) ? match.value.lastIndexOf(':') : match.value.length
  const name = `${match.kind === 'suffix' ? '.*' : ''}(?i:${quoted(match.value.slice(0, colon))})`
  const port = quoted(match.value.slice(colon))
  if (port !== '') return header(':authority', regex(String.raw`${name}\.?${port}${match.kind === 'prefix' ? '.*' : ''}`))
  if (match.kind === 'prefix') return header(':authority', { ...prefixed(match.value), ignoreCase: true })
  return header(':authority', regex(String.raw`${name}\.?(?::[0-9]+)?`))
}

function strictPaths({ action }: CompiledRule, clause: PathClause): Requirement[] {
  // What finds too much here finds too little where it is negated.
  const atLeast = (action !== 'ALLOW') !== clause.not
  return clause.anyOf.map((match) => strictPath(match, atLeast))
}

/** A folded pattern against a path that is canonical, but not folded. Where it cannot be exact, it finds too much or too little as `atLeast` says. */
function strictPath(match: PathMatch, atLeast: boolean): Requirement {
  switch (match.kind) {
    case 'present':
      return always
    case 'template':
      return path(regex(templated(match.parts, spellings)))
    case 'exact':
      return path(hasOneSpelling(match.value) ? exactly(match.value) : regex(spellings(match.value)))
    case 'prefix':
      return path(hasOneSpelling(match.value) ? prefixed(match.value) : regex(`${spellings(match.value)}.*`))
    case 'suffix': {
      const ending = path(hasOneSpelling(match.value) ? suffixed(match.value) : regex(`.*${spellings(match.value)}`))
      if (!/^[0-9A-Fa-f]/.test(match.value)) return ending
      // Its first characters may be the digits of an escape.
      const insideAnEscape = path(regex(`.*%[0-9A-Fa-f]?(?i:${quoted(match.value.slice(0, 2))})${spellings(match.value.slice(2))}`))
      return atLeast ? oneOf([ending, insideAnEscape]) : all([ending, not(insideAnEscape)])
    }
    default:
      throw new Error(`bug: path match ${JSON.stringify(match satisfies never)}`)
  }
}

function strictPeer(match: PeerMatch): Requirement {
  switch (match.kind) {
    case 'any':
      return verifiedPeer
    case 'id':
      return uriSan(exactly(match.id))
    case 'template':
      return uriSan(regex(templated(match.parts)))
    case 'below':
      return uriSan(prefixed(match.prefix))
    case 'ending':
      // The slashes of the scheme are no part of the name.
      return uriSan(regex(`spiffe://.*${quoted(match.suffix)}`))
    case 'namespace':
      return uriSan(regex(`spiffe://[^/]+/ns/${globbed(match.glob, '[^/]*')}/sa/[^/]+`))
    case 'trust-domain':
      return match.glob === '*' ? verifiedPeer : uriSan(regex(`spiffe://${globbed(match.glob, '[^/]*')}/.*`))
    case 'service-account':
      return uriSan(regex(`spiffe://[^/]+/ns/${quoted(match.namespace)}/sa/${quoted(match.name)}`))
    case 'principal':
      throw new Error('bug: a principal of istio mode in strict mode')
    default:
      throw new Error(`bug: peer match ${JSON.stringify(match satisfies never)}`)
  }
}

/** Istio's kinds look through every name of the certificate; ours are typed in this mode, too. */
function istioPeer(match: PeerMatch): Requirement {
  switch (match.kind) {
    case 'any':
      return authenticated(regex('.+'))
    case 'id':
    case 'template':
    case 'ending':
      return strictPeer(match)
    case 'below':
      return authenticated(prefixed(match.prefix))
    case 'namespace':
      return authenticated(regex(`.*/ns/${globbed(match.glob, '.*')}/.*`))
    case 'trust-domain':
      return authenticated(istioTrustDomain(match.glob))
    case 'service-account':
      return authenticated(regex(`spiffe://.+/ns/${quoted(match.namespace)}/(.+/|)sa/${quoted(match.name)}(/.+)?`))
    case 'principal':
      return authenticated(istioPrincipal(match.match))
    default:
      throw new Error(`bug: peer match ${JSON.stringify(match satisfies never)}`)
  }
}

function istioTrustDomain(glob: string): Matcher {
  if (glob === '*') return prefixed('spiffe://')
  return glob.includes('*') ? regex(`spiffe://${globbed(glob, '[^/]*')}/.*`) : prefixed(`spiffe://${glob}/`)
}

/** `*` has no `spiffe://` put before it. */
function istioPrincipal(match: StringMatch): Matcher {
  switch (match.kind) {
    case 'present':
      return regex('.+')
    case 'suffix':
      return regex(`spiffe://.*${quoted(match.value)}`)
    case 'prefix':
      return prefixed(`spiffe://${match.value}`)
    case 'exact':
      return exactly(`spiffe://${match.value}`)
    default:
      throw new Error(`bug: principal ${JSON.stringify(match satisfies never)}`)
  }
}

function notEnforceable(rule: CompiledRule, clause: Clause, why: string): Failure {
  const { document, line, column } = clause.place
  return new Failure('failed_precondition', 'rbac.not-enforceable', {
    public: `\`${clause.field}\` of policy \`${rule.policy}\` (${document}:${line}:${column}) cannot be enforced by a proxy: ${why}`,
    internal: { rule: rule.id },
  })
}

const exactly = (value: string): Matcher => ({ matchPattern: { case: 'exact', value } })
const prefixed = (value: string): Matcher => ({ matchPattern: { case: 'prefix', value } })
const suffixed = (value: string): Matcher => ({ matchPattern: { case: 'suffix', value } })
const containing = (value: string): Matcher => ({ matchPattern: { case: 'contains', value } })
const regex = (expression: string): Matcher => ({ matchPattern: { case: 'safeRegex', value: { regex: expression } } })

/** For paths and server names `*` is Istio's `.+`: there, and not empty. */
const notEmpty = (match: StringMatch): Matcher =>
  match.kind === 'present' ? regex('.+') : { matchPattern: { case: match.kind, value: match.value } }

const header = (name: string, value: Matcher): Requirement => ({
  kind: 'header',
  matcher: { name, headerMatchSpecifier: { case: 'stringMatch', value } },
})

/** For headers, methods and hosts `*` is "there", and may be empty. */
function headerThat(name: string, match: StringMatch, options: { readonly ignoreCase?: boolean } = {}): Requirement {
  if (match.kind === 'present') return { kind: 'header', matcher: { name, headerMatchSpecifier: { case: 'presentMatch', value: true } } }
  return header(name, { matchPattern: { case: match.kind, value: match.value }, ...options })
}

const path = (matcher: Matcher): Requirement => ({ kind: 'path', matcher })
const serverName = (value: Matcher): Requirement => ({ kind: 'permission', permission: { rule: { case: 'requestedServerName', value } } })
const noServerName = serverName(exactly(''))

function uriTemplate(template: Template): Requirement {
  const pathTemplate = template.text.replaceAll('{**}', '**').replaceAll('{*}', '*')
  const typedConfig = anyPack(UriTemplateMatchConfigSchema, create(UriTemplateMatchConfigSchema, { pathTemplate }))
  return {
    kind: 'permission',
    permission: { rule: { case: 'uriTemplate', value: { name: 'envoy.path.match.uri_template.uri_template_matcher', typedConfig } } },
  }
}

const anyText: StringMatch = { kind: 'present' }

type MetadataValue = MessageInitShape<typeof ValueMatcherSchema>

const metadata = (filter: string, keys: readonly string[], value: MetadataValue): Requirement => ({
  kind: 'metadata',
  matcher: { filter, path: keys.map((key) => ({ segment: { case: 'key', value: key } })), value },
})

const textValue = (match: StringMatch): MetadataValue => ({ matchPattern: { case: 'stringMatch', value: notEmpty(match) } })

const oneValue = (valueMatchers: MetadataValue[]): MetadataValue =>
  valueMatchers.length === 1 ? valueMatchers[0]! : { matchPattern: { case: 'orMatch', value: { valueMatchers } } }

const inList = (value: MetadataValue): MetadataValue => ({
  matchPattern: { case: 'listMatch', value: { matchPattern: { case: 'oneOf', value } } },
})

/** A claim is a text or a list of them (authorization.md 1.3). */
function claim(keys: readonly string[], matches: readonly StringMatch[]): Requirement {
  const value = oneValue(matches.map(textValue))
  return metadata(tokenFilter, ['payload', ...keys], oneValue([inList(value), value]))
}

const requestPrincipal = ({ issuer, subject }: RequestPrincipalMatch): Requirement => ({
  kind: 'all',
  of: [metadata(tokenFilter, ['payload', 'iss'], textValue(issuer)), metadata(tokenFilter, ['payload', 'sub'], textValue(subject))],
})

const tokenFilter = 'envoy.filters.http.jwt_authn'
const anyToken = metadata(tokenFilter, ['payload', 'iss'], textValue(anyText))

function filterMetadata({ filter, key, anyOf }: FilterMetadataClause): Requirement {
  return metadata(filter, [key], oneValue(anyOf.map(({ inList: listed, match }) => (listed ? inList(textValue(match)) : textValue(match)))))
}

/** The typed way: a URI SAN, and only of a certificate that was validated. */
function uriSan(matcher: Matcher): Requirement {
  const config = create(MtlsAuthenticatedSchema, {
    type: { case: 'sanMatcher', value: { sanType: SubjectAltNameMatcher_SanType.URI, matcher } },
  })
  const value = { name: 'envoy.rbac.principals.mtls_authenticated', typedConfig: anyPack(MtlsAuthenticatedSchema, config) }
  return { kind: 'principal', principal: { identifier: { case: 'custom', value } } }
}

const verifiedPeer = uriSan(prefixed('spiffe://'))

/** Istio's way: any URI SAN, any DNS SAN, or the subject. */
const authenticated = (principalName: Matcher): Requirement => ({
  kind: 'principal',
  principal: { identifier: { case: 'authenticated', value: { principalName } } },
})

function cidr({ bytes, bits }: AddressBlock) {
  const groups = Array.from({ length: bytes.length / 2 }, (_, index) => ((bytes[index * 2]! << 8) | bytes[index * 2 + 1]!).toString(16))
  return { addressPrefix: bytes.length === 4 ? bytes.join('.') : groups.join(':'), prefixLen: bits }
}

const canonical = all([...canonicalPath.must.map((one) => path(regex(one))), ...canonicalPath.mustNot.map((one) => not(path(regex(one))))])
