/** What an agent answers to the workloads of its node, over its socket, to callers in another process. */
import { systemClock } from '../src/kernel/clock.ts'
import { type Client, clientOf, connectUnix } from '../src/rpc/client.ts'
import { SpiffeWorkloadAPI } from '../src/rpc/gen/spiffe/workload/workload_pb.ts'
import { openWorkloadApiClient, type WorkloadApiClient } from '../src/workload-client/client.ts'
import { type Bench, demand, type Effort, type Figure, figureOf, load, residentMb } from './harness.ts'
import { eventually, Installation, ownId } from './installation.ts'

type WorkloadApi = Client<typeof SpiffeWorkloadAPI>

export const workloadApi: readonly Bench[] = [
  {
    name: 'workload-api.x509',
    about: 'FetchX509SVID until its first response, 32 callers, a connection each; CPU and memory of the agent',
    run: (effort) => measure(effort, 'responses/s', async () => firstX509Response),
  },
  {
    name: 'workload-api.jwt-cached',
    about: 'FetchJWTSVID for an audience that was asked for before, 32 callers; CPU and memory of the agent',
    run: (effort) => measure(effort, 'tokens/s', async () => (api) => api.fetchJWTSVID({ audience: [audience] }, { metadata })),
  },
  {
    name: 'workload-api.validate',
    about: 'ValidateJWTSVID of a token of our own, 32 callers; CPU and memory of the agent',
    run: (effort) =>
      measure(effort, 'tokens/s', async (workload) => {
        const token = await tokenOf(workload, effort)
        return (api) => api.validateJWTSVID({ audience, svid: token }, { metadata })
      }),
  },
]

/** Verifies what the agent gives this process, then has 32 callers ask it. */
async function measure(
  effort: Effort,
  unit: string,
  prepare: (workload: WorkloadApiClient) => Promise<(api: WorkloadApi) => Promise<unknown>>,
): Promise<Figure> {
  await using owned = new AsyncDisposableStack()
  const { agent } = await owned.use(await Installation.open()).startBoth()
  const workload = owned.use(openWorkloadApiClient(agent.socket, systemClock))
  const held = await eventually(() => firstOf(workload.watchX509(effort.stop)))
  demand(held.identities[0].spiffeId === ownId, `this process is \`${held.identities[0].spiffeId}\` to the agent`)
  const { spiffeId } = await workload.validateJwt(audience, await tokenOf(workload, effort), effort.stop)
  demand(spiffeId === ownId, `a token of this process is for \`${spiffeId}\``)

  const ask = await prepare(workload)
  const callers = Array.from({ length: 32 }, () => clientOf(SpiffeWorkloadAPI, owned.use(connectUnix(agent.socket))))
  const rate = await load(effort, { concurrency: callers.length, pid: agent.pid }, (worker) => ask(callers[worker]!))
  const rss = await residentMb(agent.pid)
  return { ...figureOf(rate, unit), ...(rss === undefined ? {} : { rss_mb: rss }) }
}

async function firstX509Response(api: WorkloadApi): Promise<void> {
  const { svids } = await firstOf(api.fetchX509SVID({}, { metadata }))
  demand(svids.length === 1, `${svids.length} SVIDs`)
}

async function tokenOf(workload: WorkloadApiClient, { stop }: Effort): Promise<string> {
  const [svid] = await workload.fetchJwt([audience], undefined, stop)
  return svid?.token ?? ''
}

/** Takes one and leaves, which ends the stream. */
async function firstOf<T>(stream: AsyncIterable<T>): Promise<T> {
  for await (const one of stream) return one
  throw new Error('a stream ended without an answer')
}

const audience = 'payments'
const metadata = { 'workload.spiffe.io': 'true' }
