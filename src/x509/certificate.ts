import { createHash, type KeyObject } from 'node:crypto'
import { hex, sameBytes } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { contextConstructed, contextPrimitive, type DerReader, readDer } from './der-reader.ts'
import {
  type BasicConstraints,
  type ExtKeyUsage,
  type Extension,
  type KeyUsage,
  type NameConstraints,
  readAuthorityKeyIdentifier,
  readBasicConstraints,
  readExtensions,
  readExtKeyUsage,
  readKeyUsage,
  readNameConstraints,
  readSubjectAltName,
  readSubjectKeyIdentifier,
  type SubjectAltName,
} from './extension.ts'
import { type Name, readName } from './name.ts'
import { oid } from './oid.ts'
import { importPublicKey, readSignatureAlgorithm, type SignatureAlgorithm, verifySignature } from './signature.ts'

/** An X.509 certificate as its bytes say (RFC 5280 section 4.1). Read, not believed: nothing here says that anybody trusts it. */
export interface Certificate {
  readonly raw: Uint8Array
  /** What the issuer signed. */
  readonly tbs: Uint8Array
  /** 1 for certificates without extensions, else 3; 2 exists on paper. */
  readonly version: 1 | 2 | 3
  /** Lower-case hex of the magnitude, two digits an octet. */
  readonly serial: string
  readonly issuer: Name
  readonly subject: Name
  readonly notBefore: Instant
  /** The last second in which it is valid (RFC 5280 section 4.1.2.5). */
  readonly notAfter: Instant
  readonly spki: Uint8Array
  readonly signatureAlgorithm: SignatureAlgorithm
  readonly signature: Uint8Array
  readonly extensions: ReadonlyMap<string, Extension>
  readonly basicConstraints?: BasicConstraints
  readonly keyUsage?: KeyUsage
  readonly extKeyUsage?: ExtKeyUsage
  readonly subjectAltName?: SubjectAltName
  readonly nameConstraints?: NameConstraints
  readonly subjectKeyId?: Uint8Array
  readonly authorityKeyId?: Uint8Array
  /** Critical extensions that this program does not process: whoever relies on the certificate must refuse it. */
  readonly unknownCritical: readonly string[]
}

/**
 * Reads one certificate. The bytes are copied first, so that nobody changes them afterwards.
 * @throws Failure `der.*`, `x509.*`
 */
export function parseCertificate(der: Uint8Array): Certificate {
  // A length above the limit is refused before the copy is made.
  return readDer(der.length > maxCertificateBytes ? der : new Uint8Array(der), readCertificate)
}

/** What is around the signed part of a certificate. */
export type CertificateFrame = Pick<Certificate, 'tbs' | 'signatureAlgorithm' | 'signature'>

/**
 * Reads what is around the signed part, as strictly as {@link parseCertificate}; of the signed part itself, that it is well formed.
 * For a certificate whose signed part was read before.
 * @throws Failure `der.*`
 */
export function parseFrame(der: Uint8Array): CertificateFrame {
  return readDer(der, (reader) =>
    reader.sequence((outer) => {
      const tbs = outer.peek()
      outer.skip()
      return { tbs, signatureAlgorithm: readSignatureAlgorithm(outer), signature: outer.bitString() }
    }),
  )
}

/** Reads certificates that stand one after the other, as the Workload API sends them; none is an empty list. @throws Failure `der.*`, `x509.*` */
export function parseCertificates(der: Uint8Array, { max = maxConcatenated }: { readonly max?: number } = {}): Certificate[] {
  return readDer(
    der,
    (reader) => {
      const list: Certificate[] = []
      while (reader.more) {
        if (list.length >= max) throw malformed('too-many-certificates', `there are more than ${max} certificates`)
        list.push(parseCertificate(reader.peek()))
        reader.skip()
      }
      return list
    },
    { maxBytes: max * maxCertificateBytes },
  )
}

/** SHA-256 of the whole certificate, in lower-case hex. */
export function fingerprint(certificate: Certificate): string {
  return createHash('sha256').update(certificate.raw).digest('hex')
}

/** The certified key. @throws Failure `x509.public-key`, `x509.unsupported-key`, `x509.weak-key` */
export function publicKeyOf(certificate: Certificate): KeyObject {
  return importPublicKey(certificate.spki)
}

/** Whether subject and issuer are one. An empty name is nobody's (RFC 5280 sections 3.2 and 4.1.2.4). */
export function isSelfIssued(certificate: Certificate): boolean {
  return certificate.subject.attributes.length > 0 && sameBytes(certificate.subject.raw, certificate.issuer.raw)
}

/**
 * Whether the issuer's key made the child's signature. Nothing else is looked at: not names, not dates, not rights.
 * A key that cannot be used is a no.
 */
export function signedBy(child: Certificate, issuer: Certificate): boolean {
  const signer = signers.get(child)
  if (signer && sameBytes(signer, issuer.spki)) return true
  if (!signatureHolds(child, issuer)) return false
  signers.set(child, issuer.spki)
  return true
}

function readCertificate(reader: DerReader): Certificate {
  const raw = reader.peek()
  return reader.sequence((outer) => {
    const tbs = outer.peek()
    const inner = outer.sequence(readToBeSigned)
    const signatureAlgorithm = readSignatureAlgorithm(outer)
    if (!sameBytes(signatureAlgorithm.raw, inner.algorithm.raw)) {
      throw otherAlgorithm()
    }
    const signature = outer.bitString()
    const { algorithm: _, ...fields } = inner
    return Object.freeze({ raw, tbs, ...fields, signatureAlgorithm, signature })
  })
}

function readToBeSigned(reader: DerReader) {
  const version = readVersion(reader)
  const serial = readSerial(reader)
  const algorithm = readSignatureAlgorithm(reader)
  const issuer = readName(reader)
  const { notBefore, notAfter } = reader.sequence((inside) => ({ notBefore: inside.time(), notAfter: inside.time() }))
  const subject = readName(reader)
  const spki = reader.peek()
  reader.skip()
  for (const uniqueId of [contextPrimitive(1), contextPrimitive(2)]) if (version > 1 && reader.nextIs(uniqueId)) reader.skip()
  const extensions =
    version === 3 && reader.nextIs(contextConstructed(3)) ? reader.inside(contextConstructed(3), readExtensions) : noExtensions
  return { version, serial, algorithm, issuer, notBefore, notAfter, subject, spki, extensions, ...readKnown(extensions) }
}

/** A DEFAULT v1 that is left out, or v2 or v3. */
function readVersion(reader: DerReader): 1 | 2 | 3 {
  if (!reader.nextIs(contextConstructed(0))) return 1
  const version = reader.inside(contextConstructed(0), (inside) => inside.smallInteger())
  if (version === 1) return 2
  if (version === 2) return 3
  throw malformed('version', `a certificate has the version number ${version}: expected 1 or 2`)
}

/** RFC 5280 section 4.1.2.2: not negative, at most 20 octets. */
function readSerial(reader: DerReader): string {
  const serial = reader.unsigned()
  if (serial.length > 20) throw malformed('serial', 'a serial number has more than 20 octets')
  return hex(serial)
}

interface KnownExtensions {
  basicConstraints?: BasicConstraints
  keyUsage?: KeyUsage
  extKeyUsage?: ExtKeyUsage
  subjectAltName?: SubjectAltName
  nameConstraints?: NameConstraints
  subjectKeyId?: Uint8Array
  authorityKeyId?: Uint8Array
  unknownCritical: readonly string[]
}

function readKnown(extensions: ReadonlyMap<string, Extension>): KnownExtensions {
  const known: KnownExtensions = { unknownCritical: [] }
  for (const [type, extension] of extensions) {
    const read = readers.get(type)
    if (read) read(known, extension)
    else if (extension.critical) known.unknownCritical = [...known.unknownCritical, type]
  }
  return known
}

/** One row an extension that is understood. */
const readers: ReadonlyMap<string, (known: KnownExtensions, extension: Extension) => void> = new Map([
  [oid.basicConstraints, (known, extension) => void (known.basicConstraints = readBasicConstraints(extension))],
  [oid.keyUsage, (known, extension) => void (known.keyUsage = readKeyUsage(extension))],
  [oid.extKeyUsage, (known, extension) => void (known.extKeyUsage = readExtKeyUsage(extension))],
  [oid.subjectAltName, (known, extension) => void (known.subjectAltName = readSubjectAltName(extension))],
  [oid.nameConstraints, (known, extension) => void (known.nameConstraints = readNameConstraints(extension))],
  [oid.subjectKeyIdentifier, (known, extension) => void (known.subjectKeyId = readSubjectKeyIdentifier(extension))],
  [
    oid.authorityKeyIdentifier,
    (known, extension) => {
      const identifier = readAuthorityKeyIdentifier(extension)
      if (identifier) known.authorityKeyId = identifier
    },
  ],
  // We ask for no policy, and then every policy will do (RFC 5280 section 6.1.1 (c)): there is nothing to process.
  [oid.certificatePolicies, () => {}],
] satisfies [string, (known: KnownExtensions, extension: Extension) => void][])

function signatureHolds(child: Certificate, issuer: Certificate): boolean {
  let key: KeyObject
  try {
    key = publicKeyOf(issuer)
  } catch (error) {
    if (error instanceof Failure) return false
    throw error
  }
  return verifySignature(key, child.signatureAlgorithm, child.tbs, child.signature)
}

function otherAlgorithm(): Failure {
  return malformed('signature-algorithm', 'the signature algorithm differs inside and outside of what is signed')
}

function malformed(what: string, text: string): Failure {
  return new Failure('invalid_argument', `x509.${what}`, { public: text })
}

/** Whose key a signature was found to be of. A certificate is frozen and owns its bytes, so what held once holds again. */
const signers = new WeakMap<Certificate, Uint8Array>()
const noExtensions: ReadonlyMap<string, Extension> = new Map()
/** Rule R-28. */
const maxCertificateBytes = 64 * 1024
const maxConcatenated = 64
