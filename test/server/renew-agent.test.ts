import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { frozen, isRenewedTooOften, type AttestedNode } from '../../src/registry/node.ts'
import { banNode } from '../../src/server/manage-nodes.ts'
import { renewAgent } from '../../src/server/renew-agent.ts'
import { forgedCsr, never, newKey, openRig, operator, type JoinedAgent, type Rig } from './rig.ts'

describe('an agent that renews', () => {
  let rig: Rig
  let agent: JoinedAgent
  beforeEach(async () => {
    rig = await openRig()
    agent = await rig.join()
  })
  afterEach(() => rig[Symbol.asyncDispose]())

  test('is told to attest again if its evidence can', async () => {
    await expect(renewAgent(rig.server, { ...agent.node, canReattest: true }, await newKey().csr(), never)).rejects.toMatchObject({
      reason: 'server.agent-must-reattest',
      category: 'permission_denied',
    })
  })

  test('R-4 is refused with a request that its key did not sign', async () => {
    await expect(renewAgent(rig.server, agent.node, await forgedCsr(), never)).rejects.toMatchObject({ reason: 'x509.request-signature' })
  })

  test('gets nothing when it was banned meanwhile', async () => {
    await banNode(rig.server, agent.node.id, operator)
    await expect(renewAgent(rig.server, agent.node, await newKey().csr(), never)).rejects.toMatchObject({
      reason: 'server.agent-not-active',
    })
    expect((await rig.store.nodes.find(agent.node.id))?.pending).toEqual([])
  })

  test('C-29 gets nothing when it was frozen meanwhile', async () => {
    const seen = { serial: agent.node.serial, address: '192.0.2.7' }
    await rig.store.nodes.change(agent.node.id, (node) => frozen(node, { at: 1, superseded: seen, successor: seen }))
    await expect(renewAgent(rig.server, agent.node, await newKey().csr(), never)).rejects.toMatchObject({
      reason: 'server.agent-not-active',
    })
  })

  test('C-29 gets nothing while too many certificates of it are alive: the first is not to be forgotten', async () => {
    const one = { serial: 'ff', expiresAt: rig.clock.now(), since: 1, by: { serial: 'fe', address: '192.0.2.7' } }
    const often: AttestedNode = { ...agent.node, superseded: Array.from({ length: 32 }, () => one) }
    expect(isRenewedTooOften({ ...often, superseded: often.superseded.slice(1) }, rig.clock.now())).toBe(false)
    await expect(renewAgent(rig.server, often, await newKey().csr(), never)).rejects.toMatchObject({
      reason: 'server.agent-renews-too-often',
      category: 'resource_exhausted',
    })
  })

  test('R-39 gets nothing by a certificate that is no longer the one in use', async () => {
    await expect(renewAgent(rig.server, { ...agent.node, serial: 'ff' }, await newKey().csr(), never)).rejects.toMatchObject({
      reason: 'server.agent-not-active',
    })
  })

  test('Q-5 may ask again when the answer was lost: every certificate counts until one of them is used', async () => {
    await renewAgent(rig.server, agent.node, await newKey().csr(), never)
    const second = await renewAgent(rig.server, agent.node, await newKey().csr({ uris: ['spiffe://example.org/other'] }), never)
    expect(second.spiffeId).toBe(agent.node.id)
    expect(await rig.store.nodes.find(agent.node.id)).toMatchObject({ serial: agent.node.serial, pending: [{}, { serial: second.serial }] })
    expect(rig.audited().filter((what) => what === 'node.renewed')).toHaveLength(2)
  })
})
