/** The same rules as a policy of Cerbos, decided by its own server over its RPC; ours over ours, with the same callers, in the same run. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fromBinary, toBinary } from '@bufbuild/protobuf'
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire'
import { CheckRequestSchema, CheckResponseSchema } from '../src/rpc/gen/envoy/service/auth/v3/auth_pb.ts'
import { peer } from '../tools/peers/find.ts'
import { BareCaller } from './bare-caller.ts'
import { checkOf, openChecks } from './ext-authz.ts'
import { type Bench, demand, type Effort, type Figure, figureOf, load, Missing, residentMb, rounded } from './harness.ts'
import { eventually } from './installation.ts'
import { makeCalls, type MadeCall, makeRules } from './rules.ts'

export const cerbos: readonly Bench[] = [100, 1000].map((rules) => ({
  name: `policy.cerbos${rules}`,
  about: `the same requests and ${rules} rules decided by a Cerbos server over gRPC, 32 at once; CPU and memory of it; RATIO is ours, Check at an agent with the same callers`,
  run: (effort: Effort) => decideBesideCerbos(rules, effort),
}))

async function decideBesideCerbos(rules: number, effort: Effort): Promise<Figure> {
  const found = peer('cerbos')
  if (!('path' in found)) throw new Missing(`${found.missing}: run \`${found.command}\``)
  const half = { ...effort, seconds: effort.seconds / 2 }
  const calls = makeCalls(rules)
  const ours = await measureOurs(rules, calls, half)

  await using owned = new AsyncDisposableStack()
  const server = owned.use(await CerbosServer.start(found.path, rules))
  const callers = Array.from({ length: connections }, () => owned.use(new BareCaller(server.socket)))
  const asked = calls.map((call) => ({ ...call, bytes: checkResources(call) }))
  const decide = async (worker: number, { bytes }: (typeof asked)[number]) =>
    isAllowed(await callers[worker % connections]!.ask('/cerbos.svc.v1.CerbosService/CheckResources', bytes))
  for (const call of asked.slice(0, 64)) demand((await decide(0, call)) === call.allowed, `cerbos decides ${call.path} otherwise`)
  const rate = await load(half, { concurrency, pid: server.pid }, (worker, count) => decide(worker, asked[count % asked.length]!))
  const rss = await residentMb(server.pid)
  return {
    ...figureOf(rate, 'checks/s'),
    ...(rss === undefined ? {} : { rss_mb: rss }),
    ratio: rounded(ours.perSecond / rate.perSecond),
    of: `our agent's Check, same callers, ${ours.cpuUsEach === undefined ? 'its' : rounded(ours.cpuUsEach)} µs of CPU each`,
  }
}

async function measureOurs(rules: number, calls: readonly MadeCall[], effort: Effort) {
  await using owned = new AsyncDisposableStack()
  const { agent } = owned.use(await openChecks(effort, rules))
  const callers = Array.from({ length: connections }, () => owned.use(new BareCaller(agent.socket)))
  const asked = calls.map((call) => toBinary(CheckRequestSchema, checkOf(call)))
  return await load(effort, { concurrency, pid: agent.pid }, async (worker, count) => {
    const answer = await callers[worker % connections]!.ask('/envoy.service.auth.v3.Authorization/Check', asked[count % asked.length]!)
    return fromBinary(CheckResponseSchema, answer).status?.code === 0
  })
}

/** A server of Cerbos's on sockets of its own, with the rules as one resource policy that is read beforehand. */
class CerbosServer implements AsyncDisposable {
  readonly #directory: string
  readonly #child: ChildProcess

  private constructor(directory: string, child: ChildProcess) {
    this.#directory = directory
    this.#child = child
  }

  static async start(binary: string, rules: number): Promise<CerbosServer> {
    const directory = await mkdtemp(join(tmpdir(), 'vidimus-cerbos-'))
    await mkdir(join(directory, 'policies'))
    await writeFile(join(directory, 'policies', 'orders.yaml'), JSON.stringify(resourcePolicy(rules)))
    const config = {
      server: { httpListenAddr: `unix:${directory}/http.sock`, grpcListenAddr: `unix:${directory}/grpc.sock` },
      storage: { driver: 'disk', disk: { directory: join(directory, 'policies'), watchForChanges: false } },
      telemetry: { disabled: true },
    }
    await writeFile(join(directory, 'config.yaml'), JSON.stringify(config))
    const child = spawn(binary, ['server', '--config', join(directory, 'config.yaml'), '--log-level', 'error'], {
      env: { ...process.env, CERBOS_NO_TELEMETRY: '1' },
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const server = new CerbosServer(directory, child)
    await eventually(() => stat(server.socket))
    return server
  }

  get socket(): string {
    return join(this.#directory, 'grpc.sock')
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = new Promise((resolve) => this.#child.once('exit', resolve))
      this.#child.kill('SIGTERM')
      const force = setTimeout(() => this.#child.kill('SIGKILL'), 5000)
      await ended
      clearTimeout(force)
    }
    await rm(this.#directory, { recursive: true, force: true })
  }
}

/** Callers as roles, which is what Cerbos finds its rules by; paths in a condition. */
const resourcePolicy = (rules: number) => ({
  apiVersion: 'api.cerbos.dev/v1',
  resourcePolicy: {
    resource: 'service',
    version: 'default',
    rules: makeRules(rules).map(({ deny, caller, methods, area }) => ({
      actions: methods,
      effect: deny ? 'EFFECT_DENY' : 'EFFECT_ALLOW',
      roles: [roleOf(caller)],
      condition: { match: { expr: `R.attr.path.startsWith("/area-${area}/items/")` } },
    })),
  },
})

/** `cerbos.request.v1.CheckResourcesRequest`: principal 3 (id 1, roles 3), resources 4 (actions 1, resource 2 (kind 1, id 3, attr 4)). */
function checkResources({ peer: caller, method, path }: MadeCall): Uint8Array {
  const writer = new BinaryWriter().uint32(tag(1)).string('1')
  writer.uint32(tag(3)).fork().uint32(tag(1)).string(caller).uint32(tag(3)).string(roleOf(caller)).join()
  writer.uint32(tag(4)).fork().uint32(tag(1)).string(method)
  writer.uint32(tag(2)).fork().uint32(tag(1)).string('service').uint32(tag(3)).string('orders')
  // An entry of the map: key 1, and as value 2 a google.protobuf.Value with string_value 3.
  writer.uint32(tag(4)).fork().uint32(tag(1)).string('path').uint32(tag(2)).fork().uint32(tag(3)).string(path).join().join()
  return writer.join().join().finish()
}

/** `CheckResourcesResponse`: results 2, in each actions 2, a map whose entries have the effect at 2; ALLOW is 1. */
function isAllowed(answer: Uint8Array): boolean {
  const result = messageAt(answer, 2)
  const entry = result && messageAt(result, 2)
  if (!entry) return false
  const reader = new BinaryReader(entry)
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (field === 2) return reader.int32() === 1
    reader.skip(wireType)
  }
  return false
}

function messageAt(bytes: Uint8Array, wanted: number): Uint8Array | undefined {
  const reader = new BinaryReader(bytes)
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (field === wanted) return reader.bytes()
    reader.skip(wireType)
  }
  return undefined
}

/** A field that is a text or a message. */
const tag = (field: number): number => (field << 3) | 2
const roleOf = (caller: string): string => caller.slice(caller.lastIndexOf('/') + 1)
const [connections, concurrency] = [4, 32]
