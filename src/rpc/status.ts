import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import type { Any } from '@bufbuild/protobuf/wkt'
import { type Category, Failure } from '../kernel/failure.ts'
import { StatusSchema } from './gen/google/rpc/status_pb.ts'

/** One row a category: the gRPC status code that callers meet (https://grpc.io/docs/guides/status-codes/). */
const codes: Readonly<Record<Category, number>> = {
  cancelled: 1,
  invalid_argument: 3,
  deadline_exceeded: 4,
  not_found: 5,
  already_exists: 6,
  permission_denied: 7,
  resource_exhausted: 8,
  failed_precondition: 9,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
}

/** The codes that no category has, read as the nearest one. */
const nearest: Readonly<Record<number, Category>> = {
  2: 'internal', // UNKNOWN
  10: 'unavailable', // ABORTED
  11: 'invalid_argument', // OUT_OF_RANGE
  15: 'internal', // DATA_LOSS
}

const names = [
  'ok',
  'cancelled',
  'unknown',
  'invalid-argument',
  'deadline-exceeded',
  'not-found',
  'already-exists',
  'permission-denied',
  'resource-exhausted',
  'failed-precondition',
  'aborted',
  'out-of-range',
  'unimplemented',
  'internal',
  'unavailable',
  'data-loss',
  'unauthenticated',
] as const

/** The status code of a category, also for the `status` of one item in a batch. */
export function codeOf(category: Category): number {
  return codes[category]
}

/** What gRPC calls that code: `permission-denied`. */
export function codeNameOf(category: Category): string {
  return names[codes[category]] ?? 'unknown'
}

/** The category of a status code that came over the wire; an unknown code is `internal`. */
export function categoryOf(code: number): Category {
  const exact = (Object.keys(codes) as Category[]).find((category) => codes[category] === code)
  return exact ?? nearest[code] ?? 'internal'
}

/** A status as it travels: code, text, and the bytes of the `grpc-status-details-bin` trailer if it has details. */
export interface WireStatus {
  readonly code: number
  readonly text: string
  readonly details?: Uint8Array | undefined
}

/** Name of the trailer that carries a serialised `google.rpc.Status`. */
export const detailsTrailer = 'grpc-status-details-bin'

/** What the caller reads about a failure: its category and public text, and the details that were chosen for it. */
export function toWireStatus(failure: Failure, details: readonly Any[] = []): WireStatus {
  const code = codeOf(failure.category)
  // A lone surrogate cannot be percent-encoded, and trailers share the header limit of the other side.
  const text = failure.message.slice(0, maxTextLength).toWellFormed()
  if (details.length === 0) return { code, text }
  return { code, text, details: toBinary(StatusSchema, create(StatusSchema, { code, message: text, details: [...details] })) }
}

/**
 * The failure that a status from the other side means: reason `rpc.<status name>`.
 * Its text is what the other side said, except where the other side was not reached: addresses stay in `internal` and `cause`.
 */
export function fromWireStatus(status: WireStatus, cause?: unknown): Failure {
  const name = names[status.code] ?? 'unknown'
  const details = status.details ? readDetails(status.details) : []
  return new Failure(categoryOf(status.code), `rpc.${name}`, {
    public: publicText(name, status.text),
    internal: { status: name, text: status.text, [detailsKey]: details },
    cause,
  })
}

/** The details that came with a failure of a client call (`google.rpc.Status.details`); empty if there were none. */
export function detailsOf(failure: Failure): readonly Any[] {
  const details = failure.internal[detailsKey]
  return Array.isArray(details) ? (details as readonly Any[]) : []
}

function publicText(name: string, text: string): string {
  if (name === 'unavailable') return 'the other side cannot be reached'
  return text === '' ? `the call ended with \`${name}\`` : text
}

/** Malformed details are as good as none: the code and the text still tell what happened. */
function readDetails(bytes: Uint8Array): readonly Any[] {
  try {
    return fromBinary(StatusSchema, bytes).details
  } catch {
    return []
  }
}

const detailsKey = 'details'
const maxTextLength = 2048
