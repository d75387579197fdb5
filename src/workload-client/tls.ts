/** Mutual TLS between workloads: both ends prove a SPIFFE ID, and a rotation needs no restart. */
import { constants } from 'node:crypto'
import { Agent as HttpsAgent, createServer as createHttpsServer, type Server as HttpsServer } from 'node:https'
import type { IncomingMessage, RequestListener } from 'node:http'
import { connect, type ConnectionOptions, type PeerCertificate, type SecureContextOptions, type TLSSocket, type TlsOptions } from 'node:tls'
import { Failure } from '../kernel/failure.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { PeerMatcher } from '../spiffe/matcher.ts'
import { verifyX509Svid } from '../spiffe/x509-svid.ts'
import { parseCertificate, type Certificate } from '../x509/certificate.ts'
import { formatPem } from '../x509/pem.ts'
import type { X509Source } from './source.ts'

/**
 * Options for `tls.connect`, `https.request`, `http2.connect` and grpc-js: our certificate of this moment, and a check that refuses
 * every server that `accept` does not name, before anything is sent. Host names play no part.
 */
export function tlsClientOptions(source: X509Source, accept: PeerMatcher): ConnectionOptions {
  return {
    ...credentials(source),
    rejectUnauthorized: true,
    checkServerIdentity: (_host, presented) => refusal(() => verifyPeer(source, chainOf(presented), accept)),
  }
}

/**
 * Options for `tls.createServer`, `https.createServer` and `http2.createSecureServer` as of this moment: a client certificate is required and must
 * chain to the bundle. {@link serveMtls} also follows rotation and checks the SPIFFE ID; with these options alone that is the caller's part,
 * by {@link peerOf}.
 */
export function tlsServerOptions(source: X509Source): TlsOptions {
  return { ...credentials(source), requestCert: true, rejectUnauthorized: true }
}

/** An `https.Agent` whose connections are made with {@link tlsClientOptions} of the moment they are opened at. */
export function mtlsAgent(source: X509Source, accept: PeerMatcher): HttpsAgent {
  const agent = new HttpsAgent({ keepAlive: true, maxCachedSessions: 0 })
  agent.createConnection = (options) => connect({ ...(options as ConnectionOptions), ...tlsClientOptions(source, accept) })
  return agent
}

/**
 * An HTTPS server that takes requests only from the workloads that `accept` names, and whose certificate follows the source.
 * Closes the connection of everybody else before a byte of theirs is read. `peerOf(request)` says who is calling.
 */
export function serveMtls(source: X509Source, accept: PeerMatcher, listener: RequestListener): HttpsServer & AsyncDisposable {
  const server = createHttpsServer(tlsServerOptions(source))
  server.prependListener('secureConnection', (socket: TLSSocket) => {
    if (refusal(() => admit(source, socket, accept))) socket.destroy()
  })
  server.on('request', (request, response) => {
    if (peers.has(request.socket)) listener(request, response)
    else request.socket.destroy()
  })
  const stop = new AbortController()
  const following = followRotation(source, server, stop.signal)
  server.once('close', () => stop.abort())
  return Object.assign(server, {
    async [Symbol.asyncDispose]() {
      stop.abort()
      await following
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  })
}

/** Who is calling: the SPIFFE ID that was verified when the connection was made. @throws Failure `mtls.no-peer` */
export function peerOf(request: Pick<IncomingMessage, 'socket'>): SpiffeId {
  const peer = peers.get(request.socket)
  if (peer) return peer
  throw new Failure('unauthenticated', 'mtls.no-peer', { public: 'the connection has no verified peer' })
}

function admit(source: X509Source, socket: TLSSocket, accept: PeerMatcher): void {
  const presented = socket.getPeerCertificate(true)
  peers.set(socket, verifyPeer(source, chainOf(presented), accept))
}

function verifyPeer(source: X509Source, chain: readonly Certificate[], accept: PeerMatcher): SpiffeId {
  const context = source.context.current
  if (!context) throw new Failure('unavailable', 'workload-client.no-identity', { public: 'this workload has no identity' })
  const { spiffeId } = verifyX509Svid(chain, context.bundles, source.clock.now())
  if (accept(spiffeId)) return spiffeId
  throw new Failure('permission_denied', 'mtls.unexpected-peer', { public: `\`${spiffeId}\` is not a peer that is expected here` })
}

/** The chain as the peer sent it, leaf first, without the root that ends it. */
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

async function followRotation(source: X509Source, server: HttpsServer, signal: AbortSignal): Promise<void> {
  for await (const context of source.context.changes(signal)) if (context) server.setSecureContext(credentials(source))
}

/** Session tickets are off: a resumed session would skip the check of the bundle. */
function credentials(source: X509Source): SecureContextOptions {
  const { chainPem, privateKey } = source.identity()
  const authorities = [...(source.context.current?.bundles.all() ?? [])].flatMap((bundle) => bundle.x509Authorities)
  return {
    cert: chainPem,
    key: privateKey.export({ format: 'pem', type: 'pkcs8' }),
    ca: authorities.map(({ certificate }) => formatPem('CERTIFICATE', certificate.raw)),
    minVersion: 'TLSv1.2',
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
