/** Keeps the authorities fresh: does what `slots.ts` says, writes it down before it counts, and publishes the bundle. */
import { authorityChanged } from '../audit/event.ts'
import type { AuditTrail } from '../audit/trail.ts'
import { hex } from '../kernel/bytes.ts'
import { backoff } from '../kernel/backoff.ts'
import { deadline, formatInstant, type Clock, type Instant } from '../kernel/clock.ts'
import { formatDuration, hours, minutes, seconds, type Duration } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import type { Random } from '../kernel/random.ts'
import { WatchedValue, type Watched } from '../kernel/watched.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { sameAuthorities } from '../spiffe/bundle-document.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { fingerprint } from '../x509/certificate.ts'
import type { KeyType } from '../x509/key-type.ts'
import { authorityRequest, prepareSelfSigned, redeem } from './issuance.ts'
import {
  emptyRecord,
  formatRecord,
  parseRecord,
  type CaJournal,
  type JournalRecord,
  type JwtMaterial,
  type X509Material,
} from './journal.ts'
import { keyIdOf } from './jwt-authority.ts'
import { isKeyOf, type KeyManager, type ManagedKey } from './key-manager.ts'
import type { IssuanceProfile } from './profile.ts'
import type { Serials } from './serial.ts'
import * as slots from './slots.ts'
import { nextMoment, nextStep, trusted, type Authority, type RotationRules, type Slots, type Step } from './slots.ts'
import type { CheckedUpstream } from './upstream-authority.ts'
import { authorityId, type Signing } from './x509-authority.ts'

export interface RotationPorts {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Checked: see `key-manager.ts`. */
  readonly keys: KeyManager
  readonly upstream: CheckedUpstream
  readonly journal: CaJournal
  readonly audit: AuditTrail
  readonly serials: Serials
  readonly profile: IssuanceProfile
  readonly trustDomain: TrustDomain
  readonly serverId: string
  readonly refreshHint: Duration
}

/** Reads the journal, finds the keys, and does what is due; then both authorities are there. @throws Failure `journal.*`, `keys.*`, `upstream.*`, `audit.*` */
export async function openRotation(ports: RotationPorts, signal: AbortSignal): Promise<Rotation> {
  const stored = await ports.journal.read(ports.serverId)
  const rotation = new Rotation(ports, stored ? parseRecord(stored.record) : emptyRecord, stored?.revision ?? 0n)
  await rotation.findKeys(signal)
  await rotation.open(signal)
  return rotation
}

/**
 * INVARIANT: a record is in the journal before anything it says is acted upon, and an authority is in the bundle
 * before it signs. So a power cut between any two steps loses nothing and leaves one active authority at most.
 */
export class Rotation implements AsyncDisposable {
  readonly #ports: RotationPorts
  readonly #rules: RotationRules
  readonly #bundle: WatchedValue<TrustBundle>
  readonly #keys = new Map<string, ManagedKey>()
  #record: JournalRecord
  #authorityKeys: readonly Uint8Array[]
  #revision: bigint
  /** A write that may or may not have arrived: the next one asks first. */
  #doubtful: JournalRecord | undefined
  #problems: Partial<Record<Kind, string>> = {}
  #upstreamComplaints: readonly string[] = []

  constructor(ports: RotationPorts, record: JournalRecord, revision: bigint) {
    this.#ports = ports
    this.#rules = rulesOf(ports.profile, ports.refreshHint)
    this.#record = record
    this.#authorityKeys = authorityKeysOf(record)
    this.#revision = revision
    this.#bundle = new WatchedValue(bundleOf(record, ports))
  }

  get bundle(): Watched<TrustBundle> {
    return this.#bundle
  }

  /** The authority that signs X509-SVIDs now. @throws Failure `ca.no-authority` */
  x509(): Signing<X509Material> {
    return this.#signing(this.#record.x509)
  }

  /** The authority that signs JWT-SVIDs now. @throws Failure `ca.no-authority` */
  jwt(): Signing<JwtMaterial> {
    return this.#signing(this.#record.jwt)
  }

  /** SubjectPublicKeyInfo of every key that is or was an authority, as far as it still matters. */
  authorityKeys(): readonly Uint8Array[] {
    return this.#authorityKeys
  }

  /** Gets the keys of the authorities that sign or will. One whose key is gone is retired: what it signed stays valid. @throws Failure `keys.*` */
  async findKeys(signal: AbortSignal): Promise<void> {
    await this.#recover(this.#x509Line(), signal)
    await this.#recover(this.#jwtLine(), signal)
  }

  /** Does what is due, and refuses to go on without an authority of each kind. */
  async open(signal: AbortSignal): Promise<void> {
    for (const kind of kinds) {
      try {
        await this.#settle(kind, signal)
      } catch (error) {
        this.#failed(kind, error)
        if (!this.#record[kind].active) throw error
      }
    }
  }

  /** Does what is due, as it becomes due, until the signal aborts. What fails is tried again with growing pauses (V-9). */
  async keepFresh(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#ports
    let pauses = backoff(random, retries)
    while (!signal.aborted) {
      const failures = await this.#settleAll(signal)
      if (failures === 0) pauses = backoff(random, retries)
      const pause = failures === 0 ? this.#untilNextMoment() : (pauses.next().value ?? retries.longest)
      await clock.sleep(pause, signal).catch((error: unknown) => {
        if (!signal.aborted) throw error
      })
    }
  }

  /** Why the authorities are not well, in words. */
  complaints(): readonly string[] {
    const now = this.#ports.clock.now()
    return [...kinds.flatMap((kind) => this.#complaintsOf(kind, now)), ...this.#upstreamComplaints]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#bundle.close()
  }

  #signing<M>({ active }: Slots<M>): Signing<M> {
    const key = active && this.#keys.get(active.keyId)
    if (!key) throw new Failure('unavailable', 'ca.no-authority', { public: 'there is no authority to sign with: try again later' })
    return { authority: active, key }
  }

  async #settleAll(signal: AbortSignal): Promise<number> {
    let failures = 0
    for (const kind of kinds) {
      try {
        await this.#settle(kind, signal)
        delete this.#problems[kind]
      } catch (error) {
        if (signal.aborted) return failures
        this.#failed(kind, error)
        failures++
      }
    }
    return failures
  }

  /** Step by step, until nothing is due. */
  async #settle(kind: Kind, signal: AbortSignal): Promise<void> {
    await this.#resolveDoubt()
    for (let steps = 0; steps < maxSteps; steps++) {
      const step = nextStep<unknown>(this.#record[kind], this.#ports.clock.now(), this.#rules)
      if (!step) return
      if (kind === 'x509') await this.#do(step, this.#x509Line(), deadline(stepDeadline, signal))
      else await this.#do(step, this.#jwtLine(), deadline(stepDeadline, signal))
    }
    throw new Error('bug: the authorities never come to rest')
  }

  async #do<M>(step: Step, line: Line<M>, signal: AbortSignal): Promise<void> {
    const { clock } = this.#ports
    const held = line.slots()
    switch (step.do) {
      case 'prepare':
        return this.#prepare(line, signal)
      case 'publish':
        return this.#advance(line, 'published', comingIn(held), slots.publish(held, clock.now()))
      case 'activate':
        return this.#advance(line, 'activated', comingIn(held), slots.activate(held))
      case 'retire':
        return this.#advance(line, 'retired', held.active!, slots.retire(held))
      case 'discard':
        await this.#ports.keys.remove(comingIn(held).keyId, signal)
        return this.#advance(line, 'discarded', comingIn(held), slots.discard(held))
      case 'forget': {
        const gone = held.old.find((one) => one.keyId === step.keyId)!
        await this.#ports.keys.remove(gone.keyId, signal)
        return this.#advance(line, 'forgotten', gone, slots.forget(held, gone.keyId))
      }
    }
  }

  /** The intent is written first, so that a key that was made before a power cut is found again and used, not lost. */
  async #prepare<M>(line: Line<M>, signal: AbortSignal): Promise<void> {
    const { keys, random } = this.#ports
    if (line.slots().next === undefined) await this.#commit(line.with(slots.intend(line.slots(), `${line.kind}-${hex(random.bytes(8))}`)))
    const { next } = line.slots()
    if (next?.stage !== 'intended') throw new Error('bug: an authority is prepared that was not intended')
    const found = await keys.find(next.keyId, signal)
    const key = found?.keyType === line.keyType ? found : await keys.create(next.keyId, line.keyType, signal)
    const authority = await line.make(key, signal)
    this.#keys.set(key.id, key)
    await this.#advance(line, 'prepared', authority, slots.made(line.slots(), authority))
  }

  /** Records a change in the audit trail, in the journal, and then in what others see. */
  async #advance<M>(line: Line<M>, step: string, authority: Authority<M>, changed: Slots<M>): Promise<void> {
    const event = { kind: line.kind, step, authority: line.nameOf(authority.material), slot: authority.keyId }
    await this.#ports.audit.append(authorityChanged(event))
    await this.#commit(line.with(changed))
    this.#ports.log.info(`authority ${step}`, { ...event, until: formatInstant(authority.until) })
  }

  async #commit(changed: JournalRecord): Promise<void> {
    await this.#resolveDoubt()
    const { journal, serverId } = this.#ports
    const content = bundleOf(changed, this.#ports)
    const grown = !sameAuthorities(content, this.#bundle.current)
    const record = grown ? { ...changed, sequence: this.#record.sequence + 1n } : changed
    if (formatRecord(record) === formatRecord(this.#record)) return
    this.#doubtful = record
    await journal.write(serverId, formatRecord(record), this.#revision)
    this.#doubtful = undefined
    this.#accept(record, this.#revision + 1n)
  }

  /** After a write without an answer: it arrived, it did not, or somebody else writes our journal. @throws Failure `journal.changed-meanwhile` */
  async #resolveDoubt(): Promise<void> {
    const doubtful = this.#doubtful
    if (!doubtful) return
    const { journal, serverId } = this.#ports
    const stored = await journal.read(serverId)
    if (stored?.revision === this.#revision + 1n && stored.record === formatRecord(doubtful)) this.#accept(doubtful, stored.revision)
    else if ((stored?.revision ?? 0n) !== this.#revision) {
      throw new Failure('failed_precondition', 'journal.changed-meanwhile', {
        public: `another server writes the journal of \`${serverId}\`: give each server a \`serverId\` of its own`,
      })
    }
    this.#doubtful = undefined
  }

  #accept(record: JournalRecord, revision: bigint): void {
    this.#record = record
    this.#authorityKeys = authorityKeysOf(record)
    this.#revision = revision
    const bundle = bundleOf(record, this.#ports)
    if (bundle.sequence !== this.#bundle.current.sequence) this.#bundle.set(bundle)
    const held = new Set([...keyIdsOf(record.x509), ...keyIdsOf(record.jwt)])
    for (const id of this.#keys.keys()) if (!held.has(id)) this.#keys.delete(id)
  }

  async #recover<M>(line: Line<M>, signal: AbortSignal): Promise<void> {
    const { active, next } = line.slots()
    if (active && !(await this.#fetch(line, active, signal))) await this.#advance(line, 'retired', active, slots.retire(line.slots()))
    if (!next || next.stage === 'intended' || (await this.#fetch(line, next.authority, signal))) return
    await this.#advance(line, 'discarded', next.authority, slots.discard(line.slots()))
  }

  async #fetch<M>(line: Line<M>, { keyId, material }: Authority<M>, signal: AbortSignal): Promise<boolean> {
    const key = await this.#ports.keys.find(keyId, signal)
    if (key && isKeyOf(key, line.publicKeyOf(material))) {
      this.#keys.set(keyId, key)
      return true
    }
    this.#ports.log.error('the key of an authority is gone: another is prepared, and what it signed stays valid', {
      kind: line.kind,
      key: keyId,
    })
    return false
  }

  #failed(kind: Kind, error: unknown): void {
    this.#problems[kind] = tellChain(error)
    this.#ports.log.error('an authority could not be kept fresh', { kind, reason: Failure.from(error).reason, error: tellChain(error) })
  }

  #untilNextMoment(): Duration {
    const now = this.#ports.clock.now()
    const moments = kinds.map((kind) => nextMoment<unknown>(this.#record[kind], now, this.#rules))
    return Math.min(longestPause, Math.max(1, Math.min(...moments) - now))
  }

  #complaintsOf(kind: Kind, now: Instant): string[] {
    const { active } = this.#record[kind]
    const problem = this.#problems[kind]
    const why = problem === undefined ? '' : `: ${problem}`
    if (!active || now > active.until) return [`there is no ${told[kind]} authority${why}`]
    if (problem === undefined) return []
    return [`the ${told[kind]} authority ends in ${formatDuration(active.until - now)} and could not be kept fresh${why}`]
  }

  #x509Line(): Line<X509Material> {
    return {
      kind: 'x509',
      keyType: this.#ports.profile.ca.keyType,
      slots: () => this.#record.x509,
      with: (x509) => ({ ...this.#record, x509 }),
      nameOf: authorityId,
      publicKeyOf: ({ chain }) => chain[0].spki,
      make: (key, signal) => this.#certify(key, signal),
    }
  }

  #jwtLine(): Line<JwtMaterial> {
    return {
      kind: 'jwt',
      keyType: this.#ports.profile.ca.jwtKeyType,
      slots: () => this.#record.jwt,
      with: (jwt) => ({ ...this.#record, jwt }),
      nameOf: ({ kid }) => kid,
      publicKeyOf: ({ publicKey }) => publicKey,
      make: async (key) => {
        const from = this.#ports.clock.now()
        const { publicKey } = key
        return {
          keyId: key.id,
          from,
          until: from + this.#ports.profile.ca.lifetime,
          material: { kid: await keyIdOf(publicKey), publicKey },
        }
      },
    }
  }

  async #certify(key: ManagedKey, signal: AbortSignal): Promise<Authority<X509Material>> {
    const { clock, log, profile, serials, trustDomain, upstream } = this.#ports
    const { lifetime, pathLength } = profile.ca
    const from = clock.now()
    const minted = await upstream.mint(
      {
        trustDomain,
        publicKey: key.publicKey,
        lifetime,
        leastLifetime: Math.min(0.9 * lifetime, 2 * profile.x509.workload.standard),
        pathLength,
        csr: () => authorityRequest({ key, trustDomain, serial: serials.next() }),
        selfSigned: () =>
          redeem(
            prepareSelfSigned({ trustDomain, key, serial: serials.next(), at: from, backdate: profile.backdate, lifetime, pathLength }),
            key,
            signal,
          ),
      },
      signal,
    )
    this.#upstreamComplaints = minted.complaints
    for (const complaint of minted.complaints) log.warn(complaint)
    for (const warning of minted.warnings) log.info('the upstream authority says', { warning })
    return { keyId: key.id, from, until: minted.until, material: { chain: minted.chain, roots: minted.roots } }
  }
}

type Kind = 'x509' | 'jwt'
const kinds = ['x509', 'jwt'] as const
const told: Readonly<Record<Kind, string>> = { x509: 'X.509', jwt: 'JWT' }

/** What differs between the two kinds of authority. */
interface Line<M> {
  readonly kind: Kind
  readonly keyType: KeyType
  slots(): Slots<M>
  /** The record with other slots of this kind. */
  with(changed: Slots<M>): JournalRecord
  nameOf(material: M): string
  /** SubjectPublicKeyInfo, DER. */
  publicKeyOf(material: M): Uint8Array
  make(key: ManagedKey, signal: AbortSignal): Promise<Authority<M>>
}

function comingIn<M>({ next }: Slots<M>): Authority<M> {
  if (next === undefined || next.stage === 'intended') throw new Error('bug: there is no authority to come')
  return next.authority
}

function authorityKeysOf({ x509, jwt }: JournalRecord): readonly Uint8Array[] {
  const certificates = everyone(x509).flatMap(({ chain, roots }) => [...chain, ...roots])
  return [...certificates.map(({ spki }) => spki), ...everyone(jwt).map(({ publicKey }) => publicKey)]
}

function everyone<M>(held: Slots<M>): M[] {
  const coming = held.next && held.next.stage !== 'intended' ? [held.next.authority] : []
  return [...new Set([...trusted(held), ...coming])].map(({ material }) => material)
}

function keyIdsOf(held: Slots<unknown>): string[] {
  const { active, next } = held
  return [...(active ? [active.keyId] : []), ...(next ? [next.stage === 'intended' ? next.keyId : next.authority.keyId] : [])]
}

/** The bundle that follows from a record: every authority that was announced and is not forgotten, the oldest first, so that its order does not change either. */
function bundleOf(
  { sequence, x509, jwt }: JournalRecord,
  { trustDomain, refreshHint }: Pick<RotationPorts, 'trustDomain' | 'refreshHint'>,
): TrustBundle {
  const roots = new Map(byAge(trusted(x509)).flatMap(({ material }) => material.roots.map((root) => [fingerprint(root), root])))
  return {
    trustDomain,
    x509Authorities: [...roots.values()].map((certificate) => ({ certificate, tainted: false })),
    jwtAuthorities: byAge(trusted(jwt)).map(({ material, until }) => ({
      keyId: material.kid,
      publicKey: material.publicKey,
      expiresAt: until,
      tainted: false,
    })),
    witAuthorities: [],
    sequence,
    refreshHint,
  }
}

const byAge = <M>(authorities: readonly Authority<M>[]): readonly Authority<M>[] => authorities.toSorted((a, b) => a.from - b.from)

function rulesOf({ ca }: IssuanceProfile, refreshHint: Duration): RotationRules {
  return { prepareAt: 1 / 2, activateAt: 5 / 6, propagation: refreshHint, keepExpired: Math.min(hours(1), ca.lifetime) }
}

/** V-9. */
const retries = { first: seconds(1), longest: minutes(1) }
/** The clock may be set meanwhile, so nobody sleeps for hours. */
const longestPause = minutes(1)
/** V-13: for everything that one step waits for. */
const stepDeadline = minutes(1)
const maxSteps = 100
