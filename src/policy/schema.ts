/**
 * The language as a JSON Schema, for editors: which keys there are and what they hold. From the tables that the parser reads by;
 * what only the parser can tell (patterns, what goes with what) is left to `vidimus policy check`. As strict mode reads it.
 */
import { fieldNames } from './fields.ts'
import { istioVersion, limits, ourVersion } from './reading.ts'
import { testKeys } from './test-file.ts'

/** A document of any kind that may stand in a policy file. JSON Schema 2020-12. */
export function languageSchema(): object {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Vidimus policies and their tests',
    anyOf: [
      document(istioVersion, 'AuthorizationPolicy', authorizationPolicy(false)),
      document(ourVersion, 'AuthorizationPolicy', authorizationPolicy(true)),
      document(istioVersion, 'PeerAuthentication', { type: 'object' }),
      document(istioVersion, 'RequestAuthentication', { type: 'object' }),
      policyTest(),
    ],
  }
}

const document = (apiVersion: string, kind: string, spec: object) =>
  map({ apiVersion: { const: apiVersion }, kind: { const: kind }, metadata, spec, status: {} }, ['apiVersion', 'kind', 'metadata', 'spec'])

function authorizationPolicy(ours: boolean): object {
  const fields = (of: keyof typeof fieldNames) =>
    map(Object.fromEntries(fieldNames[of].filter((one) => ours || !one.ours).map(({ name }) => [name, texts])))
  const rule = map({
    from: list(map({ source: fields('source') }, ['source']), limits.sources),
    to: list(map({ operation: fields('operation') }, ['operation'])),
    when: list(map({ key: text, values: texts, notValues: texts }, ['key'])),
    ...(ours && { condition: text }),
  })
  return map({
    selector: map({ matchLabels: { type: 'object', additionalProperties: text } }),
    targetRefs: { type: 'array', minItems: 1, maxItems: limits.targetRefs, items: { type: 'object' } },
    targetRef: { type: 'object' },
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
      cases: list(map({ ...known(testKeys.case), name: text, workload: text, expect: verdict }, ['name', 'workload', 'expect'])),
      matrix: list(
        map({ name: text, workload: text, at: text, requests: list(text), verdicts: named(list(verdict)) }, [
          'workload',
          'requests',
          'verdicts',
        ]),
      ),
    },
    ['apiVersion', 'kind', 'workloads'],
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
const texts = list(text, limits.items)
/** What a Kubernetes API server adds is accepted. */
const metadata = { type: 'object', properties: { name: text, namespace: text }, required: ['name'] }
