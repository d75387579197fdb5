/** The stage: real processes, a directory for their sockets and files, and nothing left behind. */
import { spawn, type ChildProcess } from 'node:child_process'
import { copyFile, link, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../..')
const cli = join(repository, 'src/main/cli.ts')

export interface Running {
  readonly name: string
  readonly pid: number
  /** Resolves with the first line of output that `test` accepts; rejects if the process ends or `seconds` pass. */
  line(test: (line: string) => boolean, seconds?: number): Promise<string>
  onLine(listener: (line: string) => void): void
  send(line: string): void
  readonly ended: Promise<number>
  stop(): Promise<void>
}

/** Where everything of one run stands. Disposing ends what was started, newest first, and removes what was written. */
export class Stage implements AsyncDisposable {
  /** Short, because the path of a socket holds 107 bytes. */
  readonly directory: string
  readonly bin = join(repository, '.demo', 'bin')
  readonly #running: Running[] = []

  private constructor(directory: string) {
    this.directory = directory
  }

  static async open(): Promise<Stage> {
    const stage = new Stage(await mkdtemp(join(tmpdir(), 'vidimus-demo-')))
    await rm(join(repository, '.demo'), { recursive: true, force: true })
    await mkdir(stage.bin, { recursive: true })
    return stage
  }

  path(name: string): string {
    return join(this.directory, name)
  }

  async write(name: string, content: string): Promise<string> {
    await mkdir(dirname(this.path(name)), { recursive: true })
    await writeFile(this.path(name), content, { mode: 0o600 })
    return this.path(name)
  }

  /** A program under a name of its own, so that the kernel tells workloads apart without root: a hard link, or a copy where a link is not possible. */
  async runtime(name: string, program: string): Promise<string> {
    const path = join(this.bin, name)
    await rm(path, { force: true })
    try {
      await link(program, path)
      // A link to a file of another owner, or on a file system that forbids it, is refused here.
    } catch {
      await copyFile(program, path)
    }
    return path
  }

  start(name: string, program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Running {
    const running = run(name, spawn(program, args, { cwd: repository, env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'] }))
    this.#running.push(running)
    return running
  }

  startVidimus(name: string, args: readonly string[]): Running {
    return this.start(name, process.execPath, [cli, ...args])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const running of this.#running.toReversed()) await running.stop()
    await rm(this.directory, { recursive: true, force: true })
    await rm(join(repository, '.demo'), { recursive: true, force: true })
  }
}

/** Runs a command of the CLI to its end and returns what it printed as JSON; exit code 1 with a result means that the answer is no. */
export async function vidimus<T>(...args: readonly string[]): Promise<T> {
  const child = spawn(process.execPath, [cli, ...args, '--output', 'json'], { cwd: repository, stdio: ['ignore', 'pipe', 'pipe'] })
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)])
  const code = child.exitCode ?? (await new Promise<number>((done) => child.once('exit', (value) => done(value ?? 1))))
  if (code > 1 || out === '') throw new Error(`\`vidimus ${args.slice(0, 2).join(' ')}\` failed: ${err.trim()}`)
  return JSON.parse(out) as T
}

/** A TCP port of the loopback interface that is free now. */
export function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const probe = createServer()
    probe.once('error', fail)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => done(typeof address === 'object' && address ? address.port : 0))
    })
  })
}

export const readText = (path: string): Promise<string> => readFile(path, 'utf8')

function run(name: string, child: ChildProcess): Running {
  const listeners = new Set<(line: string) => void>()
  const recent: string[] = []
  let over = false
  for (const stream of [child.stdout!, child.stderr!]) {
    createInterface({ input: stream }).on('line', (line) => {
      recent.push(line)
      if (recent.length > 200) recent.shift()
      for (const listener of listeners) listener(line)
    })
  }
  const ended = new Promise<number>((done) => {
    child.once('error', () => done(127))
    child.once('exit', (code) => done(code ?? 1))
  })
  void ended.then(() => (over = true))
  return {
    name,
    pid: child.pid ?? 0,
    ended,
    onLine: (listener) => void listeners.add(listener),
    send: (line) => void child.stdin!.write(`${line}\n`),
    line(test, seconds = 20) {
      const found = recent.find(test)
      if (found !== undefined) return Promise.resolve(found)
      return new Promise((done, fail) => {
        const finish = (act: () => void) => {
          clearTimeout(timer)
          listeners.delete(listener)
          act()
        }
        const tail = () => recent.slice(-8).join('\n  ')
        const timer = setTimeout(
          () => finish(() => fail(new Error(`${name} did not get ready within ${seconds} s:\n  ${tail()}`))),
          seconds * 1000,
        )
        const listener = (line: string) => {
          if (test(line)) finish(() => done(line))
        }
        listeners.add(listener)
        void ended.then((code) => finish(() => fail(new Error(`${name} ended with code ${code}:\n  ${tail()}`))))
      })
    },
    async stop() {
      if (over) return
      child.kill('SIGTERM')
      const force = setTimeout(() => child.kill('SIGKILL'), 5000)
      await ended
      clearTimeout(force)
    },
  }
}

async function text(stream: NodeJS.ReadableStream): Promise<string> {
  const parts: Buffer[] = []
  for await (const part of stream) parts.push(part as Buffer)
  return Buffer.concat(parts).toString('utf8')
}
