/** What a finished template must fulfil before a key signs it: X509-SVID and RFC 5280, one row a rule (C-4, C-5, C-8). */
import { hex, sameBytes } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import { minutes, seconds, type Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { idOfTrustDomain, parseSpiffeId, pathOf, trustDomainOf, type SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Certificate } from '../x509/certificate.ts'
import { demandNames } from '../x509/chain.ts'
import { keyUsageNames, type KeyUsage, type KeyUsageName, type NameConstraints } from '../x509/extension.ts'
import { keyTypes, onlyVerified, readPublicKeyInfo, type KeyType, type PublicKeyInfo } from '../x509/key-type.ts'
import type { NameAttribute } from '../x509/name.ts'
import { oid } from '../x509/oid.ts'
import { signatureAlgorithmOf } from '../x509/signature.ts'
import { isPlainText, mayBeTakenForHost } from '../x509/subject.ts'
import { keyIdentifierOf } from '../x509/template.ts'
import { isDnsName } from './dns-name.ts'

/** What was ordered: the certificate must say this and nothing else. */
export interface Expected {
  readonly what: 'leaf' | 'authority'
  readonly trustDomain: TrustDomain
  readonly id: SpiffeId
  /** In the order in which it is written. */
  readonly subject: readonly NameAttribute[]
  readonly dnsNames: readonly string[]
  readonly spki: Uint8Array
  /** Undefined for a self-signed authority. */
  readonly issuer: Certificate | undefined
  /** Of the key that will sign. */
  readonly signatureKeyType: KeyType
  readonly serial: Uint8Array
  readonly notBefore: Instant
  readonly notAfter: Instant
  readonly at: Instant
  /** How long it may be valid from now on. */
  readonly longest: Duration
  readonly pathLength: number
  /** Of an authority: to SPIFFE IDs of the trust domain. */
  readonly constrained?: boolean
  /** SubjectPublicKeyInfo of every key of this CA. */
  readonly authorityKeys: readonly Uint8Array[]
}

export interface LintRule {
  /** The reason code of the refusal is `lint.<name>`. */
  readonly name: string
  readonly source: string
  /** Absent: both kinds. */
  readonly only?: Expected['what']
  /** What is wrong where it does not hold. */
  readonly problem: string
  /** `key` is what its SubjectPublicKeyInfo says, or undefined if that cannot be read. */
  holds(certificate: Certificate, expected: Expected, key: PublicKeyInfo | undefined): boolean
}

/**
 * Refuses a certificate that breaks a rule. It is what the strict reader found in the very bytes that are to be signed.
 * @throws Failure `lint.<rule>`, named after the first broken rule
 */
export function lint(certificate: Certificate, expected: Expected): void {
  const [first, ...others] = brokenRules(certificate, expected)
  if (!first) return
  throw new Failure('internal', `lint.${first.name}`, {
    public: `nothing was signed: ${first.problem}`,
    internal: { source: first.source, others: others.map((rule) => rule.name) },
  })
}

/** Every rule that a certificate breaks, in the order of the table. */
export function brokenRules(certificate: Certificate, expected: Expected): LintRule[] {
  const key = readable(certificate.spki)
  return lintRules.filter((rule) => (rule.only === undefined || rule.only === expected.what) && !rule.holds(certificate, expected, key))
}

/**
 * The table. Several rows may look at one field: one says what a specification demands, another what we demand beyond it, so that the
 * refusal tells which it was.
 */
export const lintRules: readonly LintRule[] = [
  // The frame
  both('size', 'C-13', 'the certificate is longer than 8 KiB', ({ raw }) => raw.length <= maxCertificateBytes),
  both('version', 'RFC 5280 section 4.1.2.1', 'the version is not 3', ({ version }) => version === 3),
  both('serial-length', 'RFC 5280 section 4.1.2.2, C-1', 'the serial number does not have 16 octets', ({ serial }) => serial.length === 32),
  both(
    'serial-first-octet',
    'RFC 5280 section 4.1.2.2, C-1',
    'the serial number does not begin with an octet from 40 to 7f, so its length is not that of every other',
    ({ serial }) => /^[4-7]/.test(serial),
  ),
  both('serial', 'C-1, C-10', 'the serial number is not the one that was drawn', ({ serial }, expected) => serial === hex(expected.serial)),
  both(
    'serial-of-issuer',
    'RFC 5280 section 4.1.2.2',
    'the serial number is that of its authority',
    ({ serial }, { issuer }) => serial !== issuer?.serial,
  ),
  both(
    'signature-algorithm',
    'RFC 5280 section 4.1.2.3',
    'the signature algorithm is not that of the key that will sign',
    ({ signatureAlgorithm }, { signatureKeyType }) => sameBytes(signatureAlgorithm.raw, signatureAlgorithmOf(signatureKeyType).raw),
  ),
  both('signature-strength', 'R-29', 'the signature algorithm is none that we sign with', ({ signatureAlgorithm }) =>
    signatureOids.has(signatureAlgorithm.oid),
  ),

  // The authority
  both(
    'issuer',
    'RFC 5280 section 4.1.2.4',
    'the issuer is not the subject of the authority, byte for byte',
    ({ issuer, subject }, expected) => sameBytes(issuer.raw, (expected.issuer?.subject ?? subject).raw),
  ),
  both('issuer-empty', 'RFC 5280 section 4.1.2.4', 'the issuer has an empty name', ({ issuer }) => issuer.attributes.length > 0),
  both(
    'issuer-is-ca',
    'RFC 5280 section 6.1.4 (k)',
    'the authority is no CA',
    (_, { issuer }) => !issuer || issuer.basicConstraints?.ca === true,
  ),
  both(
    'issuer-may-sign',
    'RFC 5280 sections 4.2.1.3 and 6.1.4 (n)',
    'the authority may not sign certificates',
    (_, { issuer }) => !issuer || issuer.keyUsage === undefined || issuer.keyUsage.keyCertSign,
  ),
  authority(
    'issuer-path-length',
    'RFC 5280 sections 4.2.1.9 and 6.1.4 (l)',
    'the authority may not have so many CAs below it',
    (_, { issuer, pathLength }) => !issuer || (issuer.basicConstraints?.pathLength ?? Infinity) > pathLength,
  ),
  both(
    'issuer-valid',
    'RFC 5280 section 6.1.3 (a) (2)',
    'the authority is not valid at this moment',
    (_, { issuer, at }) => !issuer || (issuer.notBefore <= at && at < issuer.notAfter + seconds(1)),
  ),
  both(
    'issuer-key',
    'RFC 5280 section 4.1.1.2',
    'the key that will sign is not of the type of the authority',
    (_, { issuer, signatureKeyType }) => !issuer || readable(issuer.spki)?.type === signatureKeyType,
  ),
  both(
    'issuer-id',
    'X509-SVID section 4.1 (X-8)',
    'the authority is of another trust domain',
    (_, { issuer, trustDomain }) => issuer?.subjectAltName?.uris.every((uri) => uri === idOfTrustDomain(trustDomain)) ?? true,
  ),
  both(
    'issuer-constraints',
    'RFC 5280 section 4.2.1.10, C-6',
    'the authority may not certify one of the names',
    (certificate, { issuer }) => !issuer?.nameConstraints || isWithin(issuer.nameConstraints, certificate),
  ),

  // The subject
  both(
    'subject-attributes',
    'RFC 5280 appendix A.1',
    'an attribute of the subject is empty or has more than 64 characters',
    ({ subject }) => subject.attributes.every(({ value }) => value.length > 0 && value.length <= 64),
  ),
  both(
    'subject-characters',
    'RFC 4514 section 2.4, RFC 8399 section 2',
    'an attribute of the subject holds a character that is not seen',
    ({ subject }) => subject.attributes.every(({ value }) => isPlainText(value)),
  ),
  both('subject-country', 'X.520 section 6.3.1', 'the country of the subject is not two capital letters', ({ subject }) =>
    subject.attributes.every(({ oid: type, value }) => type !== oid.countryName || /^[A-Z]{2}$/.test(value)),
  ),
  both(
    'subject',
    'R-3',
    'the subject is not the one that was ordered',
    ({ subject: { attributes } }, { subject }) =>
      attributes.length === subject.length && attributes.every((one, index) => isSameAttribute(one, subject[index]!)),
  ),
  both(
    'subject-once',
    'X.520 section 6, ours',
    'an attribute of the subject occurs twice',
    ({ subject }) => new Set(subject.attributes.map((attribute) => attribute.oid)).size === subject.attributes.length,
  ),
  leaf('subject-known', 'R-3', 'the subject has an attribute that the profile does not know', ({ subject }) =>
    subject.attributes.every((attribute) => leafSubjectOids.has(attribute.oid)),
  ),
  authority(
    'subject-of-authority',
    'C-5, R-3',
    'an authority is named by something else than organization and serial number',
    ({ subject }) => subject.attributes.every((attribute) => authoritySubjectOids.has(attribute.oid)),
  ),
  both(
    'subject-distinct',
    'RFC 5280 section 4.1.2.6',
    'the subject is that of another authority',
    ({ subject }, { issuer }) => issuer === undefined || !sameBytes(subject.raw, issuer.subject.raw),
  ),
  authority(
    'subject-of-root',
    'RFC 5280 section 4.1.2.6, golang/go 65142',
    'the name of a root is not its own: it does not hold its serial number',
    ({ subject, serial }, { issuer }) =>
      issuer !== undefined || subject.attributes.some(({ oid: type, value }) => type === oid.serialNumber && value === serial),
  ),
  leaf(
    'common-name',
    'RFC 6125 sections 2.3 and 6.4.4, R-3',
    'the common name may be taken for a host, and is not one of the DNS names that were ordered',
    ({ subject }, { dnsNames }) =>
      subject.attributes.every(({ oid: type, value }) => type !== oid.commonName || !mayBeTakenForHost(value) || dnsNames.includes(value)),
  ),

  // Time
  both('begins-late', 'C-2', 'it is not valid yet', ({ notBefore }, { at }) => notBefore <= at),
  both(
    'begins-early',
    'C-2',
    'it begins more than 5 minutes before it was ordered',
    ({ notBefore }, { at }) => notBefore >= at - minutes(5) - seconds(1),
  ),
  both(
    'not-before',
    'C-2',
    'it does not begin when it was ordered to',
    ({ notBefore }, expected) => notBefore === whole(expected.notBefore),
  ),
  both('period', 'RFC 5280 section 4.1.2.5', 'it ends before it begins', ({ notBefore, notAfter }) => notAfter >= notBefore),
  both('ended', 'RFC 5280 section 4.1.2.5', 'it has ended already', ({ notAfter }, { at }) => notAfter + seconds(1) > at),
  // The last second counts as well.
  both('too-long', 'C-3', 'it lives longer than was granted', ({ notAfter }, { at, longest }) => notAfter + seconds(1) <= at + longest),
  both('not-after', 'C-3', 'it does not end when it was ordered to', ({ notAfter }, expected) => notAfter === whole(expected.notAfter)),
  both('no-end', 'RFC 5280 section 4.1.2.5', 'it has no end', ({ notAfter }) => notAfter < endOfTime),
  both(
    'outlives-issuer',
    'C-2',
    'it is valid when its authority is not',
    ({ notBefore, notAfter }, { issuer }) => issuer === undefined || (notBefore >= issuer.notBefore && notAfter <= issuer.notAfter),
  ),

  // The key
  both('key', 'R-3', 'it is not for the key that was proven', ({ spki }, expected) => sameBytes(spki, expected.spki)),
  both(
    'key-strength',
    'R-4',
    'its key is of a type or size that is not certified',
    (_, __, key) => key !== undefined && !onlyVerified.has(key.type),
  ),
  both(
    'key-exponent',
    'R-4, NIST SP 800-56B section 6.2',
    'its RSA key has an exponent below 65537',
    (_, __, key) => key?.exponent === undefined || key.exponent >= 65_537n,
  ),
  both(
    'key-octets',
    'R-4, FIPS 186-5 section A.1.1',
    'the size of its RSA key is not a number of whole octets',
    (_, __, key) => key?.modulus === undefined || key.modulus[0]! >= 0x80,
  ),
  leaf(
    'authority-key',
    'C-12',
    'its key is one of our authorities',
    ({ spki }, { authorityKeys, issuer }) => ![...authorityKeys, ...(issuer ? [issuer.spki] : [])].some((key) => sameBytes(key, spki)),
  ),
  both(
    'subject-key-id',
    'RFC 5280 section 4.2.1.2, RFC 7093 section 2, C-5',
    'the subject key identifier is missing, or not that of its key',
    ({ subjectKeyId }, _, key) => subjectKeyId !== undefined && key !== undefined && sameBytes(subjectKeyId, keyIdentifierOf(key)),
  ),
  both(
    'subject-key-id-critical',
    'RFC 5280 section 4.2.1.2',
    'the subject key identifier is critical',
    ({ extensions }) => extensions.get(oid.subjectKeyIdentifier)?.critical !== true,
  ),
  both(
    'authority-key-id',
    'RFC 5280 section 4.2.1.1, C-5',
    'the authority key identifier is missing, or not that of its issuer',
    ({ authorityKeyId, subjectKeyId }, { issuer }) => {
      if (authorityKeyId === undefined) return issuer === undefined
      const ofIssuer = issuer ? issuer.subjectKeyId : subjectKeyId
      return ofIssuer !== undefined && sameBytes(authorityKeyId, ofIssuer)
    },
  ),
  both(
    'authority-key-id-critical',
    'RFC 5280 section 4.2.1.1',
    'the authority key identifier is critical',
    ({ extensions }) => extensions.get(oid.authorityKeyIdentifier)?.critical !== true,
  ),
  both(
    'authority-key-id-alone',
    'RFC 5280 section 4.2.1.1, ours',
    'the authority key identifier names issuer and serial number too, which a cross-signed authority has two of',
    ({ authorityKeyId, extensions }) =>
      authorityKeyId === undefined || extensions.get(oid.authorityKeyIdentifier)?.value.length === authorityKeyId.length + 4,
  ),

  // The identity
  both('san', 'X509-SVID section 2 (X-1)', 'it has no alternative names', ({ subjectAltName }) => subjectAltName !== undefined),
  both(
    'uri-count',
    'X509-SVID section 2 (X-1, X-2)',
    'it does not have exactly one URI name',
    ({ subjectAltName }) => subjectAltName?.uris.length === 1,
  ),
  both(
    'uri',
    'X509-SVID section 2, R-3',
    'its URI name is not the SPIFFE ID that was ordered',
    ({ subjectAltName }, { id }) => subjectAltName?.uris.every((uri) => uri === id) ?? false,
  ),
  both(
    'uri-form',
    'SPIFFE-ID sections 2.1 to 2.4 (X-24)',
    'its URI name is not a SPIFFE ID in its one form',
    ({ subjectAltName }) => subjectAltName?.uris.every(isSpiffeId) ?? false,
  ),
  leaf(
    'leaf-id',
    'X509-SVID section 5.2 (X-4)',
    'its SPIFFE ID has no path or is of another trust domain',
    (_, { id, trustDomain }) => pathOf(id) !== '' && trustDomainOf(id) === trustDomain,
  ),
  authority(
    'authority-id',
    'X509-SVID section 4.1 (X-8)',
    'its SPIFFE ID is not that of the trust domain',
    (_, { id, trustDomain }) => id === idOfTrustDomain(trustDomain),
  ),
  both('dns-names', 'R-3', 'its DNS names are not those that were ordered', ({ subjectAltName }, { dnsNames }) =>
    sameList(subjectAltName?.dnsNames ?? [], dnsNames),
  ),
  both('dns-count', 'C-13', 'it has more than 64 DNS names', ({ subjectAltName }) => (subjectAltName?.dnsNames.length ?? 0) <= 64),
  both('dns-once', 'C-13', 'a DNS name occurs twice', ({ subjectAltName }) => {
    const names = subjectAltName?.dnsNames ?? []
    return names.length < 2 || new Set(names.map((name) => name.toLowerCase())).size === names.length
  }),
  both('dns-wildcard', 'RFC 6125 section 7.2, C-13', 'a DNS name is a wildcard', ({ subjectAltName }) =>
    (subjectAltName?.dnsNames ?? []).every((name) => !name.includes('*')),
  ),
  both('dns-address', 'RFC 5280 section 4.2.1.6', 'a DNS name is an address', ({ subjectAltName }) =>
    (subjectAltName?.dnsNames ?? []).every((name) => !/^[0-9.]+$/.test(name) && !name.includes(':')),
  ),
  both('dns-name-form', 'RFC 5280 section 4.2.1.6, RFC 1034 section 3.5, C-13', 'a DNS name is not a host name', ({ subjectAltName }) =>
    (subjectAltName?.dnsNames ?? []).every(isDnsName),
  ),
  both('addresses', 'R-3', 'it has an IP address that nobody ordered', ({ subjectAltName }) => (subjectAltName?.ips.length ?? 0) === 0),
  both('emails', 'R-3', 'it has a mail address that nobody ordered', ({ subjectAltName }) => (subjectAltName?.emails.length ?? 0) === 0),
  both('other-names', 'R-3', 'it has a name of a type that nobody ordered', ({ subjectAltName }) => (subjectAltName?.others ?? 0) === 0),
  both(
    'san-critical',
    'RFC 5280 section 4.2.1.6 (X-5)',
    'the alternative names are critical with a subject, or not critical without one',
    ({ subject, subjectAltName }) => subjectAltName === undefined || subjectAltName.critical === (subject.attributes.length === 0),
  ),

  // What it may do
  both(
    'basic-constraints',
    'RFC 5280 section 4.2.1.9, C-4',
    'the basic constraints are missing',
    ({ basicConstraints }) => basicConstraints !== undefined,
  ),
  both(
    'basic-constraints-critical',
    'RFC 5280 section 4.2.1.9, C-4',
    'the basic constraints are not critical',
    ({ basicConstraints }) => basicConstraints?.critical !== false,
  ),
  leaf('leaf-is-ca', 'X509-SVID section 4.1 (X-12)', 'a leaf is a CA', ({ basicConstraints }) => basicConstraints?.ca !== true),
  leaf(
    'leaf-path-length',
    'RFC 5280 section 4.2.1.9, C-4',
    'a leaf says how many CAs may be below it',
    ({ basicConstraints }) => basicConstraints?.ca === true || basicConstraints?.pathLength === undefined,
  ),
  authority(
    'authority-is-no-ca',
    'RFC 5280 section 4.2.1.9, C-5',
    'an authority is no CA',
    ({ basicConstraints }) => basicConstraints?.ca === true,
  ),
  authority(
    'authority-path-length',
    'RFC 5280 section 4.2.1.9, C-5',
    'an authority allows another number of CAs below it than was ordered',
    ({ basicConstraints }, { pathLength }) => basicConstraints?.ca !== true || basicConstraints.pathLength === pathLength,
  ),
  both('key-usage', 'X509-SVID section 4.3 (X-15)', 'the key usage is missing', ({ keyUsage }) => keyUsage !== undefined),
  both(
    'key-usage-critical',
    'X509-SVID section 4.3 (X-15)',
    'the key usage is not critical',
    ({ keyUsage }) => keyUsage?.critical !== false,
  ),
  leaf(
    'leaf-signs',
    'X509-SVID section 4.3 (X-17)',
    'a leaf may not sign with its key',
    ({ keyUsage }) => keyUsage?.digitalSignature !== false,
  ),
  leaf(
    'leaf-certifies',
    'X509-SVID section 4.3 (X-18)',
    'a leaf may sign certificates or revocation lists',
    ({ keyUsage }) => !keyUsage?.keyCertSign && !keyUsage?.cRLSign,
  ),
  leaf('leaf-agrees', 'C-4', 'a leaf may agree on keys, which nobody asked for', ({ keyUsage }) => !keyUsage?.keyAgreement),
  leaf(
    'leaf-enciphers',
    'RFC 8813 section 3, C-4',
    'a leaf may encipher with a key that cannot, or not with an RSA key',
    ({ keyUsage }, _, key) => keyUsage === undefined || keyUsage.keyEncipherment === (key?.family === 'rsa'),
  ),
  leaf('leaf-key-usage', 'RFC 8813 section 3, C-4', 'a leaf may do something else with its key', ({ keyUsage }) =>
    noneOf(keyUsage, ['nonRepudiation', 'dataEncipherment', 'encipherOnly', 'decipherOnly']),
  ),
  authority(
    'authority-certifies',
    'X509-SVID section 4.3 (X-16), C-5',
    'an authority may not sign certificates and revocation lists',
    ({ keyUsage }) => keyUsage === undefined || (keyUsage.keyCertSign && keyUsage.cRLSign),
  ),
  authority(
    'authority-key-usage',
    'C-5',
    'an authority may do something else with its key than sign certificates and revocation lists',
    ({ keyUsage }) =>
      noneOf(
        keyUsage,
        keyUsageNames.filter((name) => name !== 'keyCertSign' && name !== 'cRLSign'),
      ),
  ),
  leaf(
    'purpose-any',
    'RFC 5280 section 4.2.1.12',
    'a leaf is for any purpose',
    ({ extKeyUsage }) => extKeyUsage?.purposes.includes(anyPurpose) !== true,
  ),
  leaf(
    'leaf-purposes',
    'X509-SVID section 4.4 (X-20)',
    'a leaf is not for server and client authentication alone',
    ({ extKeyUsage }) => extKeyUsage !== undefined && sameList(extKeyUsage.purposes, [oid.serverAuth, oid.clientAuth]),
  ),
  leaf(
    'purposes-critical',
    'RFC 5280 section 4.2.1.12, ours',
    'the extended key usage is critical',
    ({ extKeyUsage }) => extKeyUsage?.critical !== true,
  ),
  authority('authority-purposes', 'C-5', 'an authority is for certain purposes', ({ extKeyUsage }) => extKeyUsage === undefined),
  leaf(
    'leaf-constraints',
    'RFC 5280 section 4.2.1.10',
    'a leaf has name constraints',
    ({ nameConstraints }) => nameConstraints === undefined,
  ),
  authority(
    'authority-constraints',
    'RFC 5280 section 4.2.1.10, C-6',
    'the name constraints of an authority are not those that were ordered, critical, of its trust domain alone',
    ({ nameConstraints }, { constrained = false, trustDomain }) =>
      nameConstraints === undefined ? !constrained : constrained && isOnly(nameConstraints, trustDomain),
  ),
  both(
    'extension-critical',
    'RFC 5280 section 4.2',
    'it has a critical extension that we do not process ourselves',
    ({ unknownCritical }) => unknownCritical.length === 0,
  ),
  both('extension-unknown', 'C-8', 'it has an extension that the profile does not know', ({ extensions }, expected) => {
    const known = extensionsOf(expected)
    return extensions.keys().every((type) => known.includes(type))
  }),
  both('extension-missing', 'C-8', 'it lacks an extension of the profile', ({ extensions }, expected) =>
    extensionsOf(expected).every((type) => extensions.has(type)),
  ),
]

type Holds = LintRule['holds']

function both(name: string, source: string, problem: string, holds: Holds): LintRule {
  return { name, source, problem, holds }
}

function leaf(name: string, source: string, problem: string, holds: Holds): LintRule {
  return { name, source, problem, holds, only: 'leaf' }
}

function authority(name: string, source: string, problem: string, holds: Holds): LintRule {
  return { name, source, problem, holds, only: 'authority' }
}

function extensionsOf({ what, issuer, constrained }: Expected): readonly string[] {
  if (what === 'leaf') return leafExtensions
  const usual = issuer ? signedAuthorityExtensions : rootExtensions
  return constrained ? [...usual, oid.nameConstraints] : usual
}

/** Whether they permit the trust domain, and constrain nothing else. */
function isOnly(
  { critical, permittedUris, permittedDns, excludedUris, excludedDns, otherTypes }: NameConstraints,
  trustDomain: TrustDomain,
): boolean {
  return (
    critical &&
    sameList(permittedUris, [trustDomain]) &&
    [permittedDns, excludedUris, excludedDns, otherTypes].every(({ length }) => length === 0)
  )
}

function isWithin(constraints: NameConstraints, certificate: Certificate): boolean {
  try {
    demandNames(constraints, certificate)
    return true
  } catch {
    return false
  }
}

const noneOf = (keyUsage: KeyUsage | undefined, names: readonly KeyUsageName[]): boolean => !names.some((name) => keyUsage?.[name])
const whole = (moment: Instant): Instant => Math.floor(moment / seconds(1)) * seconds(1)
const isSameAttribute = (a: NameAttribute, b: NameAttribute): boolean => a.oid === b.oid && a.value === b.value
const sameList = (a: readonly string[], b: readonly string[]): boolean => a.length === b.length && a.every((one, index) => one === b[index])

function readable(spki: Uint8Array): PublicKeyInfo | undefined {
  try {
    return readPublicKeyInfo(spki)
  } catch {
    return undefined
  }
}

function isSpiffeId(text: string): boolean {
  try {
    return parseSpiffeId(text) === text
  } catch {
    return false
  }
}

const rootExtensions = [oid.basicConstraints, oid.keyUsage, oid.subjectKeyIdentifier, oid.subjectAltName]
const signedAuthorityExtensions = [...rootExtensions, oid.authorityKeyIdentifier]
const leafExtensions = [...signedAuthorityExtensions, oid.extKeyUsage]
const authoritySubjectOids = new Set<string>([oid.organizationName, oid.serialNumber])
const leafSubjectOids = new Set<string>([
  oid.countryName,
  oid.stateOrProvinceName,
  oid.localityName,
  oid.organizationName,
  oid.organizationalUnitName,
  oid.commonName,
])
const signatureOids = new Set(Object.values(keyTypes).map(({ keyType }) => signatureAlgorithmOf(keyType).oid))
/** RFC 5280 section 4.2.1.12: anyExtendedKeyUsage. */
const anyPurpose = '2.5.29.37.0'
/** 9999-12-31T23:59:59Z, which stands for "never". */
const endOfTime = 253_402_300_799_000
/** C-13. */
const maxCertificateBytes = 8 * 1024
