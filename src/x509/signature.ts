import { createPublicKey, type KeyObject, sign as signWith, verify as verifyWith } from 'node:crypto'
import { base64url, sameBytes } from '../kernel/bytes.ts'
import { Failure } from '../kernel/failure.ts'
import { type DerReader, readDer } from './der-reader.ts'
import { encodeDer, nullValue, objectIdentifier, sequence, unsignedInteger } from './der-writer.ts'
import { type KeyFamily, type KeyType, keyTypeOf, keyTypes, type PublicKeyInfo, type PublicKeyType, readPublicKeyInfo } from './key-type.ts'
import { oid } from './oid.ts'

/** Signs, wherever the key lives. The hash is that of the key type. */
export interface Signer {
  readonly keyType: KeyType
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** A signature over `message` in the form that X.509 uses: DER for ECDSA, PKCS #1 v1.5 for RSA. */
  sign(message: Uint8Array, signal?: AbortSignal): Promise<Uint8Array>
}

/** An AlgorithmIdentifier (RFC 5280 section 4.1.1.2): what it names, and its bytes with the parameters. */
export interface SignatureAlgorithm {
  readonly oid: string
  readonly raw: Uint8Array
}

/** A signature made with a private key that this process holds, in the form that X.509 uses. */
async function signatureOf(privateKey: KeyObject, keyType: KeyType, message: Uint8Array): Promise<Uint8Array> {
  const { family, hash } = keyTypes[keyType]
  // An ECDSA signature takes less time than the way to another thread and back; an RSA one would hold up everybody else.
  if (family === 'ec') return signWith(hash, message, privateKey)
  return new Promise((resolve, reject) =>
    signWith(hash, message, privateKey, (error, signature) => (error ? reject(error) : resolve(signature))),
  )
}

/** Whether `signature` is this key's over `message`. An algorithm that is unknown, weak or not the key's own is a no. */
export function verifySignature(publicKey: KeyObject, algorithm: SignatureAlgorithm, message: Uint8Array, signature: Uint8Array): boolean {
  const row = usable(publicKey.asymmetricKeyType, algorithm)
  if (!row) return false
  try {
    return verifyWith(row.hash, message, publicKey, signature)
  } catch {
    return false
  }
}

/** {@link verifySignature} on another thread, for strangers' keys: the first use of a key takes longest, and an RSA key may be large. */
export async function verifySignatureAsync(
  publicKey: KeyObject,
  algorithm: SignatureAlgorithm,
  message: Uint8Array,
  signature: Uint8Array,
): Promise<boolean> {
  const row = usable(publicKey.asymmetricKeyType, algorithm)
  if (!row) return false
  return new Promise((resolve) => verifyWith(row.hash, message, publicKey, signature, (error, valid) => resolve(!error && valid)))
}

/**
 * {@link verifySignature} with a key that is used this once: OpenSSL reads it where it is needed, which takes less than making an object of it.
 * @throws Failure `x509.public-key`
 */
export function verifyStrangersSignature(
  spki: Uint8Array,
  info: PublicKeyInfo,
  algorithm: SignatureAlgorithm,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  const row = usable(info.family, algorithm)
  try {
    if (row) return verifyWith(row.hash, message, { key: spki, format: 'der', type: 'spki' }, signature)
  } catch {
    // Either the key is none, which is told now, or the signature cannot be read.
  }
  openPublicKey(spki, info)
  return false
}

/** Reads the AlgorithmIdentifier that follows. @throws Failure `der.*` */
export function readSignatureAlgorithm(reader: DerReader): SignatureAlgorithm {
  const raw = reader.peek()
  const type = reader.sequence((inside) => {
    const name = inside.oid()
    if (inside.more) inside.skip()
    return name
  })
  return { oid: type, raw }
}

/** The algorithm that a key of this type signs with. */
export function signatureAlgorithmOf(keyType: KeyType): SignatureAlgorithm {
  return ownAlgorithms[keyType]
}

/**
 * A key ready to verify with. Type and size are checked before OpenSSL sees it (rule R-29); the latest few hundred are kept,
 * for CA keys come again and again.
 * @throws Failure `der.*`, `x509.public-key`, `x509.unsupported-key`, `x509.weak-key`
 */
export function importPublicKey(spki: Uint8Array): KeyObject {
  const text = Buffer.from(spki.buffer, spki.byteOffset, spki.byteLength).toString('latin1')
  const known = imported.get(text)
  if (known) return known
  const key = importStrangersKey(spki)
  if (imported.size >= maxImported) imported.delete(imported.keys().next().value ?? '')
  imported.set(text, key)
  return key
}

/** {@link importPublicKey} for a key that will hardly come again, so that it drives no other out of those that are kept. */
export function importStrangersKey(spki: Uint8Array): KeyObject {
  return openPublicKey(spki, readPublicKeyInfo(spki))
}

/** An ECDSA signature as JOSE wants it: both halves at full length (RFC 7518 section 3.4). RSA signatures are the same everywhere. @throws Failure `der.*`, `x509.signature` */
export function joseSignature(keyType: KeyType, signature: Uint8Array): Uint8Array {
  const { half } = keyTypes[keyType]
  if (half === undefined) return signature
  const out = new Uint8Array(2 * half)
  readDer(signature, (reader) =>
    reader.sequence((inside) => {
      for (const end of [half, 2 * half]) {
        const number = inside.unsigned()
        if (number.length > half) throw malformedSignature()
        out.set(number, end - number.length)
      }
    }),
  )
  return out
}

/** The other way round: from JOSE's form to that of X.509. @throws Failure `x509.signature` */
export function fromJoseSignature(keyType: KeyType, signature: Uint8Array): Uint8Array {
  const { half } = keyTypes[keyType]
  if (half === undefined) return signature
  if (signature.length !== 2 * half) throw malformedSignature()
  return encodeDer(sequence(unsignedInteger(signature.subarray(0, half)), unsignedInteger(signature.subarray(half))))
}

/** A Signer over a private key that this process holds. @throws Failure `x509.unsupported-key`, `x509.weak-key` */
export function signerOf(privateKey: KeyObject): Signer {
  const publicKey = createPublicKey(privateKey)
  const keyType = keyTypeOf(publicKey)
  return {
    keyType,
    publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
    sign: (message) => signatureOf(privateKey, keyType, message),
  }
}

interface AlgorithmRow {
  readonly family: KeyFamily
  readonly hash: 'sha256' | 'sha384' | 'sha512' | null
  readonly raw: Uint8Array
}

/** The row of an algorithm, if it is one that we know, with the parameters it must have, and this key can be used with it. */
function usable(family: string | undefined, algorithm: SignatureAlgorithm): AlgorithmRow | undefined {
  const row = algorithms.get(algorithm.oid)
  return row && row.family === family && sameBytes(row.raw, algorithm.raw) ? row : undefined
}

function openPublicKey(spki: Uint8Array, { type, family, key }: PublicKeyInfo): KeyObject {
  try {
    // A point takes two thirds of the time when OpenSSL need not find out first what it is; that it is on its curve is checked either way.
    if (family === 'ec') return createPublicKey({ key: jwkOf(type, key), format: 'jwk' })
    return createPublicKey({ key: spki, format: 'der', type: 'spki' })
  } catch (cause) {
    throw new Failure('invalid_argument', 'x509.public-key', { public: 'a public key is not valid', cause })
  }
}

function jwkOf(type: PublicKeyType, point: Uint8Array): { kty: string; crv: string; x: string; y: string } {
  const half = (point.length - 1) / 2
  return {
    kty: 'EC',
    crv: type.replace('ec-p', 'P-'),
    x: base64url(point.subarray(1, 1 + half)),
    y: base64url(point.subarray(1 + half)),
  }
}

function malformedSignature(): Failure {
  return new Failure('invalid_argument', 'x509.signature', { public: 'a signature does not have the length of its key type' })
}

/** RFC 4055 section 5 gives RSA a NULL parameter; RFC 5758 section 3.2 and RFC 8410 section 3 leave it out. */
const algorithms: ReadonlyMap<string, AlgorithmRow> = new Map(
  (
    [
      [oid.ecdsaWithSHA256, 'ec', 'sha256'],
      [oid.ecdsaWithSHA384, 'ec', 'sha384'],
      [oid.ecdsaWithSHA512, 'ec', 'sha512'],
      [oid.sha256WithRSAEncryption, 'rsa', 'sha256'],
      [oid.sha384WithRSAEncryption, 'rsa', 'sha384'],
      [oid.sha512WithRSAEncryption, 'rsa', 'sha512'],
      [oid.ed25519, 'ed25519', null],
      [oid.mlDsa65, 'ml-dsa-65', null],
    ] as const
  ).map(([type, family, hash]) => [
    type,
    { family, hash, raw: encodeDer(sequence(objectIdentifier(type), ...(family === 'rsa' ? [nullValue] : []))) },
  ]),
)

const ownAlgorithms = Object.fromEntries(
  Object.values(keyTypes).map(({ keyType, signatureAlgorithm }) => [keyType, readDer(signatureAlgorithm, readSignatureAlgorithm)]),
) as Record<KeyType, SignatureAlgorithm>

const imported = new Map<string, KeyObject>()
const maxImported = 256
