import { createHash, X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { concat, fromHex, hex, sameBytes, utf8 } from '../../src/kernel/bytes.ts'
import { Failure } from '../../src/kernel/failure.ts'
import {
  type Certificate,
  fingerprint,
  isSelfIssued,
  parseCertificate,
  parseCertificates,
  publicKeyOf,
  signedBy,
} from '../../src/x509/certificate.ts'
import * as der from '../../src/x509/der-writer.ts'
import { keyTypeOf } from '../../src/x509/key-type.ts'
import { encodeName } from '../../src/x509/name.ts'
import { oid } from '../../src/x509/oid.ts'
import {
  type Issued,
  TestCa,
  truncated,
  type Wishes,
  withFlippedBit,
  withOtherOuterAlgorithm,
  withTrailingByte,
  withWrongSignature,
} from '../support/test-ca.ts'

const at = Date.UTC(2026, 0, 1)
let ca: TestCa
let leaf: Issued

beforeAll(async () => {
  ca = await TestCa.create({ at })
  leaf = await ca.leaf({ uris: ['spiffe://example.org/ns/prod/sa/web'], dnsNames: ['web.prod.svc'] })
})

const refusedFor = (reason: string | RegExp) =>
  typeof reason === 'string'
    ? expect.objectContaining({ name: 'Failure', reason })
    : expect.objectContaining({ name: 'Failure', reason: expect.stringMatching(reason) as unknown })

describe('refused', () => {
  test('every truncation of a certificate', () => {
    const { raw } = leaf.certificate
    for (let length = 0; length < raw.length; length++) expect(() => parseCertificate(truncated(raw, length))).toThrow(refusedFor(/^der\./))
  })

  test('every byte that trails a certificate', () => {
    for (let byte = 0; byte < 256; byte++)
      expect(() => parseCertificate(withTrailingByte(leaf.certificate.raw, byte))).toThrow(refusedFor('der.trailing-bytes'))
  })

  test('a certificate whose signature algorithm differs inside and outside', () => {
    expect(() => parseCertificate(withOtherOuterAlgorithm(leaf.certificate))).toThrow(refusedFor('x509.signature-algorithm'))
  })

  test('R-28 a megabyte of junk, at once', () => {
    for (const byte of [0x00, 0x30, 0x80, 0xff]) {
      expect(() => parseCertificate(new Uint8Array(1 << 20).fill(byte))).toThrow(refusedFor('der.too-long'))
      expect(() => parseCertificates(new Uint8Array(1 << 20).fill(byte))).toThrow(refusedFor(/^der\./))
    }
  })

  const extension = (type: string, value: der.Der, critical = false) => ({ oid: type, critical, value: der.encodeDer(value) })
  const uri = (text: string) => der.taggedPrimitive(6, utf8(text))
  const badExtensions: readonly [string, string, Wishes][] = [
    ['an extension that occurs twice', 'x509.duplicate-extension', { extra: [extension(oid.keyUsage, der.namedBits(0x8000))] }],
    ['a key usage without a use', 'x509.key-usage', { keyUsage: [], extra: [extension(oid.keyUsage, der.namedBits(0))] }],
    [
      'a path length for what is not a CA',
      'x509.basic-constraints',
      { without: [oid.basicConstraints], extra: [extension(oid.basicConstraints, der.sequence(der.tinyInteger(0)))] },
    ],
    ['purposes without a purpose', 'der.value', { extKeyUsage: [], extra: [extension(oid.extKeyUsage, der.sequence())] }],
    ['alternative names without a name', 'der.value', { uris: [], extra: [extension(oid.subjectAltName, der.sequence())] }],
    [
      'a URI that is not ASCII',
      'der.value',
      { uris: [], extra: [extension(oid.subjectAltName, der.sequence(uri('spiffe://exämple.org/a')))] },
    ],
    [
      'a URI tagged as constructed',
      'x509.subject-alt-name',
      { uris: [], extra: [extension(oid.subjectAltName, der.sequence(der.tagged(6, der.nullValue)))] },
    ],
    [
      'an IP address of five octets',
      'x509.subject-alt-name',
      { uris: [], extra: [extension(oid.subjectAltName, der.sequence(der.taggedPrimitive(7, new Uint8Array(5))))] },
    ],
    [
      'an empty key identifier',
      'x509.key-identifier',
      { without: [oid.subjectKeyIdentifier], extra: [extension(oid.subjectKeyIdentifier, der.octetString())] },
    ],
    ['name constraints that constrain nothing', 'x509.name-constraints', { extra: [extension(oid.nameConstraints, der.sequence())] }],
    [
      'a name constraint on URIs that is a URI',
      'x509.name-constraints',
      { extra: [extension(oid.nameConstraints, der.sequence(der.tagged(0, der.sequence(uri('spiffe://example.org')))))] },
    ],
    [
      'an extension with something behind it',
      'der.trailing-bytes',
      { extKeyUsage: [], extra: [{ oid: oid.extKeyUsage, critical: false, value: fromHex('300a06082b060105050703010500') }] },
    ],
  ]
  test.each(badExtensions)('%s', async (_, reason, wishes) => {
    await expect(ca.leaf(wishes)).rejects.toThrow(refusedFor(reason))
  })

  test('a serial number of 21 octets, and a negative one', () => {
    const { tbs } = leaf.certificate
    const [before, after] = around(tbs, fromHex(`0210${leaf.certificate.serial}`))
    const withSerial = (serial: Uint8Array) =>
      der.encodeDer(
        der.sequence(
          der.sequence(before, serial, after),
          leaf.certificate.signatureAlgorithm.raw,
          der.bitString(leaf.certificate.signature),
        ),
      )
    expect(parseCertificate(withSerial(fromHex(`0214${'7f'.repeat(20)}`))).serial).toBe('7f'.repeat(20))
    expect(() => parseCertificate(withSerial(fromHex(`0215${'7f'.repeat(21)}`)))).toThrow(refusedFor('x509.serial'))
    expect(() => parseCertificate(withSerial(fromHex('0201ff')))).toThrow(refusedFor('der.value'))
    expect(() => parseCertificate(withSerial(fromHex('0200')))).toThrow(refusedFor('der.value'))
  })
})

test('R-12 whatever the bytes, a certificate is read or fails with a reason', () => {
  const readOrFail = (bytes: Uint8Array) => {
    try {
      const certificate = parseCertificate(bytes)
      signedBy(certificate, ca.certificate)
      publicKeyOf(certificate)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
    }
  }
  const { raw } = leaf.certificate
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), readOrFail), { numRuns: 1000 })
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(raw.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }), (changes) => {
      const bytes = Uint8Array.from(raw)
      for (const [place, byte] of changes) bytes[place] = byte
      readOrFail(bytes)
    }),
    { numRuns: 3000 },
  )
})

test('no flipped bit goes unnoticed: the certificate is not read, or not signed', () => {
  const { raw } = leaf.certificate
  for (let bit = 0; bit < raw.length * 8; bit += 3) {
    let changed: Certificate
    try {
      changed = parseCertificate(withFlippedBit(raw, bit))
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      continue
    }
    if (signedBy(changed, ca.certificate)) expect.fail(`bit ${bit} is not covered by the signature`)
  }
})

test('a certificate keeps what it was read from, whatever happens to the buffer', () => {
  const buffer = Uint8Array.from(leaf.certificate.raw)
  const certificate = parseCertificate(buffer)
  buffer.fill(0)
  expect(sameBytes(certificate.raw, leaf.certificate.raw)).toBe(true)
  expect(signedBy(certificate, ca.certificate)).toBe(true)
})

describe('R-12 what is missing is missing, and nothing breaks', () => {
  test('no extensions at all', async () => {
    const all = [
      oid.basicConstraints,
      oid.keyUsage,
      oid.extKeyUsage,
      oid.subjectAltName,
      oid.subjectKeyIdentifier,
      oid.authorityKeyIdentifier,
    ]
    const { certificate } = await ca.leaf({ without: all })
    expect(certificate.extensions.size).toBe(0)
    for (const field of [
      'basicConstraints',
      'keyUsage',
      'extKeyUsage',
      'subjectAltName',
      'subjectKeyId',
      'authorityKeyId',
      'nameConstraints',
    ]) {
      expect(certificate).not.toHaveProperty(field)
    }
    expect(certificate.unknownCritical).toEqual([])
  })

  test('an empty subject', async () => {
    const { certificate } = await ca.leaf({ subject: [] })
    expect(certificate.subject).toMatchObject({ attributes: [], text: '' })
    expect(isSelfIssued(certificate)).toBe(false)
  })
})

describe('R-14 alternative names keep their types', () => {
  test('commas, quotes and NUL in a name stay within it', async () => {
    const uris = ['spiffe://example.org/a,URI:spiffe://example.org/admin', 'spiffe://example.org/"b"', 'spiffe://example.org/c\0']
    const { certificate } = await ca.leaf({ uris })
    expect(certificate.subjectAltName?.uris).toEqual(uris)
  })

  test('a URI within an e-mail address or a DNS name is no URI', async () => {
    const text = utf8('spiffe://example.org/admin')
    const value = der.encodeDer(
      der.sequence(
        der.taggedPrimitive(1, text),
        der.taggedPrimitive(2, text),
        der.taggedPrimitive(7, fromHex('7f000001')),
        der.taggedPrimitive(8, fromHex('2a03')),
        der.tagged(0, der.objectIdentifier('1.2.3'), der.tagged(0, der.utf8String('spiffe://example.org/admin'))),
        der.tagged(4, encodeName([{ oid: oid.commonName, value: 'spiffe://example.org/admin' }])),
      ),
    )
    const { certificate } = await ca.leaf({ uris: [], extra: [{ oid: oid.subjectAltName, critical: true, value }] })
    expect(certificate.subjectAltName).toEqual({
      critical: true,
      uris: [],
      dnsNames: ['spiffe://example.org/admin'],
      ips: [fromHex('7f000001')].map((octets) => new Uint8Array(octets)),
      emails: ['spiffe://example.org/admin'],
      others: 3,
    })
  })
})

test('critical extensions that are not understood are named, others are not', async () => {
  const value = der.encodeDer(der.nullValue)
  const { certificate } = await ca.leaf({
    extra: [
      { oid: '1.2.3.4', critical: true, value },
      { oid: '1.2.3.5', critical: false, value },
      { oid: oid.certificatePolicies, critical: true, value },
    ],
  })
  expect(certificate.unknownCritical).toEqual(['1.2.3.4'])
})

describe('a signature is its issuer’s', () => {
  test('not another one’s', async () => {
    const other = await TestCa.create({ at })
    expect(signedBy(leaf.certificate, other.certificate)).toBe(false)
    expect(signedBy(await withWrongSignature(leaf.certificate), ca.certificate)).toBe(false)
    expect(signedBy(leaf.certificate, leaf.certificate)).toBe(false)
  })

  test('and stays so when it is asked again', () => {
    expect(signedBy(leaf.certificate, ca.certificate)).toBe(true)
    expect(signedBy(leaf.certificate, ca.certificate)).toBe(true)
    expect(signedBy(ca.certificate, ca.certificate)).toBe(true)
  })
})

describe('several certificates, one after the other', () => {
  test('are read in their order; none is an empty list', () => {
    const list = [leaf.certificate, ca.certificate]
    expect(parseCertificates(concat(list.map(({ raw }) => raw))).map(fingerprint)).toEqual(list.map(fingerprint))
    expect(parseCertificates(new Uint8Array(0))).toEqual([])
  })

  test('R-28 not more than were asked for', () => {
    const two = concat([leaf.certificate.raw, leaf.certificate.raw])
    expect(() => parseCertificates(two, { max: 1 })).toThrow(refusedFor('x509.too-many-certificates'))
    expect(() => parseCertificates(withTrailingByte(two))).toThrow(refusedFor(/^der\./))
  })
})

test('the fields are what they were asked to be, and what Node reads', () => {
  const { certificate } = leaf
  const node = new X509Certificate(certificate.raw)
  expect(certificate).toMatchObject({
    version: 3,
    serial: node.serialNumber.toLowerCase(),
    notBefore: node.validFromDate.getTime(),
    notAfter: node.validToDate.getTime(),
    basicConstraints: { critical: true, ca: false },
    keyUsage: { critical: true, digitalSignature: true, keyEncipherment: false, keyCertSign: false, cRLSign: false },
    extKeyUsage: { critical: false, purposes: [oid.serverAuth, oid.clientAuth] },
    subjectAltName: { critical: true, uris: ['spiffe://example.org/ns/prod/sa/web'], dnsNames: ['web.prod.svc'] },
    issuer: { text: 'CN=test root', attributes: [{ oid: oid.commonName, value: 'test root' }] },
  })
  expect(fingerprint(certificate)).toBe(node.fingerprint256.replaceAll(':', '').toLowerCase())
  expect(fingerprint(certificate)).toBe(createHash('sha256').update(certificate.raw).digest('hex'))
  expect(hex(certificate.spki)).toBe(node.publicKey.export({ type: 'spki', format: 'der' }).toString('hex'))
  expect(keyTypeOf(publicKeyOf(certificate))).toBe('ec-p256')
  expect(hex(certificate.authorityKeyId!)).toBe(hex(ca.certificate.subjectKeyId!))
  expect(isSelfIssued(ca.certificate)).toBe(true)
})

/** What stands before and after a part of a sequence's content. */
function around(sequence: Uint8Array, part: Uint8Array): [Uint8Array, Uint8Array] {
  const header = sequence[1]! === 0x82 ? 4 : sequence[1]! === 0x81 ? 3 : 2
  const place = Buffer.from(sequence).indexOf(part)
  return [sequence.subarray(header, place), sequence.subarray(place + part.length)]
}
