import type { Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { ListMatch, Page } from './entry.ts'

/** A node that proved itself, and the certificates by which its agent is known. */
export interface AttestedNode {
  readonly id: SpiffeId
  readonly attestationType: string
  /** Serial number in lower-case hex of the agent's certificate in use; empty when banned or released. */
  readonly serial: string
  readonly expiresAt: Instant
  /** Issued by renewals and not seen in use yet, the oldest first: all are accepted until one of them is used first. At most 8. */
  readonly pending: readonly NodeCertificate[]
  /** Not expired, and replaced since another was used first, the oldest first. */
  readonly superseded: readonly SupersededCertificate[]
  /** Two parties were seen to hold the identity: neither is accepted until an operator decides. */
  readonly frozen?: CloneEvidence
  readonly selectors: readonly Selector[]
  readonly canReattest: boolean
  readonly banned: boolean
  readonly agentVersion: string
}

/** A certificate of an agent; the serial number in lower-case hex. */
export interface NodeCertificate {
  readonly serial: string
  readonly expiresAt: Instant
}

export interface SupersededCertificate extends NodeCertificate {
  /** When the one that replaced it was used first, which that is, and from where. */
  readonly since: Instant
  readonly by: CertificateSeen
}

export interface CertificateSeen {
  readonly serial: string
  readonly address: string
}

/** A superseded certificate in use, beside the one that replaced it (C-29). */
export interface CloneEvidence {
  readonly at: Instant
  readonly superseded: CertificateSeen
  readonly successor: CertificateSeen
}

export interface NodeFilter {
  readonly attestationType?: string
  readonly banned?: boolean
  readonly frozen?: boolean
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
  /** A `pending` certificate is seen in use for the first time; a `superseded` one was replaced a moment ago. */
  | { readonly accepted: true; readonly as: 'in-use' | 'pending' | 'superseded' }
  | { readonly accepted: false; readonly why: 'expired' | 'not-attested' | 'banned' | 'cloned' | 'not-active' }

/** A verified agent certificate. */
export interface ShownCertificate {
  readonly serial: string
  readonly notAfter: Instant
}

/** Judges a verified agent certificate by what is recorded about its node. */
export function standingOf(node: AttestedNode | undefined, shown: ShownCertificate, at: Instant): Standing {
  if (at > shown.notAfter) return { accepted: false, why: 'expired' }
  if (!node) return { accepted: false, why: 'not-attested' }
  if (node.banned) return { accepted: false, why: 'banned' }
  if (node.frozen) return { accepted: false, why: 'cloned' }
  if (node.serial !== '' && shown.serial === node.serial) return { accepted: true, as: 'in-use' }
  if (node.pending.some(({ serial }) => serial === shown.serial)) return { accepted: true, as: 'pending' }
  if (shownByAnother(node, shown.serial, at)) return { accepted: false, why: 'cloned' }
  if (node.superseded.some(({ serial }) => serial === shown.serial)) return { accepted: true, as: 'superseded' }
  return { accepted: false, why: 'not-active' }
}

/**
 * The superseded certificate that only a second party can be calling with: who went on to its successor uses that.
 * For a moment after the change it proves nothing, and is accepted: a refusal would end an agent whose certificate another replaced
 * before it could be seen that there are two.
 */
export function shownByAnother(node: AttestedNode, serial: string, at: Instant): SupersededCertificate | undefined {
  return node.superseded.find((one) => one.serial === serial && at > one.since + changeOver)
}

/**
 * Whether the node was renewed so often that whoever does it may want its first certificate forgotten. An agent renews at half life,
 * so that one or two superseded ones are alive.
 */
export function isRenewedTooOften({ superseded }: AttestedNode, at: Instant): boolean {
  return superseded.filter((one) => one.expiresAt >= at).length >= maxSuperseded
}

/** The node after a renewal: the new certificate waits for its first use, so that a lost answer strands nobody. */
export function renewed(node: AttestedNode, issued: NodeCertificate): AttestedNode {
  return { ...node, pending: [...node.pending, issued].slice(-maxPending) }
}

/** The node after this pending certificate was used first: the one before, and every other that waited, are superseded. */
export function activated(node: AttestedNode, seen: CertificateSeen, at: Instant): AttestedNode {
  const next = node.pending.find(({ serial }) => serial === seen.serial)
  if (!next) return node
  const { serial, expiresAt } = node
  const replaced = [{ serial, expiresAt }, ...node.pending.filter((one) => one !== next)].map((one) => ({ ...one, since: at, by: seen }))
  const superseded = [...node.superseded, ...replaced].filter((one) => one.expiresAt >= at)
  return { ...node, serial: next.serial, expiresAt: next.expiresAt, pending: [], superseded }
}

/** The node after a ban: no certificate of it is accepted, and it cannot attest again until it is removed. */
export function banned(node: AttestedNode): AttestedNode {
  return { ...withoutCertificates(node), banned: true }
}

/** The node after a copy of its identity was seen: no certificate of it is accepted, and it cannot attest again until it is released or removed. */
export function frozen(node: AttestedNode, evidence: CloneEvidence): AttestedNode {
  return { ...node, frozen: evidence }
}

/** The frozen node after an operator released it: no certificate of it is accepted, and it may attest again. */
export function released(node: AttestedNode): AttestedNode {
  return withoutCertificates(node)
}

function withoutCertificates(node: AttestedNode): AttestedNode {
  const { frozen: _, ...rest } = node
  return { ...rest, serial: '', pending: [], superseded: [] }
}

/** More lost answers in a row than this end the oldest. */
const maxPending = 8
const maxSuperseded = 32
/** Calls that were under way, and what the clocks of two servers may differ by. */
const changeOver = seconds(30)
