import { spawn } from 'node:child_process'
import { createPrivateKey } from 'node:crypto'
import { once } from 'node:events'
import { createServer, request, type RequestOptions } from 'node:https'
import { type AddressInfo, connect as connectTcp, type Server, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { beforeAll, describe, expect, test, vi } from 'vitest'
import { hours, minutes } from '../../src/kernel/duration.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { anyVerified, exactly, memberOf, type PeerMatcher } from '../../src/spiffe/matcher.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { Failure } from '../../src/kernel/failure.ts'
import type { X509Context } from '../../src/workload-client/client.ts'
import type { X509Source } from '../../src/workload-client/source.ts'
import { mtlsAgent, peerOf, serveMtls, tlsClientOptions, tlsServerOptions } from '../../src/workload-client/tls.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { FakeClock } from '../fakes/clock.ts'
import { TestCa, type Wishes } from '../support/test-ca.ts'

/** OpenSSL looks at the machine's clock, so everything is valid now. */
const now = systemClock.now()
const [web, db] = ['/web', '/db'].map((path) => parseSpiffeId(`spiffe://example.org${path}`)) as [
  ReturnType<typeof parseSpiffeId>,
  ReturnType<typeof parseSpiffeId>,
]
let ca: TestCa
let foreign: TestCa

beforeAll(async () => {
  ca = await TestCa.create({ at: now })
  foreign = await TestCa.create({ at: now, trustDomain: 'other.test' })
})

/** A source whose content the test decides: an identity by `signedBy`, and these bundles. */
class HeldSource implements X509Source {
  readonly clock: FakeClock
  readonly context = new WatchedValue<X509Context | undefined>(undefined)
  readonly #id: string

  constructor(id: string, clock: FakeClock) {
    this.#id = id
    this.clock = clock
  }

  static async of(
    id: string,
    {
      clock = new FakeClock(now),
      signedBy = ca,
      trusted = [ca],
      ...wishes
    }: { clock?: FakeClock; signedBy?: TestCa; trusted?: TestCa[] } & Wishes = {},
  ) {
    const source = new HeldSource(id, clock)
    await source.hold({ signedBy, trusted, ...wishes })
    return source
  }

  /** Gives it a new certificate. */
  async hold({ signedBy = ca, trusted = [ca], ...wishes }: { signedBy?: TestCa; trusted?: TestCa[] } & Wishes = {}): Promise<void> {
    const { certificate, keyPem } = await signedBy.leaf({ uris: [this.#id], ...wishes })
    const bundles = trusted.map((one) => ({
      trustDomain: parseTrustDomain(one.trustDomain),
      x509Authorities: [{ certificate: one.certificate, tainted: false }],
      jwtAuthorities: [],
      witAuthorities: [],
      sequence: 1n,
    }))
    const identity = {
      spiffeId: parseSpiffeId(this.#id),
      hint: '',
      chain: [certificate],
      chainPem: formatPem('CERTIFICATE', certificate.raw),
      privateKey: createPrivateKey(keyPem),
    }
    this.context.set({ identities: [identity], bundles: bundleSet(bundles) })
  }

  identity() {
    if (this.context.current) return this.context.current.identities[0]
    throw new Failure('unavailable', 'workload-client.no-identity', { public: 'none' })
  }

  async [Symbol.asyncDispose]() {}
}

/** Our server on a free port: who called it, and how. */
async function serving(source: X509Source, accept: PeerMatcher) {
  const seen: string[] = []
  const server = serveMtls(source, accept, (called, response) => {
    seen.push(peerOf(called))
    response.end(`hello ${peerOf(called)}`)
  })
  return { server, seen, port: await listening(server), [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() }
}

async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

/** One request; rejects with what it failed with. */
function call(port: number, options: RequestOptions): Promise<{ body: string; port: number }> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path: '/', ...options }, (answer) => {
      const { localPort } = answer.socket
      let body = ''
      answer.setEncoding('utf8').on('data', (part: string) => (body += part))
      answer.once('end', () => resolve({ body, port: localPort ?? 0 })).once('error', reject)
    })
    sent.once('error', reject).end()
  })
}

async function callBy(source: X509Source, accept: PeerMatcher, port: number): Promise<string> {
  const agent = mtlsAgent(source, accept)
  try {
    return (await call(port, { agent })).body
  } finally {
    agent.destroy()
  }
}

/** A connection, ready; rejects if it comes to nothing. */
async function handshake(port: number, options: ConnectionOptions): Promise<TLSSocket> {
  const socket = connect({ host: '127.0.0.1', port, ...options })
  await once(socket, 'secureConnect')
  return socket
}

/** Sends a request over a bare connection and tells what came back until it ended. */
function spoken(socket: Socket, text: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = ''
    socket.on('data', (part: Buffer) => (answer += part.toString('latin1')))
    socket.once('error', () => {}).once('close', () => resolve(answer))
    socket.write(text)
  })
}

const get = 'GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'

describe('C-32 where a post-quantum key exchange is required', () => {
  const strictly = { requirePostQuantum: true }

  test('a server without one gets no request, and the caller an error', async () => {
    const [caller, source] = [await HeldSource.of(db), await HeldSource.of(web)]
    const seen: string[] = []
    const old = createServer({ ...tlsServerOptions(source), ecdhCurve: 'X25519:P-256' }, (called) => void seen.push(called.url ?? ''))
    const port = await listening(old)
    const agent = mtlsAgent(caller, anyVerified, strictly)
    await expect(call(port, { agent })).rejects.toThrow(/handshake failure/)
    await expect(handshake(port, tlsClientOptions(caller, anyVerified, strictly))).rejects.toThrow(/handshake failure/)
    expect(seen).toEqual([])
    agent.destroy()
    old.close()
  })

  test('a caller without one is turned away at the handshake, after a rotation of the server too', async () => {
    const [caller, source] = [await HeldSource.of(db), await HeldSource.of(web)]
    const seen: string[] = []
    await using server = serveMtls(source, anyVerified, (called, response) => response.end(seen.push(peerOf(called))), strictly)
    const port = await listening(server)
    const demandStrictness = async () => {
      const usual = tlsClientOptions(caller, anyVerified)
      await expect(handshake(port, { ...usual, ecdhCurve: 'X25519' })).rejects.toThrow(/handshake failure/)
      await expect(handshake(port, { ...usual, maxVersion: 'TLSv1.2' })).rejects.toThrow(/protocol version/)
      expect(await openssl(port)).toMatch(/handshake failure/)
    }
    await demandStrictness()
    await source.hold()
    await demandStrictness()
    expect(seen).toEqual([])
  })

  test('both ends that have one talk, and the caller is told which it was, as everywhere', async () => {
    const [caller, source] = [await HeldSource.of(db), await HeldSource.of(web)]
    const told: unknown[] = []
    for (const options of [strictly, {}]) {
      await using server = serveMtls(source, anyVerified, (_called, response) => response.end('hello'), options)
      const agent = mtlsAgent(caller, anyVerified, { ...options, connected: (secured) => void told.push(secured) })
      expect((await call(await listening(server), { agent })).body).toBe('hello')
      agent.destroy()
    }
    const secured = { protocol: 'TLSv1.3', keyExchange: 'X25519MLKEM768' }
    expect(told).toEqual([secured, secured])
  })

  /** What OpenSSL's own client says to a server when it offers X25519 and P-256 alone. */
  async function openssl(port: number): Promise<string> {
    const client = spawn('openssl', ['s_client', '-connect', `127.0.0.1:${port}`, '-groups', 'X25519:P-256'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    return text(client.stderr)
  }
})

describe('serveMtls refuses', () => {
  test('plain text', async () => {
    await using at = await serving(await HeldSource.of(web), anyVerified)
    const socket = connectTcp(at.port, '127.0.0.1')
    expect(await spoken(socket, get)).not.toContain('HTTP/1.1 200')
    expect(at.seen).toEqual([])
  })

  test('a caller without a certificate', async () => {
    await using at = await serving(await HeldSource.of(web), anyVerified)
    await expect(call(at.port, { agent: false, rejectUnauthorized: false })).rejects.toThrow()
    expect(at.seen).toEqual([])
  })

  test.each<[string, PeerMatcher]>([
    ['another identity of the trust domain', exactly(web)],
    ['R-11 everybody, when nobody is expected', exactly()],
    ['an identity of a trust domain that is not the expected one', memberOf(parseTrustDomain('other.test'))],
  ])('%s', async (_what, accept) => {
    await using at = await serving(await HeldSource.of(web), accept)
    await expect(callBy(await HeldSource.of(db), anyVerified, at.port)).rejects.toThrow()
    expect(at.seen).toEqual([])
  })

  test.each<[string, () => Promise<HeldSource>]>([
    [
      'a caller of a trust domain without a bundle',
      () => HeldSource.of('spiffe://other.test/db', { signedBy: foreign, trusted: [ca, foreign] }),
    ],
    ['R-5 our identity, signed by another trust domain', () => HeldSource.of(db, { signedBy: foreign, trusted: [ca, foreign] })],
    ['an expired certificate', () => HeldSource.of(db, { notBefore: now - hours(2), notAfter: now - hours(1) })],
    ['a certificate from the future', () => HeldSource.of(db, { notBefore: now + hours(1), notAfter: now + hours(2) })],
    ['X-25 an identity without a path', () => HeldSource.of('spiffe://example.org', {})],
    ['X-2 a certificate with two names', () => HeldSource.of(db, { uris: [db, web] })],
  ])('%s', async (_what, caller) => {
    await using at = await serving(await HeldSource.of(web), anyVerified)
    await expect(callBy(await caller(), anyVerified, at.port)).rejects.toThrow()
    expect(at.seen).toEqual([])
  })

  test('R-5 our identity, signed by another trust domain that is federated', async () => {
    await using at = await serving(await HeldSource.of(web, { trusted: [ca, foreign] }), exactly(db))
    await expect(callBy(await HeldSource.of(db, { signedBy: foreign, trusted: [ca, foreign] }), anyVerified, at.port)).rejects.toThrow()
    expect(at.seen).toEqual([])
  })

  test('a certificate that has expired by the clock of the source', async () => {
    await using at = await serving(
      await HeldSource.of(web, { clock: new FakeClock(now + minutes(90)), notAfter: now + hours(3) }),
      anyVerified,
    )
    await expect(callBy(await HeldSource.of(db), anyVerified, at.port)).rejects.toThrow()
    expect(at.seen).toEqual([])
  })

  test('API-15 everybody, once its own identity was withdrawn', async () => {
    const source = await HeldSource.of(web)
    await using at = await serving(source, anyVerified)
    const open = await handshake(at.port, tlsClientOptions(await HeldSource.of(db), anyVerified))
    const closed = once(open, 'close')
    await vi.waitFor(() => expect(open.authorized).toBe(true))
    source.context.set(undefined)
    await closed
    await expect(callBy(await HeldSource.of(db), anyVerified, at.port)).rejects.toThrow()
    expect(at.seen).toEqual([])
  })

  test('to start without an identity', async () => {
    const source = await HeldSource.of(web)
    source.context.set(undefined)
    expect(() => serveMtls(source, anyVerified, () => {})).toThrow(expect.objectContaining({ reason: 'workload-client.no-identity' }))
  })
})

describe('a client refuses', () => {
  test.each<[string, () => Promise<HeldSource>, PeerMatcher, string | undefined]>([
    ['a server that is somebody else', () => HeldSource.of(web), exactly(db), 'mtls.unexpected-peer'],
    ['R-11 every server, when none is expected', () => HeldSource.of(web), exactly(), 'mtls.unexpected-peer'],
    [
      'a server of a trust domain without a bundle',
      () => HeldSource.of('spiffe://other.test/web', { signedBy: foreign, trusted: [ca, foreign] }),
      anyVerified,
      undefined,
    ],
    ['an expired server', () => HeldSource.of(web, { notBefore: now - hours(2), notAfter: now - hours(1) }), anyVerified, undefined],
    ['X-25 a server without a path', () => HeldSource.of('spiffe://example.org'), anyVerified, 'x509-svid.no-path'],
  ])('%s', async (_what, server, accept, reason) => {
    await using at = await serving(await server(), anyVerified)
    const refused = await callBy(await HeldSource.of(db), accept, at.port).catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(Error)
    if (reason) expect(refused).toMatchObject({ reason })
    expect(at.seen).toEqual([])
  })

  test('R-5 a server with our identity, signed by another trust domain that is federated', async () => {
    await using at = await serving(await HeldSource.of(web, { signedBy: foreign, trusted: [ca, foreign] }), anyVerified)
    const refused = await callBy(await HeldSource.of(db, { trusted: [ca, foreign] }), exactly(web), at.port).catch(
      (error: unknown) => error,
    )
    expect(refused).toMatchObject({ category: 'unauthenticated' })
  })

  test('to call when its identity was withdrawn, and the request is what fails', async () => {
    await using at = await serving(await HeldSource.of(web), anyVerified)
    const source = await HeldSource.of(db)
    source.context.set(undefined)
    await expect(callBy(source, anyVerified, at.port)).rejects.toMatchObject({ reason: 'workload-client.no-identity' })
  })
})

describe('R-16 no session is resumed', () => {
  test.each(['TLSv1.2', 'TLSv1.3'] as const)('by our server, in %s', async (version) => {
    await using at = await serving(await HeldSource.of(web), anyVerified)
    const options = { ...tlsClientOptions(await HeldSource.of(db), anyVerified), minVersion: version, maxVersion: version }
    const first = await handshake(at.port, options)
    const tickets: Buffer[] = []
    first.on('session', (ticket) => tickets.push(ticket))
    await spoken(first, get)
    const session = tickets.at(-1) ?? first.getSession()
    const second = await handshake(at.port, { ...options, session })
    expect(second.getProtocol()).toBe(version)
    expect(second.isSessionReused()).toBe(false)
    second.destroy()
  })

  test('by our client, at a server that offers it: whoever is expected the second time is checked', async () => {
    const { secureOptions: _off, ...resumable } = tlsServerOptions(await HeldSource.of(web))
    const server = createServer(resumable, (_request, response) => response.end('hello'))
    const port = await listening(server)
    const source = await HeldSource.of(db)
    const { secureOptions: _none, ...options } = tlsClientOptions(source, exactly(web))
    const first = await handshake(port, options)
    const [session] = (await once(first, 'session')) as [Buffer]
    await spoken(first, get)
    const resumed = await handshake(port, { ...options, session })
    expect(resumed.isSessionReused()).toBe(true)
    resumed.destroy()
    // As an agent that keeps sessions would offer it.
    await expect(handshake(port, { session, ...tlsClientOptions(source, exactly(db)) })).rejects.toMatchObject({
      reason: 'mtls.unexpected-peer',
    })
    server.close()
    server.closeAllConnections()
  })

  test('and a connection ends when the trust domain of its caller is no longer trusted', async () => {
    const source = await HeldSource.of(web, { trusted: [ca, foreign] })
    await using at = await serving(source, anyVerified)
    const theirs = await handshake(
      at.port,
      tlsClientOptions(await HeldSource.of('spiffe://other.test/db', { signedBy: foreign, trusted: [ca, foreign] }), anyVerified),
    )
    const ours = await handshake(at.port, tlsClientOptions(await HeldSource.of(db), anyVerified))
    const closed = once(theirs, 'close')
    const answer = spoken(ours, '')
    await source.hold({ trusted: [ca] })
    await closed
    ours.write(get)
    expect(await answer).toContain(`hello ${db}`)
  })
})

describe('what changes while it runs', () => {
  test('API-4 new connections see the new certificate, and open ones go on', async () => {
    const source = await HeldSource.of(web)
    await using at = await serving(source, exactly(db))
    const options = tlsClientOptions(await HeldSource.of(db), exactly(web))
    const before = await handshake(at.port, options)
    const answer = spoken(before, '')
    await source.hold()
    const wanted = source.identity().chain[0]!.raw
    const after = await handshake(at.port, options)
    expect(Buffer.compare(before.getPeerCertificate().raw, wanted)).not.toBe(0)
    expect(Buffer.compare(after.getPeerCertificate().raw, wanted)).toBe(0)
    after.destroy()
    before.write(get)
    expect(await answer).toContain(`hello ${db}`)
  })

  test('a kept connection of the client serves several requests, and no more after a rotation', async () => {
    await using at = await serving(await HeldSource.of(web), exactly(db))
    const source = await HeldSource.of(db)
    const agent = mtlsAgent(source, exactly(web))
    const [first, second] = [await call(at.port, { agent }), await call(at.port, { agent })]
    expect(second.port).toBe(first.port)
    await source.hold()
    const [last, fresh] = [await call(at.port, { agent }), await call(at.port, { agent })]
    expect(fresh.port).not.toBe(last.port)
    agent.destroy()
  })

  test('a source that ends does not take the server with it', async () => {
    const source = await HeldSource.of(web)
    await using at = await serving(source, exactly(db))
    source.context.close(new Failure('unimplemented', 'rpc.unimplemented', { public: 'gone' }))
    expect(await callBy(await HeldSource.of(db), exactly(web), at.port)).toBe(`hello ${db}`)
  })
})

test('caller and called know each other', async () => {
  await using at = await serving(await HeldSource.of(web), exactly(db))
  expect(await callBy(await HeldSource.of(db), exactly(web), at.port)).toBe(`hello ${db}`)
  expect(at.seen).toEqual([db])
})

test('a request that came another way has no peer', () => {
  expect(() => peerOf({ socket: connectTcp({ port: 1, host: '127.0.0.1' }).on('error', () => {}) })).toThrow(
    expect.objectContaining({ reason: 'mtls.no-peer' }),
  )
})

test('closing the server does not wait for a caller that says nothing', async () => {
  const at = await serving(await HeldSource.of(web), anyVerified)
  const silent = connectTcp(at.port, '127.0.0.1').on('error', () => {})
  await once(silent, 'connect')
  const closed = once(silent, 'close')
  await at[Symbol.asyncDispose]()
  await closed
})
