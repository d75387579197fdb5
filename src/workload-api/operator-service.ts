/** What the operator of this node may ask its agent, on the private socket. */
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import type { Explanation } from '../agent/explain.ts'
import type { AgentStatus } from '../agent/health.ts'
import { Failure } from '../kernel/failure.ts'
import { Operator } from '../rpc/gen/vidimus/api/agent/v1/operator_pb.ts'
import { mount, type Mounted } from '../rpc/handler.ts'
import { tellSelector } from '../spiffe/selector.ts'

/** The part of the agent that operators see. */
export interface OperatedAgent {
  explain(pid: number, signal: AbortSignal): Promise<Explanation>
  status(): AgentStatus
}

/** Serve it on a socket that only the operator can reach: it tells what workloads must not learn. */
export function operatorService<Peer>(agent: OperatedAgent): Mounted<Peer> {
  return mount<typeof Operator, Peer>(Operator, {
    async explainWorkload({ pid }, { signal }) {
      if (pid <= 0) throw new Failure('invalid_argument', 'operator.bad-pid', { public: `\`${pid}\` is not the number of a process` })
      const { selectors, considered, verdict } = await agent.explain(pid, signal)
      return {
        pid,
        selectors: selectors.map(tellSelector),
        considered: considered.map(({ entry, missing, matches, note }) => ({
          entryId: entry.id,
          spiffeId: entry.spiffeId,
          missingSelectors: missing.map(tellSelector),
          matches,
          note,
        })),
        verdict,
      }
    },

    async getStatus() {
      const { spiffeId, svidExpiresAt, lastSyncAt, entries, svids, policyVersion, ready, reasons } = agent.status()
      return {
        spiffeId,
        svidExpiresAt: timestampFromMs(svidExpiresAt),
        ...(lastSyncAt === undefined ? {} : { lastSyncAt: timestampFromMs(lastSyncAt) }),
        entries,
        x509Svids: svids,
        policyVersion,
        ready,
        reasons: [...reasons],
      }
    },
  })
}
