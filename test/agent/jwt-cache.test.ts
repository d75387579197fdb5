import { decodeJwt, decodeProtectedHeader } from 'jose'
import { describe, expect, test } from 'vitest'
import { JwtCache } from '../../src/agent/jwt-cache.ts'
import type { Workload } from '../../src/agent/identities.ts'
import { minutes, seconds } from '../../src/kernel/duration.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'
import { FakeUpstreamServer } from '../fakes/upstream-server.ts'
import { fakeProcess, never, type Rig, startAgent, until } from './rig.ts'

async function serving(more = {}): Promise<Rig & { workload: Workload }> {
  const rig = await startAgent()
  rig.server.add('/web', ['test:name:web'], more)
  await rig.clock.advance(seconds(5))
  return Object.assign(rig, { workload: await rig.identify(fakeProcess('test:name:web')) })
}
const fetch = async (rig: Rig & { workload: Workload }, audience: readonly string[], id?: string) =>
  rig.agent.jwtSvids(rig.workload, audience, id === undefined ? undefined : parseSpiffeId(id), never)

describe('a JWT-SVID is refused', () => {
  test('API-18 without an audience, with an empty one, and with too many', async () => {
    await using rig = await serving()
    await expect(fetch(rig, [])).rejects.toMatchObject({ category: 'invalid_argument', reason: 'jwt.no-audience' })
    await expect(fetch(rig, ['a', ''])).rejects.toMatchObject({ category: 'invalid_argument', reason: 'jwt.bad-audience' })
    await expect(
      fetch(
        rig,
        Array.from({ length: 17 }, (_, at) => `a${at}`),
      ),
    ).rejects.toMatchObject({ reason: 'jwt.bad-audience' })
    expect(rig.server.calls.signJwt).toBe(0)
  })

  test('for an identity that the workload does not have', async () => {
    await using rig = await serving()
    rig.server.add('/payments', ['test:name:payments'])
    await rig.clock.advance(seconds(5))
    await expect(fetch(rig, ['db'], 'spiffe://example.org/payments')).rejects.toMatchObject({
      category: 'permission_denied',
      reason: 'workload.no-identity',
      message: 'no identity issued',
    })
    expect(rig.server.calls.signJwt).toBe(0)
  })

  test('when the server signs for somebody else', async () => {
    await using rig = await serving()
    rig.server.jwtSubject = parseSpiffeId('spiffe://example.org/admin')
    await expect(fetch(rig, ['db'])).rejects.toMatchObject({
      category: 'unavailable',
      reason: 'jwt.unavailable',
      cause: { reason: 'svid.wrong-identity' },
    })
  })

  test('when the server signs with a key that the bundle does not have', async () => {
    await using rig = await serving()
    rig.server.rotateJwtKey()
    await expect(fetch(rig, ['db'])).rejects.toMatchObject({ reason: 'jwt.unavailable', cause: { reason: 'jwt-svid.unknown-key' } })
  })

  test('while the server is away and none is held', async () => {
    await using rig = await serving()
    rig.server.away = true
    await expect(fetch(rig, ['db'])).rejects.toMatchObject({ category: 'unavailable', reason: 'jwt.unavailable' })
  })
})

describe('a JWT-SVID that is held', () => {
  test('answers for the same audiences in any order, until half life', async () => {
    await using rig = await serving()
    const [first] = await fetch(rig, ['db', 'cache'])
    await rig.clock.advance(minutes(2))
    const [second] = await fetch(rig, ['cache', 'db', 'db'])
    expect(second!.token).toBe(first!.token)
    await rig.clock.advance(minutes(1))
    const third = fetch(rig, ['db', 'cache'])
    expect((await third)[0]!.token).not.toBe(first!.token)
    expect(rig.server.calls.signJwt).toBe(2)
  })

  test('R-20 does not answer for another audience, another entry or another revision', async () => {
    await using rig = await serving()
    const entry = (await rig.server.entries(never))[0]!
    const tokens = [(await fetch(rig, ['a', 'b']))[0]!.token, (await fetch(rig, ['a']))[0]!.token, (await fetch(rig, ['a,b']))[0]!.token]
    rig.server.change(entry.id, { jwtSvidTtl: minutes(1) })
    await rig.clock.advance(seconds(6))
    tokens.push((await fetch(rig, ['a']))[0]!.token)
    expect(new Set(tokens).size).toBe(4)
  })

  test('Q-11 answers at once while the server is away, until it expires', async () => {
    await using rig = await serving()
    const [first] = await fetch(rig, ['db'])
    rig.server.away = true
    await rig.clock.advance(minutes(4))
    expect((await fetch(rig, ['db']))[0]!.token).toBe(first!.token)
    await rig.clock.advance(minutes(1))
    await expect(fetch(rig, ['db'])).rejects.toMatchObject({ reason: 'jwt.unavailable' })
  })

  test('Q-11 answers within a moment when the server is slow, and the fresh one comes next', async () => {
    await using rig = await serving()
    const [first] = await fetch(rig, ['db'])
    await rig.clock.advance(minutes(3))
    const sign = rig.server.signJwt.bind(rig.server)
    const slow = Promise.withResolvers<void>()
    rig.server.signJwt = async (...args) => {
      await slow.promise
      return sign(...args)
    }
    const asked = fetch(rig, ['db'])
    await rig.clock.advance(40)
    expect((await asked)[0]!.token).toBe(first!.token)
    slow.resolve()
    await until(() => rig.server.calls.signJwt === 2)
    await until(async () => (await fetch(rig, ['db']))[0]!.token !== first!.token)
  })

  test('is dropped when its key is tainted', async () => {
    await using rig = await serving()
    const [first] = await fetch(rig, ['db'])
    rig.server.rotateJwtKey()
    await rig.clock.advance(seconds(5))
    await until(() => rig.agent.bundle.current.jwtAuthorities.length === 2)
    const [second] = await fetch(rig, ['db'])
    expect([first, second].map((one) => decodeProtectedHeader(one!.token).kid)).toEqual(['jwt-1', 'jwt-2'])
  })
})

test('many who ask for the same token cause one question to the server', async () => {
  await using rig = await serving()
  const all = await Promise.all(Array.from({ length: 50 }, () => fetch(rig, ['db'])))
  expect(new Set(all.map(([one]) => one!.token)).size).toBe(1)
  expect(rig.server.calls.signJwt).toBe(1)
})

test('an entry whose tokens tell themselves apart gets a new one each time', async () => {
  await using rig = await serving({ jwtSvidIncludeJti: true })
  const tokens = [await fetch(rig, ['db']), await fetch(rig, ['db'])].map(([one]) => decodeJwt(one!.token).jti)
  expect(new Set(tokens).size).toBe(2)
})

test('API-18 without a SPIFFE ID there is one for each identity, the default first, hints unique', async () => {
  await using rig = await serving({ hint: 'main' })
  rig.server.add('/second', ['test:name:web'], { hint: 'main' })
  await rig.clock.advance(seconds(5))
  const svids = await fetch(rig, ['db'])
  expect(svids.map(({ spiffeId, hint }) => [spiffeId, hint])).toEqual([
    ['spiffe://example.org/web', 'main'],
    ['spiffe://example.org/second', ''],
  ])
  expect((await fetch(rig, ['db'], 'spiffe://example.org/second')).map((one) => one.spiffeId)).toEqual(['spiffe://example.org/second'])
})

test('the cache holds no more than its capacity, and forgets what was used longest ago', async () => {
  const clock = new FakeClock()
  const server = await FakeUpstreamServer.start({ clock })
  const cache = new JwtCache({
    upstream: server,
    bundle: new WatchedValue(server.currentBundle),
    clock,
    random: seededRandom(1),
    log: silentLog,
    capacity: 2,
  })
  const entry = server.add('/web', ['test:name:web'])
  for (const audience of ['a', 'b', 'a', 'c', 'a', 'b']) await cache.fetch(entry, [audience], never)
  expect(server.calls.signJwt).toBe(4)
})
