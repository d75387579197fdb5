/** What operators do to the authorities: prepare, activate, taint, revoke. Checks what is asked; `rotation.ts` does it and writes it down. */
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { Asked, Authorities, AuthorityKind, AuthorityStatus } from './authorities.ts'
import type { JournalRecord, X509Material } from './journal.ts'
import type { Line } from './line.ts'
import * as slots from './slots.ts'
import type { Authority, OldAuthority, Slots } from './slots.ts'
import { rootId } from './x509-authority.ts'

/** What a rotation lends to those who force it. */
export interface Hands {
  now(): Instant
  record(): JournalRecord
  /** Whether authorities of this kind are wanted. */
  isOn(kind: AuthorityKind): boolean
  withLine<T>(kind: AuthorityKind, use: <M>(line: Line<M>) => T): T
  /** Runs a deed while nobody else changes the record. */
  alone<T>(deed: () => Promise<T>): Promise<T>
  /** Makes the authority to come. */
  prepare<M>(line: Line<M>, asked: Asked, signal: AbortSignal): Promise<void>
  /** Records a change, and publishes what follows from it. */
  advance<M>(line: Line<M>, step: string, authority: Authority<M>, changed: Slots<M>, asked: Asked): Promise<void>
  changeRoots(step: string, root: string, roots: JournalRecord['roots'], asked: Asked): Promise<void>
  /** Destroys the keys whose time has come. */
  destroy(signal: AbortSignal): Promise<void>
}

export function forcedRotation(hands: Hands): Authorities {
  return {
    state(kind) {
      demandOn(hands, kind)
      return hands.withLine(kind, (line) => {
        const { active, next, old } = line.slots()
        return {
          ...(active && { active: statusOf(line, active) }),
          ...(next?.stage === 'published' && { prepared: statusOf(line, next.authority) }),
          ...(old[0] && { old: statusOf(line, old[0]) }),
        }
      })
    },

    prepare: (kind, asked, signal) => changing(hands, kind, (line) => prepare(hands, line, asked, signal)),

    activate: (kind, id, asked) =>
      changing(hands, kind, async (line) => {
        const authority = preparedIn(line, id)
        await hands.advance(line, 'activated', authority, slots.activate(line.slots()), asked)
        return statusOf(line, authority)
      }),

    taint: (kind, id, asked) =>
      changing(hands, kind, async (line) => {
        const old = oldIn(line, id)
        if (old.tainted) throw alreadyTainted(id)
        await hands.advance(line, 'tainted', old, slots.taint(line.slots(), old.keyId), asked)
        return statusOf(line, old)
      }),

    revoke: (kind, id, asked, signal) =>
      changing(hands, kind, async (line) => {
        const old = oldIn(line, id)
        if (!old.tainted) throw notTainted(id)
        await hands.advance(line, 'revoked', old, slots.revoke(line.slots(), old.keyId), asked)
        // It is revoked, whether its key can be destroyed now or only later.
        await hands.destroy(signal).catch(() => {})
        return statusOf(line, old)
      }),

    taintRoot: (root, asked) =>
      hands.alone(async () => {
        const { roots, x509 } = hands.record()
        demandUpstreamRoot(hands, root)
        for (const held of [x509.active, x509.next?.stage === 'published' ? x509.next.authority : undefined]) {
          if (held && rootId(held.material) === root) throw rootInUse(root, held === x509.active)
        }
        if (roots.tainted.includes(root)) throw alreadyTainted(root)
        demandRoom(roots.tainted.length)
        await hands.changeRoots('tainted', root, { ...roots, tainted: [...roots.tainted, root] }, asked)
      }),

    revokeRoot: (root, asked) =>
      hands.alone(async () => {
        const { roots } = hands.record()
        demandUpstreamRoot(hands, root)
        if (!roots.tainted.includes(root)) throw notTainted(root)
        demandRoom(roots.revoked.length)
        const tainted = roots.tainted.filter((one) => one !== root)
        await hands.changeRoots('revoked', root, { tainted, revoked: [...roots.revoked, root] }, asked)
      }),
  }
}

function changing(hands: Hands, kind: AuthorityKind, deed: <M>(line: Line<M>) => Promise<AuthorityStatus>): Promise<AuthorityStatus> {
  demandOn(hands, kind)
  return hands.alone(() => hands.withLine(kind, deed))
}

/** One that was announced and never signed makes room: nobody holds anything of it. */
async function prepare<M>(hands: Hands, line: Line<M>, asked: Asked, signal: AbortSignal): Promise<AuthorityStatus> {
  const { old, next } = line.slots()
  if (old.length >= mostOld || hands.record().spent.length >= mostSpent) {
    throw new Failure('failed_precondition', 'authority.too-many', {
      public: `${old.length} old authorities are still trusted, or too many keys wait for their end: taint and revoke the old ones, or wait until they end`,
    })
  }
  if (next && next.stage !== 'intended') await hands.advance(line, 'discarded', next.authority, slots.discard(line.slots()), asked)
  await hands.prepare(line, asked, signal)
  const made = line.slots().next
  if (made?.stage !== 'made') throw new Error('bug: an authority was prepared and is not there')
  await hands.advance(line, 'published', made.authority, slots.publish(line.slots(), hands.now()), asked)
  return statusOf(line, made.authority)
}

function preparedIn<M>(line: Line<M>, id: string): Authority<M> {
  const { next } = line.slots()
  if (next?.stage !== 'published') {
    throw new Failure('failed_precondition', 'authority.none-prepared', { public: 'no authority is prepared: prepare one first' })
  }
  const prepared = line.nameOf(next.authority.material)
  if (prepared === id) return next.authority
  throw new Failure('failed_precondition', 'authority.not-prepared', {
    public: `the authority \`${cut(id)}\` is not prepared: the one that can be activated is \`${prepared}\``,
  })
}

function oldIn<M>(line: Line<M>, id: string): OldAuthority<M> {
  const { active, next, old } = line.slots()
  const found = old.find(({ material }) => line.nameOf(material) === id)
  if (found) {
    if (line.rootOf?.(found.material) === undefined) return found
    throw new Failure('failed_precondition', 'authority.under-upstream', {
      public: 'the authority is under an upstream root: taint and revoke that root instead',
    })
  }
  const state =
    active && line.nameOf(active.material) === id
      ? 'is active: prepare and activate another first'
      : next?.stage === 'published' && line.nameOf(next.authority.material) === id
        ? 'is prepared and has not signed: prepare another to replace it'
        : `is not known: the old ones are ${old.map(({ material }) => `\`${line.nameOf(material)}\``).join(', ') || 'none'}`
  throw new Failure('failed_precondition', 'authority.not-old', { public: `the authority \`${cut(id)}\` ${state}` })
}

function demandOn(hands: Hands, kind: AuthorityKind): void {
  if (!hands.isOn(kind)) throw witOff()
}

export function witOff(): Failure {
  return new Failure('unimplemented', 'ca.wit-off', {
    public: 'WIT-SVIDs are off: set `experimental.witSvid: true` in the configuration of the server',
  })
}

function demandUpstreamRoot(hands: Hands, root: string): void {
  const { active, next, old } = hands.record().x509
  const authorities: (Authority<X509Material> | undefined)[] = [
    active,
    next && next.stage !== 'intended' ? next.authority : undefined,
    ...old,
  ]
  const known = new Set(authorities.flatMap((one) => (one && rootId(one.material)) ?? []))
  if (known.size === 0) {
    throw new Failure('failed_precondition', 'authority.no-upstream', {
      public: 'no authority is under an upstream root: taint and revoke the authority itself',
    })
  }
  if (known.has(root)) return
  throw new Failure('not_found', 'authority.unknown-root', {
    public: `no authority is under a root \`${cut(root)}\`: expected one of ${[...known].map((one) => `\`${one}\``).join(', ')}`,
  })
}

function rootInUse(root: string, active: boolean): Failure {
  return new Failure('failed_precondition', 'authority.root-in-use', {
    public: `the ${active ? 'active' : 'prepared'} authority is under the root \`${cut(root)}\`: ${active ? 'prepare and activate' : 'prepare'} one under another root first`,
  })
}

function alreadyTainted(id: string): Failure {
  return new Failure('failed_precondition', 'authority.already-tainted', {
    public: `\`${cut(id)}\` is tainted already: revoke it when nothing of it is in use any more`,
  })
}

function notTainted(id: string): Failure {
  return new Failure('failed_precondition', 'authority.not-tainted', {
    public: `\`${cut(id)}\` is not tainted: taint it first, so that everybody gets a new SVID before it goes`,
  })
}

function demandRoom(count: number): void {
  if (count < mostRoots) return
  throw new Failure('resource_exhausted', 'authority.too-many-roots', { public: `${count} roots are distrusted: more are not kept` })
}

function statusOf<M>(line: Line<M>, { material, until }: Authority<M>): AuthorityStatus {
  const upstreamId = line.rootOf?.(material)
  return { id: line.nameOf(material), expiresAt: until, ...(upstreamId !== undefined && { upstreamId }) }
}

const cut = (id: string): string => id.slice(0, 80)
/** Of one kind: each stays in the bundle until it ends, and rotation adds few (docs/reliability.md). */
const mostOld = 8
const mostSpent = 256
const mostRoots = 64
