/** Who can make a request, and under which conditions (authorization.md 5.3). */
import type { SpiffeId } from '../../spiffe/id.ts'
import type { CompiledPolicies } from '../compile.ts'
import { decide } from '../evaluate.ts'
import type { PolicyRequest } from '../request.ts'
import type { Unknown } from './answer.ts'
import { type AnalysisLimits, Budget, BudgetExhausted, defaultLimits } from './budget.ts'
import { always, type Node, never } from './diagram.ts'
import { merge, typicalPoint } from './difference.ts'
import { type Place } from './places.ts'
import { http, protocolLevel, Space } from './space.ts'
import { constraintsOf, valueWords, wordsOf } from './words.ts'

/** Peers that are answered alike. */
export interface Callers {
  /** Their pattern families: ``peer `spiffe://…` ``, `no verified peer`. */
  readonly words: string
  /** Those of the known identities that belong here. */
  readonly live: readonly SpiffeId[]
  /** `always`: whatever else the request is; `conditionally`: if one of the conditions holds. */
  readonly can: 'always' | 'conditionally'
  readonly conditions: readonly string[]
  /** How many more conditions there are. */
  readonly more: number
  /** A request of theirs that is allowed, replayed. */
  readonly witness: PolicyRequest
}

export interface WhoCan {
  readonly callers: readonly Callers[]
  /** Known identities that never can. */
  readonly never: readonly SpiffeId[]
  readonly unknown: readonly Unknown[]
}

export interface WhoCanQuestion {
  readonly method: string
  /** As sent. */
  readonly path: string
  readonly host?: string
  readonly port?: number
  /** Identities that exist, to be sorted as well. */
  readonly identities?: readonly SpiffeId[]
  readonly limits?: AnalysisLimits
}

/** Everybody for whom some request of this kind is allowed at a workload. */
export function whoCan(
  policies: CompiledPolicies,
  { method, path, host, port, identities = [], limits = defaultLimits }: WhoCanQuestion,
): WhoCan {
  try {
    const space = new Space([policies], new Budget(limits))
    const asked: PolicyRequest = {
      http: { method, path, host: host ?? 'host.example', headers: new Map() },
      ...(port === undefined ? {} : { destinationPort: port }),
    }
    const fixed = ['method', 'path', ...(host === undefined ? [] : ['host']), ...(port === undefined ? [] : ['destination.port'])]
    const chosen = fixed.flatMap((key) => space.placeOf(key) ?? []).map((place) => ({ place, classes: place.classesIn(asked) }))
    const isRefused =
      space.assignmentOf({ ...asked, destinationPort: port ?? 8080 }) === undefined &&
      decide(policies, asked).reason === 'malformed-request'
    if (isRefused || chosen.some(({ classes }) => classes === undefined || classes.includes(-1)))
      return { callers: [], never: identities, unknown: [] }
    const verdict = chosen.reduce(
      (node, { place, classes }) => space.diagram.restrict(node, place.dimension.level, classes![0]!),
      space.diagram.restrict(space.allowed(policies), protocolLevel, http),
    )
    const point = space.diagram.sizes.map(() => -1)
    for (const { place, classes } of chosen) point[place.dimension.level] = classes![0]!
    return sorted(space, policies, { verdict, asked, point, identities })
  } catch (error) {
    if (!(error instanceof BudgetExhausted)) throw error
    return { callers: [], never: [], unknown: [{ reason: 'budget', what: `who can \`${method} ${path}\`` }] }
  }
}

interface Restricted {
  readonly verdict: Node
  readonly asked: PolicyRequest
  /** The classes that were asked about; -1 where any will do. */
  readonly point: readonly number[]
  readonly identities: readonly SpiffeId[]
}

function sorted(space: Space, policies: CompiledPolicies, restricted: Restricted): WhoCan {
  const { verdict, identities } = restricted
  const peer = space.placeOf('peer')
  const groups = peer
    ? Map.groupBy(peer.dimension.classes.keys(), (one) => space.diagram.at(verdict, peer.dimension.level, one))
    : new Map([[verdict, [0]]])
  const classOf = (id: SpiffeId) => peer?.classesIn({ peer: { spiffeId: id } })?.[0] ?? 0
  const callers = [...groups].flatMap(([node, classes]) =>
    node === never
      ? []
      : [
          callersOf(space, policies, {
            ...restricted,
            node,
            classes,
            peer,
            live: identities.filter((id) => classes.includes(classOf(id))),
          }),
        ],
  )
  return {
    callers: callers.sort((a, b) => Number(a.can !== 'always') - Number(b.can !== 'always')),
    never: identities.filter((id) => groups.get(never)?.includes(classOf(id)) ?? false),
    unknown: [],
  }
}

function callersOf(
  space: Space,
  policies: CompiledPolicies,
  {
    node,
    classes,
    peer,
    live,
    asked,
    point,
  }: Restricted & { node: Node; classes: readonly number[]; peer: Place | undefined; live: readonly SpiffeId[] },
): Callers {
  const cubes = merge(space, [...take(space.diagram.cubes(node), maxCubes)]).sort((a, b) => a.length - b.length)
  const [first] = cubes
  const typical = [
    ...typicalPoint(space, [
      { level: protocolLevel, classes: [http] },
      ...(peer ? [{ level: peer.dimension.level, classes }] : []),
      ...first!,
    ]),
  ]
  for (const [level, one] of point.entries()) if (one !== -1) typical[level] = one
  const made = space.request(typical)
  const witness = { ...made, http: { ...made.http!, method: asked.http!.method, path: asked.http!.path } }
  if (!decide(policies, witness).allowed) throw new Error('bug: the analysis and the evaluator disagree about who can')
  const isAlways = node === always
  return {
    words: peer ? peerWords(peer, classes) : 'anybody',
    live,
    can: isAlways ? 'always' : 'conditionally',
    conditions: isAlways ? [] : cubes.slice(0, maxConditions).map((cube) => wordsOf(constraintsOf(space, cube))),
    more: isAlways ? 0 : Math.max(0, cubes.length - maxConditions),
    witness,
  }
}

/** Some classes of peers in the words of the policies. */
export function peerWords({ dimension }: Place, classes: readonly number[]): string {
  const verified = classes.filter((one) => dimension.classes[one] !== 'absent')
  const all = dimension.classes.length - 1
  const words = verified.length === 0 ? [] : [verified.length === all ? 'any verified peer' : valueWords(dimension, verified)]
  return [...words, ...(classes.includes(0) ? ['no verified peer'] : [])].join(', or ')
}

function* take<T>(from: Iterable<T>, most: number): Iterable<T> {
  let count = 0
  for (const one of from) {
    if (count++ >= most) return
    yield one
  }
}

const maxCubes = 500
const maxConditions = 10
