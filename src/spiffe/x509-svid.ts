/** X509-SVIDs: what a certificate must fulfil to carry an identity. X509-SVID sections 2 to 5. */
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { Certificate } from '../x509/certificate.ts'
import { buildChain } from '../x509/chain.ts'
import type { BundleSet } from './bundle-set.ts'
import { parseSpiffeId, pathOf, trustDomainOf, type SpiffeId } from './id.ts'

/** A peer whose certificate chains to the bundle of its own trust domain. Only {@link verifyX509Svid} makes one. */
export interface VerifiedX509Svid {
  readonly spiffeId: SpiffeId
  readonly leaf: Certificate
  /** Leaf first, ending with the authority that is trusted. */
  readonly path: readonly Certificate[]
}

/**
 * Verifies a chain as a peer presents it (leaf first) at a moment: the leaf's constraints, then a path to an authority
 * of the trust domain in its SPIFFE ID and of no other (API-11, ID-24, R-5).
 * @throws Failure `x509-svid.empty-chain`, `x509-svid.unknown-trust-domain`, those of {@link checkX509Svid}, `chain.*`
 */
export function verifyX509Svid(chain: readonly Certificate[], bundles: BundleSet, at: Instant): VerifiedX509Svid {
  const [leaf, ...intermediates] = chain
  if (!leaf) throw refused('empty-chain', 'no certificate was presented')
  const spiffeId = checkX509Svid(leaf)
  const bundle = bundles.find(trustDomainOf(spiffeId))
  if (!bundle || bundle.x509Authorities.length === 0) {
    throw new Failure('unauthenticated', 'x509-svid.unknown-trust-domain', {
      public: `no X.509 authority is known for the trust domain \`${trustDomainOf(spiffeId)}\``,
    })
  }
  const roots = bundle.x509Authorities.map((authority) => authority.certificate)
  return { spiffeId, leaf, path: buildChain({ leaf, intermediates, roots, at }) }
}

/**
 * The SPIFFE ID of a leaf that keeps every constraint on leaves; signatures and time are not looked at.
 * @throws Failure `x509-svid.uri-count`, `x509-svid.not-a-leaf`, `x509-svid.key-usage`,
 *   `x509-svid.extended-key-usage`, `x509-svid.no-path`, `x509-svid.san-not-critical`, `spiffe-id.*`
 */
export function checkX509Svid(leaf: Certificate): SpiffeId {
  const names = leaf.subjectAltName
  if (!names || names.uris.length !== 1) {
    throw refused('uri-count', `a certificate has ${names?.uris.length ?? 0} URI names: an X509-SVID has exactly one`)
  }
  const spiffeId = parseSpiffeId(names.uris[0]!)
  if (pathOf(spiffeId) === '') throw refused('no-path', `\`${spiffeId}\` names a trust domain: a leaf needs an ID with a path`)
  if (leaf.subject.attributes.length === 0 && !names.critical) {
    throw refused('san-not-critical', 'a certificate without subject must mark its alternative names as critical')
  }
  if (leaf.basicConstraints?.ca) throw refused('not-a-leaf', 'a certificate of an authority was presented as a leaf')
  const usage = leaf.keyUsage
  if (!usage?.critical) throw refused('key-usage', 'a leaf needs a critical key usage')
  if (usage.keyCertSign || usage.cRLSign) throw refused('key-usage', 'the key of a leaf may not sign certificates or revocation lists')
  if (!usage.digitalSignature) throw refused('key-usage', 'the key of a leaf must be usable for digital signatures')
  const purposes = leaf.extKeyUsage?.purposes
  if (purposes && !(purposes.includes(serverAuth) && purposes.includes(clientAuth))) {
    throw refused('extended-key-usage', 'the extended key usage of a leaf must name both server and client authentication')
  }
  return spiffeId
}

function refused(what: string, text: string): Failure {
  return new Failure('unauthenticated', `x509-svid.${what}`, { public: text })
}

/** RFC 5280 section 4.2.1.12. */
const serverAuth = '1.3.6.1.5.5.7.3.1'
const clientAuth = '1.3.6.1.5.5.7.3.2'
