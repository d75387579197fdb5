import { expect, test } from 'vitest'
import { decide } from '../../src/policy/evaluate.ts'
import { explain } from '../../src/policy/explain.ts'
import type { LanguageOptions } from '../../src/policy/language.ts'
import type { PolicyRequest } from '../../src/policy/request.ts'
import { compiled, everything, istios, ours, request, web } from './make.ts'

function told(texts: readonly string[], asked: PolicyRequest, options: LanguageOptions = {}): string[] {
  const policies = compiled(texts, options)
  return explain(policies, asked, decide(policies, asked))
}
const rule = (source: object, operation: object, when?: object) => ({
  from: [{ source }],
  to: [{ operation }],
  ...(when ? { when: [when] } : {}),
})

test('nobody allows anything here', () => expect(told([], request())).toEqual(['denied: no ALLOW policy selects this workload']))
test('policies without rules', () =>
  expect(told([ours({})], request())[1]).toBe('the ALLOW policies that select this workload have no rules in force'))
test('the rule that decided, with its place', () => {
  expect(told([ours(everything, 'open')], request())).toEqual(['allowed by rule 0 of policy `open` (0.yaml:1)'])
  expect(told([istios({ action: 'DENY', rules: [{}] })], request())).toEqual(['denied by rule 0 of policy `shop/p` (0.yaml:1)'])
})
test('istio mode says that a workload is open', () => expect(told([], request(), { mode: 'istio' })[0]).toContain('opens it'))
test('a request that cannot be read', () => {
  expect(told([ours({ rules: [rule({ spiffeIds: [web] }, { paths: ['/x'] })] })], request({ path: '/a;b' }))).toEqual([
    'denied before any rule was read: the path can be read in more than one way',
  ])
})

test('the rule that came nearest, and each thing that was in its way', () => {
  const texts = [
    ours({
      rules: [
        rule({ spiffeIds: ['spiffe://example.org/x'] }, { methods: ['PUT'], paths: ['/y'] }),
        rule(
          { spiffeIds: [web] },
          { methods: ['GET'], paths: ['/orders/{*}', '/x*', '*y'] },
          { key: 'request.headers[a]', notValues: ['b'] },
        ),
      ],
    }),
  ]
  expect(told(texts, request({ peer: web, headers: [['a', 'b']] }))).toEqual([
    'denied: no ALLOW rule matches',
    'nearest is rule 1 of policy `p` (0.yaml:1)',
    'it fails on `paths` (line 1): expected `/orders/{*}`, `/x*`, `*y`, found `/orders`',
    'it fails on `request.headers[a] notValues` (line 1): expected none of `b`, found 1 value(s) that do not agree',
  ])
  expect(told(texts, request({ path: '/orders/1' })).slice(2)).toEqual([
    'it fails on `requirePeer`: the request has no verified peer',
    `it fails on \`spiffeIds\` (line 1): expected \`${web}\`, found no verified peer`,
  ])
})

test('of several sources the one that fails least is told, and what is not known is said', () => {
  const spec = {
    rules: [
      {
        from: [{ source: { ipBlocks: ['10.0.0.0/8'], namespaces: ['a'] } }, { source: { remoteIpBlocks: ['10.0.0.0/8'] } }],
        to: [{ operation: { ports: ['1', '2', '3', '4', '5', '6'], hosts: ['x'] } }],
      },
    ],
  }
  expect(told([ours(spec)], request({ peer: web })).slice(2)).toEqual([
    'it fails on `remoteIpBlocks` (line 1): expected `10.0.0.0/8`, found nothing that is known',
    'it fails on `hosts` (line 1): expected `x`, found `orders.shop`',
    'it fails on `ports` (line 1): expected `1`, `2`, `3`, `4`, `5` and 1 more, found nothing that is known',
  ])
})
