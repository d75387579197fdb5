/** What the agent counts. */
import { counter, gauge, reasonCodes } from '../kernel/meter.ts'

export const agentMetrics = {
  ready: gauge('vidimus_agent_ready', '1 while workloads get what they are entitled to, else 0', {}),
  complaints: gauge('vidimus_agent_complaints', 'How many things the agent says are wrong', {}),
  syncs: counter('vidimus_agent_syncs_total', 'Syncs with the server', { outcome: ['done', 'failed'] }),
  syncFailures: counter('vidimus_agent_sync_failures_total', 'Syncs that failed', { reason: reasonCodes }),
  lastSync: gauge('vidimus_agent_last_sync_timestamp_seconds', 'When the last sync succeeded', {}),
  entries: gauge('vidimus_agent_entries', 'Registration entries that this agent serves', {}),
  svids: gauge('vidimus_agent_svids', 'X509-SVIDs of workloads that are held', {}),
  svidExpiry: gauge('vidimus_agent_svid_expiry_timestamp_seconds', 'When the first of them ends', {}),
  ownExpiry: gauge('vidimus_agent_own_expiry_timestamp_seconds', "When the agent's own SVID ends", {}),
  signed: counter('vidimus_agent_svids_signed_total', 'X509-SVIDs that the server signed for workloads', {}),
  unsigned: counter('vidimus_agent_svid_failures_total', 'X509-SVIDs that the server did not sign, or not well', { reason: reasonCodes }),
  policies: counter('vidimus_agent_policies_total', 'Policy releases that arrived', { outcome: ['applied', 'refused'] }),
  policyRefusals: counter('vidimus_agent_policy_refusals_total', 'Policy releases that were refused', { reason: reasonCodes }),
  shadow: counter('vidimus_agent_shadow_verdicts_total', 'Requests decided by the policies in force and by a set that is tried', {
    verdict: ['same', 'newly-allowed', 'newly-denied'],
  }),
}
