import { concat } from '../../src/kernel/bytes.ts'
import { type AppendFile, type Files, systemFiles } from '../../src/kernel/files.ts'

/** A disk in memory that can be full, broken or read-only for a while. What was written stays when whoever wrote it is gone. */
export class FakeFiles implements Files {
  /** The errno of every write from now on; undefined for a disk that is well. */
  fault: 'ENOSPC' | 'EIO' | 'EROFS' | undefined
  readonly contents = new Map<string, Uint8Array>()

  async read(path: string): Promise<Uint8Array | undefined> {
    return this.contents.get(path)
  }

  async readTail(path: string, bytes: number): Promise<Uint8Array> {
    return (this.contents.get(path) ?? new Uint8Array()).slice(-bytes)
  }

  async list(directory: string): Promise<readonly string[]> {
    const prefix = `${directory}/`
    return [...this.contents.keys()]
      .filter((path) => path.startsWith(prefix) && !path.slice(prefix.length).includes('/'))
      .map((path) => path.slice(prefix.length))
      .sort()
  }

  async writeAtomically(path: string, content: Uint8Array): Promise<void> {
    this.#demandWell()
    this.contents.set(path, content)
  }

  async rename(path: string, to: string): Promise<void> {
    this.#demandWell()
    this.contents.set(to, this.contents.get(path)!)
    this.contents.delete(path)
  }

  async appendTo(path: string, { keep = Infinity }: { readonly keep?: number } = {}) {
    this.#demandWell()
    let held: Uint8Array = (this.contents.get(path) ?? new Uint8Array()).slice(0, keep)
    this.contents.set(path, held)
    return {
      get size() {
        return held.length
      },
      append: async (content: Uint8Array) => {
        this.#demandWell()
        held = concat([held, content])
        this.contents.set(path, held)
      },
      async [Symbol.asyncDispose]() {},
    }
  }

  async remove(path: string): Promise<void> {
    this.contents.delete(path)
  }

  async privateDirectory(): Promise<void> {}

  #demandWell(): void {
    if (this.fault) throw Object.assign(new Error(`${this.fault}: the disk of the test`), { code: this.fault })
  }
}

/** The real disk, where writes fail: all of those below a path, or the n-th from now on. Reading goes on, as on a full or a read-only disk. */
export class FaultyFiles implements Files {
  fault: { readonly code: 'ENOSPC' | 'EIO' | 'EROFS'; readonly under?: string; readonly nth?: number } | undefined
  #writes = 0

  /** Fails the n-th write from now, and no other. */
  failOnce(code: 'ENOSPC' | 'EIO' | 'EROFS', nth: number): void {
    this.#writes = 0
    this.fault = { code, nth }
  }

  /** True when a write failed at `nth`. */
  get hasFailed(): boolean {
    return this.fault?.nth !== undefined && this.#writes >= this.fault.nth
  }

  read(path: string): Promise<Uint8Array | undefined> {
    return systemFiles.read(path)
  }

  readTail(path: string, bytes: number): Promise<Uint8Array> {
    return systemFiles.readTail(path, bytes)
  }

  list(directory: string): Promise<readonly string[]> {
    return systemFiles.list(directory)
  }

  async writeAtomically(path: string, content: Uint8Array): Promise<void> {
    this.#demandWell(path)
    await systemFiles.writeAtomically(path, content)
  }

  async rename(path: string, to: string): Promise<void> {
    this.#demandWell(path)
    await systemFiles.rename(path, to)
  }

  async remove(path: string): Promise<void> {
    this.#demandWell(path)
    await systemFiles.remove(path)
  }

  async privateDirectory(path: string): Promise<void> {
    this.#demandWell(path)
    await systemFiles.privateDirectory(path)
  }

  async appendTo(path: string, options?: { readonly keep?: number }): Promise<AppendFile> {
    this.#demandWell(path)
    const file = await systemFiles.appendTo(path, options)
    return {
      get size() {
        return file.size
      },
      append: async (content) => {
        this.#demandWell(path)
        await file.append(content)
      },
      [Symbol.asyncDispose]: () => file[Symbol.asyncDispose](),
    }
  }

  #demandWell(path: string): void {
    this.#writes++
    if (!this.fault) return
    const { code, under = '', nth } = this.fault
    if (!path.startsWith(under) || (nth !== undefined && nth !== this.#writes)) return
    throw Object.assign(new Error(`${code}: the disk of the test`), { code })
  }
}
