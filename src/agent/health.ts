import type { Clock, Instant } from '../kernel/clock.ts'
import { type Duration, formatDuration, minutes } from '../kernel/duration.ts'
import type { Meter } from '../kernel/meter.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { IdentityCache } from './identity-cache.ts'
import { agentMetrics } from './metrics.ts'
import type { OwnIdentity } from './own-identity.ts'
import type { PolicyFeed } from './policies.ts'
import type { Sync } from './sync.ts'

/** How the agent is, as far as it knows. */
export interface AgentStatus {
  readonly spiffeId: SpiffeId
  readonly svidExpiresAt: Instant
  /** Absent until the first sync succeeded. */
  readonly lastSyncAt?: Instant
  readonly entries: number
  readonly svids: number
  readonly policyVersion: string
  /** True when workloads get what they are entitled to. */
  readonly ready: boolean
  /** What is wrong, one sentence each; there can be some while the agent is still ready. */
  readonly reasons: readonly string[]
}

export interface HealthParts {
  readonly own: Pick<OwnIdentity, 'state' | 'complaints'>
  readonly sync: Pick<Sync, 'status'>
  readonly cache: Pick<IdentityCache, 'counts' | 'isSynced'>
  readonly policies: Pick<PolicyFeed, 'documents' | 'complaints'>
  readonly clock: Clock
}

export function agentStatus({ own, sync, cache, policies, clock }: HealthParts): AgentStatus {
  const now = clock.now()
  const { spiffeId, chain } = own.state.current.credentials
  const svidExpiresAt = chain[0]!.notAfter
  const { lastSuccess, failure } = sync.status.current
  const isValid = now < svidExpiresAt
  const reasons: string[] = []
  if (!isValid) reasons.push('the SVID of the agent has expired')
  if (!cache.isSynced) reasons.push('the agent has not heard from its server yet')
  else if (lastSuccess !== undefined && now - lastSuccess > longestSilence)
    reasons.push(`the last sync with the server was ${formatDuration(now - lastSuccess)} ago`)
  if (failure) reasons.push(`the last sync failed: ${failure.message}`)
  reasons.push(...own.complaints(), ...policies.complaints(now))
  return {
    spiffeId,
    svidExpiresAt,
    ...(lastSuccess === undefined ? {} : { lastSyncAt: lastSuccess }),
    entries: cache.counts.entries,
    svids: cache.counts.svids,
    policyVersion: policies.documents.current.version,
    ready: isValid && cache.isSynced,
    reasons,
  }
}

/** Shows how the agent is to whoever looks, for as long as the process lives. */
export function showStatus(meter: Meter, status: () => AgentStatus, cache: Pick<IdentityCache, 'firstEnd'>): void {
  const show = (metric: (typeof agentMetrics)['ready'], value: () => number | undefined) => {
    meter.gauge(metric, () => {
      const shown = value()
      return shown === undefined ? [] : [{ labels: {}, value: shown }]
    })
  }
  show(agentMetrics.ready, () => Number(status().ready))
  show(agentMetrics.complaints, () => status().reasons.length)
  show(agentMetrics.entries, () => status().entries)
  show(agentMetrics.svids, () => status().svids)
  show(agentMetrics.ownExpiry, () => toSeconds(status().svidExpiresAt))
  show(agentMetrics.lastSync, () => toSeconds(status().lastSyncAt))
  show(agentMetrics.svidExpiry, () => toSeconds(cache.firstEnd))
}

const toSeconds = (at: Instant | undefined): number | undefined => at && at / 1000
const longestSilence: Duration = minutes(2)
