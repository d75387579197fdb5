/** The tables as queries see them. `migrations/` makes them; what a column means is said here. */
import type { Generated, Kysely, Transaction } from 'kysely'

export interface Tables {
  /** The number of the last migration that ran; one row. */
  schema_version: { version: number }
  /** Numbers that only grow, by name. */
  counters: { name: string; value: number }
  entries: EntryRow
  /** The selectors of each entry, one a row, for filters. */
  entry_selectors: { owner: string; item: string }
  entry_federations: { owner: string; item: string }
  /** Ids of entries that were removed, and when by the counter `entries`. */
  removed_entries: { id: string; change: number }
  nodes: NodeRow
  node_selectors: { owner: string; item: string }
  join_tokens: { digest: string; expires_at: number }
  ca_journals: { server_id: string; revision: number; record: string }
  /** What the CA signed; `name` is a serial number or a `jti`. */
  issuances: {
    kind: string
    name: string
    hash: string
    spiffe_id: string
    entry: string
    revision: string
    expires_at: number
    outcome: string
  }
  policy_sets: PolicySetRow
  /** One row, or none; its id is 1. */
  policy_candidate: { id: number; version: string; documents: string; options: string; started_at: number; started_by: string }
}

export interface EntryRow {
  id: string
  spiffe_id: string
  parent_id: string
  /** JSON list of `[type, value]`, sorted. */
  selectors: string
  /** SHA-256 over `selectors`: with both IDs it is what makes two entries similar. */
  selectors_digest: string
  x509_svid_ttl_ms: number
  jwt_svid_ttl_ms: number
  /** JSON list of names, sorted. */
  federates_with: string
  admin: number
  downstream: number
  store_svid: number
  expires_at: number | null
  /** JSON list, in the order given. */
  dns_names: string
  /** JSON object, or none. */
  subject: string | null
  claims: string | null
  hint: string
  disable_x509_svid_prefetch: number
  jwt_svid_include_jti: number
  revision: number
  created_at: number
  /** The value of the counter `entries` when it was last written. */
  change: number
}

export interface NodeRow {
  id: string
  attestation_type: string
  serial: string
  expires_at: number
  /** JSON lists of certificates, the oldest first. */
  pending: string
  superseded: string
  /** JSON object: how it was seen that there is a copy. */
  frozen: string | null
  /** JSON list of `[type, value]`, sorted. */
  selectors: string
  can_reattest: number
  banned: number
  agent_version: string
}

export interface PolicySetRow {
  serial: Generated<number>
  version: string
  applied_at: number
  /** JSON list of `{name, text}`. */
  documents: string
  /** JSON object. */
  options: string
  signature: string | null
  applied_by: string
}

/** A place to read from and, inside a group of writes, to write to. */
export type Database = Kysely<Tables> | Transaction<Tables>
