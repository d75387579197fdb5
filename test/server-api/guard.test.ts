import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { seconds } from '../../src/kernel/duration.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import { clientOf } from '../../src/rpc/client.ts'
import { PolicyAdministration, PolicyDistribution } from '../../src/rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { AmendedEntries } from '../../src/rpc/gen/vidimus/api/entry/v1/entry_pb.ts'
import { Entry } from '../../src/rpc/gen/spire/api/server/entry/v1/entry_pb.ts'
import { connectInMemory } from '../../src/rpc/in-memory.ts'
import { pathOf } from '../../src/rpc/handler.ts'
import { privateServerApi } from '../../src/server-api/services.ts'
import { banNode } from '../../src/server/manage-nodes.ts'
import { Policies } from '../../src/server/policies.ts'
import { toEntry } from '../../src/server-api/messages.ts'
import { openRig, operator, type Rig } from '../server/rig.ts'
import { entry } from '../store/sample.ts'
import { channelAs, local } from './rig.ts'

let rig: Rig
beforeEach(async () => {
  rig = await openRig()
})
afterEach(() => rig[Symbol.asyncDispose]())

test('product 2: without policies every method of every service is refused, to operators and agents alike', async () => {
  const agent = await rig.join()
  const server = { ...rig.server, policies: await Policies.open(rig.store.policies, []) }
  const services = privateServerApi(server, new WatchedValue({ serving: true, complaints: [] }))
  const methods = services.flatMap(({ service }) => service.methods)
  expect(methods.length).toBeGreaterThan(20)
  for (const peer of [local, agent.peer()]) {
    await using channel = connectInMemory({ services, peer, log: silentLog })
    for (const method of methods) {
      const call = channel.start(method, {})
      await call.send(new Uint8Array())
      call.end()
      await expect(call.responses.next(), pathOf(method)).rejects.toMatchObject({
        category: 'permission_denied',
        message: `authorization denied for method ${pathOf(method)}`,
      })
    }
  }
})

describe('a stream', () => {
  test('Q-12 ends when its agent is banned', async () => {
    const agent = await rig.join()
    const stream = clientOf(PolicyDistribution, channelAs(agent.peer(), rig.server)).watchPolicies({})
    expect((await stream.next()).value).toMatchObject({ documents: [] })
    await banNode(rig.server, agent.node.id, operator)
    const ended = expect(stream.next()).rejects.toMatchObject({ category: 'permission_denied', message: 'agent is banned' })
    await rig.clock.advance(seconds(5))
    await ended
  })

  test('goes on while its agent is welcome, and tells of every change of policies', async () => {
    const agent = await rig.join()
    const stream = clientOf(PolicyDistribution, channelAs(agent.peer(), rig.server)).watchPolicies({})
    const before = (await stream.next()).value!
    await rig.clock.advance(seconds(30))
    await clientOf(PolicyAdministration, channelAs(local, rig.server)).applyPolicies({ documents: [{ name: 'a.yaml', text: anyPolicy }] })
    const after = (await stream.next()).value!
    expect(after).toMatchObject({
      documents: [{ name: 'a.yaml', text: anyPolicy }],
      appliedAt: { seconds: BigInt(rig.clock.now() / 1000) },
    })
    expect(after.version).not.toBe(before.version)
    await stream.return()
  })
})

describe('policies of the security team about our own API', () => {
  const forbidAdmins = `apiVersion: vidimus.dev/v1
kind: AuthorizationPolicy
metadata: { name: no-admins }
spec:
  target: serverApi
  action: DENY
  rules:
    - to: [{ operation: { paths: [/spire.api.server.entry.v1.Entry/BatchCreateEntry, /spire.api.server.entry.v1.Entry/BatchUpdateEntry] } }]
      when: [{ key: entry.admin, values: ["true"] }]
`
  beforeEach(async () => {
    await clientOf(PolicyAdministration, channelAs(local, rig.server)).applyPolicies({
      documents: [{ name: 'own.yaml', text: forbidAdmins }],
    })
  })

  test('refuse a batch in which one entry is forbidden, as a whole', async () => {
    const entries = clientOf(Entry, channelAs(local, rig.server))
    await expect(
      entries.batchCreateEntry({ entries: [toEntry(entry({ id: 'a' })), toEntry(entry({ id: 'b', admin: true, selectors: ['x:1'] }))] }),
    ).rejects.toMatchObject({ category: 'permission_denied' })
    expect(await rig.store.entries.count({})).toBe(0)
    expect((await entries.batchCreateEntry({ entries: [toEntry(entry({ id: 'a' }))] })).results[0]?.status?.code).toBe(0)
  })

  test('about creating and changing entries bind the methods of ours that do more than that', async () => {
    const amended = clientOf(AmendedEntries, channelAs(local, rig.server))
    const boss = { entry: toEntry(entry({ id: 'b', admin: true })) }
    await expect(amended.batchCreateAmended({ entries: [boss] })).rejects.toMatchObject({ category: 'permission_denied' })
    await rig.store.entries.create(entry({ id: 'b' }))
    await expect(amended.batchUpdateAmended({ entries: [boss] })).rejects.toMatchObject({ category: 'permission_denied' })
    expect(
      (await amended.batchUpdateAmended({ entries: [{ entry: toEntry(entry({ id: 'b', hint: 'h' })) }] })).results[0]?.status?.code,
    ).toBe(0)
  })

  test('refuse a change into what is forbidden, and a change of what is, whatever the mask says', async () => {
    const entries = clientOf(Entry, channelAs(local, rig.server))
    await rig.store.entries.create(entry({ id: 'a' }))
    await rig.store.entries.create(entry({ id: 'boss', admin: true, selectors: ['x:1'] }))
    const change = (id: string, admin: boolean, mask: object) =>
      entries.batchUpdateEntry({ entries: [toEntry(entry({ id, admin, hint: 'h' }))], inputMask: mask })
    await expect(change('a', true, { admin: true })).rejects.toMatchObject({ category: 'permission_denied' })
    await expect(change('boss', false, { hint: true })).rejects.toMatchObject({ category: 'permission_denied' })
    expect((await change('a', true, { hint: true })).results[0]).toMatchObject({ status: { code: 0 }, entry: { admin: false, hint: 'h' } })
  })
})

const anyPolicy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: nothing, namespace: default }
spec: {}
`
