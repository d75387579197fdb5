import { generateKeyPair as generate, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import { Failure } from '../kernel/failure.ts'
import { type DerReader, derTag, readDer } from './der-reader.ts'
import { encodeDer, nullValue, objectIdentifier, sequence } from './der-writer.ts'
import { oid } from './oid.ts'

/** The keys that this program makes and signs with. */
export type KeyType = 'ec-p256' | 'ec-p384' | 'rsa-2048' | 'rsa-3072' | 'rsa-4096'

/** The keys that it verifies with: also RSA of other sizes from 2048 to 8192 bits, and others that it never signs with. */
export type PublicKeyType = KeyType | 'rsa' | 'ec-p521' | 'ed25519' | 'ml-dsa-65'

export type KeyFamily = 'ec' | 'rsa' | 'ed25519' | 'ml-dsa-65'

/** Keys that nobody is certified for by this program: tokens and certificates of others may be signed with them. */
export const onlyVerified: ReadonlySet<PublicKeyType> = new Set(['ec-p521', 'ed25519', 'ml-dsa-65'])

export interface KeyTypeRow {
  readonly keyType: KeyType
  readonly family: 'ec' | 'rsa'
  /** Of the modulus or of the curve. */
  readonly bits: number
  readonly hash: 'sha256' | 'sha384'
  /** RFC 7518 section 3.1. */
  readonly jws: 'ES256' | 'ES384' | 'RS256'
  /** Octets of one half of an ECDSA signature (RFC 7518 section 3.4), and of a coordinate. */
  readonly half: number | undefined
  /** The name that node:crypto knows the curve by. */
  readonly curve: string | undefined
  /** AlgorithmIdentifier of a public key. */
  readonly publicKeyAlgorithm: Uint8Array
  /** AlgorithmIdentifier of the signatures that this key makes. */
  readonly signatureAlgorithm: Uint8Array
}

/** One row a key type; whoever adds one adds it here alone. */
export const keyTypes: Readonly<Record<KeyType, KeyTypeRow>> = {
  'ec-p256': ec('ec-p256', {
    bits: 256,
    hash: 'sha256',
    jws: 'ES256',
    half: 32,
    curve: 'prime256v1',
    curveOid: oid.prime256v1,
    signature: oid.ecdsaWithSHA256,
  }),
  'ec-p384': ec('ec-p384', {
    bits: 384,
    hash: 'sha384',
    jws: 'ES384',
    half: 48,
    curve: 'secp384r1',
    curveOid: oid.secp384r1,
    signature: oid.ecdsaWithSHA384,
  }),
  'rsa-2048': rsa('rsa-2048', 2048),
  'rsa-3072': rsa('rsa-3072', 3072),
  'rsa-4096': rsa('rsa-4096', 4096),
}

/** A new key pair from this process's own random source: for key managers that hold keys in memory, for workloads' keys, for tests. */
export async function generateKeyPair(keyType: KeyType): Promise<{ readonly publicKey: KeyObject; readonly privateKey: KeyObject }> {
  const { family, bits, curve } = keyTypes[keyType]
  if (family === 'rsa') return generateRsa('rsa', { modulusLength: bits, publicExponent: 65_537 })
  return generateEc('ec', { namedCurve: curve ?? '' })
}

/** The type of a key that this program could have made. @throws Failure `x509.unsupported-key`, `x509.weak-key` */
export function keyTypeOf(publicKey: KeyObject): KeyType {
  const type = publicKeyTypeOf(publicKey)
  if (!isKeyType(type)) throw unsupported(`a key of type \`${type}\` can only verify`)
  return type
}

/** The type of a key that this program verifies with. @throws Failure `x509.unsupported-key`, `x509.weak-key` */
export function publicKeyTypeOf(publicKey: KeyObject): PublicKeyType {
  const details = publicKey.asymmetricKeyDetails
  switch (publicKey.asymmetricKeyType) {
    case 'ec':
      return curveType(details?.namedCurve)
    case 'rsa':
      return rsaType(details?.modulusLength ?? 0, details?.publicExponent ?? 0n)
    case 'ed25519':
    case 'ml-dsa-65':
      return publicKey.asymmetricKeyType
    default:
      throw unsupported(`a key of type \`${publicKey.asymmetricKeyType ?? publicKey.type}\` is not supported`)
  }
}

/** What a SubjectPublicKeyInfo says, read before OpenSSL sees it (rule R-29: sizes are refused first). */
export interface PublicKeyInfo {
  readonly type: PublicKeyType
  readonly family: KeyFamily
  /** The content of the bit string: what RFC 7093 hashes into a key identifier. */
  readonly key: Uint8Array
  /** Of an RSA key. */
  readonly modulus: Uint8Array | undefined
  readonly exponent: bigint | undefined
}

/** Reads a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7). @throws Failure `der.*`, `x509.public-key`, `x509.unsupported-key`, `x509.weak-key` */
export function readPublicKeyInfo(spki: Uint8Array): PublicKeyInfo {
  return readDer(spki, (reader) =>
    reader.sequence((inside) => {
      const interpret = inside.sequence(readKeyAlgorithm)
      return interpret(inside.bitString())
    }),
  )
}

function readKeyAlgorithm(reader: DerReader): (key: Uint8Array) => PublicKeyInfo {
  const algorithm = reader.oid()
  switch (algorithm) {
    case oid.ecPublicKey: {
      if (!reader.nextIs(derTag.oid)) throw unsupported('an elliptic curve is given by its parameters: expected its name')
      const named = reader.oid()
      const curve = curves.find((each) => each.oid === named)
      if (!curve) throw unsupportedCurve()
      return (key) => ecKey(curve, key)
    }
    case oid.rsaEncryption:
      reader.null()
      return rsaKey
    case oid.ed25519:
      return opaqueKey('ed25519', 32)
    case oid.mlDsa65:
      return opaqueKey('ml-dsa-65', 1952)
    default:
      throw unsupported(`a public key of algorithm \`${algorithm}\` is not supported`)
  }
}

/** Uncompressed points only, as everybody writes them (RFC 5480 section 2.2). */
function ecKey({ type, half }: Curve, key: Uint8Array): PublicKeyInfo {
  if (key.length !== 1 + 2 * half || key[0] !== 0x04) throw malformedKey('a public key is not an uncompressed point of its curve')
  return { type, family: 'ec', key, modulus: undefined, exponent: undefined }
}

function rsaKey(key: Uint8Array): PublicKeyInfo {
  return readDer(key, (reader) =>
    reader.sequence((inside) => {
      const modulus = inside.unsigned()
      const exponentBytes = inside.unsigned()
      if (exponentBytes.length > 8) throw weak('an RSA key has an exponent of more than 64 bits')
      const exponent = BigInt(`0x${Buffer.from(exponentBytes).toString('hex')}`)
      const bits = modulus.length * 8 - (Math.clz32(modulus[0]!) - 24)
      if ((modulus[modulus.length - 1]! & 1) === 0) throw malformedKey('the modulus of an RSA key is even')
      return { type: rsaType(bits, exponent), family: 'rsa', key, modulus, exponent }
    }),
  )
}

/** Keys without parameters or structure (RFC 8410 section 4, RFC 9881 section 4). */
function opaqueKey(type: 'ed25519' | 'ml-dsa-65', octets: number): (key: Uint8Array) => PublicKeyInfo {
  return (key) => {
    if (key.length !== octets) throw malformedKey(`a key of type \`${type}\` does not have ${octets} octets`)
    return { type, family: type, key, modulus: undefined, exponent: undefined }
  }
}

function curveType(name: string | undefined): PublicKeyType {
  const curve = curves.find((each) => each.name === name)
  if (!curve) throw unsupportedCurve()
  return curve.type
}

function isKeyType(type: PublicKeyType): type is KeyType {
  return type in keyTypes
}

/** Rules. Exponents below 65537 verify what others signed long ago; a certificate request with one is refused. */
function rsaType(bits: number, exponent: bigint): PublicKeyType {
  if (bits < smallestRsa || bits > largestRsa) throw weak(`an RSA key has ${bits} bits: expected ${smallestRsa} to ${largestRsa}`)
  if (exponent < 3n || exponent % 2n === 0n) throw weak('an RSA key has an exponent that is even or below 3')
  return Object.values(keyTypes).find((row) => row.family === 'rsa' && row.bits === bits)?.keyType ?? 'rsa'
}

interface EcFacts extends Pick<KeyTypeRow, 'bits' | 'hash' | 'jws'> {
  readonly half: number
  readonly curve: string
  readonly curveOid: string
  readonly signature: string
}

function ec(keyType: KeyType, { curveOid, signature, ...facts }: EcFacts): KeyTypeRow {
  return {
    keyType,
    family: 'ec',
    ...facts,
    publicKeyAlgorithm: encodeDer(sequence(objectIdentifier(oid.ecPublicKey), objectIdentifier(curveOid))),
    signatureAlgorithm: encodeDer(sequence(objectIdentifier(signature))),
  }
}

/** SHA-256 at every size: it is what RS256 and every verifier agree on. */
function rsa(keyType: KeyType, bits: number): KeyTypeRow {
  return {
    keyType,
    family: 'rsa',
    bits,
    hash: 'sha256',
    jws: 'RS256',
    half: undefined,
    curve: undefined,
    publicKeyAlgorithm: encodeDer(sequence(objectIdentifier(oid.rsaEncryption), nullValue)),
    signatureAlgorithm: encodeDer(sequence(objectIdentifier(oid.sha256WithRSAEncryption), nullValue)),
  }
}

function unsupported(text: string): Failure {
  return new Failure('invalid_argument', 'x509.unsupported-key', { public: text })
}

function unsupportedCurve(): Failure {
  return unsupported('an elliptic curve is not supported: expected P-256, P-384 or P-521')
}

function weak(text: string): Failure {
  return new Failure('invalid_argument', 'x509.weak-key', { public: text })
}

function malformedKey(text: string): Failure {
  return new Failure('invalid_argument', 'x509.public-key', { public: text })
}

const generateRsa = promisify(generate) as (
  type: 'rsa',
  options: { modulusLength: number; publicExponent: number },
) => Promise<{ publicKey: KeyObject; privateKey: KeyObject }>
const generateEc = promisify(generate) as (
  type: 'ec',
  options: { namedCurve: string },
) => Promise<{ publicKey: KeyObject; privateKey: KeyObject }>

interface Curve {
  readonly oid: string
  readonly type: PublicKeyType
  /** Octets of a coordinate. */
  readonly half: number
  /** By which node:crypto knows it. */
  readonly name: string
}

const curves: readonly Curve[] = [
  { oid: oid.prime256v1, type: 'ec-p256', half: 32, name: 'prime256v1' },
  { oid: oid.secp384r1, type: 'ec-p384', half: 48, name: 'secp384r1' },
  { oid: oid.secp521r1, type: 'ec-p521', half: 66, name: 'secp521r1' },
]

/** NIST SP 800-57 part 1 table 2: 112 bits of strength. */
const smallestRsa = 2048
/** Rule R-29: a verification costs with the square of the size. */
const largestRsa = 8192
