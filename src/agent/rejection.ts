import type { Failure } from '../kernel/failure.ts'

/** True if the server said that it does not accept this agent any more, or the agent's own identity ended: then workloads must not rely on it either. */
export function isRejection(failure: Failure): boolean {
  return rejections.has(failure.reason)
}

const rejections: ReadonlySet<string> = new Set([
  'server.agent-banned',
  'server.agent-cloned',
  'server.agent-not-attested',
  'server.agent-not-active',
  'server.agent-expired',
  'server.agent-must-reattest',
  'agent.identity-expired',
])
