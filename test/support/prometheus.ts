/** Reads the text format of Prometheus, strictly: https://prometheus.io/docs/instrumenting/exposition_formats/ */

import type { Program } from './programs.ts'

export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Scrape {
  /** By name of the family. */
  readonly types: ReadonlyMap<string, string>
  readonly samples: readonly Sample[]
  /** The one sample with these labels. @throws Error where there is none or more than one */
  value(name: string, labels?: Readonly<Record<string, string>>): number
}

/** What a program shows at the address that its log names. */
export async function scrape(program: Program): Promise<Scrape> {
  return parseScrape(await scrapedText(program))
}

/** The same, unread. */
export async function scrapedText(program: Program): Promise<string> {
  const { address, port } = JSON.parse(await program.logged('"metrics are shown"')) as { address: string; port: number }
  const response = await fetch(`http://${address}:${port}/metrics`, { signal: AbortSignal.timeout(10_000) })
  const type = response.headers.get('content-type') ?? ''
  if (!response.ok || !type.startsWith('text/plain; version=0.0.4')) throw new Error(`answered ${response.status} with ${type}`)
  return response.text()
}

/** @throws Error with the line that a scraper would stumble over */
export function parseScrape(text: string): Scrape {
  if (!text.endsWith('\n')) throw new Error('the last line does not end')
  const types = new Map<string, string>()
  const helped = new Set<string>()
  const samples: Sample[] = []
  const seen = new Set<string>()
  let family = ''
  for (const line of text.split('\n').filter((one) => one !== '')) {
    const comment = /^# (HELP|TYPE|UNIT) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$/.exec(line)
    if (comment) {
      const [, kind, name, rest] = comment
      const known = kind === 'HELP' ? helped : kind === 'TYPE' ? types : undefined
      if (known?.has(name!)) throw new Error(`a second ${kind} of one family: ${line}`)
      if (kind === 'HELP') helped.add(name!)
      if (kind === 'TYPE') {
        if (!['counter', 'gauge', 'histogram'].includes(rest!)) throw new Error(`an unknown type: ${line}`)
        types.set(name!, rest!)
        family = name!
      }
      continue
    }
    const sample = readSample(line)
    const base = types.get(family) === 'histogram' ? sample.name.replace(/_(bucket|sum|count)$/, '') : sample.name
    if (base !== family) throw new Error(`a sample outside its family: ${line}`)
    const identity = `${sample.name} ${JSON.stringify(Object.entries(sample.labels).toSorted(([a], [b]) => a.localeCompare(b)))}`
    if (seen.has(identity)) throw new Error(`a second sample of one series: ${line}`)
    seen.add(identity)
    samples.push(sample)
  }
  for (const [name, type] of types) if (type === 'histogram') demandCumulative(samples.filter((one) => one.name.startsWith(name)))
  return {
    types,
    samples,
    value(name, labels = {}) {
      const found = samples.filter(
        (one) => one.name === name && Object.entries(labels).every(([label, value]) => one.labels[label] === value),
      )
      if (found.length !== 1) throw new Error(`${found.length} samples of ${name} ${JSON.stringify(labels)}`)
      return found[0]!.value
    },
  }
}

function readSample(line: string): Sample {
  const parts = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
  if (!parts) throw new Error(`not a sample: ${line}`)
  const [, name, written = '', text] = parts
  const labels: Record<string, string> = {}
  let rest = written
  while (rest !== '') {
    const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/.exec(rest)
    if (!label || label[1]! in labels) throw new Error(`not labels: ${line}`)
    labels[label[1]!] = label[2]!.replace(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped))
    rest = rest.slice(label[0].length)
  }
  const value = text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text)
  if (Number.isNaN(value)) throw new Error(`not a number: ${line}`)
  return { name: name!, labels, value }
}

/** The buckets of each series rise, and the last, `+Inf`, is the count. */
function demandCumulative(samples: readonly Sample[]): void {
  const series = Map.groupBy(samples, ({ labels }) => {
    const { le: _bound, ...own } = labels
    return JSON.stringify(own)
  })
  for (const [own, parts] of series) {
    const buckets = parts.filter(({ name }) => name.endsWith('_bucket'))
    const bounds = buckets.map(({ labels }) => (labels['le'] === '+Inf' ? Infinity : Number(labels['le'])))
    const isRising = buckets.every(({ value }, at) => at === 0 || (value >= buckets[at - 1]!.value && bounds[at]! > bounds[at - 1]!))
    const count = parts.find(({ name }) => name.endsWith('_count'))?.value
    if (!isRising || bounds.at(-1) !== Infinity || buckets.at(-1)!.value !== count) throw new Error(`not a histogram: ${own}`)
  }
}
