import { type Socket } from 'node:net'
import { isIP } from 'node:net'
import { connect as connectTlsSocket } from 'node:tls'
import {
  CallCredentials,
  type CallOptions as GrpcCallOptions,
  ChannelCredentials,
  Client as GrpcClient,
  type ClientDuplexStream,
  Metadata,
  type ServiceError,
  status as Status,
} from '@grpc/grpc-js'
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import { deadline, systemClock } from '../kernel/clock.ts'
import { type Duration, seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { pathOf } from './handler.ts'
import { incoming } from './incoming.ts'
import { detailsTrailer, fromWireStatus } from './status.ts'
import { keyExchange, keyExchangeOf, presentedChain, tlsDefaults, type TlsIdentity, tlsKeyPair } from './tls-material.ts'

/** A way to somebody who answers calls. Connections are made when needed, and anew when they broke. */
export interface Channel extends AsyncDisposable {
  /** Begins one call, in bytes. */
  start(method: DescMethod, options: CallOptions): RawCall
}

/** One call in bytes, whatever its kind: a stream out and a stream in. */
export interface RawCall {
  /** Resolves when more may be sent. */
  send(message: Uint8Array): Promise<void>
  /** Says that nothing more will be sent. */
  end(): void
  /** What comes back; throws the Failure that the call ended with. Leaving it early cancels the call. */
  readonly responses: AsyncGenerator<Uint8Array, void, void>
  cancel(): void
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined
  /** For a single answer 30 s if left out; for a stream none. */
  readonly timeout?: Duration | undefined
  readonly metadata?: Readonly<Record<string, string>> | undefined
}

/**
 * A service as its callers see it. Every failure is a `Failure`: category by the status code, reason `rpc.<status name>`,
 * details through `detailsOf` of status.ts.
 */
export type Client<S extends DescService> = {
  readonly [Name in keyof S['method']]: ClientMethod<S['method'][Name]>
}

type ClientMethod<M> = M extends {
  readonly methodKind: infer Kind
  readonly input: infer I extends DescMessage
  readonly output: infer O extends DescMessage
}
  ? Kind extends 'unary'
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : Kind extends 'server_streaming'
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncGenerator<MessageShape<O>, void, void>
      : (options?: CallOptions) => Conversation<I, O>
  : never

/** A call in which both sides speak as they like. */
export interface Conversation<I extends DescMessage, O extends DescMessage> {
  /** Resolves when more may be sent. */
  send(message: MessageInitShape<I>): Promise<void>
  end(): void
  /** Leaving it early cancels the call. */
  readonly responses: AsyncGenerator<MessageShape<O>, void, void>
}

/** A typed client of a service on a channel. */
export function clientOf<S extends DescService>(service: S, channel: Channel): Client<S> {
  return Object.fromEntries(service.methods.map((method) => [method.localName, callerOf(method, channel)])) as Client<S>
}

/** A channel to a Unix socket, without TLS. The first call tells whether somebody listens. */
export function connectUnix(path: string, options: ChannelSettings = {}): Channel {
  return new GrpcChannel(`unix:${path}`, ChannelCredentials.createInsecure(), options)
}

/** A channel to a TCP address without TLS, for what the standard permits it: a Workload API (SPIFFE Workload Endpoint section 3.1). */
export function connectTcp({ host, port }: { readonly host: string; readonly port: number }, options: ChannelSettings = {}): Channel {
  const target = isIP(host) === 6 ? `ipv6:[${host}]:${port}` : `ipv4:${host}:${port}`
  return new GrpcChannel(target, ChannelCredentials.createInsecure(), options)
}

export interface TlsConnecting extends ChannelSettings {
  readonly host: string
  readonly port: number
  /** Refuses a server without X25519MLKEM768 at the handshake (C-32). */
  readonly requirePostQuantum?: boolean | undefined
  /**
   * Judges the certificates that the server presented (DER, leaf first; never empty). Throwing ends the connection
   * before a byte of a request was sent. Nothing else is verified, host names least of all.
   */
  verify(chain: readonly Uint8Array[]): void | Promise<void>
  /** Our certificate and key, asked for at each new connection; undefined presents none. */
  identity?(): TlsIdentity | undefined
  /** Told how each connection that was verified is secured: the group of its key exchange, `X25519MLKEM768` for example (C-32). */
  connected?(secured: { readonly protocol: string; readonly keyExchange: string }): void
}

/** A channel to a TCP address with TLS, verified by the caller's own rules. */
export function connectTls(connecting: TlsConnecting): Channel {
  const host = isIP(connecting.host) === 6 ? `[${connecting.host}]` : connecting.host
  const credentials = new VerifiedTls(connecting)
  return new GrpcChannel(`dns:${host}:${connecting.port}`, credentials, connecting, () => credentials.lastRefusal)
}

export interface ChannelSettings {
  /** Bytes of one message in; 4 MiB if left out. */
  readonly messageBytes?: number | undefined
}

function callerOf(method: DescMethod, channel: Channel): unknown {
  switch (method.methodKind) {
    case 'unary':
      return (request: object, options: CallOptions = {}) => askOnce(channel, method, request, options)
    case 'server_streaming':
      return (request: object, options: CallOptions = {}) => askForStream(channel, method, request, options)
    case 'client_streaming':
    case 'bidi_streaming':
      return (options: CallOptions = {}) => converse(channel, method, options)
    default:
      throw new Error('bug: a method of no kind')
  }
}

async function askOnce(channel: Channel, method: DescMethod, request: object, options: CallOptions): Promise<unknown> {
  const responses = askForStream(channel, method, request, { ...options, timeout: options.timeout ?? usualTimeout })
  let answer: unknown
  for await (const response of responses) {
    if (answer !== undefined) throw badAnswer(method, 'more than one answer')
    answer = response
  }
  if (answer === undefined) throw badAnswer(method, 'no answer')
  return answer
}

async function* askForStream(
  channel: Channel,
  method: DescMethod,
  request: object,
  options: CallOptions,
): AsyncGenerator<unknown, void, void> {
  const call = channel.start(method, options)
  try {
    // Not awaited: a call that fails before its request has left says so in its responses.
    call.send(encode(method.input, request)).catch(() => {})
    call.end()
    for await (const bytes of call.responses) yield decode(method, bytes)
  } finally {
    call.cancel()
  }
}

function converse(channel: Channel, method: DescMethod, options: CallOptions): Conversation<DescMessage, DescMessage> {
  const call = channel.start(method, options)
  return {
    send: (message) => call.send(encode(method.input, message)),
    end: () => call.end(),
    responses: (async function* () {
      try {
        for await (const bytes of call.responses) yield decode(method, bytes)
      } finally {
        call.cancel()
      }
    })(),
  }
}

class GrpcChannel implements Channel {
  readonly #client: GrpcClient
  readonly #lastRefusal: () => unknown
  readonly #calls = new Set<ClientDuplexStream<Buffer, Buffer>>()

  constructor(
    target: string,
    credentials: ChannelCredentials,
    { messageBytes = usualMessageBytes }: ChannelSettings,
    lastRefusal: () => unknown = () => undefined,
  ) {
    this.#lastRefusal = lastRefusal
    this.#client = new GrpcClient(target, credentials, {
      'grpc.enable_channelz': 0,
      // A proxy named by the environment would see, and could redirect, calls between our own programs.
      'grpc.enable_http_proxy': 0,
      'grpc.use_local_subchannel_pool': 1,
      'grpc.service_config_disable_resolution': 1,
      'grpc.max_receive_message_length': messageBytes,
      'grpc.initial_reconnect_backoff_ms': 200,
      'grpc.max_reconnect_backoff_ms': 5000,
      'grpc.keepalive_time_ms': 60_000,
      'grpc.keepalive_timeout_ms': 20_000,
    })
  }

  start(method: DescMethod, { signal, timeout, metadata = {} }: CallOptions): RawCall {
    const options: GrpcCallOptions = timeout === undefined ? {} : { deadline: systemClock.now() + timeout }
    const sent = new Metadata()
    for (const [key, value] of Object.entries(metadata)) sent.set(key, value)
    const stream = this.#client.makeBidiStreamRequest<Buffer, Buffer>(pathOf(method), same, same, sent, options)
    this.#calls.add(stream)
    const ended = new AbortController()
    const cancel = () => stream.cancel()
    signal?.addEventListener('abort', cancel, { signal: ended.signal })
    if (signal?.aborted) cancel()
    // The stream's one answer to everything is its status, and it may come before anybody listens to the responses.
    let broken: { readonly error: unknown } | undefined
    stream.on('error', (error) => {
      broken ??= { error }
    })
    stream.on('status', () => {
      ended.abort()
      this.#calls.delete(stream)
    })
    const lastRefusal = this.#lastRefusal
    return {
      cancel,
      end: () => stream.end(),
      send: (message) => write(stream, message, ended.signal),
      responses: (async function* () {
        try {
          yield* incoming(stream, neverAborted)
          if (broken) throw broken.error
        } catch (error) {
          if (signal?.aborted) throw Failure.from(signal.reason)
          throw failureOf(error, lastRefusal())
        } finally {
          cancel()
        }
      })(),
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const call of this.#calls) call.cancel()
    this.#client.close()
  }
}

/**
 * TLS credentials that verify the server by a function of ours, whatever the library thinks of its certificate.
 * The library sends its first byte on a socket when `connect` has resolved, and not before.
 */
class VerifiedTls extends ChannelCredentials {
  readonly #connecting: TlsConnecting
  /** Why the last connection was refused by us; undefined if it was not. */
  lastRefusal: unknown

  constructor(connecting: TlsConnecting) {
    super()
    this.#connecting = connecting
  }

  override _isSecure(): boolean {
    return true
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other
  }

  override _createSecureConnector(): ReturnType<ChannelCredentials['_createSecureConnector']> {
    return {
      connect: (socket) => this.#handshake(socket),
      waitForReady: async () => {},
      getCallCredentials: () => CallCredentials.createEmpty(),
      destroy: () => {},
    }
  }

  async #handshake(socket: Socket): Promise<{ socket: Socket; secure: boolean }> {
    const { host, requirePostQuantum, verify, connected } = this.#connecting
    const identity = this.#connecting.identity?.()
    const tls = connectTlsSocket({
      ...tlsDefaults,
      ...keyExchange(requirePostQuantum),
      ...(identity && tlsKeyPair(identity)),
      ...(isIP(host) === 0 && { servername: host }),
      socket,
      ca: [],
      // Judged below, by `verify`: SPIFFE identities are no host names, and their authorities are not the system's.
      rejectUnauthorized: false,
    })
    try {
      await secured(tls, deadline(handshakeTimeout))
      if (tls.alpnProtocol !== 'h2') throw new Failure('unavailable', 'tls.no-http2', { public: 'the server does not speak HTTP/2' })
      const chain = presentedChain(tls)
      if (chain.length === 0) throw new Failure('unauthenticated', 'tls.no-certificate', { public: 'the server presented no certificate' })
      await verify(chain)
      this.lastRefusal = undefined
      connected?.({ protocol: tls.getProtocol() ?? '', keyExchange: keyExchangeOf(tls) })
      return { socket: tls, secure: true }
    } catch (error) {
      this.lastRefusal = error
      tls.destroy()
      throw error
    }
  }
}

function secured(tls: ReturnType<typeof connectTlsSocket>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
    // Stays for the life of the socket: a late error of a socket that was given up must not be thrown at the process.
    tls.on('error', reject)
    tls.once('close', () => reject(new Error('the connection was closed during the handshake')))
    tls.once('secureConnect', () => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    })
  })
}

/** A call that has ended takes nothing more; its responses tell why. */
function write(stream: ClientDuplexStream<Buffer, Buffer>, message: Uint8Array, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (ended.aborted || stream.write(Buffer.from(message.buffer, message.byteOffset, message.byteLength))) return resolve()
    const done = () => {
      stream.off('drain', done)
      ended.removeEventListener('abort', done)
      resolve()
    }
    stream.on('drain', done)
    ended.addEventListener('abort', done)
  })
}

function failureOf(error: unknown, lastRefusal: unknown): Failure {
  if (!isServiceError(error)) return Failure.from(error)
  const details = error.metadata.get(detailsTrailer)[0]
  // Why nobody was reached stands in the error alone, and why the server was refused is what keeps a call waiting;
  // anything else is the status once more.
  const unreached = error.code === Status.UNAVAILABLE ? error : undefined
  const cause = unreached || error.code === Status.DEADLINE_EXCEEDED ? (lastRefusal ?? unreached) : undefined
  return fromWireStatus({ code: error.code, text: error.details, details: Buffer.isBuffer(details) ? details : undefined }, cause)
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error
}

function encode(schema: DescMessage, message: object): Uint8Array {
  return toBinary(schema, create(schema, message as Record<string, unknown>))
}

function decode(method: DescMethod, bytes: Uint8Array): MessageShape<DescMessage> {
  try {
    return fromBinary(method.output, bytes)
  } catch (error) {
    throw badAnswer(method, 'a malformed answer', error)
  }
}

function badAnswer(method: DescMethod, what: string, cause?: unknown): Failure {
  return new Failure('internal', 'rpc.bad-answer', { public: `${what} to \`${pathOf(method)}\``, cause })
}

const same = (bytes: Buffer): Buffer => bytes
const usualTimeout = seconds(30)
const handshakeTimeout = seconds(10)
const usualMessageBytes = 4 * 1024 * 1024
const neverAborted = new AbortController().signal
