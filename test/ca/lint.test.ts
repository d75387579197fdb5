import { beforeAll, describe, expect, test } from 'vitest'
import { brokenRules, lint, lintRules, type Expected } from '../../src/ca/lint.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseCertificate, type Certificate } from '../../src/x509/certificate.ts'
import { fromHex, hex } from '../../src/kernel/bytes.ts'
import {
  bitString,
  encodeDer,
  objectIdentifier,
  octetString,
  sequence,
  tagged,
  taggedPrimitive,
  unsignedInteger,
} from '../../src/x509/der-writer.ts'
import { generateKeyPair, keyTypes } from '../../src/x509/key-type.ts'
import { oid } from '../../src/x509/oid.ts'
import { signerOf } from '../../src/x509/signature.ts'
import { keyIdentifier } from '../../src/x509/template.ts'
import { TestCa, type Wishes } from '../support/test-ca.ts'
import { trustDomain, workload } from './support.ts'

// 2026-01-01T00:00:00Z
const at = 1_767_225_600_000
const organization = [{ oid: oid.organizationName, value: 'Vidimus' }]
let root: TestCa
let other: TestCa
let leafKey: Uint8Array
let rsaKey: Uint8Array
let intermediateKey: Uint8Array
const authorityId = parseSpiffeId('spiffe://example.org')

beforeAll(async () => {
  root = await TestCa.create({ at, name: 'root', lifetime: hours(24) })
  other = await TestCa.create({ at, name: 'other' })
  leafKey = signerOf((await generateKeyPair('ec-p256')).privateKey).publicKey
  rsaKey = signerOf((await generateKeyPair('rsa-2048')).privateKey).publicKey
  intermediateKey = signerOf((await generateKeyPair('ec-p256')).privateKey).publicKey
})

/** A leaf as it ought to be, but for the wishes. */
async function leaf(wishes: Wishes = {}, by: TestCa = root): Promise<Certificate> {
  const good: Wishes = {
    subject: organization,
    spki: leafKey,
    serial: serial(),
    notBefore: at - seconds(30),
    notAfter: at + hours(1) - seconds(1),
    uris: [workload],
  }
  return (await by.leaf({ ...good, ...wishes })).certificate
}

/** An authority below the root as it ought to be, but for the wishes. */
async function authority(wishes: Wishes = {}): Promise<Certificate> {
  const good: Wishes = {
    ca: { pathLength: 0 },
    keyUsage: ['keyCertSign', 'cRLSign'],
    extKeyUsage: [],
    subject: organization,
    spki: intermediateKey,
    serial: serial(),
    notBefore: at - seconds(30),
    notAfter: at + hours(1) - seconds(1),
    uris: [authorityId],
  }
  return (await root.leaf({ ...good, ...wishes })).certificate
}

const serial = (): Uint8Array => Uint8Array.from({ length: 16 }, (_, index) => 0x41 + index)

const expectedLeaf = (changes: Partial<Expected> = {}): Expected => ({
  what: 'leaf',
  trustDomain,
  id: workload,
  subject: organization,
  dnsNames: [],
  spki: leafKey,
  issuer: root.certificate,
  signatureKeyType: 'ec-p256',
  serial: serial(),
  notBefore: at - seconds(30),
  notAfter: at + hours(1) - seconds(1),
  at,
  longest: hours(1),
  pathLength: 0,
  authorityKeys: [],
  ...changes,
})
const expectedAuthority = (changes: Partial<Expected> = {}): Expected =>
  expectedLeaf({ what: 'authority', id: authorityId, spki: intermediateKey, ...changes })

interface Fixture {
  readonly rule: string
  readonly what: string
  readonly certificate: () => Promise<Certificate>
  readonly expected?: () => Expected
  /** Otherwise serial number and validity are those of the certificate. */
  readonly ordered?: Partial<Pick<Expected, 'serial' | 'notBefore' | 'notAfter'>>
}

async function judged({ certificate, expected, ordered: otherwise }: Fixture): Promise<[Certificate, Expected]> {
  const made = await certificate()
  const { notBefore, notAfter } = made
  return [made, { ...(expected?.() ?? expectedLeaf()), serial: fromHex(made.serial), notBefore, notAfter, ...otherwise }]
}

const issuedBy = (changes: Partial<Certificate>, more: Partial<Expected> = {}): Expected =>
  expectedLeaf({ issuer: { ...root.certificate, ...changes }, ...more })
/** DNS names that were ordered, and still may not be certified. */
const ordered = (rule: string, what: string, dnsNames: readonly string[]): Fixture[] => [
  { rule, what, certificate: () => leaf({ dnsNames }), expected: () => expectedLeaf({ dnsNames }) },
]
const uncritically = (type: string, value: Uint8Array): Wishes => ({ without: [type], extra: [{ oid: type, critical: false, value }] })
const purposes = (...types: string[]): Uint8Array => encodeDer(sequence(...types.map(objectIdentifier)))
/** An RSA key with this exponent, and as many bits more than 2048. */
function rsaWith(exponent: Uint8Array, more = 0): Uint8Array {
  const modulus = new Uint8Array(more > 0 ? 257 : 256).fill(0xab)
  if (more > 0) modulus[0] = 1
  const key = encodeDer(sequence(unsignedInteger(modulus), unsignedInteger(exponent)))
  return encodeDer(sequence(keyTypes['rsa-2048'].publicKeyAlgorithm, bitString(key)))
}
const rsaLeaf = (spki: Uint8Array): Promise<Certificate> =>
  leaf({ keyUsage: ['digitalSignature', 'keyEncipherment'], subjectKeyId: keyIdentifier(spki) }).then((certificate) =>
    withSpki(certificate, spki),
  )

const dns = (name: string) => encodeDer(sequence(taggedPrimitive(6, Buffer.from(workload)), taggedPrimitive(2, Buffer.from(name))))
const withNames = (value: Uint8Array, critical = false): Wishes => ({
  without: [oid.subjectAltName],
  extra: [{ oid: oid.subjectAltName, critical, value }],
})
const uriName = encodeDer(sequence(taggedPrimitive(6, Buffer.from(workload))))
const critically = (type: string, value: Uint8Array): Wishes => ({ without: [type], extra: [{ oid: type, critical: true, value }] })

/** At least one certificate a rule that breaks it, and that would otherwise be good. */
const fixtures: readonly Fixture[] = [
  {
    rule: 'size',
    what: 'a name for every service there is',
    certificate: () => leaf({ dnsNames: manyNames }),
    expected: () => expectedLeaf({ dnsNames: manyNames }),
  },
  { rule: 'version', what: 'version 1', certificate: async () => ({ ...(await leaf()), version: 1 }) },
  { rule: 'serial-length', what: 'a serial number of 8 octets', certificate: () => leaf({ serial: serial().slice(0, 8) }) },
  {
    rule: 'serial-length',
    what: 'a serial number of 17 octets',
    certificate: () => leaf({ serial: Uint8Array.from([0x41, ...serial()]) }),
  },
  {
    rule: 'signature-algorithm',
    what: 'the algorithm of another key type',
    certificate: () => leaf(),
    expected: () => expectedLeaf({ signatureKeyType: 'ec-p384' }),
  },
  {
    rule: 'issuer',
    what: 'the name of another issuer',
    certificate: () => leaf({ authorityKeyId: keyIdentifier(root.certificate.spki) }, other),
  },
  {
    rule: 'issuer-empty',
    what: 'an issuer without a name',
    certificate: async () => withName(await leaf(), 'issuer'),
    expected: () => expectedLeaf({ issuer: withName(root.certificate, 'subject') }),
  },
  {
    rule: 'subject-attributes',
    what: 'an attribute of 65 characters',
    certificate: () => leaf({ subject: [{ oid: oid.organizationName, value: 'x'.repeat(65) }] }),
  },
  {
    rule: 'subject-attributes',
    what: 'an empty attribute',
    certificate: () => leaf({ subject: [{ oid: oid.organizationName, value: '' }] }),
  },
  {
    rule: 'subject-distinct',
    what: 'the name of its issuer',
    certificate: () => authority({ subject: root.certificate.subject.attributes }),
    expected: () => expectedAuthority(),
  },
  {
    rule: 'common-name',
    what: 'a common name that nobody ordered',
    certificate: () => leaf({ subject: [{ oid: oid.commonName, value: 'bank.example.org' }] }),
  },
  ...['bank', '*.example.org', '10.0.0.1', '::1'].map((value) => ({
    rule: 'common-name',
    what: `\`${value}\` as a common name that was ordered, and is no DNS name of the entry`,
    certificate: () => leaf({ subject: [{ oid: oid.commonName, value }] }),
    expected: () => expectedLeaf({ subject: [{ oid: oid.commonName, value }] }),
  })),
  { rule: 'begins-late', what: 'a beginning in the future', certificate: () => leaf({ notBefore: at + seconds(1) }) },
  {
    rule: 'begins-early',
    what: 'a beginning ten minutes ago',
    certificate: async () => root.leaf(oldLeaf()).then(({ certificate }) => certificate),
    expected: () => expectedLeaf({ issuer: { ...root.certificate, notBefore: at - hours(1) } }),
  },
  { rule: 'ended', what: 'an end in the past', certificate: () => leaf({ notAfter: at - seconds(2) }) },
  { rule: 'too-long', what: 'one second more than was granted', certificate: () => leaf({ notAfter: at + hours(1) }) },
  {
    rule: 'outlives-issuer',
    what: 'an end after that of its authority',
    certificate: () => leaf({ notAfter: at + hours(25) }),
    expected: () => expectedLeaf({ longest: hours(48) }),
  },
  { rule: 'outlives-issuer', what: 'a beginning before that of its authority', certificate: () => leaf({ notBefore: at - minutes(2) }) },
  {
    rule: 'key',
    what: 'another key than was proven',
    certificate: () => leaf({ spki: intermediateKey, subjectKeyId: keyIdentifier(intermediateKey) }),
  },
  {
    rule: 'key-strength',
    what: 'a key that cannot be read',
    certificate: async () => withSpki(await leaf(), Uint8Array.of(0x30, 0)),
    expected: () => expectedLeaf({ spki: Uint8Array.of(0x30, 0) }),
  },
  {
    rule: 'authority-key',
    what: 'the key of an authority',
    certificate: () => leaf(),
    expected: () => expectedLeaf({ authorityKeys: [leafKey] }),
  },
  {
    rule: 'authority-key',
    what: 'the key of its issuer',
    certificate: () => leaf({ spki: root.certificate.spki, subjectKeyId: keyIdentifier(root.certificate.spki) }),
    expected: () => expectedLeaf({ spki: root.certificate.spki }),
  },
  {
    rule: 'subject-key-id',
    what: 'the identifier of another key',
    certificate: () => leaf({ subjectKeyId: keyIdentifier(intermediateKey) }),
  },
  {
    rule: 'subject-key-id-critical',
    what: 'a critical identifier',
    certificate: () => leaf(critically(oid.subjectKeyIdentifier, encodeDer(octetString(keyIdentifier(leafKey))))),
  },
  {
    rule: 'authority-key-id',
    what: 'the identifier of another authority',
    certificate: () => leaf({ authorityKeyId: keyIdentifier(leafKey) }),
  },
  { rule: 'uri', what: 'another SPIFFE ID', certificate: () => leaf({ uris: ['spiffe://example.org/admin'] }) },
  { rule: 'uri-count', what: 'two SPIFFE IDs', certificate: () => leaf({ uris: [workload, 'spiffe://example.org/admin'] }) },
  {
    rule: 'uri-count',
    what: 'no SPIFFE ID',
    certificate: () => leaf({ uris: [], dnsNames: ['a.example.org'] }),
    expected: () => expectedLeaf({ dnsNames: ['a.example.org'] }),
  },
  {
    rule: 'leaf-id',
    what: 'the ID of the trust domain',
    certificate: () => leaf({ uris: [authorityId] }),
    expected: () => expectedLeaf({ id: authorityId }),
  },
  {
    rule: 'leaf-id',
    what: 'an ID of another trust domain',
    certificate: () => leaf({ uris: ['spiffe://other.test/a'] }),
    expected: () => expectedLeaf({ id: parseSpiffeId('spiffe://other.test/a') }),
  },
  {
    rule: 'authority-id',
    what: 'an authority with a path',
    certificate: () => authority({ uris: [workload] }),
    expected: () => expectedAuthority({ id: workload }),
  },
  { rule: 'dns-names', what: 'a DNS name that nobody ordered', certificate: () => leaf({ dnsNames: ['bank.example.org'] }) },
  {
    rule: 'dns-names',
    what: 'a DNS name too few',
    certificate: () => leaf(),
    expected: () => expectedLeaf({ dnsNames: ['a.example.org'] }),
  },
  {
    rule: 'dns-wildcard',
    what: 'a wildcard',
    certificate: () => leaf(withNames(dns('*.example.org'))),
    expected: () => expectedLeaf({ dnsNames: ['*.example.org'] }),
  },
  {
    rule: 'addresses',
    what: 'an IP address',
    certificate: () =>
      leaf(withNames(encodeDer(sequence(taggedPrimitive(6, Buffer.from(workload)), taggedPrimitive(7, Uint8Array.of(10, 0, 0, 1)))))),
  },
  {
    rule: 'emails',
    what: 'a mail address',
    certificate: () =>
      leaf(withNames(encodeDer(sequence(taggedPrimitive(6, Buffer.from(workload)), taggedPrimitive(1, Buffer.from('a@b.c')))))),
  },
  { rule: 'san-critical', what: 'critical names beside a subject', certificate: () => leaf(withNames(uriName, true)) },
  {
    rule: 'san-critical',
    what: 'names that are not critical without a subject',
    certificate: () => leaf({ subject: [], ...withNames(uriName) }),
  },
  {
    rule: 'basic-constraints-critical',
    what: 'basic constraints that are not critical',
    certificate: () =>
      leaf({ without: [oid.basicConstraints], extra: [{ oid: oid.basicConstraints, critical: false, value: encodeDer(sequence()) }] }),
  },
  { rule: 'leaf-is-ca', what: 'a leaf that is a CA', certificate: () => leaf({ ca: {} }) },
  {
    rule: 'authority-is-no-ca',
    what: 'an authority that is no CA',
    certificate: () => authority({ ca: false }),
    expected: () => expectedAuthority(),
  },
  {
    rule: 'authority-path-length',
    what: 'an authority without a path length',
    certificate: () => authority({ ca: {} }),
    expected: () => expectedAuthority(),
  },
  {
    rule: 'authority-path-length',
    what: 'an authority with room for more CAs',
    certificate: () => authority({ ca: { pathLength: 1 } }),
    expected: () => expectedAuthority(),
  },
  {
    rule: 'key-usage-critical',
    what: 'a key usage that is not critical',
    certificate: () =>
      leaf({ without: [oid.keyUsage], extra: [{ oid: oid.keyUsage, critical: false, value: Uint8Array.of(3, 2, 7, 0x80) }] }),
  },
  {
    rule: 'leaf-certifies',
    what: 'a leaf that may sign certificates',
    certificate: () => leaf({ keyUsage: ['digitalSignature', 'keyCertSign'] }),
  },
  {
    rule: 'leaf-enciphers',
    what: 'an elliptic key that may encipher',
    certificate: () => leaf({ keyUsage: ['digitalSignature', 'keyEncipherment'] }),
  },
  {
    rule: 'leaf-enciphers',
    what: 'an RSA key that may not',
    certificate: () => leaf({ spki: rsaKey, subjectKeyId: keyIdentifier(rsaKey) }),
    expected: () => expectedLeaf({ spki: rsaKey }),
  },
  {
    rule: 'authority-key-usage',
    what: 'an authority that may sign anything',
    certificate: () => authority({ keyUsage: ['digitalSignature', 'keyCertSign', 'cRLSign'] }),
    expected: () => expectedAuthority(),
  },
  { rule: 'leaf-purposes', what: 'a leaf for servers only', certificate: () => leaf({ extKeyUsage: ['serverAuth'] }) },
  {
    rule: 'extension-unknown',
    what: 'an extension that nobody knows',
    certificate: () => leaf({ extra: [{ oid: '1.3.6.1.4.1.99999.1', critical: false, value: Uint8Array.of(5, 0) }] }),
  },
  {
    rule: 'authority-purposes',
    what: 'an authority for a purpose',
    certificate: () => authority({ extKeyUsage: ['serverAuth'] }),
    expected: () => expectedAuthority(),
  },
  {
    rule: 'serial-first-octet',
    what: 'a serial number that begins with 01',
    certificate: () => leaf({ serial: Uint8Array.from([1, ...serial().slice(1)]) }),
  },
  { rule: 'serial', what: 'another serial number than was drawn', certificate: () => leaf(), ordered: { serial: new Uint8Array(16) } },
  {
    rule: 'serial-of-issuer',
    what: 'the serial number of its authority',
    certificate: () => leaf(),
    expected: () => expectedLeaf({ issuer: { ...root.certificate, serial: hex(serial()) } }),
  },
  {
    rule: 'signature-strength',
    what: 'a signature with SHA-1',
    certificate: async () => {
      const certificate = await leaf()
      return { ...certificate, signatureAlgorithm: { ...certificate.signatureAlgorithm, oid: '1.2.840.10045.4.1' } }
    },
  },
  {
    rule: 'issuer-is-ca',
    what: 'an authority that is a leaf',
    certificate: () => leaf(),
    expected: () => issuedBy({ basicConstraints: { critical: true, ca: false } }),
  },
  {
    rule: 'issuer-may-sign',
    what: 'an authority for revocation lists only',
    certificate: () => leaf(),
    expected: () => issuedBy({ keyUsage: { ...root.certificate.keyUsage!, keyCertSign: false } }),
  },
  {
    rule: 'issuer-path-length',
    what: 'a CA below one that may sign leaves only',
    certificate: () => authority(),
    expected: () => expectedAuthority({ issuer: { ...root.certificate, basicConstraints: { critical: true, ca: true, pathLength: 0 } } }),
  },
  {
    rule: 'issuer-valid',
    what: 'an authority that has ended',
    certificate: () => leaf(),
    expected: () => issuedBy({ notAfter: at - seconds(1) }),
  },
  {
    rule: 'issuer-key',
    what: 'an authority of another key type than the key',
    certificate: () => leaf(),
    expected: () => issuedBy({ spki: rsaKey }),
  },
  {
    rule: 'issuer-id',
    what: 'an authority of another trust domain',
    certificate: () => leaf(),
    expected: () => issuedBy({ subjectAltName: { ...root.certificate.subjectAltName!, uris: ['spiffe://other.test'] } }),
  },
  {
    rule: 'issuer-constraints',
    what: 'an authority for the names of another trust domain',
    certificate: () => leaf(),
    expected: () =>
      issuedBy({
        nameConstraints: {
          critical: true,
          permittedUris: ['other.test'],
          excludedUris: [],
          permittedDns: [],
          excludedDns: [],
          otherTypes: [],
        },
      }),
  },
  {
    rule: 'subject-characters',
    what: 'a line feed in the subject',
    certificate: () => leaf({ subject: [{ oid: oid.organizationName, value: 'a\nb' }] }),
  },
  { rule: 'subject-once', what: 'two organizations', certificate: () => leaf({ subject: [...organization, ...organization] }) },
  {
    rule: 'subject-known',
    what: 'a serial number in the subject of a leaf',
    certificate: () => leaf({ subject: [...organization, { oid: oid.serialNumber, value: '01' }] }),
    expected: () => expectedLeaf({ subject: [...organization, { oid: oid.serialNumber, value: '01' }] }),
  },
  {
    rule: 'subject-of-authority',
    what: 'an organizational unit in the subject of an authority',
    certificate: () => authority({ subject: [...organization, { oid: oid.organizationalUnitName, value: 'CAs' }] }),
    expected: () => expectedAuthority({ subject: [...organization, { oid: oid.organizationalUnitName, value: 'CAs' }] }),
  },
  {
    rule: 'subject',
    what: 'an organizational unit that nobody ordered',
    certificate: () => leaf({ subject: [...organization, { oid: oid.organizationalUnitName, value: 'admins' }] }),
  },
  {
    rule: 'subject',
    what: 'another organization than was ordered',
    certificate: () => leaf({ subject: [{ oid: oid.organizationName, value: 'Bank' }] }),
  },
  {
    rule: 'subject',
    what: 'attributes in another order',
    certificate: () => leaf({ subject: [...organization, { oid: oid.countryName, value: 'DE' }] }),
    expected: () => expectedLeaf({ subject: [{ oid: oid.countryName, value: 'DE' }, ...organization] }),
  },
  {
    rule: 'subject-country',
    what: 'a country in small letters',
    certificate: () => leaf({ subject: [{ oid: oid.countryName, value: 'de' }] }),
  },
  {
    rule: 'subject-characters',
    what: 'a character that turns the text around',
    certificate: () => leaf({ subject: [{ oid: oid.organizationName, value: 'a\u202eb' }] }),
  },
  {
    rule: 'subject-of-root',
    what: 'a root that is named like every other',
    certificate: async () => root.certificate,
    expected: () => expectedAuthority({ issuer: undefined, spki: root.certificate.spki, longest: hours(48) }),
  },
  { rule: 'not-before', what: 'a beginning a second after the order', certificate: () => leaf(), ordered: { notBefore: at - seconds(31) } },
  { rule: 'not-after', what: 'an end a second before the order', certificate: () => leaf(), ordered: { notAfter: at + hours(1) } },
  {
    rule: 'period',
    what: 'an end before the beginning',
    certificate: async () => ({ ...(await leaf()), notBefore: at, notAfter: at - seconds(1) }),
    expected: () => expectedLeaf({ at: at - seconds(1) }),
  },
  {
    rule: 'no-end',
    what: 'no end',
    certificate: async () => ({ ...(await leaf()), notAfter: 253_402_300_799_000 }),
    expected: () => issuedBy({ notAfter: 253_402_300_799_000 }, { longest: Infinity }),
  },
  {
    rule: 'key-exponent',
    what: 'an RSA key with the exponent 3',
    certificate: async () => rsaLeaf(rsaWith(Uint8Array.of(3))),
    expected: () => expectedLeaf({ spki: rsaWith(Uint8Array.of(3)) }),
  },
  {
    rule: 'key-octets',
    what: 'an RSA key of 2049 bits',
    certificate: async () => rsaLeaf(rsaWith(Uint8Array.of(1, 0, 1), 1)),
    expected: () => expectedLeaf({ spki: rsaWith(Uint8Array.of(1, 0, 1), 1) }),
  },
  {
    rule: 'authority-key-id-critical',
    what: 'a critical identifier of its authority',
    certificate: () =>
      leaf(critically(oid.authorityKeyIdentifier, encodeDer(sequence(taggedPrimitive(0, root.certificate.subjectKeyId!))))),
  },
  {
    rule: 'authority-key-id-alone',
    what: 'name and serial number of its authority',
    certificate: () =>
      leaf(
        uncritically(
          oid.authorityKeyIdentifier,
          encodeDer(
            sequence(
              taggedPrimitive(0, root.certificate.subjectKeyId!),
              tagged(1, tagged(4, root.certificate.subject.raw)),
              taggedPrimitive(2, Uint8Array.of(0x41)),
            ),
          ),
        ),
      ),
  },
  { rule: 'san', what: 'no alternative names', certificate: () => leaf({ uris: [] }) },
  {
    rule: 'uri-form',
    what: 'a SPIFFE ID with a query',
    certificate: () => leaf({ uris: [`${workload}?admin`] }),
    expected: () => expectedLeaf({ id: `${workload}?admin` as typeof workload }),
  },
  ...ordered(
    'dns-count',
    '65 DNS names',
    Array.from({ length: 65 }, (_, index) => `n${index}.example.org`),
  ),
  ...ordered('dns-once', 'a DNS name twice, in two spellings', ['a.example.org', 'A.example.org']),
  ...ordered('dns-address', 'an address for a DNS name', ['10.0.0.1']),
  ...ordered('dns-name-form', 'an underscore in a DNS name', ['_http.example.org']),
  {
    rule: 'other-names',
    what: 'a directory name',
    certificate: () =>
      leaf(withNames(encodeDer(sequence(taggedPrimitive(6, Buffer.from(workload)), tagged(4, root.certificate.subject.raw))))),
  },
  { rule: 'basic-constraints', what: 'no basic constraints', certificate: () => leaf({ without: [oid.basicConstraints] }) },
  {
    rule: 'leaf-path-length',
    what: 'a leaf with a path length',
    certificate: async () => ({ ...(await leaf()), basicConstraints: { critical: true, ca: false, pathLength: 0 } }),
  },
  { rule: 'key-usage', what: 'no key usage', certificate: () => leaf({ keyUsage: [] }) },
  { rule: 'leaf-signs', what: 'a leaf that may not sign', certificate: () => leaf({ keyUsage: ['nonRepudiation'] }) },
  {
    rule: 'leaf-agrees',
    what: 'a leaf that may agree on keys',
    certificate: () => leaf({ keyUsage: ['digitalSignature', 'keyAgreement'] }),
  },
  {
    rule: 'leaf-key-usage',
    what: 'a leaf that may commit itself',
    certificate: () => leaf({ keyUsage: ['digitalSignature', 'nonRepudiation'] }),
  },
  {
    rule: 'authority-certifies',
    what: 'an authority that may not sign revocation lists',
    certificate: () => authority({ keyUsage: ['keyCertSign'] }),
    expected: () => expectedAuthority(),
  },
  {
    rule: 'purpose-any',
    what: 'a leaf for any purpose',
    certificate: () => leaf(uncritically(oid.extKeyUsage, purposes('1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2', '2.5.29.37.0'))),
  },
  {
    rule: 'purposes-critical',
    what: 'critical purposes',
    certificate: () => leaf(critically(oid.extKeyUsage, purposes('1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'))),
  },
  {
    rule: 'leaf-constraints',
    what: 'a leaf with name constraints',
    certificate: () => leaf({ nameConstraints: { critical: false, permittedUris: ['example.org'] } }),
  },
  ...(
    [
      ['of another trust domain', true, { critical: true, permittedUris: ['other.test'] }],
      ['of hosts below the trust domain', true, { critical: true, permittedUris: ['.example.org'] }],
      ['of another trust domain besides', true, { critical: true, permittedUris: ['example.org', 'other.test'] }],
      ['that exclude something besides', true, { critical: true, permittedUris: ['example.org'], excludedDns: ['a.example.org'] }],
      ['that are not critical', true, { critical: false, permittedUris: ['example.org'] }],
      ['that nobody ordered', false, { critical: true, permittedUris: ['example.org'] }],
    ] as const
  ).map(([what, constrained, nameConstraints]) => ({
    rule: 'authority-constraints',
    what: `an authority with name constraints ${what}`,
    certificate: () => authority({ nameConstraints }),
    expected: () => expectedAuthority({ constrained }),
  })),
  {
    rule: 'authority-constraints',
    what: 'an authority without the name constraints that were ordered',
    certificate: () => authority(),
    expected: () => expectedAuthority({ constrained: true }),
  },
  {
    rule: 'extension-critical',
    what: 'a critical extension that nobody knows',
    certificate: () => leaf({ extra: [{ oid: '1.3.6.1.4.1.99999.1', critical: true, value: Uint8Array.of(5, 0) }] }),
  },
  { rule: 'extension-missing', what: 'no purposes', certificate: () => leaf({ extKeyUsage: [] }) },
]

const manyNames = Array.from(
  { length: 64 },
  (_, index) => `${'n'.repeat(60)}.${'m'.repeat(60)}.${'o'.repeat(50)}.service-${index}.example.org`,
)
const oldLeaf = (): Wishes => ({
  subject: organization,
  spki: leafKey,
  serial: serial(),
  notBefore: at - minutes(10),
  notAfter: at + minutes(40),
  uris: [workload],
})
const withName = (certificate: Certificate, which: 'issuer' | 'subject'): Certificate => ({
  ...certificate,
  [which]: { raw: Uint8Array.of(0x30, 0), attributes: [], text: '' },
})
const withSpki = (certificate: Certificate, spki: Uint8Array): Certificate => ({ ...certificate, spki })

describe('C-8 what breaks a rule is not signed', () => {
  test.for(fixtures.map((fixture) => [fixture.rule, fixture.what, fixture] as const))('%s: %s', async ([rule, , fixture]) => {
    const [certificate, expected] = await judged(fixture)
    expect(brokenRules(certificate, expected).map(({ name }) => name)).toContain(rule)
    expect(() => lint(certificate, expected)).toThrow(expect.objectContaining({ reason: expect.stringMatching(/^lint\./) as string }))
  })

  test('there are at least 60 rules, each with its source, and a certificate that breaks it', () => {
    expect(lintRules.length).toBeGreaterThanOrEqual(60)
    expect(lintRules.filter(({ source }) => source === '')).toEqual([])
    expect(lintRules.map(({ name }) => name).filter((name) => !fixtures.some(({ rule }) => rule === name))).toEqual([])
    expect(new Set(lintRules.map(({ name }) => name)).size).toBe(lintRules.length)
  })

  test('most fixtures break one rule alone, so the rules tell things apart', async () => {
    let alone = 0
    for (const fixture of fixtures) if (brokenRules(...(await judged(fixture))).length === 1) alone++
    expect(alone / fixtures.length).toBeGreaterThan(0.7)
  })
})

describe('what ought to be signed', () => {
  test('a leaf', async () => {
    expect(brokenRules(await leaf(), expectedLeaf())).toEqual([])
  })

  test('a leaf with an RSA key and DNS names', async () => {
    const dnsNames = ['a.example.org', 'b.example.org']
    const certificate = await leaf({
      spki: rsaKey,
      subjectKeyId: keyIdentifier(rsaKey),
      keyUsage: ['digitalSignature', 'keyEncipherment'],
      dnsNames,
    })
    expect(brokenRules(certificate, expectedLeaf({ spki: rsaKey, dnsNames }))).toEqual([])
  })

  test('a leaf without a subject', async () => {
    expect(brokenRules(await leaf({ subject: [] }), expectedLeaf({ subject: [] }))).toEqual([])
  })

  test('an authority, with name constraints where they were ordered', async () => {
    expect(brokenRules(await authority(), expectedAuthority())).toEqual([])
    const nameConstraints = { critical: true, permittedUris: ['example.org'] }
    expect(brokenRules(await authority({ nameConstraints }), expectedAuthority({ constrained: true }))).toEqual([])
  })

  test('the bytes are judged, not the object: a copy read from them is as good', async () => {
    const { raw } = await leaf()
    expect(brokenRules(parseCertificate(raw), expectedLeaf())).toEqual([])
  })
})
