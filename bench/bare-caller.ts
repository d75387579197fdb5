/** Calls over one HTTP/2 connection without a gRPC library: callers that cost little, so that what is measured is who answers. */
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2, constants } from 'node:http2'
import { connect } from 'node:net'

export class BareCaller implements Disposable {
  readonly #session: ClientHttp2Session
  readonly #metadata: Readonly<Record<string, string>>

  /** `metadata` goes with every call. */
  constructor(socketPath: string, metadata: Readonly<Record<string, string>> = {}) {
    this.#session = connectHttp2('http://localhost', { createConnection: () => connect(socketPath) })
    this.#session.on('error', () => {})
    this.#metadata = metadata
  }

  /** The one answer of a method. */
  ask(path: string, request: Uint8Array): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      let answer: Uint8Array | undefined
      const stream = this.#start(path, request, (message) => {
        answer = message
      })
      stream.once('trailers', (trailers) => {
        if (trailers['grpc-status'] === '0' && answer) resolve(answer)
        else reject(new Error(`${path} ended with status ${String(trailers['grpc-status'])}`))
      })
      stream.once('close', () => reject(new Error(`${path} was left unanswered`)))
    })
  }

  /** The first answer of a stream, which is left then. */
  first(path: string, request: Uint8Array): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const stream = this.#start(path, request, (message) => {
        resolve(message)
        stream.close(constants.NGHTTP2_CANCEL)
      })
      stream.once('close', () => reject(new Error(`${path} was left unanswered`)))
    })
  }

  /** Every answer of a stream, for as long as the connection lives. */
  follow(path: string, request: Uint8Array, onMessage: (message: Uint8Array) => void): void {
    this.#start(path, request, onMessage)
  }

  [Symbol.dispose](): void {
    this.#session.destroy()
  }

  #start(path: string, request: Uint8Array, onMessage: (message: Uint8Array) => void): ClientHttp2Stream {
    const stream = this.#session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', ...this.#metadata })
    stream.on('error', () => {})
    let pending: Buffer = Buffer.alloc(0)
    stream.on('data', (chunk: Buffer) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
      while (pending.length >= prefixBytes) {
        const end = prefixBytes + pending.readUInt32BE(1)
        if (pending.length < end) return
        onMessage(pending.subarray(prefixBytes, end))
        pending = pending.subarray(end)
      }
    })
    const prefix = Buffer.alloc(prefixBytes)
    prefix.writeUInt32BE(request.length, 1)
    stream.end(Buffer.concat([prefix, request]))
    return stream
  }
}

/** Before each message of gRPC: one byte that says whether it is compressed, four of its length. */
const prefixBytes = 5
