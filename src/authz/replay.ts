/** What the filters that a proxy gets say to a request: for those who decided it otherwise and want a second judge. */
import { failedWith } from '../kernel/failure.ts'
import type { CompiledPolicies } from '../policy/compile.ts'
import { decide } from '../policy/evaluate.ts'
import { isJoinedByEnvoy, isRepeatedAuthorization, leftByEnvoy } from '../policy/joined-headers.ts'
import type { PolicyRequest } from '../policy/request.ts'
import { trustDomainOf } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { rbacRules } from './rbac.ts'
import { applyAll, seenByProxy } from './rbac-interpreter.ts'

/**
 * Whether the compiled filters let a request through; `trustDomain` is that of the proxy's own workload. Undefined where they alone do not
 * decide (a token that is refused before them), where a proxy sees less than was sent, or where policies cannot be compiled.
 */
export function filtersAllow(policies: CompiledPolicies, request: PolicyRequest, trustDomain: TrustDomain): boolean | undefined {
  const { mode, pathNormalization, tokens } = policies
  // Envoy keeps one `authorization` header: two that read together as the parameters of one scheme cannot be told from one.
  const authorizations = leftByEnvoy(request.http?.headers.get('authorization') ?? [])
  if (mode === 'strict' && authorizations.length > 1 && !isRepeatedAuthorization(authorizations.join(','))) return undefined
  if (mode === 'strict' && losesValues(request)) return undefined
  const seen = seenByProxy(request, pathNormalization, tokens)
  if (!seen || decide(policies, request).reason === 'token-refused') return undefined
  const trustDomains = [request.peer ? trustDomainOf(request.peer.spiffeId) : trustDomain]
  try {
    const rules = rbacRules(policies, { trustDomains, point: request.http ? 'http' : 'tcp', refusePlaintext: true })
    return applyAll(rules, seen, request.providers).allowed
  } catch (error) {
    if (failedWith(error, 'rbac.not-enforceable')) return undefined
    throw error
  }
}

/** An empty value beside others does not reach a proxy's rules where Envoy joins them: it is one value more here, and strict mode refuses it. */
const losesValues = ({ http }: PolicyRequest): boolean =>
  [...(http?.headers ?? [])].some(([name, values]) => isJoinedByEnvoy(name) && leftByEnvoy(values).length < values.length)
