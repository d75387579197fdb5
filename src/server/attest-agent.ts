import { hash } from 'node:crypto'
import { answer, begin, challenge, finish, handshakeLimits, type Evidence } from '../attestation/handshake.ts'
import type { Challenge, NodeVerifier, ProvenNode } from '../attestation/node-attestor.ts'
import { nodeAttested, nodeRefused } from '../audit/event.ts'
import type { IssuedX509Svid } from '../ca/certificate-authority.ts'
import { deadline } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { AttestedNode } from '../registry/node.ts'
import { pathOf, trustDomainOf } from '../spiffe/id.ts'
import { tellSelector, uniqueSelectors } from '../spiffe/selector.ts'
import { parseCertificateRequest, proven, type ProvenKey } from '../x509/certificate-request.ts'
import type { Server } from './server.ts'

/** What a node that proved itself goes home with. */
export interface AttestedAgent {
  readonly svid: IssuedX509Svid
  readonly reattestable: boolean
}

type Needs = Pick<Server, 'trustDomain' | 'clock' | 'log' | 'ca' | 'audit' | 'nodes' | 'verifiers' | 'policies'>

/**
 * Admits a node: its key is proven, its evidence verified, its certificate issued and recorded, in this order.
 * @param ask sends a challenge to the agent and waits for its answer
 * @throws Failure `attest.unknown-type`, `attest.not-admitted`, `attest.bad-verdict`, `server.agent-banned`, `server.agent-cloned`, `handshake.*`, `x509.*`, and those of the verifier
 */
export async function attestAgent(
  server: Needs,
  evidence: Evidence,
  ask: Challenge,
  address: string,
  signal: AbortSignal,
): Promise<AttestedAgent> {
  try {
    const handshake = begin(evidence, server.clock.now())
    const verifier = verifierFor(server, evidence.type)
    // Before the evidence: a token must not be used up by a request that fails anyway.
    const key = await proven(parseCertificateRequest(evidence.csr))
    const bounded = deadline(handshakeLimits.duration, signal)
    const said = await converse(server, handshake, ask, (challenging) => verifier.verify(evidence.payload, challenging, bounded))
    const node = checked(server, evidence.type, said)
    checkAdmitted(server, evidence.type, node)
    return await admit(server, node, evidence.type, key, address, digestOf(evidence), signal)
  } catch (thrown) {
    const failure = Failure.from(thrown)
    server.log.warn('a node was refused', { type: evidence.type.slice(0, 64), reason: failure.reason, address })
    await server.audit.append(
      nodeRefused({ type: evidence.type.slice(0, 64), evidence: digestOf(evidence), reason: failure.reason, address }),
    )
    throw failure
  }
}

function verifierFor({ verifiers }: Needs, type: string): NodeVerifier {
  const verifier = verifiers.get(type)
  if (!verifier) {
    const known = [...verifiers.keys()].sort().join('`, `')
    throw new Failure('invalid_argument', 'attest.unknown-type', {
      public: `node evidence of type \`${type}\` is not accepted here: expected one of \`${known}\``,
    })
  }
  return verifier
}

/** Whoever holds a token was admitted by whoever made it; every other kind of evidence needs a line of onboarding policy. */
function checkAdmitted({ policies, clock }: Needs, type: string, { selectors }: ProvenNode): void {
  if (type === 'join_token') return
  const { allowed, reason, decidedBy, errors } = policies.decideOnboarding({ type, selectors }, clock.now())
  if (allowed) return
  throw new Failure('permission_denied', 'attest.not-admitted', {
    public: `no onboarding policy admits this node by \`${type}\``,
    internal: { reason, rule: decidedBy[0]?.id, errors, selectors: selectors.map(tellSelector) },
  })
}

/** Runs the verifier with a way to ask that keeps turns, sizes and time. */
async function converse(
  { clock }: Needs,
  begun: ReturnType<typeof begin>,
  ask: Challenge,
  verify: (ask: Challenge) => Promise<ProvenNode>,
): Promise<ProvenNode> {
  let handshake = begun
  const node = await verify(async (bytes) => {
    handshake = challenge(handshake, bytes, clock.now())
    const reply = await ask(bytes)
    handshake = answer(handshake, reply, clock.now())
    return reply
  })
  finish(handshake, clock.now())
  return node
}

/** What a verifier says is held against what any may say. */
function checked({ trustDomain }: Needs, type: string, node: ProvenNode): ProvenNode {
  if (trustDomainOf(node.id) !== trustDomain || !pathOf(node.id).startsWith(`/spire/agent/${type}/`)) {
    throw new Failure('internal', 'attest.bad-verdict', {
      public: 'internal error',
      internal: { id: node.id, expected: `spiffe://${trustDomain}/spire/agent/${type}/…` },
    })
  }
  return { ...node, selectors: uniqueSelectors(node.selectors) }
}

async function admit(
  server: Needs,
  node: ProvenNode,
  type: string,
  key: ProvenKey,
  address: string,
  digest: string,
  signal: AbortSignal,
): Promise<AttestedAgent> {
  checkWelcome(await server.nodes.find(node.id))
  const svid = await server.ca.issueX509Svid(
    { kind: 'agent', spiffeId: node.id, key, context: { caller: address, attestation: type, evidence: digest } },
    signal,
  )
  const record: AttestedNode = {
    id: node.id,
    attestationType: type,
    serial: svid.serial,
    expiresAt: svid.notAfter,
    pending: [],
    superseded: [],
    selectors: node.selectors,
    canReattest: node.canReattest,
    banned: false,
    agentVersion: '',
  }
  await server.audit.append(nodeAttested({ id: node.id, type, evidence: digest, serial: svid.serial, address }))
  // A ban or a freeze that came meanwhile stays.
  const stored = await server.nodes.change(node.id, (found) => (found.banned || found.frozen ? undefined : record))
  checkWelcome(stored)
  if (!stored) await server.nodes.put(record)
  return { svid, reattestable: node.canReattest }
}

/** What was shown, for the audit trail: whoever has it can find the record, and the record tells nothing of it. */
const digestOf = ({ payload }: Evidence): string => hash('sha256', payload)

/** Evidence does not help a node that an operator banned, or whose evidence may have been copied with all else. */
function checkWelcome(node: AttestedNode | undefined): void {
  if (node?.banned) throw new Failure('permission_denied', 'server.agent-banned', { public: 'agent is banned' })
  if (node?.frozen) throw new Failure('permission_denied', 'server.agent-cloned', { public: 'agent is frozen' })
}
