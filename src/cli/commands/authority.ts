import { z } from 'zod'
import { hex } from '../../kernel/bytes.ts'
import { formatInstant } from '../../kernel/clock.ts'
import { formatDuration, minutes } from '../../kernel/duration.ts'
import { Failure } from '../../kernel/failure.ts'
import { connectAdmin, type AdminClient, type AuthorityKind, type AuthorityState, type AuthorityStatus } from '../../server-api/client.ts'
import type { TrustBundle } from '../../spiffe/bundle.ts'
import { command } from '../command.ts'
import { serverSocket, within } from '../flags.ts'
import { table, type Shown } from '../output.ts'

const kinds = ['x509', 'jwt', 'wit'] as const
const kindFlag = z.enum(kinds).describe('which of them').meta({ value: 'kind' })
const oneKind = { ...serverSocket, kind: kindFlag }
/** A flag and no argument by position: the name of a key may begin with a hyphen. */
const oneAuthority = {
  ...oneKind,
  id: z.string().min(1).describe('the authority, as `vidimus authority show` names it').meta({ value: 'id' }),
}
const oneRoot = {
  ...serverSocket,
  id: z
    .string()
    .min(1)
    .describe('the subject key identifier of the root in hex, as `vidimus authority show` names it')
    .meta({ value: 'hex' }),
}

export const authorityShow = command({
  name: 'authority show',
  summary: 'list the authorities of this server: which signs, which is to come, and which are still trusted',
  flags: z.strictObject({ ...serverSocket, kind: kindFlag.optional() }),
  async run({ serverSocket, kind }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const bundle = await server.bundle.find(within(stop))
    const rows = (
      await Promise.all((kind ? [kind] : kinds).map((one) => rowsOf(server, one, bundle, kind !== undefined, within(stop))))
    ).flat()
    const cells = rows.map(({ kind, id, state, expiresAt }) => [kind, id, state, expiresAt ?? ''])
    return { value: { authorities: rows }, text: table(['KIND', 'AUTHORITY', 'STATE', 'UNTIL'], cells) }
  },
})

export const authorityPrepare = command({
  name: 'authority prepare',
  summary: 'make a new authority and announce it; it signs when it is activated',
  flags: z.strictObject(oneKind),
  examples: ['vidimus authority prepare --kind x509'],
  async run({ serverSocket, kind }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const prepared = await server.authorities.prepare(kind, within(stop))
    const { refreshHint = minutes(5) } = await server.bundle.find(within(stop))
    return done('prepared', kind, prepared, [
      `everybody has heard of it in ${formatDuration(refreshHint)}: then run \`vidimus authority activate --kind ${kind} --id ${prepared.id}\``,
    ])
  },
})

export const authorityActivate = command({
  name: 'authority activate',
  summary: 'let the prepared authority sign from now on',
  flags: z.strictObject(oneAuthority),
  async run({ serverSocket, kind, id }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const activated = await server.authorities.activate(kind, id, within(stop))
    const { old } = await server.authorities.state(kind, within(stop))
    return done('activated', kind, activated, nextAfterActivation(kind, old))
  },
})

export const authorityTaint = command({
  name: 'authority taint',
  summary: 'announce that an old authority is trusted no longer soon: what it signed is replaced at once',
  flags: z.strictObject(oneAuthority),
  async run({ serverSocket, kind, id }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const tainted = await server.authorities.taint(kind, id, within(stop))
    return done('tainted', kind, tainted, [
      `agents replace what it signed at their next sync: then run \`vidimus authority revoke --kind ${kind} --id ${tainted.id}\``,
    ])
  },
})

export const authorityRevoke = command({
  name: 'authority revoke',
  summary: 'end the trust in a tainted authority, and destroy its key',
  flags: z.strictObject(oneAuthority),
  async run({ serverSocket, kind, id }, { stop }) {
    await using server = connectAdmin(serverSocket)
    return done('revoked', kind, await server.authorities.revoke(kind, id, within(stop)), [])
  },
})

export const upstreamTaint = command({
  name: 'authority upstream taint',
  summary: 'announce that a root above our authorities is trusted no longer soon: what is under it is replaced at once',
  flags: z.strictObject(oneRoot),
  async run({ serverSocket, id }, { stop }) {
    await using server = connectAdmin(serverSocket)
    await server.authorities.taintRoot(id, within(stop))
    const next = `agents replace what is under it at their next sync: then run \`vidimus authority upstream revoke --id ${id}\``
    return { value: { root: id, tainted: true }, text: `tainted the root ${id}\n${next}` }
  },
})

export const upstreamRevoke = command({
  name: 'authority upstream revoke',
  summary: 'end the trust in a tainted root above our authorities; none under it is accepted again',
  flags: z.strictObject(oneRoot),
  async run({ serverSocket, id }, { stop }) {
    await using server = connectAdmin(serverSocket)
    await server.authorities.revokeRoot(id, within(stop))
    return { value: { root: id, revoked: true }, text: `revoked the root ${id}` }
  },
})

interface Row {
  readonly kind: string
  readonly id: string
  readonly state: string
  readonly expiresAt?: string
}

/** What the server says of a kind, and whoever else the bundle holds. A kind that is off has no rows, unless it was asked for by name. */
async function rowsOf(server: AdminClient, kind: AuthorityKind, bundle: TrustBundle, byName: boolean, signal: AbortSignal): Promise<Row[]> {
  const state = await server.authorities.state(kind, signal).catch((error: unknown) => {
    if (byName || Failure.from(error).category !== 'unimplemented') throw error
    return undefined
  })
  if (!state) return []
  const { active, prepared } = state
  const named = [active && row(kind, active, 'active'), prepared && row(kind, prepared, 'prepared')].filter((one) => one !== undefined)
  const known = new Set(named.map(({ id }) => id))
  const others = inBundle(kind, state, bundle).filter(({ id }) => !known.has(id))
  return [...named, ...others]
}

function inBundle(kind: AuthorityKind, state: AuthorityState, bundle: TrustBundle): Row[] {
  if (kind !== 'x509') {
    const keys = kind === 'jwt' ? bundle.jwtAuthorities : bundle.witAuthorities
    return keys.map(({ keyId: id, expiresAt, tainted }) => ({
      kind,
      id,
      state: tainted ? 'tainted' : 'old',
      ...(expiresAt !== undefined && { expiresAt: formatInstant(expiresAt) }),
    }))
  }
  const isUnderRoot = (state.active ?? state.prepared ?? state.old)?.upstreamId !== undefined
  return bundle.x509Authorities.map(({ certificate, tainted }) => ({
    kind: isUnderRoot ? 'x509 root' : kind,
    id: certificate.subjectKeyId ? hex(certificate.subjectKeyId) : '',
    state: tainted ? 'tainted' : isUnderRoot ? 'trusted' : 'old',
    expiresAt: formatInstant(certificate.notAfter),
  }))
}

const row = (kind: string, { id, expiresAt, upstreamId }: AuthorityStatus, state: string): Row => ({
  kind,
  id,
  state: upstreamId === undefined ? state : `${state}, under ${upstreamId}`,
  expiresAt: formatInstant(expiresAt),
})

function nextAfterActivation(kind: AuthorityKind, old: AuthorityStatus | undefined): string[] {
  if (!old) return []
  if (old.upstreamId !== undefined)
    return [`to leave the root ${old.upstreamId}, run \`vidimus authority upstream taint --id ${old.upstreamId}\``]
  return [
    `the one before it stays trusted until it ends; to end that sooner, run \`vidimus authority taint --kind ${kind} --id ${old.id}\``,
  ]
}

function done(what: string, kind: AuthorityKind, { id, expiresAt, upstreamId }: AuthorityStatus, next: readonly string[]): Shown {
  const until = formatInstant(expiresAt)
  const value = { kind, id, expiresAt: until, ...(upstreamId !== undefined && { upstreamId }), [what]: true }
  return { value, text: [`${what} the ${kind} authority ${id}`, ...next].join('\n') }
}
