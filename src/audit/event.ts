/** What happened, one maker an event. Redacted by construction: a maker takes only what may be kept. */
import { formatInstant, type Instant } from '../kernel/clock.ts'

/** One thing that happened. `what` is a stable name; `fields` hold names and numbers, never keys, tokens or whole certificates. */
export interface AuditEvent {
  readonly what: string
  readonly outcome: 'done' | 'refused'
  readonly fields: Readonly<Record<string, string | number | boolean>>
}

type Context = Readonly<Record<string, string>>

export const x509SvidIssued = (
  svid: { spiffeId: string; serial: string; notAfter: Instant; authority: string },
  context: Context,
): AuditEvent => ({
  what: 'x509-svid.issued',
  outcome: 'done',
  fields: { ...context, spiffeId: svid.spiffeId, serial: svid.serial, notAfter: svid.notAfter, authority: svid.authority },
})

export const jwtSvidIssued = (
  svid: { spiffeId: string; jti: string; expiresAt: Instant; keyId: string; audience: readonly string[] },
  context: Context,
): AuditEvent => ({
  what: 'jwt-svid.issued',
  outcome: 'done',
  fields: {
    ...context,
    spiffeId: svid.spiffeId,
    jti: svid.jti,
    expiresAt: svid.expiresAt,
    keyId: svid.keyId,
    audience: svid.audience.join(' '),
  },
})

export const witSvidIssued = (
  svid: { spiffeId: string; jti: string; expiresAt: Instant; keyId: string },
  context: Context,
): AuditEvent => ({
  what: 'wit-svid.issued',
  outcome: 'done',
  fields: { ...context, spiffeId: svid.spiffeId, jti: svid.jti, expiresAt: svid.expiresAt, keyId: svid.keyId },
})

export const issuanceRefused = (refusal: { spiffeId: string; reason: string }, context: Context): AuditEvent => ({
  what: 'svid.refused',
  outcome: 'refused',
  fields: { ...context, spiffeId: refusal.spiffeId, reason: refusal.reason },
})

/** The end of the trail had been torn by a power cut, and was cut off. */
export const trailRepaired = (torn: { bytes: number; sha256: string }): AuditEvent => ({
  what: 'audit.repaired',
  outcome: 'done',
  fields: { bytes: torn.bytes, sha256: torn.sha256 },
})

/** Nothing could be recorded since then, and what was to be recorded was not done, or done without a record where that is configured. */
export const trailResumed = (since: Instant): AuditEvent => ({
  what: 'audit.resumed',
  outcome: 'done',
  fields: { since: formatInstant(since) },
})

/** An earlier run ended while this was being signed: a signature may exist, and nobody is known to have got it. `name` is a serial number or a `jti`. */
export const issuanceUnresolved = (intent: { kind: string; name: string; spiffeId: string; entry: string }): AuditEvent => ({
  what: 'issuance.unresolved',
  outcome: 'refused',
  fields: { kind: intent.kind, name: intent.name, spiffeId: intent.spiffeId, entry: intent.entry },
})

/** An authority was prepared, published, activated, retired, tainted or revoked. `authority` is the hex subject key id, or the kid of a key. */
export const authorityChanged = (
  change: { kind: 'x509' | 'jwt' | 'wit'; step: string; authority: string; slot: string },
  context: Context = {},
): AuditEvent => ({
  what: `authority.${change.step}`,
  outcome: 'done',
  fields: { ...context, kind: change.kind, authority: change.authority, slot: change.slot },
})

/** So much of an authority's life is over, in percent, and the next one cannot take its place (V-10). */
export const authorityEnding = (ending: {
  kind: 'x509' | 'jwt' | 'wit'
  authority: string
  slot: string
  percent: number
  until: Instant
}): AuditEvent => ({
  what: 'authority.ending',
  outcome: 'refused',
  fields: { kind: ending.kind, authority: ending.authority, slot: ending.slot, percent: ending.percent, until: ending.until },
})

/** The key of an authority that nobody needs any more is about to be destroyed. */
export const keyDestroyed = ({ key }: { key: string }): AuditEvent => ({ what: 'key.destroyed', outcome: 'done', fields: { slot: key } })

/** The upstream gave our CA less life than was asked for (V-4). Durations in milliseconds. */
export const upstreamTtlCapped = (cap: {
  serial: string
  until: Instant
  lifetime: number
  got: number
  cause: string
  why: string
}): AuditEvent => ({
  what: 'upstream.ttl-capped',
  outcome: 'done',
  fields: { serial: cap.serial, until: cap.until, lifetime: cap.lifetime, got: cap.got, cause: cap.cause, why: cap.why },
})

/** The upstream did not make us an authority, or not one that may be used: ours goes on. */
export const upstreamRefused = ({ reason }: { reason: string }): AuditEvent => ({
  what: 'upstream.refused',
  outcome: 'refused',
  fields: { reason },
})

/** `evidence` is the SHA-256 of what the node showed. */
export const nodeAttested = (node: { id: string; type: string; evidence: string; serial: string; address: string }): AuditEvent => ({
  what: 'node.attested',
  outcome: 'done',
  fields: { id: node.id, type: node.type, evidence: node.evidence, serial: node.serial, address: node.address },
})

export const nodeRenewed = (node: { id: string; serial: string }): AuditEvent => ({
  what: 'node.renewed',
  outcome: 'done',
  fields: { id: node.id, serial: node.serial },
})

/** A certificate of a node that another had replaced was used again: two parties hold the identity, and both are refused (C-29). */
export const cloneDetected = (clone: {
  id: string
  superseded: { serial: string; address: string }
  successor: { serial: string; address: string }
}): AuditEvent => ({
  what: 'node.clone-detected',
  outcome: 'refused',
  fields: {
    id: clone.id,
    supersededSerial: clone.superseded.serial,
    supersededAddress: clone.superseded.address,
    serial: clone.successor.serial,
    address: clone.successor.address,
  },
})

export const nodeRefused = (refusal: { type: string; evidence: string; reason: string; address: string }): AuditEvent => ({
  what: 'node.refused',
  outcome: 'refused',
  fields: { type: refusal.type, evidence: refusal.evidence, reason: refusal.reason, address: refusal.address },
})

/** An administrator changed something: `what` is for example `entry.created`, `subject` its id. */
export const administered = (change: { what: string; subject: string; caller: string }, context: Context = {}): AuditEvent => ({
  what: change.what,
  outcome: 'done',
  fields: { ...context, subject: change.subject, caller: change.caller },
})

export const callRefused = (refusal: { method: string; caller: string; reason: string }): AuditEvent => ({
  what: 'call.refused',
  outcome: 'refused',
  fields: { method: refusal.method, caller: refusal.caller, reason: refusal.reason },
})
