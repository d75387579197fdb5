import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { PolicyAdministration, PolicyDistribution, PolicySetSchema } from '../rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { encode, mount, type Encoded, type Mounted } from '../rpc/handler.ts'
import type { Caller } from '../server/caller.ts'
import { applyPolicies } from '../server/manage-policies.ts'
import type { PoliciesInForce } from '../server/policies.ts'
import type { Server } from '../server/server.ts'

/** `vidimus.api.policy.v1.PolicyAdministration`: for operators. */
export const policyAdministration = (server: Server): Mounted<Caller> =>
  mount<typeof PolicyAdministration, Caller>(PolicyAdministration, {
    applyPolicies: async ({ documents }, { peer }) =>
      toPolicySet(
        await applyPolicies(
          server,
          documents.map(({ name, text }) => ({ name, text })),
          peer,
        ),
      ),
    listPolicies: async () => toPolicySet(server.policies.inForce.current),
  })

/** `vidimus.api.policy.v1.PolicyDistribution`: for agents. */
export const policyDistribution = (server: Server): Mounted<Caller> =>
  mount<typeof PolicyDistribution, Caller>(PolicyDistribution, {
    async *watchPolicies(_request, { signal }) {
      for await (const inForce of server.policies.inForce.changes(signal)) yield toPolicySet(inForce)
    },
  })

/** A set is serialised once, however many agents are told of it. */
function toPolicySet(inForce: PoliciesInForce): Encoded {
  const known = serialised.get(inForce)
  if (known) return known
  const { version, documents, appliedAt } = inForce
  const encoded = encode(PolicySetSchema, {
    version,
    documents: [...documents],
    ...(appliedAt !== undefined && { appliedAt: timestampFromMs(appliedAt) }),
  })
  serialised.set(inForce, encoded)
  return encoded
}

const serialised = new WeakMap<PoliciesInForce, Encoded>()
