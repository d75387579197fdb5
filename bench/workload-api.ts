/** What an agent answers to the workloads of its node, over its socket, to callers in another process. */
import { create, toBinary } from '@bufbuild/protobuf'
import { deadline, systemClock } from '../src/kernel/clock.ts'
import { seconds } from '../src/kernel/duration.ts'
import { Failure } from '../src/kernel/failure.ts'
import { JWTSVIDRequestSchema, ValidateJWTSVIDRequestSchema } from '../src/rpc/gen/spiffe/workload/workload_pb.ts'
import type { AdminClient } from '../src/server-api/client.ts'
import { openWorkloadApiClient, type WorkloadApiClient } from '../src/workload-client/client.ts'
import { BareCaller } from './bare-caller.ts'
import {
  type Bench,
  cpuSeconds,
  demand,
  type Effort,
  type Figure,
  figureOf,
  load,
  openLoop,
  type Rate,
  residentMb,
  rounded,
} from './harness.ts'
import { eventually, Installation, ownId } from './installation.ts'

export const workloadApi: readonly Bench[] = [
  {
    name: 'workload-api.x509',
    about: 'FetchX509SVID until its first response, 32 callers, a connection each; CPU and memory of the agent',
    run: (effort) => measure(effort, 'responses/s', async () => closed(firstX509Response)),
  },
  {
    name: 'workload-api.x509-steady',
    about: 'the same, begun 1,500 times a second whether or not the one before was answered',
    run: (effort) => measure(effort, 'responses/s', async () => steady(firstX509Response)),
  },
  {
    name: 'workload-api.jwt-cached',
    about: 'FetchJWTSVID for an audience that was asked for before, 32 callers; CPU and memory of the agent',
    run: (effort) =>
      measure(effort, 'tokens/s', async () => closed((caller) => caller.ask(method('FetchJWTSVID'), tokenRequest(audience)))),
  },
  {
    name: 'workload-api.validate',
    about: 'ValidateJWTSVID of one token of our own again and again, 32 callers; CPU and memory of the agent',
    run: (effort) => measure(effort, 'tokens/s', async (workload) => closed(validate([await tokenOf(workload, audience, effort)]))),
  },
  {
    name: 'workload-api.validate-new',
    about: 'ValidateJWTSVID of tokens that come again only after 4,000 others, 32 callers; CPU and memory of the agent',
    run: (effort) =>
      measure(effort, 'tokens/s', async (workload) => {
        const tokens: string[] = []
        for (let count = 0; count < 4000; count += 50) {
          const names = Array.from({ length: 50 }, (_, at) => `${audience}-${count + at}`)
          tokens.push(...(await Promise.all(names.map((name) => tokenOf(workload, name, effort)))))
        }
        return closed(validate(tokens, (at) => `${audience}-${at}`))
      }),
  },
  {
    name: 'workload-api.idle-streams',
    about:
      '10,000 streams of FetchX509SVID on 1,000 connections: memory of the agent, and seconds from the first to the last that a rotation reaches',
    run: idleStreams,
  },
]

/** How the callers of an installation are set to work. */
type Work = (effort: Effort, callers: readonly BareCaller[], pid: number) => Promise<Rate>
type Operation = (caller: BareCaller, count: number) => Promise<unknown>

const closed =
  (operation: Operation): Work =>
  (effort, callers, pid) =>
    load(effort, { concurrency: callers.length, pid }, (worker, count) => operation(callers[worker]!, count))

const steady =
  (operation: Operation): Work =>
  (effort, callers, pid) =>
    openLoop(effort, { perSecond: 1500, pid }, (count) => operation(callers[count % callers.length]!, count))

/** Verifies what the agent gives this process, then has 32 callers ask it. */
async function measure(effort: Effort, unit: string, prepare: (workload: WorkloadApiClient) => Promise<Work>): Promise<Figure> {
  await using owned = new AsyncDisposableStack()
  const { agent } = await verified(owned, effort)
  const work = await prepare(agent.workload)
  const callers = Array.from({ length: 32 }, () => owned.use(new BareCaller(agent.socket, metadata)))
  const rate = await work(effort, callers, agent.pid)
  const rss = await residentMb(agent.pid)
  return { ...figureOf(rate, unit), ...(rss === undefined ? {} : { rss_mb: rss }) }
}

/** A server and an agent, and the proof that this process is who it should be. */
async function verified(owned: AsyncDisposableStack, effort: Effort) {
  const { server, agent } = await owned.use(await Installation.open()).startBoth()
  const workload = owned.use(openWorkloadApiClient({ scheme: 'unix', path: agent.socket }, systemClock))
  const held = await eventually(() => firstOf(workload.watchX509(effort.stop)))
  demand(held.identities[0].spiffeId === ownId, `this process is \`${held.identities[0].spiffeId}\` to the agent`)
  const { spiffeId } = await workload.validateJwt(audience, await tokenOf(workload, audience, effort), effort.stop)
  demand(spiffeId === ownId, `a token of this process is for \`${spiffeId}\``)
  return { server, agent: { ...agent, workload } }
}

async function idleStreams({ stop, ...effort }: Effort): Promise<Figure> {
  await using owned = new AsyncDisposableStack()
  const { server, agent } = await verified(owned, { ...effort, stop })
  const reached: number[] = []
  for (let connection = 0; connection < connections; connection++) {
    stop.throwIfAborted()
    const caller = owned.use(new BareCaller(agent.socket, metadata))
    await Promise.all(
      Array.from(
        { length: streamsEach },
        () =>
          new Promise<void>((resolve) => {
            let answers = 0
            caller.follow(method('FetchX509SVID'), nothing, () => {
              answers++
              if (answers === 1) resolve()
              if (answers === 2) reached.push(performance.now())
            })
          }),
      ),
    )
  }
  const rss = await residentMb(agent.pid)
  const before = await cpuSeconds(agent.pid)
  await rotate(server.admin)
  await eventually(async () => demand(reached.length === connections * streamsEach, `a rotation reached ${reached.length} streams`))
  const spent = before === undefined ? undefined : (((await cpuSeconds(agent.pid)) ?? before) - before) * 1e6
  return {
    value: rounded((reached.at(-1)! - reached[0]!) / 1000),
    unit: 's',
    ...(spent === undefined ? {} : { cpu_us_per_op: rounded(spent / reached.length) }),
    ...(rss === undefined ? {} : { rss_mb: rss }),
    n: reached.length,
  }
}

/** A changed entry is a new revision: its SVID is signed anew and pushed to everybody who holds it. */
async function rotate(admin: AdminClient): Promise<void> {
  const [entry] = await admin.entries.list({}, deadline(seconds(10)))
  const [outcome] = await admin.entries.update([{ ...entry!, hint: 'rotated' }], deadline(seconds(10)))
  if (outcome instanceof Failure) throw outcome
}

async function firstX509Response(caller: BareCaller): Promise<void> {
  const answer = await caller.first(method('FetchX509SVID'), nothing)
  demand(answer.length > 500, `an answer of ${answer.length} bytes`)
}

function validate(tokens: readonly string[], audienceOf: (at: number) => string = () => audience): Operation {
  const requests = tokens.map((svid, at) =>
    toBinary(ValidateJWTSVIDRequestSchema, create(ValidateJWTSVIDRequestSchema, { audience: audienceOf(at), svid })),
  )
  return (caller, count) => caller.ask(method('ValidateJWTSVID'), requests[count % requests.length]!)
}

const tokenRequest = (name: string): Uint8Array => toBinary(JWTSVIDRequestSchema, create(JWTSVIDRequestSchema, { audience: [name] }))

async function tokenOf(workload: WorkloadApiClient, name: string, { stop }: Effort): Promise<string> {
  const [svid] = await workload.fetchJwt([name], undefined, stop)
  return svid?.token ?? ''
}

/** Takes one and leaves, which ends the stream. */
async function firstOf<T>(stream: AsyncIterable<T>): Promise<T> {
  for await (const one of stream) return one
  throw new Error('a stream ended without an answer')
}

const method = (name: string): string => `/SpiffeWorkloadAPI/${name}`
const audience = 'payments'
const metadata = { 'workload.spiffe.io': 'true' }
const nothing = new Uint8Array()
const connections = 1000
const streamsEach = 10
