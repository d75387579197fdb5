import { create, type DescMessage, type DescMethod, fromBinary, type Message, type MessageShape, toBinary } from '@bufbuild/protobuf'
import type { Any } from '@bufbuild/protobuf/wkt'
import { Failure, tellChain } from '../kernel/failure.ts'
import { type Log, type LogField, Secret } from '../kernel/log.ts'
import { type Call, Encoded, type Mounted, type Wrap } from './handler.ts'

/** How every call of a listener is treated, whatever carries it. */
export interface Treatment<Peer> {
  readonly log: Log
  readonly wrap?: Wrap<Peer> | undefined
  /** Details to send along with a failure (`google.rpc.Status.details`); none if left out. */
  readonly detailsOf?: ((failure: Failure) => readonly Any[]) | undefined
}

/** The carrier of one call, in bytes. */
export interface Wire {
  /** The one request, or all of them as they arrive. */
  readonly input: Uint8Array | AsyncIterable<Uint8Array>
  /** Resolves when the message has left, so that a slow reader slows the handler down. */
  send(message: Uint8Array): Promise<void>
}

/**
 * Answers one call: decodes, wraps, runs the handler, sends. Never throws.
 * Returns what to tell the caller if it failed; what the caller may not know is in the log by then.
 */
export async function dispatch<Peer>(
  { handlers }: Mounted<Peer>,
  method: DescMethod,
  call: Call<Peer>,
  wire: Wire,
  { log, wrap }: Treatment<Peer>,
): Promise<Failure | undefined> {
  try {
    const input = wire.input instanceof Uint8Array ? decode(method.input, wire.input) : decodeAll(method.input, wire.input)
    const run = () => answer(handlers, method, input, call, wire)
    await (wrap ? wrap('$typeName' in input ? { ...call, request: input } : call, run) : run())
    call.signal.throwIfAborted()
    return undefined
  } catch (thrown) {
    const failure = Failure.from(call.signal.aborted ? call.signal.reason : thrown)
    tell(log, call, failure)
    return failure
  }
}

/** INVARIANT: `mount` paired these handlers with this descriptor, so the method's input is what the handler takes. */
async function answer<Peer>(
  handlers: Mounted<Peer>['handlers'],
  method: DescMethod,
  input: Message | AsyncIterable<Message>,
  call: Call<Peer>,
  wire: Wire,
): Promise<void> {
  const answers = handlers[method.localName]!(input as never, call)
  if (Symbol.asyncIterator in answers) {
    for await (const one of answers) await wire.send(encodeAnswer(method.output, one))
  } else {
    await wire.send(encodeAnswer(method.output, await answers))
  }
}

function encodeAnswer(schema: DescMessage, answer: object): Uint8Array {
  return answer instanceof Encoded ? answer.bytes : toBinary(schema, create(schema, answer as Record<string, unknown>))
}

async function* decodeAll<I extends DescMessage>(
  schema: I,
  messages: AsyncIterable<Uint8Array>,
): AsyncGenerator<MessageShape<I>, void, void> {
  for await (const bytes of messages) yield decode(schema, bytes)
}

/** Nesting is limited to 100 by the decoder, size by the listener. */
function decode<I extends DescMessage>(schema: I, bytes: Uint8Array): MessageShape<I> {
  try {
    return fromBinary(schema, bytes)
  } catch (error) {
    throw new Failure('invalid_argument', 'rpc.malformed-request', {
      public: `the request is not a valid \`${schema.typeName}\` message`,
      cause: error,
    })
  }
}

/** What went wrong on our side is an error; a refusal is news for the operator; a call that was ended early is neither. */
function tell(log: Log, { method, signal }: Call<unknown>, failure: Failure): void {
  const { reason, category } = failure
  if (signal.aborted) return log.debug('a call ended early', { method, reason })
  const fields = { method, reason, error: tellChain(failure), ...about(failure) }
  if (category === 'internal') log.error('a call failed', fields)
  else log.info('a call was refused', fields)
}

function about(failure: Failure): { about?: LogField } {
  return Object.keys(failure.internal).length === 0 ? {} : { about: loggable(failure.internal, 0) }
}

/** The part of any value that fits into a log line: no bytes, nothing deep, nothing long, no secret. */
function loggable(value: unknown, depth: number): LogField {
  if (value === null || value === undefined || typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint')
    return value
  if (typeof value === 'string') return value.slice(0, maxLogText)
  if (value instanceof Secret || typeof value !== 'object') return `[${typeof value}]`
  if (value instanceof Uint8Array) return `[${value.length} bytes]`
  if (value instanceof Error) return tellChain(value).slice(0, maxLogText)
  if (depth >= maxLogDepth) return '[…]'
  if (Array.isArray(value)) return value.slice(0, maxLogItems).map((item) => loggable(item, depth + 1))
  const plain = Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null
  if (!plain) return textOf(value).slice(0, maxLogText)
  return Object.fromEntries(
    Object.entries(value)
      .slice(0, maxLogItems)
      .map(([key, item]) => [key, loggable(item, depth + 1)]),
  )
}

/** Values of ours say what they are (a SPIFFE ID, a set of selectors); of others, the name of the class must do. */
function textOf(value: object): string {
  const { toString } = value as { toString(): string }
  return toString === Object.prototype.toString ? `[${value.constructor.name}]` : toString.call(value)
}

const maxLogText = 512
const maxLogItems = 64
const maxLogDepth = 3
