import { constants } from 'node:fs'
import * as promises from 'node:fs/promises'
import { type Files, type FileSystem, filesOver, type OpenFile } from '../../src/kernel/files.ts'

export type Errno = 'ENOSPC' | 'EIO' | 'EROFS'
/** What is asked of a file system. `sync` is of files and directories alike. */
export type Step = 'open' | 'write' | 'sync' | 'truncate' | 'rename' | 'remove' | 'read'

export interface Fault {
  readonly code: Errno
  /** Which steps fail; all but reading when left out, as on a full, a read-only or a dying disk. */
  readonly on?: readonly Step[]
  /** Only what lies here. */
  readonly under?: string
  /** Only the n-th of these steps, counted from when the fault was set. */
  readonly nth?: number
  /** How much of a write arrives before it fails: `half` is told by a short count first, `all` is in memory and never reaches the disk. */
  readonly arrives?: 'nothing' | 'half' | 'all'
}

/**
 * The real file system of this machine, below the real driver, where single steps fail. What fails to reach the disk once is never believed to be there.
 * Nothing is really synced: no test cuts the power, and none is to wait for a busy disk.
 */
export class FaultyDisk implements FileSystem {
  readonly files: Files = filesOver(this)
  /** What the driver did that no disk forgives: syncing again, or giving a name to, what could not be synced. */
  readonly sins: string[] = []
  /** Every step that was asked for since the fault was set, failed or not. */
  readonly steps: string[] = []
  #fault: Fault | undefined
  #count = 0
  #hasFailed = false
  readonly #unsynced = new Set<string>()

  get fault(): Fault | undefined {
    return this.#fault
  }

  set fault(fault: Fault | undefined) {
    this.#fault = fault
    this.#count = 0
    this.#hasFailed = false
    this.steps.length = 0
  }

  /** True when something failed since the fault was set. */
  get hasFailed(): boolean {
    return this.#hasFailed
  }

  async open(path: string, flags: number, mode?: number): Promise<OpenFile> {
    if ((flags & (constants.O_WRONLY | constants.O_RDWR)) !== 0) this.#demand('open', path)
    const file = await promises.open(path, flags & ~constants.O_DSYNC, mode)
    let isShort = false
    const write = async (content: Uint8Array, offset = 0) => {
      const fault = this.#meets('write', path)
      if (!fault || fault.arrives === 'nothing' || fault.arrives === undefined) {
        if (fault) throw errno(fault)
        return file.write(content, offset)
      }
      const rest = content.length - offset
      if (fault.arrives === 'all') await file.write(content, offset)
      else if (!isShort && rest > 1) {
        isShort = true
        return file.write(content, offset, Math.floor(rest / 2))
      }
      isShort = false
      throw errno(fault)
    }
    return {
      write: write as OpenFile['write'],
      read: (async (buffer: Uint8Array, offset: number, length: number, position: number) => {
        this.#demand('read', path)
        return file.read(buffer, offset, length, position)
      }) as OpenFile['read'],
      stat: file.stat.bind(file),
      sync: async () => {
        if (this.#unsynced.has(path)) this.sins.push(`synced again: ${path}`)
        if (this.#meets('sync', path)) {
          const isDirectory = (await file.stat()).isDirectory()
          if (!isDirectory) this.#unsynced.add(path)
          throw errno(this.#fault!)
        }
      },
      truncate: async (length) => {
        this.#demand('truncate', path)
        await file.truncate(length)
      },
      close: () => file.close(),
    }
  }

  async rename(path: string, to: string): Promise<void> {
    if (this.#unsynced.has(path)) this.sins.push(`named, but never synced: ${path}`)
    this.#demand('rename', path)
    await promises.rename(path, to)
  }

  async rm(path: string, options: { readonly force: true }): Promise<void> {
    this.#demand('remove', path)
    await promises.rm(path, options)
    this.#unsynced.delete(path)
  }

  async readFile(path: string): Promise<Uint8Array> {
    this.#demand('read', path)
    return promises.readFile(path)
  }

  lstat = (path: string) => promises.lstat(path)
  readdir = (path: string) => promises.readdir(path)
  mkdir = (path: string, options: { readonly recursive: true; readonly mode: number }) => promises.mkdir(path, options)

  #demand(step: Step, path: string): void {
    const fault = this.#meets(step, path)
    if (fault) throw errno(fault)
  }

  #meets(step: Step, path: string): Fault | undefined {
    const fault = this.#fault
    if (!fault || !path.startsWith(fault.under ?? '') || !(fault.on ?? changing).includes(step)) return undefined
    this.steps.push(step)
    if (fault.nth !== undefined && ++this.#count !== fault.nth) return undefined
    this.#hasFailed = true
    return fault
  }
}

const errno = ({ code }: Fault): Error => Object.assign(new Error(`${code}: the disk of the test`), { code })
const changing: readonly Step[] = ['open', 'write', 'sync', 'truncate', 'rename', 'remove']
