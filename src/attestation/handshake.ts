/** The conversation in which a node proves itself, as a pure machine: whose turn it is, how much may be said, and until when. */
import type { Instant } from '../kernel/clock.ts'
import { type Duration, seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'

export interface HandshakeLimits {
  readonly evidenceBytes: number
  readonly csrBytes: number
  readonly challengeBytes: number
  readonly answerBytes: number
  readonly challenges: number
  readonly duration: Duration
}

/** Evidence is at most a few certificates; the largest known kind (TPM) stays under 32 KiB and asks once. */
export const handshakeLimits: HandshakeLimits = {
  evidenceBytes: 64 * 1024,
  csrBytes: 16 * 1024,
  challengeBytes: 64 * 1024,
  answerBytes: 64 * 1024,
  challenges: 4,
  duration: seconds(30),
}

/** Where a handshake stands. */
export interface Handshake {
  readonly turn: 'server' | 'agent' | 'done'
  readonly challenges: number
  readonly endsAt: Instant
}

/** What the agent opens with. */
export interface Evidence {
  readonly type: string
  readonly payload: Uint8Array
  readonly csr: Uint8Array
}

/**
 * The agent showed its evidence. Sizes are checked before anything looks into it (A-0 b).
 * @throws Failure `handshake.bad-type`, `handshake.too-large`
 */
export function begin(evidence: Evidence, at: Instant, limits = handshakeLimits): Handshake {
  if (!attestorType.test(evidence.type)) {
    throw new Failure('invalid_argument', 'handshake.bad-type', {
      public: `\`${evidence.type.slice(0, 40)}\` is not a type of node evidence: expected for example \`join_token\``,
    })
  }
  checkSize('evidence', evidence.payload, limits.evidenceBytes)
  checkSize('certificate request', evidence.csr, limits.csrBytes)
  return { turn: 'server', challenges: 0, endsAt: at + limits.duration }
}

/**
 * The server asks the agent something.
 * @throws Failure `handshake.out-of-turn`, `handshake.too-late`, `handshake.too-many-challenges`, `handshake.too-large`
 */
export function challenge(handshake: Handshake, bytes: Uint8Array, at: Instant, limits = handshakeLimits): Handshake {
  checkTurn(handshake, 'server', at)
  if (handshake.challenges >= limits.challenges) {
    throw new Failure('permission_denied', 'handshake.too-many-challenges', {
      public: `attestation takes more than ${limits.challenges} challenges`,
    })
  }
  checkSize('challenge', bytes, limits.challengeBytes)
  return { ...handshake, turn: 'agent', challenges: handshake.challenges + 1 }
}

/**
 * The agent answers.
 * @throws Failure `handshake.out-of-turn`, `handshake.too-late`, `handshake.too-large`
 */
export function answer(handshake: Handshake, bytes: Uint8Array, at: Instant, limits = handshakeLimits): Handshake {
  checkTurn(handshake, 'agent', at)
  checkSize('answer', bytes, limits.answerBytes)
  return { ...handshake, turn: 'server' }
}

/**
 * The server is convinced.
 * @throws Failure `handshake.out-of-turn`, `handshake.too-late`
 */
export function finish(handshake: Handshake, at: Instant): Handshake {
  checkTurn(handshake, 'server', at)
  return { ...handshake, turn: 'done' }
}

function checkTurn(handshake: Handshake, expected: Handshake['turn'], at: Instant): void {
  if (at > handshake.endsAt) throw new Failure('deadline_exceeded', 'handshake.too-late', { public: 'attestation took too long' })
  if (handshake.turn !== expected) {
    throw new Failure('invalid_argument', 'handshake.out-of-turn', {
      public: `attestation message out of turn: it is for the ${handshake.turn} to speak`,
    })
  }
}

function checkSize(what: string, bytes: Uint8Array, limit: number): void {
  if (bytes.length > limit) {
    throw new Failure('invalid_argument', 'handshake.too-large', { public: `the ${what} has ${bytes.length} bytes: at most ${limit}` })
  }
}

const attestorType = /^[a-z0-9_]{1,64}$/
