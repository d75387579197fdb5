/** Keeps the authorities fresh: does what `slots.ts` says, writes it down before it counts, and publishes the bundle. */
import { authorityChanged, authorityEnding, keyDestroyed } from '../audit/event.ts'
import type { AuditTrail } from '../audit/trail.ts'
import { hex } from '../kernel/bytes.ts'
import { backoff } from '../kernel/backoff.ts'
import { deadline, formatInstant, type Clock, type Instant } from '../kernel/clock.ts'
import { days, formatDuration, hours, minutes, seconds, type Duration } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import type { Random } from '../kernel/random.ts'
import { WatchedValue, type Watched } from '../kernel/watched.ts'
import type { TokenAuthority, TrustBundle, X509Authority } from '../spiffe/bundle.ts'
import { sameAuthorities } from '../spiffe/bundle-document.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { fingerprint, type Certificate } from '../x509/certificate.ts'
import { authorityKinds, type Asked, type Authorities, type AuthorityKind } from './authorities.ts'
import { forcedRotation } from './forced-rotation.ts'
import { authorityRequest, issueAuthority, type Office } from './issuance.ts'
import {
  emptyRecord,
  formatRecord,
  namesKey,
  parseRecord,
  type CaJournal,
  type JournalRecord,
  type JwtMaterial,
  type X509Material,
} from './journal.ts'
import { keyIdOf } from './jwt-authority.ts'
import type { Line } from './line.ts'
import { isKeyOf, type KeyManager, type ManagedKey } from './key-manager.ts'
import { caMetrics } from './metrics.ts'
import type { IssuanceProfile, KeyTypes } from './profile.ts'
import type { Serials } from './serial.ts'
import * as slots from './slots.ts'
import { alarmShare, nextMoment, nextStep, trusted, type Authority, type RotationRules, type Slots, type Step } from './slots.ts'
import type { CheckedUpstream } from './upstream-authority.ts'
import { authorityId, keyIdentifierOf, rootId, type Signing } from './x509-authority.ts'

export interface RotationPorts {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly meter: Meter
  /** Checked: see `key-manager.ts`. */
  readonly keys: KeyManager
  readonly upstream: CheckedUpstream
  readonly journal: CaJournal
  readonly audit: AuditTrail
  readonly serials: Serials
  readonly office: Office
  readonly profile: IssuanceProfile
  /** Asked when an authority is made. */
  readonly keyTypes: () => KeyTypes
  readonly trustDomain: TrustDomain
  readonly serverId: string
  readonly refreshHint: Duration
  /** Whether there are to be WIT authorities. */
  readonly wit: boolean
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
  readonly #rules: Readonly<Record<AuthorityKind, RotationRules>>
  readonly #bundle: WatchedValue<TrustBundle>
  readonly #keys = new Map<string, ManagedKey>()
  /** Resolves when nobody changes the record: what is due and what operators ask for come one after the other. */
  #turn: Promise<unknown> = Promise.resolve()
  /** Aborts when an operator changed something, so that what is due is looked at again. */
  #changed = new AbortController()
  readonly authorities: Authorities
  #record: JournalRecord
  #authorityKeys: readonly Uint8Array[]
  #revision: bigint
  /** A write that may or may not have arrived: the next one asks first. */
  #doubtful: JournalRecord | undefined
  #problems: Partial<Record<AuthorityKind, string>> = {}
  /** What was told last: of which authority, and which share of its life. */
  readonly #alarms: Partial<Record<AuthorityKind, { readonly keyId: string; readonly share: number }>> = {}
  #upstreamComplaints: readonly string[] = []
  readonly #gauges = new DisposableStack()

  constructor(ports: RotationPorts, record: JournalRecord, revision: bigint) {
    this.#ports = ports
    const rules = rulesOf(ports.profile, ports.refreshHint)
    this.#rules = { x509: rules, jwt: rules, wit: { ...rules, closing: !ports.wit } }
    this.#record = record
    this.#authorityKeys = authorityKeysOf(record)
    this.#revision = revision
    this.#bundle = new WatchedValue(bundleOf(record, ports))
    this.#show(ports.meter)
    this.authorities = forcedRotation({
      now: () => ports.clock.now(),
      record: () => this.#record,
      isOn: (kind) => !this.#rules[kind].closing,
      withLine: (kind, use) => this.#withLine(kind, use),
      alone: (deed) => this.#byOperator(deed),
      prepare: (line, asked, signal) => this.#prepare(line, deadline(stepDeadline, signal), asked),
      advance: (line, step, authority, changed, asked) => this.#advance(line, step, authority, changed, asked),
      changeRoots: (step, root, roots, asked) => this.#changeRoots(step, root, roots, asked),
      destroy: (signal) => this.#destroySpent(signal),
    })
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

  /** The authority that signs WIT-SVIDs now. @throws Failure `ca.no-authority` */
  wit(): Signing<JwtMaterial> {
    return this.#signing(this.#record.wit)
  }

  /** SubjectPublicKeyInfo of every key that is or was an authority, as far as it still matters. */
  authorityKeys(): readonly Uint8Array[] {
    return this.#authorityKeys
  }

  /** Gets the keys of the authorities that sign or will. One whose key is gone is retired: what it signed stays valid. @throws Failure `keys.*` */
  async findKeys(signal: AbortSignal): Promise<void> {
    for (const kind of authorityKinds) await this.#withLine(kind, (line) => this.#recover(line, signal))
  }

  /** Does what is due, and refuses to go on without an authority of each kind. */
  async open(signal: AbortSignal): Promise<void> {
    for (const kind of authorityKinds) {
      try {
        await this.#alone(() => this.#settle(kind, signal))
      } catch (error) {
        this.#failed(kind, error)
        if (!this.#record[kind].active && !this.#rules[kind].closing) throw error
      }
    }
  }

  /** Does what is due, as it becomes due, until the signal aborts. What fails is tried again with growing pauses (V-9). */
  async keepFresh(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#ports
    let pauses = backoff(random, retries)
    const listening = this.#heedUpstream(signal)
    while (!signal.aborted) {
      const failures = await this.#settleAll(signal)
      if (failures === 0) pauses = backoff(random, retries)
      const pause = failures === 0 ? this.#untilNextMoment() : (pauses.next().value ?? retries.longest)
      if (this.#changed.signal.aborted) this.#changed = new AbortController()
      const changed = this.#changed.signal
      await clock.sleep(pause, AbortSignal.any([signal, changed])).catch((error: unknown) => {
        if (!signal.aborted && !changed.aborted) throw error
      })
    }
    await listening
  }

  /** Looks at once at what the upstream announces, and not at the next moment that is due. */
  async #heedUpstream(signal: AbortSignal): Promise<void> {
    const { roots } = this.#ports.upstream
    if (!roots) return
    for await (const _ of roots.changes(signal)) this.#changed.abort()
  }

  /** Why the authorities are not well, in words. */
  complaints(): readonly string[] {
    const now = this.#ports.clock.now()
    const kept = authorityKinds.filter((kind) => !this.#rules[kind].closing)
    return [...kept.flatMap((kind) => this.#complaintsOf(kind, now)), ...this.#upstreamComplaints]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#gauges[Symbol.dispose]()
    this.#bundle.close()
  }

  #signing<M>({ active }: Slots<M>): Signing<M> {
    const key = active && this.#keys.get(active.keyId)
    if (!key) throw new Failure('unavailable', 'ca.no-authority', { public: 'there is no authority to sign with: try again later' })
    return { authority: active, key }
  }

  async #settleAll(signal: AbortSignal): Promise<number> {
    let failures = 0
    // First, so that a root is in the bundle before anything below it is made (V-7).
    await this.#alone(() => this.#announce()).catch((error: unknown) => {
      failures++
      if (!signal.aborted) this.#ports.log.error('a root of the upstream could not be announced', { error: tellChain(error) })
    })
    for (const kind of authorityKinds) {
      try {
        await this.#alone(() => this.#settle(kind, signal))
        delete this.#problems[kind]
      } catch (error) {
        if (signal.aborted) return failures
        this.#failed(kind, error)
        failures++
        await this.#withLine(kind, (line) => this.#alarm(line))
      }
    }
    try {
      await this.#alone(() => this.#destroySpent(signal))
    } catch (error) {
      if (!signal.aborted) this.#ports.log.warn('a key that is no longer needed could not be destroyed', { error: tellChain(error) })
    }
    return failures
  }

  #alone<T>(deed: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(deed)
    this.#turn = done.catch(() => {})
    return done
  }

  #byOperator<T>(deed: () => Promise<T>): Promise<T> {
    return this.#alone(async () => {
      await this.#resolveDoubt()
      return deed()
    }).finally(() => this.#changed.abort())
  }

  #withLine<T>(kind: AuthorityKind, use: <M>(line: Line<M>) => T): T {
    return kind === 'x509' ? use(this.#x509Line()) : use(this.#keyLine(kind))
  }

  /** Step by step, until nothing is due. */
  async #settle(kind: AuthorityKind, signal: AbortSignal): Promise<void> {
    await this.#resolveDoubt()
    for (let steps = 0; steps < maxSteps; steps++) {
      const step = nextStep<unknown>(this.#record[kind], this.#ports.clock.now(), this.#rules[kind])
      if (!step) return
      await this.#withLine(kind, (line) => this.#do(step, line, deadline(stepDeadline, signal)))
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
        return this.#advance(line, 'discarded', comingIn(held), slots.discard(held))
      case 'forget': {
        const gone = held.old.find((one) => one.keyId === step.keyId)!
        return this.#advance(line, 'forgotten', gone, slots.forget(held, gone.keyId))
      }
    }
  }

  /** The intent is written first, so that a key that was made before a power cut is found again and used, not lost. */
  async #prepare<M>(line: Line<M>, signal: AbortSignal, asked: Asked = {}): Promise<void> {
    const { keys, random } = this.#ports
    if (line.slots().next === undefined) await this.#commit(line.with(slots.intend(line.slots(), `${line.kind}-${hex(random.bytes(8))}`)))
    const { next } = line.slots()
    if (next?.stage !== 'intended') throw new Error('bug: an authority is prepared that was not intended')
    const found = await keys.find(next.keyId, signal)
    const key = found?.keyType === line.keyType ? found : await keys.create(next.keyId, line.keyType, signal)
    const authority = await line.make(key, signal)
    this.#keys.set(key.id, key)
    await this.#advance(line, 'prepared', authority, slots.made(line.slots(), authority), asked)
  }

  /** Records a change in the audit trail, in the journal, and then in what others see. */
  async #advance<M>(line: Line<M>, step: string, authority: Authority<M>, changed: Slots<M>, asked: Asked = {}): Promise<void> {
    const event = { kind: line.kind, step, authority: line.nameOf(authority.material), slot: authority.keyId }
    await this.#ports.audit.append(authorityChanged(event, asked))
    const record = line.with(changed)
    // A revoked key is destroyed at once: a journal that is restored from a backup must not find it again.
    const since = step === 'revoked' ? 0 : this.#ports.clock.now()
    const isSpent = keyIdsOf(record).every((keyId) => keyId !== authority.keyId)
    await this.#commit(isSpent ? { ...record, spent: [...record.spent, { keyId: authority.keyId, since }] } : record)
    this.#ports.meter.counter(caMetrics.steps, { kind: line.kind, step }).add()
    this.#ports.log.info(`authority ${step}`, { ...event, until: formatInstant(authority.until), ...asked })
    if (!isSpent) return
    const due = Math.max(this.#ports.clock.now(), since + this.#keepSpent)
    this.#ports.log.info('a key is no longer needed: it will be destroyed', { key: authority.keyId, at: formatInstant(due) })
  }

  async #changeRoots(step: string, root: string, roots: JournalRecord['roots'], asked: Asked): Promise<void> {
    await this.#ports.audit.append(authorityChanged({ kind: 'x509', step: `root-${step}`, authority: root, slot: 'upstream' }, asked))
    await this.#commit({ ...this.#record, roots })
    this.#ports.log.info(`root ${step}`, { root, ...asked })
  }

  /** Puts the roots that the upstream announces in the bundle, instead of those that it announced before. */
  async #announce(): Promise<void> {
    const { audit, log, upstream } = this.#ports
    const announced = upstream.roots?.current.slice(0, mostAnnounced) ?? []
    const before = new Set(this.#record.announced.map(fingerprint))
    const fresh = announced.filter((root) => !before.has(fingerprint(root)))
    // Nothing is said until the upstream was asked, and what was announced then stays.
    if (announced.length === 0 || (fresh.length === 0 && announced.length === before.size)) return
    for (const root of fresh) {
      const authority = keyIdentifierOf(root)
      await audit.append(authorityChanged({ kind: 'x509', step: 'root-announced', authority, slot: 'upstream' }))
      log.info('the upstream announces a root', { root: authority, until: formatInstant(root.notAfter) })
    }
    await this.#commit({ ...this.#record, announced })
  }

  /** C-22: a key that nobody needed for long enough, and that no server's journal names. */
  async #destroySpent(signal: AbortSignal): Promise<void> {
    const { audit, clock, journal, keys, log, serverId } = this.#ports
    for (;;) {
      const due = this.#record.spent.find(({ since }) => clock.now() > since + this.#keepSpent)
      if (!due) return
      if ((await journal.others(serverId)).some((record) => namesKey(record, due.keyId))) {
        throw new Failure('failed_precondition', 'journal.key-shared', {
          public: `another server's journal names the key \`${due.keyId}\``,
        })
      }
      await audit.append(keyDestroyed({ key: due.keyId }))
      await keys.remove(due.keyId, deadline(stepDeadline, signal))
      await this.#commit({ ...this.#record, spent: this.#record.spent.filter((one) => one !== due) })
      log.info('a key was destroyed', { key: due.keyId })
    }
  }

  get #keepSpent(): Duration {
    return Math.min(days(14), 14 * this.#ports.profile.ca.lifetime)
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
    const held = new Set(authorityKinds.flatMap((kind) => signingKeysOf(record[kind])))
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

  #failed(kind: AuthorityKind, error: unknown): void {
    const { active } = this.#record[kind]
    this.#problems[kind] = tellChain(error)
    this.#ports.meter.counter(caMetrics.rotationFailures, { kind, reason: Failure.from(error).reason }).add()
    this.#ports.log.error('an authority could not be kept fresh', {
      kind,
      reason: Failure.from(error).reason,
      error: tellChain(error),
      lifeSpent: active && lifeSpent(active, this.#ports.clock.now()),
    })
  }

  /** V-10: once for each authority and share of its life. A process that starts anew tells the last one again. */
  async #alarm<M>(line: Line<M>): Promise<void> {
    const { audit, clock, log } = this.#ports
    const { kind } = line
    const { active } = line.slots()
    const share = alarmShare(line.slots(), clock.now(), this.#rules[kind])
    const told = this.#alarms[kind]
    if (!active || share === undefined || (told?.keyId === active.keyId && told.share >= share)) return
    this.#alarms[kind] = { keyId: active.keyId, share }
    const ending = { kind, authority: line.nameOf(active.material), slot: active.keyId, percent: 100 * share }
    log.error('an authority nears its end and the next one cannot take its place', {
      reason: 'ca.authority-ending',
      ...ending,
      until: formatInstant(active.until),
      problem: this.#problems[kind],
    })
    await audit.append(authorityEnding({ ...ending, until: active.until })).catch((error: unknown) => {
      log.error('an alarm could not be recorded', { error: tellChain(error) })
    })
  }

  #show(meter: Meter): void {
    const ofEach = <T>(read: (kind: AuthorityKind, held: Slots<unknown>) => readonly T[]) =>
      authorityKinds.filter((kind) => !this.#rules[kind].closing).flatMap((kind) => read(kind, this.#record[kind]))
    this.#gauges.use(
      meter.gauge(caMetrics.expiry, () => ofEach((kind, { active }) => (active ? [{ labels: { kind }, value: active.until / 1000 }] : []))),
    )
    this.#gauges.use(
      meter.gauge(caMetrics.alarm, () =>
        ofEach((kind, held) => [{ labels: { kind }, value: alarmShare(held, this.#ports.clock.now(), this.#rules[kind]) ?? 0 }]),
      ),
    )
    this.#gauges.use(
      meter.gauge(caMetrics.authorities, () =>
        ofEach((kind, { active, next, old }) => [
          { labels: { kind, state: 'active' }, value: active ? 1 : 0 },
          { labels: { kind, state: 'next' }, value: next ? 1 : 0 },
          { labels: { kind, state: 'old' }, value: old.length },
        ]),
      ),
    )
  }

  #untilNextMoment(): Duration {
    const now = this.#ports.clock.now()
    const moments = authorityKinds.map((kind) => nextMoment<unknown>(this.#record[kind], now, this.#rules[kind]))
    return Math.min(longestPause, Math.max(1, Math.min(...moments) - now))
  }

  #complaintsOf(kind: AuthorityKind, now: Instant): string[] {
    const { active } = this.#record[kind]
    const problem = this.#problems[kind]
    const why = problem === undefined ? '' : `: ${problem}`
    if (!active || now > active.until) return [`there is no ${told[kind]} authority${why}`]
    if (problem === undefined) return []
    const left = `ends in ${formatDuration(active.until - now)} (${lifeSpent(active, now)} of its life are over)`
    const share = alarmShare<unknown>(this.#record[kind], now, this.#rules[kind])
    const alarm = share === undefined ? '' : `alarm at ${100 * share} % of its life: `
    return [`${alarm}the ${told[kind]} authority ${left} and could not be kept fresh${why}`]
  }

  /** An upstream that goes on under a root that was tainted or revoked would bring back what everybody is leaving. */
  #demandTrusted(minted: X509Material): void {
    const { tainted, revoked } = this.#record.roots
    const root = rootId(minted)
    if (root === undefined || ![...tainted, ...revoked].includes(root)) return
    throw new Failure('failed_precondition', 'upstream.distrusted-root', {
      public: `the upstream authority cannot be used: it signs under the root \`${root}\`, which was tainted or revoked here`,
    })
  }

  #x509Line(): Line<X509Material> {
    return {
      kind: 'x509',
      keyType: this.#ports.keyTypes().keyType,
      slots: () => this.#record.x509,
      with: (x509) => ({ ...this.#record, x509 }),
      nameOf: authorityId,
      rootOf: rootId,
      publicKeyOf: ({ chain }) => chain[0].spki,
      make: (key, signal) => this.#certify(key, signal),
    }
  }

  /** A key that signs tokens: nobody above us has a say. */
  #keyLine(kind: 'jwt' | 'wit'): Line<JwtMaterial> {
    return {
      kind,
      keyType: this.#ports.keyTypes().jwtKeyType,
      slots: () => this.#record[kind],
      with: (changed) => ({ ...this.#record, [kind]: changed }),
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
    const { lifetime, pathLength, nameConstraints: constrained } = profile.ca
    const from = clock.now()
    const minted = await upstream.mint(
      {
        trustDomain,
        publicKey: key.publicKey,
        lifetime,
        leastLifetime: Math.min(0.9 * lifetime, 2 * profile.x509.workload.standard),
        pathLength,
        csr: () => authorityRequest({ key, trustDomain, serial: serials.next() }),
        certify: (issuer) =>
          issueAuthority(
            { trustDomain, key, issuer, serial: serials.next(), at: from, backdate: profile.backdate, lifetime, pathLength, constrained },
            this.#ports.office,
            signal,
          ),
      },
      signal,
    )
    this.#demandTrusted(minted)
    this.#upstreamComplaints = minted.complaints
    for (const complaint of minted.complaints) log.warn(complaint)
    for (const warning of minted.warnings) log.info('the upstream authority says', { warning })
    return { keyId: key.id, from, until: minted.until, material: { chain: minted.chain, roots: minted.roots } }
  }
}

const told: Readonly<Record<AuthorityKind, string>> = { x509: 'X.509', jwt: 'JWT', wit: 'WIT' }

function comingIn<M>({ next }: Slots<M>): Authority<M> {
  if (next === undefined || next.stage === 'intended') throw new Error('bug: there is no authority to come')
  return next.authority
}

/** `80 %` */
function lifeSpent({ from, until }: Authority<unknown>, now: Instant): string {
  return `${Math.floor((100 * (now - from)) / (until - from))} %`
}

function authorityKeysOf({ x509, jwt, wit, announced }: JournalRecord): readonly Uint8Array[] {
  const certificates = [...everyone(x509).flatMap(({ material: { chain, roots } }) => [...chain, ...roots]), ...announced]
  return [...certificates.map(({ spki }) => spki), ...[...everyone(jwt), ...everyone(wit)].map(({ material }) => material.publicKey)]
}

/** Every authority there is, announced or not. */
function everyone<M>({ active, next, old }: Slots<M>): readonly Authority<M>[] {
  return [...(active ? [active] : []), ...(next && next.stage !== 'intended' ? [next.authority] : []), ...old]
}

/** The keys that sign or will. */
function signingKeysOf({ active, next }: Slots<unknown>): string[] {
  return [...(active ? [active.keyId] : []), ...(next ? [next.stage === 'intended' ? next.keyId : next.authority.keyId] : [])]
}

/** Every key that an authority has, or is to have. */
function keyIdsOf(record: JournalRecord): string[] {
  return authorityKinds.flatMap((kind) => {
    const held: Slots<unknown> = record[kind]
    return [...signingKeysOf(held), ...everyone(held).map(({ keyId }) => keyId)]
  })
}

/** The bundle that follows from a record: every authority that was announced and is not forgotten, the oldest first, so that its order does not change either. */
function bundleOf(
  { sequence, x509, jwt, wit, roots, announced }: JournalRecord,
  { trustDomain, refreshHint }: Pick<RotationPorts, 'trustDomain' | 'refreshHint'>,
): TrustBundle {
  return {
    trustDomain,
    x509Authorities: rootsOf(x509, roots, announced),
    jwtAuthorities: keysOf(jwt),
    witAuthorities: keysOf(wit),
    sequence,
    refreshHint,
  }
}

/** A root is tainted if an operator said so, or if every authority under it is. Those that are only announced come last. */
function rootsOf(
  held: Slots<X509Material>,
  distrusted: JournalRecord['roots'],
  announced: readonly Certificate[],
): readonly X509Authority[] {
  const found = new Map<string, { readonly certificate: Certificate; tainted: boolean }>()
  for (const authority of byAge(trusted(held))) {
    for (const certificate of authority.material.roots) {
      if (distrusted.revoked.includes(keyIdentifierOf(certificate))) continue
      const before = found.get(fingerprint(certificate))
      found.set(fingerprint(certificate), { certificate, tainted: isTainted(authority) && (before?.tainted ?? true) })
    }
  }
  for (const certificate of announced) {
    if (distrusted.revoked.includes(keyIdentifierOf(certificate)) || found.has(fingerprint(certificate))) continue
    found.set(fingerprint(certificate), { certificate, tainted: false })
  }
  return [...found.values()].map(({ certificate, tainted }) => ({
    certificate,
    tainted: tainted || distrusted.tainted.includes(keyIdentifierOf(certificate)),
  }))
}

const keysOf = (held: Slots<JwtMaterial>): readonly TokenAuthority[] =>
  byAge(trusted(held)).map((authority) => ({
    keyId: authority.material.kid,
    publicKey: authority.material.publicKey,
    expiresAt: authority.until,
    tainted: isTainted(authority),
  }))

const isTainted = (authority: Authority<unknown>): boolean => 'tainted' in authority && authority.tainted === true

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
const mostAnnounced = 8
