/** What the CA counts. */
import { counter, gauge, reasonCodes, timing } from '../kernel/meter.ts'
import { authorityKinds } from './authorities.ts'

/** Whose end a capped CA certificate has: that of whoever is above us, or one that the upstream sets. */
export const capCauses = ['issuer', 'limit'] as const

const outcome = ['done', 'refused'] as const

export const caMetrics = {
  issuing: timing('vidimus_svid_issuing_seconds', 'From asking the CA for an SVID to having it, or its refusal', {
    kind: ['workload', 'agent', 'server', 'jwt', 'wit'],
    outcome,
  }),

  truncated: counter('vidimus_svid_truncated_total', 'X509-SVIDs that end with the authority that signed them (C-2)', {
    kind: ['workload', 'agent', 'server'],
  }),

  intents: counter('vidimus_intents_total', 'Signatures that were announced on the disk (C-10), and what became of them', {
    outcome: ['intended', 'issued', 'withheld', 'unknown'],
  }),
  intentFailures: counter('vidimus_intents_failures_total', 'Groups of intents that the disk refused: nothing was signed for them', {}),
  intentCopyFailures: counter('vidimus_intents_copy_failures_total', 'Failures to copy what was issued to the store', {}),
  intentBytes: gauge('vidimus_intents_waiting_bytes', 'What was issued and is not in the store yet', {}),

  steps: counter('vidimus_authority_steps_total', 'Steps of rotation that an authority took', {
    kind: authorityKinds,
    step: { most: 20, known: ['prepared', 'published', 'activated', 'retired'] },
  }),
  rotationFailures: counter('vidimus_authority_failures_total', 'Failures to keep an authority fresh', {
    kind: authorityKinds,
    reason: reasonCodes,
  }),
  expiry: gauge('vidimus_authority_expiry_timestamp_seconds', 'When the authority that signs ends', { kind: authorityKinds }),
  alarm: gauge('vidimus_authority_alarm_ratio', 'The share of its life, 0.6, 0.8 or 0.9, that is over without a successor; else 0 (V-10)', {
    kind: authorityKinds,
  }),
  authorities: gauge('vidimus_authorities', 'Authorities by where they are in their life', {
    kind: authorityKinds,
    state: ['active', 'next', 'old'],
  }),

  minting: timing('vidimus_upstream_mint_seconds', 'From asking the upstream for our CA certificate to having checked it, or its refusal', {
    outcome,
  }),
  mintRefusals: counter('vidimus_upstream_refusals_total', 'Answers of the upstream, or failures to answer, that gave us no CA', {
    reason: reasonCodes,
  }),
  ttlCapped: counter('vidimus_upstream_ttl_capped_total', 'CA certificates that live noticeably shorter than was asked for (V-4)', {
    cause: capCauses,
  }),

  vaultCalls: timing('vidimus_vault_request_seconds', 'One request to a vault and its answer', { outcome }),
  vaultConnections: counter('vidimus_vault_connections_total', 'Connections to vaults, by the group of their key exchange (C-32)', {
    key_exchange: { most: 20 },
  }),
  vaultRefusals: counter('vidimus_vault_refusals_total', 'Requests that a vault refused or did not answer', { reason: reasonCodes }),
  vaultLogins: counter('vidimus_vault_logins_total', 'Logins to a vault', { outcome }),
  vaultRenewals: counter('vidimus_vault_renewals_total', 'Renewals of our token for a vault', { outcome }),
  vaultTokenExpiry: gauge(
    'vidimus_vault_token_expiry_timestamp_seconds',
    'When our token for a vault ends; 0 without a token, nothing for one without an end',
    {
      use: ['pki', 'transit'],
    },
  ),
}
