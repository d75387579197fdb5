/** Which sources reach which workloads: not at all, somehow, or whatever they ask (authorization.md 5.3). */
import type { Instant } from '../../kernel/clock.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import { Failure } from '../../kernel/failure.ts'
import { compileFor, type CompiledPolicies } from '../compile.ts'
import { decide } from '../evaluate.ts'
import type { PolicySet } from '../policy-set.ts'
import type { PolicyRequest } from '../request.ts'
import { assumptions, type Unknown } from './answer.ts'
import { type AnalysisLimits, Budget, BudgetExhausted, defaultLimits } from './budget.ts'
import { type Destination, destinationsOf } from './destinations.ts'
import { always, type Node, never } from './diagram.ts'
import { merge, typicalPoint } from './difference.ts'
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

/** What changed for a source at a destination. */
export interface ReachChange {
  readonly source: string
  readonly destination: string
  readonly before: ReachCell['reach']
  readonly after: ReachCell['reach']
  /** What it reaches now and did not before, and the other way round; empty for nothing. */
  readonly gained: string
  readonly lost: string
  /** A request that is decided otherwise: both sets were asked. */
  readonly witness: PolicyRequest
}

export interface ReachDiff {
  readonly changes: readonly ReachChange[]
  readonly unknown: readonly Unknown[]
  readonly assumptions: readonly string[]
}

interface ReachOptions {
  readonly at: Instant
  readonly identities?: readonly SpiffeId[]
  readonly destinations?: readonly Destination[]
  readonly limits?: AnalysisLimits
}

/** The matrix, by source and destination: for identities that exist, or else for the families of peers that policies tell apart. */
export function reachOf(set: PolicySet, options: ReachOptions): Reach {
  const { rows: cells, unknown } = columns([set], options, (destination, asked) => column(set, destination, asked))
  return { cells, unknown, assumptions: assumptions(set.mode) }
}

/**
 * Where the matrices of two sets of one mode differ, with what is gained and lost.
 * @throws Failure `policy.analysis-disagrees`
 */
export function reachChanges(before: PolicySet, after: PolicySet, options: ReachOptions): ReachDiff {
  const { rows: changes, unknown } = columns([before, after], options, (destination, asked) => changedColumn([before, after], destination, asked)) // prettier-ignore
  return { changes, unknown, assumptions: assumptions(after.mode) }
}

interface Asked {
  readonly at: Instant
  readonly identities: readonly SpiffeId[] | undefined
  readonly limits: AnalysisLimits
}

/** One column after the other; those that would cost too much are named. */
function columns<Row>(
  sets: readonly PolicySet[],
  { at, identities, destinations, limits = defaultLimits }: ReachOptions,
  rowsOf: (destination: Destination, asked: Asked) => readonly Row[],
): { readonly rows: readonly Row[]; readonly unknown: readonly Unknown[] } {
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
    destinations ?? attempt('all workloads: there are too many kinds of them', () => destinationsOf(sets, new Budget(limits))) ?? []
  const rows = places.flatMap(
    (destination) => attempt(`who reaches ${destination.words}`, () => rowsOf(destination, { at, identities, limits })) ?? [],
  )
  return { rows, unknown }
}

function changedColumn(
  sets: readonly [PolicySet, PolicySet],
  { facts, words: destination }: Destination,
  { at, identities, limits }: Asked,
) {
  const [before, after] = [compileFor(sets[0], facts, { at }), compileFor(sets[1], facts, { at })]
  const space = new Space([before, after], new Budget(limits))
  const { diagram } = space
  const [was, is] = [space.allowed(before), space.allowed(after)]
  const peer = space.placeOf('peer')
  const change = (source: string, classes: readonly number[]): ReachChange[] => {
    const here = (node: Node): Node => (peer ? diagram.restrict(node, peer.dimension.level, classes[0]!) : node)
    const [old, next] = [here(was), here(is)]
    if (old === next) return []
    const [gained, lost] = [diagram.without(next, old), diagram.without(old, next)]
    const ofSource = peer ? diagram.choose(peer.dimension.level, classes) : always
    const witness = witnessIn(space, diagram.and(ofSource, gained === never ? lost : gained), [before, after])
    const told = (node: Node): string => (node === never ? '' : node === always ? 'everything' : summaryOf(space, node))
    return [{ source, destination, before: reachIn(old), after: reachIn(next), gained: told(gained), lost: told(lost), witness }]
  }
  if (identities) return identities.flatMap((id) => change(id, peer?.classesIn({ peer: { spiffeId: id } }) ?? []))
  if (!peer) return change('anybody', [])
  const { level, classes } = peer.dimension
  const groups = Map.groupBy(classes.keys(), (one) => [was, is].map((node) => diagram.restrict(node, level, one)).join())
  return [...groups.values()].flatMap((alike) => change(peerWords(peer, alike), alike))
}

/** A request of a difference, which both sets decided; what depends on something that no request shows cannot be replayed. */
function witnessIn(space: Space, difference: Node, sets: readonly CompiledPolicies[]): PolicyRequest {
  const [cube = []] = space.diagram.cubes(difference)
  const request = space.request(typicalPoint(space, cube))
  const [was, is] = sets.map((policies) => decide(policies, request).allowed)
  if (was !== is || space.places.some(({ opaque }) => opaque)) return request
  throw new Failure('internal', 'policy.analysis-disagrees', {
    public: 'the analysis and the evaluator disagree about a request: neither is to be trusted with these policies',
    internal: { request },
  })
}

const reachIn = (node: Node): ReachCell['reach'] => (node === never ? 'none' : node === always ? 'all' : 'some')

function column(set: PolicySet, { facts, words: destination }: Destination, { at, identities, limits }: Asked): ReachCell[] {
  const policies = compileFor(set, facts, { at })
  const space = new Space([policies], new Budget(limits))
  const verdict = space.allowed(policies)
  const peer = space.placeOf('peer')
  // The protocol comes before the peer: who is asked about is chosen first.
  const ofClass = (one: number): Node => (peer ? space.diagram.restrict(verdict, peer.dimension.level, one) : verdict)
  const cell = (source: string, node: Node): ReachCell => ({
    source,
    destination,
    reach: reachIn(node),
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
