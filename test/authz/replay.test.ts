import { expect, test } from 'vitest'
import { filtersAllow } from '../../src/authz/replay.ts'
import { decide } from '../../src/policy/evaluate.ts'
import type { PolicyMode } from '../../src/policy/policy-set.ts'
import type { PolicyRequest } from '../../src/policy/request.ts'
import { trustDomainOf } from '../../src/spiffe/id.ts'
import { compiled, everything, istios, orders, ours, request, web } from '../policy/make.ts'

const both: readonly PolicyMode[] = ['strict', 'istio']
const answers = (texts: readonly string[], mode: PolicyMode, asked: PolicyRequest) => {
  const policies = compiled(texts, { mode })
  return { evaluator: decide(policies, asked).allowed, filters: filtersAllow(policies, asked, trustDomainOf(orders.spiffeIds[0]!)) }
}
const alike = (allowed: boolean) => ({ evaluator: allowed, filters: allowed })
const sent = (...values: readonly string[]) => request({ peer: web, headers: values.map((value) => ['authorization', value] as const) })

test.each(both)(
  'in %s mode a condition about a server name that was not sent is decided on the refusing side, in the filters too',
  (mode) => {
    const rules = [{ condition: 'connection.requested_server_name != "a"' }]
    expect(answers([ours({ rules })], mode, request({ peer: web }))).toEqual(alike(false))
    expect(answers([ours(everything), ours({ action: 'DENY', rules }, 'q')], mode, request({ peer: web }))).toEqual(alike(false))
    expect(answers([ours({ rules })], mode, request({ peer: web }, { sni: 'b' }))).toEqual(alike(true))
  },
)

test('R-8 the filters refuse a second `authorization` header in strict mode, as the evaluator does', () => {
  expect(answers([ours(everything)], 'strict', sent('Bearer a', 'Bearer b'))).toEqual(alike(false))
  expect(answers([ours(everything)], 'strict', sent('Bearer a'))).toEqual(alike(true))
})

test('R-8 filters say nothing about two `authorization` headers that the proxy cannot tell from one', () => {
  expect(answers([ours(everything)], 'strict', sent('Digest a="b"', 'c="d"'))).toEqual({ evaluator: false, filters: undefined })
})

test.each([
  ['Bearer a', false],
  ['Bearer a,Bearer b', true],
  ['Bearer a*', true],
  ['*b', true],
])('in istio mode %s and a repeated `authorization` header: filters and evaluator compare its joined values', (value, allowed) => {
  const rules = [{ when: [{ key: 'request.headers[authorization]', values: [value] }] }]
  expect(answers([istios({ rules })], 'istio', sent('Bearer a', 'Bearer b'))).toEqual(alike(allowed))
})
