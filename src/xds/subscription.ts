/** Envoy's discovery protocol, state of the world: what one stream asks for, what it was sent, and what to answer. Pure. */
import { Failure } from '../kernel/failure.ts'
import { contentVersion, type Resources } from './resources.ts'

/** A request, reduced to what the protocol decides on. */
export interface SubscriptionRequest {
  readonly names: readonly string[]
  /** The nonce of the response that this request answers; empty on a new stream. */
  readonly nonce: string
  /** What the client says is wrong with that response. Its presence alone makes a request a NACK: versions say nothing. */
  readonly rejection?: string
}

/** What a stream subscribes to and what it was sent. A value: every step makes a new one. */
export interface Subscription {
  /** False until the first request was read. */
  readonly open: boolean
  readonly names: ReadonlySet<string>
  /** Asks for everything: names were never given, or one of them is `*`. */
  readonly wildcard: boolean
  /** Once names were given, an empty list means "nothing" and no longer "everything". */
  readonly named: boolean
  /** Name → version as last sent on this stream. A rejected version stays, so that it is not sent again. */
  readonly sent: ReadonlyMap<string, string>
  /** Of the last response. */
  readonly nonce: string
  /** The last response was accepted or rejected already. */
  readonly settled: boolean
}

/** What a stream is sent. */
export interface Answer {
  /** The same for the same subscribed content on every stream, of every agent, after every restart. */
  readonly version: string
  readonly nonce: string
  readonly resources: readonly { readonly name: string; readonly value: Uint8Array }[]
}

/** How a request was understood. */
export type Understood =
  | 'opened'
  /** The names differ from before. */
  | 'changed'
  | 'accepted'
  | 'rejected'
  /** It answers an older response and asks for nothing new. */
  | 'stale'
  /** The same request again, after its response was settled: somebody at the other end is waiting. */
  | 'repeated'

export interface Step {
  readonly subscription: Subscription
  readonly understood: Understood
  /** Left out when the right answer is silence. */
  readonly answer?: Answer
  /** Newly asked for, and not there. They are remembered and sent when they appear. */
  readonly missing: readonly string[]
}

/** A stream before its first request. */
export const newSubscription: Subscription = {
  open: false,
  names: new Set(),
  wildcard: false,
  named: false,
  sent: new Map(),
  nonce: '',
  settled: true,
}

/**
 * Reads one request. `nonce` names the response, if there is one.
 *
 * New names are answered even when their content was sent before, also when the request carries an old nonce: it may be the only
 * sign of the new subscription. Unchanged names are an ACK and get silence, or else every ACK would cause a response.
 * @throws Failure `xds.too-many-names`, `xds.name-too-long`
 */
export function receive(before: Subscription, request: SubscriptionRequest, held: Resources, nonce: string): Step {
  checkNames(request.names)
  const now = asked(before, request)
  const after = { ...before, ...now, sent: stillAsked(before, now), open: true }
  const isCurrent = request.nonce === before.nonce
  const settling = { ...after, settled: before.settled || isCurrent }
  const wanted = held.size === 0 ? [] : newlyWanted(before, after, held)
  const missing = [...after.names].filter((name) => name !== everything && !before.names.has(name) && !held.has(name))

  if (!before.open) return { ...respond(settling, wanted, held, nonce), understood: 'opened', missing }
  if (!sameNames(before, after)) return { ...respond(settling, wanted, held, nonce), understood: 'changed', missing }
  if (request.rejection !== undefined) return { subscription: settling, understood: 'rejected', missing }
  if (!isCurrent) return { subscription: after, understood: 'stale', missing }
  if (!before.settled) return { subscription: settling, understood: 'accepted', missing }
  return { ...repeat(settling, held, nonce), understood: 'repeated', missing }
}

/** What to send because the content changed: the subscribed resources that differ from what was sent, or nothing. */
export function refresh(subscription: Subscription, held: Resources, nonce: string): Pick<Step, 'subscription' | 'answer'> {
  const changed = subscribed(subscription, held).filter((name) => subscription.sent.get(name) !== held.get(name)!.version)
  return respond(subscription, changed, held, nonce)
}

/** Sends everything subscribed once more. */
export function repeat(subscription: Subscription, held: Resources, nonce: string): Pick<Step, 'subscription' | 'answer'> {
  return respond(subscription, subscribed(subscription, held), held, nonce)
}

function asked(before: Subscription, request: SubscriptionRequest): Pick<Subscription, 'names' | 'wildcard' | 'named'> {
  const names = new Set(request.names)
  const named = before.named || names.size > 0
  return { names, named, wildcard: names.has(everything) || !named }
}

/** What is no longer asked for counts as never sent: whoever asks for it again has dropped what it had. */
function stillAsked({ sent }: Subscription, { names, wildcard }: Pick<Subscription, 'names' | 'wildcard'>): Subscription['sent'] {
  if (wildcard || [...sent.keys()].every((name) => names.has(name))) return sent
  return new Map([...sent].filter(([name]) => names.has(name)))
}

function sameNames(a: Subscription, b: Subscription): boolean {
  return a.wildcard === b.wildcard && a.names.size === b.names.size && [...a.names].every((name) => b.names.has(name))
}

/** What `after` asks for and `before` did not. */
function newlyWanted(before: Subscription, after: Subscription, held: Resources): string[] {
  const already = before.open ? new Set(subscribed(before, held)) : new Set()
  return subscribed(after, held).filter((name) => !already.has(name))
}

/** The names that are asked for and there, in a stable order. */
function subscribed(subscription: Subscription, held: Resources): string[] {
  const names = subscription.wildcard ? [...held.keys()] : [...subscription.names].filter((name) => held.has(name))
  return names.toSorted()
}

/** Never an empty response: absence deletes nothing in this protocol, so it would say nothing. */
function respond(
  subscription: Subscription,
  names: readonly string[],
  held: Resources,
  nonce: string,
): Pick<Step, 'subscription' | 'answer'> {
  if (names.length === 0) return { subscription }
  const sent = new Map(subscription.sent)
  for (const name of names) sent.set(name, held.get(name)!.version)
  return {
    subscription: { ...subscription, sent, nonce, settled: false },
    answer: {
      version: contentVersion(
        subscribed(subscription, held)
          .map((name) => `${name}\0${held.get(name)!.version}`)
          .join('\n'),
      ),
      nonce,
      resources: names.map((name) => ({ name, value: held.get(name)!.value })),
    },
  }
}

function checkNames(names: readonly string[]): void {
  if (names.length > maxNames) {
    throw new Failure('resource_exhausted', 'xds.too-many-names', {
      public: `a discovery request names ${names.length} resources: at most ${maxNames}`,
    })
  }
  const long = names.find((name) => name.length > maxNameCharacters)
  if (long !== undefined) {
    throw new Failure('invalid_argument', 'xds.name-too-long', {
      public: `the resource name \`${long.slice(0, 80)}…\` has ${long.length} characters: at most ${maxNameCharacters}`,
    })
  }
}

const everything = '*'
const maxNames = 500
/** A SPIFFE ID has at most 2048 (SPIFFE-ID section 2.3), and no resource of ours has a longer name. */
const maxNameCharacters = 2048
