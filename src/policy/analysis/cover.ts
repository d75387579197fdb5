/** Requests that meet every class of everything that policies compare: for harnesses that hold other judges to the evaluator, and for tests nobody wrote yet. */
import type { CompiledPolicies } from '../compile.ts'
import type { PolicyRequest } from '../request.ts'
import { type AnalysisLimits, Budget, defaultLimits } from './budget.ts'
import { always, never } from './diagram.ts'
import { typicalPoint } from './difference.ts'
import { rulesOf } from './places.ts'
import { http, protocolLevel, Space } from './space.ts'

export interface CoveringRequest {
  readonly request: PolicyRequest
  /** ``rule 0 of `shop/orders`, with another path`` */
  readonly about: string
}

/**
 * For every rule a request that it matches, and that request with each thing changed to each of its classes; in strict mode also what is refused
 * before a rule is read. At most `most`, those about different rules first; no two are equal.
 * @throws BudgetExhausted
 */
export function coveringRequests(
  policies: CompiledPolicies,
  { most = 10_000, limits = defaultLimits }: { readonly most?: number; readonly limits?: AnalysisLimits } = {},
): CoveringRequest[] {
  const space = new Space([policies], new Budget(limits))
  const points = new Map<string, { readonly point: readonly number[]; readonly about: string }>()
  const note = (point: readonly number[], about: string) => {
    const key = point.join()
    if (points.size < most && !points.has(key)) points.set(key, { point, about })
  }
  const bases = [
    ...rulesOf(policies).flatMap((rule) => {
      const [cube] = space.diagram.cubes(space.rule(rule))
      return cube ? [{ point: typicalPoint(space, cube), about: `rule ${rule.rule} of \`${rule.policy}\`` }] : []
    }),
    ...[space.allowed(policies), space.diagram.not(space.allowed(policies))].flatMap((verdict, index) => {
      const [cube] = verdict === never || verdict === always ? [[]] : space.diagram.cubes(verdict)
      return cube ? [{ point: typicalPoint(space, cube), about: index === 0 ? 'something allowed' : 'something denied' }] : []
    }),
  ]
  for (const { point, about } of bases) note(point, about)
  for (const { point, about } of bases) {
    note(point.with(protocolLevel, point[protocolLevel] === http ? 1 : http), `${about}, over another protocol`)
    for (const { dimension } of space.places) {
      for (const [index, size] of dimension.sizes.entries()) {
        for (let chosen = 0; chosen < size; chosen++)
          note(point.with(dimension.level + index, chosen), `${about}, with another ${dimension.name}`)
      }
    }
  }
  const covering = [...points.values()].map(({ point, about }) => ({ request: space.request(point), about }))
  return policies.mode === 'strict' ? [...covering, ...malformed(covering.map(({ request }) => request))] : covering
}

/** What strict mode refuses before it reads a rule. */
function malformed(requests: readonly PolicyRequest[]): CoveringRequest[] {
  const base = requests.find((request) => request.http)
  if (!base?.http) return []
  const { http: facts } = base
  const spoilt = [
    { about: 'a path that can be read in more than one way', change: { path: '/a;b' } },
    { about: 'an escape of an escape in the path', change: { path: '/%252e%252e/a' } },
    { about: 'a host that cannot be read', change: { host: 'a b' } },
    { about: 'a method that nobody registered', change: { method: 'BREW' } },
    { about: 'two `authorization` headers', change: { headers: new Map([...facts.headers, ['authorization', ['Bearer a', 'Bearer b']]]) } },
  ] as const
  return spoilt.map(({ about, change }) => ({ about, request: { ...base, http: { ...facts, ...change } } }))
}
