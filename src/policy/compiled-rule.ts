import type { Instant } from '../kernel/clock.ts'
import type { CelCondition } from './cel.ts'
import type { Condition, Operation, Place, PolicyAction, Source } from './policy-set.ts'

/** One rule of one policy: (one of `sources`) and (one of `operations`) and (all of `conditions`) and `cel`. */
export interface CompiledRule {
  /** `ns[<namespace>]-policy[<name>]-rule[<index>]` */
  readonly id: string
  readonly action: PolicyAction
  /** CUSTOM: who is asked when it matches. */
  readonly provider?: string
  /** `<namespace>/<name>`, or the name alone. */
  readonly policy: string
  readonly rule: number
  /** ALLOW: a request without a verified peer does not match. */
  readonly requirePeer: boolean
  readonly sources: 'any' | readonly Source[]
  readonly operations: 'any' | readonly Operation[]
  readonly conditions: readonly Condition[]
  /** Must hold as well. */
  readonly cel?: CelCondition
  /** It says something, in any of its parts, that only HTTP has. In istio mode such an ALLOW rule never matches a plain connection (authorization.md 1.7). */
  readonly needsHttp: boolean
  readonly expires?: Instant
  readonly place: Place
}
