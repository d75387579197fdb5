import { describe, expect, test } from 'vitest'
import { compileFor } from '../../src/policy/compile.ts'
import { parsePolicySet } from '../../src/policy/language.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { compiled, documents, istios, noon, orders, ours, selectors } from './make.ts'

const facts = (spiffeIds: readonly string[], ...seen: readonly string[]) => ({
  spiffeIds: spiffeIds.map(parseSpiffeId),
  selectors: selectors(...seen),
})
const selected = (text: string, of: ReturnType<typeof facts>) => compiled([text], {}, of).allowSelected

describe('which policies are for a workload', () => {
  test('by the attested namespace, which the SPIFFE path does not override', () => {
    const policy = istios({ rules: [{}] })
    expect(selected(policy, facts(['spiffe://example.org/x'], 'k8s:ns:shop'))).toBe(true)
    expect(selected(policy, facts(['spiffe://example.org/ns/shop/sa/x'], 'k8s:ns:other'))).toBe(false)
    expect(selected(policy, facts(['spiffe://example.org/x'], 'docker:ns:shop'))).toBe(false)
  })
  test('by the namespace of the SPIFFE path, where none was attested', () => {
    expect(selected(istios({}), facts(['spiffe://example.org/ns/shop/sa/x']))).toBe(true)
    expect(selected(istios({}), facts(['spiffe://example.org/ns/shops/sa/x']))).toBe(false)
    expect(selected(istios({}), facts(['spiffe://example.org/a/ns/shop/sa/x']))).toBe(false)
  })
  test('everywhere from the root namespace, whichever it is', () => {
    expect(selected(istios({}, 'p', 'istio-system'), facts(['spiffe://example.org/x']))).toBe(true)
    const set = parsePolicySet(documents([istios({}, 'p', 'mesh')]), { rootNamespace: 'mesh' })
    expect(compileFor(set, facts(['spiffe://example.org/x']), { at: noon }).allowSelected).toBe(true)
  })
  test('by attested labels, all of them', () => {
    const policy = istios({ selector: { matchLabels: { app: 'orders', 'a.io/tier': 'x:y' } } }, 'p', 'istio-system')
    expect(selected(policy, facts([], 'k8s:pod-label:app:orders', 'k8s:pod-label:a.io/tier:x:y'))).toBe(true)
    expect(selected(policy, facts([], 'docker:label:app:orders', 'docker:label:a.io/tier:x:y'))).toBe(true)
    expect(selected(policy, facts([], 'k8s:pod-label:app:orders'))).toBe(false)
    expect(selected(policy, facts([], 'k8s:node-label:app:orders', 'k8s:pod-label:a.io/tier:x:y'))).toBe(false)
  })
  test('by identity, and by namespace as well where both are named', () => {
    const policy = JSON.stringify({
      apiVersion: 'vidimus.dev/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 'p', namespace: 'shop' },
      spec: { identities: ['spiffe://example.org/ns/{*}/sa/a'] },
    })
    expect(selected(policy, facts(['spiffe://example.org/ns/shop/sa/a']))).toBe(true)
    expect(selected(policy, facts(['spiffe://example.org/ns/shop/sa/b']))).toBe(false)
    expect(selected(policy, facts(['spiffe://example.org/ns/other/sa/a']))).toBe(false)
    expect(selected(policy, facts(['spiffe://example.org/x', 'spiffe://example.org/ns/shop/sa/a']))).toBe(true)
  })
  test('a policy of the server API is for no workload', () => {
    const text = JSON.stringify({
      apiVersion: 'vidimus.dev/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 'p' },
      spec: { target: 'serverApi', rules: [{}] },
    })
    expect(compiled([text])).toMatchObject({ allow: [], allowSelected: false })
  })
})

describe('what comes out', () => {
  test('rules have the ids that proxies report, in the order in which proxies try them', () => {
    const rules = Array.from({ length: 11 }, () => ({}))
    const ids = compiled([istios({ rules }, 'b'), istios({ rules: [{}] }, 'a')]).allow.map(({ id }) => id)
    expect(ids.slice(0, 4)).toEqual([
      'ns[shop]-policy[a]-rule[0]',
      'ns[shop]-policy[b]-rule[0]',
      'ns[shop]-policy[b]-rule[10]',
      'ns[shop]-policy[b]-rule[1]',
    ])
  })
  test('an exception ends at its moment, and says when', () => {
    const set = parsePolicySet(documents([ours({ rules: [{}], expires: '2030-01-01' }), ours({ rules: [{}], expires: '2031-01-01' }, 'q')]))
    const at = 1_893_456_000_000
    expect(compileFor(set, orders, { at: at - 1 })).toMatchObject({ validUntil: at, allow: [{ policy: 'p' }, { policy: 'q' }] })
    expect(compileFor(set, orders, { at })).toMatchObject({ allow: [{ policy: 'q' }], allowSelected: true })
    expect(compiled([ours({ rules: [{}] })]).validUntil).toBeUndefined()
  })
  test('the fingerprint follows the meaning, not the text', () => {
    const print = (text: string) => compiled([text]).fingerprint
    expect(print(ours({ rules: [{}] }))).toBe(print(`# a comment\n${ours({ rules: [{}] })}`))
    expect(print(ours({ rules: [{}] }))).not.toBe(print(ours({ rules: [{}], requirePeer: false })))
    expect(print(ours({ rules: [{}] }))).not.toBe(print(ours({ rules: [] })))
  })
  test('it says whether paths are compared, and which methods are known', () => {
    expect(compiled([ours({ rules: [{}] })])).toMatchObject({ comparesPaths: false })
    const one = compiled([ours({ rules: [{ to: [{ operation: { notPaths: ['/x'], methods: ['PURGE', 'GET'] } }] }] })])
    expect(one.comparesPaths).toBe(true)
    expect(one.knownMethods.filter((method) => method === 'PURGE' || method === 'GET')).toEqual(['GET', 'PURGE'])
  })
})
