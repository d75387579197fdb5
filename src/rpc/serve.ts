import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  MethodDefinition,
  Server,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  StatusObject,
} from '@grpc/grpc-js'
import { Metadata, status as Status } from '@grpc/grpc-js'
import type { DescMethod } from '@bufbuild/protobuf'
import { Failure } from '../kernel/failure.ts'
import { dispatch, type Treatment } from './dispatch.ts'
import { type Call, type CallMetadata, type Mounted, pathOf } from './handler.ts'
import { incoming } from './incoming.ts'
import { detailsTrailer, toWireStatus } from './status.ts'

export interface Serving<Peer> extends Treatment<Peer> {
  /** The connection that a call came in on; undefined if it is gone. */
  connectionOf(token: string): Connection<Peer> | undefined
}

export interface Connection<Peer> {
  readonly peer: Peer
  /** How many calls are being answered on it. */
  calls: number
}

/** What is being served. */
export interface Served {
  /** Ends every open stream with `reason`. Calls that wait for one answer go on. */
  endStreams(reason: Failure): void
}

/** Registers services with the gRPC library. Failures become statuses here, as the last step. */
export function serve<Peer>(server: Server, services: readonly Mounted<Peer>[], serving: Serving<Peer>): Served {
  const streams = new Set<EndStream>()
  for (const mounted of services) {
    const definition: Record<string, MethodDefinition<Buffer, Buffer>> = {}
    const implementation: Record<string, AnyCallHandler> = {}
    for (const method of mounted.service.methods) {
      definition[method.localName] = definitionOf(method)
      implementation[method.localName] = implement(mounted, method, serving, streams)
    }
    server.addService(definition, implementation)
  }
  return {
    endStreams(reason) {
      for (const end of streams) end(reason)
    },
  }
}

/** Ends one stream that is being answered. */
type EndStream = (reason: Failure) => void
type AnyCallHandler = handleUnaryCall<Buffer, Buffer> | handleServerStreamingCall<Buffer, Buffer> | handleBidiStreamingCall<Buffer, Buffer>
type AnyServerCall = ServerUnaryCall<Buffer, Buffer> | ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>

function implement<Peer>(mounted: Mounted<Peer>, method: DescMethod, serving: Serving<Peer>, streams: Set<EndStream>): AnyCallHandler {
  switch (method.methodKind) {
    case 'unary':
      return answerOne(mounted, method, serving)
    case 'server_streaming':
      return (stream: ServerWritableStream<Buffer, Buffer>) =>
        void answerMany(mounted, method, serving, streams, stream, () => stream.request)
    // A client stream is served as a stream of one answer: on the wire they are the same.
    case 'client_streaming':
    case 'bidi_streaming':
      return (stream: ServerDuplexStream<Buffer, Buffer>) =>
        void answerMany(mounted, method, serving, streams, stream, (signal) => incoming(stream, signal))
    default:
      throw new Error('bug: a method of no kind')
  }
}

function answerOne<Peer>(mounted: Mounted<Peer>, method: DescMethod, serving: Serving<Peer>): handleUnaryCall<Buffer, Buffer> {
  const path = pathOf(method)
  return (call, callback) => {
    const ending = new AbortController()
    let isAnswered = false
    call.on('cancelled', () => {
      if (!isAnswered) ending.abort(callerLeft)
    })
    let answer: Buffer | undefined
    const send = (message: Uint8Array) => {
      answer = asBuffer(message)
      return sent
    }
    const connection = serving.connectionOf(call.getPeer())
    if (!connection) return callback(statusOf(connectionGone(), serving))
    const finish = (failure: Failure | undefined) => {
      connection.calls--
      isAnswered = true
      if (failure) callback(statusOf(failure, serving))
      else callback(null, answer ?? null)
    }
    connection.calls++
    const seen = seenCall(call, path, connection, ending.signal)
    void dispatch(mounted, method, seen, { input: call.request, send }, serving).then(finish)
  }
}

async function answerMany<Peer>(
  mounted: Mounted<Peer>,
  method: DescMethod,
  serving: Serving<Peer>,
  streams: Set<EndStream>,
  stream: ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>,
  input: (signal: AbortSignal) => Uint8Array | AsyncIterable<Uint8Array>,
): Promise<void> {
  const connection = serving.connectionOf(stream.getPeer())
  if (!connection) return void stream.emit('error', statusOf(connectionGone(), serving))
  const ending = new AbortController()
  let stopSending: ((reason: Failure) => void) | undefined
  const end = (reason: Failure) => {
    ending.abort(reason)
    stopSending?.(reason)
  }
  let isAnswered = false
  let hasLeft = false
  stream.on('cancelled', () => {
    if (isAnswered) return
    hasLeft = true
    end(callerLeft)
  })
  // Each message is awaited, so that at most one is held for a reader that does not read.
  const send = (message: Uint8Array) =>
    new Promise<void>((resolve, reject) => {
      ending.signal.throwIfAborted()
      stopSending = reject
      stream.write(asBuffer(message), (error: Error | null | undefined) => (error ? reject(error) : resolve()))
    })
  streams.add(end)
  connection.calls++
  const seen = seenCall(stream, pathOf(method), connection, ending.signal)
  const failure = await dispatch(mounted, method, seen, { input: input(ending.signal), send }, serving)
  connection.calls--
  streams.delete(end)
  if (hasLeft) return
  isAnswered = true
  if (failure) stream.emit('error', statusOf(failure, serving))
  else stream.end()
}

function seenCall<Peer>(call: AnyServerCall, method: string, { peer }: Connection<Peer>, signal: AbortSignal): Call<Peer> {
  const deadline = call.getDeadline()
  return {
    signal,
    deadline: typeof deadline === 'number' && Number.isFinite(deadline) ? deadline : undefined,
    peer,
    metadata: metadataOf(call.metadata),
    method,
  }
}

function connectionGone(): Failure {
  return new Failure('cancelled', 'rpc.connection-gone', { public: 'the connection is gone' })
}

/** Read when it is asked for: most calls are asked for one key. */
function metadataOf(metadata: Metadata): CallMetadata {
  return {
    get(key) {
      const values = metadata.get(key)
      return values.length === 0 ? undefined : values.map((value) => (typeof value === 'string' ? value : value.toString('base64')))
    },
  }
}

function statusOf<Peer>(failure: Failure, { detailsOf }: Treatment<Peer>): Partial<StatusObject> {
  const status = toWireStatus(failure, detailsOf?.(failure))
  const metadata = new Metadata()
  if (status.details) metadata.set(detailsTrailer, asBuffer(status.details))
  return { code: Status[Status[status.code] as keyof typeof Status], details: status.text, metadata }
}

function definitionOf(method: DescMethod): MethodDefinition<Buffer, Buffer> {
  return {
    path: pathOf(method),
    requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
    responseStream: method.methodKind !== 'unary',
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  }
}

/** Callers leave as often as they come, so this one is made once: an error of its own each time would be a tenth of a call's cost. */
const callerLeft = new Failure('cancelled', 'rpc.caller-left', { public: 'the caller left, or waits no longer' })
const same = (bytes: Buffer): Buffer => bytes
const sent = Promise.resolve()

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
