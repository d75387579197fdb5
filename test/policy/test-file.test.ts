import { expect, test } from 'vitest'
import type { Failure } from '../../src/kernel/failure.ts'
import { parsePolicySet } from '../../src/policy/language.ts'
import { isPolicyTestFile, parsePolicyTests, runPolicyTests } from '../../src/policy/test-file.ts'
import { documents, istios, noon, ours, web } from './make.ts'

const file = (cases: unknown, more: object = {}) =>
  JSON.stringify({
    apiVersion: 'vidimus.dev/v1',
    kind: 'PolicyTest',
    workloads: { orders: { spiffeIds: ['spiffe://example.org/orders'] }, pod: { selectors: ['k8s:ns:shop'] } },
    cases,
    ...more,
  })
const one = { name: 'a', workload: 'orders', method: 'GET', path: '/', expect: 'denied' }

test.each<[string, string, string]>([
  ['no cases', file([]), 'expected `cases`'],
  ['no workloads', file([one], { workloads: undefined }), 'expected `workloads`'],
  ['a key that is unknown', file([{ ...one, expects: 'denied' }]), 'did you mean `expect`?'],
  ['a workload that is unknown', file([{ ...one, workload: 'order' }]), 'unknown workload `order`: did you mean `orders`?'],
  ['a verdict that is none', file([{ ...one, expect: 'allow' }]), 'expected `allowed` or `denied`, found `allow`'],
  ['no verdict', file([{ ...one, expect: undefined }]), 'expected the key `expect`'],
  ['a peer that is none', file([{ ...one, peer: 'web' }]), 'is not a SPIFFE ID'],
  ['an address that is none', file([{ ...one, sourceIp: '10.0' }]), 'expected an IP address'],
  ['a port that is none', file([{ ...one, port: 70_000 }]), 'expected a port'],
  ['a rule that is none', file([{ ...one, by: 'p rule x' }]), 'expected the name of a policy'],
  ['a moment that is none', file([{ ...one, at: 'soon' }]), 'expected a date or a moment'],
  ['a method without a path', file([{ ...one, path: undefined }]), 'expected the key `path`'],
  ['a header that is none', file([{ ...one, headers: { a: 1 } }]), 'expected a text'],
  [
    'headers without a request',
    file([{ ...one, method: undefined, path: undefined, headers: { a: 'b' } }]),
    '`headers` needs `method` and `path`',
  ],
  ['a selector that is none', file([one], { workloads: { orders: { selectors: ['x'] } } }), 'is not a selector'],
])('refuses %s', (_, text, expected) => {
  try {
    parsePolicyTests(documents([text]))
    expect.unreachable()
  } catch (thrown) {
    expect(thrown).toMatchObject({ reason: 'policy-test.invalid' })
    expect((thrown as Failure).message).toContain(expected)
  }
})

test('tells what was expected, what was found, and why', () => {
  const set = parsePolicySet(documents([ours({ rules: [{ from: [{ source: { spiffeIds: [web] } }] }] }, 'web')]))
  const cases = parsePolicyTests(
    documents([
      file([{ ...one, peer: web }, { ...one, peer: web, expect: 'allowed', by: 'other rule 2' }, { ...one, expect: 'allowed' }, one]),
    ]),
  )
  const results = runPolicyTests(set, cases, { at: noon })
  expect(results.map(({ passed }) => passed)).toEqual([false, false, false, true])
  expect(results[0]?.told).toEqual(['expected denied, found allowed', 'allowed by rule 0 of policy `web` (0.yaml:1)'])
  expect(results[1]?.told[0]).toBe('expected allowed by `other` rule 2, found allowed')
  expect(results[2]?.told[0]).toBe('expected allowed, found denied')
  expect(results[2]?.told).toHaveLength(5)
})

test('a case says everything that a request can hold', () => {
  const rules = [
    {
      from: [{ source: { ipBlocks: ['10.0.0.1'], remoteIpBlocks: ['10.0.0.2'] } }],
      to: [{ operation: { hosts: ['a.org'], ports: ['80'] } }],
      when: [
        { key: 'request.headers[a]', values: ['1', '2'] },
        { key: 'connection.sni', values: ['s'] },
        { key: 'destination.ip', values: ['10.0.0.3'] },
      ],
    },
  ]
  const set = parsePolicySet(documents([istios({ rules })]))
  const asked = {
    ...one,
    workload: 'pod',
    expect: 'allowed',
    by: 'p rule 0',
    sourceIp: '10.0.0.1',
    remoteIp: '10.0.0.2',
    destinationIp: '10.0.0.3',
    port: 80,
    sni: 's',
    host: 'a.org',
    headers: { A: ['1', '2'] },
  }
  expect(runPolicyTests(set, parsePolicyTests(documents([file([asked])])), { at: noon })[0]).toMatchObject({ passed: true, told: [] })
})

test('a case can be asked at its own moment, and without HTTP', () => {
  const set = parsePolicySet(documents([ours({ expires: '2030-01-01', requirePeer: false, rules: [{}] })]))
  const cases = parsePolicyTests(
    documents([
      file([
        { name: 'before', workload: 'orders', at: '2029-12-31', expect: 'allowed' },
        { name: 'after', workload: 'orders', at: '2030-01-01', expect: 'denied' },
      ]),
    ]),
  )
  expect(runPolicyTests(set, cases, { at: noon }).map(({ passed }) => passed)).toEqual([true, true])
})

test('only a document of tests is a test file', () => {
  expect(isPolicyTestFile({ name: 'a', text: file([one]) })).toBe(true)
  expect(isPolicyTestFile({ name: 'a', text: `${file([one])}\n---\n${istios({})}` })).toBe(false)
  expect(isPolicyTestFile({ name: 'a', text: 'x: [' })).toBe(false)
  expect(isPolicyTestFile({ name: 'a', text: '' })).toBe(false)
})
