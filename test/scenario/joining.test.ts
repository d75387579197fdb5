import { describe, expect, test } from 'vitest'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { banNode, deleteNode } from '../../src/server/manage-nodes.ts'
import { demandMutualTrust, operator, until, World } from './world.ts'

const reasonsOf = (outcomes: readonly PromiseSettledResult<unknown>[]) =>
  outcomes.flatMap((one) => (one.status === 'rejected' ? [Failure.from(one.reason).message] : []))

describe('joining', () => {
  test('A-13 of a hundred agents that use one token at once, exactly one is admitted', async () => {
    await using world = await World.open()
    const token = await world.token()
    const outcomes = await Promise.allSettled(Array.from({ length: 100 }, (_, index) => world.agent(`a${index}`, { token })))
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    expect(new Set(reasonsOf(outcomes))).toEqual(new Set([expect.stringMatching(/join token/) as string]))
  }, 60_000)

  test('with an expired or an invented token is refused', async () => {
    await using world = await World.open()
    const token = await world.token()
    await world.pass(minutes(6))
    await expect(world.agent('late', { token })).rejects.toMatchObject({ category: 'permission_denied' })
    await expect(world.agent('bold', { token: 'b7f2c9d4-invented' })).rejects.toMatchObject({ category: 'permission_denied' })
    await expect(world.agent('none', { token: false })).rejects.toMatchObject({ reason: 'agent.no-evidence' })
  })

  test('Q-6 an agent that starts again goes on with the identity it had and needs no token', async () => {
    await using world = await World.open()
    const before = await world.agent('one')
    await world.create(before.id, '/web', ['test:name:web'])
    await before[Symbol.asyncDispose]()
    await world.pass(minutes(10))
    const after = await world.agent('one', { token: false })
    expect(after.id).toBe(before.id)
    await world.pass(world.syncInterval)
    demandMutualTrust(world, await after.workload('test:name:web'))
  })

  test('Q-6 also when the CA rotated meanwhile, twice', async () => {
    await using world = await World.open({
      profile: { ca: { lifetime: hours(1) }, svid: { x509: minutes(30), agent: hours(24), x509Longest: hours(24) } },
      syncInterval: seconds(20),
    })
    const before = await world.agent('one')
    await world.create(before.id, '/web', ['test:name:web'])
    await world.pass(minutes(1))
    await before[Symbol.asyncDispose]()
    await world.pass(minutes(50))
    const after = await world.agent('one', { token: false })
    await world.pass(minutes(1))
    // A first try may have met the bundle of before: the next one needs time to pass.
    let isOpen = false
    const opening = after.workload('test:name:web').finally(() => (isOpen = true))
    await world.passUntil(() => isOpen, minutes(4), 'the workload has its identity')
    demandMutualTrust(world, await opening)
  })
})

describe('an agent that is banned', () => {
  test('Q-12 gets nothing more after the next sync, serves nobody, and says why; its token does not help', async () => {
    await using world = await World.open()
    const [good, bad] = [await world.agent('good'), await world.agent('bad')]
    await world.create(good.id, '/good', ['test:name:web'])
    await world.create(bad.id, '/bad', ['test:name:web'])
    await world.pass(world.syncInterval)
    const [kept, lost] = [await good.workload('test:name:web'), await bad.workload('test:name:web')]
    await banNode(world.server, bad.id, operator)
    await world.pass(world.syncInterval)
    expect(await bad.ended).toMatchObject({ reason: 'agent.rejected', message: expect.stringContaining('banned') as string })
    await until(() => lost.context.current === undefined, 'the workload of the banned agent holds nothing')
    await expect(bad.refusal('test:name:web')).rejects.toBeInstanceOf(Failure)
    demandMutualTrust(world, kept)
    await expect(world.agent('bad', { token: false })).rejects.toMatchObject({ reason: 'agent.no-evidence' })
  })

  test('and one that is evicted ends as well, and may join again with a new token', async () => {
    await using world = await World.open()
    const agent = await world.agent('one')
    await world.pass(world.syncInterval)
    await deleteNode(world.server, agent.id, operator)
    await world.pass(world.syncInterval)
    expect(await agent.ended).toMatchObject({ reason: 'agent.rejected' })
    await agent[Symbol.asyncDispose]()
    const again = await world.agent('one')
    expect(again.id).not.toBe(agent.id)
  })
})
