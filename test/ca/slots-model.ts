/** The state machine of the authorities beside a model of those who rely on it, with a clock that only moves forward. */
import fc from 'fast-check'
import * as slots from '../../src/ca/slots.ts'
import { nextMoment, nextStep, noSlots, trusted, type Authority, type RotationRules, type Slots } from '../../src/ca/slots.ts'

const lifetime = 24 * 3_600_000
/** The longest that anything signed may live, if its authority lives that long. */
const longestLeaf = lifetime / 4
const rules: RotationRules = { prepareAt: 1 / 2, activateAt: 5 / 6, propagation: 300_000, keepExpired: 3_600_000 }

/** A step is cut into what is written at once; a power cut lets only what was written survive. */
class World {
  now = 0
  /** What the journal holds: all that a restart begins with. */
  written: Slots<string> = noSlots
  upstreamIsAway = false
  #keys = 0
  readonly #published = new Set<string>()
  readonly #signed: { readonly keyId: string; readonly until: number }[] = []
  readonly #revoked = new Set<string>()
  #hadActive = false

  /** Does what is due, until nothing is, or until the power goes after `most` writes. */
  settle(most = Infinity): void {
    for (let writes = 0, steps = 0; writes < most; steps++) {
      if (steps > 50) throw new Error('the slots never come to rest')
      const step = nextStep(this.written, this.now, rules)
      if (!step) return
      const before = this.written
      this.#do(step)
      if (before === this.written) return
      writes++
      this.check()
    }
  }

  /** An operator's preparation: what was announced makes room. */
  prepare(most = Infinity): void {
    if (this.upstreamIsAway || this.written.old.length >= 8) return
    const deeds = [
      () => this.written.next && this.written.next.stage !== 'intended' && this.write(slots.discard(this.written)),
      () => this.written.next === undefined && this.write(slots.intend(this.written, this.#newKey())),
      () => this.written.next?.stage === 'intended' && this.write(slots.made(this.written, this.#authority(this.written.next.keyId))),
      () => this.written.next?.stage === 'made' && this.write(slots.publish(this.written, this.now)),
    ]
    for (const deed of deeds.slice(0, most)) deed()
  }

  activate(): void {
    if (this.written.next?.stage === 'published') this.write(slots.activate(this.written))
  }

  taint(which: number): void {
    const old = this.written.old[which % Math.max(1, this.written.old.length)]
    if (old && !old.tainted) this.write(slots.taint(this.written, old.keyId))
  }

  revoke(which: number): void {
    const old = this.written.old[which % Math.max(1, this.written.old.length)]
    if (!old?.tainted) return
    this.#revoked.add(old.keyId)
    this.write(slots.revoke(this.written, old.keyId))
  }

  sign(): void {
    const { active } = this.written
    if (!active || this.now > active.until) return
    if (!this.#published.has(active.keyId)) throw new Error('an authority signed that was never announced')
    this.#signed.push({ keyId: active.keyId, until: Math.min(this.now + longestLeaf, active.until) })
  }

  /** Time passes, in hops to the moments that the machine itself names. */
  pass(duration: number): void {
    const end = this.now + duration
    while (this.now < end) {
      this.now = Math.min(end, nextMoment(this.written, this.now, rules), this.now + lifetime / 24)
      this.settle()
    }
  }

  write(state: Slots<string>): void {
    this.written = state
    this.check()
  }

  check(): void {
    const { active, next, old } = this.written
    for (const one of trusted(this.written)) this.#published.add(one.keyId)
    const all = [active, next?.stage === 'intended' ? undefined : next?.authority, ...old].flatMap((one) => (one ? [one.keyId] : []))
    if (new Set(all).size !== all.length) throw new Error(`an authority is there twice: ${all.join(' ')}`)
    if (all.some((keyId) => this.#revoked.has(keyId))) throw new Error('a revoked authority came back')
    if (active) this.#hadActive = true
    else if (this.#hadActive && !this.upstreamIsAway && !this.#retiring()) throw new Error('there is no active authority any more')
    const known = new Set(trusted(this.written).map(({ keyId }) => keyId))
    const lost = this.#signed.find(({ keyId, until }) => until >= this.now && !known.has(keyId) && !this.#revoked.has(keyId))
    if (lost) throw new Error(`${lost.keyId} is not trusted any more, and something that it signed lives`)
    if (trusted(this.written).length > 14) throw new Error(`${trusted(this.written).length} authorities are announced`)
  }

  /** One that ended while the upstream, or this machine, was away: another is being made. */
  #retiring(): boolean {
    return nextStep(this.written, this.now, rules) !== undefined
  }

  #do(step: slots.Step): void {
    switch (step.do) {
      case 'prepare':
        if (this.written.next === undefined) this.written = slots.intend(this.written, this.#newKey())
        else if (!this.upstreamIsAway && this.written.next.stage === 'intended')
          this.written = slots.made(this.written, this.#authority(this.written.next.keyId))
        return
      case 'publish':
        this.written = slots.publish(this.written, this.now)
        return
      case 'activate':
        this.written = slots.activate(this.written)
        return
      case 'retire':
        this.written = slots.retire(this.written)
        return
      case 'discard':
        this.written = slots.discard(this.written)
        return
      case 'forget':
        this.written = slots.forget(this.written, step.keyId)
    }
  }

  #newKey = (): string => `k${++this.#keys}`
  #authority = (keyId: string): Authority<string> => ({ keyId, from: this.now, until: this.now + lifetime, material: keyId })
}

type Deed = (world: World) => void

/** What may happen, in any order: time, signatures, outages, operators, and power cuts in the middle of each. */
const deeds: readonly fc.Arbitrary<{ readonly told: string; readonly deed: Deed }>[] = [
  fc.integer({ min: 1, max: lifetime }).map((ms) => ({ told: `pass ${ms}`, deed: (world) => world.pass(ms) })),
  fc.constant({ told: 'sign', deed: (world: World) => world.sign() }),
  fc.boolean().map((away) => ({ told: `upstream ${away ? 'away' : 'back'}`, deed: (world) => void (world.upstreamIsAway = away) })),
  fc.integer({ min: 1, max: 4 }).map((most) => ({ told: `prepare, power cut after ${most}`, deed: (world) => world.prepare(most) })),
  fc.constant({ told: 'prepare', deed: (world: World) => world.prepare() }),
  fc.constant({ told: 'activate', deed: (world: World) => world.activate() }),
  fc.nat({ max: 9 }).map((which) => ({ told: `taint ${which}`, deed: (world) => world.taint(which) })),
  fc.nat({ max: 9 }).map((which) => ({ told: `revoke ${which}`, deed: (world) => world.revoke(which) })),
  // Off for a while: what was due meanwhile is done after the restart, up to the next power cut.
  fc.tuple(fc.integer({ min: 1, max: 3 * lifetime }), fc.integer({ min: 0, max: 5 })).map(([off, most]) => ({
    told: `off for ${off}, power cut after ${most}`,
    deed: (world) => {
      world.now += off
      world.settle(most)
    },
  })),
]

/** Runs the machine and its world under this many seeds. @throws Error with the deeds that broke an invariant */
export function tryRotations(seeds: number, seed: number): void {
  fc.assert(
    fc.property(fc.array(fc.oneof(...deeds), { minLength: 1, maxLength: 60 }), (list) => {
      const world = new World()
      world.settle()
      for (const { deed } of list) {
        deed(world)
        world.check()
      }
      world.upstreamIsAway = false
      world.settle()
      if (!world.written.active) throw new Error('no restart brought an authority back')
    }),
    { numRuns: seeds, seed },
  )
}
