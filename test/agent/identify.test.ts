import { describe, expect, test } from 'vitest'
import { requireIdentity } from '../../src/agent/identify.ts'
import { identifier } from '../../src/agent/identify.ts'
import { IdentityCache } from '../../src/agent/identity-cache.ts'
import type { Peer } from '../../src/attestation/peer.ts'
import { hours, seconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'
import { FakeUpstreamServer } from '../fakes/upstream-server.ts'
import { fakeProcess, never, startAgent, until } from './rig.ts'

/** The identifier alone, over an attestor that counts. */
async function counting(attest: (peer: Peer) => readonly string[] = () => ['test:name:web']) {
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
  cache.update({ entries: [], bundle: server.currentBundle, federated: new Map() })
  let attested = 0
  const attestors = new Map([
    ['test', { attest: async (peer: Peer) => (attested++, attest(peer).map(parseSelector)), async [Symbol.asyncDispose]() {} }],
  ])
  const identify = identifier({
    collection: { attestors, log: silentLog, timeout: seconds(5) },
    cache,
    documents: new WatchedValue({ version: '', documents: [] }),
    clock,
  })
  return { identify, clock, attested: () => attested }
}

describe('identifying a caller', () => {
  test('A-18 refuses a process that ended, however often it was attested before', async () => {
    const { identify } = await counting()
    const process = fakeProcess()
    await identify(process, never)
    process.alive = false
    await expect(identify(process, never)).rejects.toMatchObject({ category: 'unavailable', reason: 'workload.gone' })
  })

  test('does not remember a failure', async () => {
    let broken = true
    const { identify } = await counting(() => {
      if (broken) throw new Failure('unavailable', 'kubelet.away', { public: 'no answer' })
      return []
    })
    const process = fakeProcess()
    await expect(identify(process, never)).rejects.toMatchObject({ reason: 'workload.attestation-failed' })
    broken = false
    expect((await identify(process, never)).selectors).toEqual([])
  })

  test('attests a connection once for all its calls, and anew after a few seconds', async () => {
    const { identify, clock, attested } = await counting()
    const process = fakeProcess()
    await Promise.all(Array.from({ length: 20 }, () => identify(process, never)))
    expect(attested()).toBe(1)
    await clock.advance(seconds(5))
    await identify(process, never)
    expect(attested()).toBe(2)
    await identify(fakeProcess(), never)
    expect(attested()).toBe(3)
  })

  test('notices that a process became another kind of workload', async () => {
    const { identify, clock } = await counting((peer) => (peer as ReturnType<typeof fakeProcess>).selectors)
    const process = fakeProcess('test:group:a')
    const before = await identify(process, never)
    process.selectors = ['test:group:b']
    await clock.advance(seconds(5))
    expect((await identify(process, never)).selectors).not.toEqual(before.selectors)
  })

  test('before the first sync waits for it, rather than to say that there is no identity', async () => {
    await using rig = await startAgent({ run: false })
    const asked = rig.identify(fakeProcess('test:name:web'))
    const stop = new AbortController()
    const running = rig.agent.run(stop.signal)
    rig.server.add('/web', ['test:name:web'])
    expect((await asked).identities.current.identities).toHaveLength(1)
    stop.abort()
    await running
  })

  test('gives up when its caller does', async () => {
    await using rig = await startAgent({ run: false })
    const stop = new AbortController()
    const asked = rig.agent.identify(fakeProcess('test:name:web'), stop.signal)
    await new Promise((resolve) => setImmediate(resolve))
    stop.abort(new Failure('cancelled', 'caller.gone', { public: 'gone' }))
    await expect(asked).rejects.toMatchObject({ reason: 'caller.gone' })
  })
})

test('a refusal tells the caller nothing and the log what was seen and what came near', async () => {
  await using rig = await startAgent()
  rig.server.add('/web', ['test:name:web', 'test:zone:a'])
  await rig.clock.advance(seconds(5))
  const workload = await rig.identify(fakeProcess('test:name:web'))
  const refusal = (() => {
    try {
      return requireIdentity(workload)
    } catch (error) {
      return error as Failure
    }
  })()
  expect(refusal).toMatchObject({
    category: 'permission_denied',
    reason: 'workload.no-identity',
    message: 'no identity issued',
    internal: { selectors: ['test:name:web'], considered: ['entry-001 spiffe://example.org/web: lacks test:zone:a'] },
  })
})

describe('explaining a process', () => {
  const explain = async (prepare: (server: FakeUpstreamServer) => void, { run = true } = {}) => {
    await using rig = await startAgent({ run })
    prepare(rig.server)
    await rig.clock.advance(seconds(5))
    if (run) await until(() => rig.agent.status().svids === rig.agent.status().entries)
    return await rig.agent.explain(1, never)
  }
  test('that is not there is refused', async () => {
    await using rig = await startAgent({ run: false })
    await expect(rig.agent.explain(2, never)).rejects.toMatchObject({ category: 'not_found', reason: 'peer.no-such-process' })
  })
  test('names the selector that is missing', async () => {
    const { verdict, considered } = await explain((server) => {
      server.add('/far', ['test:a:1', 'test:b:2'])
      server.add('/near', ['test:name:init', 'test:zone:a'])
    })
    expect(verdict).toBe('no identity: the nearest entry, `spiffe://example.org/near`, also asks for `test:zone:a`')
    expect(considered.map((one) => [one.matches, one.missing.length])).toEqual([
      [false, 1],
      [false, 2],
    ])
  })
  test('names the identities', async () => {
    const { verdict, considered } = await explain((server) => server.add('/init', ['test:name:init']))
    expect(verdict).toBe('the process has one identity: spiffe://example.org/init')
    expect(considered[0]!.note).toMatch(/^the SVID holds until 2026-/)
  })
  test('says when there is no entry, when one expired, and when the server was never heard of', async () => {
    expect((await explain(() => {})).verdict).toContain('there is no entry for this node')
    const past = await startAgent()
    await using rig = past
    rig.server.add('/init', ['test:name:init'], { expiresAt: rig.clock.now() - hours(1) })
    await rig.clock.advance(seconds(5))
    expect((await rig.agent.explain(1, never)).verdict).toContain('the entry expired at 2025-12-31T23:00:00Z')
    expect((await explain(() => {}, { run: false })).verdict).toContain('has not heard from its server')
  })
})
