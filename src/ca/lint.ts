/** What a finished template must fulfil before a key signs it: X509-SVID and RFC 5280, one row a rule (C-4, C-5, C-8). */
import { sameBytes } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import { minutes, seconds, type Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { idOfTrustDomain, parseSpiffeId, pathOf, trustDomainOf, type SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Certificate } from '../x509/certificate.ts'
import { keyUsageNames, type KeyUsageName } from '../x509/extension.ts'
import { readPublicKeyInfo, type KeyType, type PublicKeyInfo } from '../x509/key-type.ts'
import { oid } from '../x509/oid.ts'
import { signatureAlgorithmOf } from '../x509/signature.ts'
import { keyIdentifierOf } from '../x509/template.ts'
import { isDnsName } from './dns-name.ts'

/** What was ordered: the certificate must say this and nothing else. */
export interface Expected {
  readonly what: 'leaf' | 'authority'
  readonly trustDomain: TrustDomain
  readonly id: SpiffeId
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

export const lintRules: readonly LintRule[] = [
  // The frame
  { name: 'size', source: 'C-13', problem: 'the certificate is longer than 8 KiB', holds: ({ raw }) => raw.length <= maxCertificateBytes },
  { name: 'version', source: 'RFC 5280 section 4.1.2.1', problem: 'the version is not 3', holds: ({ version }) => version === 3 },
  {
    name: 'serial',
    source: 'RFC 5280 section 4.1.2.2, C-1',
    problem: 'the serial number does not have 16 octets',
    holds: ({ serial }) => serial.length === 32,
  },
  {
    name: 'signature-algorithm',
    source: 'RFC 5280 section 4.1.2.3',
    problem: 'the signature algorithm is not that of the key that will sign',
    holds: ({ signatureAlgorithm }, { signatureKeyType }) => sameBytes(signatureAlgorithm.raw, signatureAlgorithmOf(signatureKeyType).raw),
  },

  // Names
  {
    name: 'issuer',
    source: 'RFC 5280 section 4.1.2.4',
    problem: 'the issuer is not the subject of the authority, byte for byte',
    holds: ({ issuer, subject }, expected) => sameBytes(issuer.raw, (expected.issuer?.subject ?? subject).raw),
  },
  {
    name: 'issuer-empty',
    source: 'RFC 5280 section 4.1.2.4',
    problem: 'the issuer has an empty name',
    holds: ({ issuer }) => issuer.attributes.length > 0,
  },
  {
    name: 'subject-attributes',
    source: 'RFC 5280 appendix A.1',
    problem: 'an attribute of the subject is empty or has more than 64 characters',
    holds: ({ subject }) => subject.attributes.every(({ value }) => value.length > 0 && value.length <= 64),
  },
  {
    name: 'subject-distinct',
    source: 'RFC 5280 section 4.1.2.6',
    problem: 'the subject is that of another authority',
    holds: ({ subject }, { issuer }) => issuer === undefined || !sameBytes(subject.raw, issuer.subject.raw),
  },
  {
    name: 'common-name',
    source: 'RFC 6125 section 2.3, R-3',
    only: 'leaf',
    problem: 'the common name is not one of the DNS names that were ordered',
    holds: ({ subject }, { dnsNames }) => {
      const names = subject.attributes.filter((attribute) => attribute.oid === oid.commonName)
      return names.length <= 1 && names.every(({ value }) => dnsNames.includes(value))
    },
  },

  // Time
  {
    name: 'begins-late',
    source: 'C-2',
    problem: 'it is not valid yet',
    holds: ({ notBefore }, { at }) => notBefore <= at,
  },
  {
    name: 'begins-early',
    source: 'C-2',
    problem: 'it begins more than 5 minutes before it was ordered',
    holds: ({ notBefore }, { at }) => notBefore >= at - minutes(5) - seconds(1),
  },
  {
    name: 'ended',
    source: 'RFC 5280 section 4.1.2.5',
    problem: 'it has ended already',
    holds: ({ notAfter }, { at }) => notAfter + seconds(1) > at,
  },
  {
    name: 'too-long',
    source: 'C-3',
    problem: 'it lives longer than was granted',
    // The last second counts as well.
    holds: ({ notAfter }, { at, longest }) => notAfter + seconds(1) <= at + longest,
  },
  {
    name: 'outlives-issuer',
    source: 'C-2',
    problem: 'it is valid when its authority is not',
    holds: ({ notBefore, notAfter }, { issuer }) => issuer === undefined || (notBefore >= issuer.notBefore && notAfter <= issuer.notAfter),
  },

  // The key
  {
    name: 'key',
    source: 'R-3',
    problem: 'it is not for the key that was proven',
    holds: ({ spki }, expected) => sameBytes(spki, expected.spki),
  },
  {
    name: 'key-strength',
    source: 'R-4',
    problem: 'its key is of a type or size that is not certified',
    holds: (_, __, key) => key !== undefined && key.family !== 'ed25519',
  },
  {
    name: 'authority-key',
    source: 'C-12',
    only: 'leaf',
    problem: 'its key is one of our authorities',
    holds: ({ spki }, { authorityKeys, issuer }) =>
      ![...authorityKeys, ...(issuer ? [issuer.spki] : [])].some((key) => sameBytes(key, spki)),
  },
  {
    name: 'subject-key-id',
    source: 'RFC 5280 section 4.2.1.2, RFC 7093 section 2, C-5',
    problem: 'the subject key identifier is not that of its key, or is critical',
    holds: ({ subjectKeyId, extensions }, _, key) =>
      subjectKeyId !== undefined &&
      extensions.get(oid.subjectKeyIdentifier)?.critical === false &&
      key !== undefined &&
      sameBytes(subjectKeyId, keyIdentifierOf(key)),
  },
  {
    name: 'authority-key-id',
    source: 'RFC 5280 section 4.2.1.1, C-5',
    problem: 'the authority key identifier is not that of its issuer, or is critical',
    holds: ({ authorityKeyId, subjectKeyId, extensions }, { issuer }) => {
      if (authorityKeyId === undefined) return issuer === undefined
      const ofIssuer = issuer ? issuer.subjectKeyId : subjectKeyId
      return ofIssuer !== undefined && sameBytes(authorityKeyId, ofIssuer) && extensions.get(oid.authorityKeyIdentifier)?.critical === false
    },
  },

  // The identity
  {
    name: 'uri',
    source: 'X509-SVID section 2 (X-1, X-2), R-3',
    problem: 'its URI name is not exactly the SPIFFE ID that was ordered',
    holds: ({ subjectAltName }, { id }) => subjectAltName?.uris.length === 1 && subjectAltName.uris[0] === id && isSpiffeId(id),
  },
  {
    name: 'leaf-id',
    source: 'X509-SVID section 5.2 (X-4)',
    only: 'leaf',
    problem: 'its SPIFFE ID has no path or is of another trust domain',
    holds: (_, { id, trustDomain }) => pathOf(id) !== '' && trustDomainOf(id) === trustDomain,
  },
  {
    name: 'authority-id',
    source: 'X509-SVID section 4.1 (X-8)',
    only: 'authority',
    problem: 'its SPIFFE ID is not that of the trust domain',
    holds: (_, { id, trustDomain }) => id === idOfTrustDomain(trustDomain),
  },
  {
    name: 'dns-names',
    source: 'R-3',
    problem: 'its DNS names are not those that were ordered',
    holds: ({ subjectAltName }, { dnsNames }) => sameList(subjectAltName?.dnsNames ?? [], dnsNames),
  },
  {
    name: 'dns-name-form',
    source: 'RFC 5280 section 4.2.1.6, C-13',
    problem: 'a DNS name is not a host name',
    holds: ({ subjectAltName }) => (subjectAltName?.dnsNames ?? []).every(isDnsName),
  },
  {
    name: 'other-names',
    source: 'R-3',
    problem: 'it has an address or a name that nobody ordered',
    holds: ({ subjectAltName }) =>
      subjectAltName !== undefined && subjectAltName.ips.length + subjectAltName.emails.length + subjectAltName.others === 0,
  },
  {
    name: 'san-critical',
    source: 'RFC 5280 section 4.2.1.6 (X-5)',
    problem: 'the alternative names are critical with a subject, or not critical without one',
    holds: ({ subject, subjectAltName }) => subjectAltName?.critical === (subject.attributes.length === 0),
  },

  // What it may do
  {
    name: 'basic-constraints',
    source: 'RFC 5280 section 4.2.1.9, C-4',
    problem: 'the basic constraints are missing or not critical',
    holds: ({ basicConstraints }) => basicConstraints?.critical === true,
  },
  {
    name: 'leaf-is-ca',
    source: 'X509-SVID section 4.1 (X-12)',
    only: 'leaf',
    problem: 'a leaf is a CA',
    holds: ({ basicConstraints }) => basicConstraints?.ca === false && basicConstraints.pathLength === undefined,
  },
  {
    name: 'authority-is-no-ca',
    source: 'RFC 5280 section 4.2.1.9, C-5',
    only: 'authority',
    problem: 'an authority is no CA, or allows another number of CAs below it',
    holds: ({ basicConstraints }, { pathLength }) => basicConstraints?.ca === true && basicConstraints.pathLength === pathLength,
  },
  {
    name: 'key-usage-critical',
    source: 'X509-SVID section 4.3 (X-15)',
    problem: 'the key usage is missing or not critical',
    holds: ({ keyUsage }) => keyUsage?.critical === true,
  },
  {
    name: 'leaf-key-usage',
    source: 'X509-SVID section 4.3 (X-17, X-18), C-4',
    only: 'leaf',
    problem: 'a leaf may do something else with its key than sign, or with RSA also encipher',
    holds: (certificate, _, key) =>
      sameList(usages(certificate), key?.family === 'rsa' ? ['digitalSignature', 'keyEncipherment'] : ['digitalSignature']),
  },
  {
    name: 'authority-key-usage',
    source: 'X509-SVID section 4.3 (X-16), C-5',
    only: 'authority',
    problem: 'an authority may do something else with its key than sign certificates and revocation lists',
    holds: (certificate) => sameList(usages(certificate), ['keyCertSign', 'cRLSign']),
  },
  {
    name: 'leaf-purposes',
    source: 'X509-SVID section 4.4 (X-20)',
    only: 'leaf',
    problem: 'the extended key usage is not server and client authentication, or is critical',
    holds: ({ extKeyUsage }) => extKeyUsage?.critical === false && sameList(extKeyUsage.purposes, [oid.serverAuth, oid.clientAuth]),
  },
  {
    name: 'extensions',
    source: 'C-8',
    problem: 'it has an extension that the profile does not know, or lacks one',
    holds: ({ extensions }, { what, issuer }) => {
      const known = what === 'leaf' ? leafExtensions : issuer ? signedAuthorityExtensions : rootExtensions
      return extensions.size === known.length && known.every((type) => extensions.has(type))
    },
  },
]

const usages = ({ keyUsage }: Certificate): KeyUsageName[] => (keyUsage ? keyUsageNames.filter((name) => keyUsage[name]) : [])
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
/** C-13. */
const maxCertificateBytes = 8 * 1024
