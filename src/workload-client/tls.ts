/** Mutual TLS between workloads: both ends prove a SPIFFE ID, and a rotation needs no restart. */
import { constants } from 'node:crypto'
import { Agent as HttpsAgent, createServer as createHttpsServer, type Server as HttpsServer } from 'node:https'
import type { IncomingMessage, RequestListener } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect, type ConnectionOptions, type PeerCertificate, type SecureContextOptions, type TLSSocket, type TlsOptions } from 'node:tls'
import type { Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { keyExchange, keyExchangeOf, tlsDefaults } from '../rpc/tls-material.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { PeerMatcher } from '../spiffe/matcher.ts'
import { verifyX509Svid } from '../spiffe/x509-svid.ts'
import { parseCertificate, type Certificate } from '../x509/certificate.ts'
import { formatPem } from '../x509/pem.ts'
import type { X509Context } from './client.ts'
import type { X509Source } from './source.ts'

/** How connections are made, where the usual way is not enough. */
export interface MtlsOptions {
  /** Fails the handshake with whoever has no X25519MLKEM768 (C-32), which is otherwise what is offered first. */
  readonly requirePostQuantum?: boolean
}

/** How {@link mtlsAgent} makes connections. */
export interface MtlsAgentOptions extends MtlsOptions {
  /** Told of each connection whose server was accepted: the group of its key exchange, `X25519MLKEM768` for example. Node tells it to clients only. */
  connected?(secured: { readonly protocol: string; readonly keyExchange: string }): void
}

/**
 * Options for `tls.connect`, `http2.connect` and grpc-js: our certificate of this moment, and a check that refuses
 * every server that `accept` does not name, before anything is sent. Host names play no part. For `https.request` take {@link mtlsAgent}:
 * Node's own agent keeps connections by address, and would hand one that was opened for another `accept` on.
 */
export function tlsClientOptions(source: X509Source, accept: PeerMatcher, options: MtlsOptions = {}): ConnectionOptions {
  return {
    ...credentials(source, options),
    rejectUnauthorized: true,
    checkServerIdentity: (_host, presented) => refusal(() => verifyPeer(source, chainOf(presented), accept, source.clock.now())),
    // Node skips the check above for a resumed session.
    session: undefined,
  }
}

/**
 * Options for `tls.createServer`, `https.createServer` and `http2.createSecureServer` as of this moment: a client certificate is required and must
 * chain to the bundle. {@link serveMtls} also follows rotation and checks the SPIFFE ID; with these options alone that is the caller's part.
 */
export function tlsServerOptions(source: X509Source, options: MtlsOptions = {}): TlsOptions {
  return { ...credentials(source, options), requestCert: true, rejectUnauthorized: true, handshakeTimeout }
}

/**
 * An `https.Agent` whose connections are made with {@link tlsClientOptions} of the moment they are opened at. A kept connection serves no further
 * request once the source has changed: what was trusted then may not be trusted now.
 */
export function mtlsAgent(source: X509Source, accept: PeerMatcher, options: MtlsAgentOptions = {}): HttpsAgent {
  return new MtlsAgent(source, accept, options)
}

/**
 * An HTTPS server that takes requests only from the workloads that `accept` names, and whose certificate follows the source.
 * Closes the connection of everybody else before a byte of theirs is read, and that of a caller whose trust domain is no longer trusted, or
 * whom we can no longer judge because our own identity was withdrawn (R-16, API-15). `peerOf(request)` says who is calling.
 * @throws Failure `workload-client.no-identity`
 */
export function serveMtls(
  source: X509Source,
  accept: PeerMatcher,
  listener: RequestListener,
  options: MtlsOptions = {},
): HttpsServer & AsyncDisposable {
  const server = createHttpsServer(tlsServerOptions(source, options))
  const connections = new Set<Socket>()
  const admitted = new Map<TLSSocket, Admission>()
  server.on('connection', (socket: Socket) => {
    connections.add(socket)
    socket.once('close', () => connections.delete(socket))
  })
  server.prependListener('secureConnection', (socket: TLSSocket) => {
    if (refusal(() => admitted.set(socket, admit(source, socket, accept)))) socket.destroy()
    else socket.once('close', () => admitted.delete(socket))
  })
  server.on('request', (request, response) => {
    if (verifiedPeer(request)) listener(request, response)
    else request.socket.destroy()
  })
  const stop = new AbortController()
  const following = followSource(source, stop.signal, (context) => {
    if (context) server.setSecureContext(credentials(source, options))
    for (const [socket, { chain, at }] of admitted) if (refusal(() => verifyPeer(source, chain, accept, at))) socket.destroy()
  })
  server.once('close', () => stop.abort())
  return Object.assign(server, {
    async [Symbol.asyncDispose]() {
      stop.abort()
      await following
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const socket of connections) socket.destroy()
      await closed
    },
  })
}

/** Who is calling: the SPIFFE ID that was verified when the connection was made. @throws Failure `mtls.no-peer` */
export function peerOf(request: Pick<IncomingMessage, 'socket'>): SpiffeId {
  const peer = verifiedPeer(request)
  if (peer) return peer
  throw new Failure('unauthenticated', 'mtls.no-peer', { public: 'the connection has no verified peer' })
}

/** The same, or undefined for a connection that was not accepted by {@link serveMtls}. */
export function verifiedPeer({ socket }: Pick<IncomingMessage, 'socket'>): SpiffeId | undefined {
  return peers.get(socket)
}

class MtlsAgent extends HttpsAgent {
  readonly #source: X509Source
  readonly #accept: PeerMatcher
  readonly #options: MtlsAgentOptions
  /** What was held when a connection was opened. */
  readonly #openedUnder = new WeakMap<object, X509Context | undefined>()

  constructor(source: X509Source, accept: PeerMatcher, options: MtlsAgentOptions) {
    super({ keepAlive: true, maxCachedSessions: 0, timeout: idleTimeout })
    this.#source = source
    this.#accept = accept
    this.#options = options
  }

  override createConnection(
    ...[options, callback]: Parameters<HttpsAgent['createConnection']>
  ): ReturnType<HttpsAgent['createConnection']> {
    try {
      const own = tlsClientOptions(this.#source, this.#accept, this.#options)
      const socket = connect({ ALPNProtocols: ['http/1.1'], ...(options as ConnectionOptions), ...own })
      const { connected } = this.#options
      if (connected) {
        socket.once('secureConnect', () => connected({ protocol: socket.getProtocol() ?? '', keyExchange: keyExchangeOf(socket) }))
      }
      this.#openedUnder.set(socket, this.#source.context.current)
      return socket
    } catch (error) {
      // The request is to fail, not whoever made room for it by ending another.
      queueMicrotask(() => callback?.(Failure.from(error), undefined as never))
      return undefined
    }
  }

  override keepSocketAlive(socket: Duplex): boolean {
    if (this.#openedUnder.get(socket) !== this.#source.context.current) return false
    return super.keepSocketAlive(socket) as unknown as boolean
  }
}

/** What a peer showed, and when it was let in. */
interface Admission {
  readonly chain: readonly Certificate[]
  readonly at: Instant
}

function admit(source: X509Source, socket: TLSSocket, accept: PeerMatcher): Admission {
  const chain = chainOf(socket.getPeerCertificate(true))
  const at = source.clock.now()
  peers.set(socket, verifyPeer(source, chain, accept, at))
  return { chain, at }
}

function verifyPeer(source: X509Source, chain: readonly Certificate[], accept: PeerMatcher, at: Instant): SpiffeId {
  const context = source.context.current
  if (!context) throw new Failure('unavailable', 'workload-client.no-identity', { public: 'this workload has no identity' })
  const { spiffeId } = verifyX509Svid(chain, context.bundles, at)
  if (accept(spiffeId)) return spiffeId
  throw new Failure('permission_denied', 'mtls.unexpected-peer', { public: `\`${spiffeId}\` is not a peer that is expected here` })
}

/** The chain that OpenSSL found, leaf first; it ends with the root. */
function chainOf(presented: PeerCertificate): Certificate[] {
  const chain: Certificate[] = []
  let at: PeerCertificate | undefined = presented
  while (at?.raw && chain.length < maxChain) {
    const certificate = parseCertificate(at.raw)
    if (chain.some((one) => Buffer.compare(one.raw, certificate.raw) === 0)) break
    chain.push(certificate)
    at = 'issuerCertificate' in at ? (at.issuerCertificate as PeerCertificate) : undefined
  }
  return chain
}

/** Tells of each change until the signal aborts, or the source ends, which whoever opened it learns from the source. */
async function followSource(source: X509Source, signal: AbortSignal, onChange: (context: X509Context | undefined) => void): Promise<void> {
  try {
    for await (const context of source.context.changes(signal)) onChange(context)
  } catch {
    // What is served stays as it is.
  }
}

/** Session tickets are off: a resumed session would skip the check of the bundle. */
function credentials(source: X509Source, { requirePostQuantum }: MtlsOptions): SecureContextOptions {
  const { chainPem, privateKey } = source.identity()
  const { minVersion, ecdhCurve } = tlsDefaults
  const authorities = [...(source.context.current?.bundles.all() ?? [])].flatMap((bundle) => bundle.x509Authorities)
  return {
    cert: chainPem,
    key: privateKey.export({ format: 'pem', type: 'pkcs8' }),
    ca: authorities.map(({ certificate }) => formatPem('CERTIFICATE', certificate.raw)),
    minVersion,
    ecdhCurve,
    ...keyExchange(requirePostQuantum),
    secureOptions: constants.SSL_OP_NO_TICKET,
  }
}

/** What `check` refuses with, or undefined. */
function refusal(check: () => unknown): Error | undefined {
  try {
    check()
    return undefined
  } catch (error) {
    return Failure.from(error)
  }
}

const peers = new WeakMap<object, SpiffeId>()
const maxChain = 8
/** From accepting a connection to knowing who it is. */
const handshakeTimeout = seconds(10)
/** A kept connection that nobody uses is closed after this time. */
const idleTimeout = seconds(10)
