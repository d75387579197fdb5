/**
 * The one way to a signature on a certificate: shape it, check the exact bytes, then sign those bytes once (C-8, C-9).
 * INVARIANT: no other file asks a key to sign a certificate.
 */
import { hex, sameBytes } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import { seconds, type Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { idOfTrustDomain, type SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { createCertificateRequest, parseCertificateRequest, proven, type ProvenKey } from '../x509/certificate-request.ts'
import { parseCertificate, parseSigned, type Certificate } from '../x509/certificate.ts'
import { encodeName, type NameAttribute } from '../x509/name.ts'
import { oid } from '../x509/oid.ts'
import { importPublicKey, verifySignature, type Signer } from '../x509/signature.ts'
import { assemble, keyIdentifier, toBeSigned, type CertificateTemplate } from '../x509/template.ts'
import { lint, type Expected } from './lint.ts'

/** What every order says. */
interface Order {
  readonly trustDomain: TrustDomain
  readonly serial: Uint8Array
  readonly at: Instant
  readonly backdate: Duration
  /** From `at` on. */
  readonly lifetime: Duration
}

export interface LeafOrder extends Order {
  readonly spiffeId: SpiffeId
  readonly key: ProvenKey
  readonly dnsNames: readonly string[]
  readonly issuer: Certificate
  readonly issuerKey: Signer
  /** The last moment of the authority: nothing it signs lives longer (C-2). */
  readonly until: Instant
  readonly authorityKeys: readonly Uint8Array[]
}

export interface AuthorityOrder extends Order {
  readonly key: Signer
  readonly pathLength: number
}

/** The right to one signature over bytes that were checked. Only {@link prepareLeaf} and {@link prepareSelfSigned} make one. */
export type { IssuanceToken }

/** Shapes and checks a leaf. The proven key is all that comes from whoever asked. @throws Failure `lint.*` */
export function prepareLeaf(order: LeafOrder): IssuanceToken {
  const { issuer, issuerKey, spiffeId, key, dnsNames, until } = order
  const [firstName] = dnsNames
  const template: CertificateTemplate = {
    ...validity(order, issuer.notBefore, until),
    serial: order.serial,
    issuer: issuer.subject,
    subject: [
      organization,
      ...(firstName !== undefined && firstName.length <= maxCommonName ? [{ oid: oid.commonName, value: firstName }] : []),
    ],
    spki: key.spki,
    ca: false,
    keyUsage: key.keyType.startsWith('rsa') ? ['digitalSignature', 'keyEncipherment'] : ['digitalSignature'],
    extKeyUsage: ['serverAuth', 'clientAuth'],
    uris: [spiffeId],
    dnsNames,
    subjectKeyId: keyIdentifier(key.spki),
    authorityKeyId: issuer.subjectKeyId ?? keyIdentifier(issuer.spki),
    signatureKeyType: issuerKey.keyType,
  }
  const { trustDomain, at, lifetime, authorityKeys } = order
  const expected: Expected = {
    what: 'leaf',
    trustDomain,
    id: spiffeId,
    dnsNames,
    spki: key.spki,
    issuer,
    signatureKeyType: issuerKey.keyType,
    at,
    longest: lifetime,
    pathLength: 0,
    authorityKeys,
  }
  return checkedToken(template, expected, issuerKey.publicKey)
}

/** Shapes and checks a root that signs itself. @throws Failure `lint.*` */
export function prepareSelfSigned(order: AuthorityOrder): IssuanceToken {
  const { key, trustDomain, serial, at, lifetime, pathLength } = order
  const subject = authoritySubject(serial)
  const id = idOfTrustDomain(trustDomain)
  const template: CertificateTemplate = {
    ...validity(order, -Infinity, Infinity),
    serial,
    issuer: encodeName(subject),
    subject,
    spki: key.publicKey,
    ca: { pathLength },
    keyUsage: ['keyCertSign', 'cRLSign'],
    extKeyUsage: [],
    uris: [id],
    dnsNames: [],
    subjectKeyId: keyIdentifier(key.publicKey),
    signatureKeyType: key.keyType,
  }
  const expected: Expected = {
    what: 'authority',
    trustDomain,
    id,
    dnsNames: [],
    spki: key.publicKey,
    issuer: undefined,
    signatureKeyType: key.keyType,
    at,
    longest: lifetime,
    pathLength,
    authorityKeys: [],
  }
  return checkedToken(template, expected, key.publicKey)
}

/**
 * Spends a token: signs its bytes, and hands out the certificate only if it says what was checked and the signature holds (C-9, C-11).
 * @throws Failure `issuance.wrong-key`, `issuance.bytes-changed`, `issuance.bad-signature`, and whatever the key manager meets
 */
export async function redeem(token: IssuanceToken, signer: Signer, signal: AbortSignal): Promise<Certificate> {
  const draft = token.spend(signer)
  const { tbs } = draft
  const signature = await signer.sign(new Uint8Array(tbs), signal)
  const certificate = parseSigned(assemble(tbs, signer.keyType, signature), draft)
  if (!certificate) throw broken('bytes-changed', 'a certificate differs from what was checked')
  // On this thread: with a key that is in use anyway, the way to another thread and back costs as much as it spares.
  if (!verifySignature(importPublicKey(signer.publicKey), certificate.signatureAlgorithm, certificate.tbs, certificate.signature)) {
    throw broken('bad-signature', 'the key manager made a signature that does not hold')
  }
  return certificate
}

/** Asks somebody else to make `key` an authority of the trust domain: a PKCS #10 request that names it as a root would be named. */
export async function authorityRequest(order: {
  readonly key: Signer
  readonly trustDomain: TrustDomain
  readonly serial: Uint8Array
}): Promise<Uint8Array> {
  const { key, trustDomain, serial } = order
  const request = await createCertificateRequest({ signer: key, subject: authoritySubject(serial), uris: [idOfTrustDomain(trustDomain)] })
  await proven(parseCertificateRequest(request))
  return request
}

/** INVARIANT: bound to its bytes and to one key, and spent by the first try. */
class IssuanceToken {
  readonly #draft: Certificate
  readonly #signerKey: Uint8Array
  #spent = false

  constructor(draft: Certificate, signerKey: Uint8Array) {
    this.#draft = draft
    this.#signerKey = signerKey
  }

  /** What was checked. */
  spend(signer: Signer): Certificate {
    if (this.#spent) throw new Error('bug: an issuance token is spent twice')
    this.#spent = true
    if (!sameBytes(signer.publicKey, this.#signerKey))
      throw broken('wrong-key', 'a certificate was checked for another key than the one that is to sign it')
    return this.#draft
  }
}

function checkedToken(template: CertificateTemplate, expected: Expected, signerKey: Uint8Array): IssuanceToken {
  // The strict reader shares no code with the writer, so it judges the bytes and not our intentions.
  const draft = parseCertificate(assemble(toBeSigned(template), template.signatureKeyType, noSignature))
  lint(draft, expected)
  return new IssuanceToken(draft, signerKey)
}

/** The last second counts (C-3), and nothing leaves the validity of its issuer (C-2). */
function validity(
  { at, backdate, lifetime }: Order,
  earliest: Instant,
  latest: Instant,
): Pick<CertificateTemplate, 'notBefore' | 'notAfter'> {
  const whole = (moment: Instant): Instant => Math.floor(moment / seconds(1)) * seconds(1)
  return { notBefore: Math.max(whole(at - backdate), earliest), notAfter: Math.min(whole(at + lifetime) - seconds(1), whole(latest)) }
}

/** Unlike any other authority's: some verifiers give up on many issuers of one name (golang/go 65142). */
function authoritySubject(serial: Uint8Array): NameAttribute[] {
  return [organization, { oid: oid.serialNumber, value: hex(serial) }]
}

function broken(what: string, problem: string): Failure {
  return new Failure('internal', `issuance.${what}`, { public: `nothing was issued: ${problem}` })
}

const organization: NameAttribute = { oid: oid.organizationName, value: 'Vidimus' }
/** RFC 5280 appendix A.1: ub-common-name. */
const maxCommonName = 64
/** Stands where the signature will, while the rest is read. */
const noSignature = Uint8Array.of(0)
