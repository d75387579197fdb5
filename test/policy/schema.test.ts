import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parseAllDocuments } from 'yaml'
import { z } from 'zod'
import { checkPolicies } from '../../src/policy/language.ts'
import { languageSchema } from '../../src/policy/schema.ts'
import { istios, ours, web } from './make.ts'

const schema = z.fromJSONSchema(languageSchema() as Parameters<typeof z.fromJSONSchema>[0])
const isValid = (value: unknown) => schema.safeParse(value).success
const folder = new URL('../../policies/', import.meta.url)

describe('the JSON Schema for editors', () => {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.yaml'))

  test('there are policies to try it on', () => expect(files.length).toBeGreaterThan(20))

  test.each(files)('knows %s', (name) => {
    for (const document of parseAllDocuments(readFileSync(new URL(name, folder), 'utf8')))
      expect([isValid(document.toJS()), name]).toEqual([true, name])
  })

  const one = (spec: object): unknown => JSON.parse(ours(spec))
  const suite = (more: object) => ({ apiVersion: 'vidimus.dev/v1', kind: 'PolicyTest', workloads: { a: { spiffeIds: [web] } }, ...more })
  const matrix = (verdicts: object) => suite({ matrix: [{ workload: 'a', requests: ['r'], verdicts }] })
  test.each<[string, unknown]>([
    ['a version that is none', { ...(one({}) as object), apiVersion: 'vidimus.dev/v2' }],
    ['a kind that is none', { ...(one({}) as object), kind: 'Policy' }],
    ['a policy without a name', { ...(one({}) as object), metadata: {} }],
    ['an unknown key', one({ rule: [] })],
    ['an action that is none', one({ action: 'allow' })],
    ['a text where a list belongs', one({ rules: [{ to: [{ operation: { paths: '/a' } }] }] })],
    ['an empty list of values', one({ rules: [{ to: [{ operation: { paths: [] } }] }] })],
    ['an empty `from`', one({ rules: [{ from: [] }] })],
    ['a misspelt field', one({ rules: [{ to: [{ operation: { method: ['GET'] } }] }] })],
    ['a number where a text belongs', one({ rules: [{ to: [{ operation: { ports: [80] } }] }] })],
    ['a condition without a key', one({ rules: [{ when: [{ values: ['a'] }] }] })],
    ["our fields in Istio's kind", JSON.parse(istios({ rules: [{ from: [{ source: { spiffeIds: [web] } }] }] }))],
    ["a condition in CEL in Istio's kind", JSON.parse(istios({ rules: [{ condition: 'connection.mtls' }] }))],
    ['a verdict that is none', suite({ cases: [{ name: 'a', workload: 'a', expect: 'allow' }] })],
    ['a case with an unknown key', suite({ cases: [{ name: 'a', workload: 'a', expect: 'denied', verb: 'GET' }] })],
    ['a cell that is no verdict', matrix({ web: ['yes'] })],
    ['a row that is no list', matrix({ web: 'denied' })],
    ['a fixture of an unknown kind', suite({ fixtures: { users: {} } })],
  ])('refuses %s', (_, value) => expect(isValid(value)).toBe(false))

  test.each<[string, unknown]>([
    ['a call of our API', { name: 'a', target: 'serverApi', caller: 'agent', method: '/a/B', expect: 'denied' }],
    ['a node', { name: 'a', target: 'onboarding', evidence: 'x509pop', selectors: ['x509pop:ca:fp'], expect: 'denied' }],
  ])('takes a case that is %s, and no other with its keys', (_, one) => {
    expect(isValid({ ...suite({ cases: [one] }), workloads: undefined })).toBe(true)
    expect(isValid(suite({ cases: [{ ...(one as object), path: '/' }] }))).toBe(false)
  })

  test('takes a matrix that is right', () => expect(isValid(matrix({ web: ['denied'] }))).toBe(true))
})

describe("of Istio's other kinds the schema and the parser say the same", () => {
  const whole = (kind: string, spec: unknown, metadata: unknown = { name: 'p', namespace: 'shop' }) => ({
    apiVersion: 'security.istio.io/v1',
    kind,
    metadata,
    spec,
  })
  const peers = (spec: unknown, metadata?: unknown) => whole('PeerAuthentication', spec, metadata)
  const rule = (more: object) => whole('RequestAuthentication', { jwtRules: [{ issuer: 'https://issuer.test', ...more }] })
  const attached = (more: object) => whole('RequestAuthentication', { jwtRules: [{ issuer: 'i' }], ...more })
  const gateway = { group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'g' }
  const labels = { matchLabels: { app: 'orders' } }
  const modes = ['UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT', 'strict', '', null, 1, true, [], {}]
  const ports = ['0', '1', '80', '080', '9999', '10000', '59999', '65535', '65536', '70000', '99999', '100000', 'http', '', '-1', '8.0']
  const durations = ['5s', '1h30m', '250ms', '5', '', 's', '1s1s', '1m1h', '-5s', '5 s', 5, null]
  const corpus: unknown[] = [
    ...modes.flatMap((mode) => [peers({ mtls: { mode } }), peers({ selector: labels, portLevelMtls: { '80': { mode } } })]),
    ...ports.map((port) => peers({ selector: labels, portLevelMtls: { [port]: { mode: 'STRICT' } } })),
    ...[{}, { mtls: null }, { mtls: {} }, { mtls: [] }, { mtls: 'STRICT' }, { mtls: { mod: 'STRICT' } }, { mode: 'STRICT' }, null, []].map(
      (spec) => peers(spec),
    ),
    ...[null, {}, { matchLabels: {} }, { matchLabels: null }, { matchLabels: { a: 1 } }, { matchLabels: { a: 'x*' } }, { matchLabels: { 'a*': 'x' } }, { matchLabels: { '': 'x' } }, { matchLabels: { a: '' } }, labels, { labels: {} }, 'app=orders']
      .flatMap((selector) => [peers({ selector }), peers({ selector, portLevelMtls: { '80': null } }), attached({ selector })]), // prettier-ignore
    ...[{ portLevelMtls: {} }, { portLevelMtls: { '80': {} } }, { selector: labels, portLevelMtls: [] }, { selector: labels, portLevelMtls: {} }].map((spec) => peers(spec)), // prettier-ignore
    ...[{ name: 'p' }, { namespace: 'shop' }, { name: 'P', namespace: 'shop' }, { name: 'p', namespace: 'A b' }, { name: 'p'.repeat(254), namespace: 'shop' }, { name: 'p', namespace: 's'.repeat(64) }, { name: 'p', namespace: 'shop', label: {} }, { name: 'p', namespace: 'shop', labels: { a: 'b' }, uid: 'u' }, {}, null]
      .map((metadata) => peers({}, metadata)), // prettier-ignore
    ...durations.map((timeout) => rule({ timeout })),
    ...['https://a/k', 'http://a', 'ftp://a', 'https://', 'https:///k', 'a', '', 1].map((jwksUri) => rule({ jwksUri })),
    ...['audiences', 'fromParams', 'fromCookies', 'spaceDelimitedClaims'].flatMap((key) =>
      [[], ['a'], [''], [1], ['a'.repeat(2049)], 'a', null, [null]].map((value) => rule({ [key]: value })),
    ),
    ...[[], [{ name: 'x' }], [{ name: 'x', prefix: 'B ' }], [{ name: '' }], [{}], [{ name: 'x', pre: '' }], ['x'], 'x', [{ name: 1 }]].map(
      (fromHeaders) => rule({ fromHeaders }),
    ),
    ...[[], [{ header: 'x', claim: 'y' }], [{ header: 'x' }], [{ claim: 'y' }], [{ header: 'x', claim: 'y', z: 'z' }], {}].map(
      (outputClaimToHeaders) => rule({ outputClaimToHeaders }),
    ),
    ...[true, false, 'true', 1, null].map((forwardOriginalToken) => rule({ forwardOriginalToken })),
    ...['x', '', 1].flatMap((value) => [rule({ outputPayloadToHeader: value }), rule({ jwks: value }), rule({ issuer: value })]),
    ...[{ jwks: '{}', jwksUri: 'https://a/k' }, { jwkUri: 'https://a/k' }, { issuer: undefined }].map((more) => rule(more)),
    ...[[], null, {}, [null], ['x'], [{}]].map((jwtRules) => whole('RequestAuthentication', { jwtRules })),
    whole('RequestAuthentication', {}),
    ...[
      { targetRefs: [gateway] }, { targetRef: gateway }, { targetRefs: [] }, { targetRefs: gateway }, { targetRefs: [gateway], targetRef: gateway },
      { selector: labels, targetRefs: [gateway] }, { targetRefs: [{ ...gateway, group: '' }] }, { targetRefs: [{ kind: 'Service', name: 's' }] },
      { targetRefs: [{ group: '', kind: 'Service', name: 's' }] }, { targetRefs: [{ kind: 'Service' }] }, { targetRefs: [{ ...gateway, port: '80' }] },
      { targetRefs: [{ ...gateway, namespace: 'shop' }] }, { targetRefs: [{ group: 'networking.istio.io', kind: 'ServiceEntry', name: 'e' }] },
      { targetRefs: Array.from({ length: 17 }, () => gateway) }, { jwtRule: [] },
    ].map(attached), // prettier-ignore
  ].map((value) => JSON.parse(JSON.stringify(value)) as unknown)

  test('the corpus has both', () => {
    const valid = corpus.filter(isValid).length
    expect([valid > 40, corpus.length - valid > 100]).toEqual([true, true])
  })

  test.each(corpus.map((value) => [JSON.stringify(value).slice(0, 160), value] as const))('%s', (_, value) => {
    const { problems } = checkPolicies([{ name: 'p.yaml', text: JSON.stringify(value) }])
    expect([isValid(value), problems]).toEqual([problems.length === 0, problems])
  })
})
