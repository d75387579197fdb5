import { describe, expect, test } from 'vitest'
import { decide } from '../../src/policy/evaluate.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { compiled, everything, istios, ours, request, verdict, web } from './make.ts'

const from = (source: object, more: object = {}) => ({ rules: [{ from: [{ source }] }], ...more })
const to = (operation: object, more: object = {}) => ({ rules: [{ to: [{ operation }] }], requirePeer: false, ...more })
const when = (key: string, values: object, more: object = {}) => ({ rules: [{ when: [{ key, ...values }] }], requirePeer: false, ...more })
const open = ours(everything, 'open')
const denying = (spec: object) => [open, ours({ ...spec, requirePeer: undefined, action: 'DENY' }, 'deny')]

describe('strict: nothing is allowed unless a rule allows it', () => {
  test('R-11 without any policy', () => expect(verdict([], request({ peer: web }))).toMatchObject({ allowed: false, reason: 'no-policy' }))
  test('with DENY policies alone', () =>
    expect(verdict([ours({ action: 'DENY', rules: [{ to: [{ operation: { methods: ['PUT'] } }] }] })], request({ peer: web })).reason).toBe(
      'no-policy',
    ))
  test('R-11 with an ALLOW policy that has no rules', () => {
    expect(verdict([ours({})], request({ peer: web })).reason).toBe('no-rule-matched')
    expect(verdict([ours({ rules: [] })], request({ peer: web })).reason).toBe('no-rule-matched')
  })
  test('a DENY wins over every ALLOW, and is named', () => {
    const decision = verdict(denying(to({ methods: ['GET'] })), request({ peer: web }))
    expect(decision).toEqual({
      allowed: false,
      reason: 'denied',
      decidedBy: [{ id: 'ns[]-policy[deny]-rule[0]', policy: 'deny', rule: 0 }],
      errors: [],
    })
  })
  test('whatever goes wrong is a refusal with a reason', () => {
    const broken = { ...request({ peer: web }), get http(): never { throw new Error('broken') } } // prettier-ignore
    expect(decide(compiled([open]), broken)).toEqual({ allowed: false, reason: 'error', decidedBy: [], errors: ['broken'] })
  })
})

describe('strict: who is on the other end', () => {
  test('a request without a peer matches no rule of ours, unless the policy says so', () => {
    expect(verdict([ours({ rules: [{}] })], request()).allowed).toBe(false)
    expect(verdict([ours({ rules: [{}] })], request({ peer: web })).allowed).toBe(true)
    expect(verdict([open], request()).allowed).toBe(true)
  })

  test.each(['notPrincipals', 'notNamespaces', 'notServiceAccounts', 'notSpiffeIds'])(
    'an unauthenticated peer never satisfies %s in ALLOW, and always in DENY',
    (field) => {
      const value = {
        notPrincipals: 'example.org/ns/x/sa/y',
        notNamespaces: 'x',
        notServiceAccounts: 'x/y',
        notSpiffeIds: 'spiffe://example.org/x',
      }[field]!
      expect(verdict([ours(from({ [field]: [value] }, { requirePeer: false }))], request()).allowed).toBe(false)
      expect(verdict([ours(from({ [field]: [value] }, { requirePeer: false }))], request({ peer: web })).allowed).toBe(true)
      expect(verdict(denying(from({ [field]: [value] })), request()).reason).toBe('denied')
      expect(verdict(denying(from({ [field]: [value] })), request({ peer: web })).reason).toBe('denied')
    },
  )

  test("also where the policy is Istio's own", () => {
    // prettier-ignore
    expect(verdict([istios(from({ notPrincipals: ['example.org/ns/x/sa/y'] }))], request()).allowed).toBe(false)
    expect(verdict([istios(from({ principals: ['*'] }))], request()).allowed).toBe(false)
    expect(verdict([istios(from({ principals: ['*'] }))], request({ peer: web })).allowed).toBe(true)
  })

  test.each([
    [
      'example.org/ns/a/*',
      ['spiffe://example.org/ns/a/sa/x'],
      ['spiffe://example.org/ns/ab/sa/x', 'spiffe://example.org/ns/a', 'spiffe://xexample.org/ns/a/sa/x'],
    ],
    [
      '*/ns/a/sa/x',
      ['spiffe://example.org/ns/a/sa/x', 'spiffe://other.org/ns/a/sa/x'],
      ['spiffe://example.org/ns/aa/sa/x', 'spiffe://example.org/ns/a/sa/x/y'],
    ],
    ['example.org/ns/a/sa/x', ['spiffe://example.org/ns/a/sa/x'], ['spiffe://example.org/ns/a/sa/xy', 'spiffe://example.org/ns/A/sa/x']],
  ])('R-6 the principal %s', (principal, good, bad) => {
    const policies = compiled([ours(from({ principals: [principal] }))])
    for (const peer of good) expect([peer, decide(policies, request({ peer })).allowed]).toEqual([peer, true])
    for (const peer of bad) expect([peer, decide(policies, request({ peer })).allowed]).toEqual([peer, false])
  })

  test.each([
    [
      'spiffe://example.org/ns/{*}/sa/web',
      ['spiffe://example.org/ns/a/sa/web'],
      ['spiffe://example.org/ns/a/b/sa/web', 'spiffe://example.org/ns/sa/web', 'spiffe://example.org/ns/a/sa/webx'],
    ],
    [
      'spiffe://example.org/a/{**}',
      ['spiffe://example.org/a/b', 'spiffe://example.org/a/b/c'],
      ['spiffe://example.org/a', 'spiffe://example.org/ab', 'spiffe://example.com/a/b'],
    ],
    ['spiffe://{*}/web', ['spiffe://a/web', 'spiffe://b.c/web'], ['spiffe://a/x/web']],
  ])('R-6 the SPIFFE ID pattern %s', (pattern, good, bad) => {
    const policies = compiled([ours(from({ spiffeIds: [pattern] }))])
    for (const peer of good) expect([peer, decide(policies, request({ peer })).allowed]).toEqual([peer, true])
    for (const peer of bad) expect([peer, decide(policies, request({ peer })).allowed]).toEqual([peer, false])
  })

  test('a namespace is the canonical path /ns/<namespace>/sa/<account>, and nothing that only looks like it', () => {
    const policies = compiled([istios(from({ namespaces: ['foo', 'team-*'] }))])
    for (const peer of ['spiffe://example.org/ns/foo/sa/a', 'spiffe://other.org/ns/team-x/sa/a'])
      expect([peer, decide(policies, request({ peer })).allowed]).toEqual([peer, true])
    for (const peer of [
      'spiffe://example.org/ns/bar/sa/a/ns/foo/z', 'spiffe://example.org/x/ns/foo/sa/a', 'spiffe://example.org/ns/foo', 'spiffe://example.org/ns/foo/sa/a/b', 'spiffe://example.org/ns/foo/xx/a', 'spiffe://example.org/ns/team/sa/a',
    ]) expect([peer, decide(policies, request({ peer })).allowed]).toEqual([peer, false]) // prettier-ignore
  })

  test("an account of the policy's own namespace needs no namespace", () => {
    // prettier-ignore
    const policies = compiled([istios(from({ serviceAccounts: ['web', 'other/job'] }))])
    for (const [peer, allowed] of [
      [web, true],
      ['spiffe://example.org/ns/other/sa/job', true],
      ['spiffe://example.org/ns/other/sa/web', false],
      ['spiffe://example.org/ns/shop/x/sa/web', false],
    ] as const) {
      expect([peer, decide(policies, request({ peer })).allowed]).toEqual([peer, allowed])
    }
  })

  test('every field of a source must hold, and one source of several', () => {
    const spec = {
      rules: [
        {
          from: [{ source: { namespaces: ['shop'], ipBlocks: ['10.0.0.0/8'] } }, { source: { spiffeIds: ['spiffe://example.org/root'] } }],
        },
      ],
    }
    expect(verdict([ours(spec)], request({ peer: web }, { sourceIp: '10.1.2.3' })).allowed).toBe(true)
    expect(verdict([ours(spec)], request({ peer: web }, { sourceIp: '11.1.2.3' })).allowed).toBe(false)
    expect(verdict([ours(spec)], request({ peer: 'spiffe://example.org/root' })).allowed).toBe(true)
  })
})

describe('strict: what is asked for', () => {
  test('R-9 methods are what they are: GET is not HEAD, and case counts', () => {
    const policies = compiled([ours(to({ methods: ['GET', 'LIST'] }))])
    for (const [method, allowed] of [
      ['GET', true],
      ['LIST', true],
      ['HEAD', false],
      ['OPTIONS', false],
      ['get', false],
      ['GETX', false],
      ['', false],
    ] as const) {
      expect([method, decide(policies, request({ method })).allowed]).toEqual([method, allowed])
    }
  })

  test('R-9 an unknown verb is refused where every method is allowed, unless a rule names it', () => {
    expect(verdict([open], request({ peer: web, method: 'WATCH' }))).toMatchObject({ allowed: false, reason: 'malformed-request' })
    expect(verdict([open, ours(to({ methods: ['WATCH'] }), 'watch')], request({ peer: web, method: 'WATCH' })).allowed).toBe(true)
    expect(verdict([ours(to({ notMethods: ['DELETE'] }))], request({ method: 'delete' })).allowed).toBe(false)
  })

  test.each([
    [{ paths: ['/orders'] }, ['/orders', '/orders?x', '/x/../orders'], ['/orders/', '/orders/1', '/order']],
    [{ paths: ['/orders*'] }, ['/orders', '/orders/1', '/orders-old'], ['/order', '/x/orders']],
    [{ paths: ['*.html'] }, ['/a.html', '/x/b.html'], ['/a.htm', '/a.html/x']],
    [{ paths: ['*'] }, ['/', '/x'], []],
    [{ paths: ['/orders/{*}'] }, ['/orders/1', '/orders/a*b', '/orders/a[0]'], ['/orders', '/orders/', '/orders/1/2']],
    [{ paths: ['/a/{*}/b/{**}'] }, ['/a/1/b/', '/a/1/b/2/3'], ['/a/1/b', '/a/b/c', '/a/1/2/b/']],
    [{ paths: ['/a/{**}/z'] }, ['/a/x/z', '/a/x/y/z'], ['/a/z', '/a/x', '/a/x/z/q']],
    [{ notPaths: ['/private/*'] }, ['/', '/private', '/privates'], ['/private/', '/private/x', '/x/../private/y']],
    [{ hosts: ['a.org'] }, [], ['/']],
    [{ hosts: ['orders.shop'], paths: ['/x'], methods: ['GET'] }, ['/x'], ['/y']],
  ])('%j', (operation, good, bad) => {
    const policies = compiled([ours(to(operation))])
    for (const path of good) expect([path, decide(policies, request({ path })).allowed]).toEqual([path, true])
    for (const path of bad) expect([path, decide(policies, request({ path })).allowed]).toEqual([path, false])
  })

  test('hosts match with and without a port, and with one alone if they name it', () => {
    const match = (pattern: string, host: string) => verdict([ours(to({ hosts: [pattern] }))], request({ host })).allowed
    for (const host of ['example.com', 'EXAMPLE.com', 'example.com:80', 'example.com.', 'example.com.:8080'])
      expect([host, match('example.com', host)]).toEqual([host, true])
    for (const host of ['www.example.com', 'example.com.evil.org', 'example.comx', 'xexample.com'])
      expect([host, match('example.com', host)]).toEqual([host, false])
    expect(match('example.com:8080', 'example.com:8080')).toBe(true)
    expect(match('example.com:8080', 'example.com:80')).toBe(false)
    expect(match('example.com:*', 'example.com:80')).toBe(true)
    expect(match('*.example.com', 'a.example.com:80')).toBe(true)
    expect(match('[::1]', '[::1]:80')).toBe(true)
  })

  test('ports and addresses', () => {
    const at = (spec: object, more: object) => verdict([ours(spec)], request({}, more)).allowed
    expect(at(to({ ports: ['8080'] }), { destinationPort: 8080 })).toBe(true)
    expect(at(to({ ports: ['8080'] }), { destinationPort: 80 })).toBe(false)
    expect(at(when('destination.port', { notValues: ['80'] }), { destinationPort: 81 })).toBe(true)
    expect(at(when('destination.ip', { values: ['10.0.0.0/8'] }), { destinationIp: '10.9.9.9' })).toBe(true)
    expect(at(when('source.ip', { values: ['2001:db8::/32'] }), { sourceIp: '2001:db8:1::5' })).toBe(true)
    expect(at(when('source.ip', { values: ['10.0.0.0/8'] }), { sourceIp: '::ffff:10.0.0.1' })).toBe(true)
    expect(at(when('remote.ip', { values: ['10.0.0.1'] }), { sourceIp: '10.0.0.1' })).toBe(true)
    expect(at(when('remote.ip', { values: ['10.0.0.1'] }), { sourceIp: '10.0.0.1', remoteIp: '10.0.0.2' })).toBe(false)
    expect(at(when('connection.sni', { values: ['*.example.org'] }), { sni: 'a.example.org' })).toBe(true)
  })

  test('what is not known is decided on the refusing side, negated or not', () => {
    for (const [key, value] of [
      ['source.ip', '10.0.0.0/8'],
      ['remote.ip', '10.0.0.0/8'],
      ['destination.ip', '10.0.0.0/8'],
      ['destination.port', '80'],
      ['connection.sni', 'a'],
    ] as const) {
      for (const list of ['values', 'notValues']) {
        expect([key, list, verdict([ours(when(key, { [list]: [value] }))], request()).allowed]).toEqual([key, list, false])
        expect([key, list, verdict(denying(when(key, { [list]: [value] })), request()).reason]).toEqual([key, list, 'denied'])
      }
    }
    expect(verdict([ours(when('source.ip', { notValues: ['10.0.0.0/8'] }))], request({}, { sourceIp: 'not an address' })).allowed).toBe(
      false,
    )
  })

  test('a connection without HTTP satisfies no HTTP field in ALLOW and every one in DENY', () => {
    const connection = { peer: { spiffeId: parseSpiffeId(web) }, destinationPort: 5432 }
    for (const field of [
      { methods: ['GET'] },
      { notMethods: ['GET'] },
      { paths: ['/x'] },
      { notPaths: ['/x'] },
      { hosts: ['x'] },
      { notHosts: ['x'] },
    ]) {
      expect(verdict([ours(to(field))], connection).allowed).toBe(false)
      expect(verdict(denying(to(field)), connection).reason).toBe('denied')
    }
    expect(verdict([ours(when('request.headers[x]', { notValues: ['y'] }))], connection).allowed).toBe(false)
    expect(verdict([ours(to({ ports: ['5432'] }))], connection).allowed).toBe(true)
  })
})

describe('R-8 headers that are there more than once', () => {
  const headers = (...values: string[]) => request({ peer: web, headers: values.map((value) => ['X-Role', value] as const) })
  const role = (values: object) => when('request.headers[x-role]', values)

  test('ALLOW needs every value to match', () => {
    const policies = compiled([ours(role({ values: ['reader', 'writer'] }))])
    for (const [values, allowed] of [
      [[], false],
      [['reader'], true],
      [['reader', 'writer'], true],
      [['reader', 'root'], false],
      [['root', 'reader'], false],
      [['reader,root'], false],
    ] as const) {
      expect([values, decide(policies, headers(...values)).allowed]).toEqual([values, allowed])
    }
  })

  test('ALLOW with a negation needs no value to match', () => {
    const policies = compiled([ours(role({ notValues: ['root*'] }))])
    for (const [values, allowed] of [
      [[], true],
      [['reader'], true],
      [['reader', 'root'], false],
      [['rooted'], false],
    ] as const)
      expect([values, decide(policies, headers(...values)).allowed]).toEqual([values, allowed])
  })

  test('DENY needs one', () => {
    const policies = compiled(denying(role({ values: ['root'] })))
    for (const [values, denied] of [
      [[], false],
      [['reader'], false],
      [['root'], true],
      [['reader', 'root'], true],
      [['root', 'reader'], true],
    ] as const) {
      expect([values, !decide(policies, headers(...values)).allowed]).toEqual([values, denied])
    }
    const others = compiled(denying(role({ notValues: ['reader'] })))
    for (const [values, denied] of [
      [[], true],
      [['reader'], false],
      [['reader', 'root'], true],
    ] as const)
      expect([values, !decide(others, headers(...values)).allowed]).toEqual([values, denied])
  })

  test('`*` is a header that is there, even if it is empty; its negation is one that is not', () => {
    expect(verdict([ours(role({ values: ['*'] }))], headers('')).allowed).toBe(true)
    expect(verdict([ours(role({ values: ['*'] }))], headers()).allowed).toBe(false)
    expect(verdict([ours(role({ notValues: ['*'] }))], headers()).allowed).toBe(true)
  })

  test('two Authorization headers are refused', () => {
    const twice = request({ peer: web, headers: [['Authorization', 'a'], ['authorization', 'a']] }) // prettier-ignore
    expect(verdict([open], twice)).toMatchObject({ allowed: false, reason: 'malformed-request' })
  })

  test('R-31 names like __proto__ are names', () => {
    expect(verdict([ours(when('request.headers[__proto__]', { values: ['*'] }))], request({ peer: web })).allowed).toBe(false)
    expect(
      verdict([ours(when('request.headers[constructor]', { values: ['x'] }))], request({ headers: [['constructor', 'x']] })).allowed,
    ).toBe(true)
  })
})
