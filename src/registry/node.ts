import type { Instant } from '../kernel/clock.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { ListMatch, Page } from './entry.ts'

/** A node that proved itself, and the certificates by which its agent is known. */
export interface AttestedNode {
  readonly id: SpiffeId
  readonly attestationType: string
  /** Serial number in lower-case hex of the agent's certificate in use; empty when banned. */
  readonly serial: string
  readonly expiresAt: Instant
  /** Issued by a renewal and not seen in use yet: both are accepted until the new one is used first. */
  readonly pending?: { readonly serial: string; readonly expiresAt: Instant }
  readonly selectors: readonly Selector[]
  readonly canReattest: boolean
  readonly banned: boolean
  readonly agentVersion: string
}

export interface NodeFilter {
  readonly attestationType?: string
  readonly banned?: boolean
  readonly canReattest?: boolean
  readonly expiresBefore?: Instant
  readonly selectors?: { readonly selectors: readonly Selector[]; readonly match: ListMatch }
}

/** PORT: keeps attested nodes. */
export interface NodeStore {
  /** Creates or replaces. */
  put(node: AttestedNode): Promise<void>
  find(id: SpiffeId): Promise<AttestedNode | undefined>
  /** Changes the node in one transaction; undefined from `change` leaves it as it is. Returns what is stored afterwards. */
  change(id: SpiffeId, change: (node: AttestedNode) => AttestedNode | undefined): Promise<AttestedNode | undefined>
  list(filter: NodeFilter, page: { readonly after?: string; readonly limit: number }): Promise<Page<AttestedNode>>
  count(filter: NodeFilter): Promise<number>
  /** The node that was there. */
  remove(id: SpiffeId): Promise<AttestedNode | undefined>
}

/** How an agent that shows a certificate stands with us. */
export type Standing =
  | { readonly accepted: true; /** The certificate is the pending one, seen in use for the first time. */ readonly firstUse: boolean }
  | { readonly accepted: false; readonly why: 'expired' | 'not-attested' | 'banned' | 'not-active' }

/** Judges a verified agent certificate by what is recorded about its node. */
export function standingOf(
  node: AttestedNode | undefined,
  shown: { readonly serial: string; readonly notAfter: Instant },
  at: Instant,
): Standing {
  if (at > shown.notAfter) return { accepted: false, why: 'expired' }
  if (!node) return { accepted: false, why: 'not-attested' }
  if (node.banned) return { accepted: false, why: 'banned' }
  if (node.serial !== '' && shown.serial === node.serial) return { accepted: true, firstUse: false }
  if (node.pending && shown.serial === node.pending.serial) return { accepted: true, firstUse: true }
  return { accepted: false, why: 'not-active' }
}

/** The node after a renewal: the new certificate waits for its first use, so that a lost answer strands nobody. */
export function renewed(node: AttestedNode, issued: { readonly serial: string; readonly expiresAt: Instant }): AttestedNode {
  return { ...node, pending: issued }
}

/** The node after its pending certificate was used: the one before is accepted no more. */
export function activated(node: AttestedNode): AttestedNode {
  const { pending, ...rest } = node
  return pending ? { ...rest, serial: pending.serial, expiresAt: pending.expiresAt } : node
}

/** The node after a ban: no certificate of it is accepted, and it cannot attest again until it is removed. */
export function banned(node: AttestedNode): AttestedNode {
  const { pending: _, ...rest } = node
  return { ...rest, serial: '', banned: true }
}
