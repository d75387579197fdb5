import { hash } from 'node:crypto'
import { beforeAll, describe, expect, test } from 'vitest'
import {
  authorityRequest,
  issueAuthority,
  prepareLeaf,
  recordedSigner,
  redeem,
  validity,
  type IssuanceToken,
} from '../../src/ca/issuance.ts'
import { onThisThread, type LeafOrder } from '../../src/ca/workbench.ts'
import { hex } from '../../src/kernel/bytes.ts'
import type { Duration } from '../../src/kernel/duration.ts'
import { hours, seconds } from '../../src/kernel/duration.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseCertificateRequest, proven, type ProvenKey } from '../../src/x509/certificate-request.ts'
import { parseCertificate, signedBy, type Certificate } from '../../src/x509/certificate.ts'
import {
  bitString,
  booleanTrue,
  encodeDer,
  ia5String,
  objectIdentifier,
  octetString,
  sequence,
  setOf,
  tagged,
  taggedPrimitive,
  tinyInteger,
  type Der,
} from '../../src/x509/der-writer.ts'
import { generateKeyPair, keyTypes, type KeyType } from '../../src/x509/key-type.ts'
import { encodeName } from '../../src/x509/name.ts'
import { oid } from '../../src/x509/oid.ts'
import { signerOf, type Signer } from '../../src/x509/signature.ts'
import { FakeIntents } from '../fakes/intents.ts'
import { TestCa } from '../support/test-ca.ts'
import { never, provenKey, trustDomain, workload } from './support.ts'

// 2026-01-01T00:00:00.700Z
const at = 1_767_225_600_700
let root: TestCa
let stranger: TestCa

beforeAll(async () => {
  root = await TestCa.create({ at, lifetime: hours(24) })
  stranger = await TestCa.create({ at, name: 'stranger' })
})

interface Wishes extends Partial<LeafOrder> {
  readonly lifetime?: Duration
  readonly backdate?: Duration
  readonly until?: number
  readonly by?: TestCa
}

function order(applicant: Uint8Array | ProvenKey, wishes: Wishes = {}): LeafOrder {
  const { lifetime = hours(1), backdate = seconds(30), by = root, until = by.certificate.notAfter + 999, ...others } = wishes
  return {
    trustDomain,
    spiffeId: workload,
    applicant,
    dnsNames: [],
    serial: Uint8Array.from({ length: 16 }, (_, index) => 0x41 + index),
    at,
    ...validity({ at, backdate, lifetime, earliest: by.certificate.notBefore, latest: until }),
    longest: lifetime,
    issuer: { certificate: by.certificate, keyType: by.signer.keyType, authorityKeys: [] },
    ...others,
  }
}

const purpose = { entry: 'entry-1', revision: '3' }
const prepare = (applicant: Uint8Array | ProvenKey, wishes: Wishes = {}): Promise<IssuanceToken> =>
  prepareLeaf(order(applicant, wishes), (wishes.by ?? root).signer, purpose, onThisThread)
const office = (intents = new FakeIntents()) => ({ intents, workbench: onThisThread })
const spend = (token: IssuanceToken, signer: Signer = root.signer, intents?: FakeIntents) => redeem(token, signer, office(intents), never)

async function issue(applicant: Uint8Array | ProvenKey, wishes: Wishes = {}): Promise<Certificate> {
  return parseCertificate((await spend(await prepare(applicant, wishes))).certificate)
}

describe('C-8 nothing is signed that was not checked', () => {
  test('a token is spent once', async () => {
    const token = await prepare(await provenKey())
    await spend(token, root.signer)
    await expect(spend(token, root.signer)).rejects.toThrow('bug: an issuance token is spent twice')
  })

  test('a token is spent even by a try that fails', async () => {
    const token = await prepare(await provenKey())
    await expect(spend(token, { ...root.signer, sign: () => Promise.reject(new Error('the key manager is away')) })).rejects.toThrow('away')
    await expect(spend(token, root.signer)).rejects.toThrow('bug:')
  })

  test('a token is good for one key only', async () => {
    const token = await prepare(await provenKey())
    await expect(spend(token, stranger.signer)).rejects.toMatchObject({ reason: 'issuance.wrong-key' })
  })

  test.for([
    ['of another trust domain', { spiffeId: parseSpiffeId('spiffe://other.test/a') }, 'lint.leaf-id'],
    ['of the trust domain itself', { spiffeId: parseSpiffeId('spiffe://example.org') }, 'lint.leaf-id'],
    ['with a DNS name that is none', { dnsNames: ['*.example.org'] }, 'lint.dns-wildcard'],
    ['with a serial number that is too short', { serial: Uint8Array.of(0x41) }, 'lint.serial-length'],
    ['that begins too early', { backdate: hours(1) }, 'lint.begins-early'],
  ] as const)('a leaf %s is refused before it is signed', async ([, changes, reason]) => {
    const older = await TestCa.create({ at: at - hours(2), lifetime: hours(24) })
    await expect(prepare(await provenKey(), { by: older, ...changes })).rejects.toMatchObject({ reason })
  })

  test('C-12 the key of an authority is never certified as a leaf', async () => {
    const key = await provenKey()
    const { issuer } = order(key)
    await expect(prepare(key, { issuer: { ...issuer, authorityKeys: [key.spki] } })).rejects.toMatchObject({ reason: 'ca.authority-key' })
    await expect(prepare({ ...key, spki: root.certificate.spki })).rejects.toMatchObject({ reason: 'ca.authority-key' })
  })
})

describe('C-10 what is about to be signed is written down first', () => {
  test('an intent that cannot be written: the key is not used', async () => {
    let used = false
    const watched: Signer = { ...root.signer, sign: (...all) => ((used = true), root.signer.sign(...all)) }
    const full = new FakeIntents({
      onIntent: () => {
        throw new Error('the disk is full')
      },
    })
    await expect(spend(await prepare(await provenKey()), watched, full)).rejects.toThrow('the disk is full')
    await expect(
      recordedSigner(watched, { kind: 'jwt', name: 'j', id: workload, entry: '', revision: '', until: at }, full).signer.sign(
        Uint8Array.of(1),
      ),
    ).rejects.toThrow('the disk is full')
    expect(used).toBe(false)
  })

  test('the intent names the serial number, the entry and the hash of the very bytes, before the key sees them', async () => {
    const intents = new FakeIntents()
    let before = 0
    const watched: Signer = { ...root.signer, sign: (...all) => ((before = intents.kept.length), root.signer.sign(...all)) }
    const { certificate, intent } = await spend(await prepare(await provenKey()), watched, intents)
    const { serial, tbs, notAfter } = parseCertificate(certificate)
    expect(before).toBe(1)
    expect(intents.kept).toEqual([intent])
    expect(intent).toEqual({ kind: 'x509', name: serial, hash: hash('sha256', tbs), id: workload, ...purpose, until: notAfter })
  })

  test('a signature that nobody gets is settled as withheld', async () => {
    const intents = new FakeIntents()
    const away: Signer = { ...root.signer, sign: () => Promise.reject(new Error('the key manager is away')) }
    await expect(spend(await prepare(await provenKey()), away, intents)).rejects.toThrow('away')
    expect([...intents.outcomes.values()]).toEqual(['withheld'])
  })

  test('a signer of tokens signs once', async () => {
    const intents = new FakeIntents()
    const told = { kind: 'jwt', name: 'j', id: workload, entry: '', revision: '', until: at } as const
    const { signer, settle } = recordedSigner(root.signer, told, intents)
    settle('withheld')
    expect(intents.outcomes.size).toBe(0)
    await signer.sign(Uint8Array.of(1))
    expect(intents.kept).toEqual([{ ...told, hash: hash('sha256', Uint8Array.of(1)) }])
    await expect(signer.sign(Uint8Array.of(2))).rejects.toThrow('bug:')
  })
})

describe('C-9 C-11 nothing leaves whose signature does not hold', () => {
  test('a signature with one flipped bit', async () => {
    const token = await prepare(await provenKey())
    const flipping: Signer = { ...root.signer, sign: async (message) => flipLastBit(await root.signer.sign(message)) }
    await expect(spend(token, flipping)).rejects.toMatchObject({ reason: 'issuance.bad-signature' })
  })

  test('a signature over something else', async () => {
    const token = await prepare(await provenKey())
    const confused: Signer = { ...root.signer, sign: () => root.signer.sign(Uint8Array.of(1)) }
    await expect(spend(token, confused)).rejects.toMatchObject({ reason: 'issuance.bad-signature' })
  })

  test('a signer that changes the bytes it is given changes nothing', async () => {
    const token = await prepare(await provenKey())
    const meddling: Signer = { ...root.signer, sign: (message) => root.signer.sign(message.fill(0)) }
    await expect(spend(token, meddling)).rejects.toMatchObject({ reason: 'issuance.bad-signature' })
  })
})

describe('R-3 a certificate request contributes its key and nothing else', () => {
  const extension = (type: string, critical: boolean, value: Der): Der =>
    sequence(objectIdentifier(type), ...(critical ? [booleanTrue] : []), octetString(value))
  const uris = (count: number) =>
    sequence(...Array.from({ length: count }, (_, index) => taggedPrimitive(6, Buffer.from(`spiffe://example.org/admin-${index}`))))
  const wishes: readonly (readonly [string, readonly Der[], string?])[] = [
    ['nothing', []],
    ['one URI name', [extension(oid.subjectAltName, false, uris(1))]],
    ['two URI names', [extension(oid.subjectAltName, true, uris(2))]],
    ['fifty URI names', [extension(oid.subjectAltName, false, uris(50))]],
    ['a DNS name', [extension(oid.subjectAltName, false, sequence(taggedPrimitive(2, Buffer.from('bank.example.org'))))]],
    ['an IP address', [extension(oid.subjectAltName, false, sequence(taggedPrimitive(7, Uint8Array.of(10, 0, 0, 1))))]],
    ['to be a CA', [extension(oid.basicConstraints, true, sequence(booleanTrue))]],
    ['to sign certificates', [extension(oid.keyUsage, true, bitString(Uint8Array.of(0x04)))]],
    ['other purposes', [extension(oid.extKeyUsage, false, sequence(objectIdentifier('1.3.6.1.5.5.7.3.3')))]],
    ['an extension that nobody knows, critical', [extension('1.3.6.1.4.1.99999.1', true, ia5String('x'))]],
    ['a common name', [], 'bank.example.org'],
  ]

  test.for(wishes)('one that asks for %s gets what all get', async ([, extensions, commonName]) => {
    const signer = signerOf(sharedKey)
    plain ??= hex((await issue(await requestWith(signer, []))).tbs)
    expect(hex((await issue(await requestWith(signer, extensions, commonName))).tbs)).toBe(plain)
  })

  let sharedKey: Awaited<ReturnType<typeof generateKeyPair>>['privateKey']
  let plain: string | undefined
  beforeAll(async () => {
    sharedKey = (await generateKeyPair('ec-p256')).privateKey
  })

  async function requestWith(signer: Signer, extensions: readonly Der[], commonName?: string): Promise<Uint8Array> {
    const subject = encodeName(commonName === undefined ? [] : [{ oid: oid.commonName, value: commonName }])
    const attributes = extensions.length === 0 ? [] : [sequence(objectIdentifier(oid.extensionRequest), setOf([sequence(...extensions)]))]
    const signedPart = encodeDer(sequence(tinyInteger(0), subject, signer.publicKey, tagged(0, ...attributes)))
    return encodeDer(sequence(signedPart, keyTypes[signer.keyType].signatureAlgorithm, bitString(await signer.sign(signedPart))))
  }
})

describe('what is issued', () => {
  test('C-3 a leaf lives as long as was granted, its last second included, and began a little earlier (C-2)', async () => {
    const { notBefore, notAfter } = await issue(await provenKey())
    expect(notBefore).toBe(at - 700 - seconds(30))
    expect(notAfter + seconds(1)).toBe(at - 700 + hours(1))
  })

  test('C-2 a leaf ends with its authority at the latest, and does not begin before it', async () => {
    const key = await provenKey()
    const { notBefore, notAfter } = await issue(key, { lifetime: hours(48), backdate: seconds(299) })
    expect(notAfter).toBe(root.certificate.notAfter)
    expect(notBefore).toBe(root.certificate.notBefore)
    const ending = await issue(key, { until: at + seconds(5) })
    expect(ending.notAfter).toBe(at - 700 + seconds(5))
  })

  test.for<KeyType>(['ec-p256', 'ec-p384', 'rsa-2048'])('a leaf with a key of type %s and DNS names', async (type) => {
    const certificate = await issue(await provenKey(type), { dnsNames: ['a.example.org', 'b.example.org'] })
    expect(certificate.subject.text).toBe('CN=a.example.org,O=Vidimus')
    expect(certificate.subjectAltName).toMatchObject({ uris: [workload], dnsNames: ['a.example.org', 'b.example.org'] })
    expect(signedBy(certificate, root.certificate)).toBe(true)
  })

  test.for<KeyType>(['ec-p256', 'rsa-2048'])(
    'C-4 a leaf with a key of type %s may prove itself and agree on keys, and nothing else',
    async (type) => {
      const certificate = await issue(await provenKey(type))
      expect(certificate).toMatchObject({
        basicConstraints: { critical: true, ca: false },
        keyUsage: { critical: true, digitalSignature: true, keyEncipherment: type === 'rsa-2048', keyAgreement: false, keyCertSign: false },
        extKeyUsage: { purposes: [oid.serverAuth, oid.clientAuth] },
        subjectAltName: { critical: false, uris: [workload], dnsNames: [] },
      })
      expect(certificate.basicConstraints).not.toHaveProperty('pathLength')
      expect([certificate.subjectKeyId, certificate.authorityKeyId]).toEqual([expect.anything(), root.certificate.subjectKeyId])
    },
  )

  test('a first DNS name that is too long for a common name is in the names alone', async () => {
    const name = `${'a'.repeat(60)}.example.org`
    const certificate = await issue(await provenKey(), { dnsNames: [name] })
    expect(certificate.subject.text).toBe('O=Vidimus')
  })

  test('C-5 a root signs itself, may sign leaves only, and has a name of its own', async () => {
    const key = signerOf((await generateKeyPair('ec-p384')).privateKey)
    const serial = Uint8Array.from({ length: 16 }, () => 0x42)
    const intents = new FakeIntents()
    const rootOrder = { trustDomain, key, serial, at, backdate: seconds(30), lifetime: hours(24), pathLength: 0 }
    const certificate = await issueAuthority(rootOrder, office(intents), never)
    expect(intents.outcomes.get(certificate.serial)).toBe('issued')
    expect(signedBy(certificate, certificate)).toBe(true)
    expect(certificate).toMatchObject({
      basicConstraints: { critical: true, ca: true, pathLength: 0 },
      subjectAltName: { uris: ['spiffe://example.org'] },
    })
    expect(certificate.subject.text).toBe(`SERIALNUMBER=${'42'.repeat(16)},O=Vidimus`)
    expect(certificate.authorityKeyId).toBeUndefined()
  })

  test('our own request names the trust domain and proves the key', async () => {
    const key = signerOf((await generateKeyPair('ec-p256')).privateKey)
    const request = parseCertificateRequest(await authorityRequest({ key, trustDomain, serial: Uint8Array.of(0x41) }))
    expect(request.requestedUris).toEqual(['spiffe://example.org'])
    expect(request.requestedDnsNames).toEqual([])
    expect((await proven(request)).spki).toEqual(key.publicKey)
  })
})

function flipLastBit(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes)
  copy[copy.length - 1]! ^= 1
  return copy
}
