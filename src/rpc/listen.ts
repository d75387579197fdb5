import { constants } from 'node:crypto'
import { chmod, lstat, rm } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, type ListenOptions, type Server as NetServer, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { createServer as createTlsServer, type Server as TlsServer, type TLSSocket } from 'node:tls'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import { deadline } from '../kernel/clock.ts'
import { type Duration, minutes, seconds } from '../kernel/duration.ts'
import { type Category, Failure, tellChain } from '../kernel/failure.ts'
import type { Watched } from '../kernel/watched.ts'
import type { Treatment } from './dispatch.ts'
import type { Mounted } from './handler.ts'
import { type Connection, serve } from './serve.ts'
import { keyExchange, presentedChain, tlsDefaults, type TlsIdentity, tlsKeyPair } from './tls-material.ts'

/** What a listener holds at most. Header blocks are limited to 64 KiB and 128 fields by the HTTP/2 library. */
export interface Limits {
  /** Bytes of one message in, after decompression; larger ones are refused at their length prefix. */
  readonly messageBytes: number
  readonly streamsPerConnection: number
  readonly connections: number
  /** How many calls a second one connection may cancel on average, and how many at once; one that cancels more is closed (R-26, rapid reset). */
  readonly cancelsPerSecond: number
  readonly cancelsAtOnce: number
  /** From accepting a TLS connection to knowing who it is. */
  readonly handshake: Duration
  /** A connection without a call is closed after this time. */
  readonly idle: Duration
  /** After this time, give or take a tenth, a connection is told to go and its caller connects anew; undefined keeps it. */
  readonly connectionAge: Duration | undefined
  /** How long calls may take to end after their connection was told to go, or after the listener was closed. */
  readonly grace: Duration
}

const usualLimits: Limits = {
  messageBytes: 4 * 1024 * 1024, // what gRPC clients expect, and SPIRE's page sizes are made for
  streamsPerConnection: 250,
  // Workloads of one node with a connection each or a few; a connection costs two file descriptors and some 20 KiB.
  connections: 4000,
  // A workload that asks for one answer of a stream cancels every call: nothing that answering it would not cost as well.
  cancelsPerSecond: 10_000,
  cancelsAtOnce: 20_000,
  handshake: seconds(10),
  idle: minutes(10),
  connectionAge: undefined,
  grace: seconds(10),
}

/** Cancelling as the HTTP/2 library allows it by itself. SPIRE closes agents' connections after three minutes, so that they spread over its servers. */
const usualTlsLimits: Limits = { ...usualLimits, connections: 10_000, cancelsPerSecond: 33, cancelsAtOnce: 1000, connectionAge: minutes(3) }

interface ListenCommon<Peer> extends Treatment<Peer> {
  readonly services: readonly Mounted<Peer>[]
  readonly limits?: Partial<Limits> | undefined
  /** Closes the listener when it aborts, as disposing it does. */
  readonly signal?: AbortSignal | undefined
}

export interface UnixListening<Peer> extends ListenCommon<Peer> {
  readonly path: string
  /** Permission bits of the socket file, for example 0o666 for a socket that every workload may use. */
  readonly mode: number
  /**
   * Who connected, asked before a byte is read. Throwing closes the connection.
   * A `Disposable` peer is disposed when its connection ends.
   */
  peerOf(socket: Socket): Peer
}

export interface TlsListening<Peer> extends ListenCommon<Peer> {
  readonly host: string
  /** 0 takes any free port. */
  readonly port: number
  /** Our certificate and key; a new one serves new connections. */
  readonly identity: Watched<TlsIdentity>
  /** Refuses clients without X25519MLKEM768 at the handshake (C-32). */
  readonly requirePostQuantum?: boolean | undefined
  /**
   * Who connected, from what it presented, which nobody has verified yet: asked before a byte of HTTP is read. Throwing closes the connection.
   * A `Disposable` peer is disposed when its connection ends.
   */
  peerOf(connection: TlsConnection, signal: AbortSignal): Peer | Promise<Peer>
}

/** What is known about a TLS connection when its handshake is done. */
export interface TlsConnection {
  /** DER, leaf first, unverified; empty if the client has no certificate. The client has proven to hold the leaf's key. */
  readonly chain: readonly Uint8Array[]
  readonly remoteAddress: string
  readonly remotePort: number
}

/** A listener that accepts calls until it is disposed. */
export interface Listener extends AsyncDisposable {
  /** The socket's path, or the IP address. */
  readonly address: string
  /** 0 for a socket file. */
  readonly port: number
}

/**
 * Serves on a Unix socket. The file is there, with its mode, when this returns, and gone when the listener is closed.
 * @throws Failure `listen.socket-path-too-long`, `listen.socket-in-use`, `listen.not-a-socket`, `listen.no-directory`, `listen.not-permitted`
 */
export async function listenUnix<Peer>(listening: UnixListening<Peer>): Promise<Listener> {
  const { path, log } = listening
  await freeSocketPath(path)
  const limits = { ...usualLimits, ...listening.limits }
  const door = openDoor(listening, limits)
  const server = createServer((socket) => {
    socket.on('error', (error) => log.debug('a connection broke', { path, error: tellChain(error) }))
    try {
      door.admit(socket, listening.peerOf(socket))
    } catch (error) {
      log.warn('a connection was refused', { path, error: tellChain(error) })
      socket.destroy()
    }
  })
  await bind(server, { path }, `\`${path}\``)
  try {
    await chmod(path, listening.mode)
  } catch (error) {
    server.close()
    throw error
  }
  return listenerOn(server, door, listening, limits, { address: path, port: 0 })
}

/**
 * Serves on TCP with TLS; the client's certificate is optional. There is no session resumption: every connection is verified.
 * @throws Failure `listen.address-in-use`, `listen.not-permitted`, `listen.address-not-available`
 */
export async function listenTls<Peer>(listening: TlsListening<Peer>): Promise<Listener> {
  const { host, port, identity, log } = listening
  const limits = { ...usualTlsLimits, ...listening.limits }
  const door = openDoor(listening, limits)
  const server = createTlsServer({
    ...serverTls(identity.current, listening),
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: limits.handshake,
  })
  server.on('tlsClientError', (error, socket) => {
    log.debug('a TLS handshake failed', { from: socket.remoteAddress, error: tellChain(error) })
    // The library reports a handshake that takes too long, and leaves the connection open.
    socket.destroy()
  })
  server.on('secureConnection', (socket: TLSSocket) => {
    const from = socket.remoteAddress
    socket.on('error', (error) => log.debug('a connection broke', { from, error: tellChain(error) }))
    admitTls(door, listening, socket, limits.handshake).catch((error: unknown) => {
      log.warn('a connection was refused', { from, error: tellChain(error) })
      socket.destroy()
    })
  })
  await bind(server, { host, port }, `\`${host}:${port}\``)
  const listener = listenerOn(server, door, listening, limits, server.address() as AddressInfo)
  useNewIdentities(server, listening, door.closing).catch((error: unknown) => {
    log.error('the certificate of a listener is no longer kept fresh', { error: tellChain(error) })
  })
  return listener
}

interface Door<Peer> {
  /** Hands a connection to the gRPC library. From here on its calls carry this peer. */
  admit(socket: Socket, peer: Peer): void
  /** Aborts when the door begins to close. */
  readonly closing: AbortSignal
  close(): Promise<void>
}

/**
 * One gRPC server that is given connections instead of accepting them. It tells a call's connection by its remote address,
 * so each connection gets a unique token for one, and the token finds the peer.
 */
function openDoor<Peer>({ services, ...treatment }: ListenCommon<Peer>, limits: Limits): Door<Peer> {
  const server = new Server({
    'grpc.enable_channelz': 0,
    'grpc.max_receive_message_length': limits.messageBytes,
    'grpc.max_concurrent_streams': limits.streamsPerConnection,
    'grpc.max_connection_idle_ms': limits.idle,
    ...(limits.connectionAge !== undefined && {
      'grpc.max_connection_age_ms': limits.connectionAge,
      'grpc.max_connection_age_grace_ms': limits.grace,
    }),
  })
  limitCancels(server, limits)
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure())
  const connections = new Map<string, Connection<Peer> & { readonly socket: Socket }>()
  const served = serve(server, services, { ...treatment, connectionOf: (token) => connections.get(token) })
  const closing = new AbortController()
  const emptied = Promise.withResolvers<void>()
  let admitted = 0

  return {
    admit(socket, peer) {
      if (socket.destroyed || closing.signal.aborted) {
        socket.destroy()
        dispose(peer)
        return
      }
      const token = `connection ${++admitted}`
      connections.set(token, { peer, socket, calls: 0 })
      socket.once('close', () => {
        connections.delete(token)
        dispose(peer)
        if (closing.signal.aborted && connections.size === 0) emptied.resolve()
      })
      Object.defineProperties(socket, { remoteAddress: { value: token }, remotePort: { value: undefined } })
      injector.injectConnection(socket)
    },
    closing: closing.signal,
    async close() {
      closing.abort()
      if (connections.size > 0) {
        served.endStreams(new Failure('unavailable', 'rpc.server-closing', { public: 'the server is closing' }))
        // Later than our own end of the grace: the library's tells callers that they cancelled, a closed socket that we are away.
        injector.drain(limits.grace + seconds(1))
        deadline(limits.grace).addEventListener('abort', () => {
          for (const { socket } of connections.values()) socket.destroy()
        })
        // Told to go, with nothing to wait for: whether the other side goes by itself is its own matter.
        for (const { socket, calls } of connections.values()) if (calls === 0) socket.destroySoon()
        await emptied.promise
      }
      injector.destroy()
      server.forceShutdown()
    },
  }
}

/**
 * The gRPC library hands these options to the HTTP/2 library and has no public way to name this one.
 * A test cancels more calls than the HTTP/2 library allows by itself, and so notices if the library stops doing so.
 */
function limitCancels(server: Server, { cancelsPerSecond, cancelsAtOnce }: Limits): void {
  const { commonServerOptions } = server as unknown as { readonly commonServerOptions?: object }
  if (!commonServerOptions) throw new Error('bug: the gRPC library keeps its HTTP/2 options elsewhere')
  Object.assign(commonServerOptions, { streamResetRate: cancelsPerSecond, streamResetBurst: cancelsAtOnce })
}

async function admitTls<Peer>(door: Door<Peer>, listening: TlsListening<Peer>, socket: TLSSocket, limit: Duration): Promise<void> {
  if (socket.alpnProtocol !== 'h2') throw new Failure('failed_precondition', 'tls.no-http2', { public: 'the client does not speak HTTP/2' })
  const { remoteAddress = '', remotePort = 0 } = socket
  const connection = { chain: presentedChain(socket), remoteAddress, remotePort }
  door.admit(socket, await listening.peerOf(connection, deadline(limit, door.closing)))
}

type TlsNews = Pick<TlsListening<never>, 'identity' | 'requirePostQuantum' | 'log'>

/** A certificate that cannot be used leaves the one before it in place. */
async function useNewIdentities(server: TlsServer, listening: TlsNews, signal: AbortSignal): Promise<void> {
  const { identity, log } = listening
  for await (const current of identity.changes(signal)) {
    try {
      server.setSecureContext(serverTls(current, listening))
    } catch (error) {
      log.error('a new certificate of a listener cannot be used', { error: tellChain(error) })
    }
  }
}

function serverTls(identity: TlsIdentity, { requirePostQuantum }: Pick<TlsNews, 'requirePostQuantum'>) {
  // No authorities of our own: what a client presents is judged by `peerOf` alone.
  return { ...tlsDefaults, ...keyExchange(requirePostQuantum), ...tlsKeyPair(identity), ca: [], secureOptions: constants.SSL_OP_NO_TICKET }
}

function listenerOn<Peer>(
  server: NetServer,
  door: Door<Peer>,
  listening: ListenCommon<Peer>,
  limits: Limits,
  at: { address: string; port: number },
): Listener {
  const { signal, log } = listening
  server.maxConnections = limits.connections
  server.on('drop', () =>
    log.debug('a connection was dropped: there are too many', { address: at.address, connections: limits.connections }),
  )
  server.on('error', (error) => log.error('accepting connections failed', { address: at.address, error: tellChain(error) }))
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  let closed: Promise<void> | undefined
  const close = () => {
    closed ??= (async () => {
      server.close()
      await door.close()
      // What is left has not come through the door yet.
      for (const socket of sockets) socket.destroy()
    })()
    return closed
  }
  if (signal?.aborted) void close()
  else signal?.addEventListener('abort', () => void close(), { once: true, signal: door.closing })
  return { address: at.address, port: at.port, [Symbol.asyncDispose]: close }
}

/** Makes room for a socket file: removes one that nobody answers on, and nothing else. */
async function freeSocketPath(path: string): Promise<void> {
  const bytes = Buffer.byteLength(path)
  if (bytes > maxSocketPathBytes) {
    throw new Failure('invalid_argument', 'listen.socket-path-too-long', {
      public: `the socket path \`${path}\` has ${bytes} bytes: the system takes at most ${maxSocketPathBytes}`,
    })
  }
  const there = await lstat(path).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw listenFailure(error, `\`${path}\``)
  })
  if (!there) return await directoryExists(path)
  if (!there.isSocket()) {
    throw new Failure('failed_precondition', 'listen.not-a-socket', {
      public: `\`${path}\` exists and is not a socket: remove it or choose another path`,
    })
  }
  if (await somebodyListens(path)) {
    throw new Failure('already_exists', 'listen.socket-in-use', { public: `\`${path}\` is in use: another process listens on it` })
  }
  await rm(path, { force: true })
}

/** Asked here, because a missing directory is reported as a missing permission later. */
async function directoryExists(path: string): Promise<void> {
  await lstat(dirname(path)).catch((error: unknown) => {
    throw listenFailure(error, `\`${path}\``)
  })
}

function somebodyListens(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = connect(path)
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') resolve(false)
      // A full backlog or a forbidden socket is somebody's as well.
      else if (error.code === 'EAGAIN' || error.code === 'EACCES' || error.code === 'EPERM') resolve(true)
      else reject(listenFailure(error, `\`${path}\``))
    })
  })
}

/** Resolves when the server listens; `named` is what a refusal calls the address. @throws Failure `listen.*` */
export function bind(server: NetServer, where: ListenOptions, named: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error) => reject(listenFailure(error, named))
    server.once('error', onError)
    server.listen({ ...where, backlog: acceptBacklog }, () => {
      server.off('error', onError)
      resolve()
    })
  })
}

function listenFailure(error: unknown, named: string): Failure {
  const code = (error as NodeJS.ErrnoException).code ?? ''
  const [category, reason, text] = listenErrors[code] ?? ['internal', 'listen.failed', 'cannot listen on $']
  return new Failure(category, reason, { public: text.replace('$', () => named), internal: { code }, cause: error })
}

/** What the system says, and what it means to an operator. */
const listenErrors: Readonly<Record<string, readonly [Category, string, string]>> = {
  EADDRINUSE: ['already_exists', 'listen.address-in-use', '$ is in use: stop the other process or choose another address'],
  EACCES: ['permission_denied', 'listen.not-permitted', 'not permitted to listen on $'],
  EPERM: ['permission_denied', 'listen.not-permitted', 'not permitted to listen on $'],
  EADDRNOTAVAIL: ['invalid_argument', 'listen.address-not-available', '$ is not an address of this machine'],
  ENOTFOUND: ['invalid_argument', 'listen.address-not-available', '$ does not name an address'],
  ENOENT: ['failed_precondition', 'listen.no-directory', 'the directory of $ does not exist'],
  ENOTDIR: ['failed_precondition', 'listen.no-directory', 'the directory of $ does not exist'],
}

function dispose(peer: unknown): void {
  if (typeof peer === 'object' && peer !== null && Symbol.dispose in peer) (peer as Disposable)[Symbol.dispose]()
}

/** `sun_path` of unix(7) holds 108 bytes, the last of them zero. */
const maxSocketPathBytes = 107
/** Callers that come at once wait here; the kernel caps it at `net.core.somaxconn`. */
const acceptBacklog = 4096
