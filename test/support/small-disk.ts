/** A disk of a few megabytes that a test can fill, and a directory of it that nobody can write: a tmpfs in a mount namespace of its own, which needs no privilege. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { describe } from 'vitest'
import { lastWords, run } from '../../tools/run.ts'
import { describeSkipped } from './peers.ts'

export class SmallDisk implements AsyncDisposable {
  /** Where programs see it. */
  readonly directory: string
  readonly #holder: ChildProcess

  private constructor(directory: string, holder: ChildProcess) {
    this.directory = directory
    this.#holder = holder
  }

  static async open(directory: string, mebibytes: number): Promise<SmallDisk> {
    await mkdir(directory, { recursive: true })
    const script = `mount -t tmpfs -o size=${mebibytes}m,mode=700 none "$1" && echo mounted && exec cat`
    const holder = spawn('unshare', [...namespaces, 'sh', '-c', script, 'sh', directory], { stdio: ['pipe', 'pipe', 'inherit'] })
    await Promise.race([
      once(holder.stdout, 'data'),
      once(holder, 'exit').then(() => Promise.reject(new Error('a small disk cannot be mounted'))),
    ])
    return new SmallDisk(directory, holder)
  }

  /** What a program is started with to see this disk. */
  get prefix(): readonly string[] {
    return ['nsenter', '--target', String(this.#holder.pid), '--user', '--mount', '--preserve-credentials', '--']
  }

  /** The same file, from outside. */
  path(name: string): string {
    return `/proc/${this.#holder.pid}/root${join(this.directory, name)}`
  }

  /** Leaves no byte. */
  async fill(): Promise<void> {
    for (let size = 1024 * 1024; size >= 1; size = Math.floor(size / 4)) {
      for (;;) {
        try {
          await appendFile(this.path(ballast), Buffer.alloc(size))
        } catch {
          break
        }
      }
    }
  }

  async free(): Promise<void> {
    await rm(this.path(ballast), { force: true })
  }

  /** Nothing in this directory can be written, or all of it again; its content is out of sight meanwhile. */
  async coverReadOnly(name: string): Promise<void> {
    await this.#inside('mount', '-t', 'tmpfs', '-o', 'ro,mode=700', 'none', join(this.directory, name))
  }

  async uncover(name: string): Promise<void> {
    await this.#inside('umount', join(this.directory, name))
  }

  /** The whole disk, which nobody has anything open on. */
  async setReadOnly(isReadOnly: boolean): Promise<void> {
    await this.#inside('mount', '-o', `remount,${isReadOnly ? 'ro' : 'rw'}`, this.directory)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#holder, 'exit')
    this.#holder.stdin?.end()
    await ended
  }

  async #inside(...command: readonly string[]): Promise<void> {
    const [program, ...rest] = this.prefix
    const outcome = await run(program!, [...rest, ...command], { deadlineMs: 20_000 })
    if (outcome.code !== 0) throw new Error(`\`${command.join(' ')}\` failed: ${lastWords(outcome)}`)
  }
}

/** Tests that need a {@link SmallDisk}: where the machine permits none they are skipped by name. That is no counterpart which could be provided. */
export function describeWithSmallDisk(what: string, body: () => void): void {
  const isPermitted = spawnSync('unshare', [...namespaces, 'true']).status === 0
  const reason = 'this machine permits no mount namespace: `unshare --user --map-root-user --mount true` fails'
  if (isPermitted) describe(what, body)
  else describeSkipped(what, reason, body)
}

const namespaces = ['--user', '--map-root-user', '--mount'] as const
const ballast = 'ballast'
