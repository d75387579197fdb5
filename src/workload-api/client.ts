/** The agent's private socket from outside: for the operator of the node. */
import { timestampMs } from '@bufbuild/protobuf/wkt'
import type { Instant } from '../kernel/clock.ts'
import { clientOf, connectUnix } from '../rpc/client.ts'
import { Operator } from '../rpc/gen/vidimus/api/agent/v1/operator_pb.ts'

export interface OperatorClient extends AsyncDisposable {
  /** Why a process has the identities it has. @throws Failure `peer.no-such-process`, `workload.attestation-failed` by their categories */
  explainWorkload(pid: number, signal: AbortSignal): Promise<OperatorExplanation>
  status(signal: AbortSignal): Promise<OperatorStatus>
}

export interface OperatorExplanation {
  readonly selectors: readonly string[]
  readonly considered: readonly {
    readonly entryId: string
    readonly spiffeId: string
    readonly missingSelectors: readonly string[]
    readonly matches: boolean
    readonly note: string
  }[]
  readonly verdict: string
}

export interface OperatorStatus {
  readonly spiffeId: string
  readonly svidExpiresAt: Instant | undefined
  readonly lastSyncAt: Instant | undefined
  readonly entries: number
  readonly svids: number
  readonly policyVersion: string
  readonly ready: boolean
  readonly reasons: readonly string[]
}

/** Connects to the agent's private socket. Nothing is sent before the first call. */
export function connectOperator(socketPath: string): OperatorClient {
  const channel = connectUnix(socketPath)
  const operator = clientOf(Operator, channel)
  return {
    explainWorkload: (pid, signal) => operator.explainWorkload({ pid }, { signal }),
    async status(signal) {
      const { spiffeId, svidExpiresAt, lastSyncAt, entries, x509Svids, policyVersion, ready, reasons } = await operator.getStatus(
        {},
        { signal },
      )
      return {
        spiffeId,
        svidExpiresAt: svidExpiresAt && timestampMs(svidExpiresAt),
        lastSyncAt: lastSyncAt && timestampMs(lastSyncAt),
        entries,
        svids: x509Svids,
        policyVersion,
        ready,
        reasons,
      }
    },
    [Symbol.asyncDispose]: () => channel[Symbol.asyncDispose](),
  }
}
