/** The X.509 authority of this moment, and the X509-SVIDs it signs. */
import type { AuditTrail } from '../audit/trail.ts'
import { x509SvidIssued } from '../audit/event.ts'
import { hex, sameBytes } from '../kernel/bytes.ts'
import type { Clock, Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { pathOf, trustDomainOf } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { signedBy, type Certificate } from '../x509/certificate.ts'
import { keyIdentifier } from '../x509/template.ts'
import type { IssuedX509Svid, X509SvidRequest } from './certificate-authority.ts'
import { checkDnsNames } from './dns-name.ts'
import { prepareLeaf, redeem } from './issuance.ts'
import type { X509Material } from './journal.ts'
import type { ManagedKey } from './key-manager.ts'
import { lifetimeFor, type IssuanceProfile } from './profile.ts'
import type { Serials } from './serial.ts'
import type { Authority } from './slots.ts'

/** An authority together with its key: it can sign. */
export interface Signing<Material> {
  readonly authority: Authority<Material>
  readonly key: ManagedKey
}

/** What {@link issueX509Svid} stands on. */
export interface X509Ports {
  readonly clock: Clock
  readonly serials: Serials
  readonly audit: AuditTrail
  readonly profile: IssuanceProfile
  readonly trustDomain: TrustDomain
  /** The authority of this moment. @throws Failure `ca.no-authority` */
  signing(): Signing<X509Material>
  /** SubjectPublicKeyInfo of every key of this CA. */
  authorityKeys(): readonly Uint8Array[]
}

/**
 * Issues one X509-SVID. It is in the audit trail before it is handed out.
 * @throws Failure `ca.foreign-trust-domain`, `ca.no-path`, `ca.authority-key`, `ca.lifetime-too-short`, `ca.lifetime-too-long`, `ca.dns-name`,
 *   `ca.too-many-dns-names`, `ca.no-authority`, `ca.ending`, `lint.*`, `issuance.*`, `audit.*`
 */
export async function issueX509Svid(request: X509SvidRequest, ports: X509Ports, signal: AbortSignal): Promise<IssuedX509Svid> {
  const { spiffeId, key, dnsNames = [], kind, context } = request
  const { clock, serials, profile, trustDomain } = ports
  demandOurs(spiffeId, trustDomain)
  demandStranger(key.spki, ports.authorityKeys())
  checkDnsNames(dnsNames)
  const lifetime = lifetimeFor(profile.x509[kind], request.lifetime)
  const { authority, key: issuerKey } = ports.signing()
  const at = clock.now()
  demandTimeLeft(authority, at)

  const { chain } = authority.material
  const token = prepareLeaf({
    trustDomain,
    spiffeId,
    key,
    dnsNames,
    serial: serials.next(),
    at,
    backdate: profile.backdate,
    lifetime,
    issuer: chain[0],
    issuerKey,
    until: authority.until,
    authorityKeys: ports.authorityKeys(),
  })
  const leaf = await redeem(token, issuerKey, signal)
  const { serial, notAfter } = leaf
  await ports.audit.append(x509SvidIssued({ spiffeId, serial, notAfter, authority: authorityId(authority.material) }, context))
  return { spiffeId, chain: withIssuers(leaf, authority.material), notAfter, serial }
}

/** What people call an X.509 authority: its subject key identifier in hex. */
export function authorityId({ chain: [own] }: X509Material): string {
  return keyIdentifierOf(own)
}

/** The subject key identifier of a certificate, computed where it has none, in hex. */
export function keyIdentifierOf({ subjectKeyId, spki }: Certificate): string {
  return hex(subjectKeyId ?? keyIdentifier(spki))
}

/** The subject key identifier of the root that an authority leads to; undefined for a root of our own. */
export function rootId({ chain, roots }: X509Material): string | undefined {
  const last = chain.at(-1)!
  if (roots.some(({ raw }) => sameBytes(raw, chain[0].raw))) return undefined
  const root = roots.find((one) => signedBy(last, one))
  return root && keyIdentifierOf(root)
}

/** Refuses an identity that this CA may not sign for. @throws Failure `ca.foreign-trust-domain`, `ca.no-path` */
export function demandOurs(spiffeId: X509SvidRequest['spiffeId'], trustDomain: TrustDomain): void {
  if (trustDomainOf(spiffeId) !== trustDomain) {
    throw new Failure('invalid_argument', 'ca.foreign-trust-domain', {
      public: `\`${spiffeId}\` is not of the trust domain \`${trustDomain}\``,
    })
  }
  if (pathOf(spiffeId) === '') {
    throw new Failure('invalid_argument', 'ca.no-path', { public: `\`${spiffeId}\` names a trust domain: an SVID needs an ID with a path` })
  }
}

/** Refuses to sign with an authority whose last second has begun. @throws Failure `ca.ending` */
export function demandTimeLeft(authority: Authority<unknown>, at: Instant): void {
  if (authority.until - at >= seconds(1)) return
  throw new Failure('unavailable', 'ca.ending', { public: 'the authority has ended and no other is ready: try again' })
}

/** C-12. */
export function demandStranger(spki: Uint8Array, authorityKeys: readonly Uint8Array[]): void {
  if (!authorityKeys.some((key) => sameBytes(key, spki))) return
  throw new Failure('invalid_argument', 'ca.authority-key', { public: 'the key of the request is one of our authorities' })
}

/** A root of our own is not sent along: who trusts it has it. */
function withIssuers(leaf: IssuedX509Svid['chain'][number], { chain, roots }: X509Material): IssuedX509Svid['chain'] {
  const ownRoot = roots.some((root) => sameBytes(root.raw, chain[0].raw))
  return ownRoot ? [leaf] : [leaf, ...chain]
}
