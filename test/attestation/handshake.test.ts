import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { answer, begin, challenge, finish, type Handshake, handshakeLimits } from '../../src/attestation/handshake.ts'
import { Failure } from '../../src/kernel/failure.ts'

const start = 1_000_000
const bytes = (length: number) => new Uint8Array(length)
const begun = () => begin({ type: 'join_token', payload: bytes(10), csr: bytes(200) }, start)
const refuses = (reason: string, act: () => unknown) => expect(act).toThrow(expect.objectContaining({ reason }))

describe('a handshake refuses', () => {
  test.each(['', 'Join_Token', '../x', 'join token', 'x'.repeat(65), 'k8s-psat\n'])('the type `%s`', (type) => {
    refuses('handshake.bad-type', () => begin({ type, payload: bytes(1), csr: bytes(1) }, start))
  })
  test('A-0 evidence, a request, a challenge or an answer that is too large', () => {
    refuses('handshake.too-large', () =>
      begin({ type: 'x509pop', payload: bytes(handshakeLimits.evidenceBytes + 1), csr: bytes(1) }, start),
    )
    refuses('handshake.too-large', () => begin({ type: 'x509pop', payload: bytes(1), csr: bytes(handshakeLimits.csrBytes + 1) }, start))
    refuses('handshake.too-large', () => challenge(begun(), bytes(handshakeLimits.challengeBytes + 1), start))
    refuses('handshake.too-large', () => answer(challenge(begun(), bytes(1), start), bytes(handshakeLimits.answerBytes + 1), start))
  })
  test('an answer to nothing, two challenges in a row, and anything after the end', () => {
    refuses('handshake.out-of-turn', () => answer(begun(), bytes(1), start))
    refuses('handshake.out-of-turn', () => challenge(challenge(begun(), bytes(1), start), bytes(1), start))
    refuses('handshake.out-of-turn', () => finish(challenge(begun(), bytes(1), start), start))
    refuses('handshake.out-of-turn', () => challenge(finish(begun(), start), bytes(1), start))
  })
  test('one challenge too many', () => {
    let at = begun()
    for (let round = 0; round < handshakeLimits.challenges; round++) at = answer(challenge(at, bytes(1), start), bytes(1), start)
    refuses('handshake.too-many-challenges', () => challenge(at, bytes(1), start))
    expect(finish(at, start).turn).toBe('done')
  })
  test('to go on after its time', () => {
    const last = start + handshakeLimits.duration
    expect(finish(begun(), last).turn).toBe('done')
    refuses('handshake.too-late', () => finish(begun(), last + 1))
    refuses('handshake.too-late', () => challenge(begun(), bytes(1), last + 1))
  })
})

test('no order of messages takes more challenges or time than allowed, or goes on after the end', () => {
  const step = fc.record({ act: fc.constantFrom('challenge', 'answer', 'finish'), wait: fc.nat(4_000) })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      let [at, now]: [Handshake, number] = [begun(), start]
      for (const { act, wait } of steps) {
        now += wait
        const before = at
        try {
          at = act === 'challenge' ? challenge(at, bytes(1), now) : act === 'answer' ? answer(at, bytes(1), now) : finish(at, now)
          expect(before.turn).not.toBe('done')
          expect(now).toBeLessThanOrEqual(start + handshakeLimits.duration)
        } catch (error) {
          if (!(error instanceof Failure)) throw error
          expect(at).toBe(before)
        }
        expect(at.challenges).toBeLessThanOrEqual(handshakeLimits.challenges)
      }
    }),
  )
})
