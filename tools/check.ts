import { parseArgs } from 'node:util'
import { run } from './run.ts'

/** What holds of this repository, each with the command that shows it. */
const claims: readonly { readonly claim: string; readonly command: readonly [string, ...string[]]; readonly tests?: true }[] = [
  { claim: 'every file is formatted', command: ['oxfmt', '--check'] },
  { claim: 'nothing floats, nothing is any, time and chance come in through ports', command: ['oxlint', '--type-aware'] },
  { claim: 'the types hold', command: ['tsc'] },
  { claim: 'the release compiles', command: ['tsc', '-p', 'tsconfig.build.json', '--noEmit'] },
  { claim: 'the arrows point down', command: ['node', 'tools/boundaries.ts'] },
  { claim: 'nothing is dead', command: ['knip', '--no-progress'] },
  {
    claim: 'rooms, contracts and the standard are kept',
    command: ['vitest', 'run', '--project', 'unit', '--project', 'contract', '--project', 'conformance'],
    tests: true,
  },
]

const { values: options } = parseArgs({ options: { 'no-tests': { type: 'boolean', default: false } } })
const broken: string[] = []
for (const { claim, command, tests } of claims) {
  if (tests && options['no-tests']) continue
  const started = performance.now()
  const [program, ...args] = command
  const outcome = await run(program, args, { deadlineMs: 15 * 60_000, show: tests === true })
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  const held = outcome.code === 0
  if (!held) {
    broken.push(claim)
    process.stdout.write(`${outcome.stdout}${outcome.stderr}${outcome.failure ?? ''}\n`)
  }
  process.stdout.write(`${held ? 'ok    ' : 'FAILED'} ${claim} (${seconds} s)${held ? '' : `: ${command.join(' ')}`}\n`)
}
if (broken.length > 0) {
  process.stdout.write(`broken: ${broken.join('; ')}\n`)
  process.exitCode = 1
}
