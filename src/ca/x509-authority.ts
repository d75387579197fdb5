/** The X.509 authority of this moment, and the X509-SVIDs it signs. */
import type { AuditTrail } from '../audit/trail.ts'
import { x509SvidIssued } from '../audit/event.ts'
import { hex, sameBytes } from '../kernel/bytes.ts'
import type { Clock, Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { Tally } from '../kernel/meter.ts'
import { pathOf, trustDomainOf, type SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { parseCertificate, signedBy, type Certificate } from '../x509/certificate.ts'
import { keyIdentifier } from '../x509/template.ts'
import { demandAdditions } from './additions.ts'
import type { IssuedX509Svid, X509SvidRequest } from './certificate-authority.ts'
import { checkDnsNames } from './dns-name.ts'
import { prepareLeaf, purposeIn, redeem, validity, type Office } from './issuance.ts'
import type { X509Material } from './journal.ts'
import type { ManagedKey } from './key-manager.ts'
import type { KeyUse } from './key-use.ts'
import { lifetimeFor, type IssuanceProfile } from './profile.ts'
import type { Serials } from './serial.ts'
import type { Authority } from './slots.ts'
import type { Issuing } from './workbench.ts'

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
  readonly office: Office
  /** Present where the profile wants a key to stay with one identity. */
  readonly keyUse: KeyUse | undefined
  readonly profile: IssuanceProfile
  /** Counts what ends with its authority, before the lifetime that was wanted (C-2). */
  readonly truncated: Readonly<Record<X509SvidRequest['kind'], Tally>>
  readonly trustDomain: TrustDomain
  /** The authority of this moment. @throws Failure `ca.no-authority` */
  signing(): Signing<X509Material>
  /** SubjectPublicKeyInfo of every key of this CA. */
  authorityKeys(): readonly Uint8Array[]
}

/**
 * Issues one X509-SVID. It is in the audit trail before it is handed out.
 * @throws Failure `ca.foreign-trust-domain`, `ca.no-path`, `ca.authority-key`, `ca.key-reused`, `ca.entry-expired`, `ca.lifetime-too-short`,
 *   `ca.lifetime-too-long`, `ca.dns-name`, `ca.too-many-dns-names`, `ca.subject-not-allowed`, `ca.no-authority`, `ca.ending`, `lint.*`, `issuance.*`, `intents.*`, `audit.*`;
 *   of a bad request `der.*`, `x509.*`
 */
export async function issueX509Svid(request: X509SvidRequest, ports: X509Ports, signal: AbortSignal): Promise<IssuedX509Svid> {
  const { spiffeId, key: applicant, dnsNames = [], subject, kind, context } = request
  const { clock, serials, profile, trustDomain, office } = ports
  demandOurs(spiffeId, trustDomain)
  checkDnsNames(dnsNames)
  if (subject) demandAdditions({ subject }, profile)
  const lifetime = lifetimeFor(profile.x509[kind], request.lifetime)
  const signing = ports.signing()
  const { authority, key: issuerKey } = signing
  const at = clock.now()
  demandTimeLeft(authority, at)

  const issuer = issuingOf(signing, ports.authorityKeys())
  const end = endOf(request.until, at)
  const granted = {
    at,
    backdate: profile.backdate,
    lifetime,
    earliest: issuer.certificate.notBefore,
    latest: Math.min(authority.until, end),
  }
  const { notBefore, notAfter } = validity(granted)
  const serial = serials.next()
  const order = { trustDomain, spiffeId, applicant, dnsNames, subject, serial, at, notBefore, notAfter, longest: lifetime, issuer }
  const token = await prepareLeaf(order, issuerKey, purposeIn(context), office.workbench)
  ports.keyUse?.demand(token.spki, spiffeId, notAfter, at)
  const { certificate, intent } = await redeem(token, issuerKey, office, signal)
  try {
    await ports.audit.append(
      x509SvidIssued({ spiffeId, serial: intent.name, notAfter, authority: authorityId(authority.material) }, context),
    )
  } catch (error) {
    office.intents.settle(intent, 'withheld')
    throw error
  }
  office.intents.settle(intent, 'issued')
  if (authority.until < Math.min(at + lifetime, end)) ports.truncated[kind].add()
  return new Issued(spiffeId, certificate, withIssuers(authority.material), notAfter, intent.name)
}

/** Read only by those who look into it: whoever passes it on takes the bytes. */
class Issued implements IssuedX509Svid {
  readonly spiffeId: SpiffeId
  readonly der: readonly Uint8Array[]
  readonly notAfter: Instant
  readonly serial: string
  readonly #issuers: readonly Certificate[]
  #chain: readonly Certificate[] | undefined

  constructor(spiffeId: SpiffeId, leaf: Uint8Array, issuers: readonly Certificate[], notAfter: Instant, serial: string) {
    this.spiffeId = spiffeId
    this.der = [leaf, ...issuers.map(({ raw }) => raw)]
    this.notAfter = notAfter
    this.serial = serial
    this.#issuers = issuers
  }

  get chain(): readonly Certificate[] {
    return (this.#chain ??= [parseCertificate(this.der[0]!), ...this.#issuers])
  }
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

/** The last second before an entry ends. @throws Failure `ca.entry-expired` */
function endOf(until: Instant | undefined, at: Instant): Instant {
  if (until === undefined) return Infinity
  if (until - at >= seconds(2)) return until - seconds(1)
  throw new Failure('failed_precondition', 'ca.entry-expired', { public: 'the registration entry has expired, or is about to' })
}

/** One object for an authority and the keys of its time. */
function issuingOf({ authority: { material }, key }: Signing<X509Material>, authorityKeys: readonly Uint8Array[]): Issuing {
  let issuing = issuings.get(material)
  if (issuing?.authorityKeys !== authorityKeys || issuing.keyType !== key.keyType) {
    issuing = { certificate: material.chain[0], keyType: key.keyType, authorityKeys }
    issuings.set(material, issuing)
  }
  return issuing
}

/** A root of our own is not sent along: who trusts it has it. */
function withIssuers({ chain, roots }: X509Material): readonly Certificate[] {
  const ownRoot = roots.some((root) => sameBytes(root.raw, chain[0].raw))
  return ownRoot ? [] : chain
}

const issuings = new WeakMap<X509Material, Issuing>()
