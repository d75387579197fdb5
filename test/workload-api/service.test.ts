import { spawn } from 'node:child_process'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openPeerCredentials } from '../../src/attestation/peer/linux.ts'
import type { Peer } from '../../src/attestation/peer.ts'
import { minutes, seconds } from '../../src/kernel/duration.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { type CallOptions, type Client, clientOf } from '../../src/rpc/client.ts'
import { SpiffeWorkloadAPI } from '../../src/rpc/gen/spiffe/workload/workload_pb.ts'
import { connectInMemory } from '../../src/rpc/in-memory.ts'
import { listenUnix } from '../../src/rpc/listen.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { parseCertificates } from '../../src/x509/certificate.ts'
import { requireSecurityHeader } from '../../src/workload-api/security-header.ts'
import { workloadApi } from '../../src/workload-api/service.ts'
import { FakeClock } from '../fakes/clock.ts'
import { FakeUpstreamServer } from '../fakes/upstream-server.ts'
import { fakeProcess, type Rig, startAgent, until } from '../agent/rig.ts'

const header: CallOptions = { metadata: { 'workload.spiffe.io': 'true' } }
const foreign = parseTrustDomain('other.example')

function clientFor(rig: Rig, peer: Peer): Client<typeof SpiffeWorkloadAPI> {
  return clientOf(
    SpiffeWorkloadAPI,
    connectInMemory({ services: [workloadApi(rig.agent)], peer, log: silentLog, wrap: requireSecurityHeader }),
  )
}

/** An agent that serves `/web` to processes named `web`, and a client of such a process. */
async function serving(more = {}) {
  const rig = await startAgent()
  const entry = rig.server.add('/web', ['test:name:web'], more)
  await rig.clock.advance(seconds(5))
  const process = fakeProcess('test:name:web')
  return Object.assign(rig, { entry, process, client: clientFor(rig, process) })
}
const first = async <T>(stream: AsyncIterable<T>): Promise<T> => {
  for await (const one of stream) return one
  throw new Error('the stream ended without an answer')
}
const denied = { category: 'permission_denied', message: 'no identity issued' }

describe('a workload without identity', () => {
  test('API-15 API-17 API-19 is denied every method, and learns nothing else', async () => {
    await using rig = await serving()
    const client = clientFor(rig, fakeProcess('test:name:stranger'))
    await expect(first(client.fetchX509SVID({}, header))).rejects.toMatchObject(denied)
    await expect(first(client.fetchX509Bundles({}, header))).rejects.toMatchObject(denied)
    await expect(first(client.fetchJWTBundles({}, header))).rejects.toMatchObject(denied)
    await expect(client.fetchJWTSVID({ audience: ['db'] }, header)).rejects.toMatchObject(denied)
    await expect(client.validateJWTSVID({ audience: 'db', svid: 'x' }, header)).rejects.toMatchObject(denied)
  })

  test('EP-5 is told about the missing header first', async () => {
    await using rig = await serving()
    await expect(first(rig.client.fetchX509SVID({}))).rejects.toMatchObject({ category: 'invalid_argument' })
  })
})

describe('arguments', () => {
  test.each<[string, (client: Client<typeof SpiffeWorkloadAPI>) => Promise<unknown>]>([
    ['API-9 no audience', (client) => client.fetchJWTSVID({}, header)],
    ['API-9 an empty audience', (client) => client.fetchJWTSVID({ audience: [''] }, header)],
    ['a SPIFFE ID that is none', (client) => client.fetchJWTSVID({ audience: ['db'], spiffeId: 'https://example.org/web' }, header)],
    ['API-9 nothing to validate', (client) => client.validateJWTSVID({ audience: 'db' }, header)],
    ['API-9 nobody to validate for', (client) => client.validateJWTSVID({ svid: 'x' }, header)],
    ['a token that is none', (client) => client.validateJWTSVID({ audience: 'db', svid: 'x.y' }, header)],
  ])('%s is an invalid argument', async (_what, act) => {
    await using rig = await serving()
    await expect(act(rig.client)).rejects.toMatchObject({ category: 'invalid_argument' })
  })

  test('a SPIFFE ID that the workload does not have is denied', async () => {
    await using rig = await serving()
    await expect(rig.client.fetchJWTSVID({ audience: ['db'], spiffeId: 'spiffe://example.org/admin' }, header)).rejects.toMatchObject(
      denied,
    )
  })
})

describe('FetchX509SVID', () => {
  test('API-5 API-12 API-13 answers at once with chain, key and bundle that belong together', async () => {
    await using rig = await serving({ hint: 'main' })
    const { svids, federatedBundles } = await first(rig.client.fetchX509SVID({}, header))
    expect(svids).toHaveLength(1)
    const [svid] = svids
    expect(svid).toMatchObject({ spiffeId: 'spiffe://example.org/web', hint: 'main' })
    const chain = parseCertificates(svid!.x509Svid)
    expect(verifyX509Svid(chain, bundleSet([rig.server.currentBundle]), rig.clock.now()).spiffeId).toBe('spiffe://example.org/web')
    const key = createPrivateKey({ key: Buffer.from(svid!.x509SvidKey), format: 'der', type: 'pkcs8' })
    expect(Buffer.from(chain[0]!.spki).equals(createPublicKey(key).export({ type: 'spki', format: 'der' }))).toBe(true)
    expect(parseCertificates(svid!.bundle)).toEqual(rig.server.currentBundle.x509Authorities.map((one) => one.certificate))
    expect(federatedBundles).toEqual({})
  })

  test('API-4 pushes the full state after a change, and nothing when nothing changed', async () => {
    await using rig = await serving()
    const seen: string[][] = []
    const stop = new AbortController()
    const watching = (async () => {
      for await (const { svids } of rig.client.fetchX509SVID({}, { ...header, signal: stop.signal }))
        seen.push(svids.map((one) => one.spiffeId))
    })().catch(() => {})
    await until(() => seen.length === 1)
    await rig.clock.advance(minutes(1))
    expect(seen).toHaveLength(1)
    rig.server.add('/second', ['test:name:web'])
    await rig.clock.advance(seconds(5))
    await until(() => seen.length === 2)
    expect(seen).toEqual([['spiffe://example.org/web'], ['spiffe://example.org/web', 'spiffe://example.org/second']])
    stop.abort()
    await watching
  })

  test('T-4 API-15 ends with PermissionDenied when the last identity is gone', async () => {
    await using rig = await serving()
    const stream = rig.client.fetchX509SVID({}, header)
    await stream.next()
    rig.server.remove(rig.entry.id)
    const next = expect(stream.next()).rejects.toMatchObject(denied)
    await rig.clock.advance(seconds(5))
    await next
  })

  test('A-18 sends nothing new to a connection whose process ended', async () => {
    await using rig = await serving()
    const stream = rig.client.fetchX509SVID({}, header)
    await stream.next()
    rig.process.alive = false
    rig.server.add('/second', ['test:name:web'])
    const next = expect(stream.next()).rejects.toMatchObject({ category: 'unavailable' })
    await rig.clock.advance(seconds(5))
    await next
  })

  test('brings the bundles of the trust domains that its entries federate with, and of no other', async () => {
    const clock = new FakeClock()
    const [server, elsewhere] = [await FakeUpstreamServer.start({ clock }), await FakeUpstreamServer.start({ clock, trustDomain: foreign })]
    await using rig = await startAgent({ clock, server })
    server.federated.set(foreign, elsewhere.currentBundle)
    server.federated.set(parseTrustDomain('third.example'), { ...elsewhere.currentBundle, trustDomain: parseTrustDomain('third.example') })
    server.add('/web', ['test:name:web'], { federatesWith: [foreign] })
    server.add('/lonely', ['test:name:lonely'])
    await clock.advance(seconds(5))
    const web = await first(clientFor(rig, fakeProcess('test:name:web')).fetchX509SVID({}, header))
    expect(Object.keys(web.federatedBundles)).toEqual(['spiffe://other.example'])
    expect(parseCertificates(web.federatedBundles['spiffe://other.example']!)).toHaveLength(1)
    expect((await first(clientFor(rig, fakeProcess('test:name:lonely')).fetchX509SVID({}, header))).federatedBundles).toEqual({})
  })

  test('R-5 a federated bundle that calls itself ours is not taken', async () => {
    const clock = new FakeClock()
    const [server, elsewhere] = [await FakeUpstreamServer.start({ clock }), await FakeUpstreamServer.start({ clock })]
    await using rig = await startAgent({ clock, server })
    server.federated.set(foreign, elsewhere.currentBundle)
    server.federated.set(server.trustDomain, elsewhere.currentBundle)
    server.add('/web', ['test:name:web'], { federatesWith: [foreign, server.trustDomain] })
    await clock.advance(seconds(5))
    const { bundles } = await first(clientFor(rig, fakeProcess('test:name:web')).fetchX509Bundles({}, header))
    expect(Object.keys(bundles)).toEqual(['spiffe://example.org'])
    expect(parseCertificates(bundles['spiffe://example.org']!)).toEqual(server.currentBundle.x509Authorities.map((one) => one.certificate))
  })
})

describe('bundles', () => {
  test('API-17 always hold those of our own trust domain, and are pushed when they change, not when SVIDs do', async () => {
    await using rig = await serving({ x509SvidTtl: minutes(2) })
    const sizes: number[] = []
    const stop = new AbortController()
    const watching = (async () => {
      for await (const { bundles } of rig.client.fetchX509Bundles({}, { ...header, signal: stop.signal })) {
        sizes.push(parseCertificates(bundles['spiffe://example.org']!).length)
      }
    })().catch(() => {})
    await until(() => sizes.length === 1)
    const batches = rig.server.batches.length
    await rig.clock.advance(seconds(70))
    await until(() => rig.server.batches.length > batches)
    expect(sizes).toEqual([1])
    await rig.server.rotateCa('kept')
    await rig.clock.advance(seconds(5))
    await until(() => sizes.length === 2)
    expect(sizes).toEqual([1, 2])
    stop.abort()
    await watching
  })

  test('API-19 JWT bundles are JWK sets with JWT keys only', async () => {
    await using rig = await serving()
    const { bundles } = await first(rig.client.fetchJWTBundles({}, header))
    const { keys } = JSON.parse(new TextDecoder().decode(bundles['spiffe://example.org'])) as { keys: Record<string, unknown>[] }
    expect(keys.map((one) => [one['kid'], one['x5c']])).toEqual([['jwt-1', undefined]])
  })
})

describe('JWT-SVIDs', () => {
  test('API-18 API-20 are issued for all identities, and validate for their audience', async () => {
    await using rig = await serving({ hint: 'main' })
    rig.server.add('/second', ['test:name:web'])
    await rig.clock.advance(seconds(5))
    const { svids } = await rig.client.fetchJWTSVID({ audience: ['db'] }, header)
    expect(svids.map(({ spiffeId, hint }) => [spiffeId, hint])).toEqual([
      ['spiffe://example.org/web', 'main'],
      ['spiffe://example.org/second', ''],
    ])
    const { spiffeId, claims } = await rig.client.validateJWTSVID({ audience: 'db', svid: svids[0]!.svid }, header)
    expect(spiffeId).toBe('spiffe://example.org/web')
    expect(claims).toMatchObject({ sub: 'spiffe://example.org/web', aud: ['db'], exp: expect.any(Number), iat: expect.any(Number) })
    await expect(rig.client.validateJWTSVID({ audience: 'cache', svid: svids[0]!.svid }, header)).rejects.toMatchObject({
      category: 'invalid_argument',
    })
    await rig.clock.advance(minutes(6))
    await expect(rig.client.validateJWTSVID({ audience: 'db', svid: svids[0]!.svid }, header)).rejects.toMatchObject({
      category: 'invalid_argument',
    })
  })

  test('API-22 J-19 of a foreign trust domain validate only where it is federated, and show only the standard’s claims', async () => {
    const clock = new FakeClock()
    const [server, elsewhere] = [await FakeUpstreamServer.start({ clock }), await FakeUpstreamServer.start({ clock, trustDomain: foreign })]
    const { token } = await elsewhere.signJwt(elsewhere.add('/client', ['a:b']).id, ['db'], new AbortController().signal)
    await using rig = await startAgent({ clock, server })
    server.federated.set(foreign, elsewhere.currentBundle)
    server.add('/web', ['test:name:web'], { federatesWith: [foreign] })
    server.add('/lonely', ['test:name:lonely'])
    await clock.advance(seconds(5))
    const { spiffeId, claims } = await clientFor(rig, fakeProcess('test:name:web')).validateJWTSVID({ audience: 'db', svid: token }, header)
    expect([spiffeId, Object.keys(claims!).sort()]).toEqual(['spiffe://other.example/client', ['aud', 'exp', 'sub']])
    await expect(
      clientFor(rig, fakeProcess('test:name:lonely')).validateJWTSVID({ audience: 'db', svid: token }, header),
    ).rejects.toMatchObject({ category: 'invalid_argument' })
  })
})

test('a real process on a real socket gets what the kernel says it is', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vw-'))
  const credentials = await openPeerCredentials()
  const seen: number[] = []
  await using rig = await serving()
  const byPid = new Map<number, Peer>()
  const service = workloadApi({
    ...rig.agent,
    identify: (peer, signal) => {
      seen.push(peer.pid)
      byPid.set(peer.pid, peer)
      return rig.agent.identify(Object.assign(Object.create(peer) as Peer, { selectors: ['test:name:web'] }), signal)
    },
  })
  await using listener = await listenUnix({
    path: join(folder, 's'),
    mode: 0o666,
    services: [service],
    peerOf: (socket) => credentials.of(socket),
    log: silentLog,
    wrap: requireSecurityHeader,
  })
  const script = `
    const { clientOf, connectUnix } = await import(${JSON.stringify(join(import.meta.dirname, '../../src/rpc/client.ts'))})
    const { SpiffeWorkloadAPI } = await import(${JSON.stringify(join(import.meta.dirname, '../../src/rpc/gen/spiffe/workload/workload_pb.ts'))})
    await using channel = connectUnix(process.argv[1])
    for await (const { svids } of clientOf(SpiffeWorkloadAPI, channel).fetchX509SVID({}, { metadata: { 'workload.spiffe.io': 'true' } })) {
      console.log(svids[0].spiffeId)
      break
    }`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, listener.address], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  await once(child, 'exit')
  expect(line.toString().trim()).toBe('spiffe://example.org/web')
  expect(seen).toEqual([child.pid])
  await until(() => !byPid.get(child.pid!)!.stillThere())
  rmSync(folder, { recursive: true, force: true })
}, 15_000)
