/** Peer → selectors → identities: the one path that all local doors use. */
import { collectSelectors, type Collection } from '../attestation/collect.ts'
import type { Peer } from '../attestation/peer.ts'
import type { Clock, Instant } from '../kernel/clock.ts'
import { type Duration, seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { Watched } from '../kernel/watched.ts'
import { tellSelector } from '../spiffe/selector.ts'
import type { Workload, WorkloadIdentities } from './identities.ts'
import { type IdentityCache, notReady } from './identity-cache.ts'
import { policiesOf } from './policies.ts'
import { SelectorGroup } from './selector-group.ts'
import type { PolicyDocuments } from './upstream-server.ts'

export interface IdentifyParts {
  readonly collection: Collection
  readonly cache: IdentityCache
  readonly documents: Watched<PolicyDocuments>
  readonly clock: Clock
}

/** Says who is on the other end of a connection. @throws Failure `workload.gone`, `workload.attestation-failed`, `workload.identity-not-ready`, `agent.not-synced` */
export type Identify = (peer: Peer, signal: AbortSignal) => Promise<Workload>

/**
 * A connection is attested once and then again every few seconds that it asks; that its process is still there is asked each time.
 */
export function identifier({ collection, cache, documents, clock }: IdentifyParts): Identify {
  const known = new WeakMap<Peer, Attested>()

  const attest = (peer: Peer): Attested => {
    // For all who ask on this connection together, so no single caller's signal ends it; it has its own deadline.
    const workload = collectSelectors(peer, collection, new AbortController().signal).then((selectors) =>
      workloadOf(peer, cache.group(selectors), cache, documents),
    )
    const attested = { workload, until: clock.now() + attestationHolds }
    known.set(peer, attested)
    workload.catch(() => {
      if (known.get(peer) === attested) known.delete(peer)
    })
    return attested
  }

  return async (peer, signal) => {
    signal.throwIfAborted()
    if (!peer.stillThere())
      throw new Failure('unavailable', 'workload.gone', { public: 'the calling process has ended', internal: { pid: peer.pid } })
    const before = known.get(peer)
    const { workload } = before && clock.now() < before.until ? before : attest(peer)
    const found = await workload
    await cache.ready(groupOf(found), identityPatience, signal)
    return found
  }
}

/**
 * What a workload holds, if it holds anything. The caller learns no more than that it does not; the log learns why.
 * That it is entitled to something which is not signed, or expired while the server is away, is not a refusal.
 * @throws Failure `workload.no-identity`, `workload.identity-not-ready`
 */
export function requireIdentity(workload: Workload, identities: WorkloadIdentities = workload.identities.current): WorkloadIdentities {
  if (identities.identities.length > 0) return identities
  if (workload.identities instanceof SelectorGroup && workload.identities.entries.length > 0) throw notReady(workload.identities)
  throw noIdentity(workload)
}

/** The refusal of a workload that asks for what no entry gives it: `workload.no-identity`. */
export function noIdentity(workload: Workload): Failure {
  return new Failure('permission_denied', 'workload.no-identity', {
    public: 'no identity issued',
    internal: {
      pid: workload.pid,
      selectors: workload.selectors.map(tellSelector),
      considered: (workload.considered?.() ?? []).map(
        ({ entry, missing }) => `${entry.id} ${entry.spiffeId}: lacks ${missing.map(tellSelector).join(' ') || 'nothing'}`,
      ),
    },
  })
}

/** The group behind a workload that {@link identifier} made. */
export function groupOf(workload: Workload): SelectorGroup {
  if (workload.identities instanceof SelectorGroup) return workload.identities
  throw new Error('bug: this workload was not identified by the agent')
}

interface Attested {
  readonly workload: Promise<Workload>
  readonly until: Instant
}

function workloadOf({ pid }: Peer, group: SelectorGroup, cache: IdentityCache, documents: Watched<PolicyDocuments>): Workload {
  return {
    pid,
    selectors: group.selectors,
    identities: group,
    policies: policiesOf(group, documents),
    considered: () => cache.consider(group.selectors, consideredInLog),
  }
}

/** A process can change what it is while its connection stays: its groups, its labels, its program. */
const attestationHolds: Duration = seconds(5)
const identityPatience: Duration = seconds(10)
const consideredInLog = 10
