import { createHash } from 'node:crypto'
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { spiffeId, type SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'

/** A token that admits one node, once. Stored by its SHA-256, so that the store gives nobody a token. */
export interface JoinToken {
  /** SHA-256 of the token, lower-case hex. */
  readonly digest: string
  readonly expiresAt: Instant
}

/** PORT: keeps join tokens. */
export interface TokenStore {
  /** @throws Failure `join-token.exists` */
  create(token: JoinToken): Promise<void>
  /** Removes and returns it in one step: of any number of concurrent callers exactly one gets it. */
  consume(digest: string): Promise<JoinToken | undefined>
  /** Removes those that expired before `at`. */
  prune(at: Instant): Promise<number>
}

/** The form in which a token is kept and looked up. */
export const joinTokenDigest = (token: string): string => createHash('sha256').update(token).digest('hex')

/**
 * The identity of the agent that joins with a token.
 * @throws Failure `join-token.malformed` for a token that could not be one segment of a path; the token is not shown
 */
export function joinTokenAgent(trustDomain: TrustDomain, token: string): SpiffeId {
  if (!tokenPattern.test(token) || token === '.' || token === '..') {
    throw new Failure('invalid_argument', 'join-token.malformed', {
      public: 'the join token does not have the expected form: 1 to 255 letters, digits, `.`, `-` and `_`',
    })
  }
  return spiffeId(trustDomain, `/spire/agent/join_token/${token}`)
}

/** SPIFFE-ID section 2.2: what a path segment is made of. */
const tokenPattern = /^[a-zA-Z0-9._-]{1,255}$/
