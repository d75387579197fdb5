/** What an agent answers to Envoy's question whether a request is allowed, over its socket. */
import { create } from '@bufbuild/protobuf'
import { deadline, systemClock } from '../src/kernel/clock.ts'
import { seconds } from '../src/kernel/duration.ts'
import { clientOf, connectUnix } from '../src/rpc/client.ts'
import { Authorization, type CheckRequest, CheckRequestSchema } from '../src/rpc/gen/envoy/service/auth/v3/auth_pb.ts'
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
  const { agent, calls } = owned.use(await openChecks(effort, 1000))
  const proxies = Array.from({ length: 4 }, () => clientOf(Authorization, owned.use(connectUnix(agent.socket))))
  const rate = await load(effort, { concurrency: 32, pid: agent.pid }, (worker, count) =>
    proxies[worker % proxies.length]!.check(checkOf(calls[count % calls.length]!)),
  )
  const rss = await residentMb(agent.pid)
  return { ...figureOf(rate, 'checks/s'), ...(rss === undefined ? {} : { rss_mb: rss }) }
}

/** A server and an agent that has so many rules for this process, and decides calls as it should. */
export async function openChecks(effort: Effort, rules: number) {
  await using owned = new AsyncDisposableStack()
  const { server, agent } = await owned.use(await Installation.open()).startBoth()
  await server.admin.policies.apply({ documents: makePolicies(ownId, rules) }, deadline(seconds(20)))
  const workload = owned.use(openWorkloadApiClient({ scheme: 'unix', path: agent.socket }, systemClock))
  await eventually(async () => {
    for await (const { identities } of workload.watchX509(effort.stop)) return identities
    throw new Error('the agent has no identity for this process')
  })

  const proxy = clientOf(Authorization, owned.use(connectUnix(agent.socket)))
  const calls = makeCalls(rules)
  const isAllowed = async (call: MadeCall) => (await proxy.check(checkOf(call))).status?.code === 0
  await eventually(async () => demand(await isAllowed(calls[0]!), 'a request that a rule allows is refused'))
  for (const call of calls.slice(0, 64)) demand((await isAllowed(call)) === call.allowed, `${JSON.stringify(call)} was decided otherwise`)
  const open = owned.move()
  return { agent, calls, [Symbol.asyncDispose]: () => open[Symbol.asyncDispose]() }
}

/** A call as Envoy asks about it. */
export function checkOf({ peer, method, path }: MadeCall): CheckRequest {
  const address = (text: string, port: number) => ({
    address: { case: 'socketAddress' as const, value: { address: text, portSpecifier: { case: 'portValue' as const, value: port } } },
  })
  return create(CheckRequestSchema, {
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
  })
}
