/** The command line against a server in memory, whose private socket is a real one, and against made-up agents. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runCommandLine } from '../../src/cli/command.ts'
import type { ConfigChoice, Context, OperatorApi, ProgramKind, WorkloadApi } from '../../src/cli/context.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import { commands } from '../../src/main/command-line.ts'
import { auditor } from '../../src/main/auditor.ts'
import { judge } from '../../src/main/judge.ts'
import { proxies } from '../../src/main/proxies.ts'
import { systemDisk } from '../../src/main/disk.ts'
import { exitCodeFor } from '../../src/main/process.ts'
import { listenUnix } from '../../src/rpc/listen.ts'
import { detailsFor } from '../../src/server-api/messages.ts'
import { privateServerApi } from '../../src/server-api/services.ts'
import type { ServerHealth } from '../../src/server/health.ts'
import { FakeClock } from '../fakes/clock.ts'
import { openRig, type Rig as ServerRig } from '../server/rig.ts'

/** What a command left behind. */
export interface Outcome {
  readonly code: number
  readonly out: string
  readonly thrown: unknown
  /** What was printed, as JSON has it. */
  json(): unknown
}

export type Wishes = Partial<Pick<Context, 'programs' | 'vaults' | 'openWorkloadApi' | 'openOperatorApi' | 'disk' | 'judge'>>

/** Runs a command as `main` does, with nothing real but the disk. */
export async function vidimus(args: readonly string[], wishes: Wishes = {}): Promise<Outcome> {
  let out = ''
  let code = 0
  let thrown: unknown
  const context: Context = {
    terminal: { out: (text) => void (out += text), err: (text) => void (out += text), fail: () => void (code = 1) },
    stop: new AbortController().signal,
    clock: new FakeClock(),
    disk: systemDisk,
    programs: { run: refuse, effectiveConfig: refuse },
    vaults: { policy: refuse, check: refuse },
    proxies,
    openWorkloadApi: refuse,
    openOperatorApi: refuse,
    judge,
    auditor,
    ...wishes,
  }
  try {
    await runCommandLine(commands, args, context, '0.0.0')
  } catch (error) {
    thrown = error
    code = exitCodeFor(error)
  }
  return { code, out, thrown, json: () => JSON.parse(out) as unknown }
}

const refuse = (): never => {
  throw new Error('this command was not to ask for that')
}

export interface CliRig extends AsyncDisposable {
  readonly server: ServerRig
  readonly health: WatchedValue<ServerHealth>
  readonly socket: string
  /** Runs a command that talks to the server. */
  vidimus(...args: readonly string[]): Promise<Outcome>
}

/** A server on a private socket. */
export async function openCliRig(): Promise<CliRig> {
  const directory = mkdtempSync(join(tmpdir(), 'vc-'))
  const server = await openRig()
  const health = new WatchedValue<ServerHealth>({ serving: true, complaints: [] })
  const listener = await listenUnix({
    path: join(directory, 'api.sock'),
    mode: 0o600,
    log: silentLog,
    services: privateServerApi(server.server, health),
    detailsOf: detailsFor,
    peerOf: () => ({ kind: 'local' as const, uid: 0, gid: 0, pid: 1 }),
  })
  const socket = listener.address
  return {
    server,
    health,
    socket,
    vidimus: (...args) => vidimus([...args, '--server-socket', socket]),
    async [Symbol.asyncDispose]() {
      await listener[Symbol.asyncDispose]()
      health.close()
      await server[Symbol.asyncDispose]()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** An agent's private socket that answers as told. */
export const operatorApi = (answers: Partial<Omit<OperatorApi, keyof AsyncDisposable>>): OperatorApi => ({
  explainWorkload: refuse,
  status: refuse,
  ...answers,
  async [Symbol.asyncDispose]() {},
})

/** A Workload API that answers as told. */
export const workloadApi = (answers: Partial<Omit<WorkloadApi, keyof AsyncDisposable>>): WorkloadApi => ({
  fetchX509: refuse,
  fetchBundles: refuse,
  fetchJwt: refuse,
  fetchWit: refuse,
  validateJwt: refuse,
  ...answers,
  async [Symbol.asyncDispose]() {},
})

export interface Started {
  readonly kind: ProgramKind
  readonly choice: ConfigChoice
}
