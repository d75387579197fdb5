/** Caller + method + policy → go on, or a refusal. Every call of every door comes through here. */
import { callRefused } from '../audit/event.ts'
import { Failure } from '../kernel/failure.ts'
import type { ServerApiAttributes, ServerApiCaller } from '../policy/request.ts'
import { activated, standingOf, type AttestedNode, type Standing } from '../registry/node.ts'
import type { VerifiedX509Svid } from '../spiffe/x509-svid.ts'
import { callerName, checkStillTrusted, type Caller, type Peer, type RemotePeer } from './caller.ts'
import type { Server } from './server.ts'

export interface Authorization {
  readonly peer: Peer
  /** `/package.Service/Method` */
  readonly method: string
  /** What the call is about, as far as policies may ask; a call about several things is allowed if it is for each. */
  readonly subjects: readonly ServerApiAttributes[]
}

type Needs = Pick<Server, 'clock' | 'ca' | 'nodes' | 'entryCache' | 'policies' | 'audit' | 'adminIds'>

/**
 * Decides whether a call goes on, and as whom. A method that no policy names is refused.
 * @throws Failure `server.denied`, `server.peer-untrusted`, `server.agent-expired`, `server.agent-not-attested`, `server.agent-banned`, `server.agent-not-active`
 */
export async function authorize(server: Needs, call: Authorization): Promise<Caller> {
  try {
    return await decide(server, call)
  } catch (thrown) {
    const failure = Failure.from(thrown)
    // A stranger's refusals go to the log alone: it could fill the trail with them.
    if (isKnown(call.peer))
      await server.audit.append(callRefused({ method: call.method, caller: callerName(call.peer), reason: failure.reason }))
    throw failure
  }
}

async function decide(server: Needs, call: Authorization): Promise<Caller> {
  const { peer } = call
  if (peer.kind === 'local') {
    checkAllowed(server, call, ['local', 'anyone'])
    return peer
  }
  if (peer.refusal) throw peer.refusal
  if (!peer.identity) {
    checkAllowed(server, call, ['anyone'])
    return { kind: 'anyone', address: peer.address }
  }
  checkStillTrusted(peer.identity, server.ca.bundle.current, server.clock.now())
  return decideFor(server, call, peer, peer.identity)
}

/** A caller with a certificate is everything that the registry makes of its identity. */
async function decideFor(server: Needs, call: Authorization, { address }: RemotePeer, identity: VerifiedX509Svid): Promise<Caller> {
  const { spiffeId: id, leaf } = identity
  const at = server.clock.now()
  const [entries, node] = await Promise.all([server.entryCache.current(), server.nodes.find(id)])
  const standing = standingOf(node, leaf, at)
  const granted = (['admin', 'downstream'] as const).filter(
    (role) => entries.isPrivileged(id, role, at) || (role === 'admin' && server.adminIds?.has(id)),
  )
  const roles = [...granted, ...(standing.accepted ? ['agent' as const] : []), 'anyone' as const]
  if (!isAllowed(server, call, roles)) {
    // Only who calls as agents do is told how it stands as one.
    if (!standing.accepted && isAllowed(server, call, [...roles, 'agent'])) throw refusedAgent(standing.why)
    throw denied(call, roles)
  }
  if (node && standing.accepted) return { kind: 'agent', address, node: await seenInUse(server, node, identity, standing) }
  const role = granted[0]
  return role ? { kind: role, address, id } : { kind: 'anyone', address }
}

/** A pending certificate that is used becomes the one in use, and the one before it ends. */
async function seenInUse(server: Needs, node: AttestedNode, { leaf }: VerifiedX509Svid, standing: Standing): Promise<AttestedNode> {
  if (!standing.accepted || !standing.firstUse) return node
  const now = await server.nodes.change(node.id, (found) => (found.pending?.serial === leaf.serial ? activated(found) : undefined))
  const again = standingOf(now, leaf, server.clock.now())
  if (!now || !again.accepted) throw refusedAgent(again.accepted ? 'not-attested' : again.why)
  return now
}

function checkAllowed(server: Needs, call: Authorization, roles: readonly ServerApiCaller[]): void {
  if (!isAllowed(server, call, roles)) throw denied(call, roles)
}

function isAllowed(server: Needs, { method, subjects }: Authorization, caller: readonly ServerApiCaller[]): boolean {
  const about = subjects.length === 0 ? [{}] : subjects
  return about.every((attributes) => server.policies.decide({ caller, method, attributes }, server.clock.now()).allowed)
}

function denied({ method, peer }: Authorization, roles: readonly ServerApiCaller[]): Failure {
  return new Failure('permission_denied', 'server.denied', {
    public: `authorization denied for method ${method}`,
    internal: { caller: callerName(peer), roles },
  })
}

function refusedAgent(why: keyof typeof agentTexts): Failure {
  return new Failure('permission_denied', `server.agent-${why}`, { public: agentTexts[why] })
}

const isKnown = (peer: Peer): boolean => peer.kind === 'local' || peer.identity !== undefined

const agentTexts = {
  expired: 'agent certificate has expired',
  'not-attested': 'agent is not attested',
  banned: 'agent is banned',
  'not-active': 'agent certificate is not active',
} as const
