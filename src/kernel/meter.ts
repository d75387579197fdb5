/**
 * What a metric is called, of which kind it is, and what tells its series apart. Each room declares its own in one file, `metrics.ts`.
 * A label takes one of a closed set, or values that this program makes itself (reason codes, method names) up to a number: never what a caller says.
 */
export interface Metric<Kind extends MetricKind = MetricKind, L extends Labels = Labels> {
  readonly kind: Kind
  /** `vidimus_…`, with the unit last: `_total` for a counter, `_seconds` for a timing (Prometheus: metric and label naming). */
  readonly name: string
  readonly help: string
  readonly labels: L
}

export type MetricKind = 'counter' | 'gauge' | 'timing'
export type Labels = Readonly<Record<string, LabelSet>>
export type LabelSet = readonly string[] | Bounded

/** How many values a label may have at most. One more, or one that has not the form of a name, is counted as `other`. */
export interface Bounded {
  readonly most: number
  /** Those that are there from the start. */
  readonly known?: readonly string[]
}

export type LabelValues<L extends Labels> = { readonly [Name in keyof L]: L[Name] extends readonly (infer Value)[] ? Value : string }

/** PORT: where rooms count what they do. What it gives is kept by those who count often: asking for it anew is a look-up. */
export interface Meter {
  counter<const L extends Labels>(metric: Metric<'counter', L>, labels: LabelValues<L>): Tally
  timing<const L extends Labels>(metric: Metric<'timing', L>, labels: LabelValues<L>): Timing
  /** `read` is asked whenever somebody looks, until what is returned is disposed of. */
  gauge<const L extends Labels>(metric: Metric<'gauge', L>, read: () => readonly Reading<L>[]): Disposable
}

/** Only grows. */
export interface Tally {
  add(amount?: number): void
}

/** How long something took. */
export interface Timing {
  /** In milliseconds. */
  record(duration: number): void
}

export interface Reading<L extends Labels = Labels> {
  readonly labels: LabelValues<L>
  readonly value: number
}

export const counter = <const L extends Labels>(name: string, help: string, labels: L): Metric<'counter', L> =>
  declared({ kind: 'counter', name, help, labels })
export const gauge = <const L extends Labels>(name: string, help: string, labels: L): Metric<'gauge', L> =>
  declared({ kind: 'gauge', name, help, labels })
export const timing = <const L extends Labels>(name: string, help: string, labels: L): Metric<'timing', L> =>
  declared({ kind: 'timing', name, help, labels })

/** Reason codes. */
export const reasonCodes: Bounded = { most: 200 }

/** Counts nothing. */
export const silentMeter: Meter = {
  counter: () => ({ add() {} }),
  timing: () => ({ record() {} }),
  gauge: () => ({ [Symbol.dispose]() {} }),
}

/** The series of one metric at one moment. */
export interface Family {
  readonly metric: Metric
  readonly series: readonly (Reading | TimingReading)[]
}

export interface TimingReading {
  readonly labels: Readonly<Record<string, string>>
  /** How many were at most as long as each of {@link timingBounds} and longer than the one before; the last, those that were longer than all. */
  readonly counts: readonly number[]
  /** Of all, in seconds. */
  readonly sum: number
}

/**
 * Counts in memory, for whoever looks. A count is an addition: labels are looked up when a series is asked for, and nothing is made each time.
 * What its labels are known to be is there from the start, with zero, so that its first count is seen as a rise.
 */
export class CountingMeter implements Meter {
  readonly #counters = new Map<Metric, SeriesOf<Count>>()
  readonly #timings = new Map<Metric, SeriesOf<Lengths>>()
  readonly #gauges = new Map<Metric, Set<() => readonly Reading[]>>()
  readonly #metrics: readonly Metric[]

  constructor(metrics: readonly Metric[]) {
    if (new Set(metrics.map(({ name }) => name)).size < metrics.length) throw new Error('bug: two metrics have one name')
    this.#metrics = metrics
    for (const metric of metrics) {
      if (metric.kind === 'counter') this.#counters.set(metric, new SeriesOf(metric, () => new Count()))
      else if (metric.kind === 'timing') this.#timings.set(metric, new SeriesOf(metric, () => new Lengths()))
      else this.#gauges.set(metric, new Set())
    }
  }

  counter<const L extends Labels>(metric: Metric<'counter', L>, labels: LabelValues<L>): Tally {
    return known(this.#counters, metric).of(labels as Plain)
  }

  timing<const L extends Labels>(metric: Metric<'timing', L>, labels: LabelValues<L>): Timing {
    return known(this.#timings, metric).of(labels as Plain)
  }

  gauge<const L extends Labels>(metric: Metric<'gauge', L>, read: () => readonly Reading<L>[]): Disposable {
    const readers = known(this.#gauges, metric)
    const own = () => read() as readonly Reading[]
    readers.add(own)
    return { [Symbol.dispose]: () => void readers.delete(own) }
  }

  /** Everything as it is now, in the order in which it was declared. */
  read(): readonly Family[] {
    return this.#metrics.map((metric) => ({ metric, series: this.#seriesOf(metric) }))
  }

  #seriesOf(metric: Metric): Family['series'] {
    const counts = this.#counters.get(metric)
    if (counts) return counts.all().map(({ labels, held }) => ({ labels, value: held.value }))
    const lengths = this.#timings.get(metric)
    if (lengths) return lengths.all().map(({ labels, held }) => ({ labels, counts: [...held.counts], sum: held.sum }))
    const readings = new SeriesOf(metric, () => new Level())
    for (const read of this.#gauges.get(metric) ?? []) for (const { labels, value } of read()) readings.of(labels).value = value
    return readings.all().map(({ labels, held }) => ({ labels, value: held.value }))
  }
}

type Plain = Readonly<Record<string, string>>

/** The series of one metric, by their labels. INVARIANT: there are never more than the labels' limits allow, and never more than {@link maxSeries}. */
class SeriesOf<Held> {
  readonly #names: readonly string[]
  readonly #sets: readonly LabelSet[]
  /** By the position of the label: what was seen where no closed set says what may be. */
  readonly #seen: readonly Set<string>[]
  readonly #series = new Map<string, { readonly labels: Plain; readonly held: Held }>()
  readonly #make: () => Held

  constructor({ kind, labels }: Metric, make: () => Held) {
    this.#names = Object.keys(labels)
    this.#sets = Object.values(labels)
    this.#seen = this.#sets.map(() => new Set())
    this.#make = make
    if (kind === 'gauge') return
    for (const [at, set] of this.#sets.entries()) if (!isClosed(set)) for (const value of set.known ?? []) this.#seen[at]!.add(value)
    for (const values of combinations(this.#sets)) this.#take(values)
  }

  of(labels: Plain): Held {
    const values = this.#names.map((name, at) => this.#limited(at, labels[name] ?? ''))
    const known = this.#series.get(values.join('\n'))
    if (known) return known.held
    return this.#take(this.#series.size < maxSeries ? values : values.map(() => other))
  }

  all() {
    return [...this.#series.values()]
  }

  #take(values: readonly string[]): Held {
    const key = values.join('\n')
    const known = this.#series.get(key)
    if (known) return known.held
    const labels = Object.fromEntries(this.#names.map((name, at) => [name, values[at]!]))
    const held = this.#make()
    this.#series.set(key, { labels, held })
    return held
  }

  #limited(at: number, value: string): string {
    const set = this.#sets[at]!
    if (isClosed(set)) return set.includes(value) ? value : other
    const seen = this.#seen[at]!
    if (seen.has(value)) return value
    if (seen.size >= set.most || !nameLike.test(value)) return other
    seen.add(value)
    return value
  }
}

class Count implements Tally {
  value = 0

  add(amount = 1): void {
    if (amount > 0) this.value += amount
  }
}

class Lengths implements Timing {
  readonly counts: number[] = Array.from({ length: timingBounds.length + 1 }, () => 0)
  sum = 0

  /** A clock that was set back makes no negative length. */
  record(duration: number): void {
    const length = duration > 0 ? duration / 1000 : 0
    let at = 0
    while (at < timingBounds.length && length > timingBounds[at]!) at++
    this.counts[at]!++
    this.sum += length
  }
}

class Level {
  value = 0
}

function declared<M extends Metric>(metric: M): M {
  const { kind, name, help, labels } = metric
  const suffix = { counter: '_total', timing: '_seconds', gauge: '' }[kind]
  const isWellNamed = /^vidimus(_[a-z0-9]+)+$/.test(name) && name.endsWith(suffix) && (kind === 'counter' || !name.endsWith('_total'))
  if (!isWellNamed || help === '' || !Object.keys(labels).every((label) => /^[a-z]+(_[a-z]+)*$/.test(label)))
    throw new Error(`bug: the metric \`${name}\` is not well declared`)
  return metric
}

function known<Held>(all: ReadonlyMap<Metric, Held>, metric: unknown): Held {
  const found = all.get(metric as Metric)
  if (!found) throw new Error(`bug: the metric \`${(metric as Metric).name}\` is in no list of those that are counted`)
  return found
}

function combinations(sets: readonly LabelSet[]): string[][] {
  return sets.reduce<string[][]>((rows, set) => rows.flatMap((row) => knownOf(set).map((value) => [...row, value])), [[]])
}

const knownOf = (set: LabelSet): readonly string[] => (isClosed(set) ? set : (set.known ?? []))
const isClosed = (set: LabelSet): set is readonly string[] => Array.isArray(set)
const other = 'other'
const nameLike = /^[A-Za-z0-9_./-]{1,128}$/
/** As many as the OpenTelemetry SDK takes of one metric (Metrics SDK, cardinality limits). */
const maxSeries = 2000

/** In seconds: from what is answered from memory to what a caller has given up on. The clock tells milliseconds. */
export const timingBounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30] as const
