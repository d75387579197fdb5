/** Feeds a subscription from the requests of one stream and from resources that change. Knows no transport. */
import type { Clock } from '../kernel/clock.ts'
import { type Duration, minutes } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { hex } from '../kernel/bytes.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import type { Random } from '../kernel/random.ts'
import type { Watched } from '../kernel/watched.ts'
import { xdsMetrics } from './metrics.ts'
import type { Resources } from './resources.ts'
import { type Answer, newSubscription, receive, refresh, repeat, type Step, type Subscription } from './subscription.ts'

/** Who speaks, as it says itself: for logs and for choices of format, never for rights. */
export interface ProxyNode {
  readonly id: string
  readonly metadata?: Readonly<Record<string, unknown>> | undefined
}

/** `envoy.service.discovery.v3.DiscoveryRequest`, the part that is read. */
export interface DiscoveryRequest {
  /** Only the first request of a stream is sure to carry it. */
  readonly node?: ProxyNode | undefined
  readonly resourceNames: readonly string[]
  readonly typeUrl: string
  readonly responseNonce: string
  readonly errorDetail?: { readonly message: string } | undefined
}

/** `envoy.service.discovery.v3.DiscoveryResponse`. */
export interface DiscoveryResponse {
  readonly versionInfo: string
  readonly typeUrl: string
  readonly nonce: string
  readonly resources: { readonly typeUrl: string; readonly value: Uint8Array }[]
}

/** How a stream stands: what operators see of a proxy that refuses what it is sent. */
export interface StreamState {
  readonly node: string
  readonly typeUrl: string
  readonly names: readonly string[]
  readonly sentVersion: string
  readonly acceptedVersion: string
  /** What the proxy said about the last response, if it refused it. */
  readonly rejection?: string
}

export interface StreamOptions {
  readonly typeUrl: string
  /** The resources for this stream. Called once, with the node of the first request. */
  resources(node: ProxyNode): Watched<Resources>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly meter: Meter
  /** Told after every request and every response. */
  report?(state: StreamState): void
  /** How often everything subscribed is sent once more: a proxy whose new watcher asked for nothing recovers by it. */
  readonly heartbeat?: Duration
}

/**
 * Serves one stream until its requests end or `signal` aborts.
 * @throws Failure `xds.wrong-type`, `xds.too-many-names`, `xds.name-too-long`, `xds.too-many-requests`, and whatever the resources are closed with
 */
export async function* serveStream(
  requests: AsyncIterable<DiscoveryRequest>,
  options: StreamOptions,
  signal: AbortSignal,
): AsyncGenerator<DiscoveryResponse, void, void> {
  const ended = new AbortController()
  const until = AbortSignal.any([signal, ended.signal])
  try {
    yield* new Stream(options).run(requests, until)
  } finally {
    ended.abort()
  }
}

/**
 * Answers one request without a stream: what is held of the names that it asks for.
 * @throws Failure as {@link serveStream}
 */
export function fetchOnce(
  request: DiscoveryRequest,
  options: Pick<StreamOptions, 'typeUrl' | 'log'> & { readonly resources: Resources },
): DiscoveryResponse {
  checkType(request, options.typeUrl)
  const step = receive(newSubscription, { names: request.resourceNames, nonce: '' }, options.resources, '')
  logMissing(options.log, step)
  return toResponse(step.answer ?? { version: '', nonce: '', resources: [] }, options.typeUrl)
}

class Stream {
  readonly #options: StreamOptions
  readonly #recent: number[] = []
  #subscription: Subscription = newSubscription
  #log: Log
  #state: StreamState

  constructor(options: StreamOptions) {
    this.#options = options
    this.#log = options.log
    this.#state = { node: '', typeUrl: options.typeUrl, names: [], sentVersion: '', acceptedVersion: '' }
  }

  async *run(requests: AsyncIterable<DiscoveryRequest>, signal: AbortSignal): AsyncGenerator<DiscoveryResponse, void, void> {
    const asking = requests[Symbol.asyncIterator]()
    const first = await untilAborted(asking.next(), signal)
    if (!first || first.done) return
    const watched = this.#open(first.value)
    const type = this.#options.typeUrl
    const sent = this.#options.meter.counter(xdsMetrics.responses, { type })
    // Seen with zero before the first.
    this.#options.meter.counter(xdsMetrics.rejections, { type })
    const changing = watched.changes(signal)
    const beating = this.#beats(signal)

    let asked: Promise<Turn> = Promise.resolve({ from: 'request', result: first })
    let changed = next('change', changing)
    let beat = next('beat', beating)
    for (;;) {
      const turn = await Promise.race([asked, changed, beat])
      if (turn.result.done || signal.aborted) return
      let answer: Answer | undefined
      if (turn.from === 'request') {
        answer = this.#onRequest(turn.result.value, watched.current)
        asked = next('request', asking, signal)
      } else if (turn.from === 'change') {
        answer = this.#take(refresh(this.#subscription, watched.current, this.#nonce()))
        changed = next('change', changing)
      } else {
        answer = this.#take(repeat(this.#subscription, watched.current, this.#nonce()))
        beat = next('beat', beating)
      }
      if (!answer) continue
      sent.add()
      yield toResponse(answer, this.#options.typeUrl)
    }
  }

  #open(first: DiscoveryRequest): Watched<Resources> {
    checkType(first, this.#options.typeUrl)
    const node = first.node ?? { id: '' }
    this.#state = { ...this.#state, node: node.id.slice(0, maxNodeId) }
    this.#log = this.#options.log.with({ node: this.#state.node, type: this.#options.typeUrl })
    return this.#options.resources(node)
  }

  #onRequest(request: DiscoveryRequest, held: Resources): Answer | undefined {
    this.#limitRequests()
    checkType(request, this.#options.typeUrl)
    const rejection = request.errorDetail?.message
    const step = receive(
      this.#subscription,
      { names: request.resourceNames, nonce: request.responseNonce, ...(rejection !== undefined && { rejection }) },
      held,
      this.#nonce(),
    )
    logMissing(this.#log, step)
    if (rejection !== undefined) this.#rejected(rejection)
    else if (step.understood === 'accepted') this.#accepted()
    return this.#take(step)
  }

  #accepted(): void {
    const { rejection: _settled, ...state } = this.#state
    this.#state = { ...state, acceptedVersion: state.sentVersion }
  }

  #rejected(text: string): void {
    const rejection = text.slice(0, maxRejection)
    this.#options.meter.counter(xdsMetrics.rejections, { type: this.#options.typeUrl }).add()
    this.#state = { ...this.#state, rejection }
    this.#log.warn('a proxy refused what it was sent', {
      reason: 'xds.rejected',
      rejection,
      names: this.#state.names,
      sentVersion: this.#state.sentVersion,
      acceptedVersion: this.#state.acceptedVersion,
    })
  }

  #take(step: Pick<Step, 'subscription' | 'answer'>): Answer | undefined {
    this.#subscription = step.subscription
    this.#state = { ...this.#state, names: [...step.subscription.names], ...(step.answer && { sentVersion: step.answer.version }) }
    this.#options.report?.(this.#state)
    return step.answer
  }

  #limitRequests(): void {
    const now = this.#options.clock.now()
    this.#recent.push(now)
    while (this.#recent[0]! < now - minutes(1)) this.#recent.shift()
    if (this.#recent.length > maxRequestsAMinute) {
      throw new Failure('resource_exhausted', 'xds.too-many-requests', {
        public: `more than ${maxRequestsAMinute} discovery requests in a minute on one stream`,
        internal: { node: this.#state.node },
      })
    }
  }

  async *#beats(signal: AbortSignal): AsyncGenerator<void, void, void> {
    for (;;) {
      await untilAborted(this.#options.clock.sleep(this.#options.heartbeat ?? defaultHeartbeat, signal), signal)
      if (signal.aborted) return
      yield
    }
  }

  #nonce(): string {
    return hex(this.#options.random.bytes(8))
  }
}

type Turn =
  | { readonly from: 'request'; readonly result: IteratorResult<DiscoveryRequest, unknown> }
  | { readonly from: 'change'; readonly result: IteratorResult<Resources, void> }
  | { readonly from: 'beat'; readonly result: IteratorResult<void, void> }

/** The next item of a source, or its end, also when `signal` aborts first. */
function next<From extends Turn['from']>(
  from: From,
  source: AsyncIterator<Extract<Turn, { from: From }>['result']['value']>,
  signal?: AbortSignal,
): Promise<Turn> {
  const coming = source.next()
  const turn = (signal ? untilAborted(coming, signal) : coming).then(
    (result) => ({ from, result: result ?? { done: true, value: undefined } }) as Turn,
  )
  // Whoever left the loop meanwhile no longer looks at it.
  turn.catch(() => {})
  return turn
}

/** What the promise brings, or nothing if `signal` aborts first. */
async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  if (signal.aborted) return undefined
  const aborted = Promise.withResolvers<undefined>()
  const onAbort = () => aborted.resolve(undefined)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([promise, aborted.promise])
  } catch (error) {
    if (signal.aborted) return undefined
    throw error
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** Also where the type is implied by the service, a proxy that names another one must not be given ours. */
function checkType(request: DiscoveryRequest, typeUrl: string): void {
  if (request.typeUrl === '' || request.typeUrl === typeUrl) return
  throw new Failure('invalid_argument', 'xds.wrong-type', {
    public: `this service has resources of type \`${typeUrl}\`, not \`${request.typeUrl.slice(0, 200)}\``,
  })
}

function logMissing(log: Log, step: Step): void {
  if (step.missing.length > 0) {
    log.warn('a proxy asks for resources that it has no right to, or that are not there yet', {
      reason: 'xds.no-such-resource',
      names: step.missing.map((name) => name.slice(0, 200)),
    })
  }
}

function toResponse(answer: Answer, typeUrl: string): DiscoveryResponse {
  return {
    versionInfo: answer.version,
    typeUrl,
    nonce: answer.nonce,
    resources: answer.resources.map(({ value }) => ({ typeUrl, value })),
  }
}

const maxNodeId = 200
const maxRejection = 2000
/** A proxy with 500 secrets sends one request for each at its start, and one for each response. */
const maxRequestsAMinute = 10_000
const defaultHeartbeat = minutes(5)
