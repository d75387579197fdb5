import { constants } from 'node:fs'
import { type FileHandle, lstat, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Failure } from './failure.ts'

/** The disk, as far as rooms need it. Every write has reached the disk when its promise resolves. */
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
   * Makes a directory that only its owner can enter (0700), or checks that it is one.
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

export const systemFiles: Files = {
  async read(path) {
    try {
      const info = await lstat(path)
      if (info.size > maxFileBytes) {
        throw new Failure('failed_precondition', 'file.too-large', {
          public: `\`${path}\` holds ${info.size} bytes: at most ${maxFileBytes} are read`,
        })
      }
      return await readFile(path)
    } catch (error) {
      if (isMissing(error)) return undefined
      throw error
    }
  },

  async readTail(path, bytes) {
    try {
      await using file = await open(path, constants.O_RDONLY)
      const { size } = await file.stat()
      const buffer = Buffer.alloc(Math.min(size, bytes))
      await file.read(buffer, 0, buffer.length, size - buffer.length)
      return buffer
    } catch (error) {
      if (isMissing(error)) return new Uint8Array()
      throw error
    }
  },

  async writeAtomically(path, content) {
    const folder = dirname(path)
    const temporary = join(folder, `.${basename(path)}.${process.pid}.${++writes}.tmp`)
    try {
      const file = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600)
      try {
        await file.writeFile(content)
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(temporary, path)
    } catch (error) {
      await rm(temporary, { force: true })
      throw error
    }
    await syncDirectory(folder)
  },

  async appendTo(path, { keep = Infinity } = {}) {
    const isNew = await lstat(path).then(() => false, isMissing)
    // O_DSYNC: a write returns when its bytes are on the disk, so that writing and syncing are one way to another thread and back.
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | constants.O_NOFOLLOW | constants.O_DSYNC
    const file = await open(path, flags, 0o600)
    try {
      if (isNew) await syncDirectory(dirname(path))
      const { size } = await file.stat()
      if (size > keep) await file.truncate(keep)
      return appendFile(file, Math.min(size, keep))
    } catch (error) {
      await file.close()
      throw error
    }
  },

  async list(directory) {
    const names = await readdir(directory).catch((error: unknown): string[] => {
      if (isMissing(error)) return []
      throw error
    })
    if (names.length <= maxListed) return names.toSorted()
    throw new Failure('failed_precondition', 'directory.too-full', {
      public: `\`${directory}\` holds ${names.length} files: at most ${maxListed} are looked at`,
    })
  },

  async rename(path, to) {
    await rename(path, to)
    await syncDirectory(dirname(to))
  },

  async remove(path) {
    await rm(path, { force: true })
  },

  async privateDirectory(path) {
    await mkdir(path, { recursive: true, mode: 0o700 })
    const info = await lstat(path)
    if (!info.isDirectory()) {
      throw new Failure('failed_precondition', 'directory.not-a-directory', {
        public: `\`${path}\` is not a directory: choose another path or remove it`,
      })
    }
    const mode = info.mode & 0o777
    if ((mode & 0o077) === 0) return
    throw new Failure('failed_precondition', 'directory.loose-permissions', {
      public: `\`${path}\` can be entered by others (mode ${mode.toString(8).padStart(4, '0')}): expected 0700; run \`chmod 700 ${path}\``,
    })
  },
}

function appendFile(file: FileHandle, length: number): AppendFile {
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
    async append(content) {
      await mend()
      try {
        for (let written = 0; written < content.length;) written += (await file.write(content, written)).bytesWritten
      } catch (error) {
        torn = true
        // Where this fails too, the next append tries it again before it writes.
        await mend().catch(() => {})
        throw error
      }
      size += content.length
    },
    [Symbol.asyncDispose]: () => file.close(),
  }
}

/** True for "no such file or directory". */
export function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}

async function syncDirectory(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

let writes = 0
const maxFileBytes = 16 * 1024 * 1024
const maxListed = 100_000
