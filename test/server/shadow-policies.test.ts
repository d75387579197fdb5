import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { PolicyDocument } from '../../src/policy/policy-set.ts'
import { applyPolicies } from '../../src/server/manage-policies.ts'
import { Policies } from '../../src/server/policies.ts'
import type { ShadowCount, ShadowObservations } from '../../src/policy/shadow.ts'
import { shadowReport, startShadow, stopShadow, takeObservations } from '../../src/server/shadow-policies.ts'
import { openRig, operator, type Rig } from './rig.ts'

const document = (name: string): PolicyDocument => ({
  name: `${name}.yaml`,
  text: `apiVersion: vidimus.dev/v1\nkind: AuthorizationPolicy\nmetadata: { name: ${name} }\nspec: { identities: [spiffe://example.org/db] }\n`,
})
const row = (count: number, more: Partial<ShadowCount> = {}): ShadowCount => ({
  workload: 'spiffe://example.org/db', allowed: true, candidateAllows: false, rule: 'r', count, peer: '', method: 'GET', path: '/', ...more,
}) // prettier-ignore

describe('a set of policies that is tried', () => {
  let rig: Rig
  beforeEach(async () => {
    rig = await openRig()
  })
  afterEach(() => rig[Symbol.asyncDispose]())
  const start = (...documents: PolicyDocument[]) => startShadow(rig.server, { documents, prune: false }, operator)
  const tell = async (
    version: string,
    counts: ShadowCount[],
    { run = 'one', agent }: { run?: string; agent?: Awaited<ReturnType<Rig['join']>> } = {},
  ) => {
    const seen: ShadowObservations = { candidateVersion: version, run, counts, unlisted: 1 }
    takeObservations(rig.server, (agent ?? (await rig.join())).node, seen)
  }

  test('that cannot be read is refused, and nothing is tried', async () => {
    await expect(start({ name: 'bad.yaml', text: 'kind: x' })).rejects.toMatchObject({ reason: 'policy.invalid' })
    await expect(stopShadow(rig.server, operator)).rejects.toMatchObject({ reason: 'policy.no-candidate' })
    expect(rig.server.policies.inForce.current.candidate).toBeUndefined()
  })

  test('is the whole set that would be in force, and is tried again after a restart', async () => {
    await applyPolicies(rig.server, { documents: [document('a')] }, operator)
    const candidate = await start(document('b'))
    expect(candidate.documents.map(({ name }) => name)).toEqual(['a.yaml', 'b.yaml'])
    expect(rig.server.policies.inForce.current).toMatchObject({ documents: [document('a')], candidate: { version: candidate.version } })
    const again = await Policies.open(rig.store.policies, [])
    expect(again.inForce.current.candidate).toEqual(candidate)
  })

  test('is tried no more once it is in force', async () => {
    await start(document('a'))
    await applyPolicies(rig.server, { documents: [document('b')] }, operator)
    expect(rig.server.policies.inForce.current.candidate).toBeDefined()
    await applyPolicies(rig.server, { documents: [document('a')], prune: true }, operator)
    expect(rig.server.policies.inForce.current.candidate).toBeUndefined()
    expect(await rig.store.policies.candidate()).toBeUndefined()
  })

  test('is counted over all agents, and over the restarts of each', async () => {
    const { version } = await start(document('a'))
    const [one, two] = [await rig.join('join-one'), await rig.join('join-two')]
    await tell(version, [row(3)], { agent: one })
    await tell(version, [row(5)], { agent: one })
    await tell(version, [row(2)], { agent: one, run: 'after a restart' })
    await tell(version, [row(1), row(4, { rule: 's' })], { agent: two })
    expect(shadowReport(rig.server)).toMatchObject({ agents: 2, unlisted: 3, counts: [row(8), row(4, { rule: 's' })] })
  })

  test('is not mixed up with the one tried before', async () => {
    const { version } = await start(document('a'))
    await tell(version, [row(3)])
    const next = await start(document('b'))
    expect(shadowReport(rig.server)).toMatchObject({ counts: [], agents: 0 })
    await tell(version, [row(3)])
    expect(shadowReport(rig.server)).toMatchObject({ counts: [], agents: 0 })
    await tell(next.version, [row(1)])
    expect((await stopShadow(rig.server, operator)).counts).toEqual([row(1)])
    expect(rig.audited().filter((what) => what.startsWith('policies.shadow'))).toEqual([
      'policies.shadow-started',
      'policies.shadow-started',
      'policies.shadow-stopped',
    ])
  })

  test('is counted for policies on dry run too, under the version in force', async () => {
    const { set } = await applyPolicies(rig.server, { documents: [document('a')] }, operator)
    await tell(set.version, [row(7)])
    expect(shadowReport(rig.server)).toEqual({ counts: [row(7)], unlisted: 1, agents: 1 })
  })
})
