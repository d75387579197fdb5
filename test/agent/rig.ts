import type { KeyObject } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Workload } from '../../src/agent/identities.ts'
import { type AgentParts, openAgent, type OpenAgent } from '../../src/agent/open-agent.ts'
import { joinToken } from '../../src/attestation/node/join-token.ts'
import type { NodeProver } from '../../src/attestation/node-attestor.ts'
import type { Peer } from '../../src/attestation/peer.ts'
import type { WorkloadAttestor } from '../../src/attestation/workload-attestor.ts'
import { seconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { type Files, systemFiles } from '../../src/kernel/files.ts'
import { type Log, Secret, silentLog } from '../../src/kernel/log.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'
import { type FakeServerOptions, FakeUpstreamServer } from '../fakes/upstream-server.ts'
import { TestMeter } from '../support/counted.ts'

/** A process that says of itself, through the attestor below, which selectors it has. */
export interface FakeProcess extends Peer {
  selectors: readonly string[]
  alive: boolean
}

export function fakeProcess(...selectors: string[]): FakeProcess {
  const made: FakeProcess = { pid: ++pids, uid: 1, gid: 1, selectors, alive: true, stillThere: () => made.alive, [Symbol.dispose]() {} }
  return made
}

export const never = new AbortController().signal

export interface Rig extends AsyncDisposable {
  readonly clock: FakeClock
  readonly server: FakeUpstreamServer
  readonly directory: string
  readonly meter: TestMeter
  readonly agent: OpenAgent
  /** Settles when `run` does: undefined after a stop, otherwise the failure. */
  readonly ended: Promise<unknown>
  identify(process: Peer): Promise<Workload>
  stop(): Promise<void>
}

export type RigOptions = Partial<Omit<FakeServerOptions, 'clock'>> & {
  server?: FakeUpstreamServer
  clock?: FakeClock
  directory?: string
  log?: Log
  files?: Files
  run?: boolean
  prover?: NodeProver | undefined
  policySigners?: readonly KeyObject[]
  witSvid?: boolean
}

/** An agent beside a server with real crypto, on a clock that the test moves. */
export async function startAgent(options: RigOptions = {}): Promise<Rig> {
  const clock = options.clock ?? (options.server?.clock as FakeClock) ?? new FakeClock()
  const server = options.server ?? (await FakeUpstreamServer.start({ clock, ...options }))
  const directory = options.directory ?? mkdtempSync(join(tmpdir(), 'va-'))
  const stopping = new AbortController()
  const meter = new TestMeter()
  const parts = await agentParts({ meter, clock, server, directory, log: options.log ?? silentLog, files: options.files ?? systemFiles })
  const agent = await openAgent({ ...parts, ...chosen(options), witSvid: options.witSvid ?? false }, stopping.signal)
  const ended = options.run === false ? Promise.resolve(undefined) : agent.run(stopping.signal).catch((error: unknown) => error)
  const stop = async () => {
    stopping.abort()
    await ended
  }
  return {
    clock,
    server,
    directory,
    meter,
    agent,
    ended,
    stop,
    identify: (process) => agent.identify(process, never),
    async [Symbol.asyncDispose]() {
      await stop()
      if (!options.directory) rmSync(directory, { recursive: true, force: true })
    },
  }
}

const chosen = (options: RigOptions) => ({
  ...('prover' in options ? { prover: options.prover } : {}),
  ...(options.policySigners ? { policySigners: options.policySigners } : {}),
})

export async function agentParts({
  clock,
  server,
  directory,
  log = silentLog,
  files = systemFiles,
  token = 'token-1',
  meter = new TestMeter(),
}: {
  clock: FakeClock
  server: FakeUpstreamServer
  directory: string
  log?: Log
  files?: Files
  token?: string
  meter?: TestMeter
}): Promise<AgentParts> {
  const random = seededRandom(directory)
  const world = { clock, random, files, log, meter, secrets: { read: async () => new Secret(token) } }
  return {
    clock,
    random,
    files,
    log,
    meter,
    trustDomain: server.trustDomain,
    upstream: server,
    prover: await joinToken.openProver({ token: { env: 'X' } }, world),
    trustBundle: { bundle: server.currentBundle },
    dataDirectory: join(directory, 'data'),
    attestors: new Map([['test', attestor]]),
    peers: {
      ofPid(pid) {
        if (pid === 1) return fakeProcess('test:name:init')
        throw new Failure('not_found', 'peer.no-such-process', { public: `there is no process \`${pid}\`` })
      },
    },
    syncInterval: seconds(5),
    agentVersion: 'test',
  }
}

/** Waits, in real time, for what real keys and disks take; the fake clock stands still. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 15_000
  while (performance.now() < end) {
    if (await condition()) return
    await new Promise((resolve) => setImmediate(resolve))
  }
  throw new Error('what was waited for did not happen')
}

const attestor: WorkloadAttestor = {
  attest: async (peer) => (peer as FakeProcess).selectors.map(parseSelector),
  async [Symbol.asyncDispose]() {},
}
let pids = 1000
