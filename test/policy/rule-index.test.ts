import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decide, decideByReading } from '../../src/policy/evaluate.ts'
import type { PolicyMode } from '../../src/policy/policy-set.ts'
import { compiled, istios, ours, request } from './make.ts'

/** Policy sets a mode, each asked so many times. `VIDIMUS_POLICY_SETS=100000` is the whole of R-25, in a quarter of an hour. */
const runs = Number(process.env['VIDIMUS_POLICY_SETS'] ?? 200)
const requests = runs > 1000 ? 20 : 100

// A small world, so that rules and requests meet often.
const ids = [
  'spiffe://example.org/ns/a/sa/x',
  'spiffe://example.org/ns/a/sa/y',
  'spiffe://example.org/ns/b/sa/x',
  'spiffe://example.org/web',
  'spiffe://other.org/ns/a/sa/x',
  'spiffe://example.org/ns/a/sa/xx/ns/b/y',
]
const some = <T>(...values: readonly T[]) => fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 3 })
const field = (name: string, ...values: readonly string[]) =>
  fc.tuple(fc.constantFrom(name, `not${name[0]!.toUpperCase()}${name.slice(1)}`), some(...values))
const merged = (fields: fc.Arbitrary<[string, string[]]>) =>
  fc.uniqueArray(fields, { minLength: 1, maxLength: 3, selector: ([name]) => name }).map((entries) => Object.fromEntries(entries))

const principals = {
  strict: ['*', 'example.org/*', 'example.org/ns/a/*', 'example.org/ns/a/sa/x', 'example.org/web', '*/sa/x'],
  istio: ['*', 'example.org/ns/a/s*', '*x', 'example.org/ns/a/sa/x', 'example.org/w*', '*/sa/x'],
}
const paths = {
  strict: [
    '/',
    '/a',
    '/a/*',
    '/a*',
    '/a/b',
    '*b',
    '*',
    '/{*}',
    '/a/{*}',
    '/a/{**}',
    '/{*}/b',
    '/a@b',
    '/long/path/of/many/segments/that/goes/on/and/on/for/more/than/sixty/four/characters/*',
  ],
  istio: ['/', '/a', '/a*', '/a//b', '*b', '*', '/{*}', '/a/{**}', 'b'],
}

function ruleIn(mode: PolicyMode) {
  const source = merged(
    fc.oneof(
      field('principals', ...principals[mode]),
      field('namespaces', 'a', 'b', '*'),
      field('requestPrincipals', 'i/a', '*/b', 'i/*', '*'),
      field('trustDomains', 'example.org', '*.org', '*'),
      field('ipBlocks', '10.0.0.0/8', '10.1.0.0/16', '::1'),
      field('spiffeIds', ids[0]!, 'spiffe://example.org/{*}', 'spiffe://example.org/ns/{*}/sa/{*}', 'spiffe://example.org/{**}'),
    ),
  )
  const operation = merged(
    fc.oneof(
      field('paths', ...paths[mode]),
      field('methods', 'GET', 'POST', '*'),
      field('hosts', 'a.org', '*.org', 'a.org:80', '*'),
      field('ports', '80', '81'),
    ),
  )
  const condition = fc.oneof(
    fc.record({ key: fc.constant('request.headers[x]'), values: some('1', '2', '*') }),
    fc.record({ key: fc.constant('request.headers[x]'), notValues: some('1', '2') }),
    fc.record({ key: fc.constant('connection.sni'), values: some('a', '*') }),
    fc.record({ key: fc.constant('request.auth.claims[c]'), values: some('1', '2*', '*') }),
    fc.record({ key: fc.constant('request.auth.audiences'), notValues: some('1', '2') }),
    fc.record({ key: fc.constant('experimental.envoy.filters.http.f[k]'), values: some('1', '[2]') }),
  )
  return fc.record(
    {
      from: fc.array(source.map((one) => ({ source: one })), { minLength: 1, maxLength: 2 }),
      to: fc.array(operation.map((one) => ({ operation: one })), { minLength: 1, maxLength: 2 }),
      when: fc.array(condition, { minLength: 1, maxLength: 1 }),
      condition: fc.constantFrom("request.method == 'GET'", "!('x' in request.headers)", "request.headers['x'] != '1' || destination.port > 80", "connection.uri_san_peer_certificate.endsWith('x')"),
    },
    { requiredKeys: [] },
  ) // prettier-ignore
}

const policyIn = (mode: PolicyMode) =>
  fc
    .record({
      action: fc.constantFrom('ALLOW', 'ALLOW', 'DENY', 'AUDIT'),
      rules: fc.array(ruleIn(mode), { minLength: 1, maxLength: 6 }),
      requirePeer: fc.boolean(),
    })
    .map(({ requirePeer, ...spec }) => (spec.action === 'ALLOW' ? { ...spec, requirePeer } : spec))

const anyRequest = fc
  .record({
    peer: fc.option(fc.constantFrom(...ids), { nil: undefined }),
    method: fc.constantFrom('GET', 'POST', 'get', 'PUT'),
    path: fc.constantFrom(
      '/',
      '/a',
      '/a/',
      '/a/b',
      '/a//b',
      '/a/b/c',
      '/b',
      '/a%40b',
      '/a;b',
      '/x/../a',
      '/a?b',
      '',
      '/%00',
      '/long/path/of/many/segments/that/goes/on/and/on/for/more/than/sixty/four/characters/x',
    ),
    host: fc.constantFrom('a.org', 'A.org:80', 'b.org', 'b', ''),
    headers: fc.array(fc.tuple(fc.constant('x'), fc.constantFrom('1', '2', '')), { maxLength: 2 }),
    sourceIp: fc.option(fc.constantFrom('10.1.2.3', '11.0.0.1', '::1', 'x'), { nil: undefined }),
    destinationPort: fc.option(fc.constantFrom(80, 81), { nil: undefined }),
    http: fc.boolean(),
    token: fc.option(
      fc.record({
        iss: fc.constantFrom('i', 'j'),
        sub: fc.constantFrom('a', 'b', ''),
        aud: fc.constantFrom('1', ['2', '3'], 7),
        c: fc.constantFrom('1', ['22'], ''),
      }),
      { nil: undefined },
    ),
    meta: fc.option(fc.constantFrom('1', ['2'], 3), { nil: undefined }),
  })
  .map(({ sourceIp, destinationPort, http, token, meta, ...made }) => {
    const whole = request(made, {
      ...(token === undefined ? {} : { token: { claims: token } }),
      ...(meta === undefined ? {} : { filterMetadata: { 'envoy.filters.http.f': { k: meta } } }),
      ...(sourceIp === undefined ? {} : { sourceIp }),
      ...(destinationPort === undefined ? {} : { destinationPort }),
    })
    if (http) return whole
    const { http: _, ...connection } = whole
    return connection
  })

for (const mode of ['strict', 'istio'] as const) {
  test(`R-25 ${mode}: with the index and by reading every rule, the decision is the same`, { timeout: runs * 300 }, () => {
    let verdicts = { allowed: 0, denied: 0 }
    fc.assert(
      fc.property(
        fc.array(policyIn(mode), { minLength: 1, maxLength: 4 }),
        fc.array(anyRequest, { minLength: requests, maxLength: requests }),
        (policies, requests) => {
          const texts = policies.map((spec, index) => ours(spec, `p${index}`))
          const one = compiled(texts, { mode })
          for (const each of requests) {
            const decision = decide(one, each)
            const read = decideByReading(one, each)
            if (JSON.stringify(decision) !== JSON.stringify(read) || decision.reason === 'error')
              expect([each, decision]).toEqual([each, read])
            verdicts = { allowed: verdicts.allowed + Number(decision.allowed), denied: verdicts.denied + Number(!decision.allowed) }
          }
        },
      ),
      { numRuns: runs },
    )
    // The world must be small enough for both verdicts to be common.
    expect(Math.min(verdicts.allowed, verdicts.denied)).toBeGreaterThan(requests * runs * 0.03)
  })
}

test('a name that Istio takes from the certificate and not from the SPIFFE ID is found through the index', () => {
  const one = compiled([istios({ rules: [{ from: [{ source: { principals: ['example.org/web'] } }] }] })], { mode: 'istio' })
  const named = {
    ...request({ peer: ids[0]! }),
    peer: { spiffeId: request({ peer: ids[0]! }).peer!.spiffeId, names: [ids[0]!, 'spiffe://example.org/web'] },
  }
  expect(decide(one, named).allowed).toBe(true)
  expect(decide(one, request({ peer: ids[0]! })).allowed).toBe(false)
})
