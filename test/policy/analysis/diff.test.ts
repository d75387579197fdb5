import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { diffSets } from '../../../src/policy/analysis/diff.ts'
import { namedDestination } from '../../../src/policy/analysis/destinations.ts'
import { compileFor } from '../../../src/policy/compile.ts'
import { decide } from '../../../src/policy/evaluate.ts'
import { checkPolicies, parsePolicySet } from '../../../src/policy/language.ts'
import type { PolicyMode } from '../../../src/policy/policy-set.ts'
import { documents, istios, noon, orders, ours, selectors, web } from '../make.ts'
import { policiesIn, requestsIn } from './arbitrary.ts'

const set = (texts: readonly string[], mode: PolicyMode = 'strict') => parsePolicySet(documents(texts), { mode })
const diff = (before: readonly string[], after: readonly string[], mode: PolicyMode = 'strict') =>
  diffSets(set(before, mode), set(after, mode), { at: noon })
const words = (found: ReturnType<typeof diff>) => ({
  answer: found.answer,
  allowed: [...new Set(found.destinations.flatMap(({ newlyAllowed }) => newlyAllowed.map((one) => one.words)))],
  denied: [...new Set(found.destinations.flatMap(({ newlyDenied }) => newlyDenied.map((one) => one.words)))],
})
const allow = (operation: object, source: object = { spiffeIds: [web] }) => ours({ rules: [{ from: [{ source }], to: [{ operation }] }] })

describe('a difference', () => {
  test('that was not worked out is unknown, and names the rules that are open: never is it no change', () => {
    const [before, after] = [set([allow({ paths: ['/a'] })]), set([allow({ paths: ['/a', '/b'] })])]
    const found = diffSets(before, after, { at: noon, limits: { nodes: 3, steps: 1e6 } })
    expect(found.answer).toBe('unknown')
    const open = diffSets(before, after, { at: noon, limits: { nodes: 3, steps: 1e6 }, destinations: [namedDestination(orders)] })
    expect(open.answer).toBe('unknown')
    expect(open.destinations[0]!.unknown.map(({ reason, what }) => `${reason}: ${what}`)).toEqual([
      'budget: requests that rule 0 of policy `p` matches (0.yaml:1)',
      'budget: requests that rule 0 of policy `p` matches (0.yaml:1)',
    ])
  })

  test('of two spellings of one meaning is proved to be none', () => {
    const before = [ours({ rules: [{ to: [{ operation: { paths: ['/a/*'] } }] }, { to: [{ operation: { paths: ['/a/b'] } }] }] })]
    expect(words(diff(before, [ours({ rules: [{ to: [{ operation: { paths: ['/a/*'], methods: ['*'] } }] }] })]))).toEqual({
      answer: 'same',
      allowed: [],
      denied: [],
    })
  })

  test('is told in the words of the policies', () => {
    expect(
      words(
        diff(
          [allow({ paths: ['/a/*'] })],
          [allow({ paths: ['/a/*'] }), ours({ action: 'DENY', rules: [{ to: [{ operation: { paths: ['/a/admin/{**}'] } }] }] }, 'no')],
        ),
      ),
    ).toEqual({
      answer: 'different',
      allowed: [],
      denied: [`peer \`${web}\`, path \`/a/admin/{**}\``],
    })
    expect(words(diff([allow({ methods: ['GET'] })], [allow({ methods: ['GET', 'PUT'] })]))).toMatchObject({
      allowed: [`peer \`${web}\`, method \`PUT\``],
    })
    expect(
      words(diff([allow({ ports: ['80'] })], [allow({ ports: ['80', '81'] }, { spiffeIds: [web], ipBlocks: ['10.0.0.0/8'] })])),
    ).toMatchObject({
      allowed: [`peer \`${web}\`, source address \`10.0.0.0/8\`, port \`81\``],
      denied: [`peer \`${web}\`, source address other than \`10.0.0.0/8\`, port \`80\``],
    })
  })

  test('of a policy that is taken away in istio mode opens the workload to everybody', () => {
    const found = words(diff([istios({ rules: [{ from: [{ source: { namespaces: ['a'] } }] }] })], [], 'istio'))
    expect(found).toEqual({ answer: 'different', allowed: ['no verified peer, or peer other than `a`'], denied: [] })
  })

  test('of what a DENY means for connections that are not HTTP is a difference too', () => {
    const deny = ours({ action: 'DENY', rules: [{ to: [{ operation: { paths: ['/x'] } }] }] }, 'd')
    const found = words(diff([allow({ ports: ['80'] })], [allow({ ports: ['80'] }), deny]))
    expect(found.denied).toContain(`a connection that is not HTTP, peer \`${web}\`, port \`80\``)
  })

  test('that a provider decides depends on it', () => {
    const custom = ours({ action: 'CUSTOM', provider: { name: 'opa' }, rules: [{ to: [{ operation: { paths: ['/x'] } }] }] }, 'c')
    const found = diff([allow({ paths: ['/x'] })], [allow({ paths: ['/x'] }), custom])
    expect(found.answer).toBe('unknown')
    expect(found.destinations[0]!.newlyDenied[0]!.dependsOn).toEqual([{ reason: 'opaque', what: 'the answer of the provider `opa`' }])
  })
})

test.each<PolicyMode>(['strict', 'istio'])('in %s mode two random sets differ for a request only where their difference says so', (mode) => {
  const facts = { ...orders, selectors: selectors('k8s:ns:shop', 'k8s:pod-label:app:orders') }
  const isValid = (texts: readonly string[]) => checkPolicies(documents(texts), { mode }).problems.length === 0
  fc.assert(
    fc.property(policiesIn(mode), policiesIn(mode), fc.array(requestsIn(mode), { minLength: 30, maxLength: 30 }), (old, next, requests) => {
      fc.pre(isValid(old) && isValid(next))
      const [before, after] = [set(old, mode), set(next, mode)]
      // Every witness is replayed by the function itself: an error would be a disagreement.
      const found = diffSets(before, after, { at: noon, destinations: [namedDestination(facts)] })
      const [was, is] = [before, after].map((one) => compileFor(one, facts, { at: noon }))
      const changed = requests.filter((request) => decide(was!, request).allowed !== decide(is!, request).allowed)
      if (changed.length > 0) expect({ changed, answer: found.answer }).not.toMatchObject({ answer: 'same' })
      for (const request of changed) {
        const kind = decide(is!, request).allowed ? found.destinations[0]!.newlyAllowed : found.destinations[0]!.newlyDenied
        expect(kind.length).toBeGreaterThan(0)
      }
    }),
    { numRuns: mode === 'strict' ? 25 : 12, endOnFailure: true },
  )
}, 30_000) // prettier-ignore
