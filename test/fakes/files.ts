import { concat } from '../../src/kernel/bytes.ts'
import type { Files } from '../../src/kernel/files.ts'

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
