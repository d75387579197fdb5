import { Failure } from '../kernel/failure.ts'
import type { AttestedNode } from '../registry/node.ts'
import { superseded, type Caller } from '../server/caller.ts'

/**
 * The node behind a call that only an agent can make. A policy may let others call the method, but their entries it cannot give them.
 * @throws Failure `server.not-an-agent`
 */
export function agentOf(caller: Caller): AttestedNode {
  if (caller.kind === 'agent') return caller.node
  throw new Failure('permission_denied', 'server.not-an-agent', { public: 'caller is not an agent' })
}

/**
 * The node behind a renewal, which counts only by the last certificate (R-39, C-29).
 * @throws Failure `server.not-an-agent`, `server.agent-superseded`
 */
export function renewingAgentOf(caller: Caller): AttestedNode {
  const node = agentOf(caller)
  if (caller.kind === 'agent' && caller.isSuperseded) throw superseded()
  return node
}
