/** Caller + method + policy → go on, or a refusal. Every call of every door comes through here. */
import { callRefused } from '../audit/event.ts'
import { Failure } from '../kernel/failure.ts'
import type { ServerApiAttributes, ServerApiCaller } from '../policy/request.ts'
import { activated, standingOf, type AttestedNode, type ShownCertificate, type Standing } from '../registry/node.ts'
import type { VerifiedX509Svid } from '../spiffe/x509-svid.ts'
import { callerName, checkStillTrusted, superseded, type Caller, type Peer, type RemotePeer } from './caller.ts'
import { freezeClone } from './freeze-clone.ts'
import type { Server } from './server.ts'

export interface Authorization {
  readonly peer: Peer
  /** `/package.Service/Method` */
  readonly method: string
  /** What the call is about, as far as policies may ask; a call about several things is allowed if it is for each. */
  readonly subjects: readonly ServerApiAttributes[]
  /** The call was let in before, and goes on. */
  readonly isUnderWay?: boolean
}

type Needs = Pick<Server, 'clock' | 'log' | 'ca' | 'nodes' | 'entryCache' | 'policies' | 'audit' | 'adminIds'>

/**
 * Decides whether a call goes on, and as whom. A method that no policy names is refused.
 * @throws Failure `server.denied`, `server.peer-untrusted`, `server.agent-expired`, `server.agent-not-attested`, `server.agent-banned`,
 * `server.agent-cloned`, `server.agent-not-active`, `server.agent-superseded`
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
async function decideFor(
  server: Needs,
  call: Authorization,
  { address }: RemotePeer,
  { spiffeId: id, leaf }: VerifiedX509Svid,
): Promise<Caller> {
  const at = server.clock.now()
  const [entries, node] = await Promise.all([server.entryCache.current(), server.nodes.find(id)])
  const standing = standingOf(node, leaf, at)
  if (node && !node.frozen && isRefusedAs(standing, 'cloned')) {
    // Who goes on with its new certificate may have left a stream behind; whoever has no other one calls again.
    if (call.isUnderWay) throw superseded()
    await freezeClone(server, id, { serial: leaf.serial, address })
  }
  const isOutlawed = isRefusedAs(standing, 'cloned') || isRefusedAs(standing, 'banned')
  const granted = (['admin', 'downstream'] as const).filter(
    (role) => !isOutlawed && (entries.isPrivileged(id, role, at) || (role === 'admin' && server.adminIds?.has(id))),
  )
  const roles = [...granted, ...(standing.accepted ? ['agent' as const] : []), 'anyone' as const]
  if (!isAllowed(server, call, roles)) {
    // Only who calls as agents do is told how it stands as one.
    if (!standing.accepted && isAllowed(server, call, [...roles, 'agent'])) throw refusedAgent(standing.why)
    throw denied(call, roles)
  }
  if (node && standing.accepted) {
    const now = standing.as === 'pending' ? await seenInUse(server, node, leaf, address) : node
    return { kind: 'agent', address, node: now, isSuperseded: standing.as === 'superseded' }
  }
  const role = granted[0]
  return role ? { kind: role, address, id } : { kind: 'anyone', address }
}

/** A pending certificate that is used becomes the one in use, and the ones before it end. */
async function seenInUse(server: Needs, { id }: AttestedNode, shown: ShownCertificate, address: string): Promise<AttestedNode> {
  const at = server.clock.now()
  const now = await server.nodes.change(id, (found) => {
    const standing = standingOf(found, shown, at)
    return standing.accepted && standing.as === 'pending' ? activated(found, { serial: shown.serial, address }, at) : undefined
  })
  const again = standingOf(now, shown, at)
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

const isRefusedAs = (standing: Standing, why: keyof typeof agentTexts): boolean => !standing.accepted && standing.why === why
const isKnown = (peer: Peer): boolean => peer.kind === 'local' || peer.identity !== undefined

const agentTexts = {
  expired: 'agent certificate has expired',
  'not-attested': 'agent is not attested',
  banned: 'agent is banned',
  cloned: 'agent is frozen',
  'not-active': 'agent certificate is not active',
} as const
