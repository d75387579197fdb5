/** Where two compiled sets decide differently at one workload, exactly: as disjoint cubes, each with a request that was replayed. */
import { Failure } from '../../kernel/failure.ts'
import type { CompiledPolicies } from '../compile.ts'
import type { CompiledRule } from '../compiled-rule.ts'
import type { Decision } from '../decision.ts'
import { decide } from '../evaluate.ts'
import type { Place } from '../policy-set.ts'
import type { PolicyRequest } from '../request.ts'
import type { Unknown } from './answer.ts'
import { Budget, BudgetExhausted, type AnalysisLimits, defaultLimits } from './budget.ts'
import { always, type Cube, never, type Node } from './diagram.ts'
import { rulesOf } from './places.ts'
import { http, protocolLevel, Space } from './space.ts'
import { type Constraint, constraintsOf, wordsOf } from './words.ts'

/** Requests of which all, or none, are newly allowed. */
export interface Region<Request = PolicyRequest> {
  readonly constraints: readonly Constraint[]
  /** The constraints in one line. */
  readonly words: string
  /** One of the requests, decided by both sets. */
  readonly witness: Witness<Request>
  /** What the difference depends on, where it is not the same whatever that is. */
  readonly dependsOn: readonly Unknown[]
}

export interface Witness<Request = PolicyRequest> {
  readonly request: Request
  readonly before: Decision
  readonly after: Decision
  /** False where the difference depends on something that no request shows. */
  readonly replayed: boolean
  /** Where the rules stand that decide now, or decided before. */
  readonly places: readonly Place[]
}

export interface Difference {
  readonly newlyAllowed: readonly Region[]
  readonly newlyDenied: readonly Region[]
  /** How many more regions there are than are listed. */
  readonly more: { readonly newlyAllowed: number; readonly newlyDenied: number }
  readonly unknown: readonly Unknown[]
  /** What was looked at: classes of all levels, and how many combinations they make. */
  readonly proof: { readonly classes: number; readonly cells: number; readonly nodes: number }
}

export interface DifferenceOptions {
  readonly limits?: AnalysisLimits
  /** Regions that are listed of each kind. */
  readonly most?: number
}

/** Compares two compiled sets. On exhaustion the rules whose effect was not worked out are named; never is that no change. */
export function differenceOf(
  before: CompiledPolicies,
  after: CompiledPolicies,
  { limits = defaultLimits, most = 20 }: DifferenceOptions = {},
): Difference {
  if (before.mode !== after.mode || before.pathNormalization !== after.pathNormalization) {
    throw new Failure('invalid_argument', 'policy.analysis-modes', {
      public: 'sets are compared in one mode and with one path normalization',
    })
  }
  if (before.fingerprint === after.fingerprint) return nothingChanged
  try {
    return compare(before, after, new Budget(limits), most)
  } catch (error) {
    if (!(error instanceof BudgetExhausted)) throw error
    return compareInParts(before, after, limits, most)
  }
}

function compare(before: CompiledPolicies, after: CompiledPolicies, budget: Budget, most: number, rule?: CompiledRule): Difference {
  const space = new Space([before, after], budget)
  const region = rule ? space.rule(rule) : always
  const [was, is] = [space.allowed(before, region), space.allowed(after, region)]
  const added = regionsOf(space, space.diagram.without(is, was), { before, after, most, expected: true })
  const removed = regionsOf(space, space.diagram.without(was, is), { before, after, most, expected: false })
  const { sizes } = space.diagram
  return {
    newlyAllowed: added.regions,
    newlyDenied: removed.regions,
    more: { newlyAllowed: added.more, newlyDenied: removed.more },
    unknown: [],
    proof: {
      classes: sizes.reduce((sum, size) => sum + size, 0),
      cells: sizes.reduce((product, size) => product * size, 1),
      nodes: space.diagram.nodes,
    },
  }
}

/** A difference can only be where a rule matches that one set has and the other has not: each such rule alone, with a budget of its own. */
function compareInParts(before: CompiledPolicies, after: CompiledPolicies, limits: AnalysisLimits, most: number): Difference {
  const changed = changedRules(before, after)
  const parts: Difference[] = []
  const unknown: Unknown[] = []
  const open = (what: string) => unknown.push({ reason: 'budget', what })
  const everywhere =
    before.allowSelected !== after.allowSelected ||
    before.comparesPaths !== after.comparesPaths ||
    JSON.stringify([before.knownMethods, before.tokens, [...before.mtls.ports], before.mtls.mode]) !==
      JSON.stringify([after.knownMethods, after.tokens, [...after.mtls.ports], after.mtls.mode])
  if (everywhere) open('every request: more than rules changed, which paths, methods, tokens or plain connections are taken at all')
  const tried = everywhere ? [] : changed.slice(0, maxParts)
  const share = { nodes: Math.floor(limits.nodes / Math.max(1, tried.length)), steps: Math.floor(limits.steps / Math.max(1, tried.length)) }
  for (const rule of tried) {
    try {
      parts.push(compare(before, after, new Budget(share), most, rule))
    } catch (error) {
      if (!(error instanceof BudgetExhausted)) throw error
      open(`requests that rule ${rule.rule} of policy \`${rule.policy}\` matches (${rule.place.document}:${rule.place.line})`)
    }
  }
  if (!everywhere && changed.length > maxParts) open(`requests that one of ${changed.length - maxParts} more changed rules matches`)
  return {
    newlyAllowed: parts.flatMap((part) => part.newlyAllowed).slice(0, most),
    newlyDenied: parts.flatMap((part) => part.newlyDenied).slice(0, most),
    more: { newlyAllowed: 0, newlyDenied: 0 },
    unknown,
    proof: { classes: 0, cells: 0, nodes: parts.reduce((sum, { proof }) => sum + proof.nodes, 0) },
  }
}

/** Rules that only one of the sets has. */
function changedRules(before: CompiledPolicies, after: CompiledPolicies): CompiledRule[] {
  const [old, next] = [before, after].map((set) => new Map(rulesOf(set).map((rule) => [meaningOf(rule), rule])))
  return [
    ...[...next!].flatMap(([key, rule]) => (old!.has(key) ? [] : [rule])),
    ...[...old!].flatMap(([key, rule]) => (next!.has(key) ? [] : [rule])),
  ]
}

/** What a rule says, without its name and place. */
function meaningOf({ action, provider, requirePeer, sources, operations, conditions, cel }: CompiledRule): string {
  return JSON.stringify([action, provider, requirePeer, sources, operations, conditions, cel?.tree], (key, value: unknown) =>
    key === 'place' || key === 'field' || key === 'text' ? undefined : value,
  )
}

interface Sides {
  readonly before: CompiledPolicies
  readonly after: CompiledPolicies
  readonly most: number
  /** Whether the witnesses are allowed after, and not before; or the other way round. */
  readonly expected: boolean
}

function regionsOf(space: Space, difference: Node, sides: Sides): { readonly regions: readonly Region[]; readonly more: number } {
  if (difference === never) return { regions: [], more: 0 }
  const cubes: Cube[] = []
  let more = 0
  for (const cube of space.diagram.cubes(difference)) {
    if (cubes.length < maxCubes) cubes.push(cube)
    else if (++more >= maxCounted) break
  }
  const merged = merge(space, cubes).sort((a, b) => a.length - b.length)
  return {
    regions: merged.slice(0, sides.most).map((cube) => regionOf(space, cube, difference, sides)),
    more: more + Math.max(0, merged.length - sides.most),
  }
}

function regionOf(space: Space, cube: Cube, difference: Node, sides: Sides): Region {
  const constraints = constraintsOf(space, cube)
  const dependsOn = dependenciesOf(space, cube, difference)
  return { constraints, words: wordsOf(constraints), witness: witnessOf(space, cube, sides, dependsOn.length === 0), dependsOn }
}

/** Opaque things that the cube fixes, unless the difference is there whatever they are. */
function dependenciesOf(space: Space, cube: Cube, difference: Node): Unknown[] {
  const opaque = space.places.filter(({ opaque: why, dimension }) => why && cube.some(({ level }) => level === dimension.level))
  return opaque.flatMap(({ opaque: why, dimension }) => {
    const rest = space.diagram.ofCube(cube.filter(({ level }) => level !== dimension.level))
    const isDefinite = space.diagram.without(rest, space.diagram.forEvery(difference, dimension.level)) === never
    return isDefinite ? [] : [{ reason: why!.reason, what: why!.what }]
  })
}

function witnessOf(space: Space, cube: Cube, { before, after, expected }: Sides, definite: boolean): Witness {
  const request = space.request(typicalPoint(space, cube))
  const [was, is] = [decide(before, request), decide(after, request)]
  const replayed = was.allowed !== is.allowed && is.allowed === expected
  if (!replayed && definite) {
    throw new Failure('internal', 'policy.analysis-disagrees', {
      public: 'the analysis and the evaluator disagree about a request: neither is to be trusted with these policies',
      internal: { request, expected },
    })
  }
  const places = [...placesOfDeciding(after, is), ...placesOfDeciding(before, was)]
  return { request, before: was, after: is, replayed, places }
}

export function placesOfDeciding(policies: CompiledPolicies, { decidedBy }: Decision): Place[] {
  return rulesOf(policies).flatMap((rule) => (decidedBy.some(({ id }) => id === rule.id) ? [rule.place] : []))
}

/** The point of a cube that a reader would think of first: a peer that a policy names, HTTP, no header that need not be there. */
export function typicalPoint(space: Space, cube: Cube): readonly number[] {
  const at = new Map(cube.map(({ level, classes }) => [level, classes]))
  const point = space.diagram.sizes.map(() => 0)
  const protocol = at.get(protocolLevel)
  point[protocolLevel] = protocol && !protocol.includes(http) ? protocol[0]! : http
  for (const { key, dimension } of space.places) {
    if (dimension.isList) {
      for (const index of dimension.sizes.keys()) point[dimension.level + index] = at.get(dimension.level + index)?.[0] ?? 0
      continue
    }
    const open = at.get(dimension.level) ?? [...dimension.classes.keys()]
    const isNamed = (one: number) => {
      const found = dimension.classes[one]!
      return found !== 'absent' && found.matched.length > 0
    }
    const isThere = (one: number) => dimension.classes[one] !== 'absent'
    const wantsSome = key === 'peer' || key === 'method' || key === 'path'
    point[dimension.level] = (wantsSome ? (open.find(isNamed) ?? open.find(isThere)) : undefined) ?? open[0]!
  }
  return point
}

/** Cubes that differ at one level are one: again and again, until none do. */
export function merge(space: Pick<Space, 'diagram'>, cubes: readonly Cube[]): Cube[] {
  let merged = [...cubes]
  const levels = [...new Set(cubes.flatMap((cube) => cube.map(({ level }) => level)))]
  for (let changed = true; changed;) {
    changed = false
    for (const level of levels) {
      const byRest = Map.groupBy(merged, (cube) => JSON.stringify(cube.filter((one) => one.level !== level)))
      if (byRest.size === merged.length) continue
      const before = merged.length
      merged = [...byRest.values()].map((alike) => unite(alike, level, space.diagram.sizes[level]!))
      changed ||= merged.length < before
    }
  }
  return merged
}

function unite(alike: readonly Cube[], level: number, size: number): Cube {
  if (alike.length === 1) return alike[0]!
  const rest = alike[0]!.filter((one) => one.level !== level)
  const isFree = alike.some((cube) => cube.every((one) => one.level !== level))
  const classes = [...new Set(alike.flatMap((cube) => cube.find((one) => one.level === level)?.classes ?? []))].sort((a, b) => a - b)
  return isFree || classes.length === size ? rest : [...rest, { level, classes }].sort((a, b) => a.level - b.level)
}

const nothingChanged: Difference = {
  newlyAllowed: [],
  newlyDenied: [],
  more: { newlyAllowed: 0, newlyDenied: 0 },
  unknown: [],
  proof: { classes: 0, cells: 0, nodes: 0 },
}
const maxCubes = 600
const maxCounted = 5000
const maxParts = 100
