import { createPrivateKey, createPublicKey } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { minutes, seconds } from '../../src/kernel/duration.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { type CallOptions, type Client, clientOf } from '../../src/rpc/client.ts'
import { SpiffeWorkloadAPI } from '../../src/rpc/gen/spiffe/workload/workload_pb.ts'
import { connectInMemory } from '../../src/rpc/in-memory.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { makeWitProof, verifyWitPresentation } from '../../src/spiffe/wit-svid.ts'
import { workloadApi } from '../../src/workload-api/service.ts'
import { signerOf } from '../../src/x509/signature.ts'
import { FakeClock } from '../fakes/clock.ts'
import { FakeUpstreamServer } from '../fakes/upstream-server.ts'
import { fakeProcess, type RigOptions, startAgent, until } from '../agent/rig.ts'

const header: CallOptions = { metadata: { 'workload.spiffe.io': 'true' } }
const denied = { category: 'permission_denied', message: 'no identity issued' }
type Api = Client<typeof SpiffeWorkloadAPI>

/** An agent that serves `/web` to processes named `web`, and a client of such a process. */
async function serving(options: RigOptions = { witSvid: true }, more = {}) {
  const rig = await startAgent(options)
  const entry = rig.server.add('/web', ['test:name:web'], more)
  await rig.clock.advance(seconds(5))
  const client = (name: string): Api =>
    clientOf(
      SpiffeWorkloadAPI,
      connectInMemory({ services: [workloadApi(rig.agent)], peer: fakeProcess(`test:name:${name}`), log: silentLog }),
    )
  return Object.assign(rig, { entry, client, web: client('web') })
}

const first = async <T>(stream: AsyncGenerator<T, void, void>): Promise<T> => {
  const { value } = await stream.next()
  await stream.return()
  if (!value) throw new Error('the stream ended without an answer')
  return value
}

describe('where WIT-SVIDs are switched off', () => {
  test.each<[string, (api: Api) => AsyncGenerator<unknown, void, void>]>([
    ['FetchWITSVID', (api) => api.fetchWITSVID({}, header)],
    ['FetchWITBundles', (api) => api.fetchWITBundles({}, header)],
  ])('API-23 EP-15 %s is unimplemented, for a caller without identity as well', async (_method, call) => {
    await using rig = await serving({})
    await expect(first(call(rig.web))).rejects.toMatchObject({ category: 'unimplemented' })
    await expect(first(call(rig.client('stranger')))).rejects.toMatchObject({ category: 'unimplemented' })
  })
})

describe('FetchWITSVID', () => {
  test('API-23 is unimplemented where the server issues none', async () => {
    await using rig = await serving()
    rig.server.witSvid = false
    await expect(first(rig.web.fetchWITSVID({}, header))).rejects.toMatchObject({ category: 'unimplemented' })
  })

  test('API-25 EP-14 is denied to a workload without identity, and for an identity of others', async () => {
    await using rig = await serving()
    await expect(first(rig.client('stranger').fetchWITSVID({}, header))).rejects.toMatchObject(denied)
    await expect(first(rig.client('stranger').fetchWITBundles({}, header))).rejects.toMatchObject(denied)
    await expect(first(rig.web.fetchWITSVID({ spiffeId: 'spiffe://example.org/admin' }, header))).rejects.toMatchObject(denied)
  })

  test('API-9 refuses a SPIFFE ID that is none', async () => {
    await using rig = await serving()
    await expect(first(rig.web.fetchWITSVID({ spiffeId: 'web' }, header))).rejects.toMatchObject({ category: 'invalid_argument' })
  })

  test('EP-13 is unavailable, and no refusal, while the server is away and nothing is held', async () => {
    await using rig = await serving()
    rig.server.away = true
    await expect(first(rig.web.fetchWITSVID({}, header))).rejects.toMatchObject({ category: 'unavailable' })
  })

  test('hands out no token for somebody else', async () => {
    await using rig = await serving()
    rig.server.jwtSubject = parseSpiffeId('spiffe://example.org/admin')
    await expect(first(rig.web.fetchWITSVID({}, header))).rejects.toMatchObject({ category: 'unavailable' })
  })

  test('W-15 W-16 API-24 answers at once with a token for each identity and the private key that proves it', async () => {
    await using rig = await serving(undefined, { hint: 'main' })
    rig.server.add('/second', ['test:name:web'], { hint: 'main' })
    await rig.clock.advance(seconds(5))
    const { svids } = await first(rig.web.fetchWITSVID({}, header))
    expect(svids.map(({ spiffeId, hint }) => [spiffeId, hint])).toEqual([
      ['spiffe://example.org/web', 'main'],
      ['spiffe://example.org/second', ''],
    ])
    const bundles = bundleSet([rig.server.currentBundle])
    for (const { spiffeId, witSvid, witSvidKey } of svids) {
      const jwk = JSON.parse(witSvidKey) as Record<string, string>
      expect(jwk).toMatchObject({ kty: 'EC', crv: 'P-256', alg: 'ES256', d: expect.any(String) as string })
      const key = createPrivateKey({ key: jwk, format: 'jwk' })
      const expiresAt = rig.clock.now() + seconds(30)
      const proof = await makeWitProof(signerOf(key), { token: witSvid, audience: 'https://db.example.org', expiresAt, jti: 'j' })
      const expected = { audience: 'https://db.example.org', at: rig.clock.now() }
      expect((await verifyWitPresentation({ token: witSvid, proof }, bundles, expected)).spiffeId).toBe(spiffeId)
      await expect(verifyJwtSvid(witSvid, bundles, 'db', rig.clock.now())).rejects.toMatchObject({ category: 'unauthenticated' })
    }
    expect(
      new Set(
        svids.map(
          ({ witSvidKey }) =>
            createPublicKey({ key: JSON.parse(witSvidKey) as object, format: 'jwk' } as never).export({ format: 'jwk' }).x,
        ),
      ).size,
    ).toBe(2)
  })

  test('API-24 answers with the identity that was asked for, and signs nothing twice', async () => {
    await using rig = await serving()
    rig.server.add('/second', ['test:name:web'])
    await rig.clock.advance(seconds(5))
    const ask = async () => (await first(rig.web.fetchWITSVID({ spiffeId: 'spiffe://example.org/second' }, header))).svids
    const [one] = await ask()
    const [same] = await ask()
    expect(one).toMatchObject({ spiffeId: 'spiffe://example.org/second' })
    expect(same).toEqual(one)
    expect(rig.server.calls.signWit).toBe(1)
  })

  test('rotates token and key together at half life, for as long as somebody watches', async () => {
    await using rig = await serving({ witSvid: true }, { jwtSvidTtl: minutes(10) })
    const stream = rig.web.fetchWITSVID({}, header)
    const before = (await stream.next()).value!.svids[0]!
    const next = stream.next()
    await rig.clock.advance(minutes(4))
    expect(rig.server.calls.signWit).toBe(1)
    for (let step = 0; step < 8; step++) await rig.clock.advance(seconds(15))
    const after = (await next).value!.svids[0]!
    expect(after.witSvid).not.toBe(before.witSvid)
    expect(after.witSvidKey).not.toBe(before.witSvidKey)
    await stream.return()
    const calls = rig.server.calls.signWit
    await rig.clock.advance(minutes(30))
    expect(rig.server.calls.signWit).toBe(calls)
  })

  test('keeps a token for as long as it is valid while the server is away, then says that it is unavailable', async () => {
    await using rig = await serving({ witSvid: true }, { jwtSvidTtl: minutes(10) })
    const { svids } = await first(rig.web.fetchWITSVID({}, header))
    rig.server.away = true
    await rig.clock.advance(minutes(9))
    const again = rig.web.fetchWITSVID({}, header)
    const answer = again.next()
    await until(() => rig.clock.sleepers > 3)
    await rig.clock.advance(seconds(1))
    expect((await answer).value!.svids).toEqual(svids)
    const ended = expect(again.next()).rejects.toMatchObject({ category: 'unavailable' })
    for (let step = 0; step < 30; step++) await rig.clock.advance(seconds(5))
    await ended
  })

  test('API-4 API-15 T-4 tells everything after a change, and ends with PermissionDenied when the last identity is gone', async () => {
    await using rig = await serving()
    const stream = rig.web.fetchWITSVID({}, header)
    const ids = async () => (await stream.next()).value?.svids.map(({ spiffeId }) => spiffeId)
    expect(await ids()).toEqual(['spiffe://example.org/web'])
    const second = rig.server.add('/second', ['test:name:web'])
    const more = ids()
    await rig.clock.advance(seconds(5))
    expect(await more).toEqual(['spiffe://example.org/web', 'spiffe://example.org/second'])
    rig.server.remove(rig.entry.id)
    rig.server.remove(second.id)
    const gone = expect(stream.next()).rejects.toMatchObject(denied)
    await rig.clock.advance(seconds(5))
    await gone
  })
})

describe('FetchWITBundles', () => {
  test('W-19 API-25 holds the keys for WIT-SVIDs of our own trust domain and of federated ones, and no others', async () => {
    const clock = new FakeClock()
    const foreign = parseTrustDomain('other.example')
    const [server, elsewhere] = [await FakeUpstreamServer.start({ clock }), await FakeUpstreamServer.start({ clock, trustDomain: foreign })]
    server.federated.set(foreign, elsewhere.currentBundle)
    await using rig = await serving({ clock, server, witSvid: true }, { federatesWith: [foreign] })
    const { bundles } = await first(rig.web.fetchWITBundles({}, header))
    expect(Object.keys(bundles)).toEqual(['spiffe://example.org', 'spiffe://other.example'])
    const { keys } = JSON.parse(bundles['spiffe://example.org']!) as { keys: Record<string, unknown>[] }
    expect(keys.map(({ kid }) => kid)).toEqual(['wit-1'])
  })
})
