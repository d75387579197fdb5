/** The filters that the agent delivers: all that the policies of one workload ask for, as far as its proxy has places for it. */
import { create, fromJson, type JsonObject, type JsonValue } from '@bufbuild/protobuf'
import type { CompiledPolicies } from '../policy/compile.ts'
import type { JwtRule } from '../policy/policy-set.ts'
import { RBAC_Action } from '../rpc/gen/envoy/config/rbac/v3/rbac_pb.ts'
import { type ExtAuthz, ExtAuthzSchema } from '../rpc/gen/envoy/extensions/filters/http/ext_authz/v3/ext_authz_pb.ts'
import { type JwtAuthentication, JwtAuthenticationSchema } from '../rpc/gen/envoy/extensions/filters/http/jwt_authn/v3/config_pb.ts'
import { type RBAC, RBACSchema } from '../rpc/gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Resource, Resources } from '../xds/resources.ts'
import { askingConfig, keyOfNobody, severalProviders, shadowPrefix, tokenConfig } from './filter-chain.ts'
import { allowFilter, denyFilter, toResource } from './messages.ts'
import { rbacRules, ruleSet, withoutProvider } from './rbac.ts'

/** Beside the two filters that every proxy has: for which others its bootstrap has a place. */
export interface ProxyPlaces {
  /** {@link tokenFilter} is listed. */
  readonly tokens: boolean
  /** {@link auditFilter} is listed. */
  readonly audit: boolean
  /** The cluster of each provider of CUSTOM policies; its two filters are listed. */
  readonly providers: ReadonlyMap<string, string>
  /** The cluster that keys of tokens are fetched through, by `jwksUri`. */
  readonly keys: ReadonlyMap<string, string>
}

export const noPlaces: ProxyPlaces = { tokens: false, audit: false, providers: new Map(), keys: new Map() }

const tokenFilter = 'vidimus.jwt_authn'
const auditFilter = 'vidimus.rbac.audit'
/** Marks what a provider is asked about; {@link askingFilter} stands behind it. */
const markingFilter = (provider: string): string => `vidimus.rbac.custom.${provider}`
const askingFilter = (provider: string): string => `vidimus.ext_authz.${provider}`

/**
 * What a proxy says about itself: `vidimus: { filters, providers, keys }` in the metadata of its node. What cannot be read is not there,
 * and then the rules that need it refuse what they match.
 */
export function placesOf(metadata: Readonly<Record<string, unknown>> | undefined): ProxyPlaces {
  const { filters, providers, keys } = asMap(metadata?.['vidimus'])
  const listed: readonly unknown[] = Array.isArray(filters) ? filters : []
  return {
    tokens: listed.includes(tokenFilter),
    audit: listed.includes(auditFilter),
    providers: clusters(providers),
    keys: clusters(keys),
  }
}

export interface DeliveredFilters {
  readonly deny: RBAC
  /** Without a rule it allows nothing. */
  readonly allow: RBAC
  readonly audit: RBAC
  readonly tokens: JwtAuthentication
  /** For each provider that the proxy reaches; empty filters where no rule asks it. */
  readonly providers: ReadonlyMap<string, { readonly marking: RBAC; readonly asking: ExtAuthz }>
  /** What these filters alone do not do, for whoever operates them. */
  readonly notes: readonly string[]
}

/**
 * The filters for one proxy. `trustDomains` are those whose certificates it accepts: ours and the federated ones.
 * Where it has no place for what a rule needs, the rule refuses what it matches (authorization.md 1.8).
 * @throws Failure `rbac.not-enforceable` where Envoy cannot decide as the evaluator does; nothing is left out instead
 */
export function deliveredFilters(
  compiled: CompiledPolicies,
  trustDomains: readonly TrustDomain[],
  places: ProxyPlaces = noPlaces,
): DeliveredFilters {
  const rules = rbacRules(compiled, { trustDomains, point: 'http', refusePlaintext: true, tokensRead: places.tokens })
  const { custom, audit, deny, allow } = rules
  const asked = [...custom.keys()].filter((provider) => places.providers.has(provider) && rules.canAsk)
  const unanswered = [...custom].filter(([provider]) => !asked.includes(provider))
  const refusing = unanswered.flatMap(([, one]) => Object.entries(withoutProvider(one).policies))
  const denying =
    deny || refusing.length > 0 ? ruleSet(RBAC_Action.DENY, [...Object.entries(deny?.policies ?? {}), ...refusing]) : undefined
  const keyClusters = (uri: string) => places.keys.get(uri)
  return {
    deny: create(RBACSchema, denying && { rules: denying }),
    allow: create(RBACSchema, allow && { rules: allow }),
    audit: create(RBACSchema, audit && { rules: audit }),
    tokens:
      compiled.tokens.length > 0
        ? fromJson(JwtAuthenticationSchema, tokenConfig(compiled.tokens.map(withReadableKeys), keyClusters) as JsonValue)
        : create(JwtAuthenticationSchema),
    providers: providerFilters(places, new Map(asked.map((provider) => [provider, custom.get(provider)!]))),
    notes: [
      ...rules.notes,
      ...(rules.canAsk ? unanswered.map(([provider]) => unreachable(provider)) : [severalProviders([...custom.keys()])]),
      ...notesOnTokens(compiled, places),
      ...(audit && !places.audit ? [`AUDIT policies mark nothing here: the proxy does not list \`${auditFilter}\``] : []),
    ],
  }
}

/** Allows nothing: for a workload whose policies are not known, or cannot be enforced. */
export function refuseEverything(places: ProxyPlaces = noPlaces): DeliveredFilters {
  return {
    deny: create(RBACSchema),
    allow: create(RBACSchema, { rules: { action: RBAC_Action.ALLOW } }),
    audit: create(RBACSchema),
    tokens: create(JwtAuthenticationSchema),
    providers: providerFilters(places, new Map()),
    notes: [],
  }
}

/** Filters as the resources that a proxy names in its configuration. */
export function toFilterResources({ deny, allow, audit, tokens, providers }: DeliveredFilters): Resources {
  return new Map<string, Resource>([
    [denyFilter, toResource(denyFilter, RBACSchema, deny)],
    [allowFilter, toResource(allowFilter, RBACSchema, allow)],
    [auditFilter, toResource(auditFilter, RBACSchema, audit)],
    [tokenFilter, toResource(tokenFilter, JwtAuthenticationSchema, tokens)],
    ...[...providers].flatMap(([provider, { marking, asking }]): [string, Resource][] => [
      [markingFilter(provider), toResource(markingFilter(provider), RBACSchema, marking)],
      [askingFilter(provider), toResource(askingFilter(provider), ExtAuthzSchema, asking)],
    ]),
  ])
}

function providerFilters({ providers }: ProxyPlaces, asked: ReadonlyMap<string, RBAC['rules']>): DeliveredFilters['providers'] {
  return new Map(
    [...providers].map(([provider, cluster]) => {
      const rules = asked.get(provider)
      const prefix = shadowPrefix(provider)
      const marking = create(RBACSchema, rules && { shadowRules: rules, shadowRulesStatPrefix: prefix })
      return [provider, { marking, asking: fromJson(ExtAuthzSchema, askingConfig(provider, cluster, prefix, 'http') as JsonValue) }]
    }),
  )
}

const unreachable = (provider: string): string =>
  `the provider \`${provider}\` is not known here: what its CUSTOM policies match is refused; the proxy lists \`${markingFilter(provider)}\` and \`${askingFilter(provider)}\` and names the cluster under \`providers\``

function notesOnTokens({ tokens }: CompiledPolicies, places: ProxyPlaces): string[] {
  if (tokens.length === 0) return []
  if (!places.tokens) {
    return [`tokens of end users cannot be read: the proxy does not list \`${tokenFilter}\`; requests that carry one are refused`]
  }
  return tokens.flatMap(({ issuer, keys }) => {
    if (keys === 'discovered')
      return [`the keys of \`${issuer}\` are not known here, so its tokens are refused: name \`jwks\` or \`jwksUri\``]
    if ('jwks' in keys || places.keys.has(keys.jwksUri)) return []
    return [`the proxy names no cluster for \`${keys.jwksUri}\` under \`keys\`: the tokens of \`${issuer}\` are refused`]
  })
}

/** Envoy refuses a filter with a key set that it finds nothing in, and would go on with the one before, which knows nothing of this issuer. */
function withReadableKeys(rule: JwtRule): JwtRule {
  if (rule.keys === 'discovered' || !('jwks' in rule.keys)) return rule
  return { ...rule, keys: { jwks: JSON.stringify({ keys: [...keysIn(rule.keys.jwks), keyOfNobody] }) } }
}

function keysIn(jwks: string): readonly unknown[] {
  try {
    const { keys } = asMap(JSON.parse(jwks))
    return Array.isArray(keys) ? keys : []
  } catch {
    return []
  }
}

function clusters(said: unknown): ReadonlyMap<string, string> {
  const named = Object.entries(asMap(said)).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string' && entry[1] !== '' && entry[0].length <= mostCharacters,
  )
  return new Map(named.slice(0, mostClusters))
}

const asMap = (value: unknown): JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {}

const mostClusters = 64
const mostCharacters = 2048
