/**
 * All that costs time for a certificate and needs no key of ours: the proof of the applicant's key, shaping, reading back, every lint rule,
 * and the check of what came out (C-8, C-9). It waits for nothing, and runs on whichever thread there is.
 * INVARIANT: no other file of this room assembles a certificate.
 */
import { isDeepStrictEqual } from 'node:util'
import { base64url, fromBase64url, fromUtf8, hex, sameBytes, utf8 } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import type { Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { AddedClaims } from '../spiffe/claims.ts'
import { idOfTrustDomain, type SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { parseCertificateRequest, provenSync, type ProvenKey } from '../x509/certificate-request.ts'
import { parseCertificate, parseFrame, type Certificate } from '../x509/certificate.ts'
import type { KeyType } from '../x509/key-type.ts'
import { readByLibrary } from '../x509/library.ts'
import { encodeName, type NameAttribute } from '../x509/name.ts'
import { oid } from '../x509/oid.ts'
import { subjectAttributes, type SubjectAttributes } from '../x509/subject.ts'
import { fromJoseSignature, importPublicKey, signatureAlgorithmOf, verifySignature, type Signer } from '../x509/signature.ts'
import { assemble, keyIdentifier, toBeSigned, type CertificateTemplate } from '../x509/template.ts'
import { lint, type Expected } from './lint.ts'

/** PORT: the workbench of this thread, or those of others. */
export interface Workbench {
  /** @throws Failure `lint.*`, `ca.authority-key`, and those of a bad request: `der.*`, `x509.*` */
  draftLeaf(order: LeafOrder): Promise<Draft>
  /** The whole certificate, DER. @throws Failure `issuance.bytes-changed`, `issuance.bad-signature` */
  complete(work: Completion): Promise<Uint8Array>
}

/** What every order says. */
interface Order {
  readonly trustDomain: TrustDomain
  readonly serial: Uint8Array
  readonly at: Instant
  readonly notBefore: Instant
  /** The last second of validity. */
  readonly notAfter: Instant
  /** How long it may be valid from `at` on. */
  readonly longest: Duration
}

export interface LeafOrder extends Order {
  readonly spiffeId: SpiffeId
  /** A PKCS #10 request, of which the key is used and nothing else, or a key that was proven before. */
  readonly applicant: Uint8Array | ProvenKey
  readonly dnsNames: readonly string[]
  /** Laid over the subject that every leaf has. */
  readonly subject?: SubjectAttributes | undefined
  readonly issuer: Issuing
}

/** Who will sign. One object an authority: it is known again. */
export interface Issuing {
  readonly certificate: Certificate
  /** Of the key that signs. */
  readonly keyType: KeyType
  /** SubjectPublicKeyInfo of every key of this CA. */
  readonly authorityKeys: readonly Uint8Array[]
}

export interface AuthorityDraftOrder extends Order {
  readonly key: Pick<Signer, 'keyType' | 'publicKey'>
  readonly pathLength: number
  /** To SPIFFE IDs of its trust domain (C-6). */
  readonly constrained?: boolean
  /** Who signs it; itself when left out. */
  readonly issuer?: { readonly certificate: Certificate; readonly key: Pick<Signer, 'keyType'> } | undefined
}

/** Bytes to be signed that every rule was held against. */
export interface Draft {
  readonly tbs: Uint8Array
  /** SubjectPublicKeyInfo of whom it is for. */
  readonly spki: Uint8Array
}

export interface Completion {
  readonly tbs: Uint8Array
  readonly signature: Uint8Array
  readonly signer: Pick<Signer, 'keyType' | 'publicKey'>
}

/** A token that was just signed, and what it must say. */
export interface TokenCheck {
  readonly token: string
  readonly header: Readonly<Record<string, string>>
  readonly claims: AddedClaims
  readonly signer: Pick<Signer, 'keyType' | 'publicKey'>
}

/** The workbench of this thread. */
export const onThisThread: Workbench = {
  draftLeaf: async (order) => draftLeaf(order),
  complete: async (work) => complete(work),
}

/** Shapes and checks a leaf. */
export function draftLeaf(order: LeafOrder): Draft {
  const { issuer, spiffeId, applicant, dnsNames, subject: chosen, trustDomain, at, longest, serial, notBefore, notAfter } = order
  const key = applicant instanceof Uint8Array ? provenSync(parseCertificateRequest(applicant)) : applicant
  demandStranger(key.spki, [...issuer.authorityKeys, issuer.certificate.spki])
  const [firstName] = dnsNames
  const commonName = firstName !== undefined && firstName.length <= maxCommonName ? { commonName: firstName } : {}
  const subject = subjectAttributes({ organization, ...commonName, ...chosen })
  const template: CertificateTemplate = {
    serial,
    notBefore,
    notAfter,
    issuer: issuer.certificate.subject,
    subject,
    spki: key.spki,
    ca: false,
    keyUsage: key.keyType.startsWith('rsa') ? ['digitalSignature', 'keyEncipherment'] : ['digitalSignature'],
    extKeyUsage: ['serverAuth', 'clientAuth'],
    uris: [spiffeId],
    dnsNames,
    subjectKeyId: keyIdentifier(key.spki),
    authorityKeyId: issuer.certificate.subjectKeyId ?? keyIdentifier(issuer.certificate.spki),
    signatureKeyType: issuer.keyType,
  }
  return checkedDraft(template, {
    what: 'leaf',
    trustDomain,
    id: spiffeId,
    subject,
    dnsNames,
    spki: key.spki,
    issuer: issuer.certificate,
    signatureKeyType: issuer.keyType,
    serial,
    notBefore,
    notAfter,
    at,
    longest,
    pathLength: 0,
    authorityKeys: issuer.authorityKeys,
  })
}

/** Shapes and checks an authority: a root that signs itself, or one below an issuer. */
export function draftAuthority(order: AuthorityDraftOrder): Draft {
  const { key, issuer, trustDomain, serial, at, longest, pathLength, constrained = false, notBefore, notAfter } = order
  const signatureKeyType = (issuer?.key ?? key).keyType
  const subject = authoritySubject(serial)
  const id = idOfTrustDomain(trustDomain)
  const template: CertificateTemplate = {
    serial,
    notBefore,
    notAfter,
    issuer: issuer?.certificate.subject ?? encodeName(subject),
    subject,
    spki: key.publicKey,
    ca: { pathLength },
    keyUsage: ['keyCertSign', 'cRLSign'],
    extKeyUsage: [],
    uris: [id],
    dnsNames: [],
    subjectKeyId: keyIdentifier(key.publicKey),
    // The host of a SPIFFE ID is its trust domain; whoever does not understand the extension is to refuse it (RFC 5280 section 4.2.1.10).
    ...(constrained && { nameConstraints: { critical: true, permittedUris: [trustDomain] } }),
    ...(issuer && { authorityKeyId: issuer.certificate.subjectKeyId ?? keyIdentifier(issuer.certificate.spki) }),
    signatureKeyType,
  }
  return checkedDraft(template, {
    what: 'authority',
    trustDomain,
    id,
    subject,
    dnsNames: [],
    spki: key.publicKey,
    issuer: issuer?.certificate,
    signatureKeyType,
    serial,
    notBefore,
    notAfter,
    at,
    longest,
    pathLength,
    constrained,
    authorityKeys: [],
  })
}

/**
 * Has the certificate of an authority read by a library that shares no code with ours, under a signature to be thrown away.
 * @throws Failure `lint.second-opinion`, `x509.library`
 */
export async function demandSecondOpinion({ tbs, spki }: Draft, order: AuthorityDraftOrder): Promise<void> {
  const seen = await readByLibrary(assemble(tbs, (order.issuer?.key ?? order.key).keyType, noSignature))
  const differs = [
    ...(seen.serial === hex(order.serial) ? [] : ['serial']),
    ...(seen.notBefore === order.notBefore && seen.notAfter === order.notAfter ? [] : ['validity']),
    ...(seen.isCa && seen.mayCertify && seen.pathLength === order.pathLength ? [] : ['constraints']),
    ...(seen.uris.length === 1 && seen.uris[0] === idOfTrustDomain(order.trustDomain) && seen.dnsNames.length === 0 ? [] : ['names']),
    ...(sameBytes(seen.spki, spki) && sameBytes(spki, order.key.publicKey) ? [] : ['key']),
  ]
  if (differs.length === 0) return
  throw new Failure('internal', 'lint.second-opinion', {
    public: 'nothing was signed: a second reader finds something else in the certificate of an authority',
    internal: { differs },
  })
}

/** Puts a signature to the bytes it is for: hands out the certificate only if it reads as these bytes and the signature holds (C-9, C-11). */
export function complete({ tbs, signature, signer }: Completion): Uint8Array {
  const der = assemble(tbs, signer.keyType, signature)
  const frame = parseFrame(der)
  const algorithm = signatureAlgorithmOf(signer.keyType)
  if (!sameBytes(frame.tbs, tbs) || !sameBytes(frame.signatureAlgorithm.raw, algorithm.raw)) {
    throw broken('bytes-changed', 'a certificate differs from what was checked')
  }
  if (!verifySignature(importPublicKey(signer.publicKey), frame.signatureAlgorithm, frame.tbs, frame.signature)) {
    throw broken('bad-signature', 'the key manager made a signature that does not hold')
  }
  return der
}

/**
 * Whether a token says what was ordered and nothing else, under a signature that holds (C-21): read from its text, not from what it was made of.
 * @throws Failure `issuance.bad-token`
 */
export function checkToken({ token, header, claims, signer }: TokenCheck): void {
  const [head = '', body = '', signature = '', ...more] = token.split('.')
  const { keyType, publicKey } = signer
  if (more.length > 0 || !says(head, header) || !says(body, claims)) throw broken('bad-token', 'a token differs from what was ordered')
  const signed = fromJoseSignature(keyType, fromBase64url(signature))
  if (!verifySignature(importPublicKey(publicKey), signatureAlgorithmOf(keyType), utf8(`${head}.${body}`), signed)) {
    throw broken('bad-token', 'the key manager made a signature that does not hold')
  }
}

/** Whether a part of a token is an object of these values and no others. */
function says(part: string, values: Readonly<Record<string, unknown>>): boolean {
  const read: unknown = JSON.parse(fromUtf8(fromBase64url(part)))
  return isDeepStrictEqual(read, values) && base64url(fromBase64url(part)) === part
}

/** Unlike any other authority's: some verifiers give up on many issuers of one name (golang/go 65142). */
export function authoritySubject(serial: Uint8Array): NameAttribute[] {
  return [...subjectAttributes({ organization }), { oid: oid.serialNumber, value: hex(serial) }]
}

export function broken(what: string, problem: string): Failure {
  return new Failure('internal', `issuance.${what}`, { public: `nothing was issued: ${problem}` })
}

/** The strict reader shares no code with the writer, so it judges the bytes and not our intentions. */
function checkedDraft(template: CertificateTemplate, expected: Expected): Draft {
  const draft = parseCertificate(assemble(toBeSigned(template), template.signatureKeyType, noSignature))
  lint(draft, expected)
  return { tbs: draft.tbs, spki: draft.spki }
}

/** C-12. @throws Failure `ca.authority-key` */
export function demandStranger(spki: Uint8Array, authorityKeys: readonly Uint8Array[]): void {
  if (!authorityKeys.some((key) => sameBytes(key, spki))) return
  throw new Failure('invalid_argument', 'ca.authority-key', { public: 'the key of the request is one of our authorities' })
}

const organization = 'Vidimus'
/** RFC 5280 appendix A.1: ub-common-name. */
const maxCommonName = 64
/** Stands where the signature will, while the rest is read. */
const noSignature = Uint8Array.of(0)
