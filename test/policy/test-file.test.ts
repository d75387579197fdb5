import { describe, expect, test } from 'vitest'
import type { Failure } from '../../src/kernel/failure.ts'
import { parsePolicySet } from '../../src/policy/language.ts'
import { isPolicyTestFile, parsePolicyTests } from '../../src/policy/test-file.ts'
import { runPolicyTests } from '../../src/policy/test-run.ts'
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

const call = { name: 'a', target: 'serverApi', caller: 'agent', method: '/a.B/C', expect: 'denied' }

const fixtures = {
  peers: { web, alice: { spiffeId: web, claims: { iss: 'https://id.example.org', sub: 'alice', groups: ['admins'], level: 3 } } },
  requests: { list: { method: 'GET', path: '/orders' }, place: { method: 'POST', path: '/orders' } },
}
const grid = (more: object = {}) =>
  file(undefined, {
    fixtures,
    matrix: [{ workload: 'orders', requests: ['list', 'place'], verdicts: { web: ['allowed', 'denied'] }, ...more }],
  })

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
  ['claims without a request', file([{ ...one, method: undefined, path: undefined, claims: { sub: 'a' } }]), '`claims` needs `method`'],
  ['claims that are no map', file([{ ...one, claims: ['a'] }]), 'expected a map, found a list'],
  ['the answer of a provider that is none', file([{ ...one, providers: { opa: 'yes' } }]), 'expected `allowed` or `denied`, found `yes`'],
  ['a fixture of an unknown kind', file([one], { fixtures: { peer: {} } }), 'did you mean `peers`?'],
  ['an unknown key in a fixture', file([one], { fixtures: { requests: { list: { pat: '/' } } } }), 'did you mean `path`?'],
  ['a fixture that says who calls', file([one], { fixtures: { requests: { list: { peer: web } } } }), 'unknown key `peer`'],
  [
    'a peer that is neither a SPIFFE ID nor named',
    file([{ ...one, peer: 'wb' }], { fixtures: { peers: { web } } }),
    'unknown peer `wb`: did you mean `web`?',
  ],
  [
    'a request that has no name',
    file([{ ...one, request: 'lst' }], { fixtures: { requests: { list: {} } } }),
    'unknown request `lst`: did you mean `list`?',
  ],
  [
    'a target that is none',
    file([{ name: 'a', target: 'server', expect: 'denied' }]),
    'expected `serverApi` or `onboarding`, found `server`',
  ],
  ['a call by nobody', file([{ ...call, caller: undefined }]), 'expected the key `caller`: one of `local`'],
  ['a call by no caller of a list', file([{ ...call, caller: [] }]), 'expected the key `caller`: one of `local`'],
  ['a call by who is none', file([{ ...call, caller: ['agent', 'root'] }]), 'expected one of `local`, `admin`, `agent`'],
  ['a call of no method', file([{ ...call, method: undefined }]), 'expected the key `method`'],
  ['a call with a path', file([{ ...call, path: '/' }]), 'unknown key `path`'],
  ['a call at a workload', file([{ ...call, workload: 'orders' }]), 'unknown key `workload`'],
  ['an attribute that is unknown', file([{ ...call, attributes: { 'entry.ttl': '1h' } }]), 'unknown key `entry.ttl`'],
  ['an attribute that is none', file([{ ...call, attributes: { 'entry.x509Ttl': 'long' } }]), 'is not a duration'],
  ['a flag that is none', file([{ ...call, attributes: { 'entry.admin': 'true' } }]), 'expected `true` or `false`'],
  ['a node without evidence', file([{ name: 'a', target: 'onboarding', expect: 'denied' }]), 'expected the key `evidence`'],
  [
    'a node with a selector that is none',
    file([{ name: 'a', target: 'onboarding', evidence: 'x', selectors: ['y'], expect: 'denied' }]),
    'is not a selector',
  ],
  ['a matrix without requests', grid({ requests: undefined }), 'expected the key `requests`'],
  ['a matrix without verdicts', grid({ verdicts: {} }), 'expected `verdicts`'],
  ['a row that is too short', grid({ verdicts: { web: ['allowed'] } }), 'expected 2 verdicts, one for each request, found 1'],
  ['a row that is no list', grid({ verdicts: { web: 'allowed' } }), 'expected 2 verdicts, one for each request, found `allowed`'],
  ['a cell that is no verdict', grid({ verdicts: { web: ['allowed', 'maybe'] } }), 'found `maybe`'],
  ['a row for a peer without a name', grid({ verdicts: { webb: ['allowed', 'denied'] } }), 'unknown peer `webb`: did you mean `web`?'],
  [
    'more cells than anybody reads',
    grid({ verdicts: Object.fromEntries(Array.from({ length: 5001 }, (_, n) => [`spiffe://example.org/${n}`, ['denied', 'denied']])) }),
    'at most 10000 cases, found 10002',
  ],
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

test('a mistake in a cell of a matrix is told with its line and column', () => {
  const text = [
    'apiVersion: vidimus.dev/v1',
    'kind: PolicyTest',
    'workloads: { orders: {} }',
    'fixtures: { requests: { list: { method: GET, path: / } } }',
    'matrix:',
    '  - workload: orders',
    '    requests: [list]',
    '    verdicts: { nobody: [maybe] }',
  ].join('\n')
  expect(() => parsePolicyTests([{ name: 'a.yaml', text }])).toThrow(
    'a.yaml:8:26: matrix[0].verdicts.nobody[0]: expected `allowed` or `denied`',
  )
})

describe('a matrix', () => {
  const set = parsePolicySet(
    documents([ours({ rules: [{ from: [{ source: { spiffeIds: [web] } }], to: [{ operation: { methods: ['GET'] } }] }] })]),
  )
  const results = (more: object) => runPolicyTests(set, parsePolicyTests(documents([grid(more)])), { at: noon })

  test('every cell is a case of its own, named after its row and column', () => {
    const found = results({ verdicts: { web: ['allowed', 'allowed'], nobody: ['denied', 'denied'] } })
    expect(found.map(({ test: { name }, passed }) => [name, passed])).toEqual([
      ['orders: web, list', true],
      ['orders: web, place', false],
      ['orders: nobody, list', true],
      ['orders: nobody, place', true],
    ])
    expect(found[1]?.told[0]).toBe('expected allowed, found denied')
  })

  test('it may have a name, a moment, and rows for SPIFFE IDs that have no name', () => {
    const found = results({ name: 'reading', at: '2029-01-01', verdicts: { 'spiffe://example.org/stranger': ['denied', 'denied'] } })
    expect(found.map(({ test: { name, at }, passed }) => [name, at, passed])).toEqual([
      ['reading: spiffe://example.org/stranger, list', Date.UTC(2029, 0, 1), true],
      ['reading: spiffe://example.org/stranger, place', Date.UTC(2029, 0, 1), true],
    ])
  })
})

test('a named peer brings the token of its user, and a case says anew what its fixture said', () => {
  const cases = parsePolicyTests(
    documents([
      file(
        [
          { name: 'as named', workload: 'orders', peer: 'alice', request: 'list', expect: 'denied' },
          {
            name: 'said anew',
            workload: 'orders',
            peer: 'alice',
            request: 'list',
            path: '/other',
            claims: { sub: 'bob' },
            expect: 'denied',
          },
        ],
        { fixtures },
      ),
    ]),
  )
  const requests = cases.flatMap((test) => (test.target === 'workload' ? [test.request] : []))
  expect(requests.map(({ peer, http, token }) => [peer?.spiffeId, http?.path, token?.claims])).toEqual([
    [web, '/orders', { iss: 'https://id.example.org', sub: 'alice', groups: ['admins'], level: 3 }],
    [web, '/other', { sub: 'bob' }],
  ])
})

test('a case says what providers and other filters answered', () => {
  const set = parsePolicySet(
    documents([
      istios({ action: 'CUSTOM', provider: { name: 'opa' }, rules: [{}] }, 'ask'),
      istios({ rules: [{ when: [{ key: 'experimental.envoy.filters.http.a[b]', values: ['c'] }] }] }),
    ]),
  )
  const asked = { ...one, workload: 'pod', metadata: { 'envoy.filters.http.a': { b: 'c' } } }
  const cases = parsePolicyTests(
    documents([file([{ ...asked, providers: { opa: 'allowed' }, expect: 'allowed' }, { ...asked, providers: { opa: 'denied' } }, asked])]),
  )
  expect(runPolicyTests(set, cases, { at: noon }).map(({ passed }) => passed)).toEqual([true, true, true])
})

test('asks about our own API and about nodes, without any workload', () => {
  const rules = (target: string, rule: object, action = 'ALLOW') =>
    JSON.stringify({
      apiVersion: 'vidimus.dev/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: `${target.toLowerCase()}-${action.toLowerCase()}` },
      spec: { target, action, rules: [rule] },
    })
  const set = parsePolicySet(
    documents([
      rules('serverApi', { from: [{ source: { callers: ['agent'] } }], to: [{ operation: { paths: ['/a.B/C'] } }] }),
      rules('serverApi', { when: [{ key: 'entry.x509Ttl', notValues: ['<=1h'] }] }, 'DENY'),
      rules('onboarding', { when: [{ key: 'attested.x509pop.subject:cn', values: ['rack-*'] }] }),
    ]),
  )
  const ttl = (text: string) => ({ attributes: { 'entry.x509Ttl': text } })
  const node = (name: string, expected: string) =>
    ({ name, target: 'onboarding', evidence: 'x509pop', selectors: [`x509pop:subject:cn:${name}`], expect: expected }) // prettier-ignore
  const cases = [
    { ...call, ...ttl('1h'), expect: 'allowed', by: 'serverapi-allow rule 0' },
    { ...call, ...ttl('61m'), by: 'serverapi-deny' },
    { ...call, caller: ['admin', 'agent'], ...ttl('5m'), expect: 'allowed' },
    { ...call, caller: 'admin', ...ttl('5m') },
    call,
    node('rack-1', 'allowed'),
    node('desk-1', 'denied'),
    { ...node('rack-2', 'denied'), by: 'orders' },
    node('desk-2', 'allowed'),
    { ...call, caller: 'admin', ...ttl('5m'), expect: 'allowed' },
  ]
  const results = runPolicyTests(set, parsePolicyTests(documents([file(cases, { workloads: undefined })])), { at: noon })
  expect(results.map(({ passed }) => passed)).toEqual([true, true, true, true, true, true, true, false, false, false])
  expect(results.slice(-3).map(({ told }) => told)).toEqual([
    ['expected denied by `orders`, found allowed', 'allowed by rule 0 of policy `onboarding-allow` (2.yaml:1)'],
    [
      'expected allowed, found denied',
      'denied: no ALLOW rule matches',
      'nearest is rule 0 of policy `onboarding-allow` (2.yaml:1)',
      'it fails on `attested.x509pop.subject:cn values` (line 1): expected `rack-*`, found `x509pop:subject:cn:desk-2`',
    ],
    [
      'expected allowed, found denied',
      'denied: no ALLOW rule matches',
      'nearest is rule 0 of policy `serverapi-allow` (0.yaml:1)',
      'it fails on `callers` (line 1): expected `agent`, found `admin`',
    ],
  ])
})
