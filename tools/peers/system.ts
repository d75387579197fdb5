import { access, chmod, copyFile, mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lastWords, run } from '../run.ts'
import { CannotProvide, type Peer } from './peer.ts'

/** A file that is wanted, and the folders in which installations keep it. */
interface Wanted {
  readonly file: string
  readonly folders: readonly string[]
}

/**
 * Programs that distributions carry: those of this machine where it has them, else out of Debian packages, unpacked into the cache folder:
 * nothing is installed, so it takes no root. They stand beside each other in `bin`.
 */
export function systemProgram(row: {
  readonly name: string
  readonly purpose: string
  readonly version: string
  readonly probe: readonly string[]
  readonly packages: readonly string[]
  readonly files: readonly [Wanted, ...Wanted[]]
  /** How else to get them. */
  readonly elsewhere: string
}): Peer {
  const { name, purpose, version, probe, packages, files, elsewhere } = row
  return {
    name,
    purpose,
    version,
    probe,
    folder: `${name}-${version}`,
    program: join('bin', files[0].file),
    source: `${packages.join(' and ')} of this machine or of Debian`,
    async provide(folder) {
      const bin = join(folder, 'bin')
      await mkdir(bin)
      const own = await placesOf(files, '/')
      if (own) {
        for (const [index, place] of own.entries()) await symlink(place, join(bin, files[index]!.file))
        return
      }
      const unpacked = join(folder, 'unpacked')
      await unpack(packages, unpacked, elsewhere)
      const places = await placesOf(files, unpacked)
      if (!places)
        throw new CannotProvide(`${packages.join(' and ')} hold no ${files.map(({ file }) => `\`${file}\``).join(' and ')}`, elsewhere)
      for (const [index, place] of places.entries()) {
        await copyFile(place, join(bin, files[index]!.file))
        await chmod(join(bin, files[index]!.file), 0o755)
      }
      await rm(unpacked, { recursive: true })
    },
  }
}

/** Where these files are below `root`; undefined if one of them is nowhere. */
async function placesOf(files: readonly Wanted[], root: string): Promise<readonly string[] | undefined> {
  const places: string[] = []
  for (const { file, folders } of files) {
    const there = await firstThat(
      folders.map((folder) => join(root, folder, file)),
      exists,
    )
    if (there === undefined) return undefined
    places.push(there)
  }
  return places
}

async function unpack(packages: readonly string[], into: string, elsewhere: string): Promise<void> {
  const downloads = await mkdtemp(join(tmpdir(), 'vidimus-apt-'))
  try {
    await download(packages, downloads, elsewhere)
    for (const file of (await readdir(downloads)).filter((one) => one.endsWith('.deb'))) {
      const done = await run('dpkg-deb', ['-x', join(downloads, file), into], { deadlineMs: 60_000 })
      if (done.code !== 0) throw new CannotProvide(`dpkg-deb: ${lastWords(done)}`, elsewhere)
    }
  } finally {
    await rm(downloads, { recursive: true, force: true })
  }
}

/** With the machine's own lists; where it has none, as in a fresh container, with lists of ours that nobody else sees. */
async function download(packages: readonly string[], folder: string, elsewhere: string): Promise<void> {
  const settings = ['-q', '-o', `APT::Sandbox::User=${process.getuid?.() === 0 ? 'root' : ''}`]
  const apt = (args: readonly string[]) => run('apt-get', args, { cwd: folder, deadlineMs: 5 * 60_000 })
  const first = await apt([...settings, 'download', ...packages])
  if (first.code === 0) return
  if (first.failure !== undefined) throw new CannotProvide(first.failure, elsewhere)
  const lists = join(folder, 'lists')
  await mkdir(join(lists, 'partial'), { recursive: true })
  await mkdir(join(folder, 'cache', 'archives', 'partial'), { recursive: true })
  const ours = [...settings, '-o', `Dir::State::lists=${lists}`, '-o', `Dir::Cache=${join(folder, 'cache')}`]
  const update = await apt([...ours, 'update'])
  const second = update.code === 0 ? await apt([...ours, 'download', ...packages]) : update
  if (second.code !== 0) throw new CannotProvide(`apt-get: ${lastWords(second)}`, elsewhere)
}

async function firstThat<T>(all: readonly T[], test: (one: T) => Promise<boolean>): Promise<T | undefined> {
  for (const one of all) if (await test(one)) return one
  return undefined
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )
