import { connect as connectHttp2 } from 'node:http2'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { fromBinary } from '@bufbuild/protobuf'
import { anyUnpack } from '@bufbuild/protobuf/wkt'
import { X509Certificate } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { seconds } from '../../src/kernel/duration.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { type CallOptions, clientOf, connectUnix } from '../../src/rpc/client.ts'
import { SecretSchema } from '../../src/rpc/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.ts'
import { SecretDiscoveryService } from '../../src/rpc/gen/envoy/service/secret/v3/sds_pb.ts'
import { SpiffeWorkloadAPI, X509SVIDResponseSchema } from '../../src/rpc/gen/spiffe/workload/workload_pb.ts'
import { mount } from '../../src/rpc/handler.ts'
import { connectInMemory } from '../../src/rpc/in-memory.ts'
import { listenUnix } from '../../src/rpc/listen.ts'
import { secretTypeUrl } from '../../src/sds/secrets.ts'
import { secretDiscovery } from '../../src/sds/service.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { workloadApi } from '../../src/workload-api/service.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'
import { FakeUpstreamServer } from '../fakes/upstream-server.ts'
import { fakeProcess, startAgent, until } from '../agent/rig.ts'
import { temporaryFolder } from '../rpc/carriers.ts'

const header: CallOptions = { metadata: { 'workload.spiffe.io': 'true' } }

describe('what is taken away', () => {
  test('T-4 API-8 a federated bundle that is deleted is gone from the next message of every stream, within one sync', async () => {
    const clock = new FakeClock()
    const foreign = parseTrustDomain('other.example')
    const [server, elsewhere] = [await FakeUpstreamServer.start({ clock }), await FakeUpstreamServer.start({ clock, trustDomain: foreign })]
    await using rig = await startAgent({ clock, server })
    server.federated.set(foreign, elsewhere.currentBundle)
    server.add('/web', ['test:name:web'], { federatesWith: [foreign] })
    await clock.advance(seconds(5))
    const api = clientOf(
      SpiffeWorkloadAPI,
      connectInMemory({ services: [workloadApi(rig.agent)], peer: fakeProcess('test:name:web'), log: silentLog }),
    )
    const [svids, bundles, keys] = [api.fetchX509SVID({}, header), api.fetchX509Bundles({}, header), api.fetchJWTBundles({}, header)]
    const told = async () => {
      const [one, two, three] = await Promise.all([svids.next(), bundles.next(), keys.next()])
      return [one.value?.federatedBundles, two.value?.bundles, three.value?.bundles].map((map) => Object.keys(map ?? {}))
    }
    const [own, other] = ['spiffe://example.org', 'spiffe://other.example']
    expect(await told()).toEqual([[other], [own, other], [own, other]])
    server.federated.delete(foreign)
    const next = told()
    await clock.advance(seconds(5))
    expect(await next).toEqual([[], [own], [own]])
    for (const stream of [svids, bundles, keys]) await stream.return()
  })
})

test('API-26 the first X509-SVID, the first JWT-SVID and the `default` of SDS are one identity', async () => {
  await using rig = await startAgent()
  rig.server.add('/oldest', ['test:name:web'])
  const meant = rig.server.add('/meant', ['test:name:web'], { hint: 'default' })
  await rig.clock.advance(seconds(5))
  const services = [
    workloadApi(rig.agent),
    mount(SecretDiscoveryService, secretDiscovery({ agent: rig.agent, random: seededRandom('sds') })),
  ]
  const channel = connectInMemory({ services, peer: fakeProcess('test:name:web'), log: silentLog })
  const defaults = async () => {
    const api = clientOf(SpiffeWorkloadAPI, channel)
    const stream = api.fetchX509SVID({}, header)
    const x509 = (await stream.next()).value?.svids[0]?.spiffeId
    await stream.return()
    const jwt = (await api.fetchJWTSVID({ audience: ['db'] }, header)).svids[0]?.spiffeId
    const { resources } = await clientOf(SecretDiscoveryService, channel).fetchSecrets({
      resourceNames: ['default'],
      typeUrl: secretTypeUrl,
    })
    const secret = anyUnpack(resources[0]!, SecretSchema)?.type
    const chain = secret?.case === 'tlsCertificate' ? secret.value.certificateChain?.specifier : undefined
    const sds = chain?.case === 'inlineBytes' ? new X509Certificate(chain.value).subjectAltName?.replace('URI:', '') : undefined
    return [x509, jwt, sds]
  }
  expect(await defaults()).toEqual(Array(3).fill('spiffe://example.org/meant'))
  rig.server.change(meant.id, { hint: '' })
  await rig.clock.advance(seconds(5))
  await until(async () => (await defaults()).every((one) => one === 'spiffe://example.org/oldest'))
})

describe('a reader that stops reading', () => {
  test.each<[string, number, (reader: SlowReader) => { pause(): void; resume(): void }]>([
    ['its stream', 65_535, ({ stream }) => stream],
    ['its connection, after granting an endless window', 2 ** 31 - 1, ({ connection }) => connection],
  ])(
    'costs at most 256 KiB and nobody else’s time, and then gets the latest: %s',
    async (_what, window, of) => {
      using folder = temporaryFolder()
      const clock = new FakeClock()
      const server = await FakeUpstreamServer.start({ clock })
      await using rig = await startAgent({ clock, server })
      // Many bundles make each message some 25 KiB.
      const domains = Array.from({ length: 50 }, (_, index) => parseTrustDomain(`d${index}.example`))
      for (const trustDomain of domains) server.federated.set(trustDomain, { ...server.currentBundle, trustDomain })
      const entry = server.add('/web', ['test:name:web'], { federatesWith: domains })
      await clock.advance(seconds(5))
      await using listener = await listenUnix({
        path: join(folder.path, 's'),
        mode: 0o600,
        log: silentLog,
        services: [workloadApi(rig.agent)],
        peerOf: () => fakeProcess('test:name:web'),
      })
      await using slow = await slowReader(listener.address, join(folder.path, 'p'), window)
      await until(() => slow.hints.length === 1)
      of(slow).pause()
      const before = slow.bytes

      await using quick = connectUnix(listener.address)
      const seen = clientOf(SpiffeWorkloadAPI, quick).fetchX509SVID({}, header)
      let size = 0
      for (let round = 0; round < rounds; round++) {
        server.change(entry.id, { hint: `${round}` })
        await clock.advance(seconds(5))
        for (;;) {
          const { value } = await seen.next()
          size = Object.values(value!.federatedBundles).reduce((sum, { length }) => sum + length, 0)
          if (value!.svids[0]!.hint === `${round}`) break
        }
      }
      await seen.return()
      expect(size * rounds).toBeGreaterThan(2 * 1024 * 1024)
      of(slow).resume()
      await until(() => slow.hints.at(-1) === `${rounds - 1}`)
      expect(slow.bytes - before - (await heldByKernel(join(folder.path, 'k')))).toBeLessThan(256 * 1024)
      expect(slow.hints.length).toBeLessThan(rounds / 2)
    },
    30_000,
  )
})

interface SlowReader extends AsyncDisposable {
  readonly stream: { pause(): void; resume(): void }
  /** The side of it that faces the agent. */
  readonly connection: Socket
  readonly hints: readonly string[]
  /** That came from the agent. */
  readonly bytes: number
}

/** A caller of FetchX509SVID that grants a window, behind a proxy that can be held up. */
async function slowReader(agent: string, path: string, window: number): Promise<SlowReader> {
  const connection = connect(agent)
  const proxy = createServer((near) => {
    near.pipe(connection)
    connection.pipe(near)
    for (const socket of [near, connection]) socket.on('error', () => {}).on('close', () => near.destroy())
  })
  await new Promise<void>((resolve) => proxy.listen(path, resolve))
  const session = connectHttp2('http://localhost', { createConnection: () => connect(path), settings: { initialWindowSize: window } })
  session.on('error', () => {})
  session.once('connect', () => session.setLocalWindowSize(window))
  const stream = session.request({
    ':method': 'POST',
    ':path': '/SpiffeWorkloadAPI/FetchX509SVID',
    'content-type': 'application/grpc',
    'workload.spiffe.io': 'true',
  })
  stream.on('error', () => {})
  stream.end(Buffer.alloc(5))
  const hints: string[] = []
  let pending = Buffer.alloc(0)
  stream.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk])
    while (pending.length >= 5 && pending.length >= 5 + pending.readUInt32BE(1)) {
      const end = 5 + pending.readUInt32BE(1)
      hints.push(fromBinary(X509SVIDResponseSchema, pending.subarray(5, end)).svids[0]!.hint)
      pending = pending.subarray(end)
    }
  })
  return {
    stream,
    connection,
    hints,
    get bytes() {
      return connection.bytesRead
    },
    async [Symbol.asyncDispose]() {
      session.destroy()
      connection.destroy()
      await new Promise((resolve) => proxy.close(resolve))
    },
  }
}

/** How much the kernel takes for a reader that does not read. */
async function heldByKernel(path: string): Promise<number> {
  const server = createServer({ pauseOnConnect: true })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  const writer = connect(path).on('error', () => {})
  const reader = await new Promise<Socket>((resolve) => server.once('connection', resolve))
  // Written as the agent does it, in pieces of a frame.
  do {
    writer.write(Buffer.alloc(16_384))
    await new Promise((resolve) => setImmediate(resolve))
  } while (writer.writableLength === 0)
  const held = writer.bytesWritten - writer.writableLength
  for (const socket of [writer, reader]) socket.destroy()
  await new Promise((resolve) => server.close(resolve))
  return held
}

const rounds = 120
