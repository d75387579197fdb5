import { cloneDetected } from '../audit/event.ts'
import { frozen, shownByAnother, type CertificateSeen, type CloneEvidence } from '../registry/node.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Server } from './server.ts'

/**
 * Freezes a node whose superseded certificate is in use again: two parties hold its identity, and nothing tells which is the node (C-29).
 * Neither is accepted until an operator decides. The node is frozen before the trail says so: what the trail cannot take leaves it frozen.
 */
export async function freezeClone(
  server: Pick<Server, 'nodes' | 'clock' | 'audit' | 'log'>,
  id: SpiffeId,
  shown: CertificateSeen,
): Promise<void> {
  let evidence: CloneEvidence | undefined
  await server.nodes.change(id, (node) => {
    const superseded = node.frozen || node.banned ? undefined : shownByAnother(node, shown.serial, server.clock.now())
    evidence = superseded && { at: server.clock.now(), superseded: shown, successor: superseded.by }
    return evidence && frozen(node, evidence)
  })
  if (!evidence) return
  const { superseded, successor } = evidence
  server.log.error('two parties hold the identity of an agent: it is frozen until `vidimus agent release` or `vidimus agent evict`', {
    id,
    supersededSerial: superseded.serial,
    supersededAddress: superseded.address,
    serial: successor.serial,
    address: successor.address,
  })
  await server.audit.append(cloneDetected({ id, superseded, successor }))
}
