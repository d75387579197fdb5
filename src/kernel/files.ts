import { constants } from 'node:fs'
import * as promises from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Failure } from './failure.ts'

/**
 * The disk, as far as rooms need it. Every write has reached the disk when its promise resolves.
 * @throws Failure `file.not-read`, `file.not-written`: with the place, and what the system said as cause. What was not written is not there
 *   afterwards, or as it was before; nothing that failed to reach the disk once is believed to be there later.
 */
export interface Files {
  /** The whole file, or undefined if there is none. @throws Failure `file.too-large` above 16 MiB */
  read(path: string): Promise<Uint8Array | undefined>
  /** The last `bytes` bytes of a file; none if there is no file. */
  readTail(path: string, bytes: number): Promise<Uint8Array>
  /** Replaces the file in one step, mode 0600: readers see the old content or the new, never a part. */
  writeAtomically(path: string, content: Uint8Array): Promise<void>
  /** Opens a file for appending, mode 0600, creating it. What stands beyond `keep` bytes is cut off first. */
  appendTo(path: string, options?: { readonly keep?: number }): Promise<AppendFile>
  /** The names in a directory, sorted; none if there is no directory. @throws Failure `directory.too-full` above 100,000 */
  list(directory: string): Promise<readonly string[]>
  /** Gives a file another name in the same directory, replacing what had it. */
  rename(path: string, to: string): Promise<void>
  remove(path: string): Promise<void>
  /**
   * Makes a directory that only its owner can enter (0700), or checks that it is one. What a write left there that was killed is removed:
   * a private key may be in it.
   * @throws Failure `directory.loose-permissions`, `directory.not-a-directory`
   */
  privateDirectory(path: string): Promise<void>
}

export interface AppendFile extends AsyncDisposable {
  /** Of what was appended whole, in bytes. */
  readonly size: number
  /** The bytes are on the disk when this resolves (fsync). If it fails, none of them stays: one append is never half there. */
  append(content: Uint8Array): Promise<void>
}

/** What this file asks of the system: the seam below it, where a test puts a disk that fails. */
export interface FileSystem {
  open(path: string, flags: number, mode?: number): Promise<OpenFile>
  lstat(path: string): Promise<{ readonly size: number; readonly mode: number; isDirectory(): boolean }>
  readFile(path: string): Promise<Uint8Array>
  readdir(path: string): Promise<string[]>
  mkdir(path: string, options: { readonly recursive: true; readonly mode: number }): Promise<unknown>
  rename(path: string, to: string): Promise<void>
  rm(path: string, options: { readonly force: true }): Promise<void>
}

export type OpenFile = Pick<promises.FileHandle, 'write' | 'read' | 'stat' | 'sync' | 'truncate' | 'close'>

/** The disk over a file system. Two processes do not write in one directory at a time. */
export function filesOver(fs: FileSystem): Files {
  return {
    read: (path) =>
      reading(path, undefined, async () => {
        const { size } = await fs.lstat(path)
        if (size > maxFileBytes) {
          throw new Failure('failed_precondition', 'file.too-large', {
            public: `\`${path}\` holds ${size} bytes: at most ${maxFileBytes} are read`,
          })
        }
        return fs.readFile(path)
      }),

    readTail: (path, bytes) =>
      reading(path, new Uint8Array(), () =>
        opened(fs, path, constants.O_RDONLY, async (file) => {
          const { size } = await file.stat()
          const buffer = Buffer.alloc(Math.min(size, bytes))
          const from = size - buffer.length
          let filled = 0
          while (filled < buffer.length) {
            const { bytesRead } = await file.read(buffer, filled, buffer.length - filled, from + filled)
            if (bytesRead === 0) break
            filled += bytesRead
          }
          return buffer.subarray(0, filled)
        }),
      ),

    writeAtomically: (path, content) =>
      writing(path, async () => {
        const folder = dirname(path)
        const temporary = join(folder, `.${basename(path)}.${process.pid}.${++writes}.tmp`)
        try {
          await opened(fs, temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, async (file) => {
            await writeAll(file, content)
            await file.sync()
          })
          await fs.rename(temporary, path)
        } catch (error) {
          // What stays behind where this fails too goes when the directory is opened next.
          await fs.rm(temporary, { force: true }).catch(() => {})
          throw error
        }
        await syncDirectory(fs, folder)
      }),

    appendTo: (path, { keep = Infinity } = {}) =>
      writing(path, async () => {
        const isNew = await fs.lstat(path).then(() => false, isMissing)
        // O_DSYNC: a write returns when its bytes are on the disk, so that writing and syncing are one way to another thread and back.
        const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | constants.O_NOFOLLOW | constants.O_DSYNC
        const file = await fs.open(path, flags, 0o600)
        try {
          if (isNew) await syncDirectory(fs, dirname(path))
          const { size } = await file.stat()
          if (size > keep) await file.truncate(keep)
          return appendFile(path, file, Math.min(size, keep))
        } catch (error) {
          await file.close().catch(() => {})
          // A name that may be lost in a power cut must not be found by the next try, which would take it for safe.
          if (isNew) await fs.rm(path, { force: true }).catch(() => {})
          throw error
        }
      }),

    list: (directory) =>
      reading(directory, [], async () => {
        const names = await fs.readdir(directory)
        if (names.length <= maxListed) return names.toSorted()
        throw new Failure('failed_precondition', 'directory.too-full', {
          public: `\`${directory}\` holds ${names.length} files: at most ${maxListed} are looked at`,
        })
      }),

    rename: (path, to) =>
      writing(to, async () => {
        await fs.rename(path, to)
        await syncDirectory(fs, dirname(to))
      }),

    remove: (path) => writing(path, () => fs.rm(path, { force: true })),

    async privateDirectory(path) {
      await writing(path, () => fs.mkdir(path, { recursive: true, mode: 0o700 }))
      const info = await reading(path, undefined, () => fs.lstat(path))
      if (!info?.isDirectory()) {
        throw new Failure('failed_precondition', 'directory.not-a-directory', {
          public: `\`${path}\` is not a directory: choose another path or remove it`,
        })
      }
      const mode = info.mode & 0o777
      if ((mode & 0o077) !== 0) {
        throw new Failure('failed_precondition', 'directory.loose-permissions', {
          public: `\`${path}\` can be entered by others (mode ${mode.toString(8).padStart(4, '0')}): expected 0700; run \`chmod 700 ${path}\``,
        })
      }
      const names = await reading(path, [], () => fs.readdir(path))
      for (const name of names) if (unfinished.test(name)) await writing(path, () => fs.rm(join(path, name), { force: true }))
    },
  }
}

export const systemFiles: Files = filesOver(promises)

function appendFile(path: string, file: OpenFile, length: number): AppendFile {
  let size = length
  let torn = false
  const mend = async () => {
    if (torn) await file.truncate(size)
    torn = false
  }
  return {
    get size() {
      return size
    },
    append: (content) =>
      writing(path, async () => {
        await mend()
        try {
          await writeAll(file, content)
        } catch (error) {
          torn = true
          // Where this fails too, the next append tries it again before it writes.
          await mend().catch(() => {})
          throw error
        }
        size += content.length
      }),
    [Symbol.asyncDispose]: () => file.close(),
  }
}

/** A disk that is nearly full takes a part, and says so by a number. */
async function writeAll(file: OpenFile, content: Uint8Array): Promise<void> {
  for (let written = 0; written < content.length;) {
    const { bytesWritten } = await file.write(content, written)
    if (bytesWritten === 0) throw new Error('the disk takes nothing and does not say why')
    written += bytesWritten
  }
}

async function syncDirectory(fs: FileSystem, path: string): Promise<void> {
  await opened(fs, path, constants.O_RDONLY, (folder) => folder.sync())
}

async function opened<T>(fs: FileSystem, path: string, flags: number, use: (file: OpenFile) => Promise<T>): Promise<T> {
  const file = await fs.open(path, flags, 0o600)
  try {
    return await use(file)
  } finally {
    await file.close()
  }
}

async function reading<T>(path: string, missing: T, read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (cause) {
    if (isMissing(cause)) return missing
    if (cause instanceof Failure) throw cause
    throw new Failure('unavailable', 'file.not-read', { public: `\`${path}\` cannot be read`, cause })
  }
}

async function writing<T>(path: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write()
  } catch (cause) {
    throw new Failure('unavailable', 'file.not-written', { public: `\`${path}\` cannot be written`, cause })
  }
}

/** True for "no such file or directory". */
export function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}

let writes = 0
/** What `writeAtomically` names a file that is not whole yet. */
const unfinished = /^\..+\.[0-9]+\.[0-9]+\.tmp$/
const maxFileBytes = 16 * 1024 * 1024
const maxListed = 100_000
