import { spawnSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { hex } from '../../src/kernel/bytes.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { createCertificateRequest, parseCertificateRequest, proven, provenSync } from '../../src/x509/certificate-request.ts'
import * as der from '../../src/x509/der-writer.ts'
import { writeExtension, writeSubjectAltName } from '../../src/x509/extension.ts'
import { generateKeyPair, keyTypes } from '../../src/x509/key-type.ts'
import { encodeName } from '../../src/x509/name.ts'
import { oid } from '../../src/x509/oid.ts'
import { type Signer, signerOf } from '../../src/x509/signature.ts'
import { truncated, withFlippedBit, withTrailingByte } from '../support/test-ca.ts'

const refusedFor = (reason: string) => expect.objectContaining({ name: 'Failure', reason })
const newSigner = async (): Promise<Signer> => signerOf((await generateKeyPair('ec-p256')).privateKey)

/** A request with attributes of the test's making. */
async function requestWith(signer: Signer, attributes: readonly der.Der[], version = 0): Promise<Uint8Array> {
  const signedPart = der.encodeDer(der.sequence(der.tinyInteger(version), encodeName([]), signer.publicKey, der.tagged(0, ...attributes)))
  return der.encodeDer(der.sequence(signedPart, keyTypes[signer.keyType].signatureAlgorithm, der.bitString(await signer.sign(signedPart))))
}
const extensionRequest = (...extensions: der.Der[]) =>
  der.sequence(der.objectIdentifier(oid.extensionRequest), der.setOf([der.sequence(...extensions)]))
const names = (uri: string) => writeExtension(oid.subjectAltName, false, writeSubjectAltName({ uris: [uri], dnsNames: [] }))

describe('R-4 a request proves nothing', () => {
  test('when another key signed it', async () => {
    const [signer, other] = await Promise.all([newSigner(), newSigner()])
    const forged = parseCertificateRequest(
      await createCertificateRequest({ signer: { ...signer, sign: (message) => other.sign(message) } }),
    )
    await expect(proven(forged)).rejects.toThrow(refusedFor('x509.request-signature'))
    expect(() => provenSync(forged)).toThrow(refusedFor('x509.request-signature'))
  })

  test('when any bit of what is signed was turned', async () => {
    const good = await createCertificateRequest({ signer: await newSigner(), uris: ['spiffe://example.org/a'] })
    const { signedPart } = parseCertificateRequest(good)
    const start = Buffer.from(good).indexOf(signedPart)
    for (let bit = start * 8; bit < (start + signedPart.length) * 8; bit += 5) {
      expect(() => provenSync(parseCertificateRequest(withFlippedBit(good, bit)))).toThrow(Failure)
    }
  })

  const weak: readonly [string, string, () => Signer][] = [
    ['an RSA key of 1024 bits', 'x509.weak-key', () => pretending(generateKeyPairSync('rsa', { modulusLength: 1024 }))],
    [
      'an RSA key with exponent 3',
      'x509.weak-key',
      () => pretending(generateKeyPairSync('rsa', { modulusLength: 2048, publicExponent: 3 })),
    ],
    ['a P-224 key', 'x509.unsupported-key', () => pretending(generateKeyPairSync('ec', { namedCurve: 'P-224' }))],
    ['a P-521 key', 'x509.unsupported-key', () => pretending(generateKeyPairSync('ec', { namedCurve: 'P-521' }))],
    ['an ML-DSA key', 'x509.unsupported-key', () => pretending(generateKeyPairSync('ml-dsa-65'))],
    ['an Ed25519 key', 'x509.unsupported-key', () => pretending(generateKeyPairSync('ed25519'))],
    ['an RSA key of the kind that ROCA factors', 'x509.weak-key', rocaKey],
  ]
  test.each(weak)('with %s', async (_, reason, signer) => {
    const request = parseCertificateRequest(await createCertificateRequest({ signer: signer() }))
    await expect(proven(request)).rejects.toThrow(refusedFor(reason))
    expect(() => provenSync(request)).toThrow(refusedFor(reason))
  })
})

describe('refused', () => {
  test('every truncation, and trailing bytes', async () => {
    const good = await createCertificateRequest({ signer: await newSigner(), uris: ['spiffe://example.org/a'] })
    for (let length = 0; length < good.length; length++) expect(() => parseCertificateRequest(truncated(good, length))).toThrow(Failure)
    expect(() => parseCertificateRequest(withTrailingByte(good))).toThrow(refusedFor('der.trailing-bytes'))
  })

  test('another version', async () => {
    const request = await requestWith(await newSigner(), [], 1)
    expect(() => parseCertificateRequest(request)).toThrow(refusedFor('x509.version'))
  })

  test('two lists of extensions: nobody can say which one counts', async () => {
    const [a, b] = [extensionRequest(names('spiffe://example.org/a')), extensionRequest(names('spiffe://example.org/b'))]
    const request = await requestWith(await newSigner(), [a, b])
    expect(() => parseCertificateRequest(request)).toThrow(refusedFor('x509.duplicate-attribute'))
  })

  test('whatever the bytes, a request is read or fails with a reason', async () => {
    const good = await createCertificateRequest({ signer: await newSigner(), uris: ['spiffe://example.org/a'] })
    const tried = (bytes: Uint8Array) => {
      try {
        provenSync(parseCertificateRequest(bytes))
      } catch (error) {
        if (!(error instanceof Failure)) throw error
      }
    }
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), tried), { numRuns: 500 })
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), (place, byte) =>
        tried(Uint8Array.from(good, (old, at) => (at === place ? byte : old))),
      ),
      { numRuns: 1000 },
    )
  })
})

test('R-3 a proof holds the key and nothing of what else was asked for', async () => {
  const signer = await newSigner()
  const wishes = [
    { signer },
    { signer, uris: ['spiffe://example.org/admin'] },
    {
      signer,
      uris: Array.from({ length: 50 }, (_, number) => `spiffe://example.org/${number}`),
      dnsNames: ['a.test'],
      subject: [{ oid: oid.commonName, value: 'root' }],
    },
  ]
  const requests = await Promise.all([
    ...wishes.map(createCertificateRequest),
    requestWith(signer, [
      extensionRequest(
        writeExtension('1.2.3.4', true, der.nullValue),
        writeExtension(oid.basicConstraints, true, der.sequence(der.booleanTrue)),
      ),
    ]),
  ])
  for (const request of requests) {
    const proof = await proven(parseCertificateRequest(request))
    expect(Object.keys(proof)).toEqual(['spki', 'keyType'])
    expect(proof).toMatchObject({ keyType: 'ec-p256', spki: signer.publicKey })
  }
})

test('what was asked for can be read, to be compared', async () => {
  const wish = {
    signer: await newSigner(),
    uris: ['spiffe://example.org/a', 'spiffe://example.org/b'],
    dnsNames: ['a.test'],
    subject: [{ oid: oid.commonName, value: 'me' }],
  }
  expect(parseCertificateRequest(await createCertificateRequest(wish))).toMatchObject({
    requestedUris: wish.uris,
    requestedDnsNames: wish.dnsNames,
    subject: { text: 'CN=me' },
  })
})

const openssl = spawnSync('openssl', ['version'])
const noOpenssl = openssl.status === 0 ? '' : ' (skipped: needs the program `openssl`)'

test.skipIf(noOpenssl !== '')(`openssl verifies our request, and we verify its${noOpenssl}`, async () => {
  const request = await createCertificateRequest({ signer: await newSigner(), uris: ['spiffe://example.org/a'] })
  const told = spawnSync('openssl', ['req', '-inform', 'DER', '-verify', '-noout', '-text'], {
    input: request,
    encoding: 'utf8',
    timeout: 20_000,
  })
  expect(told.stderr).toMatch(/verify OK/i)
  expect(told.stdout).toContain('URI:spiffe://example.org/a')

  const theirs = spawnSync(
    'openssl',
    [
      'req',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      '/dev/null',
      '-subj',
      '/CN=theirs',
      '-addext',
      'subjectAltName=URI:spiffe://example.org/b',
      '-outform',
      'DER',
    ],
    { timeout: 20_000 },
  ).stdout
  const parsed = parseCertificateRequest(theirs)
  expect(parsed.requestedUris).toEqual(['spiffe://example.org/b'])
  expect(await proven(parsed)).toMatchObject({ keyType: 'rsa-2048' })
  expect(hex(provenSync(parsed).spki)).toBe(hex(parsed.spki))
})

/** A Signer that says it is of a common type and holds another key. */
function pretending({ publicKey }: { publicKey: import('node:crypto').KeyObject }): Signer {
  return {
    keyType: 'ec-p256',
    publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
    sign: () => Promise.resolve(Uint8Array.of(0)),
  }
}

/** A modulus that is a power of 65537 modulo the primorial that gave the weakness away, of 2048 bits. */
function rocaKey(): Signer {
  const primorial = primesTo(167).reduce((product, prime) => product * BigInt(prime), 1n)
  let power = 1n
  for (let i = 0; i < 1000; i++) power = (power * 65_537n) % primorial
  const modulus = power + primorial * 2n * ((1n << 2047n) / (primorial * 2n) + 1n) + (power % 2n === 0n ? primorial : 0n)
  const bytes = Buffer.from(modulus.toString(16), 'hex')
  const key = der.encodeDer(der.sequence(der.unsignedInteger(bytes), der.unsignedInteger(Uint8Array.of(1, 0, 1))))
  const publicKey = der.encodeDer(der.sequence(keyTypes['rsa-2048'].publicKeyAlgorithm, der.bitString(key)))
  return { keyType: 'rsa-2048', publicKey, sign: () => Promise.resolve(Uint8Array.of(0)) }
}

function primesTo(last: number): number[] {
  const primes: number[] = []
  for (let number = 2; number <= last; number++) if (primes.every((prime) => number % prime !== 0)) primes.push(number)
  return primes
}
