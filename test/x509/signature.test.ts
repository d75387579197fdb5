import { createPublicKey, createVerify, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { hex, utf8 } from '../../src/kernel/bytes.ts'
import { Failure } from '../../src/kernel/failure.ts'
import * as der from '../../src/x509/der-writer.ts'
import { generateKeyPair, type KeyType, keyTypeOf, keyTypes, publicKeyTypeOf, readPublicKeyInfo } from '../../src/x509/key-type.ts'
import { oid } from '../../src/x509/oid.ts'
import {
  fromJoseSignature,
  importPublicKey,
  joseSignature,
  signatureAlgorithmOf,
  signerOf,
  verifySignature,
  verifySignatureAsync,
} from '../../src/x509/signature.ts'
import { withFlippedBit, withTrailingByte } from '../support/test-ca.ts'

const message = utf8('to be signed')
const spkiOf = (key: KeyObject) => new Uint8Array(key.export({ type: 'spki', format: 'der' }))
const rsaSpki = (modulus: Uint8Array, exponent: Uint8Array) =>
  der.encodeDer(
    der.sequence(
      der.sequence(der.objectIdentifier(oid.rsaEncryption), der.nullValue),
      der.bitString(der.encodeDer(der.sequence(der.unsignedInteger(modulus), der.unsignedInteger(exponent)))),
    ),
  )
const modulusOf = (bits: number) => new Uint8Array(bits / 8).fill(0xff)
/** The uncompressed point with a first octet that repeats the parity of its second half. */
const hybrid = (spki: Uint8Array) => spki.map((byte, place) => (place === spki.length - 65 ? 6 + (spki.at(-1)! & 1) : byte))
const refusedFor = (reason: string) => expect.objectContaining({ name: 'Failure', reason })

describe('R-29 keys that are refused before anything is computed with them', () => {
  const f4 = Uint8Array.of(1, 0, 1)
  const keys: readonly [string, string, () => Uint8Array][] = [
    ['RSA of 1024 bits', 'x509.weak-key', () => rsaSpki(modulusOf(1024), f4)],
    ['RSA of 2040 bits', 'x509.weak-key', () => rsaSpki(modulusOf(2040), f4)],
    ['RSA of 8200 bits', 'x509.weak-key', () => rsaSpki(modulusOf(8200), f4)],
    ['RSA of 65536 bits', 'x509.weak-key', () => rsaSpki(modulusOf(65_536), f4)],
    ['RSA with exponent 1', 'x509.weak-key', () => rsaSpki(modulusOf(2048), Uint8Array.of(1))],
    ['RSA with an even exponent', 'x509.weak-key', () => rsaSpki(modulusOf(2048), Uint8Array.of(1, 0, 0))],
    ['RSA with an exponent of 2048 bits', 'x509.weak-key', () => rsaSpki(modulusOf(2048), modulusOf(2048))],
    ['RSA with an even modulus', 'x509.public-key', () => rsaSpki(modulusOf(2048).fill(0xfe), f4)],
    ['P-224', 'x509.unsupported-key', () => spkiOf(generateKeyPairSync('ec', { namedCurve: 'P-224' }).publicKey)],
    ['secp256k1', 'x509.unsupported-key', () => spkiOf(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey)],
    [
      'a curve given by its parameters',
      'x509.unsupported-key',
      () =>
        new Uint8Array(
          generateKeyPairSync('ec', { namedCurve: 'P-256', paramEncoding: 'explicit' }).publicKey.export({ type: 'spki', format: 'der' }),
        ),
    ],
    ['X25519', 'x509.unsupported-key', () => spkiOf(generateKeyPairSync('x25519').publicKey)],
    ['ML-DSA', 'x509.unsupported-key', () => spkiOf(generateKeyPairSync('ml-dsa-44').publicKey)],
    [
      'a point that is not on its curve',
      'x509.public-key',
      () =>
        der.encodeDer(der.sequence(keyTypes['ec-p256'].publicKeyAlgorithm, der.bitString(Uint8Array.of(4, ...new Uint8Array(64).fill(1))))),
    ],
    [
      'a compressed point',
      'x509.public-key',
      () =>
        der.encodeDer(der.sequence(keyTypes['ec-p256'].publicKeyAlgorithm, der.bitString(Uint8Array.of(2, ...new Uint8Array(32).fill(1))))),
    ],
    ['a point in the hybrid form', 'x509.public-key', () => hybrid(spkiOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey))],
    [
      'a P-384 point under the name of P-256',
      'x509.public-key',
      () => der.encodeDer(der.sequence(keyTypes['ec-p256'].publicKeyAlgorithm, der.bitString(Uint8Array.of(4, ...new Uint8Array(96))))),
    ],
    [
      'a key with a trailing byte',
      'der.trailing-bytes',
      () => withTrailingByte(spkiOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey)),
    ],
    ['nothing', 'der.truncated', () => new Uint8Array(0)],
  ]
  test.each(keys)('%s', (_, reason, spki) => {
    expect(() => importPublicKey(spki())).toThrow(refusedFor(reason))
  })

  test('keys that only verify are no key types of ours', () => {
    const ed25519 = generateKeyPairSync('ed25519').publicKey
    expect(publicKeyTypeOf(ed25519)).toBe('ed25519')
    expect(() => keyTypeOf(ed25519)).toThrow(refusedFor('x509.unsupported-key'))
    for (const [type, key] of [
      ['ec-p521', generateKeyPairSync('ec', { namedCurve: 'P-521' })],
      ['ml-dsa-65', generateKeyPairSync('ml-dsa-65')],
    ] as const) {
      expect(publicKeyTypeOf(importPublicKey(spkiOf(key.publicKey)))).toBe(type)
      expect(() => keyTypeOf(key.publicKey)).toThrow(refusedFor('x509.unsupported-key'))
    }
    expect(() => keyTypeOf(generateKeyPairSync('ec', { namedCurve: 'P-521' }).publicKey)).toThrow(refusedFor('x509.unsupported-key'))
  })

  test('whatever the bytes, a key is read or fails with a reason', () => {
    const good = spkiOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey)
    const tried = (bytes: Uint8Array) => {
      try {
        importPublicKey(bytes)
      } catch (error) {
        if (!(error instanceof Failure)) throw error
      }
    }
    fc.assert(fc.property(fc.uint8Array({ maxLength: 120 }), tried), { numRuns: 500 })
    for (let bit = 0; bit < good.length * 8; bit++) tried(withFlippedBit(good, bit))
  })
})

describe.each(['ec-p256', 'ec-p384', 'rsa-2048'] satisfies KeyType[])('%s', (keyType) => {
  test('a signature holds for its key, its message and its algorithm, and for nothing else', async () => {
    const [{ privateKey, publicKey }, other] = await Promise.all([generateKeyPair(keyType), generateKeyPair(keyType)])
    const signer = signerOf(privateKey)
    const algorithm = signatureAlgorithmOf(keyType)
    const signature = await signer.sign(message)
    const wrong = signatureAlgorithmOf(keyType === 'rsa-2048' ? 'ec-p256' : 'rsa-2048')

    expect(verifySignature(other.publicKey, algorithm, message, signature)).toBe(false)
    expect(verifySignature(publicKey, algorithm, utf8('to be sold'), signature)).toBe(false)
    expect(verifySignature(publicKey, algorithm, message, withFlippedBit(signature, 77))).toBe(false)
    expect(verifySignature(publicKey, algorithm, message, withTrailingByte(signature))).toBe(false)
    expect(verifySignature(publicKey, algorithm, message, new Uint8Array(0))).toBe(false)
    expect(verifySignature(publicKey, wrong, message, signature)).toBe(false)
    expect(verifySignature(publicKey, { oid: algorithm.oid, raw: Uint8Array.of(0x30, 0x00) }, message, signature)).toBe(false)
    expect(verifySignature(publicKey, { oid: '1.2.840.113549.1.1.5', raw: algorithm.raw }, message, signature)).toBe(false)
    expect(await verifySignatureAsync(publicKey, algorithm, message, withFlippedBit(signature, 77))).toBe(false)

    expect(verifySignature(publicKey, algorithm, message, signature)).toBe(true)
    expect(await verifySignatureAsync(publicKey, algorithm, message, signature)).toBe(true)
    expect(createVerify(keyTypes[keyType].hash).update(message).verify(publicKey, signature)).toBe(true)
  })

  test('a key is what its SubjectPublicKeyInfo says', async () => {
    const { privateKey, publicKey } = await generateKeyPair(keyType)
    expect(signerOf(privateKey)).toMatchObject({ keyType, publicKey: spkiOf(publicKey) })
    expect(keyTypeOf(importPublicKey(spkiOf(publicKey)))).toBe(keyType)
    expect(readPublicKeyInfo(spkiOf(publicKey)).type).toBe(keyType)
    expect(hex(spkiOf(createPublicKey(privateKey)))).toContain(hex(keyTypes[keyType].publicKeyAlgorithm))
  })
})

describe('signatures as JOSE wants them', () => {
  test('a signature of another length is refused', () => {
    expect(() => fromJoseSignature('ec-p256', new Uint8Array(63))).toThrow(refusedFor('x509.signature'))
    expect(() => joseSignature('ec-p256', fromJoseSignature('ec-p384', new Uint8Array(96).fill(1)))).toThrow(refusedFor('x509.signature'))
  })

  test('there and back again, also where a half begins with zeros', () => {
    const half = fc
      .tuple(fc.nat(32), fc.uint8Array({ minLength: 32, maxLength: 32 }))
      .map(([zeros, bytes]) => Uint8Array.from(bytes, (byte, place) => (place < zeros ? 0 : byte)))
    fc.assert(
      fc.property(half, half, (r, s) => {
        const raw = Uint8Array.from([...r, ...s])
        expect(hex(joseSignature('ec-p256', fromJoseSignature('ec-p256', raw)))).toBe(hex(raw))
      }),
    )
  })

  test('Node verifies them', async () => {
    const { privateKey, publicKey } = await generateKeyPair('ec-p384')
    const raw = joseSignature('ec-p384', await signerOf(privateKey).sign(message))
    expect(raw).toHaveLength(96)
    expect(createVerify('sha384').update(message).verify({ key: publicKey, dsaEncoding: 'ieee-p1363' }, raw)).toBe(true)
    const rsa = randomBytes(256)
    expect(joseSignature('rsa-2048', rsa)).toBe(rsa)
  })
})
