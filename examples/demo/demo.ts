/**
 * The demo: a trust domain from nothing to mutual TLS, a policy that refuses, a rotation without a failed request, and an identity withdrawn.
 * `npm run demo` ends by itself; `npm run demo -- --keep` stays up and says what to try.
 */
import { realpathSync } from 'node:fs'
import { cp, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { peer } from '../../tools/peers/find.ts'
import { provide } from '../../tools/peers/provide.ts'
import { idOf, Mesh, sidecarNames, trustDomain } from './mesh.ts'
import { freePort, readText, repository, Stage, vidimus } from './stage.ts'

const svidLifetime = 20
const began = Date.now()
const summary: string[] = []

async function play(keep: boolean): Promise<void> {
  await using stage = await Stage.open()
  const envoy = await findEnvoy()
  const sockets = await startControlPlane(stage)
  await registerWorkloads(stage, sockets)
  await applyPolicies(stage, sockets)
  await using mesh = await startMesh(stage, sockets, envoy)
  await callEverybody(mesh)
  await changeThePolicy(stage, sockets, mesh)
  await rotate(mesh)
  if (keep) await stayUp(stage, sockets, mesh)
  else await withdrawAnIdentity(sockets, mesh)
  tell('')
  for (const line of summary) tell(line)
  tell(`everything took ${((Date.now() - began) / 1000).toFixed(1)} s; nothing is left behind`)
}

interface Sockets {
  readonly server: string
  readonly agent: string
  readonly agentAdmin: string
}

async function findEnvoy(): Promise<string | undefined> {
  heading('Envoy')
  const outcome = await provide('envoy', tell)
  if ('reason' in outcome) {
    tell(`Envoy cannot be had here (${outcome.reason}): Node sidecars with the client library take its place, same policies, same table`)
    return undefined
  }
  const found = peer('envoy')
  if (!('path' in found)) throw new Error(`${found.missing}: ${found.command}`)
  tell(`a real Envoy is here (${outcome.fresh ? 'installed' : 'from the cache'}, ${outcome.seconds.toFixed(1)} s)`)
  return realpathSync(found.path)
}

async function startControlPlane(stage: Stage): Promise<Sockets> {
  heading('a server and an agent')
  const port = await freePort()
  const server = stage.path('server.sock')
  const serverConfig = await stage.write(
    'server.yaml',
    `trustDomain: ${trustDomain}\ndataDirectory: ${stage.path('server')}\nadminSocket: ${server}\nlisten: { host: 127.0.0.1, port: ${port} }\nsvid: { x509: ${svidLifetime}s }\nlog: { format: json }\n`,
  )
  const serverStarts = Date.now()
  await stage.startVidimus('server', ['server', 'run', '--config', serverConfig]).line((line) => line.includes('"server ready"'))
  tell(`vidimus server is ready after ${Date.now() - serverStarts} ms: trust domain ${trustDomain}, SQLite, keys on disk, self-signed`)

  const { pem } = await vidimus<{ pem: string }>('bundle', 'show', '--server-socket', server)
  const { token } = await vidimus<{ token: string }>('token', 'generate', '--server-socket', server)
  const agent = stage.path('agent.sock')
  const agentAdmin = stage.path('admin.sock')
  const agentConfig = await stage.write(
    'agent.yaml',
    `trustDomain: ${trustDomain}\ndataDirectory: ${stage.path('agent')}\nsocket: ${agent}\nadminSocket: ${agentAdmin}\nserver: { host: 127.0.0.1, port: ${port} }\n` +
      `trustBundle: ${await stage.write('bundle.pem', pem)}\njoinToken: { file: ${await stage.write('token', token)} }\nsyncInterval: 1s\nworkloadAttestors: [{ kind: unix, discoverWorkloadPath: true }]\nlog: { format: json }\n`,
  )
  const agentStarts = Date.now()
  await stage.startVidimus('agent', ['agent', 'run', '--config', agentConfig]).line((line) => line.includes('"agent ready"'))
  tell(`vidimus agent is ready after ${Date.now() - agentStarts} ms: joined with a one-time token`)
  return { server, agent, agentAdmin }
}

async function registerWorkloads(stage: Stage, { server }: Sockets): Promise<void> {
  heading('workloads, told apart by what the kernel says about them')
  const { agents } = await vidimus<{ agents: readonly { id: string }[] }>('agent', 'list', '--server-socket', server)
  for (const name of [...sidecarNames, 'report']) {
    const selector = `unix:path:${join(stage.bin, name === 'report' ? name : `${name}-envoy`)}`
    await vidimus(
      'entry',
      'create',
      '--server-socket',
      server,
      '--spiffe-id',
      idOf(name),
      '--parent-id',
      agents[0]!.id,
      '--selector',
      selector,
    )
    tell(`${idOf(name).padEnd(30)} ${selector.replace(repository, '.')}`)
  }
}

async function applyPolicies(stage: Stage, { server }: Sockets): Promise<void> {
  heading('policies')
  await cp(join(repository, 'policies/demo'), stage.path('policies'), { recursive: true })
  const started = Date.now()
  await vidimus('policy', 'apply', stage.path('policies'), '--server-socket', server)
  const files = (await readdir(stage.path('policies'))).filter((name) => name.endsWith('.yaml') && name !== 'tests.yaml')
  tell(`applied ${files.join(', ')} in ${Date.now() - started} ms; nothing else is allowed`)
}

async function startMesh(stage: Stage, { agent }: Sockets, envoy: string | undefined): Promise<Mesh> {
  heading('proxies and a report')
  const started = Date.now()
  const mesh = await Mesh.start(stage, agent, envoy)
  const proxies = sidecarNames.map((name) => `${name}-envoy`).join(', ')
  tell(
    `${proxies} (${envoy ? 'Envoy' : 'Node'}) and report (Node, no proxy) hold certificate, bundle and filter after ${Date.now() - started} ms`,
  )
  return mesh
}

/** Caller, called, method, path, and what the policies in policies/demo say. */
const table: readonly [from: string, to: string, method: string, path: string, allowed: boolean][] = [
  ['web', 'orders', 'GET', '/orders', true],
  ['web', 'orders', 'GET', '/orders/7', true],
  ['web', 'orders', 'POST', '/orders', true],
  ['web', 'orders', 'DELETE', '/orders/7', false],
  ['web', 'orders', 'GET', '/admin', false],
  ['web', 'orders', 'GET', '/orders/..%2Fadmin', false],
  ['web', 'payments', 'POST', '/charge', false],
  ['orders', 'payments', 'POST', '/charge', true],
  ['report', 'orders', 'GET', '/orders', true],
  ['report', 'orders', 'POST', '/orders', false],
]

async function callEverybody(mesh: Mesh): Promise<void> {
  heading('who may call whom')
  tell('CALLER  CALLED    METHOD  PATH                 VERDICT  BY')
  let right = 0
  for (const [from, to, method, path, allowed] of table) {
    const { status, rule } = await mesh.call(from, to, method, path)
    const verdict = status === 200 ? 'allowed' : status === 403 ? 'refused' : `status ${status}`
    const [, policy, index] = /policy\[(.+)\]-rule\[(\d+)\]/.exec(rule) ?? []
    const by = policy === undefined ? 'no rule allows it' : `${policy}, rule ${index}`
    tell(`${from.padEnd(7)} ${to.padEnd(9)} ${method.padEnd(7)} ${path.padEnd(20)} ${verdict.padEnd(8)} ${by}`)
    if ((status === 200) === allowed && (allowed || status === 403)) right++
  }
  if (right !== table.length) throw new Error(`${table.length - right} of ${table.length} calls were not decided as the policies say`)
  summary.push(`${table.length} calls decided in the proxies as the policies say, each with the rule that decided`)
}

/** `report` may read orders; then it may not; then it may again. */
async function changeThePolicy(stage: Stage, { server }: Sockets, mesh: Mesh): Promise<void> {
  heading('a policy changes while everything runs')
  const file = 'policies/report-reads-orders.yaml'
  const before = await readText(stage.path(file))
  const apply = async (text: string, want: number) => {
    await stage.write(file, text)
    const started = Date.now()
    await vidimus('policy', 'apply', stage.path('policies'), '--server-socket', server)
    const applied = Date.now()
    while ((await mesh.call('report', 'orders', 'GET', '/orders')).status !== want) {
      if (Date.now() - started > 15_000) throw new Error('the verdict did not change within 15 s')
    }
    return { command: applied - started, afterwards: Date.now() - applied }
  }
  const refused = await apply(before.replace('methods: [GET]', 'methods: [HEAD]'), 403)
  tell(
    `report GET /orders: allowed -> refused, seen ${refused.afterwards} ms after \`vidimus policy apply\` returned (the command took ${refused.command} ms)`,
  )
  const allowed = await apply(before, 200)
  tell(`report GET /orders: refused -> allowed, seen ${allowed.afterwards} ms after \`vidimus policy apply\` returned`)
  summary.push(`a policy change reached the proxies within ${Math.max(refused.afterwards, allowed.afterwards)} ms, without a restart`)
}

async function rotate(mesh: Mesh): Promise<void> {
  const seconds = svidLifetime + 4
  heading(`two rotations under load (SVIDs live ${svidLifetime} s, half of it until they are renewed)`)
  const { requests, failures, serials } = await mesh.callUntil(Date.now() + seconds * 1000, 'web', 'orders', 'GET', '/orders')
  tell(`web -> orders for ${seconds} s through both proxies: ${requests} requests, ${failures} failures`)
  tell(`certificates that web presented: ${[...serials].map((serial) => serial.slice(0, 16)).join(', ')}`)
  if (failures > 0 || serials.size < 3)
    throw new Error(`expected no failures and at least 3 serial numbers, got ${failures} and ${serials.size}`)
  summary.push(`${requests} requests over ${serials.size - 1} rotations, ${failures} failures`)
}

async function withdrawAnIdentity({ server, agentAdmin }: Sockets, mesh: Mesh): Promise<void> {
  heading('an identity is withdrawn')
  const { entries } = await vidimus<{ entries: readonly { id: string; spiffeId: string }[] }>(
    'entry',
    'show',
    '--server-socket',
    server,
    '--spiffe-id',
    idOf('report'),
  )
  const gone = mesh.report.line((line) => line.includes('"event":"no-identity"'))
  await vidimus('entry', 'delete', entries[0]!.id, '--server-socket', server)
  const deleted = Date.now()
  await gone
  const took = Date.now() - deleted
  tell(`the entry of report is deleted; its stream ended with \`no identity issued\` ${took} ms later`)
  const { status } = await mesh.call('report', 'orders', 'GET', '/orders')
  tell(`report GET /orders: ${status === 0 ? 'it has no certificate to present any more' : `status ${status}`}`)
  const explained = await vidimus<{ verdict: string }>(
    'explain',
    'workload',
    '--agent-admin-socket',
    agentAdmin,
    '--pid',
    String(mesh.report.pid),
  )
  tell(`vidimus explain workload --pid ${mesh.report.pid}: ${explained.verdict}`)
  if (status !== 0) throw new Error('report could still call after its entry was deleted')
  summary.push(`a deleted entry took the identity away after ${took} ms`)
}

async function stayUp(stage: Stage, sockets: Sockets, mesh: Mesh): Promise<void> {
  heading('staying up; try')
  const web = mesh.sidecar('web')
  for (const { name, listenPort } of web.upstreams) tell(`curl -i http://127.0.0.1:${listenPort}/orders            # as web, to ${name}`)
  tell(`npm run -s vidimus -- entry show --server-socket ${sockets.server}`)
  tell(`npm run -s vidimus -- explain workload --agent-admin-socket ${sockets.agentAdmin} --pid ${mesh.report.pid}`)
  tell(
    `$EDITOR ${stage.path('policies')}/*.yaml && npm run -s vidimus -- policy apply ${stage.path('policies')} --server-socket ${sockets.server}`,
  )
  tell(`curl -s http://127.0.0.1:${web.adminPort}/certs                  # Envoy's own view`)
  tell('Ctrl-C ends everything')
  await new Promise<void>((done) => process.once('SIGINT', () => done()).once('SIGTERM', () => done()))
}

function heading(text: string): void {
  tell(`\n== ${text}`)
}

function tell(text: string): void {
  process.stdout.write(`${text}\n`)
}

await play(process.argv.includes('--keep'))
