import type { TrustBundle } from './bundle.ts'
import type { TrustDomain } from './trust-domain.ts'

/** Bundles by trust domain: what verification looks things up in. */
export interface BundleSet {
  find(trustDomain: TrustDomain): TrustBundle | undefined
  all(): Iterable<TrustBundle>
}

export function bundleSet(bundles: Iterable<TrustBundle>): BundleSet {
  const byName = new Map<TrustDomain, TrustBundle>()
  for (const bundle of bundles) byName.set(bundle.trustDomain, bundle)
  return { find: (trustDomain) => byName.get(trustDomain), all: () => byName.values() }
}
