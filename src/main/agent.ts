/** The agent, wired. Nothing is decided here; read it as the table of contents. */
import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { openPeerCredentials } from '../attestation/peer/linux.ts'
import type { Peer } from '../attestation/peer.ts'
import type { WorkloadAttestor } from '../attestation/workload-attestor.ts'
import { openAgent } from '../agent/open-agent.ts'
import { accessLogs } from '../authz/access-log-service.ts'
import { externalAuthorization } from '../authz/ext-authz-service.ts'
import { extensionConfigDiscovery } from '../authz/extension-config-service.ts'
import { workloadPolicies } from '../authz/policy-service.ts'
import { WorkloadRules } from '../authz/workload-rules.ts'
import { Scope } from '../kernel/scope.ts'
import { AccessLogService } from '../rpc/gen/envoy/service/accesslog/v3/als_pb.ts'
import { Authorization } from '../rpc/gen/envoy/service/auth/v3/auth_pb.ts'
import { ExtensionConfigDiscoveryService } from '../rpc/gen/envoy/service/extension/v3/config_discovery_pb.ts'
import { SecretDiscoveryService } from '../rpc/gen/envoy/service/secret/v3/sds_pb.ts'
import { WorkloadPolicies } from '../rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { mount } from '../rpc/handler.ts'
import { health } from '../rpc/health.ts'
import { listenUnix } from '../rpc/listen.ts'
import { measured } from '../rpc/measure.ts'
import { reflection } from '../rpc/reflection.ts'
import { secretDiscovery } from '../sds/service.ts'
import { connectServer } from '../server-api/client.ts'
import { holdDirectory } from '../store/hold.ts'
import { operatorService } from '../workload-api/operator-service.ts'
import { requireSecurityHeader } from '../workload-api/security-header.ts'
import { workloadApi } from '../workload-api/service.ts'
import { nodeAttestors } from './builtins.ts'
import type { AgentConfig } from './config/agent.ts'
import { Metrics } from './metrics.ts'
import { trustedPolicyKeys } from './policies.ts'
import { version } from './version.ts'
import { systemWorld } from './world.ts'

/** Runs an agent until `stop` aborts. @throws Failure for whatever keeps it from starting, named with its place */
export async function runAgent(config: AgentConfig, stop: AbortSignal): Promise<void> {
  await using owned = new AsyncDisposableStack()
  const { trustDomain } = config
  const metrics = new Metrics('agent', config)
  const world = systemWorld(config.log, metrics.meter)
  await world.files.privateDirectory(config.dataDirectory)
  owned.use(holdDirectory(config.dataDirectory))
  await world.files.privateDirectory(dirname(config.adminSocket))
  await mkdir(dirname(config.socket), { recursive: true, mode: 0o755 })

  const peers = await openPeerCredentials()
  const attestors = new Map<string, WorkloadAttestor>()
  for (const { kind, open } of config.workloadAttestors) attestors.set(kind, owned.use(await open(world)))
  const upstream = owned.use(connectServer({ ...config.server, ...config.tls }, world))
  const [joinToken] = nodeAttestors
  const prover = config.joinToken && owned.use(await joinToken.openProver({ token: config.joinToken }, world))

  const trustBundle = { path: config.trustBundle }
  const { dataDirectory, syncInterval } = config
  const policySigners = await trustedPolicyKeys(config.policies.trustedKeys)
  const agent = await openAgent(
    {
      ...world,
      trustDomain,
      upstream,
      prover,
      trustBundle,
      dataDirectory,
      attestors,
      peers,
      syncInterval,
      policySigners,
      agentVersion: version,
      witSvid: config.experimental.witSvid,
    },
    stop,
  )

  const scope = owned.use(new Scope(stop, { grace: config.shutdownGrace }))
  scope.run('agent', (signal) => agent.run(signal))

  const doors = { agent, random: world.random, rules: new WorkloadRules(world) }
  const services = [
    workloadApi(agent),
    mount<typeof SecretDiscoveryService, Peer>(SecretDiscoveryService, secretDiscovery(doors)),
    mount<typeof ExtensionConfigDiscoveryService, Peer>(ExtensionConfigDiscoveryService, extensionConfigDiscovery(doors)),
    mount<typeof Authorization, Peer>(Authorization, externalAuthorization(doors)),
    mount<typeof AccessLogService, Peer>(AccessLogService, accessLogs(doors)),
    mount<typeof WorkloadPolicies, Peer>(WorkloadPolicies, workloadPolicies(doors)),
    health<Peer>(agent.serving),
  ]
  const workloads = owned.use(
    await listenUnix<Peer>({
      ...world,
      path: config.socket,
      mode: 0o666,
      services: [...services, ...reflection(services)],
      wrap: measured<Peer>(world, requireSecurityHeader),
      peerOf: (socket) => peers.of(socket),
    }),
  )
  const operators = owned.use(
    await listenUnix({ ...world, path: config.adminSocket, mode: 0o600, services: [operatorService(agent)], peerOf: () => 'operator' }),
  )
  owned.use(await metrics.show(world))
  world.log.info('agent ready', {
    version,
    trustDomain,
    spiffeId: agent.status().spiffeId,
    socket: workloads.address,
    adminSocket: operators.address,
  })
  await scope.finished
  world.log.info('agent stopped')
}
