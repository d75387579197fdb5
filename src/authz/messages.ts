/** Envoy's questions as requests of the policy room, and decisions as Envoy's answers. */
import {
  create,
  createRegistry,
  type DescMessage,
  enumToJson,
  type JsonValue,
  type MessageShape,
  toBinary,
  toJson,
} from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import type { ShadowVerdict } from '../agent/shadow.ts'
import { headerValues, type HeaderValues, type PolicyRequest } from '../policy/request.ts'
import type { PolicyMode } from '../policy/policy-set.ts'
import type { Decision } from '../policy/decision.ts'
import { type Address, type HeaderMap, RequestMethod, TypedExtensionConfigSchema } from '../rpc/gen/envoy/config/core/v3/core_pb.ts'
import { RBAC_ActionSchema, type RBAC as Rules, RBACSchema as RulesSchema } from '../rpc/gen/envoy/config/rbac/v3/rbac_pb.ts'
import { UriTemplateMatchConfigSchema } from '../rpc/gen/envoy/extensions/path/match/uri_template/v3/uri_template_match_pb.ts'
import { ConfigSchema as MtlsAuthenticatedSchema } from '../rpc/gen/envoy/extensions/rbac/principals/mtls_authenticated/v3/mtls_authenticated_pb.ts'
import type { HTTPAccessLogEntry } from '../rpc/gen/envoy/data/accesslog/v3/accesslog_pb.ts'
import { type RBAC, RBACSchema } from '../rpc/gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.ts'
import { type AttributeContext, CheckResponseSchema } from '../rpc/gen/envoy/service/auth/v3/auth_pb.ts'
import { StatusCode } from '../rpc/gen/envoy/type/v3/type_pb.ts'
import { encode, type Encoded } from '../rpc/handler.ts'
import { parseSpiffeId, pathOf, type SpiffeId } from '../spiffe/id.ts'
import { contentVersion, type Resource, type Resources } from '../xds/resources.ts'
import { isJoinedByEnvoy, isRepeatedAuthorization } from '../policy/joined-headers.ts'

/**
 * What Envoy says about a request, as far as it saw it itself. The destination's principal is left out: which policies apply
 * is decided by who is asking, not by what it says.
 */
export function toPolicyRequest(attributes: AttributeContext | undefined, mode: PolicyMode): PolicyRequest {
  const { source, destination, request, tlsSession } = attributes ?? {}
  const peer = spiffeIdOf(source?.principal ?? '')
  const sourceIp = socketOf(source?.address)?.address
  const local = socketOf(destination?.address)
  const { http } = request ?? {}
  return {
    ...(peer !== undefined && { peer: { spiffeId: peer } }),
    // The address behind trusted proxies is not told. Rather unknown than wrong.
    ...(sourceIp !== undefined && { sourceIp, remoteIp: unknownAddress }),
    ...(local && {
      destinationIp: local.address,
      ...(local.portSpecifier.case === 'portValue' && { destinationPort: local.portSpecifier.value }),
    }),
    ...(tlsSession && tlsSession.sni !== '' && { sni: tlsSession.sni }),
    ...(http && {
      http: {
        method: http.method,
        path: http.path,
        host: http.host,
        headers: http.headerMap ? rawHeaders(http.headerMap, mode) : joinedHeaders(http.headers, mode),
      },
    }),
  }
}

/** 200 or 403, and for access logs the rule that decided as dynamic metadata. The body tells the caller nothing. */
export function toCheckResponse({ allowed, reason, decidedBy }: Pick<Decision, 'allowed' | 'reason' | 'decidedBy'>): Encoded {
  const rule = decidedBy[0]?.id
  const dynamicMetadata = { decision: allowed ? 'allowed' : 'denied', reason, ...(rule !== undefined && { rule }) }
  return encode(
    CheckResponseSchema,
    allowed
      ? { status: { code: grpcOk }, httpResponse: { case: 'okResponse', value: {} }, dynamicMetadata }
      : {
          status: { code: grpcPermissionDenied },
          httpResponse: { case: 'deniedResponse', value: { status: { code: StatusCode.Forbidden }, body: 'denied' } },
          dynamicMetadata,
        },
  )
}

export const denyFilter = 'vidimus.rbac.deny'
export const allowFilter = 'vidimus.rbac.allow'

/** Rules as they are written in a proxy's configuration. */
export function rulesJson(rules: Rules): Readonly<Record<string, JsonValue>> {
  const written = toJson(RulesSchema, rules, { registry: extensions, useProtoFieldName: true }) as Record<string, JsonValue>
  return { action: enumToJson(RBAC_ActionSchema, rules.action), ...written }
}

const extensions = createRegistry(MtlsAuthenticatedSchema, UriTemplateMatchConfigSchema)

const candidateDenyFilter = 'vidimus.rbac.candidate.deny'
const candidateAllowFilter = 'vidimus.rbac.candidate.allow'

/**
 * A set that is tried, as filters that only look: {@link candidateDenyFilter} and {@link candidateAllowFilter}, to stand before those that
 * are enforced, so that both see every request. What they would decide goes into dynamic metadata, under the version of the set.
 */
export function toCandidateResources(
  candidate: { readonly version: string; readonly filters: Readonly<Record<'deny' | 'allow', RBAC>> } | undefined,
): Resources {
  const looking = (kind: 'deny' | 'allow'): RBAC => {
    const rules = candidate?.filters[kind].rules
    if (!candidate || !rules) return create(RBACSchema)
    return create(RBACSchema, { shadowRules: rules, shadowRulesStatPrefix: `${candidatePrefix}${candidate.version}_${kind}_` })
  }
  return new Map([
    [candidateDenyFilter, toResource(candidateDenyFilter, RBACSchema, looking('deny'))],
    [candidateAllowFilter, toResource(candidateAllowFilter, RBACSchema, looking('allow'))],
  ])
}

/** One request as a proxy logs it, where it was decided by the set in force and by one that is tried. Undefined where nothing is tried. */
export function readShadowVerdict({
  commonProperties,
  request,
  response,
}: HTTPAccessLogEntry): Omit<ShadowVerdict, 'workload'> | undefined {
  const seen = commonProperties?.metadata?.filterMetadata['envoy.filters.http.rbac']
  if (!seen) return undefined
  const results = Object.entries(seen).flatMap(([key, value]) => {
    const [, version, kind, what] = candidateKey.exec(key) ?? []
    return version === undefined || typeof value !== 'string' ? [] : [{ version, kind, what, value }]
  })
  const [first] = results
  if (!first) return undefined
  const found = (kind: string, what: string) => results.find((one) => one.kind === kind && one.what === what)?.value
  const denied = found('deny', 'engine_result') === 'denied'
  const candidateAllows = !denied && found('allow', 'engine_result') !== 'denied'
  const [san] = commonProperties?.tlsProperties?.peerCertificateProperties?.subjectAltName ?? []
  return {
    candidateVersion: first.version,
    allowed: !refusedBy.test(response?.responseCodeDetails ?? ''),
    candidateAllows,
    rule: (denied ? found('deny', 'effective_policy_id') : candidateAllows ? found('allow', 'effective_policy_id') : undefined) ?? '',
    peer: san?.san.case === 'uri' ? san.san.value : '',
    method: methods.get(request?.requestMethod ?? RequestMethod.METHOD_UNSPECIFIED) ?? '',
    path: request?.path ?? '',
  }
}

/** Envoy has a number for each method that it knows. */
const methods: ReadonlyMap<number, string> = new Map(Object.entries(RequestMethod).map(([name, number]) => [number, name]))
const candidatePrefix = 'vidimus_candidate_'
const candidateKey = /^vidimus_candidate_([^_]+)_(deny|allow)_shadow_(engine_result|effective_policy_id)$/
/** Response code details of Envoy's filters that refuse. */
const refusedBy = /^(rbac_access_denied|ext_authz_denied|ext_authz_error)/

/** A filter as a proxy is sent it. */
export function toResource<Schema extends DescMessage>(name: string, schema: Schema, filter: MessageShape<Schema>): Resource {
  const value = toBinary(TypedExtensionConfigSchema, create(TypedExtensionConfigSchema, { name, typedConfig: anyPack(schema, filter) }))
  return { version: contentVersion(value), value }
}

/** Envoy names the first URI SAN, else a DNS SAN or the subject: only a SPIFFE ID of a workload counts. */
function spiffeIdOf(principal: string): SpiffeId | undefined {
  if (!principal.startsWith('spiffe://')) return undefined
  try {
    const id = parseSpiffeId(principal)
    return pathOf(id) === '' ? undefined : id
  } catch {
    return undefined
  }
}

const socketOf = (address: Address | undefined) => (address?.address.case === 'socketAddress' ? address.address.value : undefined)

/** Each line as it came, but for the headers that Envoy joins in any case. */
function rawHeaders({ headers }: HeaderMap, mode: PolicyMode): HeaderValues {
  return headerLines(
    headers.map(({ key, value, rawValue }) => [key, rawValue.length > 0 ? Buffer.from(rawValue).toString('latin1') : value] as const),
    (name) => mode === 'strict' && isJoinedByEnvoy(name),
  )
}

/** Without raw headers Envoy joins all repeated ones with commas. */
const joinedHeaders = (headers: Readonly<Record<string, string>>, mode: PolicyMode): HeaderValues =>
  headerLines(Object.entries(headers), () => mode === 'strict')

/** Where a comma may have come between two values, strict mode looks at the whole and at each part: the refusing side finds what it looks for. */
function headerLines(lines: readonly (readonly [name: string, value: string])[], mayBeJoined: (name: string) => boolean): HeaderValues {
  const values = lines
    .filter(([name]) => !name.startsWith(':'))
    .flatMap(([name, value]) => (mayBeJoined(name) ? withParts(name, value) : [value]).map((one) => [name, one] as const))
  return headerValues(values)
}

function withParts(name: string, value: string): string[] {
  if (!value.includes(',') || (name === 'authorization' && !isRepeatedAuthorization(value))) return [value]
  return [value, ...value.split(',').map((part) => part.trim())]
}

/** No address, so that every clause about it is decided on the refusing side. */
const unknownAddress = ''
/** Status codes of gRPC. */
const grpcOk = 0
const grpcPermissionDenied = 7
