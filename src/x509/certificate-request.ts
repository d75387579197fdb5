import { Failure } from '../kernel/failure.ts'
import { contextConstructed, type DerReader, derTag, readDer } from './der-reader.ts'
import { bitString, encodeDer, objectIdentifier, sequence, setOf, tagged, tinyInteger } from './der-writer.ts'
import { type Extension, readExtensions, readSubjectAltName, writeExtension, writeSubjectAltName } from './extension.ts'
import { keyTypes, onlyVerified, type PublicKeyInfo, type PublicKeyType, readPublicKeyInfo } from './key-type.ts'
import { encodeName, type Name, type NameAttribute, readName } from './name.ts'
import { oid } from './oid.ts'
import {
  importStrangersKey,
  readSignatureAlgorithm,
  type SignatureAlgorithm,
  type Signer,
  verifySignatureAsync,
  verifyStrangersSignature,
} from './signature.ts'

/** A PKCS #10 request as its bytes say (RFC 2986). Only {@link proven} makes its key usable; nothing else of it is ever believed (rule R-3). */
export interface CertificateRequest {
  readonly raw: Uint8Array
  readonly signedPart: Uint8Array
  readonly subject: Name
  readonly spki: Uint8Array
  /** What the requester would like to be called: to compare with what it is entitled to, or to show. */
  readonly requestedUris: readonly string[]
  readonly requestedDnsNames: readonly string[]
  readonly signatureAlgorithm: SignatureAlgorithm
  readonly signature: Uint8Array
}

/** A public key whose private half signed a request, and which is strong enough (rule R-4). Made by {@link proven} alone. */
export interface ProvenKey {
  readonly spki: Uint8Array
  readonly keyType: PublicKeyType
  readonly [proof]: true
}

/** @throws Failure `der.*`, `x509.*` */
export function parseCertificateRequest(der: Uint8Array): CertificateRequest {
  return readDer(der.length > maxRequestBytes ? der : new Uint8Array(der), readRequest, { maxBytes: maxRequestBytes })
}

/**
 * Checks the strength of a request's key, then its signature (on another thread); hands out the key alone.
 * @throws Failure `x509.weak-key`, `x509.unsupported-key`, `x509.public-key`, `x509.request-signature`
 */
export async function proven(request: CertificateRequest): Promise<ProvenKey> {
  const info = strongKey(request.spki)
  return withProof(
    request,
    info,
    await verifySignatureAsync(importStrangersKey(request.spki), request.signatureAlgorithm, request.signedPart, request.signature),
  )
}

/** {@link proven} on this thread whatever the key. */
export function provenSync(request: CertificateRequest): ProvenKey {
  const info = strongKey(request.spki)
  return withProof(
    request,
    info,
    verifyStrangersSignature(request.spki, info, request.signatureAlgorithm, request.signedPart, request.signature),
  )
}

/** A key that was {@link proven} on another thread of this process: the word of whoever sent it over. */
export function provenElsewhere({ spki, keyType }: { readonly spki: Uint8Array; readonly keyType: PublicKeyType }): ProvenKey {
  return Object.freeze({ spki, keyType, [proof]: true as const })
}

export interface RequestContents {
  readonly signer: Signer
  readonly subject?: readonly NameAttribute[]
  readonly uris?: readonly string[]
  readonly dnsNames?: readonly string[]
}

/** A signed request, DER (RFC 2986 section 4). */
export async function createCertificateRequest({ signer, subject = [], uris = [], dnsNames = [] }: RequestContents): Promise<Uint8Array> {
  const signedPart = encodeDer(
    sequence(tinyInteger(0), encodeName(subject), signer.publicKey, tagged(0, ...requestAttributes(subject, uris, dnsNames))),
  )
  const signature = await signer.sign(signedPart)
  return encodeDer(sequence(signedPart, keyTypes[signer.keyType].signatureAlgorithm, bitString(signature)))
}

function requestAttributes(subject: readonly NameAttribute[], uris: readonly string[], dnsNames: readonly string[]) {
  if (uris.length + dnsNames.length === 0) return []
  const names = writeExtension(oid.subjectAltName, subject.length === 0, writeSubjectAltName({ uris, dnsNames }))
  return [sequence(objectIdentifier(oid.extensionRequest), setOf([sequence(names)]))]
}

function readRequest(reader: DerReader): CertificateRequest {
  const raw = reader.peek()
  return reader.sequence((outer) => {
    const signedPart = outer.peek()
    const wishes = outer.sequence(readWishes)
    const signatureAlgorithm = readSignatureAlgorithm(outer)
    return Object.freeze({ raw, signedPart, ...wishes, signatureAlgorithm, signature: outer.bitString() })
  })
}

function readWishes(reader: DerReader) {
  const version = reader.smallInteger()
  if (version !== 0) throw malformed('version', `a certificate request has the version number ${version}: expected 0`)
  const subject = readName(reader)
  const spki = reader.peek()
  reader.skip()
  const extensions = readAttributes(reader)
  const names = extensions.get(oid.subjectAltName)
  const { uris, dnsNames } = names ? readSubjectAltName(names) : { uris: [], dnsNames: [] }
  return { subject, spki, requestedUris: uris, requestedDnsNames: dnsNames }
}

/** The requested extensions. Other attributes are checked for form and passed over. */
function readAttributes(reader: DerReader): ReadonlyMap<string, Extension> {
  let found: ReadonlyMap<string, Extension> | undefined
  reader.setOf(contextConstructed(0), (element) =>
    element.sequence((inside) => {
      if (inside.oid() !== oid.extensionRequest) return inside.skip()
      if (found) throw malformed('duplicate-attribute', 'a certificate request asks for extensions twice')
      found = inside.setOf(derTag.set, readExtensions, 1)[0] ?? new Map()
    }),
  )
  return found ?? new Map()
}

function strongKey(spki: Uint8Array): PublicKeyInfo {
  const info = readPublicKeyInfo(spki)
  if (onlyVerified.has(info.type)) {
    throw new Failure('invalid_argument', 'x509.unsupported-key', {
      public: `a request has a key of type \`${info.type}\`: expected RSA, P-256 or P-384`,
    })
  }
  if (info.exponent !== undefined && (info.exponent < 65_537n || info.exponent > 0xffff_ffffn)) {
    throw malformed('weak-key', `an RSA key has the exponent ${info.exponent}: expected 65537`)
  }
  if (info.modulus && looksLikeRoca(info.modulus))
    throw malformed('weak-key', 'an RSA key was made by a generator whose keys can be factored')
  return info
}

function withProof(request: CertificateRequest, { type }: PublicKeyInfo, valid: boolean): ProvenKey {
  if (!valid) throw malformed('request-signature', 'a certificate request is not signed by its own key')
  return Object.freeze({ spki: request.spki, keyType: type, [proof]: true as const })
}

/**
 * CVE-2017-15361: primes of that generator are powers of 65537 modulo every small prime, and so are their products.
 * An honest key passes for one of them with a chance below 2^-27.
 */
function looksLikeRoca(modulus: Uint8Array): boolean {
  const value = BigInt(`0x${Buffer.from(modulus).toString('hex')}`)
  return rocaResidues.every(([prime, residues]) => residues.has(Number(value % BigInt(prime))))
}

function powersOf65537(prime: number): ReadonlySet<number> {
  const powers = new Set<number>()
  for (let power = 1; !powers.has(power); power = (power * 65_537) % prime) powers.add(power)
  return powers
}

function malformed(what: string, text: string): Failure {
  return new Failure('invalid_argument', `x509.${what}`, { public: text })
}

const proof: unique symbol = Symbol('proof')

/** The primes up to 167 modulo which 65537 does not generate everything. */
const rocaResidues: readonly (readonly [number, ReadonlySet<number>])[] = [
  11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
].map((prime) => [prime, powersOf65537(prime)])

const maxRequestBytes = 64 * 1024
