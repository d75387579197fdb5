/**
 * The language as a JSON Schema, for editors: which keys there are and what they hold. From the tables that the parser reads by;
 * what only the parser can tell (patterns, what goes with what) is left to `vidimus policy check`. As strict mode reads it.
 */
import { durationPattern } from '../kernel/duration.ts'
import { type jwtRuleKeys, keysAddress, mtlsModes } from './authentication.ts'
import { fieldNames } from './fields.ts'
import { metadataKeys } from './language.ts'
import { attachable, dnsLabel, dnsSubdomain, istioVersion, limits, ourVersion } from './reading.ts'
import { serverApiCallers } from './request.ts'
import { testKeys } from './test-file.ts'

/** A document of any kind that may stand in a policy file. JSON Schema 2020-12. */
export function languageSchema(): object {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Vidimus policies and their tests',
    anyOf: [
      document(istioVersion, 'AuthorizationPolicy', authorizationPolicy(false), ['name']),
      document(ourVersion, 'AuthorizationPolicy', authorizationPolicy(true), ['name']),
      document(istioVersion, 'PeerAuthentication', peerAuthentication(), ['name', 'namespace']),
      document(istioVersion, 'RequestAuthentication', requestAuthentication(), ['name', 'namespace']),
      policyTest(),
    ],
  }
}

const document = (apiVersion: string, kind: string, spec: object, named: readonly string[]) =>
  map({ apiVersion: { const: apiVersion }, kind: { const: kind }, metadata: metadata(named), spec, status: {} }, [
    'apiVersion',
    'kind',
    'metadata',
    'spec',
  ])

function peerAuthentication(): object {
  const mtls = { anyOf: [{ type: 'null' }, map({ mode: { enum: mtlsModes } })] }
  const ofPorts = { type: 'object', propertyNames: { pattern: portNumber }, maxProperties: limits.items, additionalProperties: mtls }
  return {
    anyOf: [map({ selector, mtls }), map({ selector: selectorWith(1), mtls, portLevelMtls: ofPorts }, ['selector', 'portLevelMtls'])],
  }
}

function requestAuthentication(): object {
  const pairs = (properties: object, required: readonly string[]) => ({
    type: 'array',
    maxItems: limits.items,
    items: map(properties, required),
  })
  const known: Readonly<Record<(typeof jwtRuleKeys)[number], object>> = {
    issuer: { type: 'string', minLength: 1 },
    audiences: texts,
    jwks: anyText,
    jwksUri: { type: 'string', pattern: keysAddress.source },
    fromHeaders: pairs({ name: anyText, prefix: anyText }, ['name']),
    fromParams: texts,
    fromCookies: texts,
    forwardOriginalToken: { type: 'boolean' },
    outputPayloadToHeader: anyText,
    outputClaimToHeaders: pairs({ header: anyText, claim: anyText }, ['header', 'claim']),
    timeout: { type: 'string', minLength: 1, pattern: durationPattern.source },
    spaceDelimitedClaims: texts,
  }
  const { jwks, jwksUri, ...others } = known
  const rule = { anyOf: [map({ ...others, jwks }, ['issuer']), map({ ...others, jwksUri }, ['issuer'])] }
  return attached({ jwtRules: list(rule, limits.items) }, ['jwtRules'])
}

/** A policy is for workloads, or for a gateway, said in one of two ways. */
function attached(properties: object, required: readonly string[] = []): object {
  const ref = {
    anyOf: attachable.map((one) => {
      const [group, kind] = [one.slice(0, one.indexOf('/')), one.slice(one.indexOf('/') + 1)]
      const needed = group === '' ? ['kind', 'name'] : ['group', 'kind', 'name']
      return map({ group: { const: group }, kind: { const: kind }, name: anyText, namespace: anyText }, needed)
    }),
  }
  return {
    anyOf: [
      map({ ...properties, selector }, required),
      map({ ...properties, targetRefs: list(ref, limits.targetRefs) }, [...required, 'targetRefs']),
      map({ ...properties, targetRef: ref }, [...required, 'targetRef']),
    ],
  }
}

function authorizationPolicy(ours: boolean): object {
  const fields = (of: keyof typeof fieldNames) =>
    map(Object.fromEntries(fieldNames[of].filter((one) => ours || !one.ours).map(({ name }) => [name, texts])))
  const rule = map({
    from: list(map({ source: fields('source') }, ['source']), limits.sources),
    to: list(map({ operation: fields('operation') }, ['operation'])),
    when: list(map({ key: text, values: texts, notValues: texts }, ['key'])),
    ...(ours && { condition: text }),
  })
  return attached({
    action: { enum: ['ALLOW', 'DENY', 'AUDIT', 'CUSTOM'] },
    provider: map({ name: text }, ['name']),
    rules: { type: 'array', maxItems: limits.rules, items: rule },
    ...(ours && {
      identities: texts,
      requirePeer: { type: 'boolean' },
      expires: text,
      target: { enum: ['serverApi', 'onboarding'] },
    }),
  })
}

function policyTest(): object {
  const verdict = { enum: ['allowed', 'denied'] }
  const known = (keys: readonly string[]) => Object.fromEntries(keys.map((key) => [key, {}]))
  const caller = { anyOf: [{ enum: serverApiCallers }, { type: 'array', minItems: 1, items: { enum: serverApiCallers } }] }
  const attributes = map(known(testKeys.attributes))
  const testCase = (target: keyof typeof testKeys.question, keys: object, required: readonly string[]) =>
    map({ ...known(testKeys.expectation), ...known(testKeys.question[target]), name: text, expect: verdict, ...keys }, [
      'name',
      'expect',
      ...required,
    ])
  const named = (of: object) => ({ type: 'object', additionalProperties: of })
  return map(
    {
      apiVersion: { const: ourVersion },
      kind: { const: 'PolicyTest' },
      metadata: { type: 'object' },
      workloads: named(map({ spiffeIds: { type: 'array', items: text }, selectors: { type: 'array', items: text } })),
      fixtures: map({
        peers: named({ anyOf: [text, map({ spiffeId: text, ...known(testKeys.peer) })] }),
        requests: named(map(known(testKeys.request))),
      }),
      cases: list({
        anyOf: [
          testCase('workload', { workload: text }, ['workload']),
          testCase('serverApi', { target: { const: 'serverApi' }, caller, method: text, attributes }, ['target', 'caller', 'method']),
          testCase('onboarding', { target: { const: 'onboarding' }, evidence: text, selectors: { type: 'array', items: text } }, [
            'target',
            'evidence',
          ]),
        ],
      }),
      matrix: list(
        map({ name: text, workload: text, at: text, requests: list(text), verdicts: named(list(verdict)) }, [
          'workload',
          'requests',
          'verdicts',
        ]),
      ),
    },
    ['apiVersion', 'kind'],
  )
}

const map = (properties: object, required: readonly string[] = []) => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
})
const list = (items: object, most = 10_000) => ({ type: 'array', minItems: 1, maxItems: most, items })
const text = { type: 'string', minLength: 1, maxLength: limits.value }
const anyText = { type: 'string' }
const texts = list(text, limits.items)
/** What a Kubernetes API server adds is accepted. */
const metadata = (required: readonly string[]) =>
  map(
    {
      ...Object.fromEntries(metadataKeys.map((key) => [key, {}])),
      name: { type: 'string', maxLength: limits.name, pattern: dnsSubdomain.source },
      namespace: { type: 'string', pattern: dnsLabel.source },
    },
    required,
  )
/** Labels are compared exactly. */
const selectorWith = (fewest: number) =>
  map(
    {
      matchLabels: {
        type: 'object',
        minProperties: fewest,
        propertyNames: { pattern: '^[^*]+$' },
        additionalProperties: { type: 'string', pattern: '^[^*]*$' },
      },
    },
    fewest > 0 ? ['matchLabels'] : [],
  )
const selector = selectorWith(0)
/** 1 to 65535. */
const portNumber = '^(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$'
