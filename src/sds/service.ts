/** Envoy's Secret Discovery Service: what a proxy gets depends on who the kernel says it is. */
import type { Agent } from '../agent/agent.ts'
import { requireIdentity } from '../agent/identify.ts'
import type { WorkloadIdentities, Workload } from '../agent/identities.ts'
import type { Peer } from '../attestation/peer.ts'
import type { Random } from '../kernel/random.ts'
import type { Call, Handlers } from '../rpc/handler.ts'
import type { SecretDiscoveryService } from '../rpc/gen/envoy/service/secret/v3/sds_pb.ts'
import { type Resources, resourcesFrom } from '../xds/resources.ts'
import { fetchOnce, type ProxyNode, serveStream, type StreamState } from '../xds/stream.ts'
import { secretsOf, secretTypeUrl, type Validation } from './secrets.ts'

export interface SecretDiscoveryOptions {
  readonly agent: Agent
  readonly random: Random
  /** Told how every stream stands: a proxy that refuses its certificate is news. */
  report?(state: StreamState): void
}

/**
 * StreamSecrets and FetchSecrets. A name that the caller has no right to is not answered, and those that it has a right to are.
 * @throws Failure `workload.no-identity`, also in the middle of a stream, when the caller's last identity is gone
 */
export function secretDiscovery({ agent, random, report }: SecretDiscoveryOptions): Handlers<typeof SecretDiscoveryService, Peer> {
  return {
    async *streamSecrets(requests, call) {
      const workload = await attested(agent, call)
      const log = agent.log.with({ pid: workload.pid })
      yield* serveStream(
        requests,
        {
          typeUrl: secretTypeUrl,
          resources: (node) => resourcesFrom(workload.identities, (held) => secretsFor(workload, held, node)),
          clock: agent.clock,
          random,
          log,
          meter: agent.meter,
          ...(report && { report }),
        },
        call.signal,
      )
    },

    async fetchSecrets(request, call) {
      const workload = await attested(agent, call)
      const resources = secretsFor(workload, workload.identities.current, request.node)
      return fetchOnce(request, { typeUrl: secretTypeUrl, resources, log: agent.log.with({ pid: workload.pid }) })
    },
  }
}

async function attested(agent: Agent, call: Call<Peer>): Promise<Workload> {
  const workload = await agent.identify(call.peer, call.signal)
  requireIdentity(workload)
  return workload
}

const secretsFor = (workload: Workload, held: WorkloadIdentities, node: ProxyNode | undefined): Resources =>
  secretsOf(requireIdentity(workload, held), validationOf(node))

/** SPIRE's switch, so that a proxy's configuration need not change. */
function validationOf(node: ProxyNode | undefined): Validation {
  const asked = node?.metadata?.['disable_spiffe_cert_validation']
  return asked === true || asked === 'true' ? 'trusted-ca' : 'spiffe'
}
