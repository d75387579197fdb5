/** The life of an authority: intended, made, published, active, old. Pure; `rotation.ts` does what it says. */
import type { Instant } from '../kernel/clock.ts'
import type { Duration } from '../kernel/duration.ts'

/** A key that may sign, and what makes it an authority (`material`: certificates, or a public key). */
export interface Authority<Material> {
  /** Under which the key manager keeps it. */
  readonly keyId: string
  /** When it was made. Not the `notBefore` of a certificate, which lies earlier: shares of the life count from here. */
  readonly from: Instant
  /** The last moment at which it may sign. */
  readonly until: Instant
  readonly material: Material
}

/** The authority to come: first only the intent to make a key, then one that nobody knows, then one that was announced. */
export type Next<Material> =
  | { readonly stage: 'intended'; readonly keyId: string }
  | { readonly stage: 'made'; readonly authority: Authority<Material> }
  | { readonly stage: 'published'; readonly authority: Authority<Material>; readonly since: Instant }

/** An authority that signs no longer and is still trusted: what it signed may be in use. */
export interface OldAuthority<Material> extends Authority<Material> {
  /** Announced as distrusted soon: whoever holds something of it asks for a new one now. */
  readonly tainted: boolean
}

/** INVARIANT: there is room for one active authority and one to come, so there can never be two. */
export interface Slots<Material> {
  readonly active: Authority<Material> | undefined
  readonly next: Next<Material> | undefined
  /** Newest first. */
  readonly old: readonly OldAuthority<Material>[]
}

export interface RotationRules {
  /** The share of the active authority's life after which the next is prepared: one half (SPIRE's rotator). */
  readonly prepareAt: number
  /** The share after which the next takes over: five sixths (SPIRE's rotator). */
  readonly activateAt: number
  /** How long the announcement of a new authority takes to reach everybody. */
  readonly propagation: Duration
  /** How long an old authority stays in the bundle after its end, for those whose clocks are late. */
  readonly keepExpired: Duration
  /** No authority of this kind is wanted any more: none is prepared, those that are there run out. */
  readonly closing?: boolean
}

export type Step =
  | { readonly do: 'prepare' }
  | { readonly do: 'publish' }
  | { readonly do: 'activate' }
  | { readonly do: 'retire' }
  | { readonly do: 'discard' }
  | { readonly do: 'forget'; readonly keyId: string }

/** A server that has no authority yet. */
export const noSlots: Slots<never> = { active: undefined, next: undefined, old: [] }

/** What to do now. Called after every step with the slots as they then are; says nothing when all is well. */
export function nextStep<M>(slots: Slots<M>, now: Instant, rules: RotationRules): Step | undefined {
  const { active, next } = slots
  if (active && now > active.until) return { do: 'retire' }
  if (next && next.stage !== 'intended' && (rules.closing || now > next.authority.until)) return { do: 'discard' }
  if (next?.stage === 'published' && now >= takeover(active, next.since, rules)) return { do: 'activate' }
  if (next?.stage === 'made') return { do: 'publish' }
  if (next?.stage !== 'published' && now >= preparation(active, rules)) return { do: 'prepare' }
  const outlived = slots.old.find((one) => now > one.until + rules.keepExpired) ?? slots.old[mostOld]
  return outlived && { do: 'forget', keyId: outlived.keyId }
}

/** When {@link nextStep} may next have something new to say; Infinity if never. */
export function nextMoment<M>(slots: Slots<M>, now: Instant, rules: RotationRules): Instant {
  const { active, next, old } = slots
  const moments = [
    ...(active ? [preparation(active, rules), active.until + 1] : []),
    ...(next?.stage === 'published' ? [takeover(active, next.since, rules), next.authority.until + 1] : []),
    ...old.map((one) => one.until + rules.keepExpired + 1),
  ]
  return Math.min(...moments.filter((moment) => moment > now))
}

/**
 * The last of {@link alarmShares} that the active authority's life has passed while the next one could not take its place (V-10): asked after
 * everything due was tried, so that what is still due has failed. Undefined when all is well.
 */
export function alarmShare<M>(slots: Slots<M>, now: Instant, rules: RotationRules): number | undefined {
  const { active } = slots
  const due = nextStep(slots, now, rules)
  if (!active || !due || !bringsTheNext.has(due.do)) return undefined
  return alarmShares.findLast((share) => now >= atShare(active, share))
}

/** Every authority whose signatures are to be trusted: announced, active or old. */
export function trusted<M>(slots: Slots<M>): readonly Authority<M>[] {
  const { active, next, old } = slots
  return [...(active ? [active] : []), ...(next?.stage === 'published' ? [next.authority] : []), ...old]
}

/** A key of this name is about to be made. An earlier intent is forgotten: it was never more than that. */
export function intend<M>(slots: Slots<M>, keyId: string): Slots<M> {
  if (slots.next && slots.next.stage !== 'intended') throw new Error('bug: an authority to come is there already')
  return { ...slots, next: { stage: 'intended', keyId } }
}

/** The intended key was made and certified. */
export function made<M>(slots: Slots<M>, authority: Authority<M>): Slots<M> {
  if (slots.next?.stage !== 'intended' || slots.next.keyId !== authority.keyId)
    throw new Error('bug: an authority was made that nobody intended')
  return { ...slots, next: { stage: 'made', authority } }
}

/** The authority to come is in the bundle from now on. */
export function publish<M>(slots: Slots<M>, now: Instant): Slots<M> {
  if (slots.next?.stage !== 'made') throw new Error('bug: there is no authority to publish')
  return { ...slots, next: { stage: 'published', authority: slots.next.authority, since: now } }
}

/** The published authority signs from now on. */
export function activate<M>(slots: Slots<M>): Slots<M> {
  if (slots.next?.stage !== 'published') throw new Error('bug: an authority cannot be used before it was published')
  return { active: slots.next.authority, next: undefined, old: withOld(slots) }
}

/** The active authority signs no longer. */
export function retire<M>(slots: Slots<M>): Slots<M> {
  return { ...slots, active: undefined, old: withOld(slots) }
}

/** The authority to come will not come. It signed nothing, so nothing of it needs to stay. */
export function discard<M>(slots: Slots<M>): Slots<M> {
  return { ...slots, next: undefined }
}

/** What an old authority signed is to be replaced: its end is near. */
export function taint<M>(slots: Slots<M>, keyId: string): Slots<M> {
  if (!slots.old.some((one) => one.keyId === keyId)) throw new Error('bug: only an old authority can be tainted')
  return { ...slots, old: slots.old.map((one) => (one.keyId === keyId ? { ...one, tainted: true } : one)) }
}

/** A tainted authority is trusted no longer, whatever it signed. */
export function revoke<M>(slots: Slots<M>, keyId: string): Slots<M> {
  if (!slots.old.some((one) => one.keyId === keyId && one.tainted)) throw new Error('bug: only a tainted authority can be revoked')
  return forget(slots, keyId)
}

/** An old authority is trusted no longer. */
export function forget<M>(slots: Slots<M>, keyId: string): Slots<M> {
  return { ...slots, old: slots.old.filter((one) => one.keyId !== keyId) }
}

function withOld<M>({ active, old }: Slots<M>): readonly OldAuthority<M>[] {
  return active ? [{ ...active, tainted: false }, ...old] : old
}

function preparation<M>(active: Authority<M> | undefined, rules: RotationRules): Instant {
  if (rules.closing) return Infinity
  return active ? atShare(active, rules.prepareAt) : -Infinity
}

/**
 * When the next authority takes over: as planned, but not before its announcement has reached everybody.
 * An announcement that came late is waited for at most half of what then remains of the active one.
 */
function takeover<M>(active: Authority<M> | undefined, since: Instant, rules: RotationRules): Instant {
  if (!active) return -Infinity
  const planned = atShare(active, rules.activateAt)
  const latest = atShare(active, (1 + rules.activateAt) / 2)
  return Math.max(planned, Math.min(since + rules.propagation, latest))
}

function atShare<M>(authority: Authority<M>, share: number): Instant {
  return authority.from + (authority.until - authority.from) * share
}

/** V-10. */
const alarmShares = [0.6, 0.8, 0.9]
const bringsTheNext: ReadonlySet<Step['do']> = new Set(['prepare', 'publish', 'activate'])

/**
 * Only a server that loses its keys at every start, again and again, has more old authorities than this; its bundle must not grow
 * without end, so the oldest is forgotten then.
 */
const mostOld = 64
