import { access, mkdir, mkdtemp, readdir, rename, rm, stat, symlink } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { lastWords, run } from '../run.ts'
import { linkOf } from './find.ts'
import { CannotProvide, type Peer } from './peer.ts'
import { peers, type PeerName } from './table.ts'

export interface Provided {
  readonly name: PeerName
  /** False if it was in the cache already. */
  readonly fresh: boolean
  readonly seconds: number
}

export interface NotProvided {
  readonly name: PeerName
  readonly reason: string
  readonly remedy: string
}

/**
 * Brings a peer into the user's cache folder, unless a working one is there, and links it from `.peers`. Safe to run again
 * and beside itself: a folder appears in the cache only when it is complete, and whoever comes second uses what the first made.
 */
export async function provide(name: PeerName, progress: (line: string) => void): Promise<Provided | NotProvided> {
  const started = performance.now()
  const row: Peer = peers[name]
  try {
    const folder = join(cacheFolder(), row.folder)
    const fresh = !(await works(row, folder))
    if (fresh) await withProgress(`${name}: installing ${row.source}`, progress, () => install(row, folder))
    await link(folder, linkOf(name))
    return { name, fresh, seconds: (performance.now() - started) / 1000 }
  } catch (error) {
    const remedy = error instanceof CannotProvide ? error.remedy : `rm -rf ${join(cacheFolder(), row.folder)} && npm run peers -- ${name}`
    return { name, reason: error instanceof Error ? error.message : String(error), remedy }
  }
}

/** `$XDG_CACHE_HOME/vidimus/peers`, by default under `~/.cache`. */
export function cacheFolder(): string {
  const set = process.env['XDG_CACHE_HOME']
  return join(set !== undefined && set.startsWith('/') ? set : join(homedir(), '.cache'), 'vidimus', 'peers')
}

async function install(row: Peer, folder: string): Promise<void> {
  await mkdir(cacheFolder(), { recursive: true })
  await sweep()
  const building = await mkdtemp(join(cacheFolder(), unfinished))
  try {
    await row.provide(building)
    const proof = await probe(row, building)
    if (proof !== undefined)
      throw new CannotProvide(
        `installed ${row.source}, but \`${row.program}\` does not start: ${proof}`,
        'look for a library or processor feature that this machine lacks',
      )
    await putInPlace(row, building, folder)
  } finally {
    await rm(building, { recursive: true, force: true })
  }
}

async function putInPlace(row: Peer, building: string, folder: string): Promise<void> {
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      return await rename(building, folder)
    } catch (error) {
      if (!exists(error)) throw error
      // Somebody else was first, or what stood there does not work (we would not be here): keep the one, replace the other.
      if (await works(row, folder)) return
      await rm(folder, { recursive: true, force: true })
    }
  }
  throw new CannotProvide(`\`${folder}\` keeps changing under our hands`, `npm run peers -- ${row.name}`)
}

async function works(row: Peer, folder: string): Promise<boolean> {
  return (await probe(row, folder)) === undefined
}

/** Undefined if the program starts and ends well, else what it said. */
async function probe(row: Peer, folder: string): Promise<string | undefined> {
  const program = join(folder, row.program)
  if (
    !(await access(program).then(
      () => true,
      () => false,
    ))
  )
    return `\`${row.program}\` is not there`
  const outcome = await run(program, row.probe, { deadlineMs: 30_000 })
  return outcome.code === 0 ? undefined : lastWords(outcome)
}

/** Points the link at the folder in one step, so that a test that starts a peer meanwhile sees the old or the new. */
async function link(folder: string, at: string): Promise<void> {
  await mkdir(dirname(at), { recursive: true })
  const temporary = `${at}.${process.pid}.tmp`
  await rm(temporary, { force: true })
  await symlink(folder, temporary)
  await rename(temporary, at)
}

/** Removes what runs that were killed left behind. */
async function sweep(): Promise<void> {
  for (const entry of await readdir(cacheFolder())) {
    if (!entry.startsWith(unfinished)) continue
    const path = join(cacheFolder(), entry)
    const age = await stat(path).then(
      (info) => Date.now() - info.mtimeMs,
      () => 0,
    )
    if (age > abandonedAfterMs) await rm(path, { recursive: true, force: true })
  }
}

async function withProgress<T>(what: string, progress: (line: string) => void, work: () => Promise<T>): Promise<T> {
  const started = performance.now()
  progress(`${what} …`)
  const timer = setInterval(() => progress(`${what} … ${Math.round((performance.now() - started) / 1000)} s`), 10_000)
  try {
    return await work()
  } finally {
    clearInterval(timer)
  }
}

function exists(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOTEMPTY' || error.code === 'EEXIST')
}

const unfinished = '.building-'
/** Longer than any installation may take. */
const abandonedAfterMs = 60 * 60_000
