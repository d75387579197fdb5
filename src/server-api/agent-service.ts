import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { Agent, type AttestAgentRequest } from '../rpc/gen/spire/api/server/agent/v1/agent_pb.ts'
import { mount, type Mounted } from '../rpc/handler.ts'
import { attestAgent, type AttestedAgent } from '../server/attest-agent.ts'
import { addressOf, type Caller } from '../server/caller.ts'
import { banNode, countNodes, deleteNode, findNode, listNodes, noteStatus } from '../server/manage-nodes.ts'
import { createJoinToken } from '../server/manage-tokens.ts'
import { renewAgent } from '../server/renew-agent.ts'
import type { Server } from '../server/server.ts'
import { agentOf, renewingAgentOf } from './agent-caller.ts'
import { fromAgentFilter, fromSpiffeId, toAgent, toSeconds, toX509Svid } from './messages.ts'

/** `spire.api.server.agent.v1.Agent` */
export const agentService = (server: Server): Mounted<Caller> =>
  mount<typeof Agent, Caller>(Agent, {
    countAgents: async ({ filter }) => ({ count: await countNodes(server, fromAgentFilter(filter)) }),

    async listAgents({ filter, outputMask, pageSize, pageToken }, { peer }) {
      const { nodes, nextToken } = await listNodes(server, fromAgentFilter(filter), { size: pageSize, token: pageToken }, peer)
      return { agents: nodes.map((node) => toAgent(node, outputMask)), nextPageToken: nextToken }
    },

    getAgent: async ({ id, outputMask }) => toAgent(await findNode(server, fromSpiffeId('id', id)), outputMask),

    async deleteAgent({ id }, { peer }) {
      await deleteNode(server, fromSpiffeId('id', id), peer)
      return {}
    },

    async banAgent({ id }, { peer }) {
      await banNode(server, fromSpiffeId('id', id), peer)
      return {}
    },

    attestAgent: (requests, { peer, signal }) => attest(server, requests, addressOf(peer), signal),

    async renewAgent({ params }, { peer, signal }) {
      if (!params) throw missing('params')
      return { svid: toX509Svid(await renewAgent(server, renewingAgentOf(peer), params.csr, signal)) }
    },

    async postStatus({ agentVersion }, { peer }) {
      await noteStatus(server, agentOf(peer), { agentVersion })
      return {}
    },

    async createJoinToken({ ttl, token, agentId }, { peer }) {
      const wish = { ttl: seconds(ttl), ...(token !== '' && { token }), ...(agentId && { agentId: fromSpiffeId('agent_id', agentId) }) }
      const created = await createJoinToken(server, wish, peer)
      return { value: created.token.reveal(), expiresAt: toSeconds(created.expiresAt) }
    },
  })

type Answer = { readonly challenge: Uint8Array } | { readonly result: AttestedAgent }

/** The conversation on the wire: params in, then challenges out and responses in, until the result. */
async function* attest(server: Server, requests: AsyncIterable<AttestAgentRequest>, address: string, signal: AbortSignal) {
  const incoming = requests[Symbol.asyncIterator]()
  const { data, csr } = await readParams(incoming)
  const left = new AbortController()
  let next = Promise.withResolvers<Answer>()
  const ask = async (challenge: Uint8Array): Promise<Uint8Array> => {
    next.resolve({ challenge })
    return readResponse(incoming)
  }
  attestAgent(server, { type: data.type, payload: data.payload, csr }, ask, address, AbortSignal.any([signal, left.signal])).then(
    (result) => next.resolve({ result }),
    (error: unknown) => next.reject(error),
  )
  try {
    for (;;) {
      const answer = await next.promise
      // INVARIANT: replaced before the challenge leaves, so that its answer cannot come before somebody waits for what follows.
      next = Promise.withResolvers()
      if ('result' in answer) {
        yield {
          step: { case: 'result' as const, value: { svid: toX509Svid(answer.result.svid), reattestable: answer.result.reattestable } },
        }
        return
      }
      yield { step: { case: 'challenge' as const, value: answer.challenge } }
    }
  } finally {
    next.promise.catch(() => {})
    left.abort()
  }
}

async function readParams(incoming: AsyncIterator<AttestAgentRequest>) {
  const { value: first } = (await incoming.next()) as IteratorResult<AttestAgentRequest, undefined>
  if (first?.step.case !== 'params') throw outOfTurn('params')
  const { data, params } = first.step.value
  if (!data) throw missing('params.data')
  if (!params) throw missing('params.params')
  return { data, csr: params.csr }
}

async function readResponse(incoming: AsyncIterator<AttestAgentRequest>): Promise<Uint8Array> {
  const { value } = (await incoming.next()) as IteratorResult<AttestAgentRequest, undefined>
  if (value?.step.case !== 'challengeResponse') throw outOfTurn('challenge_response')
  return value.step.value
}

function outOfTurn(expected: string): Failure {
  return new Failure('invalid_argument', 'api.out-of-turn', { public: `expected a message with \`${expected}\`` })
}

function missing(field: string): Failure {
  return new Failure('invalid_argument', 'api.missing-field', { public: `field \`${field}\` is missing` })
}
