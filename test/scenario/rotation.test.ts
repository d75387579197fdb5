import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { banNode, deleteNode } from '../../src/server/manage-nodes.ts'
import { demandMutualTrust, operator, until, World } from './world.ts'

/** An hour of CA, ten minutes of everything else. */
const profile = { ca: { lifetime: hours(1) }, svid: { x509: minutes(10), agent: minutes(10), server: minutes(10) } }

/** Two workloads of two agents, which hold their identities when this resolves. */
async function twoWorkloads(world: World) {
  const [left, right] = [await world.agent('left'), await world.agent('right')]
  await world.create(left.id, '/web', ['test:name:web'])
  await world.create(right.id, '/db', ['test:name:db'])
  await world.pass(world.syncInterval)
  return { left, right, workloads: [await left.workload('test:name:web'), await right.workload('test:name:db')] as const }
}

describe('while the CA rotates', () => {
  test('Q-4 twice, agents renew and workloads accept each other at every moment', async () => {
    await using world = await World.open({ profile, syncInterval: seconds(30) })
    const { left, workloads } = await twoWorkloads(world)
    const [web] = workloads
    const [leaves, authorities] = [new Set<string>(), new Set<string>()]
    const agentSerials = new Set<string>()
    await world.pass(hours(2), () => {
      demandMutualTrust(world, ...workloads)
      expect(web.identity().chain[0]!.notAfter, 'more than a quarter of the lifetime is left').toBeGreaterThan(
        world.clock.now() + minutes(2.5),
      )
      leaves.add(web.identity().chain[0]!.serial)
      for (const authority of world.ca.bundle.current.x509Authorities) authorities.add(authority.certificate.serial)
      agentSerials.add(String(left.agent.status().svidExpiresAt))
    })
    expect(authorities.size, 'authorities').toBeGreaterThanOrEqual(3)
    expect(leaves.size, 'SVIDs of one workload').toBeGreaterThanOrEqual(15)
    expect(agentSerials.size, 'SVIDs of one agent').toBeGreaterThanOrEqual(15)
    expect(await world.server.nodes.count({ frozen: true }), 'C-29 agents taken for copies').toBe(0)
    expect(world.ca.bundle.current.x509Authorities.length, 'old authorities leave the bundle').toBeLessThanOrEqual(4)
  })

  test('and whoever stands above it is away: the CA in use goes on signing, complains, and rotates when it can', async () => {
    await using world = await World.open({ profile, syncInterval: seconds(30) })
    const { workloads } = await twoWorkloads(world)
    const first = world.ca.bundle.current.x509Authorities.map(({ certificate }) => certificate.serial)
    await world.pass(minutes(29), () => demandMutualTrust(world, ...workloads))
    world.upstreamIsAway = true
    await world.pass(minutes(20), () => demandMutualTrust(world, ...workloads))
    expect(world.ca.bundle.current.x509Authorities.map(({ certificate }) => certificate.serial)).toEqual(first)
    expect(world.ca.complaints().join()).toContain('the upstream authority does not answer')
    world.upstreamIsAway = false
    await world.pass(minutes(30), () => demandMutualTrust(world, ...workloads))
    expect(world.ca.complaints()).toEqual([])
    expect(world.ca.bundle.current.x509Authorities.some(({ certificate }) => !first.includes(certificate.serial))).toBe(true)
  })

  test('with the shortest lifetimes that the configuration takes, nobody is left without a valid SVID', async () => {
    await using world = await World.open({
      profile: { ca: { lifetime: seconds(60) }, svid: { x509: seconds(10), agent: seconds(20), server: seconds(20) } },
      syncInterval: seconds(1),
    })
    const { workloads } = await twoWorkloads(world)
    const authorities = new Set<string>()
    await world.pass(minutes(3), () => {
      demandMutualTrust(world, ...workloads)
      for (const { certificate } of world.ca.bundle.current.x509Authorities) authorities.add(certificate.serial)
    })
    expect(authorities.size).toBeGreaterThanOrEqual(3)
  })
})

describe('a forced rotation', () => {
  test('C-28 Q-4 every SVID under a tainted authority is replaced at the next sync, and its end then strands nobody', async () => {
    await using world = await World.open({ syncInterval: seconds(5) })
    const { left, workloads } = await twoWorkloads(world)
    const { authorities } = world.ca
    const by = { caller: 'test' }
    const first = authorities.state('x509').active!
    const [before, agentBefore] = [workloads.map((one) => one.identity().chain[0]!.serial), left.agent.status().svidExpiresAt]
    const prepared = await authorities.prepare('x509', by, new AbortController().signal)
    await world.pass(seconds(10), () => demandMutualTrust(world, ...workloads))
    await authorities.activate('x509', prepared.id, by)
    await world.pass(seconds(10), () => demandMutualTrust(world, ...workloads))
    expect(workloads.map((one) => one.identity().chain[0]!.serial)).toEqual(before)
    await authorities.taint('x509', first.id, by)
    await world.pass(seconds(15), () => demandMutualTrust(world, ...workloads))
    for (const [place, one] of workloads.entries()) expect(one.identity().chain[0]!.serial).not.toBe(before[place])
    expect(left.agent.status().svidExpiresAt).not.toBe(agentBefore)
    await authorities.revoke('x509', first.id, by, new AbortController().signal)
    await world.pass(minutes(2), () => demandMutualTrust(world, ...workloads))
    expect(world.ca.bundle.current.x509Authorities).toHaveLength(1)
  })
})

describe('a forced rotation of the keys of tokens', () => {
  const never = new AbortController().signal
  const by = { caller: 'test' }
  const keyOf = (token: string) => (JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()) as { kid: string }).kid

  /** A workload with its whole API, and the steps of a rotation, each with a sync of the agent behind it. */
  async function rotating(kind: 'jwt' | 'wit') {
    const world = await World.open({ syncInterval: seconds(5), witSvid: true, profile: { svid: { jwt: minutes(30) } } })
    const agent = await world.agent('one')
    await world.create(agent.id, '/web', ['test:name:web'])
    await world.pass(world.syncInterval)
    const { authorities } = world.ca
    const first = authorities.state(kind).active!.id
    const { id: next } = await authorities.prepare(kind, by, never)
    await world.pass(world.syncInterval)
    const step = (deed: () => Promise<unknown>) => async () => {
      await deed()
      await world.pass(seconds(10))
    }
    return {
      world,
      first,
      next,
      api: agent.api('test:name:web'),
      activate: step(() => authorities.activate(kind, next, by)),
      taint: step(() => authorities.taint(kind, first, by)),
      revoke: step(() => authorities.revoke(kind, first, by, never)),
      [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
    }
  }

  test('C-28 a WIT-SVID under a tainted key is replaced in its stream at the next sync, once, and the end of the key strands nobody', async () => {
    await using at = await rotating('wit')
    const { world, first, next, api } = at
    const seen: string[] = []
    const stop = new AbortController()
    const watching = (async () => {
      for await (const [svid] of api.watchWit(undefined, stop.signal)) seen.push(keyOf(svid!.token))
    })().catch(() => {})
    await until(() => seen.length === 1, 'a token')
    await at.activate()
    expect(seen, 'what was signed before is good').toEqual([first])
    await at.taint()
    await until(() => seen.length === 2, 'another token')
    await at.revoke()
    await world.pass(minutes(1))
    expect(seen).toEqual([first, next])
    expect(world.ca.bundle.current.witAuthorities.map(({ keyId }) => keyId)).toEqual([next])
    stop.abort()
    await watching
  })

  test('C-28 a JWT-SVID under a tainted key is no longer handed out, and is refused when the key is revoked', async () => {
    await using at = await rotating('jwt')
    const { first, next, api } = at
    const fetched = async () => (await api.fetchJwt(['db'], undefined, never))[0]!.token
    const before = await fetched()
    expect(keyOf(before)).toBe(first)
    await at.activate()
    expect(await fetched(), 'out of the cache').toBe(before)
    expect((await api.validateJwt('db', before, never)).spiffeId).toBe('spiffe://example.org/web')
    await at.taint()
    const after = await fetched()
    expect(keyOf(after)).toBe(next)
    await at.revoke()
    expect((await api.validateJwt('db', after, never)).spiffeId).toBe('spiffe://example.org/web')
    await expect(api.validateJwt('db', before, never)).rejects.toMatchObject({ category: 'invalid_argument' })
  })
})

describe('an operator who bans or evicts', () => {
  // The agent would ask for entries a minute later: what ends it is its open stream.
  test.each([
    ['bans', banNode],
    ['evicts', deleteNode],
  ] as const)('C-28 %s an agent: within five seconds nothing is renewed and the agent serves nobody', async (_, end) => {
    await using world = await World.open({ syncInterval: minutes(1) })
    const { left, workloads } = await twoWorkloads(world)
    const issued = () => world.server.nodes.find(left.id)
    let hasEnded = false
    void left.ended.then(() => (hasEnded = true))
    await end(world.server, left.id, operator)
    const began = world.clock.now()
    await world.passUntil(() => hasEnded && workloads[0].context.current === undefined, seconds(5), 'the agent ends')
    expect(world.clock.now() - began).toBeLessThan(seconds(5))
    expect(await left.ended).toMatchObject({ reason: 'agent.rejected' })
    expect((await issued())?.pending ?? []).toEqual([])
    await world.pass(minutes(2), () => demandMutualTrust(world, workloads[1]))
  })
})

describe('a copy of what an agent keeps on its disk', () => {
  const short = { svid: { x509: minutes(10), agent: minutes(10), server: minutes(10) } }

  test('C-29 is found when both have renewed: neither is served any more, until an operator releases or evicts the agent', async () => {
    await using world = await World.open({ profile: short })
    const original = await world.agent('one')
    await world.pass(seconds(10))
    cpSync(join(world.directory, 'one'), join(world.directory, 'copy'), { recursive: true })
    const copy = await world.agent('copy', { token: false })
    expect(copy.id).toBe(original.id)
    const ended: string[] = []
    void original.ended.then(() => ended.push('original'))
    void copy.ended.then(() => ended.push('copy'))
    await world.pass(minutes(4))
    expect(ended, 'before the first renewal nothing tells them apart').toEqual([])
    await world.passUntil(() => ended.length === 2, minutes(3), 'both end')
    for (const one of [original, copy]) expect(await one.ended).toMatchObject({ cause: { reason: 'server.agent-cloned' } })
    expect((await world.server.nodes.find(original.id))?.frozen).toBeDefined()
    expect(world.log.lines.join('\n')).toContain('two parties hold the identity of an agent')
  })

  test('C-29 is not what an agent is that starts again, renews, and loses its connection all the time', async () => {
    await using world = await World.open({ profile: short })
    let agent = await world.agent('one')
    for (let round = 0; round < 4; round++) {
      await world.pass(minutes(4))
      await agent[Symbol.asyncDispose]()
      agent = await world.agent('one', { token: false })
      await world.pass(minutes(4))
      await world.stopServer()
      await world.pass(seconds(10))
      await world.startServer()
    }
    await world.passUntil(() => agent.agent.status().ready, minutes(2), 'the agent is well again')
    expect(await world.server.nodes.count({ frozen: true })).toBe(0)
  })
})

describe('while the server is away', () => {
  test('Q-13 shorter than the SVIDs have left, workloads notice nothing, and get new SVIDs when it is back', async () => {
    await using world = await World.open({
      profile: { svid: { x509: hours(1), agent: hours(1), server: hours(1) } },
      syncInterval: seconds(30),
    })
    const { workloads } = await twoWorkloads(world)
    const [web] = workloads
    const before = web.identity().chain[0]!.serial
    await world.pass(minutes(20), () => demandMutualTrust(world, ...workloads))
    await world.stopServer()
    // Well past half life: renewals are due and fail all the time.
    await world.pass(minutes(33), () => demandMutualTrust(world, ...workloads))
    expect(web.identity().chain[0]!.serial).toBe(before)
    await world.startServer()
    await world.passUntil(() => web.identity().chain[0]!.serial !== before, minutes(5), 'a new SVID')
    demandMutualTrust(world, ...workloads)
    expect(web.identity().chain[0]!.notAfter).toBeGreaterThan(world.clock.now() + minutes(50))
  })

  test('a workload that was not there before gets what its agent holds', async () => {
    await using world = await World.open()
    const { left } = await twoWorkloads(world)
    await world.stopServer()
    const late = await left.workload('test:name:web')
    demandMutualTrust(world, late)
  })

  test('longer than the agent lives, the agent ends and says what to do, and its workloads are told that they hold nothing', async () => {
    await using world = await World.open({
      profile: { svid: { x509: minutes(10), agent: minutes(10), server: minutes(10) } },
      syncInterval: seconds(30),
    })
    const { left, workloads } = await twoWorkloads(world)
    await world.stopServer()
    await world.pass(minutes(11))
    expect(await left.ended).toMatchObject({ reason: 'agent.rejected', message: expect.stringContaining('join again') as string })
    await until(() => workloads[0].context.current === undefined, 'the workload is told')
  })
})
