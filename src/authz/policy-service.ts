/** `vidimus.api.policy.v1.WorkloadPolicies` on the agent's socket: a workload's own policies, for `authorize()`. */
import type { Agent } from '../agent/agent.ts'
import { requireIdentity } from '../agent/identify.ts'
import type { WorkloadPolicies } from '../agent/identities.ts'
import type { Peer } from '../attestation/peer.ts'
import { formatLanguageOptions } from '../policy/options.ts'
import type { WorkloadPolicies as WorkloadPoliciesService } from '../rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import type { Handlers } from '../rpc/handler.ts'

/**
 * WatchPolicies: what the caller is judged by, at once and after each change of its policies or facts.
 * A caller that loses its last identity is sent no policy, which allows nothing.
 * @throws Failure `workload.no-identity`
 */
export function workloadPolicies({ agent }: { readonly agent: Agent }): Handlers<typeof WorkloadPoliciesService, Peer> {
  return {
    async *watchPolicies(_request, call) {
      const workload = await agent.identify(call.peer, call.signal)
      requireIdentity(workload)
      for await (const policies of workload.policies.changes(call.signal)) yield toMessage(policies)
    },
  }
}

function toMessage({ version, documents, options, spiffeIds, selectors }: WorkloadPolicies) {
  return {
    version,
    ...(options && { options: formatLanguageOptions(options) }),
    documents: spiffeIds.length === 0 ? [] : documents.map(({ name, text }) => ({ name, text })),
    spiffeIds: [...spiffeIds],
    selectors: selectors.map(({ type, value }) => ({ type, value })),
  }
}
