/** What would have to be different about a request for the verdict to be the other one: the least of it, replayed (authorization.md 5.3). */
import type { CompiledPolicies } from '../compile.ts'
import type { Decision } from '../decision.ts'
import { decide } from '../evaluate.ts'
import type { PolicyRequest } from '../request.ts'
import { type AnalysisLimits, Budget, BudgetExhausted, defaultLimits } from './budget.ts'
import { protocolLevel, Space } from './space.ts'
import { constraintsOf } from './words.ts'

export interface NearestChange {
  /** What differs, each in words: ``path `/orders/*` ``. */
  readonly changes: readonly string[]
  readonly request: PolicyRequest
  readonly decision: Decision
}

/** The nearest request with the other verdict; `never` if there is none, `outside` for a request that is refused before a rule is read. */
export function nearestChange(
  policies: CompiledPolicies,
  request: PolicyRequest,
  limits: AnalysisLimits = defaultLimits,
): NearestChange | 'never' | 'outside' | 'unknown' {
  try {
    const space = new Space([policies], new Budget(limits))
    const from = space.assignmentOf(request)
    if (!from) return 'outside'
    const allowed = space.allowed(policies)
    const wanted = decide(policies, request).allowed ? space.diagram.not(allowed) : allowed
    const to = space.diagram.nearest(wanted, from, weightsOf(space))
    if (!to) return 'never'
    const changed = space.changed(request, from, to)
    const decision = decide(policies, changed)
    if (decision.allowed === decide(policies, request).allowed) return 'unknown'
    const cube = space
      .differing(from, to)
      .flatMap(({ dimension: { level, sizes } }) => sizes.map((_, index) => ({ level: level + index, classes: [to[level + index]!] })))
    const protocol = from[protocolLevel] === to[protocolLevel] ? [] : [{ level: protocolLevel, classes: [to[protocolLevel]!] }]
    return { changes: constraintsOf(space, [...protocol, ...cube]).map(({ words }) => words), request: changed, decision }
  } catch (error) {
    if (!(error instanceof BudgetExhausted)) throw error
    return 'unknown'
  }
}

/** A caller changes what it asks for sooner than who it is, and its address or protocol last. What nobody can choose does not change. */
function weightsOf(space: Space): number[] {
  const weights = space.diagram.sizes.map(() => 1)
  weights[protocolLevel] = 8
  for (const { key, dimension, opaque } of space.places) {
    const weight = opaque && !key.startsWith('provider ') ? Infinity : key === 'peer' ? 1.5 : slow.has(key) ? 3 : 1
    for (const index of dimension.sizes.keys()) weights[dimension.level + index] = weight
  }
  return weights
}

const slow: ReadonlySet<string> = new Set(['source.ip', 'remote.ip', 'destination.ip', 'destination.port', 'connection.sni'])
