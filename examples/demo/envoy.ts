/** The static bootstrap of a sidecar Envoy: everything that changes (certificate, bundle, authorization) comes from the agent's socket. */

export interface Sidecar {
  readonly name: string
  readonly agentSocket: string
  readonly adminPort: number
  /** Where others call this workload, with mutual TLS. */
  readonly inboundPort: number
  /** Where the workload itself listens, plain, on loopback. */
  readonly servicePort: number
  /** Whom the workload calls: plain on `listenPort`, mutual TLS from here on, only to the one who proves `spiffeId`. */
  readonly upstreams: readonly { readonly name: string; readonly listenPort: number; readonly port: number; readonly spiffeId: string }[]
}

/** Envoy's configuration as a value; JSON of it is a bootstrap file. */
export function bootstrap(sidecar: Sidecar): object {
  return {
    node: { id: sidecar.name, cluster: 'vidimus-demo' },
    admin: { address: loopback(sidecar.adminPort) },
    // Envoy refuses longer expressions by default, and with them a whole filter.
    layered_runtime: { layers: [{ name: 'static', static_layer: { re2: { max_program_size: { error_level: 32_768 } } } }] },
    static_resources: {
      listeners: [inbound(sidecar), ...sidecar.upstreams.map(outbound)],
      clusters: [agentCluster(sidecar.agentSocket), cluster('service', sidecar.servicePort), ...sidecar.upstreams.map(upstreamCluster)],
    },
  }
}

function inbound({ inboundPort }: Sidecar): object {
  const tls = {
    '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
    require_client_certificate: true,
    disable_stateless_session_resumption: true,
    disable_stateful_session_resumption: true,
    common_tls_context: { ...identity, validation_context_sds_secret_config: secret('ROOTCA'), alpn_protocols: ['h2', 'http/1.1'] },
  }
  return {
    name: 'inbound',
    address: loopback(inboundPort),
    filter_chains: [
      {
        transport_socket: { name: 'envoy.transport_sockets.tls', typed_config: tls },
        filters: [http('inbound', 'service', [authorization('vidimus.rbac.deny'), authorization('vidimus.rbac.allow')])],
      },
    ],
  }
}

function outbound({ name, listenPort }: Sidecar['upstreams'][number]): object {
  return { name: `to-${name}`, address: loopback(listenPort), filter_chains: [{ filters: [http(`to-${name}`, name, [])] }] }
}

function http(name: string, to: string, filters: readonly object[]): object {
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
      stat_prefix: name,
      // Paths reach the policy in one spelling only.
      normalize_path: true,
      merge_slashes: true,
      path_with_escaped_slashes_action: 'UNESCAPE_AND_FORWARD',
      route_config: { virtual_hosts: [{ name, domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: to } }] }] },
      http_filters: [
        ...filters,
        {
          name: 'envoy.filters.http.router',
          typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' },
        },
      ],
      access_log: [
        {
          name: 'envoy.access_loggers.stdout',
          typed_config: {
            '@type': 'type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog',
            log_format: {
              json_format: {
                listener: name,
                call: '%REQ(X-DEMO-CALL)%',
                code: '%RESPONSE_CODE%',
                details: '%RESPONSE_CODE_DETAILS%',
                rbac: '%DYNAMIC_METADATA(envoy.filters.http.rbac)%',
                peerSerial: '%DOWNSTREAM_PEER_SERIAL%',
              },
            },
          },
        },
      ],
    },
  }
}

/** A filter that comes by ECDS. Until the agent has answered, everything is refused. */
function authorization(name: string): object {
  return {
    name,
    config_discovery: {
      config_source: { resource_api_version: 'V3', api_config_source: agentApi },
      type_urls: [rbacType],
      default_config: { '@type': rbacType, rules: { action: 'ALLOW' } },
    },
  }
}

function upstreamCluster({ name, port, spiffeId }: Sidecar['upstreams'][number]): object {
  const tls = {
    '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext',
    common_tls_context: {
      ...identity,
      combined_validation_context: {
        default_validation_context: { match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: spiffeId } }] },
        validation_context_sds_secret_config: secret('ROOTCA'),
      },
    },
  }
  return {
    ...cluster(name, port),
    // Connections are renewed often, so that a rotation is seen on the wire at once.
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
        common_http_protocol_options: { max_requests_per_connection: 20 },
        explicit_http_config: { http_protocol_options: {} },
      },
    },
    transport_socket: { name: 'envoy.transport_sockets.tls', typed_config: tls },
  }
}

function cluster(name: string, port: number): object {
  return {
    name,
    type: 'STATIC',
    connect_timeout: '2s',
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address: loopback(port) } }] }] },
  }
}

function agentCluster(socket: string): object {
  return {
    name: 'vidimus-agent',
    type: 'STATIC',
    connect_timeout: '2s',
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
    load_assignment: {
      cluster_name: 'vidimus-agent',
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: socket } } } }] }],
    },
  }
}

const agentApi = { api_type: 'GRPC', transport_api_version: 'V3', grpc_services: [{ envoy_grpc: { cluster_name: 'vidimus-agent' } }] }
const secret = (name: string) => ({ name, sds_config: { resource_api_version: 'V3', api_config_source: agentApi } })
const identity = { tls_certificate_sds_secret_configs: [secret('default')] }
const loopback = (port: number) => ({ socket_address: { address: '127.0.0.1', port_value: port } })
const rbacType = 'type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC'
