/** Policies that concern one workload, as rules in normal form: what the evaluator, the proxy's RBAC and every analysis start from. */
import type { Instant } from '../kernel/clock.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { PathNormalization } from './normalize.ts'
import type { Operation, Place, PolicyMode, Source, Condition } from './policy-set.ts'

/** What is known about a workload by attestation; nothing it said itself. */
export interface WorkloadFacts {
  readonly spiffeIds: readonly SpiffeId[]
  readonly selectors: readonly Selector[]
}

/** Every policy that selects a workload, ready to decide. */
export interface CompiledPolicies {
  readonly mode: PolicyMode
  readonly pathNormalization: PathNormalization
  /** Any of these that matches refuses. */
  readonly deny: readonly CompiledRule[]
  /** Then any of these that matches allows. */
  readonly allow: readonly CompiledRule[]
  /** True if an ALLOW policy applies here, also one without rules or one that has expired. In istio mode its absence opens the workload. */
  readonly allowSelected: boolean
  /** Strict mode: methods that a request may have at all; any other is refused before the rules are read. */
  readonly knownMethods: readonly string[]
  /** When the next policy expires and this must be compiled again. */
  readonly validUntil?: Instant
  /** SHA-256 in hex of what was compiled: the same for texts that mean the same rules. */
  readonly fingerprint: string
}

/** One rule of one policy: (one of `sources`) and (one of `operations`) and (all of `conditions`). */
export interface CompiledRule {
  /** `ns[<namespace>]-policy[<name>]-rule[<index>]` */
  readonly id: string
  readonly action: 'ALLOW' | 'DENY'
  /** `<namespace>/<name>`, or the name alone. */
  readonly policy: string
  readonly rule: number
  /** ALLOW: a request without a verified peer does not match. */
  readonly requirePeer: boolean
  readonly sources: 'any' | readonly Source[]
  readonly operations: 'any' | readonly Operation[]
  readonly conditions: readonly Condition[]
  readonly place: Place
}
