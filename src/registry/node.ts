import type { Instant } from '../kernel/clock.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { Page } from './entry.ts'

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
  readonly selectors?: { readonly selectors: readonly Selector[]; readonly match: 'exact' | 'subset' | 'superset' | 'any' }
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
  remove(id: SpiffeId): Promise<AttestedNode | undefined>
  all(): Promise<readonly AttestedNode[]>
}
