import { generateKeyPairSync } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { agentMetrics } from '../../src/agent/metrics.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { signPolicySet } from '../../src/policy/signed-set.ts'
import { formatSelector } from '../../src/spiffe/selector.ts'
import { FakeClock } from '../fakes/clock.ts'
import { FakeUpstreamServer } from '../fakes/upstream-server.ts'
import { fakeProcess, startAgent, until } from './rig.ts'

const allow = { name: 'allow.yaml', text: 'kind: AuthorizationPolicy' }

describe('policies', () => {
  test('are none before the server was heard of, which allows nothing', async () => {
    await using rig = await startAgent({ run: false })
    expect(rig.agent.status().policyVersion).toBe('')
  })

  test('come with the facts that they select on, and again after each change', async () => {
    await using rig = await startAgent()
    const entry = rig.server.add('/web', ['test:name:web'])
    rig.server.policySets.set({ version: 'v1', documents: [allow] })
    await rig.clock.advance(seconds(5))
    const { policies } = await rig.identify(fakeProcess('test:name:web', 'test:zone:a'))
    expect(policies.current).toMatchObject({ documents: [allow], spiffeIds: ['spiffe://example.org/web'] })
    expect(policies.current.selectors.map(formatSelector)).toEqual(['test:name:web', 'test:zone:a'])
    expect(policies.current).toBe(policies.current)

    const told: [string, number, number][] = []
    const stop = new AbortController()
    const watching = (async () => {
      for await (const one of policies.changes(stop.signal))
        told.push([one.version.split('+')[0]!, one.documents.length, one.spiffeIds.length])
    })()
    await until(() => told.length === 1)
    rig.server.policySets.set({ version: 'v2', documents: [] })
    await until(() => told.length === 2)
    rig.server.remove(entry.id)
    await rig.clock.advance(seconds(5))
    await until(() => told.length === 3)
    await rig.clock.advance(minutes(1))
    stop.abort()
    await watching
    expect(told).toEqual([
      ['v1', 1, 1],
      ['v2', 0, 1],
      ['v2', 0, 0],
    ])
  })

  test('have another version for another workload, and the same for the same', async () => {
    await using rig = await startAgent()
    await rig.clock.advance(seconds(5))
    const versions = await Promise.all(
      ['test:name:a', 'test:name:b', 'test:name:a'].map(async (one) => (await rig.identify(fakeProcess(one))).policies.current.version),
    )
    expect(versions[0]).toBe(versions[2])
    expect(versions[0]).not.toBe(versions[1])
  })

  test('stay in force while the stream is broken, and the stream is taken up again', async () => {
    await using rig = await startAgent()
    rig.server.policySets.set({ version: 'v1', documents: [allow] })
    await rig.clock.advance(seconds(5))
    rig.server.away = true
    rig.server.policySets.set({ version: 'v2', documents: [] })
    await rig.clock.advance(minutes(1))
    expect(rig.agent.status().policyVersion).toBe('v1')
    rig.server.away = false
    await rig.clock.advance(minutes(1))
    await until(() => rig.agent.status().policyVersion === 'v2')
  })

  test('are enforced after a restart without the server', async () => {
    await using rig = await startAgent()
    rig.server.policySets.set({ version: 'v7', documents: [allow] })
    const path = join(rig.directory, 'data', 'policies.json')
    await until(() => existsSync(path) && readFileSync(path, 'utf8').includes('v7'))
    await rig.stop()
    rig.server.away = true
    await using again = await startAgent({ server: rig.server, directory: rig.directory })
    expect(again.agent.status().policyVersion).toBe('v7')
  })

  test.each(['', '{', '[]', '{"version":1,"documents":[]}', '{"version":"x","documents":[{"name":"a"}]}'])(
    'that were damaged on disk (`%s`) are none',
    async (content) => {
      const clock = new FakeClock()
      const server = await FakeUpstreamServer.start({ clock })
      await using rig = await startAgent({ server })
      await rig.stop()
      mkdirSync(join(rig.directory, 'data'), { recursive: true })
      writeFileSync(join(rig.directory, 'data', 'policies.json'), content)
      await using again = await startAgent({ server, directory: rig.directory, run: false })
      expect(again.agent.status().policyVersion).toBe('')
    },
  )
})

describe('policies that must be signed', () => {
  const signer = generateKeyPairSync('ed25519')
  const documents = [allow]
  const policySigners = [signer.publicKey]
  const signed = async (serial: number, version = `v${serial}`) => ({
    version,
    documents,
    signature: await signPolicySet({ documents, options: {} }, { serial, expires: hours(10_000_000) }, signer.privateKey),
  })

  test('are enforced if they are, and the agent says of others why it refuses them', async () => {
    await using rig = await startAgent({ policySigners })
    await until(() => rig.meter.of(agentMetrics.policies, { outcome: 'refused' }) === 1)
    rig.server.policySets.set(await signed(2))
    await until(() => rig.agent.status().policyVersion === 'v2')
    expect(rig.agent.status().reasons).not.toContainEqual(expect.stringContaining('refused'))
    rig.server.policySets.set({ version: 'v3', documents })
    await until(() => rig.agent.status().reasons.some((reason) => reason.includes('not signed')))
    rig.server.policySets.set(await signed(1))
    await until(() => rig.agent.status().reasons.some((reason) => reason.includes('serial 1')))
    expect(rig.agent.status().policyVersion).toBe('v2')
    rig.server.policySets.set(await signed(4))
    await until(() => rig.agent.status().policyVersion === 'v4')
    expect(rig.agent.status().reasons).not.toContainEqual(expect.stringContaining('refused'))
    expect(rig.meter.of(agentMetrics.policies, { outcome: 'applied' })).toBe(2)
    expect(rig.meter.of(agentMetrics.policies, { outcome: 'refused' })).toBe(3)
  })

  test('are not put back to an older serial by a restart', async () => {
    await using rig = await startAgent({ policySigners })
    rig.server.policySets.set(await signed(5))
    const path = join(rig.directory, 'data', 'policies.json')
    await until(() => existsSync(path) && readFileSync(path, 'utf8').includes('v5'))
    await rig.stop()
    rig.server.policySets.set(await signed(4))
    await using again = await startAgent({ server: rig.server, directory: rig.directory, policySigners })
    await until(() => again.agent.status().reasons.some((reason) => reason.includes('serial 4')))
    expect(again.agent.status().policyVersion).toBe('v5')
  })

  test('and were kept on disk without a signature are none', async () => {
    await using rig = await startAgent()
    rig.server.policySets.set({ version: 'v1', documents })
    const path = join(rig.directory, 'data', 'policies.json')
    await until(() => existsSync(path) && readFileSync(path, 'utf8').includes('v1'))
    await rig.stop()
    await using again = await startAgent({ server: rig.server, directory: rig.directory, policySigners, run: false })
    expect(again.agent.status().policyVersion).toBe('')
  })
})

test('a rejection on the policy stream ends the agent too', async () => {
  await using rig = await startAgent()
  await rig.clock.advance(seconds(1))
  rig.server.rejection = 'server.agent-banned'
  rig.server.policySets.set({ version: 'v9', documents: [] })
  expect(await rig.ended).toMatchObject({ reason: 'agent.rejected' })
})
