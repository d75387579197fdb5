/**
 * `npm run bench [-- name…] [--seconds N] [--list]`: measures, and prints one JSON object a line; a table for people goes to standard error.
 * A name is that of a bench (`issuance.p256`) or of a group (`issuance`); without one, everything is measured.
 */
import { parseArgs } from 'node:util'
import { cerbos } from './cerbos.ts'
import { enforced } from './enforced.ts'
import { extAuthz } from './ext-authz.ts'
import { type Bench, type Effort, type Figure, longestHeldMs, Missing } from './harness.ts'
import { issuance } from './issuance.ts'
import { policy } from './policy.ts'
import { policyAnalysis } from './policy-analysis.ts'
import { server } from './server.ts'
import { spiffe } from './spiffe.ts'
import { start } from './start.ts'
import { workloadApi } from './workload-api.ts'

const benches: readonly Bench[] = [
  ...issuance,
  ...spiffe,
  ...policy,
  ...cerbos,
  ...policyAnalysis,
  ...enforced,
  ...workloadApi,
  ...extAuthz,
  ...server,
  ...start,
]

async function main(): Promise<number> {
  const asked = readArguments()
  if (typeof asked === 'string') return refuse(asked)
  if (asked.list) {
    for (const { name, about } of benches) console.log(`${name.padEnd(26)} ${about}`)
    return 0
  }
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort(new Error(`ended by ${signal}`)))
  return measureAll(asked.chosen, { seconds: asked.seconds, stop: stop.signal })
}

/** What was asked for, or what is wrong with it. */
function readArguments(): { readonly chosen: readonly Bench[]; readonly seconds: number; readonly list: boolean } | string {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { seconds: { type: 'string', default: '4' }, list: { type: 'boolean', default: false } },
    })
    const seconds = Number(values.seconds)
    if (!(seconds > 0 && seconds <= longestSeconds))
      return `\`--seconds ${values.seconds}\`: expected a number above 0, at most ${longestSeconds}`
    const unknown = positionals.find((name) => !benches.some((bench) => isMeant(bench, name)))
    if (unknown !== undefined) return `no bench is called \`${unknown}\``
    const chosen = benches.filter((bench) => positionals.length === 0 || positionals.some((name) => isMeant(bench, name)))
    return { chosen, seconds, list: values.list }
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

const isMeant = ({ name }: Bench, asked: string): boolean => name === asked || name.startsWith(`${asked}.`)

function refuse(problem: string): number {
  console.error(`${problem}\nbenches:\n${benches.map(({ name, about }) => `  ${name.padEnd(26)} ${about}`).join('\n')}`)
  return 2
}

async function measureAll(chosen: readonly Bench[], effort: Effort): Promise<number> {
  const rows: string[][] = []
  let failed = false
  for (const { name, run } of chosen) {
    if (effort.stop.aborted) break
    console.error(`measuring ${name}`)
    try {
      const figure = await run(effort)
      console.log(JSON.stringify({ bench: name, ...figure }))
      rows.push(rowOf(name, figure))
      if (figure.held_ms !== undefined && figure.held_ms > longestHeldMs) {
        failed = true
        console.error(`${name} failed: the thread was held for ${figure.held_ms} ms, at most ${longestHeldMs} are allowed`)
      }
    } catch (error) {
      if (error instanceof Missing) {
        console.error(`${name} is left out: ${error.message}`)
        continue
      }
      failed = true
      console.error(`${name} failed: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  if (rows.length > 0) console.error(`\n${table([headings, ...rows])}`)
  return failed || effort.stop.aborted ? 1 : 0
}

function rowOf(name: string, { value, unit, cpu_us_per_op, p50_ms, p99_ms, rss_mb, ratio }: Figure): string[] {
  return [
    name,
    value.toLocaleString('en'),
    unit,
    ...[cpu_us_per_op, p50_ms, p99_ms, rss_mb, ratio].map((cell) => (cell === undefined ? '' : String(cell))),
  ]
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = headings.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (row: readonly string[]) =>
    row.map((cell, column) => (numeric.has(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!))).join('  ')
  return rows.map((row) => line(row).trimEnd()).join('\n')
}

const headings = ['BENCH', 'VALUE', 'UNIT', 'CPU µs/op', 'p50 ms', 'p99 ms', 'RSS MB', 'RATIO']
const numeric = new Set([1, 3, 4, 5, 6, 7])
/** With warm-up and preparation a bench stays within a minute. */
const longestSeconds = 50

process.exitCode = await main()
