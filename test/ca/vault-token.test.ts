import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  accepted,
  begin,
  denied,
  endOf,
  failed,
  isUsable,
  loggedIn,
  nextMove,
  noToken,
  renewed,
  type Deed,
  type Grant,
  type Move,
  type TokenState,
} from '../../src/ca/vault/token.ts'
import { days, hours, minutes, seconds } from '../../src/kernel/duration.ts'

const start = 1_767_225_600_000
const grant = (ttl: number, renewable = true): Grant => ({ ttl, renewable })
const held = (ttl: number, renewable = true, jitter = 0): TokenState =>
  loggedIn(begin(noToken, 'login'), grant(ttl, renewable), start, jitter)

/** The first moment at which something is to be done, and what. */
function due(state: TokenState, now = start): { readonly after: number; readonly do: Deed } | undefined {
  const move = nextMove(state, now)
  if (move.do !== 'wait') return { after: now - start, do: move.do }
  return move.until === Infinity ? undefined : due(state, move.until)
}

describe('V-8 a token is kept alive', () => {
  test('whoever has none logs in at once', () => expect(nextMove(noToken, start)).toEqual({ do: 'login' }))

  test('it is renewed at two thirds of its life, or a little earlier', () => {
    expect(due(held(seconds(60)))).toEqual({ after: seconds(40), do: 'renew' })
    expect(due(held(seconds(60), true, 1))).toEqual({ after: seconds(36), do: 'renew' })
  })

  test('a renewal that fails is tried again within the rest of its life, and at 90 % a login follows', () => {
    let state = held(seconds(60))
    const tries: number[] = []
    for (let now = start + seconds(40); ;) {
      const move = nextMove(state, now)
      if (move.do === 'login') {
        expect(now - start).toBe(seconds(54))
        break
      }
      if (move.do === 'renew') {
        tries.push(now - start)
        state = failed(begin(state, 'renew'), now, minutes(1))
      } else if (move.do === 'wait') now = move.until
    }
    expect(tries.length).toBeGreaterThanOrEqual(3)
  })

  test('a token that was denied is replaced at once, and once only: then the policy is at fault', () => {
    const once = denied(held(hours(1)), 1, start + 10)
    expect(isUsable(once, start + 10)).toBe(false)
    expect(nextMove(once, start + 10)).toEqual({ do: 'login' })
    const twice = loggedIn(begin(once, 'login'), grant(hours(1)), start + 20, 0)
    expect(denied(twice, 2, start + 30)).toBe(twice)
    const later = denied(accepted(twice, 2), 2, start + 40)
    expect(nextMove(later, start + 40)).toEqual({ do: 'login' })
    expect(nextMove(denied(twice, 2, start + seconds(61)), start + seconds(61))).toEqual({ do: 'login' })
  })

  test('what an earlier epoch hears changes nothing', () => {
    const now = loggedIn(begin(denied(held(hours(1)), 1, start), 'login'), grant(hours(2)), start + 5, 0)
    expect(denied(now, 1, start + 6)).toBe(now)
    expect(accepted(now, 1)).toBe(now)
    expect(renewed(now, 1, grant(seconds(1)), start + 6, 0)).toEqual({ ...now, underway: undefined })
  })
})

describe('V-11 a token that cannot be renewed', () => {
  test('is replaced by a login when another would be renewed', () =>
    expect(due(held(seconds(90), false))).toEqual({ after: seconds(60), do: 'login' }))

  test('is one whose renewal gave less than it began with: its greatest age is near', () => {
    const state = renewed(begin(held(seconds(60)), 'renew'), 1, grant(seconds(20)), start + seconds(40), 0)
    expect(due(state, start + seconds(40))).toMatchObject({ do: 'login' })
  })

  test('a periodic token is renewed without end', () => {
    let state = held(seconds(60))
    for (let turn = 1; turn <= 1000; turn++) {
      const at = start + turn * seconds(40)
      expect(nextMove(state, at)).toEqual({ do: 'renew' })
      state = renewed(begin(state, 'renew'), 1, grant(seconds(60)), at, 0)
    }
    expect(state.epoch).toBe(1)
  })

  test('a token without an end is left alone', () => expect(due(held(Infinity))).toBeUndefined())
})

test.for([
  ['V-14 of 768 hours', hours(768), hours(512)],
  ['V-14 of 90 days', days(90), days(60)],
] as const)('a token %s is renewed after two thirds of them, not at once', ([, ttl, after]) => {
  expect(due(held(ttl))).toEqual({ after, do: 'renew' })
})

describe('whatever the vault does', () => {
  const answers = fc.oneof(
    fc.record({ kind: fc.constant('good' as const), ttl: fc.integer({ min: 1, max: 7200 }), renewable: fc.boolean() }),
    fc.record({ kind: fc.constant('bad' as const), pause: fc.integer({ min: 1, max: 60 }) }),
    fc.record({ kind: fc.constant('denied' as const), stale: fc.boolean() }),
    fc.record({ kind: fc.constant('accepted' as const) }),
  )

  test('V-8, V-9 a deed begins only when none is under way, epochs only grow, no token is used past its end, and nothing stands still', () => {
    fc.assert(
      fc.property(fc.array(answers, { maxLength: 60 }), fc.double({ min: 0, max: 1, noNaN: true }), (script, jitter) => {
        let state = noToken
        let now = start
        for (const step of script) {
          const move: Move = nextMove(state, now)
          const { epoch } = state
          if (step.kind === 'denied') state = denied(state, step.stale ? epoch - 1 : epoch, now)
          else if (step.kind === 'accepted') state = accepted(state, epoch)
          else if (move.do === 'wait') {
            expect(move.until).toBeGreaterThan(now)
            if (state.held && state.failures === 0) expect(move.until).toBeLessThan(endOf(state.held))
            expect(state.held === undefined && state.failures === 0).toBe(false)
            now = move.until
          } else {
            if (move.do === 'renew') expect(state.held?.renewable && isUsable(state, now)).toBe(true)
            state = begin(state, move.do)
            expect(nextMove(state, now)).toEqual({ do: 'wait', until: Infinity })
            if (step.kind === 'bad') state = failed(state, now, seconds(step.pause))
            else if (move.do === 'login') state = loggedIn(state, grant(seconds(step.ttl), step.renewable), now, jitter)
            else state = renewed(state, epoch, grant(seconds(step.ttl), step.renewable), now, jitter)
          }
          expect(state.epoch === epoch || state.epoch === epoch + 1).toBe(true)
          expect(state.notBefore - now).toBeLessThanOrEqual(seconds(60))
          if (state.held && now >= endOf(state.held)) expect(isUsable(state, now)).toBe(false)
        }
      }),
      { numRuns: 500 },
    )
  })

  test('V-10 a vault that was away for any time is logged in to within a minute of its return', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100_000 }), fc.integer({ min: 1, max: 3600 }), (away, ttl) => {
        let state = held(seconds(ttl))
        const back = start + seconds(away)
        for (let now = start; ;) {
          const move = nextMove(state, now)
          if (move.do === 'wait') now = move.until
          else if (now < back) state = failed(begin(state, move.do), now, seconds(60))
          else {
            // A token that outlived the outage needs nothing until its own moment.
            expect(now - back).toBeLessThanOrEqual(Math.max(seconds(60), seconds(ttl)))
            return
          }
        }
      }),
      { numRuns: 200 },
    )
  })
})
