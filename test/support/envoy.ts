/** A real Envoy, started for one test and ended with it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'

export interface EnvoyConfig {
  /** Socket of the agent; the cluster `agent` points at it. */
  readonly agentSocket: string
  readonly listeners: readonly EnvoyListener[]
  /** Listeners as the configuration writes them, for what {@link EnvoyListener} cannot say. */
  readonly ownListeners?: readonly object[]
  /** What the proxy says about itself. */
  readonly nodeMetadata?: Readonly<Record<string, unknown>>
}

/** One listener on a free port of the loopback that answers 200 to whatever its filters let through. */
export interface EnvoyListener {
  readonly name: string
  /** Names of the secrets; left out, the listener is plain text. */
  readonly tls?: { readonly certificate: string; readonly validation: string }
  readonly httpFilters: readonly object[]
  /** As strict policies expect paths, or as Istio does by default. */
  readonly paths?: 'decode-and-merge-slashes' | 'base'
  /** Every request is told to the agent as well. */
  readonly logsToAgent?: true
}

export interface RunningEnvoy extends AsyncDisposable {
  /** The port of a listener. */
  port(listener: string): number
  /** Asks the admin interface. */
  admin(path: string): Promise<string>
  /** The value of a counter or gauge; 0 if there is none. */
  stat(name: string): Promise<number>
  /** The end of what it wrote. */
  log(): string
}

/**
 * Starts Envoy and waits until it is ready: all its listeners have what they need.
 * It asks the kernel to be killed together with the thread that started it, so nothing is left behind when a test run dies.
 */
export async function startEnvoy(binary: string, config: EnvoyConfig): Promise<RunningEnvoy> {
  const folder = await mkdtemp(path.join(tmpdir(), 'vd-envoy-'))
  const addressFile = path.join(folder, 'admin')
  const configFile = path.join(folder, 'envoy.json')
  await writeFile(configFile, JSON.stringify(bootstrap(config)))
  const output: string[] = []
  const child = spawn(
    binary,
    [
      '-c',
      configFile,
      '--use-dynamic-base-id',
      '--disable-hot-restart',
      '--concurrency',
      '1',
      '--admin-address-path',
      addressFile,
      '--log-level',
      'info',
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  child.on('error', (error) => keep(output, error.message))
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => keep(output, chunk.toString()))
  const stop = async () => {
    await ended(child)
    await rm(folder, { recursive: true, force: true })
  }
  try {
    const address = await eventually(
      'its admin address',
      child,
      output,
      async () => (await readFile(addressFile, 'utf8').catch(() => '')).trim() || undefined,
    )
    const admin = async (where: string) => (await get(address, where)).body
    await eventually('ready', child, output, async () => ((await get(address, '/ready')).status === 200 ? true : undefined))
    const ports = readPorts(await admin('/listeners?format=json'))
    return {
      port(listener) {
        const port = ports.get(listener)
        if (port === undefined) throw new Error(`envoy has no listener \`${listener}\``)
        return port
      },
      admin,
      async stat(name) {
        const line = (await admin(`/stats?filter=^${encodeURIComponent(name.replaceAll('.', '\\.'))}$`)).trim()
        return line === '' ? 0 : Number(line.slice(line.lastIndexOf(':') + 1))
      },
      log: () => output.join(''),
      [Symbol.asyncDispose]: stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

/** A message of an Envoy extension, as JSON. */
export function typed(type: string, config: object): object {
  return { '@type': `type.googleapis.com/${type}`, ...config }
}

/** An HTTP RBAC filter that the agent configures, refusing everything until it has. */
export function discoveredRbac(name: string): object {
  return {
    name,
    config_discovery: {
      config_source: fromAgent,
      type_urls: ['type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC'],
      default_config: typed('envoy.extensions.filters.http.rbac.v3.RBAC', { rules: {} }),
      apply_default_config_without_warming: false,
    },
  }
}

/** Any HTTP filter that the agent configures; until it has, an RBAC filter refuses everything in its place. */
export function discovered(name: string, type: string): object {
  const refusing = 'envoy.extensions.filters.http.rbac.v3.RBAC'
  return {
    name,
    config_discovery: {
      config_source: fromAgent,
      type_urls: [...new Set([type, refusing])].map((one) => `type.googleapis.com/${one}`),
      default_config: typed(refusing, { rules: {} }),
      apply_default_config_without_warming: false,
    },
  }
}

/** An access log that goes to the agent, at once. */
const logToAgent: object = {
  name: 'envoy.access_loggers.http_grpc',
  typed_config: typed('envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig', {
    common_config: {
      log_name: 'verdicts',
      transport_api_version: 'V3',
      grpc_service: { envoy_grpc: { cluster_name: 'agent' } },
      buffer_flush_interval: '0.05s',
    },
  }),
}

/** A filter that asks the agent about every request. */
export const askTheAgent: object = {
  name: 'envoy.filters.http.ext_authz',
  typed_config: typed('envoy.extensions.filters.http.ext_authz.v3.ExtAuthz', {
    transport_api_version: 'V3',
    failure_mode_allow: false,
    encode_raw_headers: true,
    include_tls_session: true,
    grpc_service: { envoy_grpc: { cluster_name: 'agent' }, timeout: '5s' },
  }),
}

const fromAgent = {
  resource_api_version: 'V3',
  api_config_source: {
    api_type: 'GRPC',
    transport_api_version: 'V3',
    grpc_services: [
      { envoy_grpc: { cluster_name: 'agent', retry_policy: { retry_back_off: { base_interval: '0.1s', max_interval: '0.5s' } } } },
    ],
  },
}

const loopback = (port: number) => ({ socket_address: { address: '127.0.0.1', port_value: port } })

function bootstrap(config: EnvoyConfig): object {
  return {
    node: { id: 'envoy-under-test', cluster: 'tests', metadata: config.nodeMetadata ?? {} },
    admin: { address: loopback(0) },
    static_resources: {
      clusters: [
        {
          name: 'agent',
          type: 'STATIC',
          connect_timeout: '1s',
          typed_extension_protocol_options: {
            'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': typed('envoy.extensions.upstreams.http.v3.HttpProtocolOptions', {
              explicit_http_config: { http2_protocol_options: {} },
            }),
          },
          load_assignment: {
            cluster_name: 'agent',
            endpoints: [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: config.agentSocket } } } }] }],
          },
        },
      ],
      listeners: [...config.listeners.map(listener), ...(config.ownListeners ?? [])],
    },
  }
}

function listener({ name, tls, httpFilters, paths = 'decode-and-merge-slashes', logsToAgent }: EnvoyListener): object {
  return {
    name,
    address: loopback(0),
    ...(tls && {
      listener_filters: [
        {
          name: 'envoy.filters.listener.tls_inspector',
          typed_config: typed('envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector', {}),
        },
      ],
    }),
    filter_chains: [
      {
        ...(tls && { transport_socket: { name: 'envoy.transport_sockets.tls', typed_config: downstreamTls(tls) } }),
        filters: [
          {
            name: 'envoy.filters.network.http_connection_manager',
            typed_config: typed('envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager', {
              stat_prefix: name,
              codec_type: 'AUTO',
              normalize_path: true,
              ...(paths === 'decode-and-merge-slashes' && {
                merge_slashes: true,
                path_with_escaped_slashes_action: 'UNESCAPE_AND_FORWARD',
              }),
              use_remote_address: true,
              ...(logsToAgent && { access_log: [logToAgent] }),
              route_config: {
                virtual_hosts: [
                  {
                    name: 'all',
                    domains: ['*'],
                    routes: [{ match: { prefix: '/' }, direct_response: { status: 200, body: { inline_string: 'ok\n' } } }],
                  },
                ],
              },
              http_filters: [
                ...httpFilters,
                { name: 'envoy.filters.http.router', typed_config: typed('envoy.extensions.filters.http.router.v3.Router', {}) },
              ],
            }),
          },
        ],
      },
    ],
  }
}

function downstreamTls(tls: NonNullable<EnvoyListener['tls']>): object {
  return typed('envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext', {
    require_client_certificate: true,
    common_tls_context: {
      alpn_protocols: ['h2', 'http/1.1'],
      tls_certificate_sds_secret_configs: [{ name: tls.certificate, sds_config: fromAgent }],
      validation_context_sds_secret_config: { name: tls.validation, sds_config: fromAgent },
    },
  })
}

/** Asks again and again until there is an answer, the process has ended, or 20 seconds have passed. */
async function eventually<T>(what: string, child: ChildProcess, output: readonly string[], ask: () => Promise<T | undefined>): Promise<T> {
  const until = performance.now() + 20_000
  for (;;) {
    const answer = await ask().catch(() => undefined)
    if (answer !== undefined) return answer
    const gone = child.exitCode ?? child.signalCode
    if (gone !== null) throw new Error(`envoy ended with ${gone} before it was ${what}:\n${output.join('').slice(-4000)}`)
    if (performance.now() > until) throw new Error(`envoy did not become ${what} within 20 s:\n${output.join('').slice(-4000)}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

function readPorts(json: string): Map<string, number> {
  const { listener_statuses: statuses = [] } = JSON.parse(json) as {
    listener_statuses?: { name: string; local_address: { socket_address: { port_value: number } } }[]
  }
  return new Map(statuses.map((status) => [status.name, status.local_address.socket_address.port_value]))
}

async function get(address: string, where: string): Promise<{ status: number; body: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>()
  http
    .get(`http://${address}${where}`, { agent: false, timeout: 5000 }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
    })
    .on('error', reject)
  return await promise
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
  await exit
  clearTimeout(timer)
}

function keep(output: string[], text: string): void {
  output.push(text)
  while (output.length > 2000) output.shift()
}
