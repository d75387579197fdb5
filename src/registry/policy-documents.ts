import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Instant } from '../kernel/clock.ts'

/** A policy file as it was applied. */
export interface PolicyDocument {
  readonly name: string
  readonly text: string
}

/** How documents are to be read, in the words of the policy language. What is absent has the language's default. */
export interface PolicyOptions {
  readonly mode?: 'strict' | 'istio'
  readonly rootNamespace?: string
  readonly pathNormalization?: 'none' | 'base' | 'merge-slashes' | 'decode-and-merge-slashes'
  readonly trustDomainAliases?: readonly TrustDomain[]
}

/** A set of policy files about to be put in force. */
export interface PolicyRelease {
  /** Fingerprint of documents and options: equal sets have equal versions. */
  readonly version: string
  readonly documents: readonly PolicyDocument[]
  readonly options: PolicyOptions
  /** Compact JWS over a manifest of documents and options; absent for a set that nobody signed. */
  readonly signature?: string
  readonly appliedAt: Instant
  /** Who put it in force. */
  readonly appliedBy: string
}

/** A set of policy files that was put in force at some moment. */
export interface AppliedPolicies extends PolicyRelease {
  /** Counts what was put in force; never used twice. */
  readonly serial: number
}

/** A set of policy files that is tried beside the one in force, and enforced by nobody. */
export interface CandidatePolicies {
  readonly version: string
  readonly documents: readonly PolicyDocument[]
  readonly options: PolicyOptions
  readonly startedAt: Instant
  readonly startedBy: string
}

/** PORT: keeps the policies in force, and those before. */
export interface PolicyStore {
  current(): Promise<AppliedPolicies | undefined>
  /**
   * Puts a whole set in force in one step; it is on the disk when this resolves.
   * @param after the serial that must be in force now, 0 for none
   * @throws Failure `policy.changed-meanwhile` if another is
   */
  apply(release: PolicyRelease, after: number): Promise<AppliedPolicies>
  /** The newest first, the one in force included; at most `limit` (1 to 500). At least the last hundred are kept. */
  history(limit: number): Promise<readonly AppliedPolicies[]>
  find(serial: number): Promise<AppliedPolicies | undefined>
  candidate(): Promise<CandidatePolicies | undefined>
  /** There is one at most; undefined takes it away. */
  setCandidate(candidate: CandidatePolicies | undefined): Promise<void>
}
