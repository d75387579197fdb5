import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { formatLanguageOptions, parseLanguageOptions } from '../policy/options.ts'
import {
  ListPolicyHistoryResponseSchema,
  PolicyAdministration,
  PolicyDistribution,
  PolicyHistory,
  PolicySetSchema,
} from '../rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { encode, mount, type Encoded, type Mounted } from '../rpc/handler.ts'
import type { CandidatePolicies } from '../registry/policy-documents.ts'
import type { Caller } from '../server/caller.ts'
import { applyPolicies, type PolicyOutcome, rollBackPolicies } from '../server/manage-policies.ts'
import type { PoliciesInForce } from '../server/policies.ts'
import type { Server } from '../server/server.ts'

/** `vidimus.api.policy.v1.PolicyAdministration`: for operators. */
export const policyAdministration = (server: Server): Mounted<Caller> =>
  mount<typeof PolicyAdministration, Caller>(PolicyAdministration, {
    applyPolicies: async ({ documents, options, prune, dryRun, force, expectedVersion, signature }, { peer }) =>
      toOutcome(
        await applyPolicies(
          server,
          {
            documents: documents.map(({ name, text }) => ({ name, text })),
            ...(options && { options: parseLanguageOptions(options) }),
            ...(signature !== '' && { signature }),
            ...(expectedVersion !== '' && { expectedVersion }),
            prune,
            dryRun,
            force,
          },
          peer,
        ),
      ),
    listPolicies: async () => toPolicySet(server.policies.inForce.current),
  })

/** `vidimus.api.policy.v1.PolicyHistory`: for operators. */
export const policyHistory = (server: Server): Mounted<Caller> =>
  mount<typeof PolicyHistory, Caller>(PolicyHistory, {
    listPolicyHistory: async ({ limit }) => {
      const sets = await server.policies.history(Math.min(Math.max(limit, 0) || usualHistory, longestHistory))
      // Documents can be a megabyte a set: who wants those of an old one rolls back to it, or asks git.
      return encode(ListPolicyHistoryResponseSchema, { sets: sets.map((set) => ({ ...asMessage(set), documents: namesOf(set) })) })
    },
    rollBackPolicies: async ({ serial, force }, { peer }) =>
      toOutcome(await rollBackPolicies(server, { serial: Number(serial), force }, peer)),
  })

/** `vidimus.api.policy.v1.PolicyDistribution`: for agents. */
export const policyDistribution = (server: Server): Mounted<Caller> =>
  mount<typeof PolicyDistribution, Caller>(PolicyDistribution, {
    async *watchPolicies(_request, { signal }) {
      for await (const inForce of server.policies.inForce.changes(signal)) yield toPolicySet(inForce)
    },
  })

const toOutcome = ({ set, changes: { added, changed, removed, unchanged } }: PolicyOutcome): Encoded =>
  encode(PolicySetSchema, {
    ...asMessage(set),
    documents: namesOf(set),
    changes: { added: [...added], changed: [...changed], removed: [...removed], unchanged: [...unchanged] },
  })

const namesOf = ({ documents }: PoliciesInForce) => documents.map(({ name }) => ({ name }))

/** A set is serialised once, however many agents are told of it. */
function toPolicySet(inForce: PoliciesInForce): Encoded {
  const known = serialised.get(inForce)
  if (known) return known
  const encoded = encode(PolicySetSchema, asMessage(inForce))
  serialised.set(inForce, encoded)
  return encoded
}

/** A candidate without the texts of its documents, for those who brought it. */
export const namesOfCandidate = ({ version, documents, options, startedAt, startedBy }: CandidatePolicies) => ({
  version,
  documents: documents.map(({ name }) => ({ name })),
  options: formatLanguageOptions(options),
  appliedAt: timestampFromMs(startedAt),
  appliedBy: startedBy,
})

function asMessage({ version, documents, options, signature, serial, appliedAt, appliedBy, candidate }: PoliciesInForce) {
  return {
    version,
    documents: [...documents],
    options: formatLanguageOptions(options),
    serial: BigInt(serial),
    ...(signature !== undefined && { signature }),
    ...(appliedAt !== undefined && { appliedAt: timestampFromMs(appliedAt) }),
    ...(appliedBy !== undefined && { appliedBy }),
    ...(candidate && {
      candidate: { version: candidate.version, documents: [...candidate.documents], options: formatLanguageOptions(candidate.options) },
    }),
  }
}

const usualHistory = 20
const longestHistory = 100
const serialised = new WeakMap<PoliciesInForce, Encoded>()
