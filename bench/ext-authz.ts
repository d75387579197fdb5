/** What an agent answers to Envoy's question whether a request is allowed, over its socket. */
import { deadline, systemClock } from '../src/kernel/clock.ts'
import { seconds } from '../src/kernel/duration.ts'
import { clientOf, connectUnix } from '../src/rpc/client.ts'
import { Authorization } from '../src/rpc/gen/envoy/service/auth/v3/auth_pb.ts'
import { openWorkloadApiClient } from '../src/workload-client/client.ts'
import { type Bench, demand, type Effort, type Figure, figureOf, load, residentMb } from './harness.ts'
import { eventually, Installation, ownId } from './installation.ts'
import { makeCalls, makePolicies, type MadeCall } from './rules.ts'

export const extAuthz: readonly Bench[] = [
  {
    name: 'ext-authz.1000',
    about: 'Check of a request at 1000 rules, one in four refused, 32 at once on four connections; CPU and memory of the agent',
    run: checkRequests,
  },
]

async function checkRequests(effort: Effort): Promise<Figure> {
  await using owned = new AsyncDisposableStack()
  const { server, agent } = await owned.use(await Installation.open()).startBoth()
  await server.admin.policies.apply({ documents: makePolicies(ownId, 1000) }, deadline(seconds(20)))
  const workload = owned.use(openWorkloadApiClient({ scheme: 'unix', path: agent.socket }, systemClock))
  await eventually(async () => {
    for await (const { identities } of workload.watchX509(effort.stop)) return identities
    throw new Error('the agent has no identity for this process')
  })

  const proxies = Array.from({ length: 4 }, () => clientOf(Authorization, owned.use(connectUnix(agent.socket))))
  const calls = makeCalls(1000)
  const isAllowed = async (worker: number, call: MadeCall) =>
    (await proxies[worker % proxies.length]!.check(asEnvoyAsks(call))).status?.code === 0
  await eventually(async () => demand(await isAllowed(0, calls[0]!), 'a request that a rule allows is refused'))
  for (const call of calls.slice(0, 64))
    demand((await isAllowed(0, call)) === call.allowed, `${JSON.stringify(call)} was decided otherwise`)

  const rate = await load(effort, { concurrency: 32, pid: agent.pid }, (worker, count) => isAllowed(worker, calls[count % calls.length]!))
  const rss = await residentMb(agent.pid)
  return { ...figureOf(rate, 'checks/s'), ...(rss === undefined ? {} : { rss_mb: rss }) }
}

function asEnvoyAsks({ peer, method, path }: MadeCall) {
  const address = (text: string, port: number) => ({
    address: { case: 'socketAddress' as const, value: { address: text, portSpecifier: { case: 'portValue' as const, value: port } } },
  })
  return {
    attributes: {
      source: { principal: peer, address: address('10.0.0.7', 40_000) },
      destination: { principal: ownId, address: address('10.0.0.8', 8080) },
      request: {
        http: {
          id: '1',
          method,
          path,
          host: 'orders.shop:8080',
          scheme: 'https',
          protocol: 'HTTP/2',
          headers: { ':method': method, ':path': path, ':authority': 'orders.shop:8080', 'user-agent': 'bench', 'x-request-id': '5f2c' },
        },
      },
    },
  }
}
