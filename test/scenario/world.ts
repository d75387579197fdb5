/** Server, agents and workloads in one process, on real TLS and real sockets, with a clock that the test moves. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { openAgent, type OpenAgent } from '../../src/agent/open-agent.ts'
import { joinToken } from '../../src/attestation/node/join-token.ts'
import type { NodeVerifier } from '../../src/attestation/node-attestor.ts'
import type { Peer } from '../../src/attestation/peer.ts'
import type { WorkloadAttestor } from '../../src/attestation/workload-attestor.ts'
import { type AuditTrail, openTrail } from '../../src/audit/trail.ts'
import type { CertificateAuthority } from '../../src/ca/certificate-authority.ts'
import type { KeyManager } from '../../src/ca/key-manager.ts'
import { memory as memoryKeys } from '../../src/ca/keys/memory.ts'
import { openCertificateAuthority } from '../../src/ca/own-authority.ts'
import { issuanceProfile, type ProfileAsWritten } from '../../src/ca/profile.ts'
import type { UpstreamAuthority } from '../../src/ca/upstream-authority.ts'
import { selfSigned } from '../../src/ca/upstream/self-signed.ts'
import type { Clock } from '../../src/kernel/clock.ts'
import type { World as Ports } from '../../src/kernel/driver.ts'
import { type Duration, minutes, seconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { Secret } from '../../src/kernel/log.ts'
import { systemRandom } from '../../src/kernel/random.ts'
import { Scope } from '../../src/kernel/scope.ts'
import { ownApiPolicies } from '../../src/main/policies.ts'
import type { EntryDraft, RegistrationEntry } from '../../src/registry/entry.ts'
import { type Listener, listenTls, listenUnix } from '../../src/rpc/listen.ts'
import { connectServer } from '../../src/server-api/client.ts'
import { detailsFor } from '../../src/server-api/messages.ts'
import { serverApi } from '../../src/server-api/services.ts'
import { type Caller, remotePeer } from '../../src/server/caller.ts'
import { EntryCache } from '../../src/server/entry-cache.ts'
import { createEntry, deleteEntry, updateEntry } from '../../src/server/manage-entries.ts'
import { consumeJoinToken, createJoinToken } from '../../src/server/manage-tokens.ts'
import { OwnIdentity } from '../../src/server/own-identity.ts'
import { Shadow } from '../../src/server/shadow.ts'
import { Policies } from '../../src/server/policies.ts'
import type { Server } from '../../src/server/server.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { parseSpiffeId, type SpiffeId } from '../../src/spiffe/id.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { memory } from '../../src/store/memory.ts'
import type { Store } from '../../src/store/store.ts'
import { requireSecurityHeader } from '../../src/workload-api/security-header.ts'
import { workloadApi } from '../../src/workload-api/service.ts'
import { openWorkloadApiClient, type WorkloadApiClient } from '../../src/workload-client/client.ts'
import { openX509Source, type X509Source } from '../../src/workload-client/source.ts'
import { KeptLog } from '../ca/support.ts'
import { FakeIntents } from '../fakes/intents.ts'
import { FakeClock } from '../fakes/clock.ts'
import { Calls, stillness } from './stillness.ts'
import { TestMeter } from '../support/counted.ts'

export const operator: Caller = { kind: 'local', uid: 0, gid: 0, pid: 1 }
const trustDomain = parseTrustDomain('example.org')
export const idOf = (path: string): SpiffeId => parseSpiffeId(`spiffe://${trustDomain}${path}`)

export interface WorldWishes {
  readonly profile?: ProfileAsWritten
  readonly syncInterval?: Duration
  readonly witSvid?: boolean
}

/** Everything that outlives a restart of the server, and the server itself while it runs. */
export class World implements AsyncDisposable {
  readonly clock = new FakeClock()
  readonly log = new KeptLog()
  readonly directory = mkdtempSync(join(tmpdir(), 'vw-'))
  /** While true, whoever stands above the CA does not answer. */
  upstreamIsAway = false
  readonly syncInterval: Duration
  /** Whether WIT-SVIDs are issued and served. */
  readonly witSvid: boolean
  readonly #profile: ProfileAsWritten
  readonly #store: Store
  readonly #keys: KeyManager
  readonly #audit: AuditTrail
  readonly #agents = new Set<RunningAgent>()
  readonly #calls = new Calls()
  #running: RunningServer | undefined
  #port = 0

  private constructor(
    { profile = {}, syncInterval = seconds(5), witSvid = false }: WorldWishes,
    store: Store,
    keys: KeyManager,
    audit: AuditTrail,
  ) {
    this.#profile = profile
    this.syncInterval = syncInterval
    this.witSvid = witSvid
    this.#store = store
    this.#keys = keys
    this.#audit = audit
  }

  /** A world with a server in it. */
  static async open(wishes: WorldWishes = {}): Promise<World> {
    const nowhere = { append: async () => {}, async [Symbol.asyncDispose]() {} }
    const ports = portsWith(new FakeClock(), new KeptLog())
    const world = new World(wishes, await memory.open({}, ports), await memoryKeys.open({}, ports), await openTrail(nowhere, ports))
    await world.startServer()
    return world
  }

  get server(): Server {
    if (!this.#running) throw new Error('the server is away')
    return this.#running.server
  }

  get ca(): CertificateAuthority {
    return this.server.ca
  }

  /** Starts a server on what the one before it left. */
  async startServer(): Promise<void> {
    const opening = {
      profile: this.#profile,
      store: this.#store,
      keys: this.#keys,
      audit: this.#audit,
      upstream: await this.#upstream(),
      port: this.#port,
      witSvid: this.witSvid,
    }
    this.#running = await startServer(opening, this.clock, this.log)
    this.#port = this.#running.listener.port
  }

  async stopServer(): Promise<void> {
    await this.#running?.[Symbol.asyncDispose]()
    this.#running = undefined
  }

  /** Joins an agent with a fresh token; with the directory of one before it and no token, it starts again with what that one kept. */
  async agent(name: string, { token = true }: { readonly token?: boolean | string } = {}): Promise<RunningAgent> {
    const evidence = typeof token === 'string' ? token : token ? await this.token() : undefined
    const agent = await RunningAgent.start(this, name, this.#port, evidence, this.#calls)
    this.#agents.add(agent)
    return agent
  }

  async token(): Promise<string> {
    return (await createJoinToken(this.server, { ttl: minutes(5) }, operator)).token.reveal()
  }

  create(parentId: SpiffeId, path: string, selectors: readonly string[], more: Partial<EntryDraft> = {}): Promise<RegistrationEntry> {
    return createEntry(
      this.server,
      { ...emptyEntry, parentId, spiffeId: idOf(path), selectors: selectors.map(parseSelector), ...more },
      operator,
    ).then(({ entry }) => entry)
  }

  update(entry: RegistrationEntry, changes: Partial<EntryDraft>): Promise<RegistrationEntry> {
    return updateEntry(this.server, entry.id, (before) => ({ ...before, ...changes }), operator)
  }

  remove(entry: RegistrationEntry): Promise<void> {
    return deleteEntry(this.server, entry.id, operator)
  }

  /** Moves on by `duration`, a step at a time, and looks after each; everybody has gone back to sleep by then. */
  async pass(duration: Duration, look: () => void = () => {}, step: Duration = this.syncInterval): Promise<void> {
    for (let passed = 0; passed < duration; passed += step) {
      await this.clock.advance(Math.min(step, duration - passed))
      await this.quiet()
      look()
    }
  }

  /** Moves on in small steps until this is so. A connection that was lost comes back in real time, so each step leaves some. */
  async passUntil(condition: () => boolean, longest: Duration, what: string): Promise<void> {
    for (let passed = 0; passed < longest && !condition(); passed += 250) {
      await this.clock.advance(250)
      await this.quiet()
      await pause(5)
    }
    if (!condition()) throw new Error(`did not happen in ${longest / 1000} s: ${what}`)
  }

  /** Resolves when nobody is at work: whatever goes on from here waits for the clock. */
  async quiet(): Promise<void> {
    await stillness(this.#calls, longestWait)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.#agents) await agent[Symbol.asyncDispose]()
    await this.stopServer()
    await this.#store[Symbol.asyncDispose]()
    await this.#keys[Symbol.asyncDispose]()
    await this.#audit[Symbol.asyncDispose]()
    rmSync(this.directory, { recursive: true, force: true })
  }

  async #upstream(): Promise<UpstreamAuthority> {
    const real = await selfSigned.open({}, portsWith(this.clock, this.log))
    const isAway = () => this.upstreamIsAway
    return {
      async mint(request, signal) {
        if (isAway()) throw new Failure('unavailable', 'upstream.away', { public: 'the upstream authority does not answer' })
        return real.mint(request, signal)
      },
      [Symbol.asyncDispose]: () => real[Symbol.asyncDispose](),
    }
  }
}

/** One agent with its socket. */
export class RunningAgent implements AsyncDisposable {
  readonly agent: OpenAgent
  readonly id: SpiffeId
  /** Settles when the agent ends by itself: with the failure, or undefined after a stop. */
  readonly ended: Promise<unknown>
  readonly #world: World
  readonly #stop: AbortController
  readonly #listener: Listener
  readonly #processes: FakeProcess[]
  readonly #owned: AsyncDisposableStack

  private constructor(
    world: World,
    agent: OpenAgent,
    stop: AbortController,
    listener: Listener,
    processes: FakeProcess[],
    owned: AsyncDisposableStack,
  ) {
    this.#world = world
    this.agent = agent
    this.id = agent.status().spiffeId
    this.#stop = stop
    this.#listener = listener
    this.#processes = processes
    this.#owned = owned
    this.ended = agent.run(stop.signal).catch((error: unknown) => error)
  }

  static async start(world: World, name: string, port: number, token: string | undefined, calls: Calls): Promise<RunningAgent> {
    const owned = new AsyncDisposableStack()
    const stop = new AbortController()
    try {
      const ports = portsWith(world.clock, world.log, token)
      const upstream = owned.use(calls.of(connectServer({ host: '127.0.0.1', port }, ports)))
      const prover = token === undefined ? undefined : owned.use(await joinToken.openProver({ token: { env: 'TOKEN' } }, ports))
      const trustBundle = { bundle: world.ca.bundle.current }
      const parts = {
        ...ports,
        trustDomain,
        upstream,
        prover,
        trustBundle,
        dataDirectory: join(world.directory, name),
        attestors: new Map([['test', attestor]]),
        peers: { ofPid: nobody },
        syncInterval: world.syncInterval,
        agentVersion: 'test',
        witSvid: world.witSvid,
      }
      const agent = await openAgent(parts, stop.signal)
      const processes: FakeProcess[] = []
      const listener = owned.use(
        await listenUnix<Peer>({
          path: join(world.directory, `${name}.sock`),
          mode: 0o600,
          log: world.log,
          services: [workloadApi(agent)],
          wrap: requireSecurityHeader,
          peerOf: () => processes.at(-1) ?? fakeProcess(),
          limits: { grace: 200 },
        }),
      )
      return new RunningAgent(world, agent, stop, listener, processes, owned)
    } catch (error) {
      await owned.disposeAsync()
      throw error
    }
  }

  /** Opens the Workload API as a process with these selectors; resolves with its first identity. */
  async workload(...selectors: string[]): Promise<X509Source> {
    this.#processes.push(fakeProcess(...selectors))
    return this.#owned.use(
      await openX509Source({ address: `unix://${this.#listener.address}`, clock: this.#world.clock, timeout: seconds(20) }),
    )
  }

  /** Asks once for X509-SVIDs as a process with these selectors. @throws Failure as the agent refuses it */
  async refusal(...selectors: string[]): Promise<void> {
    const answers = this.api(...selectors).watchX509(AbortSignal.timeout(seconds(20)))
    await answers[Symbol.asyncIterator]().next()
  }

  /** The whole Workload API, as a process with these selectors. */
  api(...selectors: string[]): WorkloadApiClient {
    this.#processes.push(fakeProcess(...selectors))
    return this.#owned.use(openWorkloadApiClient({ scheme: 'unix', path: this.#listener.address }, this.#world.clock))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.ended
    await this.#owned.disposeAsync()
  }
}

/** What each of them holds is valid now, and each accepts every other. */
export function demandMutualTrust(world: World, ...workloads: readonly X509Source[]): void {
  const at = world.clock.now()
  for (const caller of workloads) {
    for (const called of workloads) {
      const { bundles } = called.context.current!
      verifyX509Svid(caller.identity().chain, bundleSet([...bundles.all()]), at)
    }
  }
}

/** Waits, in real time, for what real sockets and keys take; the clock of the world stands still. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + longestWait
  while (!condition()) {
    if (performance.now() > end) throw new Error(`did not happen: ${what}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

interface RunningServer extends AsyncDisposable {
  readonly server: Server
  readonly listener: Listener
}

interface ServerParts {
  readonly profile: ProfileAsWritten
  readonly store: Store
  readonly keys: KeyManager
  readonly audit: AuditTrail
  readonly upstream: UpstreamAuthority
  readonly port: number
  readonly witSvid: boolean
}

/** As `main/server.ts` does it, on the world's clock. */
async function startServer(
  { profile, store, keys, audit, upstream, port, witSvid }: ServerParts,
  clock: FakeClock,
  log: KeptLog,
): Promise<RunningServer> {
  const owned = new AsyncDisposableStack()
  const stop = new AbortController()
  const ports = portsWith(clock, log)
  const journal = store.journal
  const ca = owned.use(
    await openCertificateAuthority({
      ...ports,
      trustDomain,
      keys,
      upstream,
      audit,
      journal,
      intents: new FakeIntents(),
      serverId: 'server',
      profile: issuanceProfile(profile),
      refreshHint: minutes(5),
      witSvid,
    }),
  )
  const verifiers = new Map<string, NodeVerifier>()
  const policies = await Policies.open(store.policies, await ownApiPolicies())
  const server: Server = {
    ...ports,
    ...store,
    trustDomain,
    ca,
    audit,
    policies,
    shadow: new Shadow(),
    verifiers,
    adminIds: new Set(),
    entryCache: new EntryCache(store.entries, trustDomain),
  }
  verifiers.set(
    'join_token',
    await joinToken.openVerifier({}, { ...ports, trustDomain, consumeJoinToken: (token) => consumeJoinToken(server, token) }),
  )
  const identity = await OwnIdentity.open(server, stop.signal)
  const scope = new Scope(stop.signal)
  scope.run('ca rotation', (signal) => ca.keepFresh(signal))
  scope.run('server identity', (signal) => identity.keepFresh(signal))
  const listener = await listenTls({
    host: '127.0.0.1',
    port,
    log,
    identity: identity.identity,
    services: serverApi(server),
    detailsOf: detailsFor,
    limits: { grace: 200 },
    peerOf: ({ chain, remoteAddress }) => remotePeer(server, chain, remoteAddress),
  })
  return {
    server,
    listener,
    async [Symbol.asyncDispose]() {
      await listener[Symbol.asyncDispose]()
      stop.abort()
      await scope[Symbol.asyncDispose]()
      await owned.disposeAsync()
    },
  }
}

const portsWith = (clock: Clock, log: KeptLog, token = ''): Ports => ({
  clock,
  random: systemRandom,
  files: systemFiles,
  log,
  meter: new TestMeter(),
  secrets: { read: async () => new Secret(token) },
})

/** A process that the kernel would vouch for, with the selectors that its attestor would find. */
interface FakeProcess extends Peer {
  readonly selectors: readonly string[]
}

function fakeProcess(...selectors: string[]): FakeProcess {
  return { pid: ++pids, uid: 1, gid: 1, selectors, stillThere: () => true, [Symbol.dispose]() {} }
}

const attestor: WorkloadAttestor = {
  attest: async (peer) => (peer as FakeProcess).selectors.map(parseSelector),
  async [Symbol.asyncDispose]() {},
}

const nobody = (): never => {
  throw new Failure('not_found', 'peer.no-such-process', { public: 'there is no such process' })
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
let pids = 1000
/** Of real time, in milliseconds, for what takes a moment on a machine with nothing else to do. */
const longestWait = 20_000
