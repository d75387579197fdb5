/** WIT-SVIDs of this node's workloads: made when somebody asks, with keys of their own, and renewed at half life for as long as somebody does. */
import { backoff } from '../kernel/backoff.ts'
import { sameBytes } from '../kernel/bytes.ts'
import { type Clock, deadline, type Instant } from '../kernel/clock.ts'
import { type Duration, milliseconds, minutes, seconds } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import { fraction, type Random } from '../kernel/random.ts'
import type { Watched } from '../kernel/watched.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { bundleSet } from '../spiffe/bundle-set.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { renewalDue } from '../spiffe/lifetime.ts'
import { verifyWitSvid } from '../spiffe/wit-svid.ts'
import { isSameEntry } from './entry-index.ts'
import { isRejection } from './rejection.ts'
import { retryDelay } from './retry.ts'
import { makeProofKey, type ProofKey } from './svid-key.ts'
import type { SignedWitSvid, UpstreamServer } from './upstream-server.ts'

/** A token, and the key that proves whose it is: for the workload and for nobody else. */
export interface HeldWitSvid {
  readonly entryId: string
  readonly spiffeId: SpiffeId
  readonly token: string
  /** A JSON Web Key. */
  readonly privateKeyJwk: string
}

export interface WitCacheParts {
  readonly upstream: Pick<UpstreamServer, 'signWit'>
  readonly bundle: Watched<TrustBundle>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

export class WitCache {
  readonly #parts: WitCacheParts
  /** By entry. */
  readonly #states = new Map<string, State>()
  readonly #asking = new Map<string, Promise<void>>()

  constructor(parts: WitCacheParts) {
    this.#parts = parts
  }

  /**
   * Those that are valid now, in the order of their entries, and when it is worth asking again. One that cannot be had is left out.
   * @throws Failure `wit.unavailable` if there is none, or of category `unimplemented` where the server issues none
   */
  async fetch(
    entries: readonly RegistrationEntry[],
    signal: AbortSignal,
  ): Promise<{ readonly svids: readonly HeldWitSvid[]; readonly next: Instant }> {
    await this.#examine(entries)
    this.#ask(entries)
    await this.#answers(entries, signal)
    const now = this.#parts.clock.now()
    const svids = entries.flatMap((entry) => this.#valid(entry, now) ?? []).map(({ svid }) => svid)
    if (svids.length === 0) throw unavailable(this.#states.get(entries[0]!.id)?.failure)
    return { svids, next: Math.min(...entries.map((entry) => this.#nextFor(entry, now))) }
  }

  /** A token whose authority was tainted, or is gone, is renewed now. */
  async #examine(entries: readonly RegistrationEntry[]): Promise<void> {
    const bundle = this.#parts.bundle.current
    for (const { id } of entries) {
      const held = this.#states.get(id)?.held
      if (!held || held.verifiedWith === bundle) continue
      try {
        await verifyWitSvid(held.svid.token, trusted(bundle), this.#parts.clock.now())
        held.verifiedWith = bundle
      } catch {
        this.#states.delete(id)
      }
    }
  }

  /** One question at a time for one entry, whoever asks. */
  #ask(entries: readonly RegistrationEntry[]): void {
    const now = this.#parts.clock.now()
    const due = entries.filter((entry) => !this.#asking.has(entry.id) && this.#nextFor(entry, now) <= now)
    for (let at = 0; at < due.length; at += maxBatch) {
      const batch = due.slice(at, at + maxBatch)
      const answered = this.#sign(batch).finally(() => {
        for (const { id } of batch) this.#asking.delete(id)
      })
      for (const { id } of batch) this.#asking.set(id, answered)
    }
  }

  /** Where each entry has a token that is valid still, the server has a moment to bring fresher ones, and no more. */
  async #answers(entries: readonly RegistrationEntry[], signal: AbortSignal): Promise<void> {
    const asked = Promise.all(entries.flatMap(({ id }) => this.#asking.get(id) ?? []))
    const { clock } = this.#parts
    const hasAll = entries.every((entry) => this.#valid(entry, clock.now()))
    const stop = new AbortController()
    const waited = AbortSignal.any([signal, stop.signal])
    try {
      await Promise.race([asked, clock.sleep(hasAll ? patience : longestAsk, waited)])
    } finally {
      stop.abort()
    }
  }

  /** Never throws: what went wrong is kept with the entries. */
  async #sign(entries: readonly RegistrationEntry[]): Promise<void> {
    const { upstream, clock } = this.#parts
    this.#forgetOld(clock.now())
    try {
      const requests = await Promise.all(entries.map(async (entry) => ({ entry, key: await makeProofKey() })))
      const wishes = requests.map(({ entry, key }) => ({ entryId: entry.id, publicKey: key.publicKey }))
      const answers = await upstream.signWit(wishes, deadline(longestAsk))
      for (const [at, { entry, key }] of requests.entries()) await this.#take(entry, key, answers[at] ?? wrongCount())
    } catch (error) {
      for (const entry of entries) this.#fail(entry, Failure.from(error))
    }
  }

  /** Holds a token if it is right: the entry's identity, bound to our key, signed by an authority that is not tainted. */
  async #take(entry: RegistrationEntry, key: ProofKey, answer: SignedWitSvid | Failure): Promise<void> {
    const { bundle, clock, random } = this.#parts
    try {
      if (answer instanceof Failure) throw answer
      const verifiedWith = bundle.current
      const { spiffeId, expiresAt, proofKey } = await verifyWitSvid(answer.token, trusted(verifiedWith), clock.now())
      if (spiffeId !== entry.spiffeId || !sameBytes(proofKey.export({ format: 'der', type: 'spki' }), key.publicKey)) {
        throw new Failure('unauthenticated', 'svid.wrong-token', { public: 'the server signed a token for somebody or something else' })
      }
      const svid = Object.freeze({ entryId: entry.id, spiffeId, token: answer.token, privateKeyJwk: key.privateKeyJwk })
      const due = renewalDue(clock.now(), expiresAt, fraction(random))
      this.#states.set(entry.id, { held: { entry, svid, expiresAt, due, verifiedWith } })
    } catch (error) {
      this.#fail(entry, Failure.from(error))
    }
  }

  #fail(entry: RegistrationEntry, failure: Failure): void {
    const { clock, random, log } = this.#parts
    const before = this.#states.get(entry.id)
    const delays = before?.delays ?? backoff(random, { first: seconds(1), longest: seconds(60) })
    const left = (before?.held?.expiresAt ?? Infinity) - clock.now()
    const retryAt = clock.now() + retryDelay(delays.next().value ?? 0, left)
    this.#states.set(entry.id, { ...(before?.held && { held: before.held }), failure, delays, retryAt })
    log.warn('a WIT-SVID was not signed', { entry: entry.id, spiffeId: entry.spiffeId, reason: failure.reason, error: tellChain(failure) })
  }

  #valid(entry: RegistrationEntry, now: Instant): Held | undefined {
    const held = this.#states.get(entry.id)?.held
    return held && now < held.expiresAt && isSameEntry(entry, held.entry) ? held : undefined
  }

  /** When something is to be done for an entry: now or earlier, if it is to be asked for. */
  #nextFor(entry: RegistrationEntry, now: Instant): Instant {
    if (this.#asking.has(entry.id)) return now + seconds(1)
    const held = this.#valid(entry, now)
    return Math.max(held?.due ?? now, this.#states.get(entry.id)?.retryAt ?? now)
  }

  #forgetOld(now: Instant): void {
    for (const [id, { held, retryAt = 0 }] of this.#states) {
      if ((held?.expiresAt ?? 0) <= now && retryAt + longestMemory <= now) this.#states.delete(id)
    }
  }
}

interface State {
  readonly held?: Held
  readonly failure?: Failure
  readonly retryAt?: Instant
  readonly delays?: Generator<Duration, void, void>
}

interface Held {
  readonly entry: RegistrationEntry
  readonly svid: HeldWitSvid
  readonly expiresAt: Instant
  readonly due: Instant
  verifiedWith: TrustBundle
}

/** A key that is tainted signs no token that is handed out. */
function trusted(bundle: TrustBundle) {
  return bundleSet([{ ...bundle, witAuthorities: bundle.witAuthorities.filter((one) => !one.tainted) }])
}

/** The caller learns that there is none, and whether asking again will help. */
function unavailable(cause: Failure | undefined): Failure {
  if (cause?.category === 'unimplemented') {
    return new Failure('unimplemented', 'wit.not-issued', { public: 'WIT-SVIDs are not issued in this trust domain', cause })
  }
  if (cause && isRejection(cause)) return cause
  return new Failure('unavailable', 'wit.unavailable', { public: 'the WIT-SVID cannot be had now', cause })
}

function wrongCount(): Failure {
  return new Failure('internal', 'svid.wrong-count', { public: 'the server did not answer every request' })
}

const maxBatch = 50
const patience: Duration = milliseconds(40)
const longestAsk: Duration = seconds(30)
const longestMemory: Duration = minutes(2)
