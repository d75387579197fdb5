import { nodeRenewed } from '../audit/event.ts'
import type { IssuedX509Svid } from '../ca/certificate-authority.ts'
import { Failure } from '../kernel/failure.ts'
import { isRenewedTooOften, renewed, type AttestedNode } from '../registry/node.ts'
import { parseCertificateRequest, proven } from '../x509/certificate-request.ts'
import type { Server } from './server.ts'

/**
 * Gives an agent its next certificate. The certificate of its connection says which is
 * the last it has. Both are accepted until the next one is used first, so that a lost answer strands nobody.
 * @throws Failure `server.agent-must-reattest`, `server.agent-not-active`, `server.agent-renews-too-often`, `x509.*`, `ca.*`
 */
export async function renewAgent(
  server: Pick<Server, 'ca' | 'audit' | 'clock' | 'nodes'>,
  agent: AttestedNode,
  csr: Uint8Array,
  signal: AbortSignal,
): Promise<IssuedX509Svid> {
  if (agent.canReattest) {
    throw new Failure('permission_denied', 'server.agent-must-reattest', { public: 'agent must reattest instead of renew' })
  }
  if (isRenewedTooOften(agent, server.clock.now())) {
    throw new Failure('resource_exhausted', 'server.agent-renews-too-often', { public: 'too many certificates of this agent are alive' })
  }
  const key = await proven(parseCertificateRequest(csr))
  const svid = await server.ca.issueX509Svid({ kind: 'agent', spiffeId: agent.id, key, context: { caller: agent.id } }, signal)
  // the renewal counts only while the certificate that asked for it is still the one in use.
  const isSame = (node: AttestedNode): boolean => !node.banned && !node.frozen && node.serial === agent.serial
  let renewal = false
  await server.nodes.change(agent.id, (node) => {
    renewal = isSame(node)
    return renewal ? renewed(node, { serial: svid.serial, expiresAt: svid.notAfter }) : undefined
  })
  if (!renewal) throw new Failure('permission_denied', 'server.agent-not-active', { public: 'agent certificate is not active' })
  await server.audit.append(nodeRenewed({ id: agent.id, serial: svid.serial }))
  return svid
}
