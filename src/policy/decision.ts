/** Allow or deny, and why. */

export interface Decision {
  readonly allowed: boolean
  readonly reason: DecisionReason
  /** The rules that decided; none where the absence of one did. */
  readonly decidedBy: readonly DecidingRule[]
  /** AUDIT rules that match: the request is marked for the access log, whatever the decision. Absent where none does. */
  readonly audited?: readonly DecidingRule[]
  /** What went wrong on the way, for log and `explain`, never for the caller. An error is a denial. */
  readonly errors: readonly string[]
}

/**
 * - `allowed`: a rule of an ALLOW policy matches; `denied`: a rule of a DENY policy matches
 * - `no-policy`: strict, no ALLOW policy applies here; `no-rule-matched`: some apply and none of their rules matches
 * - `open`: istio mode, no ALLOW policy applies here
 * - `provider-denied`: a rule of a CUSTOM policy matches and its provider refuses; `provider-silent`: it has not answered
 * - `plaintext-refused`: a `PeerAuthentication` takes no connection without mTLS here; `token-refused`: no `RequestAuthentication` here takes this token
 * - `malformed-request`: strict, the request can be read in more than one way; `error`: it could not be decided
 */
export type DecisionReason =
  | 'allowed'
  | 'denied'
  | 'no-policy'
  | 'no-rule-matched'
  | 'open'
  | 'provider-denied'
  | 'provider-silent'
  | 'plaintext-refused'
  | 'token-refused'
  | 'malformed-request'
  | 'error'

export interface DecidingRule {
  /** `ns[<namespace>]-policy[<name>]-rule[<index>]`, the name the proxy reports. */
  readonly id: string
  /** `<namespace>/<name>`, or the name alone. */
  readonly policy: string
  readonly rule: number
}
