/** Our own server and agent as an operator runs them: child processes with a configuration file, in a folder that goes when they do. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { Failure } from '../../src/kernel/failure.ts'
import { seconds } from '../../src/kernel/duration.ts'
import type { EntryDraft, RegistrationEntry } from '../../src/registry/entry.ts'
import { type AdminClient, connectAdmin } from '../../src/server-api/client.ts'
import { formatBundlePem } from '../../src/spiffe/bundle-document.ts'
import { parseSpiffeId, type SpiffeId } from '../../src/spiffe/id.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { repository } from '../../tools/peers/source.ts'
import { lastWords, run } from '../../tools/run.ts'

export const trustDomain = 'example.org'

/** The SPIFFE ID of a path in the trust domain of the tests. */
export const idOf = (path: string): SpiffeId => parseSpiffeId(`spiffe://${trustDomain}${path}`)

/** What a test wants in an entry; the rest is empty. */
export interface EntryWish extends Partial<Omit<EntryDraft, 'spiffeId' | 'parentId' | 'selectors'>> {
  readonly spiffeId: SpiffeId
  /** As text: `unix:uid:0`. */
  readonly selectors: readonly string[]
}

/** A folder of its own for every test file, with a short path: the path of a socket holds 107 bytes. */
export class Installation implements AsyncDisposable {
  readonly directory: string
  readonly #programs: Program[] = []
  #count = 0

  private constructor(directory: string) {
    this.directory = directory
  }

  static async open(): Promise<Installation> {
    return new Installation(await mkdtemp(join(tmpdir(), 'vd-')))
  }

  path(name: string): string {
    return join(this.directory, name)
  }

  /** Writes a file that only we can read, and returns its path. */
  async write(name: string, content: string): Promise<string> {
    await mkdir(dirname(this.path(name)), { recursive: true })
    await writeFile(this.path(name), content, { mode: 0o600 })
    return this.path(name)
  }

  /**
   * Starts a server, by default as configured for everybody, and resolves when it is ready. `settings` are laid over its configuration;
   * `prefix` is the command that runs it.
   */
  async server(settings: object = {}, prefix: readonly string[] = []): Promise<ServerProgram> {
    const name = this.#name('server')
    const adminSocket = this.path(`${name}.sock`)
    const port = await freePort()
    const written = {
      trustDomain,
      dataDirectory: this.path(name),
      adminSocket,
      listen: { host: '127.0.0.1', port },
      log: { format: 'json' },
      ...settings,
    }
    const server = new ServerProgram(
      name,
      ['server', 'run', '--config', await this.write(`${name}.yaml`, JSON.stringify(written))],
      adminSocket,
      port,
      prefix,
    )
    this.#programs.push(server)
    await server.start()
    return server
  }

  /** Starts an agent that joins `server` with a fresh token, and resolves when it is ready. `settings` and `prefix` are as for a server. */
  async agent(server: ServerProgram, settings: object = {}, prefix: readonly string[] = []): Promise<AgentProgram> {
    const name = this.#name('agent')
    const [socket, adminSocket] = [this.path(`${name}.sock`), this.path(`${name}-admin.sock`)]
    const written = {
      trustDomain,
      dataDirectory: this.path(name),
      socket,
      adminSocket,
      server: { host: '127.0.0.1', port: server.port },
      trustBundle: await this.write(`${name}-bundle.pem`, await server.bundlePem()),
      joinToken: { file: await this.write(`${name}-token`, await server.joinToken()) },
      syncInterval: '1s',
      log: { format: 'json' },
      ...settings,
    }
    const agent = new AgentProgram(
      name,
      ['agent', 'run', '--config', await this.write(`${name}.yaml`, JSON.stringify(written))],
      socket,
      adminSocket,
      prefix,
    )
    this.#programs.push(agent)
    await agent.start()
    return agent
  }

  /** Ends what was started, newest first, and removes what was written. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs.toReversed()) await program[Symbol.asyncDispose]()
    await rm(this.directory, { recursive: true, force: true })
  }

  #name(kind: string): string {
    return `${kind}${++this.#count}`
  }
}

/** One program: it can be stopped as systemd would, killed as a power cut would, and started again on the same data. */
export class Program implements AsyncDisposable {
  readonly name: string
  readonly #args: readonly string[]
  readonly #readyMessage: string
  readonly #lines: string[] = []
  readonly #listeners = new Set<() => void>()
  #child: ChildProcess | undefined

  constructor(name: string, args: readonly string[], readyMessage: string, prefix: readonly string[] = []) {
    this.name = name
    this.#args = [...prefix, process.execPath, cli, ...args]
    this.#readyMessage = readyMessage
  }

  /** @throws Error with the last lines of its log if it ends, or is not ready within 30 s */
  async start(): Promise<void> {
    this.#lines.length = 0
    const [command, ...args] = this.#args
    const child = spawn(command!, args, { cwd: repository, stdio: ['ignore', 'pipe', 'pipe'] })
    this.#child = child
    for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', (line) => this.#note(line))
    child.once('close', () => this.#listeners.forEach((listener) => listener()))
    await this.logged(this.#readyMessage)
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** The end of its log, a line an entry. */
  get log(): readonly string[] {
    return this.#lines
  }

  /** Resolves with the first line since it was started that carries this message or text. */
  async logged(text: string, timeoutMs = 30_000): Promise<string> {
    const until = Date.now() + timeoutMs
    for (;;) {
      const found = this.#lines.find((line) => line.includes(text))
      if (found !== undefined) return found
      if (this.#isOver())
        throw new Error(`${this.name} ended with ${this.#child?.exitCode ?? this.#child?.signalCode}: ${this.#lastWords()}`)
      if (Date.now() >= until) throw new Error(`${this.name} did not log \`${text}\` within ${timeoutMs} ms: ${this.#lastWords()}`)
      await this.#newsBefore(until)
    }
  }

  /** Ends it as systemd does, and by force when that takes longer than 15 s. Resolves with its exit code; undefined if a signal ended it. */
  async stop(): Promise<number | undefined> {
    return this.#end('SIGTERM')
  }

  /** Ends it without a chance to tidy up. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end('SIGTERM')
  }

  async #end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | undefined> {
    const child = this.#child
    if (!child) return undefined
    if (!this.#isOver()) {
      const closed = once(child, 'close')
      child.kill(signal)
      const force = setTimeout(() => child.kill('SIGKILL'), 15_000)
      await closed
      clearTimeout(force)
    }
    return child.exitCode ?? undefined
  }

  #isOver(): boolean {
    return this.#child === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  #note(line: string): void {
    this.#lines.push(line)
    if (this.#lines.length > maxLines) this.#lines.shift()
    this.#listeners.forEach((listener) => listener())
  }

  #newsBefore(until: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#listeners.delete(done)
        resolve()
      }
      const timer = setTimeout(done, Math.max(0, until - Date.now()))
      this.#listeners.add(done)
    })
  }

  #lastWords(): string {
    return this.#lines.slice(-20).join('\n  ')
  }
}

export class ServerProgram extends Program {
  readonly adminSocket: string
  readonly port: number

  constructor(name: string, args: readonly string[], adminSocket: string, port: number, prefix: readonly string[] = []) {
    super(name, args, '"server ready"', prefix)
    this.adminSocket = adminSocket
    this.port = port
  }

  get address(): string {
    return `127.0.0.1:${this.port}`
  }

  /** Asks the server on its private socket, as its operator. */
  async asOperator<T>(deed: (admin: AdminClient, signal: AbortSignal) => Promise<T>): Promise<T> {
    await using admin = connectAdmin(this.adminSocket)
    return await deed(admin, AbortSignal.timeout(30_000))
  }

  bundlePem(): Promise<string> {
    return this.asOperator(async ({ bundle }, signal) => formatBundlePem(await bundle.find(signal)))
  }

  joinToken(): Promise<string> {
    return this.asOperator(async ({ tokens }, signal) => (await tokens.create({ ttl: seconds(600) }, signal)).token.reveal())
  }

  /** Creates entries under `parentId`, usually an agent's identity. @throws the first Failure among the outcomes */
  async entries(parentId: SpiffeId, ...wishes: readonly EntryWish[]): Promise<readonly RegistrationEntry[]> {
    const drafts = wishes.map(({ selectors, ...wish }): EntryDraft => ({
      ...emptyEntry,
      parentId,
      ...wish,
      selectors: selectors.map(parseSelector),
    }))
    const outcomes = await this.asOperator(({ entries }, signal) => entries.create(drafts, signal))
    return outcomes.map((outcome) => {
      if (outcome instanceof Failure) throw outcome
      return outcome.entry
    })
  }

  async removeEntries(ids: readonly string[]): Promise<void> {
    const outcomes = await this.asOperator(({ entries }, signal) => entries.remove(ids, signal))
    for (const outcome of outcomes) if (outcome) throw outcome
  }
}

export class AgentProgram extends Program {
  readonly socket: string
  readonly adminSocket: string

  constructor(name: string, args: readonly string[], socket: string, adminSocket: string, prefix: readonly string[] = []) {
    super(name, args, '"agent ready"', prefix)
    this.socket = socket
    this.adminSocket = adminSocket
  }

  /** What `SPIFFE_ENDPOINT_SOCKET` holds. */
  get address(): string {
    return `unix://${this.socket}`
  }

  /** Its identity, the parent of the entries for its workloads. */
  async spiffeId(): Promise<SpiffeId> {
    const { spiffeId } = JSON.parse(await this.logged('"agent ready"')) as { spiffeId: string }
    return parseSpiffeId(spiffeId)
  }
}

/** Asks again and again until it is so. @throws Error naming what did not happen within `timeoutMs` */
export async function eventually(what: string, isSo: () => boolean | Promise<boolean>, timeoutMs = 20_000): Promise<void> {
  const until = Date.now() + timeoutMs
  while (!(await isSo())) {
    if (Date.now() >= until) throw new Error(`within ${timeoutMs} ms, it did not happen that ${what}`)
    await sleep(50)
  }
}

/** What a client under `test/peers` printed: a JSON object a line; the last is its answer, or `{error, code}`. */
export interface ClientRun {
  readonly lines: readonly Readonly<Record<string, unknown>>[]
  readonly last: Readonly<Record<string, unknown>>
}

/** Runs a client under `test/peers` to its end. @throws Error if it prints nothing */
export async function runClient(program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<ClientRun> {
  const outcome = await run(program, args, { deadlineMs: 90_000, env })
  const lines = outcome.stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  const last = lines.at(-1)
  if (!last) throw new Error(`\`${basename(program)} ${args.join(' ')}\` printed nothing: ${lastWords(outcome)}`)
  return { lines, last }
}

/** Runs a command of ours to its end and returns what it printed. @throws Error with its complaint if it fails */
export async function runVidimus(...args: readonly string[]): Promise<string> {
  const outcome = await run(process.execPath, [cli, ...args], { deadlineMs: 60_000 })
  if (outcome.code !== 0) throw new Error(`\`vidimus ${args.join(' ')}\` failed: ${lastWords(outcome)}`)
  return outcome.stdout
}

/** A TCP port of the loopback that is free now. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const address = probe.address()
  probe.close()
  await once(probe, 'close')
  if (address === null || typeof address === 'string') throw new Error('bug: a TCP server has a port')
  return address.port
}

const emptyEntry = {
  x509SvidTtl: 0,
  jwtSvidTtl: 0,
  federatesWith: [],
  admin: false,
  downstream: false,
  storeSvid: false,
  dnsNames: [],
  hint: '',
  disableX509SvidPrefetch: false,
  jwtSvidIncludeJti: false,
}
const cli = join(repository, 'src/main/cli.ts')
const maxLines = 1000
