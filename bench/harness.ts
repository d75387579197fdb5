/** How a figure is made: warm up, do the same thing for a fixed time, count, and say it in one line. */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'

/** One thing that is measured. */
export interface Bench {
  /** `group.what`. */
  readonly name: string
  /** What one operation is, in one line. */
  readonly about: string
  /** Prepares, verifies one answer, and only then starts the clock. Leaves nothing behind. */
  run(effort: Effort): Promise<Figure>
}

/** How long to measure, and when to give up. */
export interface Effort {
  readonly seconds: number
  readonly stop: AbortSignal
}

/** What is printed of a bench. Fields that do not apply are left out. */
export interface Figure {
  readonly value: number
  readonly unit: string
  /** CPU time of the process that serves, in microseconds an operation. */
  readonly cpu_us_per_op?: number
  readonly p50_ms?: number
  readonly p99_ms?: number
  /** Resident memory of the process that serves. */
  readonly rss_mb?: number
  /** The longest that the thread of JavaScript worked without a turn for anybody else, in its own CPU time: above {@link longestHeldMs} the bench fails. */
  readonly held_ms?: number
  /** `value` beside what `of` names, measured in the same run. */
  readonly ratio?: number
  readonly of?: string
  /** Operations measured. */
  readonly n: number
}

/** A bench cannot be run here: what it needs is said, and nothing has failed. */
export class Missing extends Error {}

/** What the house allows anybody to work at once on the thread that everybody shares. */
export const longestHeldMs = 10

/** What {@link load} and {@link repeat} counted. */
export interface Rate {
  readonly perSecond: number
  readonly count: number
  readonly cpuUsEach: number | undefined
  /** Nanoseconds; undefined where one operation is too short to be timed alone. */
  readonly latency: RecordableHistogram | undefined
}

export interface Load {
  readonly concurrency: number
  /** Whose CPU time is counted: this process if left out. */
  readonly pid?: number
}

/** Keeps `concurrency` operations going for the given time, after a warm-up. The first that fails ends it. */
export async function load(
  effort: Effort,
  { concurrency, pid = process.pid }: Load,
  operation: (worker: number, count: number) => Promise<unknown>,
): Promise<Rate> {
  await spend(warmUpOf(effort), effort.stop, concurrency, operation)
  const before = await cpuSeconds(pid)
  const began = performance.now()
  const { latency, count } = await spend(effort.seconds, effort.stop, concurrency, operation)
  const elapsed = (performance.now() - began) / 1000
  return { perSecond: count / elapsed, count, cpuUsEach: each(before, await cpuSeconds(pid), count), latency }
}

export interface Arrivals {
  readonly perSecond: number
  /** Whose CPU time is counted: this process if left out. */
  readonly pid?: number
}

/**
 * Begins operations at a steady rate, whether or not the ones before have ended, after a warm-up. Waiting times count from the moment
 * that an operation should have begun, so that whatever holds the others up is in them.
 */
export async function openLoop(
  effort: Effort,
  { perSecond, pid = process.pid }: Arrivals,
  operation: (count: number) => Promise<unknown>,
): Promise<Rate> {
  await arrive(effort, warmUpOf(effort), perSecond, operation)
  const before = await cpuSeconds(pid)
  const began = performance.now()
  const { latency, count } = await arrive(effort, effort.seconds, perSecond, operation)
  const elapsed = (performance.now() - began) / 1000
  return { perSecond: count / elapsed, count, cpuUsEach: each(before, await cpuSeconds(pid), count), latency }
}

/** Does something that needs no waiting again and again on this thread, after a warm-up. */
export async function repeat(effort: Effort, operation: (count: number) => unknown): Promise<Rate> {
  const chunk = await chunkOf(effort, operation)
  const latency = createHistogram()
  const before = await cpuSeconds(process.pid)
  const began = performance.now()
  let count = 0
  for (;;) {
    const until = performance.now() + turnMs
    let last = performance.now()
    while (last < until) {
      for (let index = 0; index < chunk; index++) operation(count++)
      const now = performance.now()
      latency.record(Math.max(1, Math.round((now - last) * 1e6)))
      last = now
    }
    effort.stop.throwIfAborted()
    if (last - began >= effort.seconds * 1000) break
    await turn()
  }
  const elapsed = (performance.now() - began) / 1000
  const cpuUsEach = each(before, await cpuSeconds(process.pid), count)
  return { perSecond: count / elapsed, count, cpuUsEach, latency: chunk === 1 ? latency : undefined }
}

/** A rate as it is printed. */
export function figureOf({ perSecond, count, cpuUsEach, latency }: Rate, unit: string): Figure {
  return {
    value: rounded(perSecond),
    unit,
    ...(cpuUsEach === undefined ? {} : { cpu_us_per_op: rounded(cpuUsEach) }),
    ...(latency === undefined ? {} : { p50_ms: rounded(latency.percentile(50) / 1e6), p99_ms: rounded(latency.percentile(99) / 1e6) }),
    n: count,
  }
}

/** {@link figureOf} beside what OpenSSL does with such a key on one core. */
export async function figureBesideOpenssl(
  rate: Rate,
  unit: string,
  deed: 'sign' | 'verify',
  algorithm: 'ecdsap256' | 'rsa2048' = 'ecdsap256',
): Promise<Figure> {
  const raw = (await opensslSpeed(algorithm))?.[deed]
  const figure = figureOf(rate, unit)
  return raw === undefined
    ? figure
    : { ...figure, ratio: rounded(rate.perSecond / raw), of: `openssl ${algorithm} ${deed}, one core, same run` }
}

/**
 * Watches how long this thread works at once while `deed` runs. CPU time is counted, so that what other programs take does not count.
 * @returns what the deed returns, and the longest such time in milliseconds
 */
export async function watched<T>(deed: () => Promise<T>): Promise<{ readonly value: T; readonly heldMs: number }> {
  const used = () => {
    const { user, system } = process.threadCpuUsage()
    return (user + system) / 1000
  }
  let before = used()
  let heldMs = 0
  const timer = setInterval(() => {
    const now = used()
    heldMs = Math.max(heldMs, now - before)
    before = now
  }, 1)
  try {
    return { value: await deed(), heldMs: rounded(heldMs) }
  } finally {
    clearInterval(timer)
  }
}

/** Of a running process, user and system together; undefined where the system does not tell. */
export async function cpuSeconds(pid: number): Promise<number | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  if (stat === undefined) return undefined
  // proc_pid_stat(5): the name in parentheses may hold anything; utime and stime are fields 14 and 15, the state after the name is 3.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / clockTicksPerSecond
}

/** Resident memory of a running process; undefined where the system does not tell. */
export async function residentMb(pid: number): Promise<number | undefined> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  const kb = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]
  return kb === undefined ? undefined : rounded(Number(kb) / 1024)
}

/** Three significant digits, or whole numbers where there are more. */
export function rounded(value: number): number {
  return Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3))
}

/** Fails before the clock starts where an answer is not what it should be. */
export function demand(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`the answer to be measured is wrong: ${what}`)
}

async function arrive(
  { stop }: Effort,
  seconds: number,
  perSecond: number,
  operation: (count: number) => Promise<unknown>,
): Promise<{ latency: RecordableHistogram; count: number }> {
  const latency = createHistogram()
  const total = Math.round(seconds * perSecond)
  const began = performance.now()
  const under: Promise<void>[] = []
  for (let count = 0; count < total;) {
    stop.throwIfAborted()
    const due = Math.min(total, Math.ceil(((performance.now() - began) * perSecond) / 1000))
    for (; count < due; count++) {
      const meant = began + (count * 1000) / perSecond
      under.push(operation(count).then(() => latency.record(Math.max(1, Math.round((performance.now() - meant) * 1e6)))))
    }
    await pause(1)
  }
  await Promise.all(under)
  return { latency, count: total }
}

async function spend(
  seconds: number,
  stop: AbortSignal,
  concurrency: number,
  operation: (worker: number, count: number) => Promise<unknown>,
): Promise<{ latency: RecordableHistogram; count: number }> {
  const latency = createHistogram()
  const until = performance.now() + seconds * 1000
  let count = 0
  const work = async (worker: number) => {
    for (let began = performance.now(); began < until;) {
      stop.throwIfAborted()
      await operation(worker, count++)
      const now = performance.now()
      latency.record(Math.max(1, Math.round((now - began) * 1e6)))
      began = now
    }
  }
  await Promise.all(Array.from({ length: concurrency }, (_, worker) => work(worker)))
  return { latency, count }
}

/** Warms up, and says how many operations make a chunk that is long enough to be timed. */
async function chunkOf(effort: Effort, operation: (count: number) => unknown): Promise<number> {
  const until = performance.now() + warmUpOf(effort) * 1000
  let chunk = 1
  for (;;) {
    const began = performance.now()
    for (let index = 0; index < chunk; index++) operation(index)
    const now = performance.now()
    if (now - began < shortestTimedMs) chunk *= 2
    effort.stop.throwIfAborted()
    if (now > until) return now - began >= 2 * shortestTimedMs && chunk === 2 ? 1 : chunk
    if (chunk >= 64) await turn()
  }
}

function each(before: number | undefined, after: number | undefined, count: number): number | undefined {
  return before === undefined || after === undefined || count === 0 ? undefined : ((after - before) * 1e6) / count
}

type Speed = { readonly sign: number; readonly verify: number } | undefined
const measured = new Map<string, Promise<Speed>>()

/** Raw signatures and verifications a second, measured once a run; undefined where there is no openssl. */
function opensslSpeed(algorithm: string): Promise<Speed> {
  const known = measured.get(algorithm)
  if (known) return known
  const measuring = promisify(execFile)('openssl', ['speed', '-seconds', '2', algorithm]).then(
    ({ stdout }) => {
      const [sign, verify] = stdout.trim().split('\n').at(-1)!.trim().split(/\s+/).slice(-2).map(Number)
      return sign && verify ? { sign, verify } : undefined
    },
    () => undefined,
  )
  measured.set(algorithm, measuring)
  return measuring
}

const warmUpOf = ({ seconds }: Effort): number => Math.min(2, seconds / 2)
/** Shorter operations are timed in chunks: reading the clock would be part of the figure. */
const shortestTimedMs = 0.005
/** How long the event loop is held at once. */
const turnMs = 100
/** sysconf(_SC_CLK_TCK): 100 on every Linux that Node runs on. */
const clockTicksPerSecond = 100
