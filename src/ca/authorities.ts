/** The authorities of this server as its operators see and move them. */
import type { Instant } from '../kernel/clock.ts'

export type AuthorityKind = 'x509' | 'jwt' | 'wit'
export const authorityKinds = ['x509', 'jwt', 'wit'] as const

/** One authority. */
export interface AuthorityStatus {
  /** The subject key identifier of an X.509 authority in lower-case hex; the `kid` of a JWT or WIT key. */
  readonly id: string
  /** The last moment at which it may sign. */
  readonly expiresAt: Instant
  /** The subject key identifier of the root above it in lower-case hex; absent where it is a root of its own, and for keys. */
  readonly upstreamId?: string
}

export interface AuthorityState {
  readonly active?: AuthorityStatus
  /** Announced, and to be the next. */
  readonly prepared?: AuthorityStatus
  /** The newest of those that signed before. */
  readonly old?: AuthorityStatus
}

/** Who asked, for the audit trail. */
export type Asked = Readonly<Record<string, string>>

/**
 * A forced rotation is prepare, activate, taint, revoke, in this order. Everything here is in the journal when it resolves.
 * @throws Failure `ca.wit-off` for a kind that is not configured, `journal.*`, `audit.*`
 */
export interface Authorities {
  state(kind: AuthorityKind): AuthorityState
  /**
   * Makes a new authority and announces it. One that was announced before and has not signed is replaced.
   * @throws Failure `authority.too-many`, `keys.*`, `upstream.*`
   */
  prepare(kind: AuthorityKind, asked: Asked, signal: AbortSignal): Promise<AuthorityStatus>
  /** The prepared authority signs from now on. @throws Failure `authority.none-prepared`, `authority.not-prepared` */
  activate(kind: AuthorityKind, id: string, asked: Asked): Promise<AuthorityStatus>
  /**
   * Announces that an old authority is trusted no longer soon: whoever holds something that it signed asks for a new one at once.
   * @throws Failure `authority.not-old`, `authority.already-tainted`, `authority.under-upstream`
   */
  taint(kind: AuthorityKind, id: string, asked: Asked): Promise<AuthorityStatus>
  /** Takes a tainted authority out of the bundle, and destroys its key. @throws Failure `authority.not-old`, `authority.not-tainted`, `authority.under-upstream` */
  revoke(kind: AuthorityKind, id: string, asked: Asked, signal: AbortSignal): Promise<AuthorityStatus>
  /**
   * As {@link taint}, for a root above us, named by its subject key identifier in hex.
   * @throws Failure `authority.no-upstream`, `authority.unknown-root`, `authority.root-in-use`, `authority.already-tainted`
   */
  taintRoot(subjectKeyId: string, asked: Asked): Promise<void>
  /** As {@link revoke}, for a root above us; no authority is accepted under it again. @throws Failure `authority.no-upstream`, `authority.unknown-root`, `authority.not-tainted` */
  revokeRoot(subjectKeyId: string, asked: Asked): Promise<void>
}
