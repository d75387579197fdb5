/**
 * Node evidence that is a secret shared once: both halves. The payload is the token's bytes, as SPIRE sends them.
 * The token becomes part of the agent's SPIFFE ID, as with SPIRE; that is harmless since it is worthless once it was used.
 */
import { z } from 'zod'
import { fromUtf8, utf8 } from '../../kernel/bytes.ts'
import { secretReference, type SecretReference, type World } from '../../kernel/driver.ts'
import { Failure } from '../../kernel/failure.ts'
import { type SpiffeId, spiffeId } from '../../spiffe/id.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { type NodeProver, type NodeVerifier, nodeAttestor, type VerifierWorld } from '../node-attestor.ts'

const agentConfig = z.strictObject({
  /** Where the token is to be found; it is needed for the first start only. */
  token: secretReference,
})
const serverConfig = z.strictObject({})

/** Admits a node that shows a token which nobody showed before. */
export const joinToken = nodeAttestor({
  kind: 'join_token',
  serverConfig,
  agentConfig,
  example: { server: {}, agent: { token: { env: 'VIDIMUS_JOIN_TOKEN' } } },
  openVerifier: async (_config: z.infer<typeof serverConfig>, world: VerifierWorld): Promise<NodeVerifier> => verifier(world),
  openProver: async (config: z.infer<typeof agentConfig>, world: World): Promise<NodeProver> => prover(config.token, world),
})

/** True for a token that can be one segment of a SPIFFE ID path; also what a new token must fulfil. */
export const isJoinToken = (token: string): boolean => tokenPattern.test(token) && token !== '.' && token !== '..'

/** The identity of an agent that joined with this token. */
function joinTokenAgentId(trustDomain: TrustDomain, token: string): SpiffeId {
  return spiffeId(trustDomain, `/spire/agent/join_token/${token}`)
}

function verifier({ trustDomain, consumeJoinToken }: Pick<VerifierWorld, 'trustDomain' | 'consumeJoinToken'>): NodeVerifier {
  return {
    async verify(payload, _challenge, signal) {
      const token = readToken(payload)
      // INVARIANT: whatever can be refused without using the token up is refused before this line (A-0 e, A-13).
      const id = joinTokenAgentId(trustDomain, token)
      signal.throwIfAborted()
      if (!(await consumeJoinToken(token))) {
        throw new Failure('permission_denied', 'join-token.not-accepted', { public: 'the join token is unknown, expired or already used' })
      }
      return { id, selectors: [], canReattest: false }
    },
    async [Symbol.asyncDispose]() {},
  }
}

function prover(reference: SecretReference, { secrets }: Pick<World, 'secrets'>): NodeProver {
  return {
    type: 'join_token',
    async payload(signal) {
      const token = (await secrets.read(reference)).reveal().trim()
      signal.throwIfAborted()
      if (!isJoinToken(token)) throw malformed()
      return utf8(token)
    },
    async [Symbol.asyncDispose]() {},
  }
}

function readToken(payload: Uint8Array): string {
  if (payload.length > maxTokenLength) throw malformed()
  let token: string
  try {
    token = fromUtf8(payload)
  } catch {
    throw malformed()
  }
  if (!isJoinToken(token)) throw malformed()
  return token
}

/** The token itself is not shown: it may be a good one with a slip. */
function malformed(): Failure {
  return new Failure('invalid_argument', 'join-token.malformed', {
    public: `the join token does not have the expected form: 1 to ${maxTokenLength} letters, digits, \`.\`, \`-\` and \`_\``,
  })
}

const maxTokenLength = 255
/** SPIFFE-ID section 2.2: what a path segment is made of. */
const tokenPattern = /^[a-zA-Z0-9._-]{1,255}$/
