import { hash } from 'node:crypto'
import type { Instant } from '../kernel/clock.ts'
import { bitString, type Der, encodeDer, sequence, tagged, time, tinyInteger, unsignedInteger } from './der-writer.ts'
import {
  type KeyUsageName,
  type NameConstraintLists,
  writeAuthorityKeyIdentifier,
  writeBasicConstraints,
  writeExtension,
  writeExtKeyUsage,
  writeKeyUsage,
  writeNameConstraints,
  writeSubjectAltName,
  writeSubjectKeyIdentifier,
} from './extension.ts'
import { type KeyType, keyTypes, type PublicKeyInfo, readPublicKeyInfo } from './key-type.ts'
import { encodeName, type Name, type NameAttribute } from './name.ts'
import { oid } from './oid.ts'

/** A certificate about to be signed, as a value. What may stand in it is decided by whoever makes it, not here. */
export interface CertificateTemplate {
  /** Big-endian magnitude, at most 20 octets once written (RFC 5280 section 4.1.2.2). */
  readonly serial: Uint8Array
  /** The issuer's subject, byte for byte. */
  readonly issuer: Name | Uint8Array
  readonly subject: readonly NameAttribute[]
  /** Whole seconds; fractions are cut off. */
  readonly notBefore: Instant
  /** The last second of validity. */
  readonly notAfter: Instant
  readonly spki: Uint8Array
  readonly ca: false | { readonly pathLength?: number }
  /** None leaves the extension out. */
  readonly keyUsage: readonly KeyUsageName[]
  /** None leaves the extension out. */
  readonly extKeyUsage: readonly ('serverAuth' | 'clientAuth')[]
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
  readonly subjectKeyId: Uint8Array
  /** Left out only by a self-signed certificate (RFC 5280 section 4.2.1.1). */
  readonly authorityKeyId?: Uint8Array | undefined
  readonly nameConstraints?: (NameConstraintLists & { readonly critical: boolean }) | undefined
  /** Of the key that will sign. */
  readonly signatureKeyType: KeyType
}

/** The bytes that the issuer signs (RFC 5280 section 4.1.1.1). The same template gives the same bytes. */
export function toBeSigned(template: CertificateTemplate): Uint8Array {
  const { serial, issuer, subject, notBefore, notAfter, spki, signatureKeyType } = template
  const magnitude = unsignedInteger(serial)
  const value = sequence(
    version3,
    magnitude,
    keyTypes[signatureKeyType].signatureAlgorithm,
    issuer instanceof Uint8Array ? issuer : issuer.raw,
    sequence(time(notBefore), time(notAfter)),
    subject.length === 0 ? emptyName : encodeName(subject),
    spki,
    tagged(3, sequence(...extensions(template))),
  )
  if (serial.length > 20 || encodeDer(magnitude).length > 22) throw new Error('bug: a serial number takes more than 20 octets')
  return encodeDer(value)
}

/** The whole certificate, from the signed bytes and their signature. */
export function assemble(tbs: Uint8Array, keyType: KeyType, signature: Uint8Array): Uint8Array {
  return encodeDer(sequence(tbs, keyTypes[keyType].signatureAlgorithm, bitString(signature)))
}

/** The leftmost 160 bits of SHA-256 over the public key's bit string (RFC 7093 section 2, method 1). @throws Failure `der.*`, `x509.*` */
export function keyIdentifier(spki: Uint8Array): Uint8Array {
  return keyIdentifierOf(readPublicKeyInfo(spki))
}

/** {@link keyIdentifier} of a key that was read already. */
export function keyIdentifierOf({ key }: Pick<PublicKeyInfo, 'key'>): Uint8Array {
  return hash('sha256', key, 'buffer').subarray(0, 20)
}

function extensions(template: CertificateTemplate): Der[] {
  const { ca, keyUsage, extKeyUsage, uris, dnsNames, subject, subjectKeyId, authorityKeyId, nameConstraints } = template
  const list = [writeExtension(oid.basicConstraints, true, ca === false ? notACa : writeBasicConstraints(ca))]
  if (keyUsage.length > 0) list.push(writeExtension(oid.keyUsage, true, writeKeyUsage(keyUsage)))
  if (extKeyUsage.length > 0) list.push(writeExtension(oid.extKeyUsage, false, writeExtKeyUsage(extKeyUsage)))
  list.push(writeExtension(oid.subjectKeyIdentifier, false, writeSubjectKeyIdentifier(subjectKeyId)))
  if (authorityKeyId) list.push(writeExtension(oid.authorityKeyIdentifier, false, writeAuthorityKeyIdentifier(authorityKeyId)))
  // Critical exactly where it is the only name there is (RFC 5280 section 4.2.1.6, rule X-5).
  if (uris.length + dnsNames.length > 0)
    list.push(writeExtension(oid.subjectAltName, subject.length === 0, writeSubjectAltName({ uris, dnsNames })))
  if (nameConstraints) list.push(writeExtension(oid.nameConstraints, nameConstraints.critical, writeNameConstraints(nameConstraints)))
  return list
}

const version3 = encodeDer(tagged(0, tinyInteger(2)))
const emptyName = encodeName([])
const notACa = encodeDer(writeBasicConstraints(false))
