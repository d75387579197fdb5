/** One Envoy that holds the filters of many policy sets at once, a route or a listener each, and a client that asks it. */
import net from 'node:net'
import tls from 'node:tls'
import type { HeldIdentity } from '../../src/agent/identities.ts'
import type { FilterChain } from '../../src/authz/filter-chain.ts'
import type { MtlsMode, PolicyMode } from '../../src/policy/policy-set.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { heldIdentity, type LocalAgent } from '../sds/local-agent.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { startEnvoy, typed, type RunningEnvoy } from './envoy.ts'

export interface EnforcedSet {
  /** Told to the proxy by the header `x-set`. */
  readonly id: string
  readonly mode: PolicyMode
  readonly chain: FilterChain
  /** With listeners of its own for plain connections. */
  readonly tcp: boolean
  /** With a listener of its own for HTTP, at a port that was free. */
  readonly own?: OwnListener | undefined
}

export interface OwnListener {
  readonly port: number
  /** Which connections it takes, as Istio's listeners do: `STRICT` those with mTLS, `DISABLE` those without, `PERMISSIVE` both. */
  readonly mtls: MtlsMode
}

export interface Asked {
  /** 0 where the connection ended without an answer, or was not taken. */
  readonly status: number
  /** What AUDIT rules left for the access log. */
  readonly audit: boolean
  /** Where the request arrived. */
  readonly port: number
}

export interface From {
  readonly client?: HeldIdentity | undefined
  readonly sni?: string | undefined
  /** An address of the loopback. */
  readonly sourceIp?: string | undefined
}

export interface RuleEnvoy extends AsyncDisposable {
  readonly envoy: RunningEnvoy
  ask(set: EnforcedSet, from: From, lines: readonly string[]): Promise<Asked>
  /** Whether a connection is let through that sends a byte. */
  connect(set: EnforcedSet, from: From): Promise<{ readonly open: boolean; readonly port: number }>
}

/** Ports that nobody listens on just now, none of them given twice: rules about ports must know them before the proxy starts. */
export async function freePorts(count: number): Promise<number[]> {
  const servers: net.Server[] = []
  const ports: number[] = []
  while (ports.length < count) {
    const server = net.createServer()
    servers.push(server)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as net.AddressInfo
    if (!given.has(port)) ports.push(port)
    given.add(port)
  }
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

const given = new Set<number>()

/** `httpPorts`: one for each of {@link httpListeners}. `agentSocket` answers what CUSTOM rules ask. */
export async function startRuleEnvoy(
  binary: string,
  {
    local,
    sets,
    httpPorts,
    agentSocket,
  }: { local: LocalAgent; sets: readonly EnforcedSet[]; httpPorts: readonly number[]; agentSocket: string },
): Promise<RuleEnvoy> {
  const server = await heldIdentity(local.ca, parseSpiffeId('spiffe://example.org/ns/shop/sa/server'))
  const withTls = { name: 'envoy.transport_sockets.tls', typed_config: downstream(local, server) }
  const tcp = sets.filter((set) => set.tcp)
  const tcpPorts = await freePorts(tcp.length * 2)
  const portOf = new Map(
    tcp.flatMap((set, index) => [[`${set.id}/tls`, tcpPorts[index * 2]!] as const, [`${set.id}/plain`, tcpPorts[index * 2 + 1]!] as const]),
  )
  const envoy = await startEnvoy(binary, {
    agentSocket,
    listeners: [],
    ownListeners: [
      ...httpListeners.map(({ mode, over }, index) => {
        const chain = [
          manager(
            sets.filter((set) => set.mode === mode && !set.own),
            mode,
          ),
        ]
        return listener(`http-${mode}-${over}`, httpPorts[index]!, chain, over === 'tls' ? withTls : undefined)
      }),
      ...sets.flatMap((set) => (set.own ? [ownListener(set, set.own, withTls)] : [])),
      ...tcp.flatMap((set) =>
        (['tls', 'plain'] as const).map((over) =>
          listener(
            `${set.id}/${over}`,
            portOf.get(`${set.id}/${over}`)!,
            [
              ...set.chain.network,
              { name: 'envoy.filters.network.echo', typed_config: typed('envoy.extensions.filters.network.echo.v3.Echo', {}) },
            ],
            over === 'tls' ? withTls : undefined,
          ),
        ),
      ),
    ],
  })
  const connections = new Map<string, Connection>()
  return {
    envoy,
    async ask(set, from, lines) {
      const over = from.client ? 'tls' : 'plain'
      const port = set.own?.port ?? httpPorts[httpListeners.findIndex((one) => one.mode === set.mode && one.over === over)]!
      const key = [port, from.client?.spiffeId, from.client?.chainPem.length, from.sni, from.sourceIp].join(' ')
      const connection = connections.get(key) ?? new Connection(() => open(local, from, port))
      connections.set(key, connection)
      const [first, ...rest] = lines
      const answer = connection.ask([first!, ...rest, `x-set: ${set.id}`])
      return { ...(await (set.own ? answer.catch(() => notTaken) : answer)), port }
    },
    async connect(set, from) {
      const port = portOf.get(`${set.id}/${from.client ? 'tls' : 'plain'}`)!
      return { open: await echoes(open(local, from, port)), port }
    },
    async [Symbol.asyncDispose]() {
      for (const connection of connections.values()) connection.end()
      await envoy[Symbol.asyncDispose]()
    },
  }
}

export const httpListeners = (['strict', 'istio'] as const).flatMap((mode) => (['tls', 'plain'] as const).map((over) => ({ mode, over })))

const notTaken = { status: 0, audit: false } as const

function listener(name: string, port: number, filters: readonly object[], transport: object | undefined): object {
  return {
    name,
    address: { socket_address: { address: '127.0.0.1', port_value: port } },
    ...(transport && { listener_filters: [tlsInspector] }),
    filter_chains: [{ ...(transport && { transport_socket: transport }), filters }],
  }
}

/** In strict mode it takes every connection, and the filters refuse what they must; in istio mode it is made as Istio makes it. */
function ownListener(set: EnforcedSet, { port, mtls }: OwnListener, withTls: object): object {
  const filters = [manager([set], set.mode)]
  const taken = set.mode === 'strict' ? 'PERMISSIVE' : mtls
  const chains = [
    { mtls: true, chain: { filter_chain_match: { transport_protocol: 'tls' }, transport_socket: withTls, filters } },
    { mtls: false, chain: { filter_chain_match: { transport_protocol: 'raw_buffer' }, filters } },
  ]
  return {
    name: set.id,
    address: { socket_address: { address: '127.0.0.1', port_value: port } },
    listener_filters: [tlsInspector],
    filter_chains: chains.filter((one) => taken === 'PERMISSIVE' || one.mtls === (taken === 'STRICT')).map(({ chain }) => chain),
  }
}

const tlsInspector = {
  name: 'envoy.filters.listener.tls_inspector',
  typed_config: typed('envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector', {}),
}

function manager(sets: readonly EnforcedSet[], mode: PolicyMode): object {
  const reading = tokenFilterOf(sets)
  const rbac = (name: string) => ({ name, typed_config: typed('envoy.extensions.filters.http.rbac.v3.RBAC', {}) })
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: typed('envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager', {
      stat_prefix: mode,
      normalize_path: true,
      ...(mode === 'strict' && { merge_slashes: true, path_with_escaped_slashes_action: 'UNESCAPE_AND_FORWARD' }),
      use_remote_address: true,
      xff_num_trusted_hops: 1,
      route_config: { virtual_hosts: [{ name: 'all', domains: ['*'], routes: sets.map((set) => route(set, reading !== undefined)) }] },
      http_filters: [
        {
          name: 'meta',
          typed_config: typed('envoy.extensions.filters.http.header_to_metadata.v3.Config', {
            request_rules: [{ header: 'x-meta', on_header_present: { metadata_namespace: metadataFilter, key: 'meta', type: 'STRING' } }],
          }),
        },
        ...slots.slice(0, 2).map(rbac),
        {
          name: 'ask',
          typed_config: typed('envoy.extensions.filters.http.ext_authz.v3.ExtAuthz', {
            transport_api_version: 'V3',
            grpc_service: { envoy_grpc: { cluster_name: 'agent' }, timeout: '5s' },
            filter_enabled_metadata: {
              filter: 'envoy.filters.http.rbac',
              path: [{ key: 'istio_ext_authz_shadow_effective_policy_id' }],
              value: { string_match: { prefix: 'istio-ext-authz-' } },
            },
          }),
        },
        ...(reading ? [reading] : []),
        ...slots.slice(2).map(rbac),
        { name: 'envoy.filters.http.router', typed_config: typed('envoy.extensions.filters.http.router.v3.Router', {}) },
      ],
    }),
  }
}

export const metadataFilter = 'envoy.filters.http.header_to_metadata'
/** Filters of which every set has its own. */
const slots = ['custom', 'custom-2', 'audit', 'deny', 'allow'] as const

interface Written {
  readonly name: string
  readonly typed_config: {
    readonly rules?: { readonly action: string }
    readonly shadow_rules?: { readonly action: string }
    readonly shadow_rules_stat_prefix?: string
  }
}

/** Every set that reads tokens reads the same ones here. */
function tokenFilterOf(sets: readonly EnforcedSet[]): object | undefined {
  return sets
    .flatMap(({ chain }) => chain.http as unknown as readonly Written[])
    .find(({ name }) => name === 'envoy.filters.http.jwt_authn')
}

function route({ id, chain }: EnforcedSet, tokens: boolean): object {
  const filters = chain.http as unknown as readonly Written[]
  const own: Record<string, object> = {}
  const perRoute = (config: object) => typed('envoy.extensions.filters.http.rbac.v3.RBACPerRoute', config)
  for (const { name, typed_config } of filters) {
    if (name !== 'envoy.filters.http.rbac') continue
    const { rules, shadow_rules: shadow, shadow_rules_stat_prefix: prefix } = typed_config
    const action = (rules ?? shadow)!.action
    const policies = JSON.stringify(rules ?? {})
    const custom = prefix === 'istio_ext_authz_' || policies.includes('due-to-bad-CUSTOM-action')
    const slot = custom ? (own['custom'] ? 'custom-2' : 'custom') : { LOG: 'audit', DENY: 'deny', ALLOW: 'allow' }[action]!
    const { '@type': _, ...config } = typed_config as Record<string, unknown>
    own[slot] = perRoute({ rbac: config })
  }
  const reads = filters.some(({ name }) => name === 'envoy.filters.http.jwt_authn')
  return {
    match: { prefix: '/', headers: [{ name: 'x-set', string_match: { exact: id } }] },
    direct_response: { status: 200, body: { inline_string: 'ok\n' } },
    response_headers_to_add: [{ header: { key: 'x-audit', value: '%DYNAMIC_METADATA(envoy.common:access_log_hint)%' } }],
    typed_per_filter_config: {
      ...Object.fromEntries(slots.map((slot) => [slot, perRoute({})])),
      ...own,
      ...(tokens &&
        !reads && {
          'envoy.filters.http.jwt_authn': typed('envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig', { disabled: true }),
        }),
    },
  }
}

function downstream(local: LocalAgent, server: HeldIdentity): object {
  const inline = (text: string) => ({ inline_string: text })
  const trusted = (name: string, ca: LocalAgent['ca']) => ({ name, trust_bundle: inline(formatPem('CERTIFICATE', ca.certificate.raw)) })
  return typed('envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext', {
    require_client_certificate: true,
    common_tls_context: {
      alpn_protocols: ['http/1.1'],
      tls_certificates: [{ certificate_chain: inline(server.chainPem), private_key: inline(server.privateKeyPem) }],
      validation_context: {
        custom_validator_config: {
          name: 'envoy.tls.cert_validator.spiffe',
          typed_config: typed('envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig', {
            trust_domains: [trusted('example.org', local.ca), trusted('other.test', local.foreign)],
          }),
        },
      },
    },
  })
}

function open(local: LocalAgent, { client, sni, sourceIp }: From, port: number): net.Socket {
  const at = { host: '127.0.0.1', port, ...(sourceIp !== undefined && { localAddress: sourceIp }) }
  if (!client) return net.connect(at)
  return tls.connect({
    socket: net.connect(at),
    ca: formatPem('CERTIFICATE', local.ca.certificate.raw),
    cert: client.chainPem,
    key: client.privateKeyPem,
    ...(sni !== undefined && { servername: sni }),
    checkServerIdentity: () => undefined,
    ALPNProtocols: ['http/1.1'],
  })
}

/** Requests one after another over one connection, which is opened again when the proxy has closed it. */
class Connection {
  readonly #open: () => net.Socket
  #socket: net.Socket | undefined

  constructor(openSocket: () => net.Socket) {
    this.#open = openSocket
  }

  async ask(lines: readonly string[]): Promise<{ status: number; audit: boolean }> {
    const socket = this.#socket && !this.#socket.destroyed ? this.#socket : this.#fresh()
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    let text = ''
    const onData = (chunk: Buffer) => {
      text += chunk.toString('latin1')
      const end = text.indexOf('\r\n\r\n')
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(text)?.[1] ?? 0)
      if (end !== -1 && (text.length >= end + 4 + length || lines[0]!.startsWith('HEAD'))) resolve(text)
    }
    const onEnd = () => resolve(text)
    socket.on('data', onData).once('close', onEnd).once('error', reject)
    socket.write([...lines, '', ''].join('\r\n'), 'latin1')
    try {
      const answer = await promise
      if (/\r\nconnection: close/i.test(answer)) socket.destroy()
      return { status: Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 0), audit: /\r\nx-audit: true/i.test(answer) }
    } finally {
      socket.off('data', onData).off('close', onEnd).off('error', reject)
    }
  }

  #fresh(): net.Socket {
    const socket = this.#open()
    socket.setTimeout(10_000, () => socket.destroy(new Error('the proxy did not answer within 10 s')))
    this.#socket = socket
    return socket
  }

  end(): void {
    this.#socket?.on('error', () => undefined).destroy()
  }
}

async function echoes(socket: net.Socket): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  socket
    .once('data', () => resolve(true))
    .once('close', () => resolve(false))
    .once('error', () => resolve(false))
  socket.setTimeout(10_000, () => socket.destroy())
  socket.write('x')
  const open = await promise
  socket.destroy()
  return open
}
