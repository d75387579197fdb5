import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { hours, minutes } from '../../src/kernel/duration.ts'
import * as slots from '../../src/ca/slots.ts'
import { alarmShare, nextMoment, nextStep, noSlots, trusted, type Authority, type RotationRules, type Slots } from '../../src/ca/slots.ts'

const rules: RotationRules = { prepareAt: 1 / 2, activateAt: 5 / 6, propagation: minutes(5), keepExpired: hours(1) }
const day = hours(24)

const authority = (keyId: string, life: { from: number; until: number }): Authority<string> => ({
  keyId,
  ...life,
  material: `material of ${keyId}`,
})
const activeFor = (life: { from: number; until: number }): Slots<string> => ({ ...noSlots, active: authority('a', life) })
const withNext = (life: { from: number; until: number }, next: { published: boolean; since?: number }): Slots<string> => ({
  ...activeFor(life),
  next: next.published
    ? { stage: 'published', authority: authority('b', { from: day, until: 3 * day }), since: next.since ?? day }
    : { stage: 'made', authority: authority('b', { from: day, until: 3 * day }) },
})

describe('a step that does not fit is a bug, not a change', () => {
  test('an authority that was not published cannot be activated', () => {
    expect(() => slots.activate(withNext({ from: 0, until: day }, { published: false }))).toThrow('bug:')
    expect(() => slots.activate(activeFor({ from: 0, until: day }))).toThrow('bug:')
  })

  test('an authority that nobody intended cannot be made', () => {
    expect(() => slots.made(noSlots, authority('b', { from: 0, until: day }))).toThrow('bug:')
    expect(() => slots.made(slots.intend<string>(noSlots, 'c'), authority('b', { from: 0, until: day }))).toThrow('bug:')
  })

  test('a second authority to come is not intended', () => {
    expect(() => slots.intend(withNext({ from: 0, until: day }, { published: true }), 'c')).toThrow('bug:')
  })
})

describe('what to do now', () => {
  test('a new server prepares, publishes and activates at once', () => {
    const intended = slots.intend<string>(noSlots, 'a')
    const made = slots.made(intended, authority('a', { from: 0, until: day }))
    expect(nextStep(noSlots, 0, rules)).toEqual({ do: 'prepare' })
    expect(nextStep(intended, 0, rules)).toEqual({ do: 'prepare' })
    expect(nextStep(made, 0, rules)).toEqual({ do: 'publish' })
    expect(nextStep(slots.publish(made, 0), 0, rules)).toEqual({ do: 'activate' })
    expect(nextStep(slots.activate(slots.publish(made, 0)), 0, rules)).toBeUndefined()
  })

  test('the next key is prepared at half life, and used only after it was published', () => {
    expect(nextStep(activeFor({ from: 0, until: 2 * day }), day - 1, rules)).toBeUndefined()
    expect(nextStep(activeFor({ from: 0, until: 2 * day }), day, rules)).toEqual({ do: 'prepare' })
    expect(nextStep(withNext({ from: 0, until: 2 * day }, { published: false }), 2 * day - 1, rules)).toEqual({ do: 'publish' })
  })

  test('the next key takes over at five sixths of the life', () => {
    const published = withNext({ from: 0, until: 2 * day }, { published: true })
    expect(nextStep(published, hours(40) - 1, rules)).toBeUndefined()
    expect(nextMoment(published, day, rules)).toBe(hours(40))
    expect(nextStep(published, hours(40), rules)).toEqual({ do: 'activate' })
  })

  test('a key that was announced late is used only when its announcement has reached everybody', () => {
    const published = withNext({ from: 0, until: 2 * day }, { published: true, since: hours(41) })
    expect(nextStep(published, hours(41) + minutes(5) - 1, rules)).toBeUndefined()
    expect(nextStep(published, hours(41) + minutes(5), rules)).toEqual({ do: 'activate' })
  })

  test('a slow announcement is not waited for until the active key has ended', () => {
    const slow = { ...rules, propagation: day }
    const published = withNext({ from: 0, until: 2 * day }, { published: true, since: hours(41) })
    expect(nextStep(published, hours(44) - 1, slow)).toBeUndefined()
    expect(nextStep(published, hours(44), slow)).toEqual({ do: 'activate' })
  })

  test('an authority that ended is retired even if nothing replaces it, and stays trusted for a while', () => {
    const ended = activeFor({ from: 0, until: day })
    expect(nextStep(ended, day, rules)).toEqual({ do: 'prepare' })
    expect(nextStep(ended, day + 1, rules)).toEqual({ do: 'retire' })
    expect(trusted(slots.retire(ended)).map((one) => one.keyId)).toEqual(['a'])
  })

  test('an old authority is forgotten when nobody can hold anything valid of it', () => {
    const old: Slots<string> = {
      active: authority('b', { from: day, until: 3 * day }),
      next: undefined,
      old: [{ ...authority('a', { from: 0, until: day }), tainted: false }],
    }
    expect(nextStep(old, day + hours(1), rules)).toBeUndefined()
    expect(nextMoment(old, day + hours(1), rules)).toBe(day + hours(1) + 1)
    expect(nextStep(old, day + hours(1) + 1, rules)).toEqual({ do: 'forget', keyId: 'a' })
    expect(trusted(slots.forget(old, 'a')).map((one) => one.keyId)).toEqual(['b'])
  })

  test('an authority to come that ended before its turn is thrown away', () => {
    const idle: Slots<string> = { ...noSlots, next: { stage: 'published', authority: authority('b', { from: 0, until: day }), since: 0 } }
    expect(nextStep(idle, day + 1, rules)).toEqual({ do: 'discard' })
  })
})

/** Runs the slots against a clock; the upstream works or not as `outages` says. */
function live(hops: readonly { readonly wait: number; readonly upstream: boolean }[], lifetime: number, propagation: number) {
  const own = { ...rules, propagation, keepExpired: Math.min(lifetime, hours(1)) }
  let now = 0
  let keys = 0
  let held: Slots<string> = noSlots
  const announcedAt = new Map<string, number>()
  let gap = 0
  for (const hop of hops) {
    const until = now + hop.wait
    while (now <= until) {
      for (let steps = 0; ; steps++) {
        if (steps > 20) throw new Error('the slots never come to rest')
        const step = nextStep(held, now, own)
        if (!step) break
        if (step.do === 'prepare') {
          held = slots.intend(held, `k${++keys}`)
          if (!hop.upstream) break
          held = slots.made(held, authority(`k${keys}`, { from: now, until: now + lifetime }))
        }
        if (step.do === 'publish') held = slots.publish(held, now)
        if (step.do === 'activate') held = slots.activate(held)
        if (step.do === 'retire') held = slots.retire(held)
        if (step.do === 'discard') held = slots.discard(held)
        if (step.do === 'forget') held = slots.forget(held, step.keyId)
        for (const one of trusted(held)) if (!announcedAt.has(one.keyId)) announcedAt.set(one.keyId, now)
      }
      check(held, now)
      now = Math.min(nextMoment(held, now, own), now + lifetime / 20)
    }
  }
  return { gap, keys, held }

  function check(state: Slots<string>, at: number): void {
    const ids = [state.active, ...state.old].flatMap((one) => (one ? [one.keyId] : []))
    expect(new Set(ids).size).toBe(ids.length)
    if (state.active) {
      expect(announcedAt.get(state.active.keyId)).toBeLessThanOrEqual(at)
      expect(at).toBeLessThanOrEqual(state.active.until)
    } else gap++
    expect(state.old.length).toBeLessThanOrEqual(4)
  }
}

describe('for as long as it runs', () => {
  const lifetimes = fc.constantFrom(60_000, minutes(10), day)

  test('there is never a gap, and never an authority that was not announced, while the upstream works', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 6 }),
        lifetimes,
        fc.double({ min: 0, max: 2, noNaN: true }),
        (waits, life, share) => {
          const ran = live(
            waits.map((wait) => ({ wait: (wait * life) / 20, upstream: true })),
            life,
            share * life,
          )
          expect(ran.gap).toBe(0)
        },
      ),
      { numRuns: 60 },
    )
  })

  test('an upstream that comes and goes leaves one active authority at most, and all trusted that signed', () => {
    const hop = fc.record({ wait: fc.integer({ min: 1, max: day * 2 }), upstream: fc.boolean() })
    fc.assert(
      fc.property(fc.array(hop, { minLength: 1, maxLength: 8 }), (hops) => {
        live(hops, day, minutes(5))
      }),
      { numRuns: 60 },
    )
  })
})

test('V-10 an alarm at 60, 80 and 90 % of the life, while the next authority is not there', () => {
  const life = { from: 0, until: 1000 }
  const alone = activeFor(life)
  expect([599, 600, 799, 800, 899, 900, 1000].map((at) => alarmShare(alone, at, rules))).toEqual([undefined, 0.6, 0.6, 0.8, 0.8, 0.9, 0.9])
  expect(alarmShare(slots.intend(alone, 'b'), 650, rules)).toBe(0.6)
  expect(alarmShare(withNext(life, { published: false }), 650, rules)).toBe(0.6)
  expect(alarmShare(withNext(life, { published: true }), 650, rules)).toBeUndefined()
  expect(alarmShare(alone, 650, { ...rules, closing: true })).toBeUndefined()
  expect(alarmShare(noSlots, 650, rules)).toBeUndefined()
})
