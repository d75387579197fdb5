import { describe, expect, test } from 'vitest'
import { explainServerApi } from '../../src/policy/explain.ts'
import { parsePolicySet } from '../../src/policy/language.ts'
import type { ServerApiAttributes, ServerApiRequest } from '../../src/policy/request.ts'
import { decideServerApi, serverApiPolicy } from '../../src/policy/server-api.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { noon } from './make.ts'

const create = '/spire.api.server.entry.v1.Entry/BatchCreateEntry'
const policy = (spec: object, name = 'p') => ({
  name,
  text: JSON.stringify({
    apiVersion: 'vidimus.dev/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name },
    spec: { target: 'serverApi', ...spec },
  }),
})
const rules = (from: object, to?: object, when?: object) => [
  { from: [{ source: from }], ...(to ? { to: [{ operation: to }] } : {}), ...(when ? { when: [when] } : {}) },
]
const decided = (documents: readonly { name: string; text: string }[], call: Partial<ServerApiRequest>, at = noon) =>
  decideServerApi(serverApiPolicy(parsePolicySet(documents)), { caller: 'admin', method: create, attributes: {}, ...call }, at)

describe('the server API is closed', () => {
  test('R-11 without policies, and with one that has no rules', () => {
    expect(decided([], { caller: 'local' })).toMatchObject({ allowed: false, reason: 'no-policy' })
    expect(decided([policy({})], { caller: 'local' })).toMatchObject({ allowed: false, reason: 'no-rule-matched' })
  })
  test('also in istio mode', () => {
    const set = parsePolicySet([], { mode: 'istio' })
    expect(decideServerApi(serverApiPolicy(set), { caller: 'local', method: create, attributes: {} }, noon).allowed).toBe(false)
  })
  test('to policies on dry run, which refuse nothing either', () => {
    const dry = (action: string) => {
      const { name, text } = policy({ action, rules: rules({ callers: ['admin'] }) }, action.toLowerCase())
      const tree = JSON.parse(text) as { metadata: object }
      return { name, text: JSON.stringify({ ...tree, metadata: { name, annotations: { 'istio.io/dry-run': 'true' } } }) }
    }
    expect(decided([dry('ALLOW')], {})).toMatchObject({ allowed: false, reason: 'no-policy' })
    expect(decided([policy({ rules: rules({ callers: ['admin'] }) }), dry('DENY')], {})).toMatchObject({ allowed: true })
  })
  test('to policies for workloads', () => {
    const text = JSON.stringify({
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 'p', namespace: 'istio-system' },
      spec: { rules: [{}] },
    })
    expect(decided([{ name: 'p', text }], {}).reason).toBe('no-policy')
  })
})

describe('who calls', () => {
  test('is one of the callers named; `anyone` names them all', () => {
    const admins = [policy({ rules: rules({ callers: ['admin', 'local'] }) })]
    for (const [caller, allowed] of [
      ['admin', true],
      ['local', true],
      ['agent', false],
      ['downstream', false],
      ['anyone', false],
      [['downstream', 'admin'], true],
      [[], false],
    ] as const) {
      expect([caller, decided(admins, { caller }).allowed]).toEqual([caller, allowed])
    }
    for (const caller of ['admin', 'agent', 'anyone', 'local', 'downstream'] as const)
      expect(decided([policy({ rules: rules({ callers: ['anyone'] }) })], { caller }).allowed).toBe(true)
  })
  test('methods are compared as they are, not as paths of files', () => {
    const one = [policy({ rules: rules({ callers: ['admin'] }, { paths: [create, '/a.B/*', '/c.D/{*}'] }) })]
    for (const [method, allowed] of [
      [create, true],
      ['/a.B/C', true],
      ['/c.D/E', true],
      [`/${create}`, false],
      ['/x/../a.B/C', false],
      [create.toLowerCase(), false],
    ] as const) {
      expect([method, decided(one, { method }).allowed]).toEqual([method, allowed])
    }
  })
  test('an exception ends at its moment', () => {
    const one = [policy({ expires: '2030-01-01', rules: rules({ callers: ['admin'] }) })]
    expect(decided(one, {}, 1_893_455_999_999).allowed).toBe(true)
    expect(decided(one, {}, 1_893_456_000_000)).toMatchObject({ allowed: false, reason: 'no-rule-matched' })
  })
})

describe('what the call is about', () => {
  const web = parseSpiffeId('spiffe://example.org/team-a/web')
  const allows = (key: string, values: object, attributes: ServerApiAttributes) =>
    decided([policy({ rules: rules({ callers: ['admin'] }, undefined, { key, ...values }) })], { attributes }).allowed
  const denies = (key: string, values: object, attributes: ServerApiAttributes) =>
    decided([policy({ rules: rules({ callers: ['admin'] }) }), policy({ action: 'DENY', rules: [{ when: [{ key, ...values }] }] }, 'q')], {
      attributes,
    }).reason === 'denied'

  test.each([
    ['entry.spiffeId', 'spiffe://example.org/team-a/{**}', 'spiffe://example.org/team-b/{**}', { 'entry.spiffeId': web }],
    ['entry.parentId', 'spiffe://example.org/team-a/{*}', 'spiffe://example.org/web', { 'entry.parentId': web }],
    ['agent.id', 'spiffe://example.org/team-a/web', 'spiffe://example.org/team-a', { 'agent.id': web }],
    ['entry.x509Ttl', '<=1h', '<=59m', { 'entry.x509Ttl': 3_600_000 }],
    ['entry.x509Ttl', '>=1h', '>=2h', { 'entry.x509Ttl': 3_600_000 }],
    ['entry.x509Ttl', '1h', '1h1ms', { 'entry.x509Ttl': 3_600_000 }],
    ['entry.admin', 'true', 'false', { 'entry.admin': true }],
    ['entry.downstream', 'false', 'true', { 'entry.downstream': false }],
    ['trustDomain', 'example.org', 'example.com', { trustDomain: 'example.org' }],
  ] as [string, string, string, ServerApiAttributes][])('%s is %s and not %s', (key, yes, no, attributes) => {
    expect(allows(key, { values: [yes] }, attributes)).toBe(true)
    expect(allows(key, { values: [no] }, attributes)).toBe(false)
    expect(allows(key, { notValues: [yes] }, attributes)).toBe(false)
    expect(allows(key, { notValues: [no] }, attributes)).toBe(true)
    expect(denies(key, { values: [yes] }, attributes)).toBe(true)
    expect(denies(key, { values: [no] }, attributes)).toBe(false)
    for (const values of [{ values: [yes] }, { notValues: [yes] }]) {
      expect(allows(key, values, {})).toBe(false)
      expect(denies(key, values, {})).toBe(true)
    }
  })

  test('a refusal is explained by the rule that came nearest', () => {
    const compiled = serverApiPolicy(
      parsePolicySet([
        policy({
          rules: [
            ...rules({ callers: ['agent'] }, { paths: ['/x'] }),
            ...rules({ callers: ['admin'] }, { paths: [create] }, { key: 'entry.x509Ttl', values: ['<=1h'] }),
          ],
        }),
      ]),
    )
    const call = { caller: 'admin', method: create, attributes: { 'entry.x509Ttl': 7_200_000 } } as const
    expect(explainServerApi(compiled, call, decideServerApi(compiled, call, noon))).toEqual([
      'denied: no ALLOW rule matches',
      'nearest is rule 1 of policy `p` (p:1)',
      'it fails on `entry.x509Ttl values` (line 1): expected `<=1h`, found `2h`',
    ])
  })
})
