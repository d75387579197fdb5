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
import type { CompiledPolicies } from '../policy/compile.ts'
import type { CompiledRule } from '../policy/compiled-rule.ts'
import { hostPattern, namesPort } from '../policy/evaluate.ts'
import type { AddressBlock, PathMatch, StringMatch, Template } from '../policy/matching.ts'
import { canonicalPath } from '../policy/normalize.ts'
import type { Clause, HeaderClause, PathClause, PeerClause, PeerMatch } from '../policy/policy-set.ts'
import { type PolicySchema, RBAC_Action } from '../rpc/gen/envoy/config/rbac/v3/rbac_pb.ts'
import { type RBAC, RBACSchema } from '../rpc/gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.ts'
import { UriTemplateMatchConfigSchema } from '../rpc/gen/envoy/extensions/path/match/uri_template/v3/uri_template_match_pb.ts'
import { ConfigSchema as MtlsAuthenticatedSchema } from '../rpc/gen/envoy/extensions/rbac/principals/mtls_authenticated/v3/mtls_authenticated_pb.ts'
import { SubjectAltNameMatcher_SanType } from '../rpc/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { isJoinedByEnvoy, repeatedAuthorization } from './joined-headers.ts'
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

export interface RbacFilters {
  readonly deny: RBAC
  /** Without a rule it allows nothing. */
  readonly allow: RBAC
}

/**
 * `trustDomains` are those whose certificates the proxy accepts: ours and the federated ones.
 * @throws Failure `rbac.not-enforceable` where Envoy cannot decide as the evaluator does; nothing is left out instead
 */
export function rbacFilters(compiled: CompiledPolicies, trustDomains: readonly TrustDomain[]): RbacFilters {
  const unsaid = [...compiled.custom, ...compiled.audit, ...compiled.deny, ...compiled.allow].find(
    ({ action, cel }) => cel || action === 'CUSTOM',
  )
  if (unsaid)
    throw new Failure('failed_precondition', 'rbac.not-enforceable', { public: `the rule \`${unsaid.id}\` cannot be enforced by a proxy` })
  return compiled.mode === 'strict' ? strictFilters(compiled, trustDomains) : istioFilters(compiled)
}

/** Allows nothing: for a workload whose policies are not known, or cannot be enforced. */
export function refuseEverything(): RbacFilters {
  return { deny: create(RBACSchema), allow: filter(RBAC_Action.ALLOW, []) }
}

type Policy = MessageInitShape<typeof PolicySchema>
type Named = readonly [id: string, policy: Policy]

function istioFilters({ deny, allow, allowSelected }: CompiledPolicies): RbacFilters {
  const policies = (rules: readonly CompiledRule[]) => rules.flatMap((rule) => policyOf(rule, (clause) => asIstioReads(rule, clause)))
  return {
    deny: deny.length === 0 ? create(RBACSchema) : filter(RBAC_Action.DENY, policies(deny)),
    allow: allowSelected ? filter(RBAC_Action.ALLOW, policies(allow)) : create(RBACSchema),
  }
}

function strictFilters(compiled: CompiledPolicies, trustDomains: readonly TrustDomain[]): RbacFilters {
  const policies = (rules: readonly CompiledRule[]) => rules.flatMap((rule) => policyOf(rule, (clause) => strictly(rule, clause)))
  return {
    deny: filter(RBAC_Action.DENY, [...strictDenials(compiled, trustDomains), ...policies(compiled.deny)]),
    allow: filter(RBAC_Action.ALLOW, policies(compiled.allow)),
  }
}

const filter = (action: RBAC_Action, named: readonly Named[]): RBAC =>
  create(RBACSchema, { rules: { action, policies: Object.fromEntries(named) } })

/** One rule as an Envoy policy: operations are permissions, sources principals, and conditions go where Istio puts them. None for a rule that nothing matches. */
function policyOf(rule: CompiledRule, read: (clause: Clause) => Requirement): Named[] {
  const { sources, operations, conditions } = rule
  if ((sources !== 'any' && sources.length === 0) || (operations !== 'any' && operations.length === 0)) return []
  const withSources = conditions.filter(({ on }) => withTheSources.has(on))
  const withOperations = conditions.filter(({ on }) => !withTheSources.has(on))
  const peer = rule.requirePeer ? [verifiedPeer] : []
  const permissions = branches(operations).map((operation) => asPermission(all([...operation, ...withOperations].map(read))))
  const principals = branches(sources).map((source) => asPrincipal(all([...peer, ...[...source, ...withSources].map(read)])))
  return [[rule.id, { permissions, principals }]]
}

const branches = <T>(list: 'any' | readonly (readonly T[])[]): readonly (readonly T[])[] => (list === 'any' ? [[]] : list)

const withTheSources: ReadonlySet<Clause['on']> = new Set(['peer', 'source.ip', 'remote.ip', 'header'])

/** What strict mode refuses before any rule is read: what can be read in two ways, and what nobody knows. */
function strictDenials({ knownMethods, comparesPaths }: CompiledPolicies, trustDomains: readonly TrustDomain[]): Named[] {
  const known = knownMethods.toSorted().map((value) => header(':method', exactly(value)))
  return [
    denial('vidimus[unknown-method]', asPermission(not(oneOf(known)))),
    denial('vidimus[unreadable-host]', asPermission(not(header(':authority', regex(hostPattern))))),
    denial('vidimus[repeated-authorization]', asPermission(header('authorization', regex(repeatedAuthorization)))),
    ...(comparesPaths ? [denial('vidimus[ambiguous-path]', asPermission(not(canonical)))] : []),
    ...(trustDomains.length > 1
      ? [denial('vidimus[several-trust-domains]', asPermission(always), asPrincipal(severalOf(trustDomains)))]
      : []),
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

/** One clause as Istio reads it. */
function asIstioReads(rule: CompiledRule, clause: Clause): Requirement {
  const { not: negated } = clause
  switch (clause.on) {
    case 'peer':
      return notIf(negated, oneOf(clause.anyOf.map(istioPeer)))
    case 'header':
      return notIf(negated, oneOf(clause.anyOf.map((match) => headerThat(clause.name, match))))
    case 'host':
      return notIf(negated, oneOf(clause.anyOf.map((match) => headerThat(':authority', match, { ignoreCase: true }))))
    case 'path':
      return notIf(negated, oneOf(clause.anyOf.map((match) => (match.kind === 'template' ? uriTemplate(match) : path(notEmpty(match))))))
    case 'connection.sni':
      return notIf(negated, oneOf(clause.anyOf.map((match) => serverName(notEmpty(match)))))
    default:
      return plainly(rule, clause)
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
    default:
      return plainly(rule, clause)
  }
}

/** Clauses about what is always known: the same in both modes. */
function plainly(rule: CompiledRule, clause: Clause): Requirement {
  const said = <T>(list: readonly T[], make: (one: T) => Requirement) => notIf(clause.not, oneOf(list.map(make)))
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
  const everyValue = clause.not === (rule.action === 'DENY')
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
  const atLeast = (action === 'DENY') !== clause.not
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
      return uriSan(suffixed(match.suffix))
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
