/**
 * `npm run fuzz [-- target…] [--time SECONDS] [--runs N] [--seed N]`: feeds the readers of what strangers send with broken inputs,
 * each for the time or the runs given, and says how many there were. Ends with 1 at the first finding, and prints its input.
 */
import { parseArgs } from 'node:util'
import { fuzz, type Report } from './engine.ts'
import type { Target } from './target.ts'
import { targets } from './targets.ts'

async function main(): Promise<number> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { time: { type: 'string', default: '60' }, runs: { type: 'string' }, seed: { type: 'string' } },
  })
  const strange = positionals.find((name) => !targets.some((target) => target.name === name))
  const numbers = { seconds: Number(values.time), runs: Number(values.runs ?? Infinity), seed: Number(values.seed ?? Date.now() % 2 ** 31) }
  if (strange !== undefined || Object.values(numbers).some((value) => !(value > 0))) {
    console.error(
      `usage: npm run fuzz [-- target…] [--time SECONDS] [--runs N] [--seed N]\ntargets: ${targets.map(({ name }) => name).join(' ')}`,
    )
    return 2
  }
  const stop = new AbortController()
  process.once('SIGINT', () => stop.abort())
  const chosen = positionals.length === 0 ? targets : targets.filter(({ name }) => positionals.includes(name))
  for (const target of chosen) {
    const progress = ({ runs }: Report) => process.stderr.write(`\r${target.name}: ${runs} runs`)
    const report = await fuzz(target, { ...numbers, stop: stop.signal, progress })
    process.stderr.write('\r')
    console.log(told(target, report, numbers.seed))
    if (report.finding) return 1
    if (stop.signal.aborted) break
  }
  return 0
}

function told(target: Target, { runs, accepted, refused, slowestMs, finding }: Report, seed: number): string {
  const summary = `${target.name}: ${runs} runs, ${accepted} accepted, ${refused.size} ways to be refused, slowest ${slowestMs.toFixed(1)} ms, seed ${seed}`
  if (!finding) return summary
  return `${summary}\nFINDING for the input ${Buffer.from(finding.input).toString('base64')} (base64)\n${describe(finding.thrown)}`
}

function describe(thrown: unknown): string {
  if (!(thrown instanceof Error)) return 'something that is not an error was thrown'
  return `${thrown.stack ?? thrown.message}${thrown.cause === undefined ? '' : `\ncaused by ${describe(thrown.cause)}`}`
}

process.exitCode = await main()
