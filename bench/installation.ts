/** A server and an agent as they are released: the compiled programs, as processes, in a directory of their own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { deadline } from '../src/kernel/clock.ts'
import { hours, minutes, seconds } from '../src/kernel/duration.ts'
import { Failure } from '../src/kernel/failure.ts'
import { parseSpiffeId, type SpiffeId } from '../src/spiffe/id.ts'
import { formatBundlePem } from '../src/spiffe/bundle-document.ts'
import { selector } from '../src/spiffe/selector.ts'
import { type AdminClient, connectAdmin } from '../src/server-api/client.ts'

/** A program that said it is ready. */
export interface Program {
  readonly pid: number
  /** On the clock of `performance.now()`. */
  readonly startedAt: number
  /** The line that it said so with. */
  readonly readyLine: string
  stop(): Promise<void>
}

/** The identity that this process has at the agent of an {@link Installation}. */
export const ownId = parseSpiffeId('spiffe://bench.test/ns/shop/sa/orders')

/** Disposing ends the programs and removes what they wrote. */
export class Installation implements AsyncDisposable {
  readonly #directory: string
  /** The compiled program. */
  readonly cli: string
  readonly #owned = new AsyncDisposableStack()
  /** Where the server listens. */
  readonly port: number

  private constructor(directory: string, cli: string, port: number) {
    this.#directory = directory
    this.cli = cli
    this.port = port
    this.#owned.defer(() => rm(directory, { recursive: true, force: true }))
  }

  /** Nothing runs yet. */
  static async open(): Promise<Installation> {
    const cli = await compiledCli()
    return new Installation(await mkdtemp(join(tmpdir(), 'vidimus-bench-')), cli, await freePort())
  }

  path(name: string): string {
    return join(this.#directory, name)
  }

  /** Starts a server on new data; `name` tells several of one installation apart. */
  async startServer(name = 'server', port = this.port): Promise<Program & { readonly admin: AdminClient; readonly socket: string }> {
    const socket = this.path(`${name}.d/api.sock`)
    const config = await this.#write(
      `${name}.yaml`,
      `trustDomain: bench.test\ndataDirectory: ${this.path(name)}\nadminSocket: ${socket}\nlisten: { host: 127.0.0.1, port: ${port} }\nlog: { format: json }\n`,
    )
    const program = await this.#start(['server', 'run', '--config', config], '"server ready"')
    return { ...program, socket, admin: this.#owned.use(connectAdmin(socket)) }
  }

  /** Starts an agent that joins with a new token. */
  async startAgent(admin: AdminClient, name = 'agent'): Promise<Program & { readonly id: SpiffeId; readonly socket: string }> {
    const socket = this.path(`${name}.sock`)
    const { token } = await admin.tokens.create({ ttl: minutes(10) }, deadline(seconds(10)))
    const config = await this.#write(
      `${name}.yaml`,
      `trustDomain: bench.test\ndataDirectory: ${this.path(name)}\nsocket: ${socket}\nadminSocket: ${this.path(`${name}.d/admin.sock`)}\n` +
        `server: { host: 127.0.0.1, port: ${this.port} }\ntrustBundle: ${await this.writeBundle(admin)}\n` +
        `joinToken: { file: ${await this.#write(`${name}.token`, token.reveal())} }\nsyncInterval: 1s\nlog: { format: json }\n`,
    )
    const program = await this.#start(['agent', 'run', '--config', config], '"agent ready"')
    return { ...program, id: spiffeIdIn(program.readyLine), socket }
  }

  /** A server and an agent at which this process is {@link ownId}. */
  async startBoth() {
    const server = await this.startServer()
    const agent = await this.startAgent(server.admin)
    await registerThisProcess(server.admin, agent.id)
    return { server, agent }
  }

  /** The server's trust bundle as a file. */
  async writeBundle(admin: AdminClient): Promise<string> {
    return this.#write('bundle.pem', formatBundlePem(await admin.bundle.find(deadline(seconds(10)))))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#owned.disposeAsync()
  }

  async #write(name: string, text: string): Promise<string> {
    await writeFile(this.path(name), text, { mode: 0o600 })
    return this.path(name)
  }

  async #start(args: readonly string[], ready: string): Promise<Program> {
    const startedAt = performance.now()
    const child = spawn(
      process.execPath,
      [...(process.env['PROF'] ? ['--cpu-prof', '--cpu-prof-dir=/tmp/polprof'] : []), this.cli, ...args],
      { cwd: this.#directory, stdio: ['ignore', 'pipe', 'pipe'] },
    )
    const stop = () => end(child)
    this.#owned.defer(stop)
    const readyLine = await lineWith(child, ready)
    return { pid: child.pid ?? 0, startedAt, readyLine, stop }
  }
}

/** Says that processes of our user are {@link ownId}. */
export async function registerThisProcess(admin: AdminClient, agentId: SpiffeId): Promise<void> {
  const draft = {
    spiffeId: ownId,
    parentId: agentId,
    selectors: [selector('unix', `uid:${process.getuid?.() ?? 0}`)],
    x509SvidTtl: hours(1),
    jwtSvidTtl: minutes(5),
    dnsNames: [],
    federatesWith: [],
    hint: '',
    admin: false,
    downstream: false,
    storeSvid: false,
    disableX509SvidPrefetch: false,
    jwtSvidIncludeJti: false,
  }
  const [outcome] = await admin.entries.create([draft], deadline(seconds(10)))
  if (outcome instanceof Failure) throw outcome
}

/** Asks again for a while: what was just registered takes a moment to reach the agent. */
export async function eventually<T>(ask: () => Promise<T>): Promise<T> {
  for (const until = performance.now() + 20_000; ;) {
    try {
      return await ask()
    } catch (error) {
      if (performance.now() > until) throw error
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}

let compiled: Promise<string> | undefined

/** The compiled program; built anew, once a run, where a source is younger. */
function compiledCli(): Promise<string> {
  compiled ??= compile()
  return compiled
}

async function compile(): Promise<string> {
  const repository = dirname(dirname(fileURLToPath(import.meta.url)))
  const cli = join(repository, 'dist/bin/cli.js')
  const built = await stat(cli).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0,
  )
  if (built < (await youngest(join(repository, 'src')))) {
    console.error('compiling dist')
    const build = spawn('npm', ['run', '--silent', 'build'], { cwd: repository, stdio: ['ignore', 2, 2] })
    const code = await new Promise((resolve) => build.once('error', resolve).once('close', resolve))
    if (code !== 0) throw new Error('`npm run build` failed')
  }
  return cli
}

async function youngest(directory: string): Promise<number> {
  const files = await readdir(directory, { recursive: true, withFileTypes: true })
  const times = files.filter((file) => file.isFile()).map((file) => stat(join(file.parentPath, file.name)))
  return Math.max(...(await Promise.all(times)).map(({ mtimeMs }) => mtimeMs))
}

function lineWith(child: ChildProcess, text: string): Promise<string> {
  const seen: string[] = []
  return new Promise((resolve, reject) => {
    const fail = (problem: string) => reject(new Error(`${problem}:\n  ${seen.slice(-8).join('\n  ')}`))
    const timer = setTimeout(() => fail('a program did not get ready within 20 s'), 20_000)
    for (const stream of [child.stdout, child.stderr]) {
      if (!stream) continue
      createInterface({ input: stream }).on('line', (line) => {
        if (seen.push(line) > 100) seen.shift()
        if (!line.includes(text)) return
        clearTimeout(timer)
        resolve(line)
      })
    }
    child.once('error', (error) => fail(error.message))
    child.once('close', (code) => {
      clearTimeout(timer)
      fail(`a program ended with code ${code}`)
    })
  })
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const force = setTimeout(() => child.kill('SIGKILL'), 5000)
  await ended
  clearTimeout(force)
}

function spiffeIdIn(line: string): SpiffeId {
  const { spiffeId } = JSON.parse(line) as { readonly spiffeId?: string }
  return parseSpiffeId(spiffeId ?? '')
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address ? address.port : 0))
    })
  })
}
