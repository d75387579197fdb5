/** Filters of a proxy, in the words that commands use. What makes them is imported when it is asked for: most commands do not. */
import type { Proxies } from '../cli/context.ts'
import { parseTrustDomain } from '../spiffe/trust-domain.ts'

export const proxies: Proxies = {
  async allows(compiled, request, trustDomain) {
    const { filtersAllow } = await import('../authz/replay.ts')
    return filtersAllow(compiled, request, trustDomain)
  },
  async filters(compiled, { trustDomains, providers }) {
    const { filterChain } = await import('../authz/filter-chain.ts')
    return filterChain(compiled, { trustDomains: trustDomains.map((name) => parseTrustDomain(name)), providers })
  },
}
