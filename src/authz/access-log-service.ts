/** Envoy's access logs: what a set of policies that is tried would have decided, request by request. Nothing else of them is kept. */
import type { Agent } from '../agent/agent.ts'
import { requireIdentity } from '../agent/identify.ts'
import type { Peer } from '../attestation/peer.ts'
import type { AccessLogService } from '../rpc/gen/envoy/service/accesslog/v3/als_pb.ts'
import type { Handlers } from '../rpc/handler.ts'
import { readShadowVerdict } from './messages.ts'

/**
 * StreamAccessLogs. Counts are kept for the workload that the kernel says is calling, whatever the proxy calls itself.
 * @throws Failure `workload.no-identity`
 */
export function accessLogs({ agent }: { readonly agent: Agent }): Handlers<typeof AccessLogService, Peer> {
  return {
    async streamAccessLogs(messages, call) {
      const found = await agent.identify(call.peer, call.signal)
      const [identity] = requireIdentity(found).identities
      for await (const { logEntries } of messages) {
        for (const entry of logEntries.value?.logEntry ?? []) {
          const verdict = readShadowVerdict(entry)
          if (verdict && identity) agent.noteShadow({ workload: identity.spiffeId, ...verdict })
        }
      }
      return {}
    },
  }
}
