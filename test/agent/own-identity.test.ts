import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { type Fault, FaultyDisk } from '../fakes/faulty-disk.ts'
import { fakeProcess, type Rig, startAgent, until } from './rig.ts'

const kept = (directory: string) => existsSync(join(directory, 'data', 'agent.json'))

describe('the agent’s own SVID', () => {
  test('is renewed at half life, give or take a tenth, and the new one is used', async () => {
    await using rig = await startAgent({ svidLifetime: hours(1) })
    await rig.clock.advance(minutes(26))
    expect(rig.server.calls.renew).toBe(0)
    await rig.clock.advance(minutes(8))
    await until(() => rig.server.calls.renew === 1)
    const expires = rig.agent.status().svidExpiresAt
    await until(() => rig.agent.status().svidExpiresAt >= expires && rig.server.used.length >= 2)
    expect(new Set(rig.server.used.map((one) => one.chain[0]!.serial)).size).toBe(2)
    expect(rig.server.used.at(-1)!.spiffeId).toBe('spiffe://example.org/spire/agent/join_token/token-1')
  })

  test('is not replaced by one of another agent (R-39)', async () => {
    await using rig = await startAgent()
    rig.server.wishes = { uris: ['spiffe://example.org/spire/agent/join_token/somebody-else'] }
    await rig.clock.advance(minutes(40))
    await untilRenewals(rig, 2)
    expect(rig.agent.status().spiffeId).toBe('spiffe://example.org/spire/agent/join_token/token-1')
    expect(rig.server.used.every((one) => one.spiffeId.endsWith('/token-1'))).toBe(true)
  })

  test('is asked for again while the server is away, and renewed when it is back', async () => {
    await using rig = await startAgent()
    rig.server.away = true
    await rig.clock.advance(minutes(40))
    await untilRenewals(rig, 3)
    rig.server.away = false
    await rig.clock.advance(minutes(2))
    await passing(rig, () => rig.agent.status().svidExpiresAt > rig.clock.now() + minutes(50))
  })

  describe.each<readonly [string, Fault]>([
    ['is full', { code: 'ENOSPC', on: ['write'], arrives: 'half' }],
    ['is read-only', { code: 'EROFS' }],
    ['does not keep what it takes', { code: 'EIO', on: ['sync'] }],
    ['gives no file its name', { code: 'EIO', on: ['rename'] }],
  ])('on a disk that %s', (_, fault) => {
    const complaints = (rig: Rig) => rig.agent.status().reasons.join()
    const serials = (rig: Rig) => new Set(rig.server.used.map((one) => one.chain[0]!.serial)).size
    const complains = (rig: Rig) =>
      complaints(rig).includes('the identity of the agent cannot be kept on disk') && complaints(rig).includes(fault.code)

    test('Q-18 stays in use, with what the workloads have; that is told; it is renewed when the disk is well, by one certificate', async () => {
      const disk = new FaultyDisk()
      await using rig = await startAgent({ files: disk.files })
      rig.server.add('/web', ['test:name:web'])
      await rig.clock.advance(seconds(5))
      const workload = await rig.identify(fakeProcess('test:name:web'))
      disk.fault = fault
      await rig.clock.advance(minutes(40))
      await passing(rig, () => complains(rig))
      expect(rig.agent.status().ready).toBe(true)
      expect(workload.identities.current.identities).toHaveLength(1)
      expect(serials(rig), 'what is not kept is not used').toBe(1)
      disk.fault = undefined
      await passing(rig, () => complaints(rig) === '' && serials(rig) === 2)
      expect(rig.server.calls.renew).toBe(1)
      expect(rig.agent.status().svidExpiresAt).toBeGreaterThan(rig.clock.now() + minutes(30))
      expect(disk.sins).toEqual([])
      await rig.stop()
      await using again = await startAgent({ server: rig.server, directory: rig.directory, prover: undefined, run: false })
      expect(again.agent.status().svidExpiresAt).toBe(rig.agent.status().svidExpiresAt)
    })

    test('Q-18 ends there: the renewed one is used although it is not kept, nobody loses an identity, and it is kept when the disk is well', async () => {
      const disk = new FaultyDisk()
      await using rig = await startAgent({ files: disk.files })
      const first = rig.agent.status().svidExpiresAt
      disk.fault = fault
      await rig.clock.advance(minutes(40))
      await passing(rig, () => complains(rig))
      await rig.clock.advance(first - rig.clock.now() - seconds(70))
      expect(rig.agent.status().svidExpiresAt).toBe(first)
      await passing(rig, () => rig.agent.status().svidExpiresAt > first)
      expect(rig.clock.now(), 'whoever calls with one that has ended is rejected').toBeLessThan(first)
      expect([rig.server.calls.renew, rig.agent.status().ready]).toEqual([1, true])
      expect(complains(rig)).toBe(true)
      disk.fault = undefined
      await passing(rig, () => complaints(rig) === '')
      await rig.stop()
      await using again = await startAgent({ server: rig.server, directory: rig.directory, prover: undefined, run: false })
      expect(again.agent.status().svidExpiresAt).toBe(rig.agent.status().svidExpiresAt)
    })

    test('Q-18 hinders no new authority from reaching workloads, and it is kept when the disk is well', async () => {
      const disk = new FaultyDisk()
      await using rig = await startAgent({ files: disk.files })
      disk.fault = fault
      await rig.server.rotateCa('kept')
      await passing(rig, () => rig.agent.bundle.current.x509Authorities.length === 2)
      expect(complains(rig)).toBe(true)
      disk.fault = undefined
      await passing(rig, () => complaints(rig) === '')
      await rig.stop()
      await using again = await startAgent({ server: rig.server, directory: rig.directory, prover: undefined, run: false })
      expect(again.agent.bundle.current.x509Authorities).toHaveLength(2)
    })

    test('Q-18 is refused by the server: the agent ends as on any disk', async () => {
      const disk = new FaultyDisk()
      await using rig = await startAgent({ files: disk.files })
      disk.fault = { ...fault, on: ['open', 'write', 'sync', 'rename', 'remove'] }
      rig.server.rejection = 'server.agent-banned'
      await rig.clock.advance(seconds(10))
      expect(await rig.ended).toMatchObject({ reason: 'agent.rejected', cause: { reason: 'server.agent-banned' } })
    })
  })

  test('that expired ends the agent, which serves nobody from then on', async () => {
    await using rig = await startAgent()
    rig.server.add('/web', ['test:name:web'])
    await rig.clock.advance(seconds(5))
    const workload = await rig.identify(fakeProcess('test:name:web'))
    expect(workload.identities.current.identities).toHaveLength(1)
    rig.server.away = true
    await rig.clock.advance(hours(2))
    expect(await rig.ended).toMatchObject({ reason: 'agent.rejected', cause: { reason: 'agent.identity-expired' } })
    expect(workload.identities.current.identities).toEqual([])
  })

  test('is renewed at once, and once, when its authority is tainted', async () => {
    await using rig = await startAgent()
    await rig.clock.advance(seconds(1))
    await rig.server.rotateCa('tainted')
    await rig.clock.advance(seconds(5))
    await until(() => rig.server.calls.renew === 1 && rig.server.used.length >= 3)
    await rig.clock.advance(minutes(5))
    expect(rig.server.calls.renew).toBe(1)
  })
})

describe('a server that does not accept the agent any more', () => {
  test.each(['server.agent-banned', 'server.agent-cloned', 'server.agent-not-attested', 'server.agent-expired', 'server.agent-not-active'])(
    'by %s ends it: workloads lose their identities, and the next start proves the node anew',
    async (reason) => {
      await using rig = await startAgent()
      rig.server.add('/web', ['test:name:web'])
      await rig.clock.advance(seconds(5))
      const workload = await rig.identify(fakeProcess('test:name:web'))
      expect(workload.identities.current.identities).toHaveLength(1)
      rig.server.rejection = reason
      await rig.clock.advance(seconds(10))
      expect(await rig.ended).toMatchObject({ category: 'permission_denied', reason: 'agent.rejected', cause: { reason } })
      expect(workload.identities.current.identities).toEqual([])
      expect(kept(rig.directory)).toBe(false)
    },
  )

  test('is attested to again where the evidence allows it, and workloads notice nothing', async () => {
    await using rig = await startAgent({ reattestable: true })
    rig.server.add('/web', ['test:name:web'])
    await rig.clock.advance(seconds(5))
    const workload = await rig.identify(fakeProcess('test:name:web'))
    rig.server.rejection = 'server.agent-must-reattest'
    await rig.clock.advance(seconds(10))
    await until(() => rig.server.calls.attest === 2 && kept(rig.directory))
    expect(workload.identities.current.identities).toHaveLength(1)
  })

  test('is not attested to again after a ban', async () => {
    await using rig = await startAgent({ reattestable: true })
    rig.server.rejection = 'server.agent-banned'
    await rig.clock.advance(seconds(10))
    expect(await rig.ended).toMatchObject({ reason: 'agent.rejected' })
    expect(rig.server.calls.attest).toBe(1)
  })
})

describe('bundles', () => {
  test('an empty one is refused and the old one stays', async () => {
    await using rig = await startAgent()
    await rig.clock.advance(seconds(5))
    Object.defineProperty(rig.server, 'currentBundle', { value: { ...rig.server.currentBundle, x509Authorities: [], sequence: 99n } })
    await rig.clock.advance(seconds(20))
    expect(rig.agent.bundle.current.x509Authorities).toHaveLength(1)
    expect(rig.agent.status().reasons.join()).toContain('without X.509 authorities')
  })

  test('a new one is kept on disk with the identity', async () => {
    await using rig = await startAgent()
    await rig.server.rotateCa('kept')
    await rig.clock.advance(seconds(6))
    await until(() => rig.agent.bundle.current.x509Authorities.length === 2)
    await rig.stop()
    await using again = await startAgent({ server: rig.server, directory: rig.directory, run: false })
    expect(again.agent.bundle.current.x509Authorities).toHaveLength(2)
  })
})

test('Q-6 an agent that is started again and again renews its SVID all the same, well before its end', async () => {
  const first = await startAgent({ svidLifetime: hours(1) })
  const { clock, server, directory } = first
  const before = first.agent.status().svidExpiresAt
  await first.stop()
  let last = before
  for (let start = 0; start < 20 && last === before; start++) {
    await using agent = await startAgent({ server, clock, directory, prover: undefined })
    await clock.advance(minutes(3))
    await until(() => clock.sleepers >= 3)
    last = agent.agent.status().svidExpiresAt
  }
  expect(last).toBeGreaterThan(before)
  expect(before - clock.now(), 'what was left').toBeGreaterThan(minutes(20))
  await first[Symbol.asyncDispose]()
})

/** Keys are made, and files written, in real time: meanwhile the clock goes on in small steps. */
const passing = (rig: Rig, condition: () => boolean): Promise<void> =>
  until(async () => {
    if (!condition()) await rig.clock.advance(seconds(0.1))
    return condition()
  })

const untilRenewals = (rig: Rig, count: number): Promise<void> => passing(rig, () => rig.server.calls.renew >= count)
