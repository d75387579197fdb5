/** gRPC and protobuf by hand: what is on the wire, read by nothing of ours. */
import { once } from 'node:events'
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http2'
import { connect as connectSocket } from 'node:net'

/** A field of a message: a number (varint) or bytes. */
export type Value = bigint | Buffer
/** A message as its field numbers, each with every value that was sent. */
export type Message = ReadonlyMap<number, readonly Value[]>

export interface Ended {
  /** `grpc-status`; -1 if there was none. */
  readonly status: number
  readonly text: string
}

/** A connection to a socket file. */
export class Wire implements AsyncDisposable {
  readonly #session: ClientHttp2Session

  constructor(socketPath: string) {
    this.#session = connect('http://localhost', { createConnection: () => connectSocket(socketPath) })
    this.#session.on('error', () => {})
  }

  /** Begins a call with one message. Headers are sent as they are, `security` excepted, which is EP-4's. */
  call(path: string, message: Buffer = Buffer.alloc(0), headers: OutgoingHttpHeaders = security): WireCall {
    const stream = this.#session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    })
    const head = Buffer.alloc(5)
    head.writeUInt32BE(message.length, 1)
    stream.end(Buffer.concat([head, message]))
    return new WireCall(stream)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#session, 'close')
    this.#session.destroy()
    await closed
  }
}

/** A call that is under way. */
export class WireCall {
  readonly #stream: ClientHttp2Stream
  readonly #messages: Message[] = []
  #rest = Buffer.alloc(0)
  #ended: Ended | undefined
  #wake = () => {}

  constructor(stream: ClientHttp2Stream) {
    this.#stream = stream
    let status: Ended | undefined
    const note = (headers: IncomingHttpHeaders) => {
      const [code, text] = [headers['grpc-status'], headers['grpc-message'] ?? '']
      if (typeof code === 'string') status = { status: Number(code), text: decodeURIComponent(String(text)) }
    }
    stream.on('response', note).on('trailers', note)
    stream.on('error', () => {})
    stream.on('data', (part: Buffer) => this.#read(part))
    stream.once('close', () => {
      this.#ended = status ?? { status: -1, text: '' }
      this.#wake()
    })
  }

  /** The next message, or how the call ended. @throws Error when nothing comes within `timeoutMs` */
  async next(timeoutMs = 10_000): Promise<Message | Ended> {
    const until = Date.now() + timeoutMs
    for (;;) {
      const message = this.#messages.shift()
      if (message) return message
      if (this.#ended) return this.#ended
      if (Date.now() >= until) throw new Error(`nothing was sent within ${timeoutMs} ms`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, until - Date.now())
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  /** The next message. @throws Error if the call ends instead */
  async message(timeoutMs?: number): Promise<Message> {
    const next = await this.next(timeoutMs)
    if (next instanceof Map) return next
    throw new Error(`the call ended: ${JSON.stringify(next)}`)
  }

  /** How the call ends; messages before that are skipped. */
  async ended(timeoutMs?: number): Promise<Ended> {
    for (;;) {
      const next = await this.next(timeoutMs)
      if (!(next instanceof Map)) return next as Ended
    }
  }

  cancel(): void {
    this.#stream.close()
  }

  #read(part: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, part])
    while (this.#rest.length >= 5) {
      const end = 5 + this.#rest.readUInt32BE(1)
      if (this.#rest.length < end) return
      this.#messages.push(decode(this.#rest.subarray(5, end)))
      this.#rest = this.#rest.subarray(end)
      this.#wake()
    }
  }
}

/** Reads a message of varints and length-delimited fields, which is all that these APIs have besides doubles (skipped). */
function decode(bytes: Buffer): Message {
  const fields = new Map<number, Value[]>()
  let at = 0
  const varint = (): bigint => {
    let value = 0n
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]
      if (byte === undefined) throw new Error('a message is cut off')
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
  }
  while (at < bytes.length) {
    const key = varint()
    const [number, type] = [Number(key >> 3n), Number(key & 7n)]
    let value: Value
    if (type === 0) value = varint()
    else {
      const length = type === 2 ? Number(varint()) : type === 1 ? 8 : 4
      value = bytes.subarray(at, (at += length))
    }
    fields.set(number, [...(fields.get(number) ?? []), value])
  }
  return fields
}

/** A length-delimited field: text, bytes, or a message. */
export function field(number: number, value: string | Buffer): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value
  return Buffer.concat([Buffer.from([(number << 3) | 2]), lengthOf(bytes), bytes])
}

export const bytesOf = (message: Message, number: number): Buffer => {
  const value = message.get(number)?.at(-1)
  return Buffer.isBuffer(value) ? value : Buffer.alloc(0)
}
export const textOf = (message: Message, number: number): string => bytesOf(message, number).toString('utf8')
export const numberOf = (message: Message, number: number): number => Number(message.get(number)?.at(-1) ?? 0n)
export const messagesOf = (message: Message, number: number): Message[] =>
  (message.get(number) ?? []).map((value) => decode(value as Buffer))

/** `map<string, bytes>`: entries with the key in field 1 and the value in field 2. */
export const mapOf = (message: Message, number: number): Map<string, Buffer> =>
  new Map(messagesOf(message, number).map((entry) => [textOf(entry, 1), bytesOf(entry, 2)]))

/** What `google.protobuf.Struct` holds at its top: names, and values as messages. */
export const structOf = (message: Message): Map<string, Message> =>
  new Map(messagesOf(message, 1).map((entry) => [textOf(entry, 1), decode(bytesOf(entry, 2))]))

function lengthOf({ length }: Buffer): Buffer {
  const bytes: number[] = []
  for (let rest = length; ; rest >>= 7) {
    if (rest < 0x80) return Buffer.from([...bytes, rest])
    bytes.push((rest & 0x7f) | 0x80)
  }
}

/** EP-4. */
const security = { 'workload.spiffe.io': 'true' }
