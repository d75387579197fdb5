import type { Instant } from '../kernel/clock.ts'

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
