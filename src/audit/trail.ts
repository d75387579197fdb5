/** The audit trail: every line carries the hash of the line before it, so that nothing can be taken out or changed unnoticed. */
import { hash as hashOf } from 'node:crypto'
import { formatInstant, type Clock, type Instant } from '../kernel/clock.ts'
import type { Driver } from '../kernel/driver.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter, Tally } from '../kernel/meter.ts'
import { trailRepaired, trailResumed, type AuditEvent } from './event.ts'
import { auditMetrics } from './metrics.ts'

/** PORT: where audit lines go. They are safe (on the disk, out of this process) when `append` resolves. */
export interface AuditSink extends AsyncDisposable {
  /** Writes whole lines, in order; each ends without a newline here. */
  append(lines: readonly string[]): Promise<void>
  /** The last whole line there is, so that the chain goes on after a restart. Absent where nothing can be read back. */
  last?(): Promise<string | undefined>
  /** What a power cut had torn and opening has cut off: it never counted, for nobody was told that it was written. */
  readonly repaired?: { readonly bytes: number; readonly sha256: string } | undefined
}

export type AuditSinkDriver<Config = never> = Driver<AuditSink, Config>
export const auditSink = <Config>(driver: AuditSinkDriver<Config>): AuditSinkDriver<Config> => driver

export interface AuditTrail extends AsyncDisposable {
  /**
   * Resolves when the event is safe in the sink. Concurrent events share one write.
   * @throws Failure `audit.sink-failed`: what was about to be done must then not be done
   */
  append(event: AuditEvent): Promise<void>
  /**
   * Where the last record could not be written: tries whether that is over, by recording it, so that nobody has to be refused to find out.
   * Never rejects.
   */
  retry(): Promise<void>
  /** Why nothing can be recorded, in words. */
  complaints(): readonly string[]
}

export interface TrailWorld {
  readonly clock: Clock
  readonly log: Log
  readonly meter: Meter
  /** Goes on without a record where none can be written; said at every start and in the health. */
  readonly dangerouslyGoOnWithout?: boolean
}

/**
 * Opens a trail that goes on where the sink's last line ends.
 * @throws Failure `audit.not-a-record` where that line is none; `audit.sink-failed` where a repair cannot be recorded
 */
export async function openTrail(sink: AuditSink, world: TrailWorld): Promise<AuditTrail> {
  await using opened = new AsyncDisposableStack()
  opened.use(sink)
  const last = await sink.last?.()
  const record = last === undefined ? undefined : readRecord(last)
  if (last !== undefined && !record) {
    throw new Failure('failed_precondition', 'audit.not-a-record', {
      public: 'the audit trail does not end with a record: run `vidimus audit verify`, and move the damaged file away',
    })
  }
  const trail = new ChainedTrail(sink, world, record?.hash ?? noHash)
  if (sink.repaired) {
    world.log.warn('the audit trail was torn and is repaired', sink.repaired)
    await trail.append(trailRepaired(sink.repaired))
  }
  if (world.dangerouslyGoOnWithout) world.log.warn('certificates are issued even where the audit trail cannot be written')
  opened.move()
  return trail
}

class ChainedTrail implements AuditTrail {
  readonly #sink: AuditSink
  readonly #world: TrailWorld
  #problem: { readonly text: string; readonly since: Instant } | undefined
  #hash: string
  #waiting: { readonly event: AuditEvent; readonly at: Instant; readonly done: PromiseWithResolvers<void> }[] = []
  #writing: Promise<void> | undefined
  readonly #counted = new Map<string, Tally>()
  readonly #gauge: Disposable

  constructor(sink: AuditSink, world: TrailWorld, hash: string) {
    this.#sink = sink
    this.#world = world
    this.#hash = hash
    this.#gauge = world.meter.gauge(auditMetrics.waiting, () => [{ labels: {}, value: this.#waiting.length }])
  }

  append(event: AuditEvent): Promise<void> {
    this.#count(event)
    if (this.#waiting.length >= maxWaiting) {
      return Promise.reject(
        new Failure('resource_exhausted', 'audit.sink-too-slow', { public: 'too many audit records are waiting to be written' }),
      )
    }
    const done = Promise.withResolvers<void>()
    this.#waiting.push({ event, at: this.#world.clock.now(), done })
    this.#writing ??= this.#writeAll()
    return done.promise
  }

  async retry(): Promise<void> {
    if (this.#problem) await this.append(trailResumed(this.#problem.since)).catch(() => {})
  }

  complaints(): readonly string[] {
    if (this.#problem === undefined) return []
    const consequence = this.#world.dangerouslyGoOnWithout ? 'what happens is not recorded' : 'nothing can be issued'
    return [`${consequence}: the audit trail cannot be written: ${this.#problem.text}`]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#gauge[Symbol.dispose]()
    await this.#writing
    await this.#sink[Symbol.asyncDispose]()
  }

  /** What happened has happened, whether it can be recorded or not. */
  #count({ what, fields: { reason } }: AuditEvent): void {
    const { meter } = this.#world
    let counted = this.#counted.get(what)
    if (!counted) this.#counted.set(what, (counted = meter.counter(auditMetrics.events, { event: what })))
    counted.add()
    if (typeof reason === 'string') meter.counter(auditMetrics.refusals, { event: what, reason }).add()
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
        this.#problem = undefined
        for (const { done } of batch) done.resolve()
      } catch (cause) {
        this.#failed(cause)
        if (this.#world.dangerouslyGoOnWithout) {
          for (const { done } of batch) done.resolve()
          continue
        }
        const failure = new Failure('unavailable', 'audit.sink-failed', { public: 'the audit trail cannot be written', cause })
        for (const { done } of batch) done.reject(failure)
      }
    }
    this.#writing = undefined
  }

  #failed(cause: unknown): void {
    const problem = tellChain(cause)
    this.#world.meter.counter(auditMetrics.failures, {}).add()
    if (!this.#problem) this.#world.log.error('the audit trail cannot be written', { reason: 'audit.sink-failed', error: problem })
    this.#problem = { text: problem, since: this.#problem?.since ?? this.#world.clock.now() }
  }
}

/** One line: the body, the hash of the line before, and the hash over both. */
export function sealed(previous: string, body: string): { readonly line: string; readonly hash: string } {
  const hash = hashOf('sha256', `${previous}\n${body}`)
  return { line: `{"event":${body},"previous":"${previous}","hash":"${hash}"}`, hash }
}

export function readRecord(line: string): { readonly body: string; readonly previous: string; readonly hash: string } | undefined {
  const parts = recordPattern.exec(line)
  return parts ? { body: parts[1]!, previous: parts[2]!, hash: parts[3]! } : undefined
}

const recordPattern = /^\{"event":(\{.*\}),"previous":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}$/s
/** What the first line of a chain follows from. */
export const noHash = '0'.repeat(64)
/** Small enough that those who go on after one do not hold up everybody else. */
const maxBatch = 32
const maxWaiting = 65_536
