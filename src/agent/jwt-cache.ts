/** JWT-SVIDs by entry and audience, until half life; while the server is away, for as long as they are valid. */
import type { Clock, Instant } from '../kernel/clock.ts'
import { deadline } from '../kernel/clock.ts'
import { type Duration, milliseconds, seconds } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import { fraction, type Random } from '../kernel/random.ts'
import type { Watched } from '../kernel/watched.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { bundleSet } from '../spiffe/bundle-set.ts'
import { verifyJwtSvid } from '../spiffe/jwt-svid.ts'
import { renewalDue } from '../spiffe/lifetime.ts'
import { isRejection } from './rejection.ts'
import type { SignedJwtSvid, UpstreamServer } from './upstream-server.ts'

export interface JwtCacheParts {
  readonly upstream: Pick<UpstreamServer, 'signJwt'>
  readonly bundle: Watched<TrustBundle>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** How many tokens are held at most; 1000 when left out. */
  readonly capacity?: number
}

export class JwtCache {
  readonly #parts: JwtCacheParts
  /** The least recently used first. */
  readonly #held = new Map<string, Held>()
  readonly #asking = new Map<string, Promise<SignedJwtSvid>>()

  constructor(parts: JwtCacheParts) {
    this.#parts = parts
  }

  /**
   * A valid token of an entry for this audience, in any order.
   * @throws Failure `jwt.unavailable`, or what the server refuses it with
   */
  async fetch(entry: RegistrationEntry, audience: readonly string[], signal: AbortSignal): Promise<SignedJwtSvid> {
    const wanted = [...new Set(audience)].sort()
    // A token that tells itself apart by `jti` is for one use.
    if (entry.jwtSvidIncludeJti) return this.#ask(entry, wanted, signal)
    const key = keyOf(entry, wanted)
    const held = await this.#valid(key)
    if (held && this.#parts.clock.now() < held.due) return held.svid
    const asking = this.#askOnce(key, entry, wanted)
    if (!held) return abortable(asking, signal)
    // It is valid still: the server has a moment to bring a fresher one, and no more.
    return Promise.race([asking.catch(() => held.svid), this.#parts.clock.sleep(patience, signal).then(() => held.svid)])
  }

  /** The held token, if it is valid now and its key is still trusted. */
  async #valid(key: string): Promise<Held | undefined> {
    const held = this.#held.get(key)
    if (!held) return undefined
    this.#held.delete(key)
    if (held.svid.expiresAt <= this.#parts.clock.now()) return undefined
    const bundle = this.#parts.bundle.current
    if (held.verifiedWith !== bundle) {
      try {
        await this.#verify(held.svid, held.audience, bundle)
        held.verifiedWith = bundle
      } catch {
        return undefined
      }
    }
    this.#held.set(key, held)
    return held
  }

  /** One question at a time for one token, whoever asks. */
  #askOnce(key: string, entry: RegistrationEntry, audience: readonly string[]): Promise<SignedJwtSvid> {
    const under = this.#asking.get(key)
    if (under) return under
    const asking = this.#ask(entry, audience, deadline(longestAsk))
      .then((svid) => this.#keep(key, audience, svid))
      .finally(() => this.#asking.delete(key))
    asking.catch(() => {})
    this.#asking.set(key, asking)
    return asking
  }

  async #ask(entry: RegistrationEntry, audience: readonly string[], signal: AbortSignal): Promise<SignedJwtSvid> {
    const { upstream, bundle, log } = this.#parts
    try {
      const svid = await upstream.signJwt(entry.id, audience, signal)
      if (svid.spiffeId !== entry.spiffeId) {
        throw new Failure('unauthenticated', 'svid.wrong-identity', {
          public: `the server signed \`${svid.spiffeId}\` where \`${entry.spiffeId}\` was asked for`,
        })
      }
      await this.#verify(svid, audience, bundle.current)
      return svid
    } catch (cause) {
      const failure = Failure.from(cause)
      log.warn('a JWT-SVID was not signed', {
        entry: entry.id,
        spiffeId: entry.spiffeId,
        reason: failure.reason,
        error: tellChain(failure),
      })
      if (isRejection(failure) || failure.category === 'permission_denied') throw cause
      throw new Failure('unavailable', 'jwt.unavailable', { public: 'the JWT-SVID cannot be had now', cause })
    }
  }

  /** Every audience is in it, its subject is right, and an authority that is not tainted signed it. */
  async #verify(svid: SignedJwtSvid, audience: readonly string[], bundle: TrustBundle): Promise<void> {
    const untainted = { ...bundle, jwtAuthorities: bundle.jwtAuthorities.filter((one) => !one.tainted) }
    const verified = await verifyJwtSvid(svid.token, bundleSet([untainted]), audience[0]!, this.#parts.clock.now())
    const isMeant = audience.every((one) => verified.audience.includes(one)) && verified.audience.length === audience.length
    if (verified.spiffeId === svid.spiffeId && isMeant) return
    throw new Failure('unauthenticated', 'svid.wrong-token', { public: 'the server signed a token for somebody or something else' })
  }

  #keep(key: string, audience: readonly string[], svid: SignedJwtSvid): SignedJwtSvid {
    const due = renewalDue(svid.issuedAt, svid.expiresAt, fraction(this.#parts.random))
    this.#held.delete(key)
    this.#held.set(key, { audience, svid, due, verifiedWith: this.#parts.bundle.current })
    if (this.#held.size > (this.#parts.capacity ?? 1000)) this.#held.delete(this.#held.keys().next().value!)
    return svid
  }
}

interface Held {
  readonly audience: readonly string[]
  readonly svid: SignedJwtSvid
  readonly due: Instant
  verifiedWith: TrustBundle
}

/** Everything that the token depends on. */
function keyOf(entry: RegistrationEntry, audience: readonly string[]): string {
  return JSON.stringify([entry.id, String(entry.revision), entry.createdAt, entry.spiffeId, ...audience])
}

async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const onAbort = () => reject(signal.reason as Error)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

const patience: Duration = milliseconds(40)
const longestAsk: Duration = seconds(30)
