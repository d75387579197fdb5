/** How a whole set that is tried decides beside the one in force: what agents count, and tell their server. */

/** Requests at one workload that were decided alike. */
export interface ShadowCount {
  readonly workload: string
  readonly allowed: boolean
  readonly candidateAllows: boolean
  /** The rule of the candidate that decides; empty where the absence of one does. */
  readonly rule: string
  readonly count: number
  /** One of these requests. */
  readonly peer: string
  readonly method: string
  readonly path: string
}

/** What one agent counted since it began to. */
export interface ShadowObservations {
  readonly candidateVersion: string
  /** Another after each start of the agent. */
  readonly run: string
  readonly counts: readonly ShadowCount[]
  /** Requests beyond the rows that an agent keeps. */
  readonly unlisted: number
}
