/** Trust-domain aliases: a principal of one name of our trust domain is a principal of each (authorization.md 1.8). */
import { pathOf, spiffeId, trustDomainOf, type SpiffeId } from '../spiffe/id.ts'
import { parseTrustDomain, type TrustDomain } from '../spiffe/trust-domain.ts'
import { formatStringMatch, globMatches, parseStringMatch } from './matching.ts'
import type { Clause, PeerClause, PeerMatch, PolicyMode, PolicySet, Rule } from './policy-set.ts'

/** How rules read where `own` is the trust domain of the workload. Strict mode changes nothing unless there are aliases. */
export function aliasesIn(
  { mode, trustDomainAliases }: Pick<PolicySet, 'mode' | 'trustDomainAliases'>,
  own: TrustDomain | undefined,
): (rule: Rule) => Rule {
  const names = [...new Set([...(own === undefined ? [] : [own]), ...trustDomainAliases])]
  if (names.length === 0 || (mode === 'strict' && trustDomainAliases.length === 0)) return (rule) => rule
  const widened = <C extends Clause>(clause: C): C => {
    if (clause.on !== 'peer') return clause
    const peer: PeerClause = { ...clause, anyOf: clause.anyOf.flatMap((match) => spelt(match, names, mode)) }
    return peer as C
  }
  return (rule) => ({
    ...rule,
    from: rule.from === 'any' ? 'any' : rule.from.map((source) => source.map(widened)),
    when: rule.when.map(widened),
  })
}

function spelt(match: PeerMatch, names: readonly TrustDomain[], mode: PolicyMode): PeerMatch[] {
  switch (match.kind) {
    case 'trust-domain':
      return names.some((name) => name === match.glob) ? names.map((glob) => ({ kind: 'trust-domain', glob })) : [match]
    case 'id':
      return mode === 'strict' && names.includes(trustDomainOf(match.id))
        ? names.map((name) => ({ kind: 'id', id: renamed(match.id, name) }))
        : [match]
    case 'below': {
      const [domain, ...path] = match.prefix.slice('spiffe://'.length).split('/')
      return mode === 'strict' && names.some((name) => name === domain)
        ? names.map((name) => ({ kind: 'below', prefix: ['spiffe:/', name, ...path].join('/') }))
        : [match]
    }
    case 'principal':
      return speltByIstio(formatStringMatch(match.match), names).map((text) => ({ kind: 'principal', match: parseStringMatch(text) }))
    case 'any':
    case 'template':
    case 'ending':
    case 'namespace':
    case 'service-account':
      return [match]
    default:
      throw new Error(`bug: peer match ${JSON.stringify(match satisfies never)}`)
  }
}

const renamed = (id: SpiffeId, name: TrustDomain): SpiffeId => spiffeId(name, pathOf(id))

/** Istio looks at principals of five parts, `cluster.local` being another name of every trust domain of ours. */
function speltByIstio(principal: string, names: readonly TrustDomain[]): string[] {
  const [domain, ...path] = principal.split('/')
  if (path.length !== 4 || domain === '*') return [principal]
  const isOurs = (name: string) => name === domain || globMatches(domain!, name)
  if (domain !== clusterLocal && !names.some(isOurs)) return [principal]
  // A pattern stays as it is for the names that it matches.
  const all = names.map((name) => (domain!.startsWith('*') && name.endsWith(domain!.slice(1)) ? principal : [name, ...path].join('/')))
  return [...new Set(all)]
}

const clusterLocal = parseTrustDomain('cluster.local')
