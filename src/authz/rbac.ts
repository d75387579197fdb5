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
import type { CompiledPolicies, CompiledRule } from '../policy/compile.ts'
import { namesPort } from '../policy/evaluate.ts'
import type { AddressBlock, PathMatch, StringMatch, Template } from '../policy/matching.ts'
import { canonicalPath } from '../policy/normalize.ts'
import type {
  Clause,
  Condition,
  HeaderClause,
  HostClause,
  PathClause,
  PeerClause,
  PeerMatch,
  PolicyMode,
  SniClause,
} from '../policy/policy-set.ts'
import { type PermissionSchema, type PolicySchema, type PrincipalSchema, RBAC_Action } from '../rpc/gen/envoy/config/rbac/v3/rbac_pb.ts'
import { type RBAC, RBACSchema } from '../rpc/gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.ts'
import { UriTemplateMatchConfigSchema } from '../rpc/gen/envoy/extensions/path/match/uri_template/v3/uri_template_match_pb.ts'
import { ConfigSchema as MtlsAuthenticatedSchema } from '../rpc/gen/envoy/extensions/rbac/principals/mtls_authenticated/v3/mtls_authenticated_pb.ts'
import { SubjectAltNameMatcher_SanType } from '../rpc/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.ts'
import type { StringMatcherSchema } from '../rpc/gen/envoy/type/matcher/v3/matcher_pb.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { isJoinedByEnvoy, repeatedAuthorization } from './joined-headers.ts'
import { dotSegments, hasOneSpelling, plainPath, spellings } from './paths.ts'
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
  const denials = [...(compiled.mode === 'strict' ? strictDenials(compiled, trustDomains) : []), ...policies(compiled.deny, compiled.mode)]
  const open = compiled.mode === 'istio' && !compiled.allowSelected
  return {
    deny: denials.length === 0 ? create(RBACSchema) : filter(RBAC_Action.DENY, denials),
    allow: open ? create(RBACSchema) : filter(RBAC_Action.ALLOW, policies(compiled.allow, compiled.mode)),
  }
}

/** Allows nothing: for a workload whose policies are not known, or cannot be enforced. */
export function refuseEverything(): RbacFilters {
  return { deny: create(RBACSchema), allow: filter(RBAC_Action.ALLOW, []) }
}

type Permission = MessageInitShape<typeof PermissionSchema>
type Principal = MessageInitShape<typeof PrincipalSchema>
type Policy = MessageInitShape<typeof PolicySchema>
type Matcher = MessageInitShape<typeof StringMatcherSchema>
type Named = readonly [id: string, policy: Policy]

const filter = (action: RBAC_Action, named: readonly Named[]): RBAC =>
  create(RBACSchema, { rules: { action, policies: Object.fromEntries(named) } })

const policies = (rules: readonly CompiledRule[], mode: PolicyMode): Named[] =>
  rules.flatMap((rule) => {
    const policy = (mode === 'strict' ? new StrictRule(rule) : new IstioRule(rule)).policy()
    return policy ? [[rule.id, policy] as const] : []
  })

/** What strict mode refuses before any rule is read. */
function strictDenials({ knownMethods }: CompiledPolicies, trustDomains: readonly TrustDomain[]): Named[] {
  const known = [...knownMethods].toSorted().map((value) => header(':method', exactly(value)))
  const denials: Named[] = [
    ['vidimus[unknown-method]', { permissions: [permission.not(permission.anyOf(known))], principals: [principal.any] }],
    [
      'vidimus[repeated-authorization]',
      { permissions: [header('authorization', regex(repeatedAuthorization))], principals: [principal.any] },
    ],
  ]
  if (trustDomains.length > 1) {
    denials.push(['vidimus[several-trust-domains]', { permissions: [permission.any], principals: [severalOf(trustDomains)] }])
  }
  return denials
}

/**
 * Envoy verifies a certificate by its first URI SAN and compares all of them: with two, a federated CA could put
 * a name of our trust domain beside its own.
 */
function severalOf(trustDomains: readonly TrustDomain[]): Principal {
  const has = (name: TrustDomain) => uriSan(prefixed(`spiffe://${name}/`))
  return principal.anyOf(
    trustDomains.flatMap((one, index) => trustDomains.slice(index + 1).map((other) => principal.allOf([has(one), has(other)]))),
  )
}

/** One rule as an Envoy policy: its operations are permissions, its sources principals, and its conditions go where Istio puts them. */
abstract class RuleReader {
  readonly rule: CompiledRule

  constructor(rule: CompiledRule) {
    this.rule = rule
  }

  /** Nothing for a rule that nothing can match. */
  policy(): Policy | undefined {
    const { sources, operations, conditions, requirePeer } = this.rule
    if ((sources !== 'any' && sources.length === 0) || (operations !== 'any' && operations.length === 0)) return undefined
    const withSources = conditions.filter(({ on }) => withTheSources.has(on))
    const withOperations = conditions.filter(({ on }) => !withTheSources.has(on))
    const peer = requirePeer ? [verifiedPeer] : []
    return {
      permissions: (operations === 'any' ? [[]] : operations).map((operation) =>
        permission.allOf([...operation, ...withOperations].map((clause) => this.#permission(clause))),
      ),
      principals: (sources === 'any' ? [[]] : sources).map((source) =>
        principal.allOf([...peer, ...[...source, ...withSources].map((clause) => this.#principal(clause))]),
      ),
    }
  }

  #permission(clause: Clause): Permission {
    const oneOf = <T>(list: readonly T[], make: (one: T) => Permission) => permission.notIf(clause.not, permission.anyOf(list.map(make)))
    switch (clause.on) {
      case 'host':
        return this.host(clause)
      case 'path':
        return this.path(clause)
      case 'connection.sni':
        return this.sni(clause)
      case 'method':
        return oneOf(clause.anyOf, (match) => headerThat(':method', match))
      case 'destination.port':
        return oneOf(clause.anyOf, (value) => ({ rule: { case: 'destinationPort', value } }))
      case 'destination.ip':
        return oneOf(clause.anyOf, (block) => ({ rule: { case: 'destinationIp', value: cidr(block) } }))
      default:
        throw this.notEnforceable(clause, 'it is not about a request at a workload')
    }
  }

  #principal(clause: Clause): Principal {
    const oneOf = <T>(list: readonly T[], make: (one: T) => Principal) => principal.notIf(clause.not, principal.anyOf(list.map(make)))
    switch (clause.on) {
      case 'peer':
        return this.peer(clause)
      case 'header':
        return this.header(clause)
      case 'source.ip':
        return oneOf(clause.anyOf, (block) => ({ identifier: { case: 'directRemoteIp', value: cidr(block) } }))
      case 'remote.ip':
        return oneOf(clause.anyOf, (block) => ({ identifier: { case: 'remoteIp', value: cidr(block) } }))
      default:
        throw this.notEnforceable(clause, 'it is not about a request at a workload')
    }
  }

  abstract host(clause: HostClause): Permission
  abstract path(clause: PathClause): Permission
  abstract sni(clause: SniClause): Permission
  abstract peer(clause: PeerClause): Principal
  abstract header(clause: HeaderClause): Principal

  notEnforceable(clause: Clause, why: string): Failure {
    const { document, line, column } = clause.place
    return new Failure('failed_precondition', 'rbac.not-enforceable', {
      public: `\`${clause.field}\` of policy \`${this.rule.policy}\` (${document}:${line}:${column}) cannot be enforced by a proxy: ${why}`,
      internal: { rule: this.rule.id },
    })
  }
}

/** As Istio does it (authorization.md 1.3). */
class IstioRule extends RuleReader {
  host({ anyOf, not }: HostClause): Permission {
    return permission.notIf(not, permission.anyOf(anyOf.map((match) => headerThat(':authority', match, { ignoreCase: true }))))
  }

  path({ anyOf, not }: PathClause): Permission {
    return permission.notIf(
      not,
      permission.anyOf(anyOf.map((match) => (match.kind === 'template' ? uriTemplate(match) : urlPath(notEmpty(match))))),
    )
  }

  sni({ anyOf, not }: SniClause): Permission {
    return permission.notIf(not, permission.anyOf(anyOf.map((match) => serverName(notEmpty(match)))))
  }

  peer({ anyOf, not }: PeerClause): Principal {
    return principal.notIf(not, principal.anyOf(anyOf.map(istioPeer)))
  }

  header({ anyOf, not, name }: HeaderClause): Principal {
    return principal.notIf(not, principal.anyOf(anyOf.map((match) => sourceHeaderThat(name, match))))
  }
}

/** What is unknown fails a clause of an ALLOW rule and holds it in a DENY rule, negated or not. */
class StrictRule extends RuleReader {
  /** `known` says where the matches mean anything at all. */
  #permission(not: boolean, matches: readonly Permission[], known: Permission): Permission {
    const said = permission.notIf(not, permission.anyOf(matches))
    return this.rule.action === 'ALLOW' ? permission.allOf([said, known]) : permission.anyOf([said, permission.not(known)])
  }

  host({ anyOf, not }: HostClause): Permission {
    return this.#permission(not, anyOf.map(strictHost), header(':authority', regex(hostThatCanBeRead)))
  }

  path(clause: PathClause): Permission {
    // What matches too much here is negated there, so the two sides need two readings.
    const atLeast = (this.rule.action === 'DENY') !== clause.not
    return this.#permission(
      clause.not,
      clause.anyOf.map((match) => strictPath(match, atLeast)),
      canonical,
    )
  }

  sni({ anyOf, not }: SniClause): Permission {
    return this.#permission(
      not,
      anyOf.map((match) => serverName(notEmpty(match))),
      serverName(regex('.+')),
    )
  }

  /** An unauthenticated peer never satisfies a negation in an ALLOW rule, and always in a DENY rule. */
  peer({ anyOf, not }: PeerClause): Principal {
    const one = principal.anyOf(anyOf.map(strictPeer))
    if (!not) return one
    return this.rule.action === 'ALLOW' ? principal.allOf([verifiedPeer, principal.not(one)]) : principal.not(one)
  }

  /** ALLOW needs every value of a repeated header to agree, DENY one of them. Envoy's matcher says "some value matches". */
  header(clause: HeaderClause): Principal {
    const { name, anyOf, not } = clause
    const everyValue = not === (this.rule.action === 'DENY')
    return principal.notIf(not, everyValue ? this.#everyValue(clause) : principal.anyOf(anyOf.flatMap((match) => someValue(name, match))))
  }

  /** The header is there, and none of its values is outside. */
  #everyValue(clause: HeaderClause): Principal {
    const { name, anyOf } = clause
    const some = principal.anyOf(anyOf.map((match) => sourceHeaderThat(name, match)))
    if (anyOf.some(({ kind }) => kind === 'present')) return some
    const outside = noneOf(anyOf)
    if (outside === undefined) {
      throw this.notEnforceable(
        clause,
        'each value of a repeated header must match here, and a proxy cannot tell that of prefixes beside suffixes or of characters outside of ASCII',
      )
    }
    const inside = principal.not(sourceHeader(name, regex(outside)))
    const oneValue =
      isJoinedByEnvoy(name) && anyOf.some(({ kind }) => kind !== 'exact') ? [principal.not(sourceHeader(name, containing(',')))] : []
    return principal.allOf([some, inside, ...oneValue])
  }
}

/** Where Istio puts these conditions of `when`; the others go with the operations. */
const withTheSources: ReadonlySet<Condition['on']> = new Set(['peer', 'source.ip', 'remote.ip', 'header'])

/** A value, or a part of several that Envoy has joined. */
function someValue(name: string, match: StringMatch): Principal[] {
  const parts: Matcher[] = []
  if (isJoinedByEnvoy(name) && match.kind !== 'present') {
    const { kind, value } = match
    if (kind === 'exact') parts.push(prefixed(`${value},`), suffixed(`,${value}`), containing(`,${value},`))
    else parts.push(containing(kind === 'prefix' ? `,${value}` : `${value},`))
  }
  return [sourceHeaderThat(name, match), ...parts.map((part) => sourceHeader(name, part))]
}

/** A host without its port and trailing dot, unless the pattern says something about the port. */
function strictHost(match: StringMatch): Permission {
  if (match.kind === 'present') return permission.any
  const colon = namesPort(match) ? match.value.lastIndexOf(':') : match.value.length
  const name = `(?i:${quoted(match.value.slice(0, colon))})`
  const port = quoted(match.value.slice(colon))
  if (port === '') {
    if (match.kind === 'prefix') return header(':authority', prefixed(match.value), { ignoreCase: true })
    return header(':authority', regex(String.raw`${match.kind === 'suffix' ? '.*' : ''}${name}\.?(?::[0-9]+)?`))
  }
  return header(
    ':authority',
    regex(String.raw`${match.kind === 'suffix' ? '.*' : ''}${name}\.?${port}${match.kind === 'prefix' ? '.*' : ''}`),
  )
}

/** A folded pattern against a path that is normalised and canonical, but not folded. Where it cannot be exact, `atLeast` finds too much and its absence too little. */
function strictPath(match: PathMatch, atLeast: boolean): Permission {
  switch (match.kind) {
    case 'present':
      return permission.any
    case 'template':
      return urlPath(regex(templated(match.parts, spellings)))
    case 'exact':
      return urlPath(hasOneSpelling(match.value) ? exactly(match.value) : regex(spellings(match.value)))
    case 'prefix':
      return urlPath(hasOneSpelling(match.value) ? prefixed(match.value) : regex(`${spellings(match.value)}.*`))
    case 'suffix': {
      const ending = urlPath(hasOneSpelling(match.value) ? suffixed(match.value) : regex(`.*${spellings(match.value)}`))
      if (!/^[0-9A-Fa-f]/.test(match.value)) return ending
      // Its first characters may be the digits of an escape.
      const insideAnEscape = urlPath(regex(`.*%[0-9A-Fa-f]?(?i:${quoted(match.value.slice(0, 2))})${spellings(match.value.slice(2))}`))
      return atLeast ? permission.anyOf([ending, insideAnEscape]) : permission.allOf([ending, permission.not(insideAnEscape)])
    }
    default:
      throw new Error(`bug: path match ${JSON.stringify(match satisfies never)}`)
  }
}

function strictPeer(match: PeerMatch): Principal {
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
    case 'service-account':
      return uriSan(regex(`spiffe://[^/]+/ns/${quoted(match.namespace)}/sa/${quoted(match.name)}`))
    case 'principal':
      throw new Error('bug: a principal of istio mode in strict mode')
    default:
      throw new Error(`bug: peer match ${JSON.stringify(match satisfies never)}`)
  }
}

/** Istio's kinds look through every name of the certificate; ours are typed in this mode, too. */
function istioPeer(match: PeerMatch): Principal {
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
    case 'service-account':
      return authenticated(regex(`spiffe://.+/ns/${quoted(match.namespace)}/(.+/|)sa/${quoted(match.name)}(/.+)?`))
    case 'principal':
      return authenticated(istioPrincipal(match.match))
    default:
      throw new Error(`bug: peer match ${JSON.stringify(match satisfies never)}`)
  }
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

// The two halves of an Envoy policy have the same connectives under different names.

const permission = {
  any: { rule: { case: 'any', value: true } } satisfies Permission as Permission,
  not: (one: Permission): Permission => ({ rule: { case: 'notRule', value: one } }),
  notIf: (not: boolean, one: Permission): Permission => (not ? permission.not(one) : one),
  allOf: (list: readonly Permission[]): Permission =>
    list.length < 2 ? (list[0] ?? permission.any) : { rule: { case: 'andRules', value: { rules: [...list] } } },
  anyOf: (list: readonly Permission[]): Permission =>
    list.length < 2 ? (list[0] ?? permission.not(permission.any)) : { rule: { case: 'orRules', value: { rules: [...list] } } },
}

const principal = {
  any: { identifier: { case: 'any', value: true } } satisfies Principal as Principal,
  not: (one: Principal): Principal => ({ identifier: { case: 'notId', value: one } }),
  notIf: (not: boolean, one: Principal): Principal => (not ? principal.not(one) : one),
  allOf: (list: readonly Principal[]): Principal =>
    list.length < 2 ? (list[0] ?? principal.any) : { identifier: { case: 'andIds', value: { ids: [...list] } } },
  anyOf: (list: readonly Principal[]): Principal =>
    list.length < 2 ? (list[0] ?? principal.not(principal.any)) : { identifier: { case: 'orIds', value: { ids: [...list] } } },
}

const exactly = (value: string): Matcher => ({ matchPattern: { case: 'exact', value } })
const prefixed = (value: string): Matcher => ({ matchPattern: { case: 'prefix', value } })
const suffixed = (value: string): Matcher => ({ matchPattern: { case: 'suffix', value } })
const containing = (value: string): Matcher => ({ matchPattern: { case: 'contains', value } })
const regex = (expression: string): Matcher => ({ matchPattern: { case: 'safeRegex', value: { regex: expression } } })

/** For paths and server names `*` is Istio's `.+`: there, and not empty. */
const notEmpty = (match: StringMatch): Matcher =>
  match.kind === 'present' ? regex('.+') : { matchPattern: { case: match.kind, value: match.value } }

interface Options {
  readonly ignoreCase?: boolean
}

/** For headers, methods and hosts `*` is "there", and may be empty. */
const headerMatch = (name: string, match: StringMatch, options: Options) =>
  match.kind === 'present'
    ? ({ name, headerMatchSpecifier: { case: 'presentMatch', value: true } } as const)
    : ({
        name,
        headerMatchSpecifier: { case: 'stringMatch', value: { matchPattern: { case: match.kind, value: match.value }, ...options } },
      } as const)

const headerThat = (name: string, match: StringMatch, options: Options = {}): Permission => ({
  rule: { case: 'header', value: headerMatch(name, match, options) },
})
const sourceHeaderThat = (name: string, match: StringMatch): Principal => ({
  identifier: { case: 'header', value: headerMatch(name, match, {}) },
})
const header = (name: string, value: Matcher, options: Options = {}): Permission => ({
  rule: { case: 'header', value: { name, headerMatchSpecifier: { case: 'stringMatch', value: { ...value, ...options } } } },
})
const sourceHeader = (name: string, value: Matcher): Principal => ({
  identifier: { case: 'header', value: { name, headerMatchSpecifier: { case: 'stringMatch', value } } },
})
const urlPath = (value: Matcher): Permission => ({ rule: { case: 'urlPath', value: { rule: { case: 'path', value } } } })
const serverName = (value: Matcher): Permission => ({ rule: { case: 'requestedServerName', value } })

function uriTemplate(template: Template): Permission {
  const pathTemplate = template.text.replaceAll('{**}', '**').replaceAll('{*}', '*')
  const typedConfig = anyPack(UriTemplateMatchConfigSchema, create(UriTemplateMatchConfigSchema, { pathTemplate }))
  return { rule: { case: 'uriTemplate', value: { name: 'envoy.path.match.uri_template.uri_template_matcher', typedConfig } } }
}

/** The typed way: a URI SAN, and only of a certificate that was validated. */
function uriSan(matcher: Matcher): Principal {
  const config = create(MtlsAuthenticatedSchema, {
    type: { case: 'sanMatcher', value: { sanType: SubjectAltNameMatcher_SanType.URI, matcher } },
  })
  return {
    identifier: {
      case: 'custom',
      value: { name: 'envoy.rbac.principals.mtls_authenticated', typedConfig: anyPack(MtlsAuthenticatedSchema, config) },
    },
  }
}

const verifiedPeer: Principal = uriSan(prefixed('spiffe://'))

/** Istio's way: any URI SAN, any DNS SAN, or the subject. */
const authenticated = (principalName: Matcher): Principal => ({ identifier: { case: 'authenticated', value: { principalName } } })

function cidr({ bytes, bits }: AddressBlock) {
  const groups = Array.from({ length: bytes.length / 2 }, (_, index) => ((bytes[index * 2]! << 8) | bytes[index * 2 + 1]!).toString(16))
  return { addressPrefix: bytes.length === 4 ? bytes.join('.') : groups.join(':'), prefixLen: bits }
}

/** The first half settles most paths. */
const canonical: Permission = permission.anyOf([
  permission.allOf([urlPath(regex(plainPath)), permission.not(urlPath(regex(dotSegments)))]),
  permission.allOf([
    ...canonicalPath.must.map((one) => urlPath(regex(one))),
    ...canonicalPath.mustNot.map((one) => permission.not(urlPath(regex(one)))),
  ]),
])

/** RFC 3986 section 3.2.2, registered names without escapes, and the evaluator's reading of them. */
const hostThatCanBeRead = String.raw`(?:\[[0-9A-Fa-f:.]+\]|\.?[A-Za-z0-9_-][A-Za-z0-9._-]*|\.\.[A-Za-z0-9._-]*)(?::[0-9]{1,5})?`
