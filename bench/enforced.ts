/** From an edit of the policies to its being obeyed: a server, two agents, and real proxies that requests go through. */
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { Agent, get } from 'node:http'
import { createHistogram } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { deadline } from '../src/kernel/clock.ts'
import { seconds } from '../src/kernel/duration.ts'
import { discoveredRbac, startEnvoy } from '../test/support/envoy.ts'
import { peer } from '../tools/peers/find.ts'
import { type Bench, cpuSeconds, demand, type Effort, type Figure, Missing, rounded } from './harness.ts'
import { eventually, Installation, ownId, registerThisProcess } from './installation.ts'
import { makePolicies } from './rules.ts'

const [agents, proxiesPerAgent] = [2, 3]

export const enforced: readonly Bench[] = [
  ...[10, 1000].map((rules) => ({
    name: `policy.enforced${rules === 10 ? '' : rules}`,
    about: `from an edit beside ${rules} rules, sent over the API, to the first request decided by it in the last of ${agents * proxiesPerAgent} Envoys at ${agents} agents; CPU of the server`,
    run: (effort: Effort) => editAndAsk(effort, rules, 'api'),
  })),
  {
    name: 'policy.enforced-command',
    about: 'the same beside 10 rules with `vidimus policy apply`, from the start of the program',
    run: (effort: Effort) => editAndAsk(effort, 10, 'command'),
  },
]

async function editAndAsk(effort: Effort, rules: number, by: 'api' | 'command'): Promise<Figure> {
  const envoy = peer('envoy')
  if (!('path' in envoy)) throw new Missing(`${envoy.missing}: run \`${envoy.command}\``)
  await using owned = new AsyncDisposableStack()
  const installation = owned.use(await Installation.open())
  const server = await installation.startServer()
  const proxies: Proxy[] = []
  for (let index = 0; index < agents; index++) {
    const agent = await installation.startAgent(server.admin, `agent-${index}`)
    await registerThisProcess(server.admin, agent.id)
    for (let one = 0; one < proxiesPerAgent; one++) proxies.push(owned.use(await Proxy.start(envoy.path, agent.socket)))
  }

  const file = installation.path('edit.yaml')
  const apply = async (count: number): Promise<void> => {
    const text = editOf(count)
    if (by === 'api') return void (await server.admin.policies.apply({ documents: [{ name: 'edit.yaml', text }] }, deadline(seconds(20))))
    await writeFile(file, text)
    await run(process.execPath, [installation.cli, 'policy', 'apply', '--server-socket', server.socket, file])
  }
  await server.admin.policies.apply({ documents: makePolicies(ownId, rules) }, deadline(seconds(20)))
  await apply(0)
  await eventually(async () => {
    for (const proxy of proxies) demand(await proxy.allows(pathOf(0)), 'an edit is not enforced')
  })

  const latency = createHistogram()
  const cpuBefore = await cpuSeconds(server.pid)
  let count = 0
  for (const until = performance.now() + effort.seconds * 1000; performance.now() < until || count < fewest;) {
    effort.stop.throwIfAborted()
    count++
    const began = performance.now()
    const done = await Promise.all([apply(count), ...proxies.map((proxy) => proxy.untilAllowed(pathOf(count)))])
    latency.record(Math.round((Math.max(...done.slice(1).map(Number)) - began) * 1e6))
    for (const proxy of proxies) demand(!(await proxy.allows(pathOf(count - 1))), 'what an edit took away is still allowed')
  }
  const cpuAfter = await cpuSeconds(server.pid)
  return {
    value: rounded(latency.mean / 1e6),
    unit: 'ms',
    ...(cpuBefore === undefined || cpuAfter === undefined ? {} : { cpu_us_per_op: rounded(((cpuAfter - cpuBefore) * 1e6) / count) }),
    p50_ms: rounded(latency.percentile(50) / 1e6),
    p99_ms: rounded(latency.percentile(99) / 1e6),
    n: count,
  }
}

/** An Envoy in plain text with the filters of its agent, and one connection to it. */
class Proxy implements AsyncDisposable {
  readonly #owned: AsyncDisposableStack
  readonly #port: number
  readonly #agent: Agent

  private constructor(owned: AsyncDisposableStack, port: number, agent: Agent) {
    this.#owned = owned
    this.#port = port
    this.#agent = agent
  }

  static async start(binary: string, agentSocket: string): Promise<Proxy> {
    await using owned = new AsyncDisposableStack()
    const httpFilters = ['deny', 'allow'].map((name) => discoveredRbac(`vidimus.rbac.${name}`))
    const envoy = owned.use(await startEnvoy(binary, { agentSocket, listeners: [{ name: 'in', httpFilters }] }))
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    owned.defer(() => agent.destroy())
    return new Proxy(owned.move(), envoy.port('in'), agent)
  }

  allows(path: string): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const request = get({ host: '127.0.0.1', port: this.#port, path, agent: this.#agent, timeout: 10_000 }, (response) =>
        response.resume().once('end', () => resolve(response.statusCode === 200)),
      )
      request.once('error', reject).once('timeout', () => request.destroy(new Error('a proxy does not answer')))
    })
  }

  /** Asks again and again; the moment of the first answer that allows. */
  async untilAllowed(path: string): Promise<number> {
    for (const until = performance.now() + 30_000; ; await pause(2)) {
      if (await this.allows(path)) return performance.now()
      demand(performance.now() < until, 'an edit is not enforced within 30 s')
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#owned.disposeAsync()
  }
}

/** Opens one path, to anybody: so the last edit's path is closed. */
const editOf = (count: number): string =>
  `apiVersion: vidimus.dev/v1\nkind: AuthorizationPolicy\nmetadata: { name: edit }\n` +
  `spec: { identities: ['${ownId}'], requirePeer: false, rules: [{ to: [{ operation: { paths: [${pathOf(count)}] } }] }] }\n`
const pathOf = (count: number): string => `/edit-${count}`
/** Below this many edits a percentile says nothing. */
const fewest = 20
const run = promisify(execFile)
