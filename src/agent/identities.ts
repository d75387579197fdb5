import type { RegistrationEntry } from '../registry/entry.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Watched } from '../kernel/watched.ts'
import type { Certificate } from '../x509/certificate.ts'
import type { PolicyDocuments } from './upstream-server.ts'
import type { LanguageOptions } from '../policy/language.ts'
import type { PolicyDocument } from '../policy/policy-set.ts'

/** One identity held for workloads, with everything a door needs to hand it out. Made once for each rotation. */
export interface HeldIdentity {
  readonly entryId: string
  readonly spiffeId: SpiffeId
  readonly hint: string
  /** Leaf first, no root; verified against the bundle. */
  readonly chain: readonly Certificate[]
  /** The chain, DER concatenated, as the Workload API sends it (API-13). */
  readonly chainDer: Uint8Array
  readonly chainPem: string
  /** PKCS#8, unencrypted. */
  readonly privateKeyDer: Uint8Array
  readonly privateKeyPem: string
}

/** What one workload holds now. An empty list of identities means that it has none (any more). */
export interface WorkloadIdentities {
  /** In a stable order: the default identity first (API-26). */
  readonly identities: readonly HeldIdentity[]
  readonly bundle: TrustBundle
  /** Bundles of other trust domains that its entries federate with. */
  readonly federated: ReadonlyMap<TrustDomain, TrustBundle>
}

/** The policies that concern one workload, and the facts about it that policies select on. */
export interface WorkloadPolicies {
  readonly version: string
  readonly documents: readonly PolicyDocument[]
  /** How the documents are to be read. */
  readonly options?: LanguageOptions
  /** A set that is tried beside these, and not enforced. */
  readonly candidate?: PolicyDocuments
  readonly spiffeIds: readonly SpiffeId[]
  readonly selectors: readonly Selector[]
}

/** An entry, and what a process lacks to match it. */
export interface ConsideredEntry {
  readonly entry: RegistrationEntry
  readonly missing: readonly Selector[]
}

/** A local caller after attestation: all local doors work with this and nothing else. */
export interface Workload {
  readonly pid: number
  readonly selectors: readonly Selector[]
  /** Shared by all callers with the same selectors. */
  readonly identities: Watched<WorkloadIdentities>
  readonly policies: Watched<WorkloadPolicies>
  /** How entries compare with this workload, the nearest first: for the log and for `explain`, never for the caller. */
  readonly considered?: () => readonly ConsideredEntry[]
}
