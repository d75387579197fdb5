/** gRPC and protobuf by hand: what is on the wire, read by nothing of ours, so that a judge shares no mistake with what it judges. */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http2'
import { connect as connectSocket } from 'node:net'
import { fromUtf8 } from '../kernel/bytes.ts'
import { Failure } from '../kernel/failure.ts'

/** A field of a message: a number (varint) or bytes. */
export type Value = bigint | Uint8Array
/** A message as its field numbers, each with every value that was sent. */
export type Message = ReadonlyMap<number, readonly Value[]>

/** How a call ended. */
export interface Ended {
  /** `grpc-status`; -1 if there was none. */
  readonly status: number
  readonly text: string
}

/** Where somebody listens: a socket file, or an address and a port. */
export type Place = { readonly path: string } | { readonly host: string; readonly port: number }

/** A connection, opened anew when the other side has closed it. */
export class Wire implements AsyncDisposable {
  readonly #place: Place
  #connection: Connection | undefined

  constructor(place: Place) {
    this.#place = place
  }

  /** Begins a call and sends its message. Headers are sent as they are; left out, they are those that every client sends (EP-4). */
  call(path: string, message: Uint8Array = none, headers: OutgoingHttpHeaders = security, { keepOpen = false } = {}): WireCall {
    if (!this.#connection || this.#connection.session.closed || this.#connection.session.destroyed)
      this.#connection = connection(this.#place)
    const { session, broken } = this.#connection
    const request = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers', ...headers }
    const stream = session.request(request)
    if (keepOpen) stream.write(framed(message))
    else stream.end(framed(message))
    return new WireCall(stream, broken)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#connection?.session.destroy()
    await this.#connection?.closed
  }
}

interface Connection {
  readonly session: ClientHttp2Session
  /** Why it broke; undefined if it did not. */
  readonly broken: () => unknown
  readonly closed: Promise<void>
}

function connection(place: Place): Connection {
  const session = connect('http://localhost', { createConnection: () => connectSocket(place) })
  let broken: unknown
  session.on('error', (error) => (broken ??= error))
  return { session, broken: () => broken, closed: new Promise((resolve) => session.once('close', resolve)) }
}

/** A call that is under way. */
export class WireCall {
  readonly #stream: ClientHttp2Stream
  readonly #messages: Message[] = []
  readonly #broken: () => unknown
  #parts: Uint8Array[] = []
  #held = 0
  #ended: Ended | undefined
  #malformed: Failure | undefined
  #contentType: string | undefined
  #news = Promise.withResolvers<void>()

  constructor(stream: ClientHttp2Stream, broken: () => unknown) {
    this.#stream = stream
    this.#broken = broken
    let status: Ended | undefined
    const note = (headers: IncomingHttpHeaders) => {
      const [code, text, type] = [headers['grpc-status'], headers['grpc-message'], headers['content-type']]
      this.#contentType ??= type
      if (typeof code === 'string') status = { status: Number(code), text: decoded(typeof text === 'string' ? text : '') }
    }
    stream.on('response', note).on('trailers', note)
    stream.on('error', () => {})
    stream.on('data', (part: Uint8Array) => this.#read(part))
    stream.once('close', () => {
      this.#ended = status ?? { status: -1, text: '' }
      this.#tell()
    })
  }

  /** `content-type` of the answer; undefined until it has begun. */
  get contentType(): string | undefined {
    return this.#contentType
  }

  /**
   * The next message, or how the call ended.
   * @throws Failure `rpc.unavailable` where nobody answers on the socket, `conformance.malformed` for what is no protobuf, and the signal's reason
   */
  async next(signal: AbortSignal): Promise<Message | Ended> {
    for (;;) {
      const message = this.#messages.shift()
      if (message) return message
      if (this.#malformed) throw this.#malformed
      if (this.#ended) return this.#demandReached(this.#ended)
      await aborting(this.#news.promise, signal)
    }
  }

  /** How the call ends; messages before that are skipped. @throws Failure as {@link next} */
  async ended(signal: AbortSignal): Promise<Ended> {
    for (;;) {
      const next = await this.next(signal)
      if (!isMessage(next)) return next
    }
  }

  cancel(): void {
    this.#stream.close()
  }

  #demandReached(ended: Ended): Ended {
    const broken = this.#broken()
    if (ended.status !== -1 || broken === undefined) return ended
    const text = broken instanceof Error ? broken.message : 'the connection broke'
    throw new Failure('unavailable', 'rpc.unavailable', { public: 'the other side cannot be reached', internal: { text }, cause: broken })
  }

  #tell(): void {
    this.#news.resolve()
    this.#news = Promise.withResolvers<void>()
  }

  #read(part: Uint8Array): void {
    this.#parts.push(part)
    this.#held += part.length
    if (this.#held > maxHeldBytes) return this.#giveUp(`more than ${maxHeldBytes} bytes were sent at once`)
    if (this.#held < 5) return
    let rest = Buffer.concat(this.#parts)
    while (rest.length >= 5) {
      const end = 5 + rest.readUInt32BE(1)
      if (end > maxHeldBytes) return this.#giveUp(`a message has ${end - 5} bytes: at most ${maxHeldBytes}`)
      if (rest.length < end) break
      try {
        this.#messages.push(decode(rest.subarray(5, end)))
      } catch (error) {
        return this.#giveUp(Failure.from(error).message)
      }
      rest = rest.subarray(end)
    }
    this.#parts = rest.length > 0 ? [rest] : []
    this.#held = rest.length
    this.#tell()
  }

  #giveUp(text: string): void {
    this.#malformed = new Failure('invalid_argument', 'conformance.malformed', { public: text })
    this.#stream.close()
    this.#tell()
  }
}

export const isMessage = (next: Message | Ended): next is Message => next instanceof Map

/** A length-delimited field: text, bytes, or a message. */
export function field(number: number, value: string | Uint8Array): Uint8Array {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value
  return Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes])
}

/** Messages and fields one after the other. */
export const joined = (...parts: readonly Uint8Array[]): Uint8Array => Buffer.concat(parts)

export const bytesOf = (message: Message, number: number): Uint8Array => {
  const value = message.get(number)?.at(-1)
  return value instanceof Uint8Array ? value : none
}
export const textOf = (message: Message, number: number): string => textIn(bytesOf(message, number))
export const messagesOf = (message: Message, number: number): Message[] =>
  (message.get(number) ?? []).map((value) => decode(value instanceof Uint8Array ? value : none))

/** `map<string, bytes>`: entries with the key in field 1 and the value in field 2. */
export const mapOf = (message: Message, number: number): Map<string, Uint8Array> =>
  new Map(messagesOf(message, number).map((entry) => [textOf(entry, 1), bytesOf(entry, 2)]))

/** Reads a message of varints, fixed numbers (as their bytes) and length-delimited fields. @throws Failure `conformance.malformed` */
export function decode(bytes: Uint8Array): Message {
  const fields = new Map<number, Value[]>()
  let at = 0
  const number = (): bigint => {
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++]
      if (byte === undefined) break
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
    throw malformed()
  }
  while (at < bytes.length) {
    const key = number()
    const [id, type] = [Number(key >> 3n), Number(key & 7n)]
    const length = type === 0 ? 0 : type === 1 ? 8 : type === 5 ? 4 : type === 2 ? Number(number()) : Number.NaN
    if (!(length <= bytes.length - at)) throw malformed()
    const value = type === 0 ? number() : bytes.subarray(at, (at += length))
    const values = fields.get(id)
    if (values) values.push(value)
    else fields.set(id, [value])
  }
  return fields
}

function varint(value: number): Uint8Array {
  const bytes: number[] = []
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) return Uint8Array.from([...bytes, rest])
    bytes.push((rest & 0x7f) | 0x80)
  }
}

function framed(message: Uint8Array): Uint8Array {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(message.length, 1)
  return Buffer.concat([head, message])
}

/** Waits for either; leaves no listener behind. */
function aborting(news: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(Failure.from(signal.reason))
    signal.addEventListener('abort', onAbort, { once: true })
    void news.then(() => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    })
  })
}

/** A text field; what is no UTF-8 is not a text of protobuf. @throws Failure `conformance.malformed` */
function textIn(bytes: Uint8Array): string {
  try {
    return fromUtf8(bytes)
  } catch {
    throw malformed('a text is not UTF-8')
  }
}

/** `grpc-message` is percent-encoded, and shown as it came where it is not. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

const malformed = (text = 'a message is not protobuf'): Failure =>
  new Failure('invalid_argument', 'conformance.malformed', { public: text })

const none = new Uint8Array(0)
/** EP-4. */
const security = { 'workload.spiffe.io': 'true' }
const maxHeldBytes = 16 * 1024 * 1024
