import { describe, expect, test } from 'vitest'
import { decide } from '../../src/policy/evaluate.ts'
import type { PolicyRequest } from '../../src/policy/request.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { istios, ours, request, verdict, web, type Made } from './make.ts'
import { compiled as compile } from './make.ts'

const istio = { mode: 'istio' } as const
const one = (rule: object, made: Made = {}, more: PolicyRequest = {}) =>
  verdict([istios({ rules: [rule] })], request(made, more), istio).allowed
const source = (fields: object) => ({ from: [{ source: fields }] })
const operation = (fields: object) => ({ to: [{ operation: fields }] })
const header = (name: string, values: object) => ({ when: [{ key: `request.headers[${name}]`, ...values }] })

describe('istio mode: the order of authorization.md 1.1', () => {
  test('a workload that no ALLOW policy selects is open', () => {
    expect(verdict([], request(), istio)).toMatchObject({ allowed: true, reason: 'open' })
    expect(verdict([istios({ action: 'DENY', rules: [operation({ methods: ['PUT'] })] })], request(), istio).reason).toBe('open')
  })
  test('an ALLOW policy without rules closes it', () =>
    expect(verdict([istios({})], request({ peer: web }), istio).reason).toBe('no-rule-matched'))
  test('a rule without fields opens it', () => expect(one({})).toBe(true))
  test('DENY comes first', () =>
    expect(verdict([istios({ rules: [{}] }), istios({ action: 'DENY', rules: [{}] }, 'q')], request(), istio).reason).toBe('denied'))
  test('an ALLOW policy of ours that has expired still closes it', () => {
    expect(verdict([ours({ rules: [{}], expires: '2020-01-01' })], request({ peer: web }), istio).reason).toBe('no-rule-matched')
  })
})

describe('istio mode: negations admit the unauthenticated', () => {
  test.each([[{ notPrincipals: ['a/ns/b/sa/c'] }], [{ notNamespaces: ['x'] }], [{ notServiceAccounts: ['x/y'] }]])('%j', (fields) => {
    expect(one(source(fields))).toBe(true)
    expect(one(source(fields), { peer: web })).toBe(true)
  })
  test('and a header that is not there satisfies notValues', () => expect(one(header('x', { notValues: ['y'] }))).toBe(true))
})

describe('istio mode: the table of values (1.3)', () => {
  test.each([
    ['*', web, true], ['example.org/ns/shop/sa/web', web, true], ['example.org/ns/shop/sa/we*', web, true], ['*sa/web', web, true], ['*b', web, true], ['example.org/ns/shop/sa/we', web, false], ['spiffe://example.org/ns/shop/sa/web', web, false],
  ])('principal %s', (principal, peer, allowed) => expect(one(source({ principals: [principal] }), { peer })).toBe(allowed)) // prettier-ignore

  test('Envoy tries every name of the certificate', () => {
    const named: PolicyRequest = {
      peer: { spiffeId: parseSpiffeId('spiffe://example.org/x'), names: ['spiffe://example.org/x', 'dns.example.org', 'CN=/ns/foo/x'] },
    }
    expect(one(source({ namespaces: ['foo'] }), {}, named)).toBe(true)
    expect(one(source({ namespaces: ['foo'] }), {}, { peer: { spiffeId: parseSpiffeId('spiffe://example.org/x') } })).toBe(false)
  })

  test.each([
    ['foo', 'spiffe://td/ns/foo/sa/a', true], ['foo', 'spiffe://td/ns/bar/sa/a/ns/foo/z', true], ['foo', 'spiffe://td/ns/foo', false], ['f*', 'spiffe://td/ns/foo/sa/a', true], ['*', 'spiffe://td/ns/a/sa/b', true],
    ['a*z', 'spiffe://td/ns/a/sa/z/y', true], ['fo', 'spiffe://td/ns/foo/sa/a', false],
  ])('namespace %s of %s', (namespace, peer, allowed) => expect(one(source({ namespaces: [namespace] }), { peer })).toBe(allowed)) // prettier-ignore

  test.each([
    ['foo/a', 'spiffe://td/ns/foo/sa/a', true], ['foo/a', 'spiffe://td/ns/foo/x/y/sa/a/z', true], ['foo/a', 'spiffe://td/ns/foo/sa/ab', false], ['foo/a', 'spiffe://td/ns/foo/xsa/a', false], ['foo/a', 'spiffe://td/ns/bar/sa/a', false], ['foo/a', 'spiffe://td/x/ns/foo/sa/a', true],
  ])('service account %s of %s', (account, peer, allowed) => expect(one(source({ serviceAccounts: [account] }), { peer })).toBe(allowed)) // prettier-ignore

  test.each([
    ['/a', '/a', true], ['/a*', '/ab', true], ['*b', '/ab', true], ['*', '/', true], ['/a', '/A', false], ['/a/*/b', '/a/x/b', false], ['/a', '/a?q', true],
    ['/a/{*}', '/a/x=y', true], ['/a/{*}', '/a/x[0]', false], ['/a/{*}', '/a/x*y', false], ['/a/{**}', '/a/x*y', false], ['/a/{**}', '/a/', true], ['/a/{**}', '/a/b/c', true], ['/a/{**}/z', '/a/b/c/z', true], ['/a/{*}', '/a/', false],
  ])('path %s of %s', (pattern, path, allowed) => expect(one(operation({ paths: [pattern] }), { path })).toBe(allowed)) // prettier-ignore

  test('templates leak in DENY, parameters are not read, and slashes stay as the proxy leaves them', () => {
    const deny = compile([istios({ action: 'DENY', rules: [operation({ paths: ['/admin/{**}', '/admin'] })] })], istio)
    for (const [path, allowed] of [
      ['/admin', false],
      ['/admin/x', false],
      ['/admin/a*b', true],
      ['/admin;x', true],
      ['//admin', true],
      ['/x/../admin', false],
      ['/%2fadmin', true],
    ] as const) {
      expect([path, decide(deny, request({ path })).allowed]).toEqual([path, allowed])
    }
    const merged = compile([istios({ action: 'DENY', rules: [operation({ paths: ['/admin'] })] })], {
      mode: 'istio',
      pathNormalization: 'decode-and-merge-slashes',
    })
    for (const path of ['//admin', '/%2fadmin']) expect(decide(merged, request({ path })).allowed).toBe(false)
  })

  test.each([
    ['example.com', 'example.com', true], ['example.com', 'EXAMPLE.com', true], ['example.com', 'example.com:8080', false], ['example.com:*', 'example.com:8080', true], ['*.com', 'a.COM', true], ['*', 'x', true], ['example.com', 'example.com.', false],
  ])('host %s of %s: with the port as it was sent', (pattern, host, allowed) => expect(one(operation({ hosts: [pattern] }), { host })).toBe(allowed)) // prettier-ignore

  test.each([
    ['GET', 'GET', true],
    ['G*', 'GET', true],
    ['*T', 'GET', true],
    ['*', 'FOO', true],
    ['get', 'GET', false],
  ])('method %s of %s', (pattern, method, allowed) => expect(one(operation({ methods: [pattern] }), { method })).toBe(allowed))

  test('one value of a header is enough, and a negation is the opposite', () => {
    const headers = [['X', 'a'], ['x', 'b']] as const // prettier-ignore
    expect(one(header('X', { values: ['b'] }), { headers })).toBe(true)
    expect(one(header('X', { notValues: ['b'] }), { headers })).toBe(false)
    expect(one(header(':authority', { values: ['orders.shop'] }))).toBe(true)
    expect(one(header(':path', { values: ['/orders?x'] }), { path: '/orders?x' })).toBe(true)
    expect(one(header(':method', { values: ['GET'] }))).toBe(true)
  })

  test('a header that Envoy keeps once is compared with all its values joined, as the proxy sees it (R-8)', () => {
    const twice = { headers: [['Authorization', 'Bearer a'], ['authorization', 'Bearer b']] } as const // prettier-ignore
    const authorization = (values: object) => one(header('authorization', values), twice)
    expect(authorization({ values: ['Bearer a'] })).toBe(false)
    expect(authorization({ values: ['Bearer b*'] })).toBe(false)
    expect(authorization({ notValues: ['Bearer b'] })).toBe(true)
    expect(authorization({ values: ['Bearer a,Bearer b'] })).toBe(true)
    expect(authorization({ values: ['Bearer a*'] })).toBe(true)
    expect(authorization({ values: ['*b'] })).toBe(true)
  })

  test('a server name is not empty; without one the empty text is compared', () => {
    const sni = (values: object, more: PolicyRequest) => one({ when: [{ key: 'connection.sni', ...values }] }, {}, more)
    expect(sni({ values: ['*'] }, { sni: 'a' })).toBe(true)
    expect(sni({ values: ['*'] }, {})).toBe(false)
    expect(sni({ notValues: ['a'] }, {})).toBe(true)
  })
})

describe('istio mode: connections without HTTP (1.7), and what no proxy forwards', () => {
  const connection: PolicyRequest = { destinationPort: 5432 }
  test('an ALLOW rule with HTTP fields is gone, a DENY rule loses them', () => {
    expect(verdict([istios({ rules: [operation({ methods: ['GET'] })] })], connection, istio).allowed).toBe(false)
    expect(verdict([istios({ rules: [operation({ notMethods: ['GET'] })] })], connection, istio).allowed).toBe(false)
    expect(
      verdict([istios({ action: 'DENY', rules: [operation({ methods: ['GET'], ports: ['5432'] })] })], connection, istio).allowed,
    ).toBe(false)
    expect(verdict([istios({ action: 'DENY', rules: [operation({ methods: ['GET'], ports: ['80'] })] })], connection, istio).allowed).toBe(
      true,
    )
  })
  test('a path that cannot be normalised is refused', () =>
    expect(verdict([], request({ path: '/%00' }), istio).reason).toBe('malformed-request'))
})

describe('istio mode: lists that are empty (1.8)', () => {
  test('from and to mean any, a field in them is not there', () => {
    expect(one({ from: [], to: [] })).toBe(true)
    expect(one(operation({ methods: [], paths: ['/orders'] }))).toBe(true)
    expect(one(operation({ methods: [], paths: ['/x'] }))).toBe(false)
  })
})
