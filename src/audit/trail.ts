/** The audit trail: every line carries the hash of the line before it, so that nothing can be taken out or changed unnoticed. */
import { hash as hashOf } from 'node:crypto'
import { formatInstant, type Clock, type Instant } from '../kernel/clock.ts'
import type { Driver } from '../kernel/driver.ts'
import { Failure } from '../kernel/failure.ts'
import type { AuditEvent } from './event.ts'

/** PORT: where audit lines go. They are safe (on the disk, out of this process) when `append` resolves. */
export interface AuditSink extends AsyncDisposable {
  /** Writes whole lines, in order; each ends without a newline here. */
  append(lines: readonly string[]): Promise<void>
  /** The last whole line there is, so that the chain goes on after a restart. Absent where nothing can be read back. */
  last?(): Promise<string | undefined>
}

export type AuditSinkDriver<Config = never> = Driver<AuditSink, Config>
export const auditSink = <Config>(driver: AuditSinkDriver<Config>): AuditSinkDriver<Config> => driver

export interface AuditTrail extends AsyncDisposable {
  /**
   * Resolves when the event is safe in the sink. Concurrent events share one write.
   * @throws Failure `audit.sink-failed`: what was about to be done must then not be done
   */
  append(event: AuditEvent): Promise<void>
}

/** Opens a trail that goes on where the sink's last line ends. */
export async function openTrail(sink: AuditSink, world: { readonly clock: Clock }): Promise<AuditTrail> {
  const trail = new ChainedTrail(sink, world.clock, hashIn(await sink.last?.()))
  return trail
}

export type TrailVerdict =
  | { readonly whole: true; readonly lines: number }
  | { readonly whole: false; readonly line: number; readonly problem: string }

/** Checks that each line follows from the one before. Line numbers begin with 1. */
export function verifyTrail(lines: Iterable<string>): TrailVerdict {
  let before: string | undefined
  let count = 0
  for (const line of lines) {
    count++
    const record = read(line)
    if (!record) return { whole: false, line: count, problem: 'it is not an audit record' }
    if (before !== undefined && record.previous !== before)
      return { whole: false, line: count, problem: 'it does not follow from the line before' }
    if (sealed(record.previous, record.body).line !== line)
      return { whole: false, line: count, problem: 'it was changed after it was written' }
    before = record.hash
  }
  return { whole: true, lines: count }
}

class ChainedTrail implements AuditTrail {
  readonly #sink: AuditSink
  readonly #clock: Clock
  #hash: string
  #waiting: { readonly event: AuditEvent; readonly at: Instant; readonly done: PromiseWithResolvers<void> }[] = []
  #writing: Promise<void> | undefined

  constructor(sink: AuditSink, clock: Clock, hash: string) {
    this.#sink = sink
    this.#clock = clock
    this.#hash = hash
  }

  append(event: AuditEvent): Promise<void> {
    if (this.#waiting.length >= maxWaiting) {
      return Promise.reject(
        new Failure('resource_exhausted', 'audit.sink-too-slow', { public: 'too many audit records are waiting to be written' }),
      )
    }
    const done = Promise.withResolvers<void>()
    this.#waiting.push({ event, at: this.#clock.now(), done })
    this.#writing ??= this.#writeAll()
    return done.promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing
    await this.#sink[Symbol.asyncDispose]()
  }

  async #writeAll(): Promise<void> {
    // Lets the events of one turn of the event loop gather, so that they share a write.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, maxBatch)
      let hash = this.#hash
      const lines = batch.map(({ event, at }) => {
        const record = sealed(hash, JSON.stringify({ at: formatInstant(at), ...event }))
        hash = record.hash
        return record.line
      })
      try {
        await this.#sink.append(lines)
        this.#hash = hash
        for (const { done } of batch) done.resolve()
      } catch (cause) {
        const failure = new Failure('unavailable', 'audit.sink-failed', { public: 'the audit trail cannot be written', cause })
        for (const { done } of batch) done.reject(failure)
      }
    }
    this.#writing = undefined
  }
}

/** One line: the body, the hash of the line before, and the hash over both. */
function sealed(previous: string, body: string): { readonly line: string; readonly hash: string } {
  const hash = hashOf('sha256', `${previous}\n${body}`)
  return { line: `{"event":${body},"previous":"${previous}","hash":"${hash}"}`, hash }
}

function read(line: string): { readonly body: string; readonly previous: string; readonly hash: string } | undefined {
  const parts = recordPattern.exec(line)
  return parts ? { body: parts[1]!, previous: parts[2]!, hash: parts[3]! } : undefined
}

function hashIn(line: string | undefined): string {
  return (line === undefined ? undefined : read(line)?.hash) ?? noHash
}

const recordPattern = /^\{"event":(\{.*\}),"previous":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}$/s
/** What the first line of a chain follows from. */
const noHash = '0'.repeat(64)
const maxBatch = 512
const maxWaiting = 65_536
