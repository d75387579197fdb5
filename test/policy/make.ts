import { compileFor, type CompiledPolicies, type WorkloadFacts } from '../../src/policy/compile.ts'
import type { Decision } from '../../src/policy/decision.ts'
import { decide } from '../../src/policy/evaluate.ts'
import { checkPolicies, parsePolicySet, type LanguageOptions } from '../../src/policy/language.ts'
import { headerValues, type PolicyRequest } from '../../src/policy/request.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'

/** The workload that all policies here are for. */
export const orders: WorkloadFacts = { spiffeIds: [parseSpiffeId('spiffe://example.org/ns/shop/sa/orders')], selectors: [] }
export const noon = 1_900_000_000_000

/** A document of our own kind that selects {@link orders}. JSON is YAML. */
export const ours = (spec: object, name = 'p'): string =>
  JSON.stringify({
    apiVersion: 'vidimus.dev/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name },
    spec: { identities: ['spiffe://example.org/{**}'], ...spec },
  })

/** A document of Istio's kind in the namespace of {@link orders}. */
export const istios = (spec: object, name = 'p', namespace = 'shop'): string =>
  JSON.stringify({ apiVersion: 'security.istio.io/v1', kind: 'AuthorizationPolicy', metadata: { name, namespace }, spec })

export const documents = (texts: readonly string[]) => texts.map((text, index) => ({ name: `${index}.yaml`, text }))

export function compiled(texts: readonly string[], options: LanguageOptions = {}, facts = orders): CompiledPolicies {
  return compileFor(parsePolicySet(documents(texts), options), facts, { at: noon })
}

export const verdict = (texts: readonly string[], request: PolicyRequest, options: LanguageOptions = {}): Decision =>
  decide(compiled(texts, options), request)

/** What is wrong, as `path: message`. */
export const problemsOf = (text: string, options: LanguageOptions = {}): string[] =>
  checkPolicies([{ name: 'policy.yaml', text }], options).problems.map(({ path, message }) => `${path}: ${message}`)

export interface Made {
  readonly peer?: string | undefined
  readonly method?: string
  readonly path?: string
  readonly host?: string
  readonly headers?: readonly (readonly [string, string])[]
}

/** `GET /orders` at `orders.shop` by nobody, unless said otherwise. */
export function request(
  { peer, method = 'GET', path = '/orders', host = 'orders.shop', headers = [] }: Made = {},
  more: PolicyRequest = {},
): PolicyRequest {
  return {
    ...(peer === undefined ? {} : { peer: { spiffeId: parseSpiffeId(peer) } }),
    http: { method, path, host, headers: headerValues(headers) },
    ...more,
  }
}

export const web = 'spiffe://example.org/ns/shop/sa/web'
export const selectors = (...texts: readonly string[]) => texts.map(parseSelector)
export const everything = { rules: [{}], requirePeer: false }
