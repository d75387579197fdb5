import { createPublicKey, type KeyObject, randomBytes } from 'node:crypto'
import { concat } from '../../src/kernel/bytes.ts'
import type { Instant } from '../../src/kernel/clock.ts'
import { type Duration, hours } from '../../src/kernel/duration.ts'
import { type Certificate, parseCertificate } from '../../src/x509/certificate.ts'
import { contextConstructed, derTag, readDer } from '../../src/x509/der-reader.ts'
import { bitString, booleanTrue, type Der, encodeDer, objectIdentifier, octetString, sequence, tagged } from '../../src/x509/der-writer.ts'
import { generateKeyPair, type KeyType, keyTypes } from '../../src/x509/key-type.ts'
import { encodeName, type NameAttribute } from '../../src/x509/name.ts'
import { oid } from '../../src/x509/oid.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { type Signer, signerOf } from '../../src/x509/signature.ts'
import { assemble, type CertificateTemplate, keyIdentifier, toBeSigned } from '../../src/x509/template.ts'

/** A Signer over a key of the test. */
export const signerFromKey = (privateKey: KeyObject): Signer => signerOf(privateKey)

export interface TestCaOptions {
  readonly name?: string
  /** Becomes the URI `spiffe://<trustDomain>`; `example.org` when left out. */
  readonly trustDomain?: string
  readonly keyType?: KeyType
  readonly at: Instant
  readonly lifetime?: Duration
}

/** Every field of a certificate, to be overridden at will, and deeds that only a bad CA would do. */
export interface Wishes extends Partial<Omit<CertificateTemplate, 'signatureKeyType' | 'authorityKeyId'>> {
  readonly authorityKeyId?: Uint8Array
  /** Of the key that is made when no `spki` is given. */
  readonly keyType?: KeyType
  /** Extensions to leave out, by object identifier. */
  readonly without?: readonly string[]
  /** Extensions to add at the end. */
  readonly extra?: readonly { readonly oid: string; readonly critical: boolean; readonly value: Uint8Array }[]
}

/** A certificate with the key it was made for. With an `spki` of the caller's, `keyPem` is empty and `signer` refuses. */
export interface Issued {
  readonly certificate: Certificate
  /** PKCS #8. */
  readonly keyPem: string
  readonly signer: Signer
}

/** A real CA with real keys that issues whatever it is asked for, good or bad. Valid from a minute before `at`. */
export class TestCa {
  readonly certificate: Certificate
  readonly signer: Signer
  readonly keyPem: string
  readonly trustDomain: string
  readonly #at: Instant

  private constructor({ certificate, signer, keyPem }: Issued, trustDomain: string, at: Instant) {
    this.certificate = certificate
    this.signer = signer
    this.keyPem = keyPem
    this.trustDomain = trustDomain
    this.#at = at
  }

  /** A self-signed root, 24 h when nothing is said. */
  static async create({
    name = 'test root',
    trustDomain = 'example.org',
    keyType = 'ec-p256',
    at,
    lifetime = hours(24),
  }: TestCaOptions): Promise<TestCa> {
    const { signer, keyPem } = await newKey(keyType)
    const subject = caName(name)
    const wishes: Wishes = { ...caWishes(trustDomain), subject, spki: signer.publicKey, notBefore: at - 60_000, notAfter: at + lifetime }
    const certificate = await issue(wishes, {
      issuer: subject,
      issuerSigner: signer,
      at,
      spki: signer.publicKey,
      authorityKeyId: undefined,
    })
    return new TestCa({ certificate, signer, keyPem }, trustDomain, at)
  }

  /** Another CA with its key, which then issues whatever it is asked for. */
  static holding({ certificate, signer }: Pick<Issued, 'certificate' | 'signer'>, trustDomain: string, at: Instant): TestCa {
    return new TestCa({ certificate, signer, keyPem: '' }, trustDomain, at)
  }

  /** A leaf as an X.509-SVID ought to be, valid for an hour, unless the wishes say otherwise. */
  async leaf(wishes: Wishes = {}): Promise<Issued> {
    return this.#issue({
      uris: [`spiffe://${this.trustDomain}/workload`],
      notAfter: Math.min(this.#at + hours(1) - 1000, this.certificate.notAfter),
      ...wishes,
    })
  }

  /** A CA below this one that may sign leaves only, unless the wishes say otherwise. */
  async intermediate(wishes: Wishes & { readonly name?: string } = {}): Promise<TestCa> {
    const { name = 'test intermediate', ...others } = wishes
    const issued = await this.#issue({
      ...caWishes(this.trustDomain),
      ca: { pathLength: 0 },
      subject: caName(name),
      notAfter: Math.min(this.#at + hours(12), this.certificate.notAfter),
      ...others,
    })
    return new TestCa(issued, this.trustDomain, this.#at)
  }

  /** This CA's key under another certificate, for example one that an outside root made. */
  withCertificate(certificate: Certificate): TestCa {
    return new TestCa({ certificate, signer: this.signer, keyPem: this.keyPem }, this.trustDomain, this.#at)
  }

  async #issue(wishes: Wishes): Promise<Issued> {
    const { signer, keyPem } = wishes.spki
      ? { signer: strangersSigner(wishes.spki), keyPem: '' }
      : await newKey(wishes.keyType ?? 'ec-p256')
    const certificate = await issue(wishes, {
      issuer: this.certificate.subject.raw,
      issuerSigner: this.signer,
      at: this.#at,
      spki: signer.publicKey,
      authorityKeyId: keyIdentifier(this.signer.publicKey),
    })
    return { certificate, keyPem, signer }
  }
}

// Bad inputs, each made by one small function.

/** One byte more than the value says. */
export const withTrailingByte = (der: Uint8Array, byte = 0): Uint8Array => concat([der, Uint8Array.of(byte)])

export const truncated = (der: Uint8Array, length: number): Uint8Array => der.slice(0, length)

/** The bit `index` turned over. */
export function withFlippedBit(der: Uint8Array, index: number): Uint8Array {
  const copy = Uint8Array.from(der)
  copy[index >> 3]! ^= 1 << (index & 7)
  return copy
}

/** The same certificate, signed by somebody else's key: well formed, and nobody's. */
export async function withWrongSignature(certificate: Certificate, keyType: KeyType = 'ec-p256'): Promise<Certificate> {
  const { signer } = await newKey(keyType)
  return parseCertificate(sign(certificate.tbs, certificate.signatureAlgorithm.raw, await signer.sign(certificate.tbs)))
}

/** The same bytes to be signed, signed anew by `signer`. */
export async function signedAgain(tbs: Uint8Array, signer: Signer): Promise<Uint8Array> {
  return assemble(tbs, signer.keyType, await signer.sign(tbs))
}

/** A certificate whose signature algorithm is one thing inside and another outside of what is signed. */
export function withOtherOuterAlgorithm(certificate: Certificate): Uint8Array {
  return sign(certificate.tbs, keyTypes['rsa-2048'].signatureAlgorithm, certificate.signature)
}

function sign(tbs: Uint8Array, algorithm: Uint8Array, signature: Uint8Array): Uint8Array {
  return encodeDer(sequence(tbs, algorithm, bitString(signature)))
}

interface Circumstances {
  readonly issuer: Uint8Array | readonly NameAttribute[]
  readonly issuerSigner: Signer
  readonly at: Instant
  readonly spki: Uint8Array
  readonly authorityKeyId: Uint8Array | undefined
}

async function issue({ without = [], extra = [], ...wishes }: Wishes, around: Circumstances): Promise<Certificate> {
  const template: CertificateTemplate = {
    serial: positive(randomBytes(16)),
    issuer: around.issuer instanceof Uint8Array ? around.issuer : encodeName(around.issuer),
    subject: [],
    notBefore: around.at - 60_000,
    notAfter: around.at + hours(1) - 1000,
    spki: around.spki,
    ca: false,
    keyUsage: ['digitalSignature'],
    extKeyUsage: ['serverAuth', 'clientAuth'],
    uris: [],
    dnsNames: [],
    subjectKeyId: keyIdentifier(around.spki),
    authorityKeyId: around.authorityKeyId,
    signatureKeyType: around.issuerSigner.keyType,
    ...wishes,
  }
  const tbs = withExtensions(toBeSigned(template), without, extra)
  return parseCertificate(await signedAgain(tbs, around.issuerSigner))
}

/** Takes extensions out of, and puts others into, bytes that are about to be signed. */
function withExtensions(tbs: Uint8Array, without: readonly string[], extra: NonNullable<Wishes['extra']>): Uint8Array {
  if (without.length + extra.length === 0) return tbs
  return readDer(tbs, (reader) =>
    reader.sequence((inside) => {
      const parts: Der[] = []
      while (!inside.nextIs(contextConstructed(3))) {
        parts.push(inside.peek())
        inside.skip()
      }
      const kept = inside.inside(contextConstructed(3), (list) =>
        list.listOf(derTag.sequence, (element) => {
          const raw = element.peek()
          const type = element.sequence((extension) => {
            const name = extension.oid()
            extension.trueOrAbsent()
            extension.octetString()
            return name
          })
          return { type, raw }
        }),
      )
      const extensions = [
        ...kept.filter(({ type }) => !without.includes(type)).map(({ raw }) => raw),
        ...extra.map((each) => sequence(objectIdentifier(each.oid), ...(each.critical ? [booleanTrue] : []), octetString(each.value))),
      ]
      return encodeDer(sequence(...parts, ...(extensions.length > 0 ? [tagged(3, sequence(...extensions))] : [])))
    }),
  )
}

const caName = (name: string): readonly NameAttribute[] => [{ oid: oid.commonName, value: name }]

const caWishes = (trustDomain: string): Wishes => ({
  ca: {},
  keyUsage: ['keyCertSign', 'cRLSign'],
  extKeyUsage: [],
  uris: [`spiffe://${trustDomain}`],
})

async function newKey(keyType: KeyType): Promise<{ signer: Signer; keyPem: string }> {
  const { privateKey } = await generateKeyPair(keyType)
  return { signer: signerOf(privateKey), keyPem: formatPem('PRIVATE KEY', privateKey.export({ type: 'pkcs8', format: 'der' })) }
}

/** Stands for a key that the test only has the public half of. */
function strangersSigner(spki: Uint8Array): Signer {
  const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
  return {
    keyType: key.asymmetricKeyType === 'rsa' ? 'rsa-2048' : 'ec-p256',
    publicKey: spki,
    sign: () => Promise.reject(new Error('bug: the test signs with a key that it does not have')),
  }
}

/** Serial numbers are positive: the sign bit is cleared, and the first octet is never zero. */
function positive(bytes: Uint8Array): Uint8Array {
  bytes[0] = (bytes[0]! & 0x7f) | 0x01
  return bytes
}
