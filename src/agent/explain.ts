/** Why a process gets what it gets: for the operator of the node, and for nobody else. */
import { collectSelectors, type Collection } from '../attestation/collect.ts'
import type { PeerCredentials } from '../attestation/peer-credentials.ts'
import { type Clock, formatInstant } from '../kernel/clock.ts'
import { tellSelector, type Selector } from '../spiffe/selector.ts'
import { isInForce } from './entry-index.ts'
import type { ConsideredEntry } from './identities.ts'
import type { IdentityCache } from './identity-cache.ts'

export interface Explanation {
  readonly pid: number
  readonly selectors: readonly Selector[]
  /** The nearest first. */
  readonly considered: readonly ExplainedEntry[]
  /** One sentence. */
  readonly verdict: string
}

export interface ExplainedEntry extends ConsideredEntry {
  readonly matches: boolean
  /** What else there is to say: until when the SVID holds, or why there is none. */
  readonly note: string
}

export interface ExplainParts {
  readonly peers: Pick<PeerCredentials, 'ofPid'>
  readonly collection: Collection
  readonly cache: IdentityCache
  readonly clock: Clock
}

/** @throws Failure `peer.no-such-process`, `workload.attestation-failed`, `workload.gone` */
export async function explain(parts: ExplainParts, pid: number, signal: AbortSignal): Promise<Explanation> {
  using peer = parts.peers.ofPid(pid)
  const selectors = await collectSelectors(peer, parts.collection, signal)
  const considered = parts.cache.consider(selectors, mostConsidered).map((one) => explained(one, parts))
  return { pid, selectors, considered, verdict: verdict(considered, parts.cache) }
}

function explained(one: ConsideredEntry, { cache, clock }: ExplainParts): ExplainedEntry {
  const matches = one.missing.length === 0 && one.entry.selectors.length > 0 && isInForce(one.entry, clock.now())
  return { ...one, matches, note: noteOn(one, cache, clock) }
}

function noteOn({ entry, missing }: ConsideredEntry, cache: IdentityCache, clock: Clock): string {
  if (!isInForce(entry, clock.now())) return `the entry expired at ${formatInstant(entry.expiresAt!)}`
  if (missing.length > 0) return `the process lacks ${missing.length} of ${entry.selectors.length} selectors`
  const { expiresAt, failure } = cache.stateOf(entry.id)
  const trouble = failure ? `; the last signing failed: ${failure.reason}: ${failure.message}` : ''
  return `${expiresAt === undefined ? 'no SVID is signed yet' : `the SVID holds until ${formatInstant(expiresAt)}`}${trouble}`
}

function verdict(considered: readonly ExplainedEntry[], cache: IdentityCache): string {
  if (!cache.isSynced) return 'the agent has not heard from its server yet, so it knows no entry'
  const matching = considered.filter((one) => one.matches)
  if (matching.length > 0)
    return `the process has ${matching.length === 1 ? 'one identity' : `${matching.length} identities`}: ${matching.map((one) => one.entry.spiffeId).join(', ')}`
  const [nearest] = considered
  if (!nearest) return 'no identity: there is no entry for this node; create one with this agent as its parent'
  if (nearest.missing.length === 0) return `no identity: ${nearest.note}`
  return `no identity: the nearest entry, \`${nearest.entry.spiffeId}\`, also asks for ${nearest.missing.map((one) => `\`${tellSelector(one)}\``).join(' and ')}`
}

const mostConsidered = 50
