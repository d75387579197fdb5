/** The workloads of the demo: services behind sidecars, a report without one, and calls between them. */
import { createServer, request, type Server } from 'node:http'
import { bootstrap, type Sidecar } from './envoy.ts'
import { freePort, repository, type Running, type Stage } from './stage.ts'
import { join } from 'node:path'

export const trustDomain = 'example.org'
export const idOf = (name: string): string => `spiffe://${trustDomain}/${name}`

/** What the sidecar of the called workload wrote about a call. */
interface AccessLine {
  readonly listener: string
  readonly call: string
  readonly code: number
  readonly details: string
  readonly rbac?: { readonly enforced_effective_policy_id?: string }
  readonly peerSerial: string
}

export interface Outcome {
  readonly status: number
  /** As the sidecar of the called workload says; `none` if no rule matched. */
  readonly rule: string
  readonly peerSerial: string
}

/** Names of the workloads that have a sidecar, and whom each calls. */
const calls: Readonly<Record<string, readonly string[]>> = { web: ['orders', 'payments'], orders: ['payments'], payments: [] }
export const sidecarNames = Object.keys(calls)

/** Everything that runs, and how to call through it. */
export class Mesh implements AsyncDisposable {
  readonly #sidecars: ReadonlyMap<string, Sidecar>
  readonly #services: readonly Server[]
  readonly #lines = new Map<string, AccessLine>()
  readonly #report: Running
  #count = 0

  private constructor(sidecars: ReadonlyMap<string, Sidecar>, services: readonly Server[], report: Running, running: readonly Running[]) {
    this.#sidecars = sidecars
    this.#services = services
    this.#report = report
    for (const sidecar of running) sidecar.onLine((line) => this.#note(line))
  }

  /** Starts services, sidecars (Envoy if there is one) and the report. Resolves when each has its identity. */
  static async start(stage: Stage, agentSocket: string, envoy: string | undefined): Promise<Mesh> {
    const services = await Promise.all(sidecarNames.map(service))
    const sidecars = await plan(agentSocket, services)
    const running = await Promise.all([...sidecars.values()].map((sidecar) => startSidecar(stage, sidecar, envoy)))
    const program = await stage.runtime('report', process.execPath)
    const report = stage.start('report', program, [join(repository, 'examples/demo/report.ts')], {
      SPIFFE_ENDPOINT_SOCKET: `unix://${agentSocket}`,
    })
    const mesh = new Mesh(sidecars, services, report, running)
    await Promise.all([
      report.line((line) => line.includes('"event":"identity"')),
      ...[...sidecars.values()].map((sidecar) => ready(sidecar, envoy !== undefined)),
    ])
    return mesh
  }

  get report(): Running {
    return this.#report
  }

  sidecar(name: string): Sidecar {
    return this.#sidecars.get(name)!
  }

  /** One call from a workload to another, through whatever stands beside both. */
  async call(from: string, to: string, method: string, path: string): Promise<Outcome> {
    const id = `call-${++this.#count}`
    const status =
      from === 'report' ? await this.#callByReport(id, to, method, path) : await this.#callThroughSidecar(id, from, to, method, path)
    const line = await this.#lineOf(id)
    const denied = /rbac_access_denied_matched_policy\[(.*)\]$/.exec(line?.details ?? '')?.[1]
    return { status, rule: denied ?? line?.rbac?.enforced_effective_policy_id ?? 'none', peerSerial: line?.peerSerial ?? '' }
  }

  /** Four callers, as fast as they can, until `until`: what came back. */
  async callUntil(
    until: number,
    from: string,
    to: string,
    method: string,
    path: string,
  ): Promise<{ requests: number; failures: number; serials: Set<string> }> {
    const result = { requests: 0, failures: 0, serials: new Set<string>() }
    const caller = async () => {
      while (Date.now() < until) {
        const { status, peerSerial } = await this.call(from, to, method, path)
        result.requests++
        if (status !== 200) result.failures++
        if (peerSerial !== '') result.serials.add(peerSerial)
      }
    }
    await Promise.all([caller(), caller(), caller(), caller()])
    return result
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#services.map((server) => new Promise((done) => server.close(done).closeAllConnections())))
  }

  #callThroughSidecar(id: string, from: string, to: string, method: string, path: string): Promise<number> {
    const port = this.sidecar(from).upstreams.find(({ name }) => name === to)!.listenPort
    return new Promise((done) => {
      const sent = request({ host: '127.0.0.1', port, method, path, headers: { 'x-demo-call': id } }, (answer) => {
        answer.resume().once('end', () => done(answer.statusCode ?? 0))
      })
      sent.setTimeout(5000, () => sent.destroy())
      sent.once('error', () => done(0)).end()
    })
  }

  async #callByReport(id: string, to: string, method: string, path: string): Promise<number> {
    const answer = this.#report.line((line) => line.includes(`"id":"${id}"`))
    this.#report.send(`${id} ${method} https://127.0.0.1:${this.sidecar(to).inboundPort}${path} ${idOf(to)}`)
    return (JSON.parse(await answer) as { status: number }).status
  }

  #note(line: string): void {
    if (!line.startsWith('{')) return
    const access = JSON.parse(line) as AccessLine
    if (access.listener === 'inbound' && access.call) this.#lines.set(access.call, access)
  }

  /** The line of a call, which the sidecar may write a moment after its answer; nothing if the call never got there. */
  async #lineOf(id: string): Promise<AccessLine | undefined> {
    for (let tried = 0; tried < 100 && !this.#lines.has(id); tried++) await new Promise((done) => setTimeout(done, 5))
    const line = this.#lines.get(id)
    this.#lines.delete(id)
    return line
  }
}

async function plan(agentSocket: string, services: readonly Server[]): Promise<Map<string, Sidecar>> {
  const inbound = new Map<string, number>()
  for (const name of sidecarNames) inbound.set(name, await freePort())
  const sidecars = new Map<string, Sidecar>()
  for (const [index, name] of sidecarNames.entries()) {
    const address = services[index]!.address()
    sidecars.set(name, {
      name,
      agentSocket,
      adminPort: await freePort(),
      inboundPort: inbound.get(name)!,
      servicePort: typeof address === 'object' && address ? address.port : 0,
      upstreams: await Promise.all(
        calls[name]!.map(async (to) => ({ name: to, listenPort: await freePort(), port: inbound.get(to)!, spiffeId: idOf(to) })),
      ),
    })
  }
  return sidecars
}

async function startSidecar(stage: Stage, sidecar: Sidecar, envoy: string | undefined): Promise<Running> {
  const name = `${sidecar.name}-envoy`
  const program = await stage.runtime(name, envoy ?? process.execPath)
  if (envoy === undefined) return stage.start(name, program, [join(repository, 'examples/demo/node-sidecar.ts'), JSON.stringify(sidecar)])
  const config = await stage.write(`envoy/${sidecar.name}.json`, JSON.stringify(bootstrap(sidecar), null, 2))
  return stage.start(name, program, [
    '-c',
    config,
    '--use-dynamic-base-id',
    '--disable-hot-restart',
    '--concurrency',
    '1',
    '--log-level',
    'warning',
    '--file-flush-interval-msec',
    '20',
  ])
}

/** A sidecar is ready when it takes mutual TLS with a certificate of its own and has its authorization filters. */
async function ready(sidecar: Sidecar, isEnvoy: boolean): Promise<void> {
  for (let tried = 0; tried < 400; tried++) {
    if (isEnvoy ? await envoyReady(sidecar) : await listens(sidecar.inboundPort)) return
    await new Promise((done) => setTimeout(done, 50))
  }
  throw new Error(`${sidecar.name}-envoy did not get its certificate and its policies within 20 s`)
}

async function envoyReady({ adminPort }: Sidecar): Promise<boolean> {
  try {
    const [state, certificates, stats] = await Promise.all(
      ['ready', 'certs', 'stats?filter=extension_config_discovery.*config_reload$'].map(async (path) =>
        (await fetch(`http://127.0.0.1:${adminPort}/${path}`)).text(),
      ),
    )
    const reloads = [...(stats ?? '').matchAll(/config_reload: (\d+)/g)]
    return (
      state!.startsWith('LIVE') &&
      certificates!.includes(`spiffe://${trustDomain}/`) &&
      reloads.length >= 2 &&
      reloads.every(([, count]) => count !== '0')
    )
  } catch {
    return false
  }
}

function listens(port: number): Promise<boolean> {
  return fetch(`http://127.0.0.1:${port}`).then(
    () => true,
    (error: unknown) =>
      !(error instanceof Error && error.cause instanceof Error && 'code' in error.cause && error.cause.code === 'ECONNREFUSED'),
  )
}

/** The workload itself: answers everything with 200. Whether a call may come this far is not its business. */
function service(name: string): Promise<Server> {
  return new Promise((done) => {
    const server = createServer((_request, response) =>
      response.writeHead(200, { 'content-type': 'text/plain' }).end(`${name} says hello\n`),
    )
    server.listen(0, '127.0.0.1', () => done(server))
  })
}
