/** The life of a token: got by a login, renewed, got anew (V-8 to V-11). Pure; `session.ts` does what it says. */
import type { Instant } from '../../kernel/clock.ts'
import { seconds, type Duration } from '../../kernel/duration.ts'

/** What the vault said of a token. */
export interface Grant {
  /** How long it lives from now on; Infinity for one without an end. */
  readonly ttl: Duration
  readonly renewable: boolean
}

/** The life of the token in hand. */
export interface HeldToken extends Grant {
  /** When the login or the last renewal was answered. */
  readonly from: Instant
  /** The life that it began with: a renewal that gives clearly less runs into an end that cannot be moved (V-11). */
  readonly first: Duration
  /** How far the moments of this token lie from everybody else's: 0 to 1. */
  readonly jitter: number
}

export interface TokenState {
  /** Counts the logins. What is said of an earlier epoch changes nothing: its token is gone. */
  readonly epoch: number
  readonly held: HeldToken | undefined
  /** What is under way: never two at once (V-9). */
  readonly underway: Deed | undefined
  /** Since the last success. */
  readonly failures: number
  /** Nothing is tried before this moment. */
  readonly notBefore: Instant
  /** The token before was denied, and nothing was accepted with this one yet: a denial is then the policy's, and ends there. */
  readonly onTrial: boolean
}

export type Deed = 'login' | 'renew'
export type Move = { readonly do: Deed } | { readonly do: 'wait'; readonly until: Instant }

export const noToken: TokenState = { epoch: 0, held: undefined, underway: undefined, failures: 0, notBefore: -Infinity, onTrial: false }

/** What to do now. Called after every change. */
export function nextMove(state: TokenState, now: Instant): Move {
  const { held, underway, notBefore } = state
  if (underway) return { do: 'wait', until: Infinity }
  if (now < notBefore) return { do: 'wait', until: notBefore }
  if (!held || now >= loginDue(held)) return { do: 'login' }
  if (!held.renewable) return { do: 'wait', until: loginDue(held) }
  return now >= renewalDue(held) ? { do: 'renew' } : { do: 'wait', until: renewalDue(held) }
}

/** Whether calls may be made with the token in hand. */
export const isUsable = ({ held }: TokenState, now: Instant): boolean => held !== undefined && now < endOf(held)

/** When the token in hand ends by itself. */
export const endOf = ({ from, ttl }: HeldToken): Instant => from + ttl

export function begin(state: TokenState, deed: Deed): TokenState {
  if (state.underway) throw new Error('bug: two deeds for one token')
  return { ...state, underway: deed }
}

export function loggedIn(state: TokenState, grant: Grant, now: Instant, jitter: number): TokenState {
  const held = { ...grant, from: now, first: grant.ttl, jitter }
  return { ...state, epoch: state.epoch + 1, held, underway: undefined, failures: 0, notBefore: now }
}

/** An answer to a renewal that was asked for in `epoch`. */
export function renewed(state: TokenState, epoch: number, { ttl, renewable }: Grant, now: Instant, jitter: number): TokenState {
  const { held } = state
  const idle = { ...state, underway: undefined }
  if (epoch !== state.epoch || !held) return idle
  // A shorter life than it began with: its last, whatever the vault says. The next token comes from a login.
  const last = ttl < held.first * nearlyWhole
  return { ...idle, held: { ...held, ttl, from: now, renewable: renewable && !last, jitter }, failures: 0, notBefore: now }
}

/**
 * What was under way failed. The next try comes after `pause`: sooner while there is life left, so that at least four fit into the rest of it,
 * and never so late that the login at 90 % waits for it.
 */
export function failed(state: TokenState, now: Instant, pause: Duration): TokenState {
  return { ...state, underway: undefined, failures: state.failures + 1, notBefore: nextTry(state.held, now, pause) }
}

function nextTry(held: HeldToken | undefined, now: Instant, pause: Duration): Instant {
  const left = held ? endOf(held) - now : 0
  if (!held || left <= 0) return now + pause
  const soon = now + Math.min(pause, Math.max(shortestPause, left / 4))
  return now < loginDue(held) ? Math.min(soon, loginDue(held)) : soon
}

/**
 * A call with the token of `epoch` was denied. The first time the token is given up, and a login follows at once;
 * if the next is denied as well, the token is not at fault: it is kept, and looked at anew no sooner than in a minute.
 */
export function denied(state: TokenState, epoch: number, now: Instant): TokenState {
  const { held, onTrial } = state
  if (epoch !== state.epoch || !held || (onTrial && now - held.from < trial)) return state
  return { ...state, held: undefined, notBefore: -Infinity, onTrial: true }
}

/** A call with the token of `epoch` was answered. */
export function accepted(state: TokenState, epoch: number): TokenState {
  return epoch === state.epoch && state.held && state.onTrial ? { ...state, onTrial: false } : state
}

/** From two thirds of the life down to six tenths, so that many servers do not come at once (V-8). */
const renewalDue = ({ from, ttl, jitter }: HeldToken): Instant => (ttl === Infinity ? Infinity : from + ttl * (2 / 3 - jitter / 15))

/** A token that can be renewed is given up at 90 % of its life; one that cannot, when the other would be renewed (V-8, V-11). */
const loginDue = (held: HeldToken): Instant => (held.renewable && held.ttl !== Infinity ? held.from + held.ttl * 0.9 : renewalDue(held))

/** A vault counts whole seconds, and some of them pass on the way. */
const nearlyWhole = 0.8
const shortestPause = seconds(1)
const trial = seconds(60)
