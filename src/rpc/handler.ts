import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  type Message,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import type { Instant } from '../kernel/clock.ts'

/** What a handler knows about the call it answers. */
export interface Call<Peer> {
  /** Aborts when the caller goes away, its deadline passes, or the listener closes. */
  readonly signal: AbortSignal
  /** When the caller stops waiting; absent if it said nothing. */
  readonly deadline?: Instant | undefined
  /** Who is calling, as established when the connection was accepted. Never anything that the caller said. */
  readonly peer: Peer
  readonly metadata: CallMetadata
  /** `/package.Service/Method` */
  readonly method: string
}

/** What the caller sent along with a call. */
export interface CallMetadata {
  /** The values under a key in lower case, in their order; undefined if there are none. Binary values (`…-bin`) as base64. */
  get(key: string): readonly string[] | undefined
}

/**
 * The functions that answer a service's methods, by local name: an async function for one answer,
 * an async generator for a stream of them. They throw `Failure`; anything else tells the caller `internal error`.
 */
export type Handlers<S extends DescService, Peer> = {
  readonly [Name in keyof S['method']]: Handler<S['method'][Name], Peer>
}

/** What a handler may answer: a message, its fields, or {@link Encoded} bytes. */
export type Answer<O extends DescMessage> = MessageInitShape<O> | Encoded

type Handler<M, Peer> = M extends {
  readonly methodKind: infer Kind
  readonly input: infer I extends DescMessage
  readonly output: infer O extends DescMessage
}
  ? Kind extends 'unary'
    ? (request: MessageShape<I>, call: Call<Peer>) => Promise<Answer<O>>
    : Kind extends 'server_streaming'
      ? (request: MessageShape<I>, call: Call<Peer>) => AsyncIterable<Answer<O>>
      : Kind extends 'client_streaming'
        ? (requests: AsyncIterable<MessageShape<I>>, call: Call<Peer>) => Promise<Answer<O>>
        : (requests: AsyncIterable<MessageShape<I>>, call: Call<Peer>) => AsyncIterable<Answer<O>>
  : never

/** A response that is serialised already, so that one serialisation can answer many callers. */
export class Encoded {
  readonly bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }
}

/** Serialises a message once, for handlers to answer with. */
export function encode<O extends DescMessage>(schema: O, message: MessageInitShape<O>): Encoded {
  return new Encoded(toBinary(schema, create(schema, message)))
}

/** A service and what answers it, ready to be served. */
export interface Mounted<Peer> {
  readonly service: DescService
  readonly handlers: Readonly<Record<string, AnyHandler<Peer>>>
}

/** A handler whose message types were forgotten; `dispatch.ts` remembers them by the method's descriptor. */
export type AnyHandler<Peer> = (input: never, call: Call<Peer>) => Promise<object> | AsyncIterable<object>

/** Binds handlers to their service. */
export function mount<S extends DescService, Peer>(service: S, handlers: Handlers<S, Peer>): Mounted<Peer> {
  const erased = handlers as unknown as Readonly<Record<string, AnyHandler<Peer>>>
  for (const method of service.methods) {
    if (typeof erased[method.localName] !== 'function') throw new Error(`bug: \`${pathOf(method)}\` has no handler`)
  }
  return { service, handlers: erased }
}

/**
 * Stands around every call of a listener: authorisation, required headers, measurement.
 * It refuses by throwing, and sees how the call ends by awaiting `next`.
 */
export type Wrap<Peer> = (call: WrappedCall<Peer>, next: () => Promise<void>) => Promise<void>

/** A call as {@link Wrap} sees it: with the request, where there is exactly one. */
export interface WrappedCall<Peer> extends Call<Peer> {
  readonly request?: Message | undefined
}

/** The path of a method on the wire. */
export function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`
}
