/** X509-SVIDs: what a certificate must fulfil to carry an identity. X509-SVID sections 2 to 5. */
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { Certificate } from '../x509/certificate.ts'
import { buildChain, type ChainQuestion } from '../x509/chain.ts'
import type { TrustBundle } from './bundle.ts'
import type { BundleSet } from './bundle-set.ts'
import { demandNone, type Flaws } from './flaws.ts'
import { parseSpiffeId, pathOf, trustDomainOf, type SpiffeId } from './id.ts'
import type { TrustDomain } from './trust-domain.ts'

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
export function verifyX509Svid(
  chain: readonly Certificate[],
  bundles: BundleSet,
  at: Instant,
  { postQuantum }: Pick<ChainQuestion, 'postQuantum'> = {},
): VerifiedX509Svid {
  const [leaf, ...intermediates] = chain
  if (!leaf) throw refused('empty-chain', 'no certificate was presented')
  const spiffeId = checkX509Svid(leaf)
  const bundle = bundles.find(trustDomainOf(spiffeId))
  if (!bundle || bundle.x509Authorities.length === 0) {
    throw new Failure('unauthenticated', 'x509-svid.unknown-trust-domain', {
      public: `no X.509 authority is known for the trust domain \`${trustDomainOf(spiffeId)}\``,
    })
  }
  const known = metUnder(bundle)
  const roots = bundle.x509Authorities.map((authority) => authority.certificate)
  const path = buildChain({ leaf, intermediates: intermediates.map((each) => known.get(bytesOf(each)) ?? each), roots, at, postQuantum })
  for (const each of path.slice(1, -1)) remember(known, each)
  return { spiffeId, leaf, path }
}

/**
 * The intermediates that led to an authority of this bundle, by their bytes. A certificate remembers whose signature on it held, so meeting the same object
 * again saves that verification and nothing else: time, rights and names are looked at each time. A bundle is a value: its next revision has met nobody.
 */
function metUnder(bundle: TrustBundle): Map<string, Certificate> {
  const known = met.get(bundle) ?? new Map<string, Certificate>()
  met.set(bundle, known)
  return known
}

function remember(known: Map<string, Certificate>, certificate: Certificate): void {
  const bytes = bytesOf(certificate)
  if (known.has(bytes)) return
  if (known.size >= maxMet) known.delete(known.keys().next().value ?? '')
  known.set(bytes, certificate)
}

/**
 * The SPIFFE ID of a leaf that keeps every constraint on leaves; signatures and time are not looked at.
 * @throws Failure the first of {@link x509SvidFlaws}
 */
export function checkX509Svid(leaf: Certificate): SpiffeId {
  return demandNone(x509SvidFlaws(leaf))
}

/**
 * The constraints on leaves that a certificate breaks: `x509-svid.uri-count`, `spiffe-id.*`, `x509-svid.no-path`, `.san-not-critical`, `.not-a-leaf`,
 * `.no-key-usage`, `.may-sign`, `.may-not-authenticate`, `.extended-key-usage`.
 */
export function* x509SvidFlaws(leaf: Certificate): Flaws<SpiffeId> {
  const { subject, subjectAltName: names, basicConstraints, keyUsage, extKeyUsage } = leaf
  if (subject.attributes.length === 0 && names && !names.critical) {
    yield refused('san-not-critical', 'a certificate without subject must mark its alternative names as critical')
  }
  if (basicConstraints?.ca) yield refused('not-a-leaf', 'a certificate of an authority was presented as a leaf')
  if (!keyUsage?.critical) yield refused('no-key-usage', 'a leaf needs a critical key usage')
  if (keyUsage?.keyCertSign || keyUsage?.cRLSign) {
    yield refused('may-sign', 'the key of a leaf may not sign certificates or revocation lists')
  }
  if (keyUsage && !keyUsage.digitalSignature)
    yield refused('may-not-authenticate', 'the key of a leaf must be usable for digital signatures')
  const purposes = extKeyUsage?.purposes
  if (purposes && !(purposes.includes(serverAuth) && purposes.includes(clientAuth))) {
    yield refused('extended-key-usage', 'the extended key usage of a leaf must name both server and client authentication')
  }
  if (names?.uris.length !== 1) {
    throw refused('uri-count', `a certificate has ${names?.uris.length ?? 0} URI names: an X509-SVID has exactly one`)
  }
  const spiffeId = parseSpiffeId(names.uris[0]!)
  if (pathOf(spiffeId) === '') yield refused('no-path', `\`${spiffeId}\` names a trust domain: a leaf needs an ID with a path`)
  return spiffeId
}

/**
 * What keeps a certificate from being a signing certificate of its trust domain as the specification describes one:
 * `x509-svid.authority-not-a-ca`, `.authority-no-key-usage`, `.authority-may-not-sign`, `.authority-uri-count`, `.authority-path`, `.authority-trust-domain`.
 * Validators ask less: an authority of a bundle is trusted by its bytes, and others need only be CAs.
 */
export function* signingCertificateFlaws(certificate: Certificate, trustDomain?: TrustDomain): Flaws {
  const { basicConstraints, keyUsage, subjectAltName: names } = certificate
  if (!basicConstraints?.ca) yield refused('authority-not-a-ca', 'a signing certificate is not a CA')
  if (!keyUsage?.critical) yield refused('authority-no-key-usage', 'a signing certificate needs a critical key usage')
  if (keyUsage && !keyUsage.keyCertSign)
    yield refused('authority-may-not-sign', 'the key of a signing certificate may not sign certificates')
  if (names?.uris.length !== 1) {
    throw refused(
      'authority-uri-count',
      `a signing certificate has ${names?.uris.length ?? 0} URI names: expected that of its trust domain`,
    )
  }
  const spiffeId = parseSpiffeId(names.uris[0]!)
  if (pathOf(spiffeId) !== '')
    yield refused('authority-path', `a signing certificate is called \`${spiffeId}\`: expected an ID without a path`)
  if (trustDomain !== undefined && trustDomainOf(spiffeId) !== trustDomain) {
    yield refused('authority-trust-domain', `a signing certificate is of the trust domain \`${trustDomainOf(spiffeId)}\``)
  }
}

function refused(what: string, text: string): Failure {
  return new Failure('unauthenticated', `x509-svid.${what}`, { public: text })
}

/** RFC 5280 section 4.2.1.12. */
const serverAuth = '1.3.6.1.5.5.7.3.1'
const clientAuth = '1.3.6.1.5.5.7.3.2'

const bytesOf = ({ raw }: Certificate): string => Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('latin1')

const met = new WeakMap<TrustBundle, Map<string, Certificate>>()
/** A trust domain signs with a few authorities at a time, a server each. */
const maxMet = 64
