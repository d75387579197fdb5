import { generateKeyPairSync } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hours } from '../../src/kernel/duration.ts'
import type { PolicyDocument } from '../../src/policy/policy-set.ts'
import { signPolicySet } from '../../src/policy/signed-set.ts'
import { applyPolicies, type PolicyWish, rollBackPolicies } from '../../src/server/manage-policies.ts'
import { Policies } from '../../src/server/policies.ts'
import type { SpiffeId } from '../../src/spiffe/id.ts'
import { openRig, operator, type Rig } from './rig.ts'

const good: PolicyDocument = {
  name: 'good.yaml',
  text: 'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: a, namespace: b }\nspec: {}\n',
}
const bad: PolicyDocument = {
  name: 'bad.yaml',
  text: 'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: a }\nspec:\n  rulez: []\n',
}

describe('policies in force', () => {
  let rig: Rig
  beforeEach(async () => {
    rig = await openRig()
  })
  afterEach(() => rig[Symbol.asyncDispose]())
  const apply = async (...documents: PolicyDocument[]) => (await applyPolicies(rig.server, { documents, prune: true }, operator)).set

  test('a set with one bad document changes nothing, and the refusal names the place', async () => {
    await apply(good)
    await expect(apply(good, bad)).rejects.toMatchObject({
      reason: 'policy.invalid',
      message: expect.stringContaining('bad.yaml:5') as string,
    })
    expect(rig.server.policies.inForce.current.documents).toEqual([good])
    expect((await rig.store.policies.current())?.documents).toEqual([good])
  })

  test('a policy about our own API that has the name of one that the program comes with is refused', async () => {
    const text =
      'apiVersion: vidimus.dev/v1\nkind: AuthorizationPolicy\nmetadata: { name: server-api-operators }\nspec:\n  target: serverApi\n  action: ALLOW\n  rules: []\n'
    await expect(apply({ name: 'mine.yaml', text })).rejects.toMatchObject({ reason: 'policy.invalid' })
  })

  test.each<[string, PolicyDocument[], string]>([
    ['1001 documents', Array.from({ length: 1001 }, (_, i) => ({ name: `${i}`, text: '' })), 'policy.too-many'],
    ['more than a megabyte', [{ name: 'a', text: '#'.repeat(1024 * 1024) }], 'policy.too-large'],
    ['two documents of one name', [good, good], 'policy.duplicate-document'],
  ])('%s are refused', async (_, documents, reason) => {
    await expect(apply(...documents)).rejects.toMatchObject({ reason })
  })

  test('the last that were applied are in force after a restart, under the same version', async () => {
    const applied = await apply(good)
    const again = await Policies.open(rig.store.policies, [])
    expect(again.inForce.current).toEqual(applied)
    expect(applied).toMatchObject({ serial: 1, options: {}, appliedBy: 'local uid 0 pid 1' })
    expect(rig.audited()).toContain('policies.applied')
  })

  test('a server whose stored policies it cannot read does not start', async () => {
    await rig.store.policies.apply({ version: 'v', documents: [bad], options: {}, appliedAt: 1, appliedBy: '' }, 0)
    await expect(Policies.open(rig.store.policies, [])).rejects.toMatchObject({ reason: 'policy.invalid' })
  })

  test('equal documents have equal versions, none included', async () => {
    const first = await apply(good)
    const empty = await apply()
    expect(empty.version).not.toBe(first.version)
    expect((await apply(good)).version).toBe(first.version)
    await using fresh = await openRig()
    expect(fresh.server.policies.inForce.current.version).toBe(empty.version)
  })
})

describe('changing the policies', () => {
  let rig: Rig
  beforeEach(async () => {
    rig = await openRig()
  })
  afterEach(() => rig[Symbol.asyncDispose]())
  const apply = (wish: PolicyWish) => applyPolicies(rig.server, wish, operator)
  const inForce = () => rig.server.policies.inForce.current
  const named = (name: string, text = good.text.replace('name: a', `name: ${name}`)): PolicyDocument => ({ name: `${name}.yaml`, text })
  const lockout: PolicyDocument = {
    name: 'lockout.yaml',
    text: 'apiVersion: vidimus.dev/v1\nkind: AuthorizationPolicy\nmetadata: { name: nobody }\nspec:\n  target: serverApi\n  action: DENY\n  rules: [{ to: [{ operation: { paths: [/vidimus.api.policy.v1.PolicyAdministration/ApplyPolicies] } }] }]\n',
  }

  test('so that nobody could change them again is refused, unless it is meant', async () => {
    await expect(apply({ documents: [lockout] })).rejects.toMatchObject({ reason: 'policy.lockout' })
    expect(inForce().serial).toBe(0)
    await apply({ documents: [lockout], force: true })
    expect(inForce().documents).toEqual([lockout])
  })

  test('that are not the ones that were looked at is refused', async () => {
    const { set } = await apply({ documents: [named('a')] })
    await expect(apply({ documents: [named('b')], expectedVersion: 'another' })).rejects.toMatchObject({
      reason: 'policy.changed-meanwhile',
    })
    expect((await apply({ documents: [named('b')], expectedVersion: set.version })).set.serial).toBe(2)
  })

  test('by two operators at once lets one of them win, and tells the other', async () => {
    const outcomes = await Promise.allSettled([apply({ documents: [named('a')] }), apply({ documents: [named('b')] })])
    expect(outcomes.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
    expect(outcomes.find((one) => one.status === 'rejected')).toMatchObject({ reason: { reason: 'policy.changed-meanwhile' } })
  })

  test('leaves those of other names in force, and with prune takes them away', async () => {
    await apply({ documents: [named('a'), named('b')] })
    const { changes } = await apply({ documents: [named('b', good.text.replace('name: a', 'name: bb')), named('c')] })
    expect(changes).toEqual({ added: ['c.yaml'], changed: ['b.yaml'], removed: [], unchanged: ['a.yaml'] })
    expect(inForce().documents.map(({ name }) => name)).toEqual(['a.yaml', 'b.yaml', 'c.yaml'])
    expect((await apply({ documents: [named('c')], prune: true })).changes).toMatchObject({
      removed: ['a.yaml', 'b.yaml'],
      unchanged: ['c.yaml'],
    })
    expect(inForce().documents.map(({ name }) => name)).toEqual(['c.yaml'])
  })

  test('as a dry run says what would change, and changes nothing', async () => {
    await apply({ documents: [named('a')] })
    const before = inForce()
    const { set, changes } = await apply({ documents: [named('b')], prune: true, dryRun: true })
    expect(changes).toMatchObject({ added: ['b.yaml'], removed: ['a.yaml'] })
    expect(set.version).not.toBe(before.version)
    expect(inForce()).toBe(before)
    await expect(apply({ documents: [bad], dryRun: true })).rejects.toMatchObject({ reason: 'policy.invalid' })
    await expect(apply({ documents: [lockout], dryRun: true })).rejects.toMatchObject({ reason: 'policy.lockout' })
  })

  test('keeps the mode of the set unless another is given', async () => {
    await apply({ documents: [named('a')], options: { mode: 'istio' } })
    await apply({ documents: [named('b')] })
    expect(inForce().options).toEqual({ mode: 'istio' })
    await apply({ documents: [named('b')], options: {} })
    expect(inForce().options).toEqual({})
  })

  test('back to those before is one step, and to any that are kept as well', async () => {
    await expect(rollBackPolicies(rig.server, { serial: 0, force: false }, operator)).rejects.toMatchObject({
      reason: 'policy.nothing-before',
    })
    const first = await apply({ documents: [named('a')] })
    await apply({ documents: [named('b')], prune: true })
    const back = await rollBackPolicies(rig.server, { serial: 0, force: false }, operator)
    expect(back).toMatchObject({ set: { version: first.set.version, serial: 3 }, changes: { added: ['a.yaml'], removed: ['b.yaml'] } })
    expect((await rollBackPolicies(rig.server, { serial: 2, force: false }, operator)).set.documents).toEqual([named('b')])
    await expect(rollBackPolicies(rig.server, { serial: 99, force: false }, operator)).rejects.toMatchObject({
      reason: 'policy.no-such-set',
    })
    expect(rig.audited().filter((what) => what === 'policies.rolled-back')).toHaveLength(2)
  })

  test('back to a set that would lock everybody out is refused as well', async () => {
    await apply({ documents: [lockout], force: true })
    await apply({ documents: [named('a')], prune: true, force: true })
    await expect(rollBackPolicies(rig.server, { serial: 0, force: false }, operator)).rejects.toMatchObject({ reason: 'policy.lockout' })
  })
})

describe('where policies must be signed', () => {
  const signer = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const document = { ...good, name: 'signed.yaml' }
  const signed = async (serial: number, expires = hours(10_000_000)) => ({
    documents: [document],
    options: {},
    signature: await signPolicySet({ documents: [document], options: {} }, { serial, expires }, signer.privateKey),
  })

  test('an unsigned set, an older serial and a rollback are refused, and a signed one is in force after a restart', async () => {
    await using rig = await openRig()
    const policies = await Policies.open(rig.store.policies, [], [signer.publicKey])
    const server = { ...rig.server, policies, adminIds: new Set<SpiffeId>() }
    const apply = (wish: PolicyWish) => applyPolicies(server, { ...wish, force: true }, operator)
    await expect(apply({ documents: [document] })).rejects.toMatchObject({ reason: 'policy.unsigned' })
    expect((await apply(await signed(7))).set.signature).toBeDefined()
    await expect(apply(await signed(7))).rejects.toMatchObject({ reason: 'policy.older-serial' })
    await apply(await signed(8))
    await expect(rollBackPolicies(server, { serial: 0, force: true }, operator)).rejects.toMatchObject({ reason: 'policy.older-serial' })
    expect(policies.complaints(rig.clock.now())).toEqual([])

    const again = await Policies.open(rig.store.policies, [], [signer.publicKey])
    await expect(again.check(await signed(8), rig.clock.now())).rejects.toMatchObject({ reason: 'policy.older-serial' })
    expect(again.complaints(hours(10_000_000))).toEqual([expect.stringContaining('expired')])
  })

  test('a set that was put in force before they had to stays, and the server says that nobody signed it', async () => {
    await using rig = await openRig()
    await applyPolicies(rig.server, { documents: [document] }, operator)
    const policies = await Policies.open(rig.store.policies, [], [signer.publicKey])
    expect(policies.inForce.current.documents).toEqual([document])
    expect(policies.complaints(rig.clock.now())).toEqual(['the policies in force are not signed by a key that is trusted for it'])
  })
})
