import { expect, test } from 'vitest'
import { minutes, seconds } from '../../src/kernel/duration.ts'
import { createEntry } from '../../src/server/manage-entries.ts'
import { idOf, operator, until, World } from './world.ts'

test('Q-9 an entry that is made, changed and removed shows in the stream of its workload within one sync', async () => {
  await using world = await World.open()
  const agent = await world.agent('one')
  const first = await world.create(agent.id, '/web', ['test:name:web'])
  await world.pass(world.syncInterval)
  const web = await agent.workload('test:name:web')
  const held = () => web.context.current?.identities.map(({ spiffeId, hint }) => `${spiffeId} ${hint}`.trim()) ?? []
  expect(held()).toEqual([idOf('/web')])

  const second = await world.create(agent.id, '/web-too', ['test:name:web'], { hint: 'second' })
  await world.pass(world.syncInterval)
  await until(() => held().length === 2, 'the second identity')
  expect(held()).toEqual([idOf('/web'), `${idOf('/web-too')} second`])

  const serial = web.identity().chain[0]!.serial
  await world.update(first, { x509SvidTtl: minutes(20), dnsNames: ['web.test'], hint: 'first' })
  await world.pass(world.syncInterval)
  await until(() => web.identity().hint === 'first' && web.identity().chain[0]!.serial !== serial, 'the changed entry')
  expect(web.identity().chain[0]!.notAfter).toBeLessThanOrEqual(world.clock.now() + minutes(20))

  await world.update(first, { spiffeId: idOf('/renamed') })
  await world.pass(world.syncInterval)
  await until(() => held().includes(idOf('/renamed')) || held().includes(`${idOf('/renamed')} first`), 'the new name')
  expect(held().some((one) => one.startsWith(`${idOf('/web')} `) || one === idOf('/web'))).toBe(false)

  await world.remove(first)
  await world.pass(world.syncInterval)
  await until(() => held().length === 1, 'one identity left')
  await world.remove(second)
  await world.pass(world.syncInterval)
  await until(() => web.context.current === undefined, 'no identity left')
  expect(() => web.identity()).toThrow(expect.objectContaining({ reason: 'workload-client.no-identity' }) as Error)
})

test('Q-9 what an entry adds to its SVIDs, and adds no more, reaches its workload within one sync', async () => {
  const profile = { svid: { additions: { subject: ['organizationalUnit'], claims: ['tier'] } } } as const
  await using world = await World.open({ profile })
  const agent = await world.agent('one')
  const id = await world.create(agent.id, '/web', ['test:name:web'])
  await world.pass(world.syncInterval)
  const web = await agent.workload('test:name:web')
  const subject = () => web.identity().chain[0]!.subject.text
  expect(subject()).toBe('O=Vidimus')

  await world.update(id, { subject: { organizationalUnit: 'Storage' }, claims: { tier: 'gold' } })
  await world.pass(world.syncInterval)
  await until(() => subject() === 'OU=Storage,O=Vidimus', 'the subject that the entry adds')

  await world.update(id, { subject: undefined, claims: undefined })
  await world.pass(world.syncInterval)
  await until(() => subject() === 'O=Vidimus', 'the usual subject')
})

test('an entry for another agent, or for selectors that only partly hold, gives nothing', async () => {
  await using world = await World.open()
  const [one, two] = [await world.agent('one'), await world.agent('two')]
  await world.create(two.id, '/of-the-other', ['test:name:web'])
  await world.create(one.id, '/of-both', ['test:name:web', 'test:signed:yes'])
  await world.create(one.id, '/mine', ['test:name:web'])
  await world.pass(world.syncInterval)
  const web = await one.workload('test:name:web')
  expect(web.context.current?.identities.map(({ spiffeId }) => spiffeId)).toEqual([idOf('/mine')])
  await expect(one.refusal('test:name:nobody')).rejects.toMatchObject({ message: expect.stringContaining('no identity issued') as string })
})

test('R-11 an entry without selectors is refused, and so is one of another trust domain', async () => {
  await using world = await World.open()
  const agent = await world.agent('one')
  await expect(world.create(agent.id, '/web', [])).rejects.toMatchObject({ category: 'invalid_argument' })
  const foreign = {
    ...(await world.create(agent.id, '/x', ['test:a:b'])),
    id: 'other',
    spiffeId: 'spiffe://other.test/web' as ReturnType<typeof idOf>,
  }
  await expect(createEntry(world.server, foreign, operator)).rejects.toMatchObject({ category: 'invalid_argument' })
})

test('an entry that expires ends its identity at its time, also while the server is away', async () => {
  await using world = await World.open()
  const agent = await world.agent('one')
  await world.create(agent.id, '/web', ['test:name:web'], { expiresAt: world.clock.now() + minutes(2) })
  await world.pass(world.syncInterval)
  const web = await agent.workload('test:name:web')
  await world.stopServer()
  await world.pass(minutes(2))
  await world.passUntil(() => web.context.current === undefined, seconds(15), 'the identity ended')
})
