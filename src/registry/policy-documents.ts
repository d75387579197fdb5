import type { Instant } from '../kernel/clock.ts'

/** A policy file as it was applied. */
export interface PolicyDocument {
  readonly name: string
  readonly text: string
}

/** A set of policy files that was put in force at some moment. */
export interface AppliedPolicies {
  /** Fingerprint of the documents: equal sets have equal versions. */
  readonly version: string
  readonly appliedAt: Instant
  readonly documents: readonly PolicyDocument[]
}

/** PORT: keeps the policies in force, and those before. */
export interface PolicyStore {
  current(): Promise<AppliedPolicies | undefined>
  /** Puts a whole set in force in one step; it is on the disk when this resolves. */
  apply(documents: readonly PolicyDocument[], version: string, at: Instant): Promise<void>
  /** The newest first, the one in force included; at most `limit` (1 to 500). At least the last hundred are kept. */
  history(limit: number): Promise<readonly AppliedPolicies[]>
}
