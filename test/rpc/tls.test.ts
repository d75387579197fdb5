import { X509Certificate } from 'node:crypto'
import { connect as connectTcp, createServer, type Socket } from 'node:net'
import { connect, type ConnectionOptions, createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import { clientOf, connectTls, type TlsConnecting } from '../../src/rpc/client.ts'
import { PolicyAdministration } from '../../src/rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { mount } from '../../src/rpc/handler.ts'
import { listenTls, type TlsConnection, type TlsListening } from '../../src/rpc/listen.ts'
import { keptLog, pemOf, testCa } from './carriers.ts'

describe('a TLS listener', () => {
  test('names the address that is taken', async () => {
    const holder = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => holder.once('listening', resolve))
    const { port } = holder.address() as { port: number }
    const failure = await listen({ port }).catch((error: unknown) => error as Failure)
    expect(failure).toMatchObject({
      category: 'already_exists',
      reason: 'listen.address-in-use',
      message: expect.stringContaining(`127.0.0.1:${port}`) as string,
    })
    holder.close()
  })

  test('refuses an address that is not this machine’s', async () => {
    await expect(listen({ host: '192.0.2.1' })).rejects.toMatchObject({ reason: 'listen.address-not-available' })
  })

  test('R-16 resumes no session, in TLS 1.2 and 1.3', async () => {
    await using listener = await listen({})
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const options: ConnectionOptions = {
        port: listener.port,
        ALPNProtocols: ['h2'],
        rejectUnauthorized: false,
        minVersion: version,
        maxVersion: version,
      }
      const first = await handshake(options)
      const session = first.getSession()
      first.destroy()
      const second = await handshake({ ...options, ...(session && { session }) })
      expect(second.getProtocol()).toBe(version)
      expect(second.isSessionReused()).toBe(false)
      second.destroy()
    }
  })

  test('refuses TLS 1.1 and clients that do not speak HTTP/2', async () => {
    await using listener = await listen({})
    const old = {
      port: listener.port,
      rejectUnauthorized: false,
      ALPNProtocols: ['h2'],
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1.1',
      ciphers: 'ALL:@SECLEVEL=0',
    } as const
    await expect(handshake(old)).rejects.toThrow()
    const silent = await handshake({ port: listener.port, rejectUnauthorized: false })
    await new Promise((resolve) =>
      silent
        .once('close', resolve)
        .on('error', () => {})
        .resume(),
    )
  })

  test('agrees on a post-quantum key exchange', async () => {
    await using listener = await listen({})
    const socket = await handshake({ port: listener.port, rejectUnauthorized: false, ALPNProtocols: ['h2'], ecdhCurve: 'X25519MLKEM768' })
    expect(socket.getProtocol()).toBe('TLSv1.3')
    socket.destroy()
  })

  test('C-32 refuses at the handshake whoever has no post-quantum key exchange, where it is required, and after a new certificate too', async () => {
    const identity = new WatchedValue(pemOf(await (await testCa()).leaf()))
    await using strict = await listen({ requirePostQuantum: true, identity })
    const options = { port: strict.port, rejectUnauthorized: false, ALPNProtocols: ['h2'] }
    const demandStrictness = async () => {
      await expect(handshake({ ...options, ecdhCurve: 'X25519' })).rejects.toThrow(/handshake failure/)
      await expect(handshake({ ...options, maxVersion: 'TLSv1.2' })).rejects.toThrow(/protocol version/)
      expect(await versionFrom(strict.port, { requirePostQuantum: true })).toBe('somebody')
      const told: unknown[] = []
      expect(await versionFrom(strict.port, { connected: (secured) => void told.push(secured) })).toBe('somebody')
      expect(told).toEqual([{ protocol: 'TLSv1.3', keyExchange: 'X25519MLKEM768' }])
    }
    const shown = async () => {
      const socket = await handshake(options)
      const serial = socket.getPeerX509Certificate()?.serialNumber
      socket.destroy()
      return serial
    }
    await demandStrictness()
    const next = pemOf(await (await testCa()).leaf())
    identity.set(next)
    await expect.poll(shown).toBe(new X509Certificate(next.cert).serialNumber)
    await demandStrictness()
  })

  test('C-32 says nothing to a server that has no post-quantum key exchange, where it is required', async () => {
    const { cert, key } = pemOf(await (await testCa()).leaf())
    const old = createTlsServer({ cert, key: key as string, ecdhCurve: 'X25519', ALPNProtocols: ['h2'] }).listen(0, '127.0.0.1')
    await new Promise((resolve) => old.once('listening', resolve))
    let secured = 0
    old.on('secureConnection', () => secured++)
    const { port } = old.address() as { port: number }
    await expect(versionFrom(port, { requirePostQuantum: true })).rejects.toMatchObject({ category: 'unavailable' })
    expect(secured).toBe(0)
    await new Promise((resolve) => old.close(resolve))
  })

  test('closes a connection whose peer is refused, before a byte of HTTP', async () => {
    const log = keptLog()
    const peerOf = () => Promise.reject(new Failure('unauthenticated', 'test.stranger', { public: 'stranger' }))
    await using listener = await listen({ peerOf, log })
    await expect(versionFrom(listener.port)).rejects.toMatchObject({ category: 'unavailable' })
    expect(log.lines.find(({ level }) => level === 'warn')).toMatchObject({
      message: 'a connection was refused',
      fields: { error: 'stranger' },
    })
  })

  test('gives up on a peer that is not known in time', async () => {
    const peerOf = (_connection: TlsConnection, signal: AbortSignal) =>
      new Promise<string>((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
    await using listener = await listen({ peerOf, limits: { handshake: 50 } })
    await expect(versionFrom(listener.port)).rejects.toMatchObject({ category: 'unavailable' })
  })

  test('gives up on a client that does not speak, and waits for none when it closes', async () => {
    const listener = await listen({ limits: { handshake: 50 } })
    await closedByOther(connectTcp(listener.port, '127.0.0.1'))
    await listener[Symbol.asyncDispose]()
    const closing = await listen({})
    const silent = closedByOther(connectTcp(closing.port, '127.0.0.1'))
    const spoken = await handshake({ port: closing.port, rejectUnauthorized: false, ALPNProtocols: ['h2'] })
    await closing[Symbol.asyncDispose]()
    await Promise.all([silent, closedByOther(spoken)])
  })

  test('keeps its certificate where a new one cannot be used', async () => {
    const identity = new WatchedValue(pemOf(await (await testCa()).leaf()))
    const log = keptLog()
    await using listener = await listen({ identity, log })
    identity.set({ cert: 'not a certificate', key: 'not a key' })
    await expect.poll(() => log.lines.map(({ message }) => message)).toContain('a new certificate of a listener cannot be used')
    expect(await versionFrom(listener.port)).toBe('somebody')
    const next = pemOf(await (await testCa()).leaf())
    identity.set(next)
    const shown = Promise.withResolvers<string>()
    await versionFrom(listener.port, { verify: ([leaf]) => shown.resolve(new X509Certificate(leaf!).serialNumber) })
    expect(await shown.promise).toBe(new X509Certificate(next.cert).serialNumber)
  })

  test('tells callers with and without a certificate apart on one port', async () => {
    const ca = await testCa()
    const intermediate = await ca.intermediate()
    const leaf = await intermediate.leaf({ uris: ['spiffe://example.org/agent'] })
    const peerOf = ({ chain }: TlsConnection) => chain.map((der) => new X509Certificate(der).subjectAltName ?? 'ca').join(' < ')
    await using listener = await listen({ peerOf })
    const identity = pemOf(leaf, intermediate)
    const [with1, without, with2] = await Promise.all([
      versionFrom(listener.port, { identity: () => identity }),
      versionFrom(listener.port),
      versionFrom(listener.port, { identity: () => identity }),
    ])
    expect(with1).toBe('URI:spiffe://example.org/agent < URI:spiffe://example.org')
    expect(with2).toBe(with1)
    expect(without).toBe('')
  })

  test('shows a new certificate to new connections, and keeps the old ones', async () => {
    const ca = await testCa()
    const [first, second] = [await ca.leaf(), await ca.leaf()]
    const identity = new WatchedValue(pemOf(first))
    await using listener = await listen({ identity })
    const shown: string[] = []
    const verify = ([leaf]: readonly Uint8Array[]) => void shown.push(new X509Certificate(leaf!).serialNumber)
    await using old = connectTls({ host: '127.0.0.1', port: listener.port, verify })
    await clientOf(PolicyAdministration, old).listPolicies({})
    identity.set(pemOf(second))
    await new Promise((resolve) => setImmediate(resolve))
    await clientOf(PolicyAdministration, old).listPolicies({})
    await versionFrom(listener.port, { verify })
    expect(shown).toEqual([first, second].map(({ certificate }) => new X509Certificate(certificate.raw).serialNumber))
  })
})

describe('a TLS channel', () => {
  test('sends a server that it does not accept not one byte', async () => {
    const leaf = pemOf(await (await testCa()).leaf({ uris: ['spiffe://example.org/impostor'] }))
    const received: Buffer[] = []
    const ended = Promise.withResolvers<void>()
    const server = createTlsServer({ cert: leaf.cert, key: leaf.key as string, ALPNProtocols: ['h2'] }, (socket) => {
      socket.on('data', (chunk: Buffer) => received.push(chunk)).on('error', () => {})
    }).listen(0, '127.0.0.1')
    server.on('connection', (socket) => socket.on('close', () => ended.resolve()))
    await new Promise((resolve) => server.once('listening', resolve))
    const { port } = server.address() as { port: number }
    const verify = async ([leaf]: readonly Uint8Array[]) => {
      if (new X509Certificate(leaf!).subjectAltName === 'URI:spiffe://example.org/spire/server') return
      throw new Failure('unauthenticated', 'test.wrong-server', { public: 'the server is somebody else' })
    }
    await expect(versionFrom(port, { verify })).rejects.toMatchObject({ category: 'unavailable', cause: { reason: 'test.wrong-server' } })
    await ended.promise
    expect(Buffer.concat(received)).toHaveLength(0)
    server.close()
  })

  test('refuses a server that does not speak HTTP/2', async () => {
    const { cert, key } = pemOf(await (await testCa()).leaf())
    const server = createTlsServer({ cert, key: key as string }, (socket) => socket.on('error', () => {})).listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const { port } = server.address() as { port: number }
    await expect(versionFrom(port)).rejects.toMatchObject({ cause: { reason: 'tls.no-http2' } })
    server.close()
  })

  test('tells its caller that nobody listens, and its log where', async () => {
    const failure = await versionFrom(1).catch((error: unknown) => error as Failure)
    expect(failure).toMatchObject({ reason: 'rpc.unavailable', message: 'the other side cannot be reached' })
    expect(String((failure as Failure).internal['text'])).toContain('127.0.0.1:1')
  })

  test('reaches a server by name, and by IPv6 address where there is one', async () => {
    await using listener = await listen({ host: 'localhost' })
    expect(await versionFrom(listener.port, { host: 'localhost' })).toBe('somebody')
  })
})

async function listen(wanted: Partial<TlsListening<string>>) {
  return await listenTls<string>({
    host: '127.0.0.1',
    port: 0,
    identity: new WatchedValue(pemOf(await (await testCa()).leaf())),
    peerOf: () => 'somebody',
    log: silentLog,
    services: [
      mount<typeof PolicyAdministration, string>(PolicyAdministration, {
        applyPolicies: async () => ({}),
        listPolicies: async (_request, { peer }) => ({ version: peer }),
      }),
    ],
    ...wanted,
  })
}

async function versionFrom(port: number, wanted: Partial<TlsConnecting> = {}): Promise<string> {
  await using channel = connectTls({ host: '127.0.0.1', port, verify: () => {}, ...wanted })
  return (await clientOf(PolicyAdministration, channel).listPolicies({})).version
}

function closedByOther(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket
      .on('error', () => {})
      .on('close', () => resolve())
      .resume()
  })
}

function handshake(options: ConnectionOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', ...options })
    socket.once('error', reject)
    socket.once('secureConnect', () => {
      // Session tickets of TLS 1.3 come after the handshake, with the first data: the server's HTTP/2 settings.
      if (socket.alpnProtocol === 'h2') socket.once('data', () => resolve(socket))
      else resolve(socket)
    })
  })
}
