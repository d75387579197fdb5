import { afterEach, beforeEach, describe, expect, test } from 'vitest'
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
    expect((await rig.store.nodes.find(agent.node.id))?.pending).toBeUndefined()
  })

  test('R-39 gets nothing by a certificate that is no longer the one in use', async () => {
    await expect(renewAgent(rig.server, { ...agent.node, serial: 'ff' }, await newKey().csr(), never)).rejects.toMatchObject({
      reason: 'server.agent-not-active',
    })
  })

  test('Q-5 may ask again when the answer was lost: the last certificate counts, and the first still does', async () => {
    await renewAgent(rig.server, agent.node, await newKey().csr(), never)
    const second = await renewAgent(rig.server, agent.node, await newKey().csr({ uris: ['spiffe://example.org/other'] }), never)
    expect(second.spiffeId).toBe(agent.node.id)
    expect(await rig.store.nodes.find(agent.node.id)).toMatchObject({ serial: agent.node.serial, pending: { serial: second.serial } })
    expect(rig.audited().filter((what) => what === 'node.renewed')).toHaveLength(2)
  })
})
