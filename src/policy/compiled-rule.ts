import type { Instant } from '../kernel/clock.ts'
import type { Condition, Operation, Place, Source } from './policy-set.ts'

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
  readonly expires?: Instant
  readonly place: Place
}
