/** The same rules as policies of Cedar, decided by its own engine in this process. */
import { preparsePolicySet, statefulIsAuthorized } from '@cedar-policy/cedar-wasm/nodejs'
import { makeRules, type MadeCall } from './rules.ts'

/** Reads the rules once; what is returned decides a call. Conditions about paths are patterns of Cedar's `like`. */
export function openCedar(count: number): (call: MadeCall) => boolean {
  const text = makeRules(count)
    .map(({ deny, caller, methods, area }) => {
      const actions = methods.map((method) => `Action::"${method}"`).join(', ')
      return `${deny ? 'forbid' : 'permit'}(principal == User::"${caller}", action in [${actions}], resource) when { context.path like "/area-${area}/items/*" };`
    })
    .join('\n')
  const answer = preparsePolicySet('bench', { staticPolicies: text })
  if (answer.type !== 'success') throw new Error(`cedar does not read the rules: ${JSON.stringify(answer.errors.slice(0, 1))}`)
  return ({ peer, method, path }) => {
    const decided = statefulIsAuthorized({
      principal: { type: 'User', id: peer },
      action: { type: 'Action', id: method },
      resource: { type: 'Service', id: 'orders' },
      context: { path },
      preparsedPolicySetId: 'bench',
      validateRequest: false,
      entities: [],
    })
    if (decided.type !== 'success') throw new Error(`cedar does not decide: ${JSON.stringify(decided.errors)}`)
    return decided.response.decision === 'allow'
  }
}
