/** What kind of refusal or mishap a caller meets. `rpc/status.ts` maps each to one gRPC status. */
export type Category =
  | 'invalid_argument'
  | 'unauthenticated'
  | 'permission_denied'
  | 'not_found'
  | 'already_exists'
  | 'failed_precondition'
  | 'resource_exhausted'
  | 'cancelled'
  | 'deadline_exceeded'
  | 'unavailable'
  | 'unimplemented'
  | 'internal'

export interface FailureTexts {
  /** What the caller may read: lower case, no full stop, what the user wrote in backticks. */
  readonly public: string
  /** What goes to log and audit, and never to the caller. No secrets here either. */
  readonly internal?: Readonly<Record<string, unknown>>
  readonly cause?: unknown
}

/**
 * The one error that callers of this program meet.
 * `reason` is a stable code (`room.what-happened`) that tests, metrics and operators rely on;
 * `message` is the public text.
 */
export class Failure extends Error {
  readonly category: Category
  readonly reason: string
  readonly internal: Readonly<Record<string, unknown>>

  constructor(category: Category, reason: string, texts: FailureTexts) {
    super(texts.public, texts.cause === undefined ? undefined : { cause: texts.cause })
    this.name = 'Failure'
    this.category = category
    this.reason = reason
    this.internal = texts.internal ?? {}
  }

  /**
   * Whatever was thrown, as a Failure. A Failure passes through; an abort becomes `cancelled`;
   * anything else becomes `internal` with the original kept as `cause`, and tells the caller nothing.
   */
  static from(thrown: unknown, reason = 'unexpected'): Failure {
    if (thrown instanceof Failure) return thrown
    if (thrown instanceof Error && thrown.name === 'AbortError') {
      return new Failure('cancelled', 'cancelled', { public: 'the call was cancelled', cause: thrown })
    }
    if (thrown instanceof Error && thrown.name === 'TimeoutError') {
      return new Failure('deadline_exceeded', 'deadline-exceeded', { public: 'the deadline passed', cause: thrown })
    }
    return new Failure('internal', reason, {
      public: 'internal error',
      internal: { error: textOf(thrown) },
      cause: thrown,
    })
  }
}

/** True for a Failure with this reason code. */
export function failedWith(thrown: unknown, reason: string): thrown is Failure {
  return thrown instanceof Failure && thrown.reason === reason
}

/** The texts of a failure and of everything that caused it, joined with colons: for logs and for the operator's terminal. */
export function tellChain(thrown: unknown): string {
  const texts: string[] = []
  for (let at: unknown = thrown, depth = 0; at !== undefined && depth < maxCauses; depth++) {
    const text = textOf(at)
    if (text !== '' && texts.at(-1) !== text) texts.push(text)
    at = at instanceof Error ? at.cause : undefined
  }
  return texts.join(': ')
}

function textOf(thrown: unknown): string {
  if (thrown instanceof Error) return thrown.message
  return typeof thrown === 'string' ? thrown : 'something that is not an error was thrown'
}

const maxCauses = 8
