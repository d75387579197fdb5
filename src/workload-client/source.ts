/** X.509 and JWT sources: identities that stay fresh for as long as the source is open. */
import { backoff } from '../kernel/backoff.ts'
import { deadline, systemClock, type Clock } from '../kernel/clock.ts'
import { seconds, type Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { systemRandom } from '../kernel/random.ts'
import { firstOf, WatchedValue, type Watched } from '../kernel/watched.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { openWorkloadApiClient, type JwtSvid, type ValidatedJwtSvid, type X509Context, type X509Identity } from './client.ts'
import { endpointOf } from './endpoint.ts'

export interface SourceOptions {
  /** `unix:///path`; by default what `SPIFFE_ENDPOINT_SOCKET` says. */
  readonly address?: string
  /** How long to wait for the first identity; 30 s by default. */
  readonly timeout?: Duration
  readonly clock?: Clock
}

/** The X509-SVIDs of this workload, replaced as the agent rotates them. */
export interface X509Source extends AsyncDisposable {
  /** What is held now; undefined while the agent says that there is none (any more). */
  readonly context: Watched<X509Context | undefined>
  readonly clock: Clock
  /** The default identity. @throws Failure `workload-client.no-identity` */
  identity(): X509Identity
}

/**
 * Opens a source and resolves when the first identity is there. The stream is opened again, with backoff, whenever it breaks.
 * @throws Failure `endpoint.*`, `workload-client.no-identity` after `timeout`, and whatever the agent says can never work (EP-12, EP-15)
 */
export async function openX509Source(options: SourceOptions = {}): Promise<X509Source> {
  const clock = options.clock ?? systemClock
  const client = openWorkloadApiClient(endpointOf(options.address), clock)
  const context = new WatchedValue<X509Context | undefined>(undefined)
  const stop = new AbortController()
  let latest: Failure | undefined
  const follow = followForever(
    (signal) => client.watchX509(signal),
    (value) => context.set(value),
    (failure) => {
      latest = failure
      // Redacted: what was held before may not be used any longer (API-15).
      if (failure.reason === 'rpc.permission-denied') context.set(undefined)
    },
    { clock, signal: stop.signal },
  ).catch((error: unknown) => context.close(error))
  const source: X509Source = {
    context,
    clock,
    identity() {
      if (context.current) return context.current.identities[0]
      throw noIdentity(latest)
    },
    async [Symbol.asyncDispose]() {
      stop.abort()
      await follow
      context.close()
      await client[Symbol.asyncDispose]()
    },
  }
  try {
    await firstOf(context, (value) => value !== undefined, deadline(options.timeout ?? seconds(30)))
    return source
  } catch (error) {
    await source[Symbol.asyncDispose]()
    throw error instanceof Failure ? error : noIdentity(latest ?? error)
  }
}

/** JWT-SVIDs of this workload, fetched and validated by the agent, which caches them. */
export interface JwtSource extends AsyncDisposable {
  /** @throws Failure as the agent says; `invalid_argument` without an audience */
  fetch(audience: readonly string[], options?: { readonly spiffeId?: SpiffeId; readonly signal?: AbortSignal }): Promise<JwtSvid>
  /** The token's identity and claims, if it is valid for this audience. */
  validate(audience: string, token: string, signal?: AbortSignal): Promise<ValidatedJwtSvid>
}

export function openJwtSource(options: SourceOptions = {}): JwtSource {
  const client = openWorkloadApiClient(endpointOf(options.address), options.clock ?? systemClock)
  const within = (signal?: AbortSignal) => deadline(options.timeout ?? seconds(30), signal)
  return {
    async fetch(audience, { spiffeId, signal } = {}) {
      const [svid] = await client.fetchJwt(audience, spiffeId, within(signal))
      if (!svid) throw noIdentity(undefined)
      return svid
    },
    validate: (audience, token, signal) => client.validateJwt(audience, token, within(signal)),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
}

/**
 * Reads a stream and opens it again when it breaks, until the signal aborts. Returns then;
 * throws what the agent says can never work: a bad request and a method that it does not have (EP-12, EP-15).
 */
export async function followForever<T>(
  open: (signal: AbortSignal) => AsyncIterable<T>,
  onValue: (value: T) => void,
  onFailure: (failure: Failure) => void,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<void> {
  let delays = backoff(systemRandom, { first: seconds(0.2), longest: seconds(5) })
  while (!signal.aborted) {
    try {
      for await (const value of open(signal)) {
        delays = backoff(systemRandom, { first: seconds(0.2), longest: seconds(5) })
        onValue(value)
      }
    } catch (error) {
      if (signal.aborted) return
      const failure = Failure.from(error)
      if (neverWorks.has(failure.reason)) throw failure
      onFailure(failure)
    }
    await clock.sleep(delays.next().value as Duration, signal).catch(() => {})
  }
}

const neverWorks: ReadonlySet<string> = new Set(['rpc.invalid-argument', 'rpc.unimplemented'])

function noIdentity(cause: unknown): Failure {
  const why = cause instanceof Failure ? `: ${cause.message}` : ''
  return new Failure('unavailable', 'workload-client.no-identity', {
    public: `this workload has no identity${why}; ask the operator to run \`vidimus explain workload --pid ${process.pid}\` on this node`,
    cause,
  })
}
