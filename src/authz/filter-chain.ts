/** Everything that a proxy needs to enforce the policies of one workload, as its configuration writes it: in istio mode what Istio emits, filter by filter. */
import type { CompiledPolicies } from '../policy/compile.ts'
import { seconds } from '../kernel/duration.ts'
import type { JwtRule } from '../policy/policy-set.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { rulesJson } from './messages.ts'
import { askedPrefix, type Point, type RbacRules, rbacRules, type Rules, ruleSet, withoutProvider } from './rbac.ts'

export type Filter = Readonly<Record<string, unknown>>

export interface FilterChain {
  /** For an HTTP connection manager, in order, before its router. */
  readonly http: readonly Filter[]
  /** For a listener of plain connections, in order, before what ends it. */
  readonly network: readonly Filter[]
  /** What is not enforced by these filters, or not as it is written, and what has to be there beside them. */
  readonly notes: readonly string[]
}

export interface ChainOptions {
  /** Whose certificates the proxy accepts. */
  readonly trustDomains: readonly TrustDomain[]
  /** The cluster of each provider that CUSTOM policies may name. */
  readonly providers?: Readonly<Record<string, string>>
}

/**
 * In order: CUSTOM and who is asked, tokens, AUDIT, DENY, ALLOW (authorization.md 1.1).
 * @throws Failure `rbac.not-enforceable`
 */
export function filterChain(compiled: CompiledPolicies, options: ChainOptions): FilterChain {
  const strict = compiled.mode === 'strict'
  // Istio leaves it to the listener, which is what its sidecars have.
  const around = { trustDomains: options.trustDomains, refusePlaintext: strict }
  const at = (point: Point) => {
    const rules = rbacRules(compiled, { ...around, point })
    const shadow = compiled.candidate && rbacRules(compiled.candidate, { ...around, point })
    return { rules, shadow: shadow && !strict ? onlyNew(shadow, rules) : shadow }
  }
  const [http, network] = [at('http'), at('tcp')]
  return {
    http: [
      ...customFilters(http.rules, options, httpNames),
      ...(compiled.tokens.length > 0 ? [tokenFilter(compiled.tokens)] : []),
      ...ruleFilters(http, httpNames),
    ],
    network: [...customFilters(network.rules, options, networkNames), ...ruleFilters(network, networkNames)],
    notes: [
      ...http.rules.notes,
      ...network.rules.notes,
      ...unknownProviders(http.rules, options),
      ...notesOnListener(compiled),
      ...compiled.tokens.flatMap(notesOnKeys),
    ],
  }
}

/** What only the listener of a proxy can do: filters see a connection once it was taken. */
function notesOnListener({ mtls }: CompiledPolicies): string[] {
  const modes = new Set([mtls.mode, ...mtls.ports.values()])
  return [
    ...(modes.has('STRICT') ? ['a `PeerAuthentication` takes mTLS alone: the listener has to ask for client certificates'] : []),
    ...(modes.has('DISABLE')
      ? ['a `PeerAuthentication` takes no TLS (`DISABLE`): the listener must offer none; a peer that proved itself all the same is one']
      : []),
  ]
}

interface Names {
  readonly rbac: string
  readonly rbacType: string
  readonly extAuthz: string
  readonly extAuthzType: string
  /** What Istio calls its statistics of plain connections. */
  readonly common: Filter
}
const httpNames: Names = {
  rbac: 'envoy.filters.http.rbac',
  rbacType: 'envoy.extensions.filters.http.rbac.v3.RBAC',
  extAuthz: 'envoy.filters.http.ext_authz',
  extAuthzType: 'envoy.extensions.filters.http.ext_authz.v3.ExtAuthz',
  common: {},
}
const networkNames: Names = {
  rbac: 'envoy.filters.network.rbac',
  rbacType: 'envoy.extensions.filters.network.rbac.v3.RBAC',
  extAuthz: 'envoy.filters.network.ext_authz',
  extAuthzType: 'envoy.extensions.filters.network.ext_authz.v3.ExtAuthz',
  common: { stat_prefix: 'tcp.' },
}

const filter = (name: string, type: string, config: Filter): Filter => ({
  name,
  typed_config: { '@type': `type.googleapis.com/${type}`, ...config },
})

function ruleFilters({ rules, shadow }: { rules: RbacRules; shadow: RbacRules | undefined }, names: Names): Filter[] {
  return (['audit', 'deny', 'allow'] as const).flatMap((action) => {
    const [enforced, shadowed] = [rules[action], action === 'audit' ? undefined : shadow?.[action]]
    if (!enforced && !shadowed) return []
    const config = {
      ...(enforced && { rules: rulesJson(enforced) }),
      ...names.common,
      ...(shadowed && { shadow_rules: rulesJson(shadowed), shadow_rules_stat_prefix: `istio_dry_run_${action}_` }),
    }
    return [filter(names.rbac, names.rbacType, config)]
  })
}

/** Of a candidate, what is not in force already: all that Istio shadows (authorization.md 1.8). */
function onlyNew(candidate: RbacRules, enforced: RbacRules): RbacRules {
  const left = (rules: Rules | undefined, known: Rules | undefined): Rules | undefined => {
    const policies = Object.entries(rules?.policies ?? {}).filter(([id]) => known?.policies[id] === undefined)
    return policies.length > 0 ? ruleSet(rules!.action, policies) : undefined
  }
  const [deny, allow] = [left(candidate.deny, enforced.deny), left(candidate.allow, enforced.allow)]
  return { custom: candidate.custom, canAsk: candidate.canAsk, notes: [], ...(deny && { deny }), ...(allow && { allow }) }
}

/** The rules mark what is asked about, and external authorization asks about what is marked (authorization.md 1.8). */
function customFilters({ custom, canAsk }: RbacRules, { providers = {} }: ChainOptions, names: Names): Filter[] {
  return [...custom]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([provider, rules]) => {
      const cluster = Object.hasOwn(providers, provider) && canAsk ? providers[provider] : undefined
      if (cluster === undefined) {
        return [filter(names.rbac, names.rbacType, { rules: rulesJson(withoutProvider(rules)), ...names.common })]
      }
      // One provider is marked as Istio marks it; of several, each under its own name.
      const prefix = custom.size === 1 ? istioPrefix : shadowPrefix(provider)
      const point = names === httpNames ? 'http' : 'network'
      return [
        filter(names.rbac, names.rbacType, { shadow_rules: rulesJson(rules), shadow_rules_stat_prefix: prefix, ...names.common }),
        filter(names.extAuthz, names.extAuthzType, { ...names.common, ...askingConfig(provider, cluster, prefix, point) }),
      ]
    })
}

/** Asks the provider behind `cluster` about what its rules have marked under `prefix`. */
export const askingConfig = (provider: string, cluster: string, prefix: string, point: 'http' | 'network'): Filter => ({
  transport_api_version: 'V3',
  grpc_service: { envoy_grpc: { cluster_name: cluster }, timeout: providerTimeout },
  filter_enabled_metadata: {
    filter: `envoy.filters.${point}.rbac`,
    path: [{ key: `${prefix}shadow_effective_policy_id` }],
    value: { string_match: { prefix: askedPrefix(provider) } },
  },
})

const istioPrefix = 'istio_ext_authz_'
export const shadowPrefix = (provider: string): string => `${istioPrefix}${provider}_`

function unknownProviders({ custom, canAsk }: RbacRules, { providers = {} }: ChainOptions): string[] {
  if (!canAsk) return [severalProviders([...custom.keys()])]
  return [...custom.keys()]
    .filter((name) => !Object.hasOwn(providers, name))
    .map((name) => `the provider \`${name}\` is not known here: what its CUSTOM policies match is refused`)
}

export const severalProviders = (names: readonly string[]): string =>
  `CUSTOM policies name the providers \`${names.join('`, `')}\`: what they match is refused, since one can be asked`

/** A token that is there must be valid, and none has to be there (authorization.md 1.9). */
export function tokenConfig(rules: readonly JwtRule[], clusterOf: ClusterOf): Filter {
  const providers = Object.fromEntries(rules.map((rule, index) => [`origins-${index}`, tokenProvider(rule, clusterOf)]))
  const named = Object.keys(providers).map((name) => ({ provider_name: name }))
  const missing = { allow_missing: {} }
  const every = named.map((one) => ({ requires_any: { requirements: [one, missing] } }))
  const requirements = rules.length === 1 ? [...named, missing] : [...named, { requires_all: { requirements: every } }]
  return {
    providers,
    rules: [{ match: { prefix: '/' }, requires: { requires_any: { requirements } } }],
    bypass_cors_preflight: true,
  }
}

/** The cluster through which a proxy fetches keys; undefined where it has none, and then the tokens are refused. */
type ClusterOf = (jwksUri: string) => string | undefined

const tokenFilter = (rules: readonly JwtRule[]): Filter =>
  filter('envoy.filters.http.jwt_authn', 'envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication', tokenConfig(rules, keyCluster))

function tokenProvider(rule: JwtRule, clusterOf: ClusterOf): Filter {
  const located = rule.fromHeaders.length + rule.fromParams.length + rule.fromCookies.length > 0
  return {
    issuer: rule.issuer,
    ...(rule.audiences.length > 0 && { audiences: rule.audiences }),
    ...keysOf(rule, clusterOf),
    forward: rule.forwardOriginalToken,
    ...(located && {
      from_headers: rule.fromHeaders.map(({ name, prefix }) => ({ name, ...(prefix !== '' && { value_prefix: prefix }) })),
      from_params: rule.fromParams,
      from_cookies: rule.fromCookies,
    }),
    ...(rule.outputPayloadToHeader !== undefined && { forward_payload_header: rule.outputPayloadToHeader }),
    ...(rule.outputClaimToHeaders.length > 0 && {
      claim_to_headers: rule.outputClaimToHeaders.map(({ header, claim }) => ({ header_name: header, claim_name: claim })),
    }),
    payload_in_metadata: 'payload',
    normalize_payload_in_metadata: { space_delimited_claims: ['scope', 'permission', ...rule.spaceDelimitedClaims] },
  }
}

function keysOf({ keys, timeout = seconds(5) }: JwtRule, clusterOf: ClusterOf): Filter {
  if (keys !== 'discovered' && 'jwks' in keys) return { local_jwks: { inline_string: keys.jwks } }
  const cluster = keys === 'discovered' ? undefined : clusterOf(keys.jwksUri)
  if (keys === 'discovered' || cluster === undefined) return { local_jwks: { inline_string: noKeys } }
  return {
    remote_jwks: {
      // Envoy reads durations in seconds alone.
      http_uri: { uri: keys.jwksUri, cluster, timeout: `${timeout / seconds(1)}s` },
      cache_duration: '1200s',
      async_fetch: {},
    },
  }
}

function notesOnKeys({ issuer, keys }: JwtRule): string[] {
  if (keys === 'discovered')
    return [`the keys of \`${issuer}\` are not known here, so its tokens are refused: name \`jwks\` or \`jwksUri\``]
  return 'jwksUri' in keys
    ? [`the keys of \`${issuer}\` come from the cluster \`${keyCluster(keys.jwksUri)}\`, which the proxy has to know`]
    : []
}

const keyCluster = (uri: string): string => `jwks|${new URL(uri).host}`
/**
 * A key that verifies nothing, for tokens whose keys nobody named: Envoy takes no empty set. It is a point of P-256, its x the SHA-256 of
 * `vidimus: the key of nobody` plus 1: nobody knows its private half.
 */
export const keyOfNobody = {
  kty: 'EC',
  crv: 'P-256',
  alg: 'ES256',
  use: 'sig',
  kid: 'nobody',
  x: 'vI-Jsaaa0ajyJ-wuU2xYQTLGF-UJ499L9ecJSg9gKUQ',
  y: 'T1pi93NjYJqHx7six96eZg1O7V-swZcPdXkA2TrqjLo',
} as const
const noKeys = JSON.stringify({ keys: [keyOfNobody] })
/** Istio waits ten minutes for a provider (authorization.md 1.8); a request does not. */
const providerTimeout = '5s'
