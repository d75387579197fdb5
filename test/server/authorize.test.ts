import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { auditMetrics } from '../../src/audit/metrics.ts'
import { hours, seconds } from '../../src/kernel/duration.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import { authorize } from '../../src/server/authorize.ts'
import { banNode, deleteNode, releaseNode } from '../../src/server/manage-nodes.ts'
import { renewingAgentOf } from '../../src/server-api/agent-caller.ts'
import { remotePeer, type Peer } from '../../src/server/caller.ts'
import { renewAgent } from '../../src/server/renew-agent.ts'
import type { Server } from '../../src/server/server.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseCertificateRequest, proven } from '../../src/x509/certificate-request.ts'
import { TestCa } from '../support/test-ca.ts'
import { never, newKey, openRig, operator, peerWith, type JoinedAgent, type Rig } from './rig.ts'

const listEntries = '/spire.api.server.entry.v1.Entry/ListEntries'
const sync = '/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries'
const getBundle = '/spire.api.server.bundle.v1.Bundle/GetBundle'

let rig: Rig
let agent: JoinedAgent
beforeEach(async () => {
  rig = await openRig()
  agent = await rig.join()
})
afterEach(() => rig[Symbol.asyncDispose]())

const call = (peer: Peer, method: string, server: Server = rig.server) => authorize(server, { peer, method, subjects: [] })
const nobody: Peer = { kind: 'remote', address: '192.0.2.1' }
const local: Peer = { kind: 'local', uid: 0, pid: 1, gid: 0 }

async function workload(path: string): Promise<Peer> {
  const key = await proven(parseCertificateRequest(await newKey().csr()))
  const svid = await rig.server.ca.issueX509Svid(
    { kind: 'workload', spiffeId: parseSpiffeId(`spiffe://example.org${path}`), key, context: {} },
    never,
  )
  return peerWith(rig.server, svid.chain)
}

describe('a call is refused', () => {
  test.each([nobody, local])('when no policy names its method, from whomever: %j', async (peer) => {
    await expect(call(peer, '/x.Y/Z')).rejects.toMatchObject({ reason: 'server.denied', message: 'authorization denied for method /x.Y/Z' })
  })

  test('to list entries, from somebody without a certificate', async () => {
    await expect(call(nobody, listEntries)).rejects.toMatchObject({ reason: 'server.denied', category: 'permission_denied' })
  })

  test('to list entries, from an agent', async () => {
    await expect(call(agent.peer(), listEntries)).rejects.toMatchObject({ reason: 'server.denied' })
  })

  test('to sync, from the operators socket: it is no agent', async () => {
    await expect(call(local, sync)).rejects.toMatchObject({ reason: 'server.denied' })
  })

  test('to sync, from a workload: it is told that it is no agent', async () => {
    await expect(call(await workload('/web'), sync)).rejects.toMatchObject({ reason: 'server.agent-not-attested' })
  })

  test('to list entries, from a workload: it is told nothing', async () => {
    await expect(call(await workload('/web'), listEntries)).rejects.toMatchObject({ reason: 'server.denied' })
  })

  test('when the certificate is of a CA that is not ours', async () => {
    const foreign = await TestCa.create({ at: rig.clock.now() })
    const { certificate } = await foreign.leaf({ uris: [agent.node.id] })
    const peer = remotePeer(rig.server, [certificate.raw], 'x')
    expect(peer.identity).toBeUndefined()
    await expect(call(peer, getBundle)).rejects.toMatchObject({ reason: 'server.peer-untrusted', category: 'unauthenticated' })
  })

  test('R-5 when the certificate is of another trust domain', async () => {
    const foreign = await TestCa.create({ at: rig.clock.now(), trustDomain: 'other.org' })
    const { certificate } = await foreign.leaf()
    await expect(call(remotePeer(rig.server, [certificate.raw], 'x'), getBundle)).rejects.toMatchObject({ reason: 'server.peer-untrusted' })
  })

  test('R-42 when the certificate is no certificate', async () => {
    await expect(call(remotePeer(rig.server, [Buffer.from('junk')], 'x'), getBundle)).rejects.toMatchObject({
      reason: 'server.peer-untrusted',
    })
  })

  test('when the certificate expired before the connection was made', async () => {
    await rig.clock.advance(hours(2))
    await expect(call(agent.peer(), sync)).rejects.toMatchObject({ reason: 'server.agent-expired', category: 'permission_denied' })
  })

  test('when the certificate expired since the connection was made', async () => {
    const peer = agent.peer()
    await rig.clock.advance(hours(2))
    await expect(call(peer, sync)).rejects.toMatchObject({ reason: 'server.agent-expired' })
  })

  test('R-16 when the authority left the bundle since the connection was made', async () => {
    const peer = agent.peer()
    const empty = new WatchedValue({ ...rig.server.ca.bundle.current, x509Authorities: [] })
    const without = Object.create(rig.server.ca, { bundle: { value: empty } }) as Server['ca']
    await expect(call(peer, sync, { ...rig.server, ca: without })).rejects.toMatchObject({ reason: 'server.peer-untrusted' })
  })

  test('Q-12 when the node was banned', async () => {
    await banNode(rig.server, agent.node.id, operator)
    await expect(call(agent.peer(), sync)).rejects.toMatchObject({ reason: 'server.agent-banned' })
  })

  test('when the node was deleted', async () => {
    await deleteNode(rig.server, agent.node.id, operator)
    await expect(call(agent.peer(), sync)).rejects.toMatchObject({ reason: 'server.agent-not-attested' })
  })

  test('and the trail says so, unless it came from a stranger', async () => {
    await expect(call(nobody, listEntries)).rejects.toThrow()
    expect(rig.audited()).not.toContain('call.refused')
    await expect(call(agent.peer(), listEntries)).rejects.toThrow()
    expect(rig.audited()).toContain('call.refused')
  })
})

describe('C-29 a copy of an identity', () => {
  /** The agent renewed and went on; whoever has a copy of what was before calls with it half a minute later. */
  async function copied() {
    const next = await renewAgent(rig.server, agent.node, await newKey().csr(), never)
    const now = peerWith(rig.server, next.chain)
    await call(now, sync)
    await rig.clock.advance(seconds(31))
    return { now, next, copy: { ...agent.peer(), address: '198.51.100.9' } }
  }

  test('freezes both: neither the copy nor the agent is accepted, on old connections or new ones', async () => {
    const { now, next, copy } = await copied()
    for (const peer of [copy, now, peerWith(rig.server, next.chain), agent.peer()]) {
      await expect(call(peer, sync)).rejects.toMatchObject({ reason: 'server.agent-cloned', category: 'permission_denied' })
    }
  })

  test('is written down and counted once, with both serials and addresses', async () => {
    const { next, copy } = await copied()
    const { serial } = agent.node
    await Promise.allSettled([call(copy, sync), call(copy, sync), call(agent.peer(), sync)])
    expect(rig.audited().filter((what) => what === 'node.clone-detected')).toHaveLength(1)
    expect(rig.meter.of(auditMetrics.events, { event: 'node.clone-detected' })).toBe(1)
    expect((await rig.store.nodes.find(agent.node.id))?.frozen).toEqual({
      at: rig.clock.now(),
      superseded: { serial, address: copy.address },
      successor: { serial: next.serial, address: '192.0.2.7' },
    })
  })

  test('shows at any call, those that anybody may make included', async () => {
    const { copy, now } = await copied()
    expect(await call(copy, getBundle)).toMatchObject({ kind: 'anyone' })
    await expect(call(now, sync)).rejects.toMatchObject({ reason: 'server.agent-cloned' })
  })

  test('shows to the agent when it was the copy that renewed', async () => {
    const { copy, now } = await copied()
    await expect(call({ ...copy, address: '192.0.2.7' }, sync)).rejects.toMatchObject({ reason: 'server.agent-cloned' })
    await expect(call(now, sync)).rejects.toMatchObject({ reason: 'server.agent-cloned' })
  })

  test('keeps no role that an entry or the configuration gives', async () => {
    const { copy } = await copied()
    const server = { ...rig.server, adminIds: new Set([agent.node.id]) }
    await expect(call(copy, listEntries, server)).rejects.toMatchObject({ reason: 'server.denied' })
  })

  test('is frozen also when the trail cannot take it', async () => {
    const { copy, now } = await copied()
    rig.breakAudit()
    await expect(call(copy, sync)).rejects.toThrow()
    expect((await rig.store.nodes.find(agent.node.id))?.frozen).toBeDefined()
    await expect(call(now, sync)).rejects.toThrow()
  })

  test('is not what a call within half a minute shows, which goes on as one that may not renew', async () => {
    const next = await renewAgent(rig.server, agent.node, await newKey().csr(), never)
    await call(peerWith(rig.server, next.chain), sync)
    await rig.clock.advance(seconds(30))
    const caller = await call(agent.peer(), sync)
    expect(caller).toMatchObject({ kind: 'agent', isSuperseded: true })
    expect(() => renewingAgentOf(caller)).toThrow(expect.objectContaining({ reason: 'server.agent-superseded', category: 'unavailable' }))
    expect(renewingAgentOf(await call(peerWith(rig.server, next.chain), sync)).serial).toBe(next.serial)
  })

  test('is not what a stream shows that was left behind: it ends, and who has no other certificate calls again', async () => {
    const { copy, now } = await copied()
    const leftBehind = authorize(rig.server, { peer: copy, method: sync, subjects: [], isUnderWay: true })
    await expect(leftBehind).rejects.toMatchObject({ reason: 'server.agent-superseded', category: 'unavailable' })
    expect(await call(now, sync)).toMatchObject({ kind: 'agent' })
    expect(rig.audited()).not.toContain('node.clone-detected')
  })

  test('may attest again when an operator released it, by a certificate of neither', async () => {
    const { copy, now } = await copied()
    await expect(call(copy, sync)).rejects.toThrow()
    await releaseNode(rig.server, agent.node.id, operator)
    for (const peer of [copy, now]) await expect(call(peer, sync)).rejects.toMatchObject({ reason: 'server.agent-not-active' })
    expect(rig.audited()).toContain('node.released')
    await expect(releaseNode(rig.server, agent.node.id, operator)).rejects.toMatchObject({ reason: 'node.not-frozen' })
  })
})

describe('a call goes on', () => {
  test('from the operators socket, to list entries', async () => {
    expect(await call(local, listEntries)).toEqual(local)
  })

  test('from anybody, to get the bundle', async () => {
    expect(await call(nobody, getBundle)).toEqual({ kind: 'anyone', address: '192.0.2.1' })
    await banNode(rig.server, agent.node.id, operator)
    expect(await call(agent.peer(), getBundle)).toMatchObject({ kind: 'anyone' })
  })

  test('from an agent, to sync', async () => {
    expect(await call(agent.peer(), sync)).toEqual({ kind: 'agent', address: '192.0.2.7', node: agent.node, isSuperseded: false })
  })

  test('Q-5 from an agent with either certificate after a renewal, until the new one is used', async () => {
    const next = await renewAgent(rig.server, agent.node, await newKey().csr(), never)
    expect(await call(agent.peer(), sync)).toMatchObject({ kind: 'agent', node: { serial: agent.node.serial } })
    expect(await call(peerWith(rig.server, next.chain), sync)).toMatchObject({ kind: 'agent', node: { serial: next.serial } })
    expect(await rig.store.nodes.find(agent.node.id)).toMatchObject({ serial: next.serial, expiresAt: next.notAfter })
  })

  test('from a workload that the configuration names as administrator, and from no other', async () => {
    const server = { ...rig.server, adminIds: new Set([parseSpiffeId('spiffe://example.org/boss')]) }
    expect(await call(await workload('/boss'), listEntries, server)).toMatchObject({ kind: 'admin' })
    await expect(call(await workload('/boss/x'), listEntries, server)).rejects.toMatchObject({ reason: 'server.denied' })
  })

  test('from a workload with an admin entry, for as long as the entry lasts', async () => {
    const made = await rig.give(agent, { spiffeId: 'spiffe://example.org/boss', admin: true })
    const peer = await workload('/boss')
    expect(await call(peer, listEntries)).toMatchObject({ kind: 'admin', id: 'spiffe://example.org/boss' })
    await rig.store.entries.remove(made.id)
    await expect(call(peer, listEntries)).rejects.toMatchObject({ reason: 'server.denied' })
  })
})
