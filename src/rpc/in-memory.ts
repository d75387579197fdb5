import type { DescMethod } from '@bufbuild/protobuf'
import { deadline } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { CallOptions, Channel, RawCall } from './client.ts'
import { dispatch, type Treatment } from './dispatch.ts'
import { type Mounted, pathOf } from './handler.ts'
import { fromWireStatus, toWireStatus } from './status.ts'

export interface InMemory<Peer> extends Treatment<Peer> {
  readonly services: readonly Mounted<Peer>[]
  /** Who is calling. */
  readonly peer: Peer
}

/** A channel to handlers in this process: messages and failures travel as bytes and statuses, as they would on a socket. */
export function connectInMemory<Peer>({ services, peer, ...treatment }: InMemory<Peer>): Channel {
  const closing = new AbortController()
  return {
    start(method, options) {
      const mounted = services.find(({ service }) => service.typeName === method.parent.typeName)
      if (!mounted)
        throw new Failure('unimplemented', 'rpc.unimplemented', { public: `no service \`${method.parent.typeName}\` is served here` })
      return startCall(mounted, method, peer, treatment, options, closing.signal)
    },
    async [Symbol.asyncDispose]() {
      closing.abort()
    },
  }
}

function startCall<Peer>(
  mounted: Mounted<Peer>,
  method: DescMethod,
  peer: Peer,
  treatment: Treatment<Peer>,
  options: CallOptions,
  closing: AbortSignal,
): RawCall {
  const requests = new Handover()
  const responses = new Handover()
  const cancelling = new AbortController()
  const stop = AbortSignal.any([cancelling.signal, closing, ...(options.signal ? [options.signal] : [])])
  const signal = options.timeout === undefined ? stop : deadline(options.timeout, stop)
  const onAbort = () => {
    requests.close(Failure.from(signal.reason))
    responses.close(Failure.from(signal.reason))
  }
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  const metadata = new Map(Object.entries(options.metadata ?? {}).map(([key, value]) => [key.toLowerCase(), [value]]))
  const call = { signal, peer, metadata, method: pathOf(method) }
  void (async () => {
    try {
      const input = await inputOf(method, requests)
      const failure = await dispatch(mounted, method, call, { input, send: (message) => responses.push(message) }, treatment)
      responses.close(failure && overTheWire(failure, treatment))
    } catch (error) {
      responses.close(Failure.from(error))
    }
  })()
  return {
    send: (message) => requests.push(message).catch(() => {}),
    end: () => requests.close(),
    responses: responses.take(),
    cancel: () => cancelling.abort(),
  }
}

async function inputOf(method: DescMethod, requests: Handover): Promise<Uint8Array | AsyncIterable<Uint8Array>> {
  const messages = requests.take()
  if (method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming') return messages
  const first = await messages.next()
  if (first.done) throw new Failure('invalid_argument', 'rpc.no-request', { public: 'the call carried no request' })
  return first.value
}

function overTheWire<Peer>(failure: Failure, treatment: Treatment<Peer>): Failure {
  return fromWireStatus(toWireStatus(failure, treatment.detailsOf?.(failure)))
}

/** Messages from one side to the other, a few held at most, so that a slow reader slows the writer down. */
class Handover {
  readonly #held: Uint8Array[] = []
  #closed: { readonly error?: Error } | undefined
  #news = Promise.withResolvers<void>()

  /** Resolves when the message is held. Throws if nobody will take it. */
  async push(message: Uint8Array): Promise<void> {
    while (this.#held.length >= maxHeld && !this.#closed) await this.#news.promise
    if (this.#closed) throw this.#closed.error ?? new Error('bug: sent after the end')
    this.#held.push(message)
    this.#wake()
  }

  /** Ends the taking side after what is held: quietly, or with `error`. */
  close(error?: Error): void {
    this.#closed ??= error === undefined ? {} : { error }
    this.#wake()
  }

  async *take(): AsyncGenerator<Uint8Array, void, void> {
    for (;;) {
      const message = this.#held.shift()
      if (message) {
        this.#wake()
        yield message
        continue
      }
      if (this.#closed) {
        if ('error' in this.#closed) throw this.#closed.error
        return
      }
      await this.#news.promise
    }
  }

  #wake(): void {
    this.#news.resolve()
    this.#news = Promise.withResolvers()
  }
}

const maxHeld = 4
