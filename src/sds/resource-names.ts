/** What the name of a secret asks for. */
import type { HeldIdentity, WorkloadIdentities } from '../agent/identities.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { idOfTrustDomain } from '../spiffe/id.ts'

/** What stands behind a name: a certificate with its key, or the bundles to verify peers with. */
export type NamedSecret =
  | { readonly kind: 'certificate'; readonly identity: HeldIdentity }
  | { readonly kind: 'bundles'; readonly bundles: readonly TrustBundle[] }

/**
 * Every name that a workload may ask for, with what it gets. The same secret may have several names, and all of them may be asked for at once.
 *
 * - `spiffe://trust-domain/path`: the certificate of this identity; `default`: that of the first one
 * - `spiffe://trust-domain`: the bundle of this trust domain; `ROOTCA`: our own; `ALL`: our own and the federated ones
 */
export function secretNames(held: WorkloadIdentities): ReadonlyMap<string, NamedSecret> {
  const names = new Map<string, NamedSecret>()
  const [first] = held.identities
  if (first) names.set(defaultIdentity, { kind: 'certificate', identity: first })
  // Backwards, so that the first of several identities with one ID keeps its name.
  for (const identity of held.identities.toReversed()) names.set(identity.spiffeId, { kind: 'certificate', identity })

  const bundles = [held.bundle, ...held.federated.values()].filter(canVerify)
  for (const bundle of bundles) names.set(idOfTrustDomain(bundle.trustDomain), { kind: 'bundles', bundles: [bundle] })
  if (canVerify(held.bundle)) names.set(ownBundle, { kind: 'bundles', bundles: [held.bundle] })
  if (bundles.length > 0) names.set(allBundles, { kind: 'bundles', bundles })
  return names
}

/** A bundle without authorities trusts nothing (B-6); a proxy would refuse it, together with every other bundle in the same secret. */
const canVerify = (bundle: TrustBundle): boolean => bundle.x509Authorities.length > 0

const defaultIdentity = 'default'
const ownBundle = 'ROOTCA'
const allBundles = 'ALL'
