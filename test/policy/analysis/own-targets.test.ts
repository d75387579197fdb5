import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { diffSets } from '../../../src/policy/analysis/diff.ts'
import { parsePolicySet } from '../../../src/policy/language.ts'
import { decideOnboarding, onboardingPolicy } from '../../../src/policy/onboarding.ts'
import type { OnboardingRequest, ServerApiRequest } from '../../../src/policy/request.ts'
import { decideServerApi, serverApiPolicy } from '../../../src/policy/server-api.ts'
import { parseSpiffeId } from '../../../src/spiffe/id.ts'
import { parseSelector } from '../../../src/spiffe/selector.ts'
import { parseTrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { documents, noon } from '../make.ts'

type Target = 'serverApi' | 'onboarding'
const policy = (target: Target, rules: readonly object[], more: object = {}, name = 'p') =>
  JSON.stringify({ apiVersion: 'vidimus.dev/v1', kind: 'AuthorizationPolicy', metadata: { name }, spec: { target, rules, ...more } })
const set = (texts: readonly string[]) => parsePolicySet(documents(texts))
const diff = (before: readonly string[], after: readonly string[], limits = {}) =>
  diffSets(set(before), set(after), { at: noon, destinations: [], ...limits })
const told = (before: readonly string[], after: readonly string[]) => {
  const { answer, targets } = diff(before, after)
  return {
    answer,
    allowed: targets.flatMap(({ newlyAllowed }) => newlyAllowed.map(({ words }) => words)),
    denied: targets.flatMap(({ newlyDenied }) => newlyDenied.map(({ words }) => words)),
  }
}

const create = '/spire.api.server.entry.v1.Entry/BatchCreateEntry'
const call = (callers: readonly string[], paths: readonly string[], when: readonly object[] = []) => ({
  from: [{ source: { callers } }],
  to: [{ operation: { paths } }],
  ...(when.length > 0 && { when }),
})

describe('a change of who may call our own API', () => {
  test('that was not worked out is unknown, never no change', () => {
    const found = diff([policy('serverApi', [call(['admin'], [create])])], [policy('serverApi', [call(['agent'], [create])])], {
      limits: { nodes: 2, steps: 1e6 },
    })
    expect([found.answer, found.targets[0]!.unknown]).toEqual([
      'unknown',
      [{ reason: 'budget', what: 'which calls of the server are decided differently' }],
    ])
  })

  test('is none where two spellings mean one thing, and that is proved', () => {
    const before = [policy('serverApi', [call(['admin', 'local'], ['/a.B/C', '/a.B/D'])])]
    const after = [policy('serverApi', [call(['local'], ['/a.B/D', '/a.B/C'])], {}, 'one'), policy('serverApi', [call(['admin'], ['/a.B/C']), call(['admin'], ['/a.B/D'])], {}, 'two')] // prettier-ignore
    expect(told(before, after)).toEqual({ answer: 'same', allowed: [], denied: [] })
  })

  test('is told with the caller, the method and what the call is about', () => {
    const before = [policy('serverApi', [call(['admin'], [create])])]
    expect(told(before, [policy('serverApi', [call(['admin', 'agent'], [create])])])).toEqual({
      answer: 'different',
      allowed: [`caller \`agent\`, method \`${create}\``],
      denied: [],
    })
    const short = policy('serverApi', [{ when: [{ key: 'entry.x509Ttl', notValues: ['<=1h'] }] }], { action: 'DENY' }, 'short')
    const { targets } = diff(before, [...before, short])
    expect(targets[0]!.newlyDenied.map(({ words }) => words)).toEqual([
      `caller \`admin\`, method \`${create}\`, no entry.x509Ttl, or entry.x509Ttl other than \`<=1h\``,
    ])
    expect(targets[0]!.newlyDenied[0]!.witness).toMatchObject({ request: { method: create }, replayed: true, before: { allowed: true }, after: { allowed: false } }) // prettier-ignore
  })

  test('is none where the rule has expired, and one as long as it has not', () => {
    const exception = (expires: string) => policy('serverApi', [call(['agent'], [create])], { expires }, 'exception')
    expect(told([], [exception('2020-01-01')]).answer).toBe('same')
    expect(told([], [exception('2099-01-01')]).answer).toBe('different')
  })

  test('does not make a difference for policies of workloads or of nodes', () => {
    const found = diff([], [policy('serverApi', [call(['agent'], [create])])])
    expect(found.targets.map(({ target }) => target)).toEqual(['serverApi'])
  })
})

describe('a change of which nodes are admitted', () => {
  const node = (key: string, values: readonly string[], not = false) => ({ when: [{ key: `attested.${key}`, [not ? 'notValues' : 'values']: values }] }) // prettier-ignore
  test('is told with the evidence and what it proves', () => {
    const before = [policy('onboarding', [node('x509pop.subject:cn', ['rack-1'])])]
    const after = [policy('onboarding', [node('x509pop.subject:cn', ['rack-*'])])]
    expect(told(before, after)).toEqual({
      answer: 'different',
      allowed: ['evidence `x509pop`, selector of x509pop with `subject:cn:rack-*` (but not `subject:cn:rack-1`) and no selector of x509pop with a value `subject:cn:rack-1`'],
      denied: [],
    }) // prettier-ignore
  })

  test('sees that one selector answers for two names', () => {
    const before = [policy('onboarding', [node('x509pop.subject', ['cn:a'])])]
    expect(told(before, [policy('onboarding', [node('x509pop.subject:cn', ['a'])])])).toEqual({ answer: 'same', allowed: [], denied: [] })
  })

  test('of a negation does not admit who proved nothing', () => {
    const { targets } = diff([], [policy('onboarding', [node('aws_iid.account', ['1'], true)])])
    expect(targets[0]!.newlyAllowed.map(({ witness }) => witness.request)).toEqual([
      { type: 'aws_iid', selectors: [{ type: 'aws_iid', value: expect.stringMatching(/^account:/) as string }] },
    ])
  })
})

// Requests at random, near what the policies name, must differ only where the analysis says that some do.
const methods = ['/a.B/C', '/a.B/D', '/a.E/C']
const callers = ['local', 'admin', 'agent', 'downstream', 'anyone'] as const
const some = <T>(of: readonly T[], most = 2) => fc.uniqueArray(fc.constantFrom(...of), { minLength: 1, maxLength: most })
const ids = ['spiffe://example.org/a', 'spiffe://example.org/b/c'].map(parseSpiffeId)
const condition = fc.oneof(
  fc.record({ key: fc.constantFrom('entry.spiffeId', 'entry.parentId', 'agent.id'), values: some(['spiffe://example.org/a', 'spiffe://example.org/{**}', 'spiffe://example.org/b/{*}']) }),
  fc.record({ key: fc.constantFrom('entry.admin', 'entry.downstream'), values: some(['true', 'false']) }),
  fc.record({ key: fc.constant('entry.x509Ttl'), values: some(['1h', '<=30m', '>=2h']) }),
  fc.record({ key: fc.constant('trustDomain'), values: some(['example.org', 'other.org']) }),
) // prettier-ignore
const attested = fc.record({
  key: fc.constantFrom('attested.a.x', 'attested.a.x:y', 'attested.b.x'),
  values: some(['*', 'y:1', '1', 'y:*', '*2']),
})
const negated = <T extends { key: string; values: string[] }>(made: fc.Arbitrary<T>) =>
  fc.tuple(made, fc.boolean()).map(([{ key, values }, not]) => ({ key, [not ? 'notValues' : 'values']: values }))
const apiRule = fc.record(
  {
    from: some(callers).map((those) => [{ source: { callers: those } }]),
    to: some([...methods, '/a.B/*', '*/C']).map((paths) => [{ operation: { paths } }]),
    when: fc.array(negated(condition), { minLength: 1, maxLength: 2 }),
  },
  { requiredKeys: [] },
)
const nodeRule = fc.record({ when: fc.array(negated(attested), { minLength: 1, maxLength: 2 }) })
const policies = (target: Target, rule: fc.Arbitrary<object>) =>
  fc
    .array(fc.tuple(fc.constantFrom('ALLOW', 'ALLOW', 'DENY'), fc.array(rule, { minLength: 1, maxLength: 2 })), {
      minLength: 1,
      maxLength: 3,
    })
    .map((list) => list.map(([action, rules], index) => policy(target, rules, { action }, `p${index}`)))
const calls: fc.Arbitrary<ServerApiRequest> = fc.record({
  caller: fc.constantFrom(...callers, ['admin', 'downstream'] as const),
  method: fc.constantFrom(...methods, '/x.Y/Z'),
  attributes: fc.record(
    {
      'entry.spiffeId': fc.constantFrom(...ids),
      'agent.id': fc.constantFrom(...ids),
      'entry.admin': fc.boolean(),
      'entry.x509Ttl': fc.constantFrom(1_800_000, 3_600_000, 5_000_000, 7_200_000),
      trustDomain: fc.constantFrom(parseTrustDomain('example.org'), parseTrustDomain('third.org')),
    },
    { requiredKeys: [] },
  ),
})
const nodes: fc.Arbitrary<OnboardingRequest> = fc.record({
  type: fc.constantFrom('a', 'b', 'c'),
  selectors: fc.array(fc.constantFrom('a:x:1', 'a:x:y:1', 'a:x:y:2', 'a:x:', 'b:x:1', 'a:z').map(parseSelector), { maxLength: 3 }),
})

test.each([
  ['of our own API', policies('serverApi', apiRule), calls, (texts: string[], request: ServerApiRequest) => decideServerApi(serverApiPolicy(set(texts)), request, noon).allowed],
  ['of onboarding', policies('onboarding', nodeRule), nodes, (texts: string[], request: OnboardingRequest) => decideOnboarding(onboardingPolicy(set(texts)), request, noon).allowed],
] as const)('two random sets %s differ for a request only where their difference says so', (_, sets, requests, allows) => {
  fc.assert(
    fc.property(sets, sets, fc.array(requests as fc.Arbitrary<never>, { minLength: 40, maxLength: 40 }), (old, next, asked) => {
      // Every witness is replayed by the function itself: an error would be a disagreement.
      const { answer, targets } = diff(old, next)
      for (const request of asked) {
        const [was, is] = [allows(old, request), allows(next, request)]
        if (was === is) continue
        expect(answer).toBe('different')
        expect(targets.flatMap((one) => [...(is ? one.newlyAllowed : one.newlyDenied)]).length).toBeGreaterThan(0)
      }
    }),
    { numRuns: 60, endOnFailure: true },
  )
}, 30_000) // prettier-ignore
