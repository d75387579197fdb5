import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { repository } from './peers/source.ts'

// Run after every change of dependencies: `npm run lock`.
// Native packages name their builds for other platforms as optional dependencies. npm leaves out of the lock file those that the registry it
// asked does not serve, and `npm ci` then refuses the file as incomplete, on every machine. This adds them, by the exact version that their
// package asks for and the platform that their name tells: they are installed on that platform alone.

export interface LockedPackage {
  readonly version?: string
  readonly integrity?: string
  readonly resolved?: string
  readonly link?: boolean
  readonly dev?: boolean
  readonly optional?: boolean
  readonly os?: readonly string[]
  readonly cpu?: readonly string[]
  readonly libc?: readonly string[]
  readonly optionalDependencies?: Readonly<Record<string, string>>
}

export type LockedPackages = Readonly<Record<string, LockedPackage>>

/** The optional dependencies that the lock file does not hold, as it should hold them. */
export function missingBuilds(packages: LockedPackages): LockedPackages {
  const missing: Record<string, LockedPackage> = {}
  for (const [at, owner] of Object.entries(packages)) {
    for (const [name, version] of Object.entries(owner.optionalDependencies ?? {})) {
      const path = `node_modules/${name}`
      if (path in packages || `${at}/${path}` in packages) continue
      missing[path] = { version, ...(owner.dev === true ? { dev: true } : {}), optional: true, ...platformOf(name, version) }
    }
  }
  return missing
}

function platformOf(name: string, version: string): Pick<LockedPackage, 'os' | 'cpu' | 'libc'> {
  const words = name.split(/[/-]/)
  const os = words.find((word) => systems.has(word))
  const cpu = words.find((word) => processors.has(word))
  if (os === undefined || cpu === undefined || !/^\d+\.\d+\.\d+$/.test(version)) {
    throw new Error(`\`${name}@${version}\` is not in the lock file, and its name does not tell its platform: add it by hand`)
  }
  const libc = words.some((word) => word.startsWith('musl'))
    ? ['musl']
    : words.some((word) => word.startsWith('gnu'))
      ? ['glibc']
      : undefined
  return { os: [os], cpu: [/^armv?\d*$/.test(cpu) ? 'arm' : cpu], ...(os === 'linux' && libc !== undefined ? { libc } : {}) }
}

/** In npm's own order: by path, the project itself first. */
function sorted(packages: LockedPackages): LockedPackages {
  return Object.fromEntries(Object.entries(packages).sort(([a], [b]) => a.localeCompare(b, 'en')))
}

const systems: ReadonlySet<string> = new Set([
  'aix',
  'android',
  'darwin',
  'freebsd',
  'linux',
  'netbsd',
  'openbsd',
  'openharmony',
  'sunos',
  'win32',
])
const processors: ReadonlySet<string> = new Set([
  'arm',
  'armv7',
  'arm64',
  'ia32',
  'loong64',
  'mips64el',
  'ppc64',
  'riscv64',
  's390x',
  'wasm32',
  'x64',
])

if (import.meta.main) {
  const path = join(repository, 'package-lock.json')
  const lock = JSON.parse(readFileSync(path, 'utf8')) as { packages: LockedPackages }
  const missing = missingBuilds(lock.packages)
  const names = Object.keys(missing)
  if (names.length > 0) writeFileSync(path, `${JSON.stringify({ ...lock, packages: sorted({ ...lock.packages, ...missing }) }, null, 2)}\n`)
  process.stdout.write(`${names.length} builds for other platforms added to the lock file\n`)
}
