/** What the audit trail counts. */
import { counter, gauge, reasonCodes } from '../kernel/meter.ts'

export const auditMetrics = {
  events: counter('vidimus_audit_events_total', 'What happened, by the name that its record has in the audit trail', {
    // Nobody has seen them before the one time that counts.
    event: { most: 100, known: ['node.clone-detected', 'node.banned', 'authority.ending', 'audit.repaired'] },
  }),
  refusals: counter('vidimus_refusals_total', 'Refusals that were recorded, by the name of the record and the reason code', {
    event: { most: 20 },
    reason: reasonCodes,
  }),
  failures: counter('vidimus_audit_sink_failures_total', 'Writes that the sink of the audit trail refused', {}),
  waiting: gauge('vidimus_audit_waiting_records', 'Audit records that are not safe yet', {}),
}
