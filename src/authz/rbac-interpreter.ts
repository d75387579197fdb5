/**
 * Envoy's RBAC, read the way Envoy reads it: a second judge of what was compiled, for replays and for whoever has no proxy at hand.
 * It knows what we send and refuses to guess about anything else. A real Envoy is held against it where the tests have one.
 */
import { RE2JS } from '@bufbuild/re2'
import { anyUnpack, type Any } from '@bufbuild/protobuf/wkt'
import { blockHolds, parseAddress, parseAddressBlock } from '../policy/matching.ts'
import { cutAtSpaces } from '../policy/evaluate.ts'
import type { JwtRule } from '../policy/policy-set.ts'
import { normalizePath, type PathNormalization } from '../policy/normalize.ts'
import type { Claims, PolicyRequest } from '../policy/request.ts'
import type { CidrRange } from '../rpc/gen/envoy/config/core/v3/core_pb.ts'
import { type Permission, type Policy, type Principal, type RBAC as Rules, RBAC_Action } from '../rpc/gen/envoy/config/rbac/v3/rbac_pb.ts'
import type { HeaderMatcher } from '../rpc/gen/envoy/config/route/v3/route_pb.ts'
import { UriTemplateMatchConfigSchema } from '../rpc/gen/envoy/extensions/path/match/uri_template/v3/uri_template_match_pb.ts'
import { ConfigSchema as MtlsAuthenticatedSchema } from '../rpc/gen/envoy/extensions/rbac/principals/mtls_authenticated/v3/mtls_authenticated_pb.ts'
import type { MetadataMatcher, PathMatcher, StringMatcher, ValueMatcher } from '../rpc/gen/envoy/type/matcher/v3/matcher_pb.ts'
import type { Expr } from '../rpc/gen/google/api/expr/v1alpha1/syntax_pb.ts'
import type { RbacRules } from './rbac.ts'
import { isJoinedByEnvoy, leftByEnvoy } from '../policy/joined-headers.ts'

/** A request, or without `headers` a connection, as the filters of a proxy see it. */
export interface ProxyRequest {
  /** By name in lower case, `:method`, `:path` and `:authority` among them. */
  readonly headers?: ReadonlyMap<string, readonly string[]>
  /** The names of a validated certificate; none without mTLS. */
  readonly uriSans: readonly string[]
  /** All of its names as Envoy tries them: URI SANs, DNS SANs, subject. */
  readonly names: readonly string[]
  readonly sourceIp: string
  readonly remoteIp: string
  readonly destinationIp: string
  readonly destinationPort: number
  /** Empty without one. */
  readonly sni: string
  /** Dynamic metadata by filter. */
  readonly metadata: Readonly<Record<string, unknown>>
}

/** What rules say: whether a request goes on, and the policy that matched. A LOG rule lets everything go on. */
export interface RulesVerdict {
  readonly allowed: boolean
  readonly policy?: string
}

/** A request as a proxy's filters see it; undefined where the proxy itself answers 400 and asks no filter. */
export function seenByProxy(
  request: PolicyRequest,
  pathNormalization: PathNormalization,
  tokens: readonly JwtRule[] = [],
): ProxyRequest | undefined {
  const { peer, http, token, sourceIp = '0.0.0.0' } = request
  const names = peer ? (peer.names ?? [peer.spiffeId]) : []
  const path = http && normalizePath(http.path, pathNormalization)
  if (http && path === undefined) return undefined
  return {
    ...(http && { headers: headersSeen(http, path!) }),
    uriSans: names.filter((name) => /^[a-z][a-z0-9+.-]*:\/\//.test(name)),
    names,
    sourceIp,
    remoteIp: request.remoteIp ?? sourceIp,
    destinationIp: request.destinationIp ?? '0.0.0.0',
    destinationPort: request.destinationPort ?? 0,
    sni: request.sni ?? '',
    metadata: {
      ...request.filterMetadata,
      ...(token && { 'envoy.filters.http.jwt_authn': { payload: cutAtSpaces(token.claims, tokens) } }),
    },
  }
}

/** What one set of rules says to a request. */
function applyRules(rules: Rules, request: ProxyRequest): RulesVerdict {
  // A map has no order on the wire; Envoy reads it by its keys.
  const matching = Object.keys(rules.policies)
    .toSorted()
    .find((id) => policyMatches(rules.policies[id]!, request))
  const policy = matching === undefined ? {} : { policy: matching }
  switch (rules.action) {
    case RBAC_Action.ALLOW:
      return { allowed: matching !== undefined, ...policy }
    case RBAC_Action.DENY:
      return { allowed: matching === undefined, ...policy }
    case RBAC_Action.LOG:
      return { allowed: true, ...policy }
    default:
      throw new Error(`bug: action ${String(rules.action)}`)
  }
}

/** What all rules of a workload say together, where `providers` answered as they did; who has not answered refuses. */
export function applyAll(
  { custom, canAsk, deny, allow }: Pick<RbacRules, 'custom' | 'canAsk' | 'deny' | 'allow'>,
  request: ProxyRequest,
  providers: Readonly<Record<string, 'allowed' | 'denied'>> = {},
): RulesVerdict {
  for (const [provider, rules] of custom) {
    const asked = applyRules(rules, request)
    if (!asked.allowed && (!canAsk || !Object.hasOwn(providers, provider) || providers[provider] !== 'allowed')) return asked
  }
  const denied = deny && applyRules(deny, request)
  if (denied?.allowed === false) return denied
  return allow ? applyRules(allow, request) : { allowed: true }
}

function headersSeen(http: NonNullable<PolicyRequest['http']>, path: string): Map<string, readonly string[]> {
  const query = /\?[^#]*/.exec(http.path)?.[0] ?? ''
  const lines = [...http.headers]
    .filter(([name]) => name !== 'host')
    .map(([name, values]) => [name, isJoinedByEnvoy(name) ? [leftByEnvoy(values).join(',')] : values] as const)
  return new Map([...lines, [':method', [http.method]], [':path', [`${path}${query}`]], [':authority', [http.host]]])
}

function policyMatches({ permissions, principals, condition }: Policy, request: ProxyRequest): boolean {
  return (
    permissions.some((permission) => permitted(permission, request)) &&
    principals.some((principal) => isPrincipal(principal, request)) &&
    (!condition || valueOf(condition, request) === true)
  )
}

function permitted({ rule }: Permission, request: ProxyRequest): boolean {
  switch (rule.case) {
    case 'any':
      return rule.value
    case 'andRules':
      return rule.value.rules.every((one) => permitted(one, request))
    case 'orRules':
      return rule.value.rules.some((one) => permitted(one, request))
    case 'notRule':
      return !permitted(rule.value, request)
    case 'header':
      return headerMatches(rule.value, request)
    case 'urlPath':
      return pathMatches(rule.value, request)
    case 'uriTemplate':
      return templateMatches(rule.value.typedConfig, request)
    case 'destinationIp':
      return inRange(rule.value, request.destinationIp)
    case 'destinationPort':
      return rule.value === request.destinationPort
    case 'requestedServerName':
      return textMatches(rule.value, request.sni)
    case 'metadata':
      return metadataMatches(rule.value, request)
    case 'destinationPortRange':
    case 'matcher':
    case 'sourcedMetadata':
    case undefined:
      throw new Error(`bug: a permission that we do not send: \`${String(rule.case)}\``)
    default:
      throw new Error(`bug: permission ${JSON.stringify(rule satisfies never)}`)
  }
}

function isPrincipal({ identifier }: Principal, request: ProxyRequest): boolean {
  switch (identifier.case) {
    case 'any':
      return identifier.value
    case 'andIds':
      return identifier.value.ids.every((one) => isPrincipal(one, request))
    case 'orIds':
      return identifier.value.ids.some((one) => isPrincipal(one, request))
    case 'notId':
      return !isPrincipal(identifier.value, request)
    case 'authenticated': {
      const { principalName } = identifier.value
      if (request.names.length === 0) return false
      return principalName === undefined || request.names.some((name) => textMatches(principalName, name))
    }
    case 'custom':
      return mtlsAuthenticated(identifier.value.typedConfig, request)
    case 'header':
      return headerMatches(identifier.value, request)
    case 'urlPath':
      return pathMatches(identifier.value, request)
    case 'directRemoteIp':
      return inRange(identifier.value, request.sourceIp)
    case 'remoteIp':
      return inRange(identifier.value, request.remoteIp)
    case 'metadata':
      return metadataMatches(identifier.value, request)
    case 'sourcedMetadata':
    case undefined:
      throw new Error(`bug: a principal that we do not send: \`${String(identifier.case)}\``)
    default:
      throw new Error(`bug: principal ${JSON.stringify(identifier satisfies never)}`)
  }
}

/** A SAN of a validated certificate; Envoy looks at the type first. */
function mtlsAuthenticated(typedConfig: Any | undefined, { uriSans }: ProxyRequest): boolean {
  const config = typedConfig && anyUnpack(typedConfig, MtlsAuthenticatedSchema)
  if (config?.type.case !== 'sanMatcher' || !config.type.value.matcher) throw new Error('bug: a principal that we do not send')
  const { matcher } = config.type.value
  return uriSans.some((san) => textMatches(matcher, san))
}

/** A header that is there several times matches if one of its values does. */
function headerMatches({ name, headerMatchSpecifier }: HeaderMatcher, { headers }: ProxyRequest): boolean {
  const values = headers?.get(name.toLowerCase()) ?? (name.toLowerCase() === 'host' ? headers?.get(':authority') : undefined) ?? []
  switch (headerMatchSpecifier.case) {
    case 'presentMatch':
      return values.length > 0 === headerMatchSpecifier.value
    case 'stringMatch': {
      const matcher = headerMatchSpecifier.value
      return values.some((value) => textMatches(matcher, value))
    }
    case 'rangeMatch':
    case undefined:
      throw new Error(`bug: a header matcher that we do not send: \`${String(headerMatchSpecifier.case)}\``)
    default:
      throw new Error(`bug: header matcher ${JSON.stringify(headerMatchSpecifier satisfies never)}`)
  }
}

const urlPath = ({ headers }: ProxyRequest): string | undefined => headers?.get(':path')?.[0]?.replace(/[?#].*$/s, '')

function pathMatches({ rule }: PathMatcher, request: ProxyRequest): boolean {
  const path = urlPath(request)
  if (rule.case !== 'path') throw new Error('bug: a path matcher that we do not send')
  return path !== undefined && textMatches(rule.value, path)
}

/** The characters of authorization.md 1.5. Envoy 1.40 takes a raw `*` as well; whether a proxy does depends on its age. */
function templateMatches(typedConfig: Any | undefined, request: ProxyRequest): boolean {
  const config = typedConfig && anyUnpack(typedConfig, UriTemplateMatchConfigSchema)
  if (!config) throw new Error('bug: a template that we do not send')
  const segment = String.raw`[a-zA-Z0-9\-._~%!$&'()+,;:@=]`
  const expression = config.pathTemplate
    .split('/')
    .map((part) => (part === '*' ? `${segment}+` : part === '**' ? `[/${segment.slice(1)}*` : RE2JS.quote(part)))
    .join('/')
  const path = urlPath(request)
  return path !== undefined && expressionNamed(expression).testExact(path)
}

function textMatches({ matchPattern, ignoreCase }: StringMatcher, sent: string): boolean {
  const fold = (text: string) => (ignoreCase ? text.toLowerCase() : text)
  const text = fold(sent)
  switch (matchPattern.case) {
    case 'exact':
      return text === fold(matchPattern.value)
    case 'prefix':
      return text.startsWith(fold(matchPattern.value))
    case 'suffix':
      return text.endsWith(fold(matchPattern.value))
    case 'contains':
      return text.includes(fold(matchPattern.value))
    case 'safeRegex':
      return expressionNamed(matchPattern.value.regex).testExact(sent)
    case undefined:
      throw new Error('bug: a matcher without a pattern')
    default:
      throw new Error(`bug: matcher ${JSON.stringify(matchPattern satisfies never)}`)
  }
}

function metadataMatches({ filter, path, value, invert }: MetadataMatcher, { metadata }: ProxyRequest): boolean {
  const keys = [filter, ...path.map(({ segment }) => (segment.case === 'key' ? segment.value : ''))]
  const found = keys.reduce<unknown>(
    (inside, key) =>
      typeof inside === 'object' && inside !== null && !Array.isArray(inside) && Object.hasOwn(inside, key)
        ? (inside as Claims)[key]
        : undefined,
    metadata,
  )
  return (value !== undefined && valueMatches(value, found)) !== invert
}

function valueMatches({ matchPattern }: ValueMatcher, value: unknown): boolean {
  switch (matchPattern.case) {
    case 'presentMatch':
      return (value !== undefined) === matchPattern.value
    case 'stringMatch':
      return typeof value === 'string' && textMatches(matchPattern.value, value)
    case 'orMatch':
      return matchPattern.value.valueMatchers.some((one) => valueMatches(one, value))
    case 'listMatch': {
      const { matchPattern: inside } = matchPattern.value
      return Array.isArray(value) && inside.case === 'oneOf' && value.some((one) => valueMatches(inside.value, one))
    }
    case 'nullMatch':
    case 'boolMatch':
    case undefined:
      throw new Error(`bug: a value matcher that we do not send: \`${String(matchPattern.case)}\``)
    default:
      throw new Error(`bug: value matcher ${JSON.stringify(matchPattern satisfies never)}`)
  }
}

function inRange({ addressPrefix, prefixLen }: CidrRange, address: string): boolean {
  const block = parseAddressBlock(`${addressPrefix}/${prefixLen ?? 0}`)
  const bytes = parseAddress(address)
  if ('wrong' in block) throw new Error(`bug: the range \`${addressPrefix}/${String(prefixLen)}\``)
  return bytes !== undefined && blockHolds(block, bytes)
}

/** What an expression is; undefined where it fails, which makes a condition match nothing. */
function valueOf({ exprKind }: Expr, request: ProxyRequest): unknown {
  switch (exprKind.case) {
    case 'constExpr': {
      const { value } = exprKind.value.constantKind
      return typeof value === 'bigint' ? Number(value) : value
    }
    case 'selectExpr': {
      const { operand, field } = exprKind.value
      return attributeOf(`${operand?.exprKind.case === 'identExpr' ? operand.exprKind.value.name : ''}.${field}`, request)
    }
    case 'callExpr': {
      const { function: name, target, args } = exprKind.value
      return callOf(name, [...(target ? [target] : []), ...args], request)
    }
    case 'identExpr':
    case 'listExpr':
    case undefined:
      throw new Error('bug: an expression that we do not send')
    default:
      throw new Error(`bug: expression ${JSON.stringify(exprKind satisfies never)}`)
  }
}

function attributeOf(name: string, request: ProxyRequest): unknown {
  const { headers, names, uriSans, sni, destinationPort } = request
  const known: Readonly<Record<string, unknown>> = {
    'request.method': headers?.get(':method')?.[0],
    'request.url_path': urlPath(request),
    'request.headers': headers,
    'connection.mtls': names.length > 0,
    'connection.requested_server_name': sni,
    'connection.uri_san_peer_certificate': uriSans[0],
    'destination.port': destinationPort,
  }
  return known[name]
}

function callOf(name: string, args: readonly Expr[], request: ProxyRequest): unknown {
  const [a, b] = args.map((arg) => valueOf(arg, request))
  // A failure beside what decides already does not matter.
  if (name === '_&&_') return a === false || b === false ? false : a === true && b === true ? true : undefined
  if (name === '_||_') return a === true || b === true ? true : a === false && b === false ? false : undefined
  if (a === undefined || (args.length > 1 && b === undefined)) return undefined
  if (name === '!_') return a !== true
  if (name === '_==_') return a === b
  if (name === '_!=_') return a !== b
  if (name === '_[_]' && a instanceof Map) return (a.get(b) as readonly string[] | undefined)?.join(',')
  if (name === '@in' && b instanceof Map) return b.has(a)
  if (typeof a === 'number' && typeof b === 'number') return name === '_<=_' ? a <= b : name === '_>=_' ? a >= b : undefined
  if (typeof a !== 'string' || typeof b !== 'string') return undefined
  const texts: Readonly<Record<string, () => boolean>> = {
    startsWith: () => a.startsWith(b),
    endsWith: () => a.endsWith(b),
    contains: () => a.includes(b),
    matches: () => expressionNamed(b).test(a),
  }
  return texts[name]?.()
}

const expressions = new Map<string, RE2JS>()
function expressionNamed(text: string): RE2JS {
  const known = expressions.get(text)
  if (known) return known
  const made = RE2JS.compile(text)
  if (expressions.size >= maxExpressions) expressions.clear()
  expressions.set(text, made)
  return made
}
const maxExpressions = 10_000
