import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { coveringRequests } from '../../../src/policy/analysis/cover.ts'
import { namedDestination } from '../../../src/policy/analysis/destinations.ts'
import { lint } from '../../../src/policy/analysis/lint.ts'
import { nearestChange } from '../../../src/policy/analysis/nearest.ts'
import { reachChanges, reachOf } from '../../../src/policy/analysis/reach.ts'
import { whoCan } from '../../../src/policy/analysis/who-can.ts'
import { decide, decideByReading } from '../../../src/policy/evaluate.ts'
import { ruleSentence } from '../../../src/policy/explain.ts'
import { checkPolicies, parsePolicySet, type LanguageOptions } from '../../../src/policy/language.ts'
import type { PolicyMode } from '../../../src/policy/policy-set.ts'
import { parseSpiffeId } from '../../../src/spiffe/id.ts'
import { compiled, documents, istios, noon, orders, ours, request, selectors, web } from '../make.ts'
import { policiesIn, requestsIn } from './arbitrary.ts'

const rule = (operation: object | undefined, source: object | undefined = { spiffeIds: [web] }) => ({
  ...(source && { from: [{ source }] }),
  ...(operation && { to: [{ operation }] }),
})
const allow = (...rules: readonly object[]) => ours({ rules })
const deny = (...rules: readonly object[]) => ours({ action: 'DENY', rules }, 'd')
const kinds = (texts: readonly string[], options: LanguageOptions = {}, more: Partial<Parameters<typeof lint>[1]> = {}) =>
  lint(parsePolicySet(documents(texts), options), { at: noon, ...more }).findings.map((one) => one.rule)

describe('lint names', () => {
  test('a rule that excludes itself, a value that nothing can be, and what a DENY or another rule makes superfluous', () => {
    expect(kinds([allow(rule({ methods: ['GET'], notMethods: ['GET'] }))])).toEqual(['vacuous-rule'])
    expect(kinds([allow(rule({ paths: ['/a/*'] })), deny(rule({ paths: ['/a*'] }, { notSpiffeIds: ['spiffe://x/y'] }))])).toEqual(['shadowed-rule', 'plain-connections'])
    expect(kinds([allow(rule({ paths: ['/a/*'] }), rule({ paths: ['/a/b', '/a/{*}'], methods: ['GET'] }))])).toEqual(['redundant-rule'])
    expect(kinds([allow(rule({ paths: ['/a'] }), rule({ paths: ['/a'] }))])).toEqual(['redundant-rule'])
    expect(kinds([istios({ rules: [{ to: [{ operation: { paths: ['/a/../b'] } }] }] })], { mode: 'istio' })).toContain('dead-value')
  }) // prettier-ignore

  test('an end, identities that nobody has, and peers of unknown trust domains', () => {
    expect(kinds([ours({ expires: '2020-01-01', rules: [rule({})].map(() => rule(undefined)) })])).toContain('expired-policy')
    const soon = lint(parsePolicySet(documents([ours({ expires: '2030-03-20', rules: [rule(undefined)] })])), { at: noon })
    expect(soon.findings[0]).toMatchObject({ rule: 'expires-soon', sentence: 'this policy ends in 3 days', place: { line: 1 } })
    expect(kinds([allow(rule(undefined))], {}, { identities: [parseSpiffeId('spiffe://other.org/x')] })).toEqual(['selects-nothing'])
    expect(kinds([allow(rule(undefined))], {}, { trustDomains: ['other.org'] })).toEqual(['unknown-trust-domain'])
  })

  test('namespaces, labels and ports that no known workload has', () => {
    const labelled = istios({
      selector: { matchLabels: { app: 'orders' } },
      rules: [{ to: [{ operation: { ports: ['80'], methods: ['GET'] } }] }],
    })
    const of = (...known: readonly { readonly selectors: readonly string[]; readonly port?: number }[]) => {
      const workloads = known.map(({ selectors: texts, ...port }) => ({ spiffeIds: [], selectors: selectors(...texts), ...port }))
      return kinds([labelled], {}, { workloads }).filter((one) => one === 'selects-nothing')
    }
    expect(of({ selectors: ['k8s:ns:other', 'k8s:pod-label:app:orders'] })).toHaveLength(1)
    expect(of({ selectors: ['k8s:ns:shop', 'k8s:pod-label:app:web'] })).toHaveLength(1)
    const selectsIt = ['k8s:ns:shop', 'k8s:pod-label:app:orders']
    expect(of({ selectors: selectsIt, port: 8080 })).toHaveLength(1)
    expect(of({ selectors: selectsIt, port: 8080 }, { selectors: selectsIt, port: 80 })).toEqual([])
    expect(of({ selectors: selectsIt, port: 8080 }, { selectors: selectsIt })).toEqual([])
  })

  test('tokens that nobody reads', () => {
    const policy = allow(rule({ paths: ['/a'] }, { requestPrincipals: ['i/s'] }))
    const reads = (namespace: string) => JSON.stringify({ apiVersion: 'security.istio.io/v1', kind: 'RequestAuthentication', metadata: { name: 'r', namespace }, spec: { jwtRules: [{ issuer: 'i', jwks: '{"keys":[]}' }] } }) // prettier-ignore
    expect(kinds([policy])).toEqual(['token-never-read'])
    expect(kinds([policy, reads('istio-system')])).toEqual([])
  })

  test("each hole of Istio's semantics that a set relies on, and none of them in strict mode", () => {
    const texts = [
      istios({ rules: [{ from: [{ source: { notPrincipals: ['a/ns/b/sa/c'] } }], to: [{ operation: { hosts: ['orders.shop'] } }] }, { from: [{ source: { namespaces: ['a'] } }] }] }, 'p'),
      istios({ action: 'DENY', rules: [{ to: [{ operation: { paths: ['/admin/{**}'] } }] }] }, 'q'),
    ] // prettier-ignore
    expect(new Set(kinds(texts, { mode: 'istio' }))).toEqual(
      new Set(['hole-unauthenticated-negation', 'hole-host-without-port', 'hole-free-path', 'hole-deny-template', 'hole-open-workload', 'plain-connections']),
    ) // prettier-ignore
    expect(kinds(texts).filter((one) => one.startsWith('hole-'))).toEqual([])
  })
})

describe('who can', () => {
  const policies = compiled([allow(rule({ paths: ['/a'] }), { ...rule({ methods: ['GET'] }, { namespaces: ['b'] }), when: [{ key: 'request.headers[x]', values: ['1'] }] })]) // prettier-ignore

  test('is said for the families of peers and for those that exist', () => {
    const found = whoCan(policies, {
      method: 'GET',
      path: '/a',
      identities: [parseSpiffeId(web), parseSpiffeId('spiffe://example.org/no')],
    })
    expect(found.callers.map(({ words, can, conditions, live }) => ({ words, can, conditions, live }))).toEqual([
      { words: `\`${web}\``, can: 'always', conditions: [], live: [web] },
      { words: '`b`', can: 'conditionally', conditions: ['header `x` with `1` and no other value'], live: [] },
    ])
    expect(found.never).toEqual(['spiffe://example.org/no'])
  })

  test('nobody, where the path or the method is refused before a rule is read', () => {
    expect(whoCan(policies, { method: 'GET', path: '/a;b' }).callers).toEqual([])
    expect(whoCan(policies, { method: 'BREW', path: '/a' }).callers).toEqual([])
  })

  test('is unknown where it was not worked out', () => {
    expect(whoCan(policies, { method: 'GET', path: '/a', limits: { nodes: 2, steps: 10 } }).unknown).toEqual([
      { reason: 'budget', what: 'who can `GET /a`' },
    ])
  })
})

test('reach is none, some or all, for every kind of workload', () => {
  const set = parsePolicySet(documents([allow(rule(undefined), rule({ methods: ['GET'] }, { namespaces: ['b'] }))]))
  const destination = 'workloads with identity `spiffe://example.org/{**}`'
  expect(reachOf(set, { at: noon }).cells).toEqual([
    { source: `\`${web}\``, destination, reach: 'all', summary: '' },
    { source: '`b`', destination, reach: 'some', summary: 'method `GET`' },
    { source: `other than \`b\` and \`${web}\`, or no verified peer`, destination, reach: 'none', summary: '' },
    { source: 'anybody', destination: 'all other workloads', reach: 'none', summary: '' },
  ])
})

test('a rule is told as a sentence', () => {
  const { allow: rules } = compiled([
    allow({ ...rule({ methods: ['GET'], notPaths: ['/x'] }), when: [{ key: 'request.headers[x]', notValues: ['1'] }] }),
  ])
  expect(ruleSentence(rules[0]!)).toBe(
    `allows requests with methods \`GET\` and paths none of \`/x\` from spiffeIds \`${web}\` when request.headers[x] none of \`1\``,
  )
})

describe('the nearest change', () => {
  test('changes as little as there is, and keeps the rest of the request', () => {
    const policies = compiled([allow(rule({ paths: ['/orders'], methods: ['GET'] }))])
    const found = nearestChange(policies, request({ peer: web, method: 'PUT', path: '/orders', headers: [['x', 'kept']] }))
    expect(found).toMatchObject({
      changes: ['method `GET`'],
      request: { http: { method: 'GET', path: '/orders', host: 'orders.shop' } },
      decision: { allowed: true },
    })
    expect(nearestChange(policies, request({ path: '/a;b' }))).toBe('outside')
    expect(nearestChange(compiled([]), request())).toBe('never')
  })

  test.each<PolicyMode>(['strict', 'istio'])(
    'in %s mode has the other verdict, for random sets and requests',
    (mode) => {
      fc.assert(
        fc.property(policiesIn(mode), requestsIn(mode), (texts, one) => {
          fc.pre(checkPolicies(documents(texts), { mode }).problems.length === 0)
          const policies = compiled(texts, { mode })
          const found = nearestChange(policies, one)
          expect(found).not.toBe('unknown')
          if (typeof found !== 'string') expect(decide(policies, found.request).allowed).not.toBe(decide(policies, one).allowed)
        }),
        { numRuns: 60, endOnFailure: true },
      )
    },
    20_000,
  )
})

test.each<PolicyMode>(['strict', 'istio'])('in %s mode the covering requests meet every rule that can match, and indexed and plain evaluation agree on them (R-25)', (mode) => {
  let count = 0
  fc.assert(
    fc.property(policiesIn(mode), (texts) => {
      fc.pre(checkPolicies(documents(texts), { mode }).problems.length === 0)
      const policies = compiled(texts, { mode })
      const covering = coveringRequests(policies, { most: 400 })
      expect(covering.length).toBeGreaterThan(0)
      for (const { request: one } of covering) expect(decide(policies, one)).toEqual(decideByReading(policies, one))
      count += covering.length
    }),
    { numRuns: 30, endOnFailure: true },
  )
  expect(count).toBeGreaterThan(1000)
  expect(coveringRequests(compiled([allow(rule({ paths: ['/a'] }))], {}, orders)).map(({ about }) => about)).toContain('two `authorization` headers')
}, 20_000) // prettier-ignore

test.each<PolicyMode>(['strict', 'istio'])('in %s mode a source gains and loses only where requests of its are decided otherwise', (mode) => {
  fc.assert(
    fc.property(policiesIn(mode), policiesIn(mode), fc.array(requestsIn(mode), { minLength: 20, maxLength: 20 }), (old, next, requests) => {
      fc.pre([old, next].every((texts) => checkPolicies(documents(texts), { mode }).problems.length === 0))
      const [before, after] = [old, next].map((texts) => parsePolicySet(documents(texts), { mode }))
      const destinations = [namedDestination(orders)]
      for (const asked of requests) {
        if (!asked.peer || asked.peer.names) continue
        const { spiffeId } = asked.peer
        // Every witness is replayed by the function itself: an error would be a disagreement.
        const { changes } = reachChanges(before!, after!, { at: noon, destinations, identities: [spiffeId] })
        const [was, is] = [old, next].map((texts) => decide(compiled(texts, { mode }), asked).allowed)
        if (was !== is) expect(changes.map(({ gained, lost }) => (is ? gained : lost) !== '')).toEqual([true])
      }
    }),
    { numRuns: 6, endOnFailure: true },
  )
}, 30_000) // prettier-ignore
