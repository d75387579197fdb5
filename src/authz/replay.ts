/** What the filters that a proxy gets say to a request: for those who decided it otherwise and want a second judge. */
import { failedWith } from '../kernel/failure.ts'
import type { CompiledPolicies } from '../policy/compile.ts'
import { decide } from '../policy/evaluate.ts'
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
  // A proxy joins the values of a repeated `authorization` header before any rule compares them.
  if ((request.http?.headers.get('authorization')?.length ?? 0) > 1) return undefined
  // In istio mode a condition about the server name reads a missing one as the empty text in the proxy, and as unknown in the evaluator.
  if (mode === 'istio' && request.sni === undefined && asksForServerName(policies)) return undefined
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

const asksForServerName = ({ audit, custom, deny, allow }: CompiledPolicies): boolean =>
  [audit, custom, deny, allow].flat().some(({ cel }) => cel?.text.includes('requested_server_name'))
