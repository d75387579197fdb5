/**
 * What is about to be signed, written down before a key is used (C-10): on the disk of this server in files that are only appended to,
 * from where it is copied to the store afterwards.
 * INVARIANT: an intent is on the disk before its signature is made, and stays there until what became of it is in the store.
 */
import { utf8 } from '../kernel/bytes.ts'
import type { Clock, Instant } from '../kernel/clock.ts'
import { minutes, seconds } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { AppendFile, Files } from '../kernel/files.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter, Tally } from '../kernel/meter.ts'
import { caMetrics } from './metrics.ts'

/** A signature that is to be made. */
export interface Intent {
  readonly kind: 'x509' | 'authority' | 'jwt' | 'wit'
  /** Serial number in hex, or `jti`: no two intents share one. */
  readonly name: string
  /** SHA-256 of the bytes that will be signed, in hex. */
  readonly hash: string
  /** The SPIFFE ID. */
  readonly id: string
  /** Entry id and revision; empty where there is no entry. */
  readonly entry: string
  readonly revision: string
  /** Until when what is signed is valid. */
  readonly until: Instant
}

/** `withheld`: a signature may have been made, and nobody got it. `unknown`: this server ended before it could say. */
export type Outcome = 'issued' | 'withheld' | 'unknown'

export type IssuanceRecord = Intent & { readonly outcome: Outcome }

/** PORT: where records are kept for good, until they expire. */
export interface IssuanceRecords {
  /** Keeps records, each under its kind and name; those that are there stay. Resolves to the names that are there for other bytes. */
  put(records: readonly IssuanceRecord[]): Promise<readonly string[]>
  /** Forgets what expired before. */
  prune(before: Instant): Promise<void>
}

export interface Intents extends AsyncDisposable {
  /**
   * Resolves when the intent is on the disk; concurrent ones share a write. Only then may the signature be made.
   * @throws Failure `intents.not-written`, `intents.full`, `intents.too-many`: nothing may be signed
   */
  intend(intent: Intent): Promise<void>
  /** Says what became of an intent. It is written with the next group, and nobody waits for it. */
  settle(intent: Intent, outcome: Outcome): void
  /** Copies what is settled to the store, and tries a disk that was full again, until the signal aborts. */
  keepCopied(signal: AbortSignal): Promise<void>
  /** Why nothing can be signed, in words. */
  complaints(): readonly string[]
  /** Intents of an earlier run of which nobody knows what became: they are settled as `unknown`. */
  readonly unresolved: readonly Intent[]
}

export interface IntentsPorts {
  readonly clock: Clock
  readonly files: Files
  readonly log: Log
  readonly meter: Meter
  /** A directory of its own. */
  readonly directory: string
  readonly records: IssuanceRecords
  /** How many bytes of intents may wait for the store; 256 MiB when left out. */
  readonly maxBytes?: number
}

/** Reads what earlier runs left, and begins a new file. @throws Failure `directory.*`, and what the disk meets */
export async function openIntents(ports: IntentsPorts): Promise<Intents> {
  const { files, directory } = ports
  await files.privateDirectory(directory)
  const segments: Segment[] = []
  const outcomes = new Map<string, Outcome>()
  const open = new Map<string, { readonly intent: Intent; readonly segment: Segment }>()
  for (const name of await files.list(directory)) {
    const number = numberIn(name)
    if (number === undefined) continue
    const { intents, settled, damaged, size } = await readSegment(ports, number)
    if (damaged > 0) ports.log.error('a file of intents is damaged', { file: pathOf(directory, number), lines: damaged })
    const segment: Segment = { number, size, until: latest(intents), open: new Set() }
    segments.push(segment)
    for (const intent of intents) {
      segment.open.add(intent.name)
      open.set(intent.name, { intent, segment })
    }
    for (const [settledName, outcome] of settled) {
      outcomes.set(settledName, outcome)
      open.get(settledName)?.segment.open.delete(settledName)
      open.delete(settledName)
    }
  }
  const number = (segments.at(-1)?.number ?? 0) + 1
  const file = await files.appendTo(pathOf(directory, number))
  return new IntentLog(ports, segments, outcomes, { number, size: 0, until: 0, open: new Set() }, file, [...open.values()])
}

interface Segment {
  readonly number: number
  size: number
  /** When the last of its intents expires. */
  until: Instant
  /** Names of intents of which it is not known what became. */
  readonly open: Set<string>
}

/** A line. An empty one tries whether the disk can be written. */
type Said = { readonly intent: Intent } | { readonly name: string; readonly outcome: Outcome } | Record<string, never>

interface Waiting {
  readonly said: Said
  readonly done: PromiseWithResolvers<void> | undefined
}

class IntentLog implements Intents {
  readonly unresolved: readonly Intent[]
  readonly #ports: IntentsPorts
  readonly #maxBytes: number
  /** Those that are no longer written to, oldest first. */
  readonly #closed: Segment[]
  /** Of intents in closed segments. */
  readonly #outcomes: Map<string, Outcome>
  readonly #segmentOf = new Map<string, Segment>()
  #current: Segment
  #file: AppendFile
  #begun: Instant
  #waiting: Waiting[] = []
  #writing: Promise<void> | undefined
  #problem: string | undefined
  #copyFailed = false
  #disposed = false
  readonly #counted: Readonly<Record<Outcome | 'intended', Tally>>
  readonly #gauge: Disposable

  constructor(
    ports: IntentsPorts,
    closed: Segment[],
    outcomes: Map<string, Outcome>,
    current: Segment,
    file: AppendFile,
    unresolved: readonly { readonly intent: Intent; readonly segment: Segment }[],
  ) {
    this.#ports = ports
    this.#maxBytes = ports.maxBytes ?? 256 * 1024 * 1024
    this.#closed = closed
    this.#outcomes = outcomes
    this.#current = current
    this.#file = file
    this.#begun = ports.clock.now()
    const counted = (outcome: Outcome | 'intended') => ports.meter.counter(caMetrics.intents, { outcome })
    this.#counted = { intended: counted('intended'), issued: counted('issued'), withheld: counted('withheld'), unknown: counted('unknown') }
    this.#gauge = ports.meter.gauge(caMetrics.intentBytes, () => [{ labels: {}, value: this.#bytes() }])
    this.unresolved = unresolved.map(({ intent }) => intent)
    for (const { intent, segment } of unresolved) {
      this.#segmentOf.set(intent.name, segment)
      this.settle(intent, 'unknown')
    }
  }

  async intend(intent: Intent): Promise<void> {
    if (this.#disposed) throw notWritten('this server is stopping')
    if (this.#waiting.length >= maxWaiting) {
      throw new Failure('resource_exhausted', 'intents.too-many', {
        public: 'too many certificates are about to be issued: try again later',
      })
    }
    this.#demandRoom()
    const done = Promise.withResolvers<void>()
    this.#write({ said: { intent }, done })
    await done.promise
    this.#counted.intended.add()
  }

  settle({ name }: Intent, outcome: Outcome): void {
    this.#counted[outcome].add()
    if (!this.#disposed) this.#write({ said: { name, outcome }, done: undefined })
  }

  async keepCopied(signal: AbortSignal): Promise<void> {
    const { clock } = this.#ports
    let pruned = clock.now()
    while (!signal.aborted) {
      await clock.sleep(pause, signal).catch(() => {})
      if (signal.aborted) return
      if (this.#problem !== undefined) this.#write({ said: {}, done: undefined })
      await this.#copyAll(signal)
      if (clock.now() - pruned < pruneEvery) continue
      pruned = clock.now()
      await this.#ports.records.prune(pruned).catch((error: unknown) => this.#copyProblem(error))
    }
  }

  complaints(): readonly string[] {
    const waiting = this.#bytes() > this.#maxBytes ? ['nothing can be issued: what was issued cannot be copied to the store'] : []
    return this.#problem === undefined ? waiting : [`nothing can be issued: ${this.#problem}`, ...waiting]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true
    this.#gauge[Symbol.dispose]()
    await this.#writing
    await this.#file[Symbol.asyncDispose]()
  }

  #demandRoom(): void {
    if (this.#bytes() <= this.#maxBytes) return
    throw new Failure('resource_exhausted', 'intents.full', {
      public: 'nothing can be issued: too much of what was issued waits to be copied to the store',
    })
  }

  #bytes(): number {
    return this.#closed.reduce((sum, { size }) => sum + size, this.#file.size)
  }

  #write(waiting: Waiting): void {
    this.#waiting.push(waiting)
    this.#writing ??= this.#writeAll()
  }

  async #writeAll(): Promise<void> {
    // Lets the intents of one turn of the event loop gather, so that they share a write.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0, groupLength(this.#waiting))
      try {
        if (this.#isRotationDue()) await this.#rotate()
        await this.#file.append(utf8(`${group.map(({ said }) => JSON.stringify(said)).join('\n')}\n`))
        this.#problem = undefined
        for (const { said } of group) this.#wrote(said)
        for (const { done } of group) done?.resolve()
      } catch (cause) {
        this.#failed(cause)
        const failure = notWritten('the disk of this server cannot be written', cause)
        for (const { said } of group) if ('outcome' in said) this.#wrote(said)
        for (const { done } of group) done?.reject(failure)
      }
    }
    this.#writing = undefined
  }

  /** Keeps account of what is in which file. An outcome that its file does not hold is remembered until the file is copied. */
  #wrote(said: Said): void {
    const current = this.#current
    if ('intent' in said) {
      current.open.add(said.intent.name)
      current.until = Math.max(current.until, said.intent.until)
      this.#segmentOf.set(said.intent.name, current)
    } else if ('outcome' in said) {
      const segment = this.#segmentOf.get(said.name)
      this.#segmentOf.delete(said.name)
      segment?.open.delete(said.name)
      if (segment && (segment !== current || this.#problem !== undefined)) this.#outcomes.set(said.name, said.outcome)
    }
  }

  #failed(cause: unknown): void {
    this.#ports.meter.counter(caMetrics.intentFailures, {}).add()
    const problem = `the intents cannot be written: ${tellChain(cause)}`
    if (this.#problem === undefined) this.#ports.log.error('nothing can be issued', { reason: 'intents.not-written', error: problem })
    this.#problem = problem
  }

  async #copyAll(signal: AbortSignal): Promise<void> {
    try {
      if (this.#isRotationDue()) this.#write({ said: {}, done: undefined })
      await this.#writing
      while (!signal.aborted && this.#closed[0] && this.#isSettled(this.#closed[0])) {
        await this.#copy(this.#closed[0], signal)
        if (this.#copyFailed) this.#ports.log.info('what was issued is copied to the store again')
        this.#copyFailed = false
      }
    } catch (error) {
      if (!signal.aborted) this.#copyProblem(error)
    }
    this.#dropExpired()
  }

  /** Nobody is hindered by a store that is away: the files wait. */
  #copyProblem(error: unknown): void {
    this.#ports.meter.counter(caMetrics.intentCopyFailures, {}).add()
    if (!this.#copyFailed) {
      this.#ports.log.warn('what was issued is not copied to the store', { reason: Failure.from(error).reason, error: tellChain(error) })
    }
    this.#copyFailed = true
  }

  #isRotationDue(): boolean {
    if (this.#file.size === 0) return false
    return this.#file.size >= maxSegmentBytes || this.#ports.clock.now() - this.#begun >= maxSegmentAge
  }

  /** Begins a new file. Only the writer does, between two groups. */
  async #rotate(): Promise<void> {
    const { files, directory, clock } = this.#ports
    const number = this.#current.number + 1
    const next = await files.appendTo(pathOf(directory, number))
    const [segment, file] = [this.#current, this.#file]
    this.#current = { number, size: 0, until: 0, open: new Set() }
    this.#file = next
    this.#begun = clock.now()
    segment.size = file.size
    this.#closed.push(segment)
    await file[Symbol.asyncDispose]()
  }

  #isSettled({ open }: Segment): boolean {
    return open.size === 0
  }

  async #copy(segment: Segment, signal: AbortSignal): Promise<void> {
    const { records, files, directory, log, clock } = this.#ports
    const { intents, settled } = await readSegment(this.#ports, segment.number, () => clock.sleep(1, signal))
    for (let from = 0; from < intents.length; from += copiedAtOnce) {
      const part = intents
        .slice(from, from + copiedAtOnce)
        .map((intent): IssuanceRecord => ({ ...intent, outcome: settled.get(intent.name) ?? this.#outcomes.get(intent.name) ?? 'unknown' }))
      const clashes = await records.put(part)
      if (clashes.length > 0)
        log.error('two certificates have one serial number', { reason: 'intents.name-twice', names: clashes.join(' ') })
      // Signing goes before copying, but for files that pile up: were they to go on, nothing could be signed at last.
      await clock.sleep(this.#closed.length > unhurried ? 1 : betweenCopies, signal)
    }
    await files.remove(pathOf(directory, segment.number))
    for (const { name } of intents) this.#outcomes.delete(name)
    this.#closed.shift()
  }

  /** What expired is of no use to anybody, copied or not. */
  #dropExpired(): void {
    const { files, directory, clock } = this.#ports
    while (this.#copyFailed && this.#closed[0] && this.#closed[0].until < clock.now() && this.#isSettled(this.#closed[0])) {
      void files.remove(pathOf(directory, this.#closed.shift()!.number)).catch((error: unknown) => this.#copyProblem(error))
    }
  }
}

interface ReadSegment {
  readonly intents: readonly Intent[]
  readonly settled: ReadonlyMap<string, Outcome>
  /** How many lines cannot be read, besides one that a power cut tore. */
  readonly damaged: number
  readonly size: number
}

/** `turn` is awaited now and then, so that others have theirs. */
async function readSegment({ files, directory }: IntentsPorts, number: number, turn?: () => Promise<void>): Promise<ReadSegment> {
  const content = (await files.read(pathOf(directory, number))) ?? new Uint8Array()
  const bytes = Buffer.from(content.buffer, content.byteOffset, content.byteLength)
  const intents: Intent[] = []
  const settled = new Map<string, Outcome>()
  let damaged = 0
  let from = 0
  // A line is made text when its turn comes: all at once would hold the thread for as long as it takes. Nothing was signed for one without an end.
  for (let lines = 1, end = bytes.indexOf(newline); end >= 0; lines++, end = bytes.indexOf(newline, from)) {
    const said = read(bytes.toString('utf8', from, end))
    from = end + 1
    if (!said) damaged++
    else if (said.intent) intents.push(said.intent)
    else if (said.outcome !== undefined && said.name !== undefined) settled.set(said.name, said.outcome)
    if (turn && lines % linesATurn === 0) await turn()
  }
  return { intents, settled, damaged, size: content.length }
}

/** How many of those that wait share the next write: a write serves as many intents whether or not outcomes travel with it, for nobody goes on after an outcome. */
function groupLength(waiting: readonly Waiting[]): number {
  let intents = 0
  for (const [index, { done }] of waiting.entries()) {
    if (index === maxLines || (done && intents++ === maxIntents)) return index
  }
  return waiting.length
}

function read(line: string): { readonly intent?: Intent; readonly outcome?: Outcome; readonly name?: string } | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}

function notWritten(problem: string, cause?: unknown): Failure {
  return new Failure('unavailable', 'intents.not-written', {
    public: `nothing can be issued: ${problem}`,
    ...(cause === undefined ? {} : { cause }),
  })
}

const latest = (intents: readonly Intent[]): Instant => intents.reduce((until, intent) => Math.max(until, intent.until), 0)
const pathOf = (directory: string, number: number): string => `${directory}/${String(number).padStart(8, '0')}.log`

function numberIn(name: string): number | undefined {
  const digits = /^([0-9]{8})\.log$/.exec(name)?.[1]
  return digits === undefined ? undefined : Number(digits)
}

/** Of one write: few enough that those who go on after it do not hold up everybody else. */
const maxIntents = 32
const maxLines = 4 * maxIntents
const newline = 0x0a
const maxWaiting = 8192
/** Below what one read takes. */
const maxSegmentBytes = 4 * 1024 * 1024
const maxSegmentAge = seconds(10)
const pause = seconds(1)
const linesATurn = 256
const copiedAtOnce = 32
const betweenCopies = 10
/** Files that may wait without haste: 16 MiB. */
const unhurried = 4
const pruneEvery = minutes(10)
