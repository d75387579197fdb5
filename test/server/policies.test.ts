import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { PolicyDocument } from '../../src/policy/policy-set.ts'
import { applyPolicies } from '../../src/server/manage-policies.ts'
import { Policies } from '../../src/server/policies.ts'
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
  const apply = (...documents: PolicyDocument[]) => applyPolicies(rig.server, documents, operator)

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
    expect(rig.audited()).toContain('policies.applied')
  })

  test('a server whose stored policies it cannot read does not start', async () => {
    await rig.store.policies.apply([bad], 'v', 1)
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
