import { describe, expect, test } from 'vitest'
import { Coverage } from '../../../src/policy/analysis/coverage.ts'
import { missingTests } from '../../../src/policy/analysis/missing-tests.ts'
import { compileFor } from '../../../src/policy/compile.ts'
import { decide } from '../../../src/policy/evaluate.ts'
import { parsePolicySet } from '../../../src/policy/language.ts'
import type { PolicyRequest } from '../../../src/policy/request.ts'
import { documents, everything, noon, orders, ours, request, web } from '../make.ts'

const peers = [{ source: { spiffeIds: [web] } }]
const reading = ours({ rules: [{ from: peers, to: [{ operation: { methods: ['GET'], paths: ['/orders', '/orders/*'] } }] }] }, 'reading')

function covered(texts: readonly string[], requests: readonly PolicyRequest[]) {
  const set = parsePolicySet(documents(texts))
  const coverage = new Coverage(set)
  const news = requests.map((one) => coverage.note(compileFor(set, orders, { at: noon }), one))
  const { unexercised, ...counts } = coverage.report()
  return { news, ...counts, open: unexercised.map(({ policy, rule, atom, never }) => `${policy} ${rule}: ${atom} ${never.join(' ')}`) }
}

describe('coverage', () => {
  test('without any test every value of every rule is open, both ways', () => {
    expect(covered([reading], [])).toEqual({
      news: [],
      outcomes: 9,
      exercised: 0,
      percent: 0,
      open: [
        'reading 0: the rule true',
        `reading 0: spiffeIds \`${web}\` true false`,
        'reading 0: methods `GET` true false',
        'reading 0: paths `/orders` true false',
        'reading 0: paths `/orders/*` true false',
      ],
    })
  })

  test('a request exercises what it has and what it has not, and the same request exercises nothing new', () => {
    expect(covered([reading], [request({ peer: web }), request({ peer: web }), request({ path: '/orders/7', method: 'POST' })])).toEqual({
      news: [5, 0, 4],
      outcomes: 9,
      exercised: 9,
      percent: 100,
      open: [],
    })
  })

  test('what is not known counts as another value, also in a DENY', () => {
    const denying = ours({ action: 'DENY', rules: [{ to: [{ operation: { paths: ['/admin'] } }] }] }, 'closed')
    expect(covered([denying], [{}]).open).toEqual(['closed 0: paths `/admin` true'])
  })

  test('a negation is covered by its value, not by its opposite', () => {
    const not = ours({ rules: [{ from: peers, to: [{ operation: { notPaths: ['/admin'] } }] }] })
    expect(covered([not], [request({ peer: web, path: '/admin' })]).open).toEqual([
      'p 0: the rule true',
      `p 0: spiffeIds \`${web}\` false`,
      'p 0: notPaths `/admin` false',
    ])
  })

  test('a request that is refused before a rule is read exercises no rule', () => {
    expect(covered([reading], [request({ peer: web, path: '/orders;a' })]).exercised).toBe(0)
  })

  test('the comparisons of a condition are covered one by one', () => {
    const cel = ours({ rules: [{ condition: 'request.method in ["GET", "PUT"] && connection.mtls' }] })
    expect(covered([cel], [request({ peer: web })]).open).toEqual([
      'p 0: condition request.method `GET` false',
      'p 0: condition request.method `PUT` true',
      'p 0: condition connection.mtls false',
    ])
  })

  test('an expired rule is there to be tested at its time; a rule on dry run and one of our own API are not', () => {
    const texts = [
      ours({ ...everything, expires: '2020-01-01' }, 'old'),
      JSON.stringify({
        apiVersion: 'vidimus.dev/v1',
        kind: 'AuthorizationPolicy',
        metadata: { name: 'dry', annotations: { 'istio.io/dry-run': 'true' } },
        spec: { identities: ['spiffe://example.org/{**}'], rules: [{}] },
      }),
      JSON.stringify({
        apiVersion: 'vidimus.dev/v1',
        kind: 'AuthorizationPolicy',
        metadata: { name: 'api' },
        spec: { target: 'serverApi', rules: [{ from: [{ source: { callers: ['admin'] } }] }] },
      }),
    ]
    expect(covered(texts, [request()]).open).toEqual(['old 0: the rule true'])
  })
})

describe('missing tests', () => {
  test('they exercise everything that can be, with the verdict of now, and then nothing is missing', () => {
    const set = parsePolicySet(
      documents([reading, ours({ action: 'DENY', rules: [{ to: [{ operation: { paths: ['/orders/x'] } }] }] }, 'x')]),
    )
    const coverage = new Coverage(set)
    const { tests, unknown } = missingTests(set, [orders], coverage, { at: noon })
    expect([unknown, coverage.report().unexercised]).toEqual([[], []])
    for (const { workload, request: asked, decision } of tests)
      expect(decide(compileFor(set, workload, { at: noon }), asked)).toEqual(decision)
    expect(new Set(tests.map(({ decision: { allowed } }) => allowed)).size).toBe(2)
    expect(missingTests(set, [orders], coverage, { at: noon }).tests).toEqual([])
  })

  test('workloads that no test names are found by the policies that select them', () => {
    const set = parsePolicySet(documents([ours({ identities: ['spiffe://example.org/ledger'], rules: [{ from: peers }] })]))
    const { tests } = missingTests(set, [orders], new Coverage(set), { at: noon })
    expect(tests.map(({ workload }) => workload.spiffeIds[0])).toContain('spiffe://example.org/ledger')
  })

  test('they end: at a number, and at a budget, which is said', () => {
    const set = parsePolicySet(documents([reading]))
    expect(missingTests(set, [orders], new Coverage(set), { at: noon, most: 1 }).tests).toHaveLength(1)
    const tight = missingTests(set, [orders], new Coverage(set), { at: noon, limits: { nodes: 1, steps: 1 } })
    expect([tight.tests, tight.unknown.map(({ reason }) => reason)]).toEqual([[], ['budget', 'budget']])
  })
})
