/** C-7: our writer, our reader, @peculiar/x509, node:crypto and openssl hold one another to the same fields, and where a form is canonical to the same bytes. */
import 'reflect-metadata'
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Crypto } from '@peculiar/webcrypto'
import * as library from '@peculiar/x509'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hex } from '../../src/kernel/bytes.ts'
import { type Certificate, parseCertificate } from '../../src/x509/certificate.ts'
import { type KeyUsageName, keyUsageNames } from '../../src/x509/extension.ts'
import { generateKeyPair, keyTypes } from '../../src/x509/key-type.ts'
import { readByLibrary } from '../../src/x509/library.ts'
import { encodeName, type NameAttribute } from '../../src/x509/name.ts'
import { oid } from '../../src/x509/oid.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { importPublicKey, type Signer, signerOf } from '../../src/x509/signature.ts'
import { assemble, type CertificateTemplate, keyIdentifier, toBeSigned } from '../../src/x509/template.ts'

const signers: Signer[] = []
const written: { readonly template: CertificateTemplate; readonly certificate: Certificate }[] = []

beforeAll(async () => {
  const pairs = await Promise.all((['ec-p256', 'ec-p384', 'rsa-2048'] as const).map(generateKeyPair))
  signers.push(...pairs.map(({ privateKey }) => signerOf(privateKey)))
  for (const template of fc.sample(templates(), { numRuns: 300, seed: 20_260_101 })) {
    const signer = signers.find(({ keyType }) => keyType === template.signatureKeyType)!
    const tbs = toBeSigned(template)
    written.push({ template, certificate: parseCertificate(assemble(tbs, signer.keyType, await signer.sign(tbs))) })
  }
})

/** Any certificate that our writer can be asked for. */
function templates(): fc.Arbitrary<CertificateTemplate> {
  const label = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}[a-z0-9]$/)
  const host = fc.tuple(label, label).map((labels) => labels.join('.'))
  const hosts = fc.array(host, { maxLength: 2 })
  const value = fc.stringMatching(/^[A-Za-z0-9äß ,+"\\<>;#=é日]{1,20}$/)
  const attribute: fc.Arbitrary<NameAttribute> = fc.oneof(
    fc.record({ oid: fc.constantFrom(oid.commonName, oid.organizationName, oid.organizationalUnitName), value }),
    fc.record({ oid: fc.constant(oid.countryName), value: fc.constantFrom('US', 'DE') }),
  )
  const moment = fc.oneof(
    fc.integer({ min: Date.UTC(1950, 0, 1) / 1000, max: Date.UTC(9999, 11, 31) / 1000 }).map((second) => second * 1000),
    fc.constantFrom(Date.UTC(1950, 0, 1), Date.UTC(1999, 11, 31, 23, 59, 59), Date.UTC(2000, 1, 29), Date.UTC(2049, 11, 31, 23, 59, 59)),
    fc.constantFrom(Date.UTC(2050, 0, 1), Date.UTC(2050, 0, 1, 0, 0, 1), Date.UTC(9999, 11, 31, 23, 59, 59)),
  )
  const constraints = fc.record({
    critical: fc.boolean(),
    permittedUris: hosts,
    excludedUris: hosts,
    permittedDns: hosts,
    excludedDns: hosts,
  })
  return fc
    .record({
      serial: fc.uint8Array({ minLength: 1, maxLength: 19 }).map((rest) => Uint8Array.from([1, ...rest])),
      subject: fc.array(attribute, { maxLength: 3 }),
      times: fc.tuple(moment, moment).map((both) => both.toSorted((a, b) => a - b)),
      ca: fc.constantFrom(false as const, {}, { pathLength: 0 }, { pathLength: 7 }),
      keyUsage: fc.subarray([...keyUsageNames]),
      extKeyUsage: fc.subarray(['serverAuth', 'clientAuth'] as const),
      uris: fc.array(
        fc.tuple(host, label).map(([at, path]) => `spiffe://${at}/${path}`),
        { maxLength: 3 },
      ),
      dnsNames: hosts,
      nameConstraints: fc.option(
        constraints.filter((lists) => Object.values(lists).some((list) => Array.isArray(list) && list.length > 0)),
        { nil: undefined },
      ),
      key: fc.nat({ max: 2 }),
      issuer: fc.nat({ max: 2 }),
    })
    .map(({ times, key, issuer, ...wish }) => ({
      ...wish,
      issuer: encodeName([{ oid: oid.commonName, value: 'the issuer' }]),
      notBefore: times[0]!,
      notAfter: times[1]!,
      spki: signers[key]!.publicKey,
      subjectKeyId: keyIdentifier(signers[key]!.publicKey),
      authorityKeyId: keyIdentifier(signers[issuer]!.publicKey),
      signatureKeyType: signers[issuer]!.keyType,
    }))
}

describe('C-7 three hundred certificates of every shape that we write', () => {
  test('our reader finds in them what was asked for, and our writer writes them from what was read', () => {
    for (const { template, certificate } of written) {
      expect(certificate).toMatchObject({ serial: hex(template.serial), notBefore: template.notBefore, notAfter: template.notAfter })
      expect(certificate.subject.attributes).toEqual(template.subject)
      expect(certificate.nameConstraints).toEqual(template.nameConstraints && { ...template.nameConstraints, otherTypes: [] })
      expect(hex(toBeSigned(templateFrom(certificate)))).toBe(hex(certificate.tbs))
    }
  })

  test('times are UTCTime until the end of 2049 and GeneralizedTime from then on (RFC 5280 section 4.1.2.5)', () => {
    for (const { template, certificate } of written) {
      const told = [template.notBefore, template.notAfter].map((at) => {
        const digits = `${new Date(at).toISOString().slice(0, 19).replace(/\D/g, '')}Z`
        return digits < '2050' ? `\x17\x0d${digits.slice(2)}` : `\x18\x0f${digits}`
      })
      expect(Buffer.from(certificate.tbs).toString('latin1')).toContain(told.join(''))
    }
  })

  test('node:crypto reads the same, and finds each signed', () => {
    const keys = new Map(signers.map(({ keyType, publicKey }) => [keyType, importPublicKey(publicKey)]))
    for (const { template, certificate } of written) {
      const node = new X509Certificate(certificate.raw)
      expect(node.serialNumber.toLowerCase()).toBe(certificate.serial)
      expect([node.validFromDate.getTime(), node.validToDate.getTime()]).toEqual([template.notBefore, template.notAfter])
      expect(hex(node.publicKey.export({ type: 'spki', format: 'der' }))).toBe(hex(template.spki))
      expect(node.verify(keys.get(template.signatureKeyType)!)).toBe(true)
    }
  })

  test('@peculiar/x509 reads the same', async () => {
    for (const { template, certificate } of written) {
      const { uris, dnsNames, serial, notBefore, notAfter, isCa, pathLength, mayCertify, spki, extensionTypes } = await readByLibrary(
        certificate.raw,
      )
      expect({ uris, dnsNames, serial, notBefore, notAfter }).toEqual({
        uris: template.uris,
        dnsNames: template.dnsNames,
        serial: hex(template.serial),
        notBefore: template.notBefore,
        notAfter: template.notAfter,
      })
      expect([isCa, pathLength]).toEqual([template.ca !== false, template.ca === false ? undefined : template.ca.pathLength])
      expect([mayCertify, hex(spki)]).toEqual([template.keyUsage.includes('keyCertSign'), hex(template.spki)])
      expect(extensionTypes).toEqual([...certificate.extensions.keys()])
    }
  })
})

const noOpenssl = spawnSync('openssl', ['version']).status === 0 ? '' : ' (skipped: needs the program `openssl`)'

describe.skipIf(noOpenssl !== '')(`C-7 openssl${noOpenssl}`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'differential-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  test('prints of each what was asked for', () => {
    writeFileSync(join(folder, 'all.pem'), written.map(({ certificate }) => formatPem('CERTIFICATE', certificate.raw)).join(''))
    const { stdout } = spawnSync('openssl', ['storeutl', '-noout', '-text', '-certs', 'all.pem'], {
      cwd: folder,
      encoding: 'utf8',
      timeout: 20_000,
      maxBuffer: 16 * 1024 * 1024,
    })
    const texts = stdout.split(/^\d+: Certificate$/m).slice(1)
    expect(texts.map(toldByOpenssl)).toEqual(written.map(({ template }) => expectedOf(template)))
  })
})

/** What stands in a certificate, out of the text of openssl. */
function toldByOpenssl(text: string) {
  const below = (title: string) => new RegExp(`X509v3 ${title}:( critical)?\\s*\\n((?: {16,}.*\\n)+)`).exec(text)
  const list = (title: string) => below(title)?.[2]?.trim().split(', ') ?? []
  const serial = /Serial Number:(?: \d+ \(0x([0-9a-f]+)\)|\s+([0-9a-f:]+))/.exec(text)
  const names = below('Name Constraints')
  const part = (kind: string) =>
    new RegExp(`${kind}:\\n((?: {18}.*\\n)+)`)
      .exec(names?.[2] ?? '')?.[1]
      ?.trim()
      .split(/\s+/) ?? []
  return {
    serial: BigInt(`0x${serial?.[1] ?? serial?.[2]?.replaceAll(':', '')}`),
    notBefore: Date.parse(/Not Before: (.*)/.exec(text)?.[1] ?? ''),
    notAfter: Date.parse(/Not After : (.*)/.exec(text)?.[1] ?? ''),
    basic: list('Basic Constraints'),
    keyUsage: list('Key Usage'),
    extKeyUsage: list('Extended Key Usage'),
    names: list('Subject Alternative Name'),
    namesCritical: below('Subject Alternative Name')?.[1] !== undefined,
    permitted: part('Permitted'),
    excluded: part('Excluded'),
    constraintsCritical: names?.[1] !== undefined,
  }
}

function expectedOf(template: CertificateTemplate): ReturnType<typeof toldByOpenssl> {
  const { serial, notBefore, notAfter, ca, keyUsage, extKeyUsage, uris, dnsNames, subject, nameConstraints } = template
  const told = (list: readonly string[] | undefined, prefix: string) => (list ?? []).map((each) => `${prefix}:${each}`)
  const names = [...told(uris, 'URI'), ...told(dnsNames, 'DNS')]
  return {
    serial: BigInt(`0x${hex(serial)}`),
    notBefore,
    notAfter,
    basic: ca === false ? ['CA:FALSE'] : ['CA:TRUE', ...(ca.pathLength === undefined ? [] : [`pathlen:${ca.pathLength}`])],
    keyUsage: keyUsageNames.filter((name) => keyUsage.includes(name)).map((name) => usageTexts[name]),
    extKeyUsage: extKeyUsage.map(
      (purpose) => ({ serverAuth: 'TLS Web Server Authentication', clientAuth: 'TLS Web Client Authentication' })[purpose],
    ),
    names,
    namesCritical: names.length > 0 && subject.length === 0,
    permitted: [...told(nameConstraints?.permittedUris, 'URI'), ...told(nameConstraints?.permittedDns, 'DNS')],
    excluded: [...told(nameConstraints?.excludedUris, 'URI'), ...told(nameConstraints?.excludedDns, 'DNS')],
    constraintsCritical: nameConstraints?.critical ?? false,
  }
}

describe('C-7 a certificate that @peculiar/x509 made', () => {
  test.each([
    ['a leaf with an empty subject', '', false, library.KeyUsageFlags.digitalSignature],
    ['a leaf with a subject', 'CN=wéb', false, library.KeyUsageFlags.keyAgreement],
    ['a CA', 'CN=an Autorité', true, library.KeyUsageFlags.keyCertSign],
  ])('is read, and written again byte for byte: %s', async (_, subject, isCa, usages) => {
    const crypto = new Crypto()
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
    const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
    const spki = new Uint8Array(await crypto.subtle.exportKey('spki', keys.publicKey))
    const id = hex(keyIdentifier(spki))
    const made = await library.X509CertificateGenerator.create(
      {
        serialNumber: '0123456789abcdef',
        issuer: 'CN=the library',
        subject,
        notBefore: new Date(Date.UTC(2049, 11, 31)),
        notAfter: new Date(Date.UTC(2050, 0, 1)),
        signingAlgorithm: algorithm,
        publicKey: keys.publicKey,
        signingKey: keys.privateKey,
        extensions: [
          new library.BasicConstraintsExtension(isCa, isCa ? 1 : undefined, true),
          new library.KeyUsagesExtension(usages, true),
          new library.ExtendedKeyUsageExtension([oid.serverAuth, oid.clientAuth], false),
          new library.SubjectKeyIdentifierExtension(id, false),
          new library.AuthorityKeyIdentifierExtension(id, false),
          new library.SubjectAlternativeNameExtension(
            [
              { type: 'url', value: 'spiffe://example.org/web' },
              { type: 'dns', value: 'web.example.org' },
            ],
            subject === '',
          ),
        ],
      },
      crypto,
    )
    const certificate = parseCertificate(new Uint8Array(made.rawData))
    expect(hex(toBeSigned(templateFrom(certificate)))).toBe(hex(certificate.tbs))
    expect(hex(assemble(certificate.tbs, 'ec-p256', certificate.signature))).toBe(hex(certificate.raw))
  })
})

/** What our reader found, as our writer wants it. */
function templateFrom(certificate: Certificate): CertificateTemplate {
  const { basicConstraints, keyUsage, extKeyUsage, subjectAltName, nameConstraints } = certificate
  const keyType = signers.find(
    (signer) => hex(keyTypes[signer.keyType].signatureAlgorithm) === hex(certificate.signatureAlgorithm.raw),
  )!.keyType
  return {
    serial: Buffer.from(certificate.serial, 'hex'),
    issuer: certificate.issuer,
    subject: certificate.subject.attributes,
    notBefore: certificate.notBefore,
    notAfter: certificate.notAfter,
    spki: certificate.spki,
    ca: basicConstraints?.ca ? (basicConstraints.pathLength === undefined ? {} : { pathLength: basicConstraints.pathLength }) : false,
    keyUsage: keyUsageNames.filter((name) => keyUsage?.[name]),
    extKeyUsage: (extKeyUsage?.purposes ?? []).map((purpose) => (purpose === oid.serverAuth ? 'serverAuth' : 'clientAuth')),
    uris: subjectAltName?.uris ?? [],
    dnsNames: subjectAltName?.dnsNames ?? [],
    subjectKeyId: certificate.subjectKeyId!,
    authorityKeyId: certificate.authorityKeyId,
    nameConstraints,
    signatureKeyType: keyType,
  }
}

const usageTexts: Readonly<Record<KeyUsageName, string>> = {
  digitalSignature: 'Digital Signature',
  nonRepudiation: 'Non Repudiation',
  keyEncipherment: 'Key Encipherment',
  dataEncipherment: 'Data Encipherment',
  keyAgreement: 'Key Agreement',
  keyCertSign: 'Certificate Sign',
  cRLSign: 'CRL Sign',
  encipherOnly: 'Encipher Only',
  decipherOnly: 'Decipher Only',
}
