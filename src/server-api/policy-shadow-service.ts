import type { ShadowCount as ShadowCountMessage } from '../rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { PolicyObservation, PolicyShadow } from '../rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { mount, type Mounted } from '../rpc/handler.ts'
import { parseLanguageOptions } from '../policy/options.ts'
import type { Caller } from '../server/caller.ts'
import type { Server } from '../server/server.ts'
import type { ShadowCount } from '../policy/shadow.ts'
import { shadowReport, type ShadowReport, startShadow, stopShadow, takeObservations } from '../server/shadow-policies.ts'
import { agentOf } from './agent-caller.ts'
import { namesOfCandidate } from './policy-service.ts'

/** `vidimus.api.policy.v1.PolicyShadow`: for operators. */
export const policyShadow = (server: Server): Mounted<Caller> =>
  mount<typeof PolicyShadow, Caller>(PolicyShadow, {
    startShadow: async ({ documents, options, prune }, { peer }) =>
      namesOfCandidate(
        await startShadow(
          server,
          {
            documents: documents.map(({ name, text }) => ({ name, text })),
            ...(options && { options: parseLanguageOptions(options) }),
            prune,
          },
          peer,
        ),
      ),
    stopShadow: async (_request, { peer }) => toReport(await stopShadow(server, peer)),
    getShadow: async () => toReport(shadowReport(server)),
  })

/** `vidimus.api.policy.v1.PolicyObservation`: for agents. */
export const policyObservation = (server: Server): Mounted<Caller> =>
  mount<typeof PolicyObservation, Caller>(PolicyObservation, {
    reportShadow: async ({ candidateVersion, run, counts, unlisted }, { peer }) => {
      takeObservations(server, agentOf(peer), { candidateVersion, run, counts: counts.map(fromCount), unlisted: Number(unlisted) })
      return {}
    },
  })

const toReport = ({ candidate, counts, unlisted, agents }: ShadowReport) => ({
  ...(candidate && { candidate: namesOfCandidate(candidate) }),
  counts: counts.map((row) => ({ ...row, count: BigInt(row.count) })),
  unlisted: BigInt(unlisted),
  agents,
})

const fromCount = ({ workload, allowed, candidateAllows, rule, count, peer, method, path }: ShadowCountMessage): ShadowCount => ({
  workload,
  allowed,
  candidateAllows,
  rule,
  count: Number(count),
  peer,
  method,
  path,
})
