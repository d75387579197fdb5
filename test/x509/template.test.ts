import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createHash, X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hex } from '../../src/kernel/bytes.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { type KeyType, keyTypes } from '../../src/x509/key-type.ts'
import { readByLibrary, signedByLibrary } from '../../src/x509/library.ts'
import type { NameAttribute } from '../../src/x509/name.ts'
import { oid } from '../../src/x509/oid.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { type CertificateTemplate, keyIdentifier, toBeSigned } from '../../src/x509/template.ts'
import { signedAgain, TestCa } from '../support/test-ca.ts'

const at = Date.UTC(2026, 0, 1)
let ca: TestCa

beforeAll(async () => {
  ca = await TestCa.create({ at })
})

const templateOf = (changes: Partial<CertificateTemplate>): CertificateTemplate => ({
  serial: Uint8Array.of(1),
  issuer: ca.certificate.subject,
  subject: [],
  notBefore: at,
  notAfter: at + 3_599_000,
  spki: ca.signer.publicKey,
  ca: false,
  keyUsage: ['digitalSignature'],
  extKeyUsage: ['serverAuth', 'clientAuth'],
  uris: ['spiffe://example.org/a'],
  dnsNames: [],
  subjectKeyId: keyIdentifier(ca.signer.publicKey),
  authorityKeyId: ca.certificate.subjectKeyId,
  signatureKeyType: 'ec-p256',
  ...changes,
})
const issued = async (changes: Partial<CertificateTemplate>) =>
  parseCertificate(await signedAgain(toBeSigned(templateOf(changes)), ca.signer))

describe('cannot be written', () => {
  test('a serial number of more than 20 octets, its sign octet included', () => {
    expect(() => toBeSigned(templateOf({ serial: new Uint8Array(21).fill(1) }))).toThrow('bug')
    expect(() => toBeSigned(templateOf({ serial: new Uint8Array(20).fill(0x80) }))).toThrow('bug')
    expect(() => toBeSigned(templateOf({ serial: new Uint8Array(20).fill(0x7f) }))).not.toThrow()
  })

  test('a name that is not ASCII where only ASCII may stand', () => {
    expect(() => toBeSigned(templateOf({ uris: ['spiffe://exämple.org/a'] }))).toThrow('bug')
    expect(() => toBeSigned(templateOf({ dnsNames: ['Ā.test'] }))).toThrow('bug')
  })

  test('a moment after the year 9999', () => {
    expect(() => toBeSigned(templateOf({ notAfter: Date.UTC(10_000, 0, 1) }))).toThrow('bug')
    expect(() => toBeSigned(templateOf({ notAfter: Number.NaN }))).toThrow('bug')
  })
})

test('X-5 alternative names are critical exactly where the subject is empty', async () => {
  expect((await issued({ subject: [] })).subjectAltName?.critical).toBe(true)
  expect((await issued({ subject: [{ oid: oid.commonName, value: 'a' }] })).subjectAltName?.critical).toBe(false)
})

test('a serial number is positive whatever its first bit, and in its shortest form', async () => {
  expect((await issued({ serial: new Uint8Array(16).fill(0xff) })).serial).toBe('ff'.repeat(16))
  expect((await issued({ serial: Uint8Array.of(0, 0, 5) })).serial).toBe('05')
})

test('C-5 a key identifier is the leftmost 160 bits of SHA-256 over the key (RFC 7093, method 1)', () => {
  const point = ca.signer.publicKey.subarray(-65)
  expect(hex(keyIdentifier(ca.signer.publicKey))).toBe(createHash('sha256').update(point).digest('hex').slice(0, 40))
})

test('the same template gives the same bytes', () => {
  expect(hex(toBeSigned(templateOf({})))).toBe(hex(toBeSigned(templateOf({}))))
})

describe('C-7 everybody reads the same in what we write', () => {
  const value = fc.stringMatching(/^[A-Za-z0-9äöß ,+"\\<>;#=é日]{1,20}$/)
  const attribute: fc.Arbitrary<NameAttribute> = fc.oneof(
    fc.record({ oid: fc.constantFrom(oid.commonName, oid.organizationName, oid.organizationalUnitName), value }),
    fc.record({ oid: fc.constant(oid.countryName), value: fc.constantFrom('US', 'DE') }),
  )
  const changes: fc.Arbitrary<Partial<CertificateTemplate>> = fc.record({
    serial: fc.uint8Array({ minLength: 1, maxLength: 19 }).map((bytes) => Uint8Array.from([1, ...bytes])),
    subject: fc.array(attribute, { maxLength: 3 }),
    notBefore: fc.integer({ min: 0, max: 2_000_000_000 }).map((second) => second * 1000),
    notAfter: fc.integer({ min: 2_000_000_001, max: 4_000_000_000 }).map((second) => second * 1000),
    ca: fc.constantFrom(false as const, {}, { pathLength: 0 }, { pathLength: 3 }),
    keyUsage: fc.subarray(['digitalSignature', 'keyEncipherment', 'keyAgreement', 'keyCertSign', 'cRLSign', 'decipherOnly'] as const),
    extKeyUsage: fc.subarray(['serverAuth', 'clientAuth'] as const),
    uris: fc.array(fc.webUrl({ validSchemes: ['spiffe', 'https'] }), { maxLength: 3 }),
    dnsNames: fc.array(fc.domain(), { maxLength: 3 }),
  })

  test('our reader reads what was asked for', async () => {
    await fc.assert(
      fc.asyncProperty(changes, async (wish) => {
        const certificate = await issued(wish)
        const names = wish.uris!.length + wish.dnsNames!.length > 0
        expect(certificate.serial).toBe(hex(wish.serial!))
        expect(certificate.subject.attributes).toEqual(wish.subject)
        expect(certificate).toMatchObject({ notBefore: wish.notBefore, notAfter: wish.notAfter })
        expect(certificate.basicConstraints).toEqual({ critical: true, ca: wish.ca !== false, ...(wish.ca === false ? {} : wish.ca) })
        expect(
          Object.entries(certificate.keyUsage ?? {})
            .filter(([name, set]) => set && name !== 'critical')
            .map(([name]) => name)
            .toSorted(),
        ).toEqual([...wish.keyUsage!].toSorted())
        expect(certificate.extKeyUsage?.purposes ?? []).toEqual(wish.extKeyUsage!.map((purpose) => oid[purpose]))
        expect(certificate.subjectAltName).toEqual(
          names
            ? { critical: wish.subject!.length === 0, uris: wish.uris, dnsNames: wish.dnsNames, ips: [], emails: [], others: 0 }
            : undefined,
        )
      }),
      { numRuns: 200 },
    )
  })

  test('node:crypto reads the same and finds it signed', async () => {
    await fc.assert(
      fc.asyncProperty(changes, async (wish) => {
        const certificate = await issued(wish)
        const node = new X509Certificate(certificate.raw)
        expect(node.serialNumber.toLowerCase()).toBe(certificate.serial)
        expect(node.validFromDate.getTime()).toBe(certificate.notBefore)
        expect(node.validToDate.getTime()).toBe(certificate.notAfter)
        expect(node.verify(new X509Certificate(ca.certificate.raw).publicKey)).toBe(true)
        // Node calls a CA only what may also sign certificates.
        expect(node.ca).toBe(certificate.basicConstraints?.ca === true && certificate.keyUsage?.keyCertSign !== false)
      }),
      { numRuns: 100 },
    )
  })

  test('@peculiar/x509 reads the same and finds it signed', async () => {
    await fc.assert(
      fc.asyncProperty(changes, async (wish) => {
        const certificate = await issued(wish)
        const second = await readByLibrary(certificate.raw)
        expect(second).toMatchObject({
          serial: certificate.serial,
          notBefore: certificate.notBefore,
          notAfter: certificate.notAfter,
          uris: certificate.subjectAltName?.uris ?? [],
          dnsNames: certificate.subjectAltName?.dnsNames ?? [],
          isCa: certificate.basicConstraints?.ca,
          pathLength: certificate.basicConstraints?.pathLength,
          mayCertify: certificate.keyUsage?.keyCertSign ?? false,
        })
        expect(hex(second.spki)).toBe(hex(certificate.spki))
        expect([...second.extensionTypes]).toEqual([...certificate.extensions.keys()])
        expect(await signedByLibrary(certificate.raw, ca.certificate.raw)).toBe(true)
      }),
      { numRuns: 30 },
    )
  })
})

const openssl = spawnSync('openssl', ['version'], { encoding: 'utf8' })
const noOpenssl = openssl.status === 0 ? '' : ' (skipped: needs the program `openssl`)'

describe.skipIf(noOpenssl !== '')(`C-7 openssl agrees${noOpenssl}`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'x509-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  const run = (args: readonly string[], input?: Uint8Array) =>
    spawnSync('openssl', args, { encoding: 'utf8', timeout: 20_000, ...(input ? { input } : {}) })
  const pemFile = (name: string, der: Uint8Array) => {
    const path = join(folder, `${name}.pem`)
    writeFileSync(path, formatPem('CERTIFICATE', der))
    return path
  }

  test.each(Object.keys(keyTypes) as KeyType[])('it verifies a chain of %s certificates and prints what we wrote', async (keyType) => {
    // RSA keys of larger sizes take seconds to find; they differ from the smallest in nothing that is written here.
    const root = await TestCa.create({ at, keyType: keyType.startsWith('rsa') ? 'rsa-2048' : keyType, name: `root of ${keyType}` })
    const middle = await root.intermediate({ nameConstraints: { critical: true, permittedUris: ['example.org'] } })
    const leaf = await middle.leaf({ dnsNames: ['a.test'], keyUsage: ['digitalSignature', 'keyEncipherment'] })

    const verified = run([
      ...['verify', '-x509_strict', '-attime', `${at / 1000}`, '-purpose', 'sslserver'],
      ...[
        '-CAfile',
        pemFile(`${keyType}-root`, root.certificate.raw),
        '-untrusted',
        pemFile(`${keyType}-middle`, middle.certificate.raw),
        pemFile(`${keyType}-leaf`, leaf.certificate.raw),
      ],
    ])
    expect(verified.stdout + verified.stderr).toContain(': OK')

    const told = run(['x509', '-inform', 'DER', '-noout', '-text'], leaf.certificate.raw).stdout
    expect(told).toMatch(/X509v3 Basic Constraints: critical\s+CA:FALSE/)
    expect(told).toMatch(/X509v3 Key Usage: critical\s+Digital Signature, Key Encipherment\n/)
    expect(told).toMatch(/TLS Web Server Authentication, TLS Web Client Authentication/)
    expect(told).toMatch(/X509v3 Subject Alternative Name: critical\s+URI:spiffe:\/\/example.org\/workload, DNS:a.test/)
  })

  test('writing it anew from what it read gives the same bytes', async () => {
    const { certificate } = await ca.leaf({ dnsNames: ['a.test'] })
    const again = spawnSync('openssl', ['x509', '-inform', 'DER', '-outform', 'DER'], { input: certificate.raw, timeout: 20_000 }).stdout
    expect(hex(again)).toBe(hex(certificate.raw))
  })
})
