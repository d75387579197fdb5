/** Envoy's Extension Config Discovery Service: each proxy gets the filters that enforce the policies of the workload it stands beside. */
import type { Agent } from '../agent/agent.ts'
import { requireIdentity } from '../agent/identify.ts'
import type { Peer } from '../attestation/peer.ts'
import type { Random } from '../kernel/random.ts'
import type { ExtensionConfigDiscoveryService } from '../rpc/gen/envoy/service/extension/v3/config_discovery_pb.ts'
import type { Call, Handlers } from '../rpc/handler.ts'
import { fetchOnce, type ProxyNode, serveStream, type StreamState } from '../xds/stream.ts'
import { placesOf } from './delivered-filters.ts'
import type { WorkloadRules } from './workload-rules.ts'

export interface ExtensionConfigOptions {
  readonly agent: Agent
  readonly rules: WorkloadRules
  readonly random: Random
  /** Told how every stream stands: a proxy that refuses its policies is news. */
  report?(state: StreamState): void
}

export const extensionConfigTypeUrl = 'type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig'

/**
 * StreamExtensionConfigs and FetchExtensionConfigs of the filters that {@link placesOf} names, with `vidimus.rbac.deny` and `vidimus.rbac.allow`. Which
 * policies they hold depends on who the kernel says is calling; what the proxy says about itself tells which filters it lists, so that
 * nothing is left to one that is not there. Who loses its last identity is refused everything.
 * @throws Failure `workload.no-identity`
 */
export function extensionConfigDiscovery({
  agent,
  rules,
  random,
  report,
}: ExtensionConfigOptions): Handlers<typeof ExtensionConfigDiscoveryService, Peer> {
  const identified = async (call: Call<Peer>) => {
    const workload = await agent.identify(call.peer, call.signal)
    requireIdentity(workload)
    return { workload, log: agent.log.with({ pid: workload.pid }) }
  }
  return {
    async *streamExtensionConfigs(requests, call) {
      const { workload, log } = await identified(call)
      const options = {
        typeUrl: extensionConfigTypeUrl,
        resources: ({ metadata }: ProxyNode) => rules.filtersOf(workload, placesOf(metadata)),
        clock: agent.clock,
        random,
        log,
        meter: agent.meter,
      }
      yield* serveStream(requests, { ...options, ...(report && { report }) }, call.signal)
    },

    async fetchExtensionConfigs(request, call) {
      const { workload, log } = await identified(call)
      return fetchOnce(request, {
        typeUrl: extensionConfigTypeUrl,
        resources: rules.of(workload, placesOf(request.node?.metadata)).filters,
        log,
      })
    },
  }
}
