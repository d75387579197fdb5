/** Which sources reach which workloads: not at all, somehow, or whatever they ask (authorization.md 5.3). */
import type { Instant } from '../../kernel/clock.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import { compileFor } from '../compile.ts'
import type { PolicySet } from '../policy-set.ts'
import { assumptions, type Unknown } from './answer.ts'
import { type AnalysisLimits, Budget, BudgetExhausted, defaultLimits } from './budget.ts'
import { type Destination, destinationsOf } from './destinations.ts'
import { always, type Node, never } from './diagram.ts'
import { merge } from './difference.ts'
import { Space } from './space.ts'
import { constraintsOf, wordsOf } from './words.ts'
import { peerWords } from './who-can.ts'

export interface ReachCell {
  readonly source: string
  readonly destination: string
  readonly reach: 'none' | 'some' | 'all'
  /** What of it, for `some`. */
  readonly summary: string
}

export interface Reach {
  readonly cells: readonly ReachCell[]
  readonly unknown: readonly Unknown[]
  readonly assumptions: readonly string[]
}

/** The matrix, by source and destination: for identities that exist, or else for the families of peers that policies tell apart. */
export function reachOf(
  set: PolicySet,
  {
    at,
    identities,
    destinations,
    limits = defaultLimits,
  }: {
    readonly at: Instant
    readonly identities?: readonly SpiffeId[]
    readonly destinations?: readonly Destination[]
    readonly limits?: AnalysisLimits
  },
): Reach {
  const unknown: Unknown[] = []
  const attempt = <T>(what: string, work: () => T): T | undefined => {
    try {
      return work()
    } catch (error) {
      if (!(error instanceof BudgetExhausted)) throw error
      unknown.push({ reason: 'budget', what })
      return undefined
    }
  }
  const places =
    destinations ?? attempt('all workloads: there are too many kinds of them', () => destinationsOf([set], new Budget(limits))) ?? []
  const cells = places.flatMap(
    (destination) => attempt(`who reaches ${destination.words}`, () => column(set, destination, { at, identities, limits })) ?? [],
  )
  return { cells, unknown, assumptions: assumptions(set.mode) }
}

function column(
  set: PolicySet,
  { facts, words: destination }: Destination,
  {
    at,
    identities,
    limits,
  }: { readonly at: Instant; readonly identities: readonly SpiffeId[] | undefined; readonly limits: AnalysisLimits },
): ReachCell[] {
  const policies = compileFor(set, facts, { at })
  const space = new Space([policies], new Budget(limits))
  const verdict = space.allowed(policies)
  const peer = space.placeOf('peer')
  // The protocol comes before the peer: who is asked about is chosen first.
  const ofClass = (one: number): Node => (peer ? space.diagram.restrict(verdict, peer.dimension.level, one) : verdict)
  const cell = (source: string, node: Node): ReachCell => ({
    source,
    destination,
    reach: node === never ? 'none' : node === always ? 'all' : 'some',
    summary: node === never || node === always ? '' : summaryOf(space, node),
  })
  if (identities) return identities.map((id) => cell(id, ofClass(peer?.classesIn({ peer: { spiffeId: id } })?.[0] ?? 0)))
  if (!peer) return [cell('anybody', verdict)]
  const groups = Map.groupBy(peer.dimension.classes.keys(), ofClass)
  const order = ['all', 'some', 'none']
  return [...groups]
    .map(([node, classes]) => cell(peerWords(peer, classes), node))
    .sort((a, b) => order.indexOf(a.reach) - order.indexOf(b.reach))
}

function summaryOf(space: Space, node: Node): string {
  const cubes = []
  for (const cube of space.diagram.cubes(node)) if (cubes.push(cube) >= maxCubes) break
  const words = merge(space, cubes).sort((a, b) => a.length - b.length).map((cube) => wordsOf(constraintsOf(space, cube))) // prettier-ignore
  const more = words.length > shown ? `; and ${words.length - shown} more` : ''
  return `${words.slice(0, shown).join('; ')}${more}`
}

const maxCubes = 200
const shown = 3
