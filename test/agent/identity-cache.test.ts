import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, test } from 'vitest'
import { agentMetrics } from '../../src/agent/metrics.ts'
import { requireIdentity } from '../../src/agent/identify.ts'
import type { Workload, WorkloadIdentities } from '../../src/agent/identities.ts'
import { IdentityCache } from '../../src/agent/identity-cache.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { firstOf } from '../../src/kernel/watched.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { generateKeyPair } from '../../src/x509/key-type.ts'
import { signerOf } from '../../src/x509/signature.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'
import { FakeUpstreamServer } from '../fakes/upstream-server.ts'
import { fakeProcess, never, type Rig, startAgent, until } from './rig.ts'

const ids = (workload: Workload) => workload.identities.current.identities.map((one) => one.spiffeId.replace('spiffe://example.org', ''))
const serials = (held: WorkloadIdentities) => held.identities.map((one) => one.chain[0]!.serial)

/** An agent that serves `/web` to processes named `web`, and such a process. */
async function serving(options: Parameters<typeof startAgent>[0] = {}, more = {}): Promise<Rig & { workload: Workload; entryId: string }> {
  const rig = await startAgent(options)
  const entry = rig.server.add('/web', ['test:name:web'], more)
  await rig.clock.advance(seconds(5))
  const workload = await rig.identify(fakeProcess('test:name:web'))
  return Object.assign(rig, { workload, entryId: entry.id })
}

describe('a workload never gets', () => {
  test.each([
    ['an identity of another entry', async () => ({ uris: ['spiffe://example.org/payments'] }), 'svid.wrong-identity'],
    [
      'a certificate for a key that is not its own',
      async () => ({ spki: signerOf((await generateKeyPair('ec-p256')).privateKey).publicKey }),
      'svid.foreign-key',
    ],
    ['a certificate of an authority', async () => ({ ca: {}, keyUsage: ['keyCertSign'] as const }), 'x509-svid.not-a-leaf'],
    ['a certificate that is not valid yet', async (now: number) => ({ notBefore: now + hours(1) }), 'chain.not-yet-valid'],
  ])('%s, whatever the server signs', async (_what, wishes, reason) => {
    const clock = new FakeClock()
    const server = await FakeUpstreamServer.start({ clock })
    await using rig = await startAgent({ clock, server })
    server.wishes = await wishes(clock.now())
    server.add('/web', ['test:name:web'])
    await rig.clock.advance(seconds(5))
    await expect(rig.identify(fakeProcess('test:name:web'))).rejects.toMatchObject({
      category: 'unavailable',
      reason: 'workload.identity-not-ready',
    })
    const [considered] = (await rig.agent.explain(1, never)).considered
    expect(considered!.entry.spiffeId).toBe('spiffe://example.org/web')
    void reason
  })

  test('an SVID of an authority that is not in the bundle', async () => {
    const clock = new FakeClock()
    const [server, stranger] = [await FakeUpstreamServer.start({ clock }), await FakeUpstreamServer.start({ clock })]
    server.add('/web', ['test:name:web'])
    const cache = new IdentityCache({
      upstream: stranger,
      bundle: server.currentBundle,
      clock,
      random: seededRandom(1),
      log: silentLog,
      meter: silentMeter,
    })
    stranger.add('/web', ['test:name:web'])
    const stop = new AbortController()
    const running = cache.run(stop.signal).catch(() => {})
    cache.update({ entries: await server.entries(never), bundle: server.currentBundle, federated: new Map() })
    await expect(cache.ready(cache.group([parseSelector('test:name:web')]), seconds(5), never)).rejects.toMatchObject({
      reason: 'workload.identity-not-ready',
    })
    expect(cache.stateOf('entry-001').failure?.reason).toMatch(/^chain\./)
    stop.abort()
    await running
  })

  test('an expired SVID, though the server is away', async () => {
    await using rig = await serving({ svidLifetime: minutes(10) }, { x509SvidTtl: minutes(2) })
    rig.server.away = true
    await rig.clock.advance(seconds(100))
    expect(ids(rig.workload)).toEqual(['/web'])
    await rig.clock.advance(seconds(20))
    expect(ids(rig.workload)).toEqual([])
    // It is entitled to one: not a refusal, but a trouble that passes.
    expect(() => requireIdentity(rig.workload)).toThrow(
      expect.objectContaining({ category: 'unavailable', reason: 'workload.identity-not-ready' }),
    )
  })

  test('an expired SVID, though the machine slept and no timer fired', async () => {
    await using rig = await serving()
    rig.clock.set(rig.clock.now() + hours(3))
    expect(ids(rig.workload)).toEqual([])
  })

  test('what an entry that expired would give', async () => {
    await using rig = await serving({}, { expiresAt: new FakeClock().now() + minutes(3) })
    expect(ids(rig.workload)).toEqual(['/web'])
    await rig.clock.advance(minutes(3))
    expect(ids(rig.workload)).toEqual([])
  })

  test('an SVID that goes to a store', async () => {
    await using rig = await serving({}, { storeSvid: true })
    expect(ids(rig.workload)).toEqual([])
  })
})

describe('entries', () => {
  test('that were removed are dropped at the next sync, and watchers are told', async () => {
    await using rig = await serving()
    const told: number[] = []
    const watching = (async () => {
      for await (const held of rig.workload.identities.changes(never)) {
        told.push(held.identities.length)
        if (held.identities.length === 0) return
      }
    })()
    rig.server.remove(rig.entryId)
    await rig.clock.advance(seconds(5))
    await watching
    expect(told).toEqual([1, 0])
    expect(rig.agent.status().svids).toBe(0)
    expect(() => requireIdentity(rig.workload)).toThrow(
      expect.objectContaining({ category: 'permission_denied', reason: 'workload.no-identity', message: 'no identity issued' }),
    )
  })

  test('whose selectors changed are dropped, and given to those who match now', async () => {
    await using rig = await serving()
    rig.server.change(rig.entryId, { selectors: [parseSelector('test:name:other')] })
    await rig.clock.advance(seconds(5))
    expect(ids(rig.workload)).toEqual([])
    expect(ids(await rig.identify(fakeProcess('test:name:other')))).toEqual(['/web'])
  })

  test('whose SPIFFE ID changed do not give the old one any more, even while the new one cannot be signed', async () => {
    await using rig = await serving()
    rig.server.wishes = { uris: ['spiffe://example.org/elsewhere'] }
    const { spiffeId } = rig.server.add('/new', ['test:name:unused'])
    rig.server.change(rig.entryId, { spiffeId })
    await rig.clock.advance(seconds(5))
    expect(ids(rig.workload)).toEqual([])
    rig.server.wishes = {}
    await rig.clock.advance(seconds(5))
    await until(() => ids(rig.workload).join() === '/new')
  })

  test('of a new revision are signed again', async () => {
    await using rig = await serving()
    const before = serials(rig.workload.identities.current)
    rig.server.change(rig.entryId, { hint: 'blue' })
    await rig.clock.advance(seconds(5))
    const again = await firstOf(rig.workload.identities, (held) => serials(held)[0] !== before[0], never)
    expect(again.identities[0]!.hint).toBe('blue')
  })

  test('that ask for more selectors than were seen do not match, those that ask for fewer do', async () => {
    await using rig = await startAgent()
    rig.server.add('/both', ['test:name:web', 'test:zone:a'])
    rig.server.add('/one', ['test:name:web'])
    await rig.clock.advance(seconds(5))
    expect(ids(await rig.identify(fakeProcess('test:name:web', 'test:zone:b')))).toEqual(['/one'])
    expect(ids(await rig.identify(fakeProcess('test:name:web', 'test:zone:a', 'test:x:y')))).toEqual(['/both', '/one'])
    expect(ids(await rig.identify(fakeProcess('test:zone:a')))).toEqual([])
  })

  test('API-26 the oldest entry gives the default identity, whatever the ids are', async () => {
    await using rig = await startAgent()
    const now = rig.clock.now()
    rig.server.add('/young', ['test:name:web'], { id: 'aaa', createdAt: now + 2 } as never)
    rig.server.add('/old', ['test:name:web'], { id: 'zzz', createdAt: now + 1 } as never)
    await rig.clock.advance(seconds(5))
    expect(ids(await rig.identify(fakeProcess('test:name:web')))).toEqual(['/old', '/young'])
  })

  test('API-26 of entries made in one second the SPIFFE ID decides, never an id that was drawn', async () => {
    await using rig = await startAgent()
    const createdAt = rig.clock.now()
    for (const [path, id] of [
      ['/c', 'a'],
      ['/a', 'c'],
      ['/b', 'b'],
    ])
      rig.server.add(path!, ['test:name:web'], { id, createdAt } as never)
    await rig.clock.advance(seconds(5))
    expect(ids(await rig.identify(fakeProcess('test:name:web')))).toEqual(['/a', '/b', '/c'])
  })

  test('API-26 the entry whose hint is `default` gives the default identity, and of two such the oldest', async () => {
    await using rig = await startAgent()
    rig.server.add('/old', ['test:name:web'])
    rig.server.add('/meant', ['test:name:web'], { hint: 'default' })
    const young = rig.server.add('/meant-too', ['test:name:web'], { hint: 'default' })
    await rig.clock.advance(seconds(5))
    const process = fakeProcess('test:name:web')
    const hinted = async () =>
      (await rig.identify(process)).identities.current.identities.map((one) => `${one.spiffeId} ${one.hint}`.trim())
    expect(await hinted()).toEqual(['spiffe://example.org/meant default', 'spiffe://example.org/meant-too', 'spiffe://example.org/old'])
    rig.server.change(young.id, { hint: 'Default' })
    await rig.clock.advance(seconds(5))
    expect((await hinted())[2]).toBe('spiffe://example.org/meant-too Default')
  })

  test('API-27 a hint of more than 1024 bytes is left out, and its identity is not', async () => {
    await using rig = await startAgent()
    for (const [path, hint] of [
      ['/longest', 'é'.repeat(512)],
      ['/longer', 'é'.repeat(512) + 'x'],
    ])
      rig.server.add(path!, ['test:name:web'], { hint: hint! })
    await rig.clock.advance(seconds(5))
    const { identities } = (await rig.identify(fakeProcess('test:name:web'))).identities.current
    expect(identities.map((one) => one.hint.length)).toEqual([512, 0])
  })

  test('API-14 a hint that two entries ask for goes to the oldest', async () => {
    await using rig = await startAgent()
    for (const [path, hint] of [
      ['/a', 'main'],
      ['/b', 'main'],
      ['/c', ''],
      ['/d', ''],
    ])
      rig.server.add(path!, ['test:name:web'], { hint: hint! })
    await rig.clock.advance(seconds(5))
    const { identities } = (await rig.identify(fakeProcess('test:name:web'))).identities.current
    expect(identities.map((one) => [one.spiffeId.at(-1), one.hint])).toEqual([
      ['a', 'main'],
      ['b', ''],
      ['c', ''],
      ['d', ''],
    ])
  })
})

describe('SVIDs are', () => {
  test('signed ahead of need, a batch at a time', async () => {
    await using rig = await startAgent()
    for (let at = 0; at < 101; at++) rig.server.add(`/w${at}`, [`test:name:w${at}`])
    await rig.clock.advance(seconds(5))
    await until(() => rig.agent.status().svids === 101)
    expect(rig.server.batches).toEqual([50, 50, 1])
  })

  test('signed for an entry without prefetch only when a workload asks', async () => {
    await using rig = await startAgent()
    rig.server.add('/web', ['test:name:web'], { disableX509SvidPrefetch: true })
    await rig.clock.advance(seconds(10))
    expect(rig.server.calls.signX509).toBe(0)
    expect(ids(await rig.identify(fakeProcess('test:name:web')))).toEqual(['/web'])
    expect(rig.server.batches).toEqual([1])
  })

  test('renewed at half life, with time to spare, again and again, and verify at every moment', async () => {
    await using rig = await serving({ svidLifetime: hours(10) }, { x509SvidTtl: minutes(10) })
    const seen = new Set<string>()
    for (let step = 0; step < 60; step++) {
      await rig.clock.advance(seconds(30))
      const held = () => rig.workload.identities.current
      const leaf = () => held().identities[0]!.chain[0]!
      // Signing takes real time, in which the clock stands still.
      await until(() => leaf().notAfter - rig.clock.now() > minutes(10) * 0.25)
      verifyX509Svid(held().identities[0]!.chain, bundleSet([held().bundle]), rig.clock.now())
      seen.add(leaf().serial)
    }
    expect(seen.size).toBeGreaterThanOrEqual(5)
    expect(seen.size).toBeLessThanOrEqual(8)
  })

  test('signed again at once when their authority is tainted, and once', async () => {
    await using rig = await serving()
    const before = serials(rig.workload.identities.current)
    await rig.server.rotateCa('tainted')
    const calls = rig.server.calls.signX509
    await rig.clock.advance(seconds(5))
    await firstOf(rig.workload.identities, (held) => serials(held)[0] !== before[0], never)
    await rig.clock.advance(minutes(5))
    expect(rig.server.calls.signX509).toBe(calls + 1)
  })

  test('asked for again with patience when the server refuses one, while others go on', async () => {
    await using rig = await serving()
    rig.server.add('/broken', ['test:name:broken'])
    rig.server.wishes = { uris: ['spiffe://example.org/elsewhere'] }
    await rig.clock.advance(seconds(5))
    const calls = rig.server.calls.signX509
    await rig.clock.advance(minutes(5))
    expect(rig.server.calls.signX509 - calls).toBeLessThan(30)
    const { unsigned, svids, ready, svidExpiry } = agentMetrics
    expect(rig.meter.of(svids, {})).toBe(1)
    expect(rig.meter.of(unsigned, { reason: 'svid.wrong-identity' })).toBeGreaterThan(1)
    expect(rig.meter.of(ready, {})).toBe(1)
    expect(rig.meter.of(svidExpiry, {})).toBeGreaterThan(rig.clock.now() / 1000)
    rig.server.wishes = {}
    await rig.clock.advance(minutes(1))
    await until(() => rig.agent.status().svids === 2)
  })
})

describe('while the server is away', () => {
  test('Q-13 workloads keep what they have, and new processes get it too', async () => {
    await using rig = await serving()
    rig.server.away = true
    await rig.clock.advance(minutes(20))
    expect(ids(rig.workload)).toEqual(['/web'])
    expect(ids(await rig.identify(fakeProcess('test:name:web')))).toEqual(['/web'])
    const failed = rig.meter.of(agentMetrics.syncs, { outcome: 'failed' })
    expect(failed).toBeGreaterThan(5)
    expect(rig.meter.of(agentMetrics.lastSync, {})).toBeLessThan(rig.clock.now() / 1000 - 1000)
    expect(rig.agent.status()).toMatchObject({
      ready: true,
      reasons: [expect.stringContaining('ago'), expect.stringContaining('cannot be reached')],
    })
  })

  test('it is asked less and less often, and heard of again soon after it is back', async () => {
    await using rig = await serving()
    rig.server.away = true
    const { bundle } = rig.server.calls
    await rig.clock.advance(minutes(10))
    expect(rig.server.calls.bundle - bundle).toBeLessThan(60)
    rig.server.away = false
    rig.server.remove(rig.entryId)
    await rig.clock.advance(minutes(1))
    expect(ids(rig.workload)).toEqual([])
  })
})

describe('one object for the same selectors', () => {
  test('is shared by all processes that have them, in whatever order they were seen', async () => {
    await using rig = await serving({}, {})
    const [a, b] = [
      await rig.identify(fakeProcess('test:x:1', 'test:name:web')),
      await rig.identify(fakeProcess('test:name:web', 'test:x:1')),
    ]
    expect(a.identities).toBe(b.identities)
    expect(a.identities.current).toBe(b.identities.current)
    expect(a.identities).not.toBe(rig.workload.identities)
  })

  test('says nothing when a sync brought nothing new', async () => {
    await using rig = await serving()
    let told = 0
    const stop = new AbortController()
    const watching = (async () => {
      for await (const _ of rig.workload.identities.changes(stop.signal)) told++
    })()
    await rig.clock.advance(minutes(1))
    stop.abort()
    await watching
    expect(told).toBe(1)
  })

  test('is released when nobody refers to it, and kept while somebody watches', async () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const clock = new FakeClock()
    const server = await FakeUpstreamServer.start({ clock })
    const cache = new IdentityCache({
      upstream: server,
      bundle: server.currentBundle,
      clock,
      random: seededRandom(1),
      log: silentLog,
      meter: silentMeter,
    })
    const stop = new AbortController()
    for (let at = 0; at < 50; at++) cache.group([parseSelector(`test:name:w${at}`)])
    const watching = (async () => {
      for await (const _ of cache.group([parseSelector('test:name:watched')]).changes(stop.signal)) continue
    })()
    await until(() => {
      collect()
      return cache.counts.groups === 1
    })
    stop.abort()
    await watching
    await until(() => {
      collect()
      return cache.counts.groups === 0
    })
  })
})
