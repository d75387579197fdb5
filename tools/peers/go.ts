import { join } from 'node:path'
import { lastWords, run } from '../run.ts'
import { fingerprint, sourceFolder } from './source.ts'
import { CannotProvide, type Peer } from './peer.ts'

/** A Go program of ours under `test/peers/<name>`, built on published modules into `client`. */
export function goProgram(row: { readonly name: string; readonly purpose: string; readonly version: string }): Peer {
  const source = sourceFolder(row.name)
  return {
    ...row,
    folder: `${row.name}-${row.version}-${fingerprint(source)}`,
    program: 'client',
    probe: ['version'],
    source: 'Go modules',
    async provide(folder) {
      const built = await run('go', ['build', '-trimpath', '-buildvcs=false', '-o', join(folder, 'client'), '.'], {
        cwd: source,
        // No C compiler is asked for, and the module files stay as they are.
        env: { CGO_ENABLED: '0', GOFLAGS: '-mod=readonly', GOWORK: 'off' },
        deadlineMs: 10 * 60_000,
      })
      if (built.code === 0) return
      throw new CannotProvide(
        `go build: ${lastWords(built)}`,
        built.failure?.includes('PATH') === true
          ? 'install Go 1.25 or newer and put `go` on PATH'
          : `(cd ${source} && go build -o /dev/null .)`,
      )
    },
  }
}
