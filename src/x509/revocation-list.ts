import { fromHex, hex, sameBytes } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { Certificate } from './certificate.ts'
import { contextConstructed, type DerReader, derTag, readDer } from './der-reader.ts'
import { bitString, encodeDer, sequence, tagged, time, tinyInteger, unsignedInteger } from './der-writer.ts'
import { type Extension, readAuthorityKeyIdentifier, readExtensions, writeAuthorityKeyIdentifier, writeExtension } from './extension.ts'
import { keyTypes } from './key-type.ts'
import { type Name, readName } from './name.ts'
import { oid } from './oid.ts'
import { importPublicKey, readSignatureAlgorithm, type SignatureAlgorithm, type Signer, verifySignature } from './signature.ts'

/** A certificate revocation list as its bytes say (RFC 5280 section 5). Read, not believed: {@link revocationListSignedBy} says whose it is. */
export interface RevocationList {
  readonly raw: Uint8Array
  readonly tbs: Uint8Array
  readonly issuer: Name
  readonly thisUpdate: Instant
  readonly nextUpdate: Instant
  /** Lower-case hex of the number, two digits an octet. */
  readonly number: string
  /** When each was revoked, by serial number as certificates have it. */
  readonly revoked: ReadonlyMap<string, Instant>
  readonly authorityKeyId: Uint8Array | undefined
  readonly signatureAlgorithm: SignatureAlgorithm
  readonly signature: Uint8Array
}

/**
 * Reads one list, DER: version 2, with its number and with the moment of the next. A critical extension that is not understood makes a list useless.
 * @throws Failure `der.*`, `x509.*`, `crl.version`, `crl.too-many-entries`, `crl.duplicate-entry`, `crl.unknown-critical`, `crl.no-number`, `crl.times`
 */
export function parseRevocationList(der: Uint8Array): RevocationList {
  const raw = der.length > maxListBytes ? der : new Uint8Array(der)
  return readDer(
    raw,
    (reader) =>
      reader.sequence((outer) => {
        const tbs = outer.peek()
        const { algorithm, ...fields } = outer.sequence(readToBeSigned)
        const signatureAlgorithm = readSignatureAlgorithm(outer)
        if (!sameBytes(signatureAlgorithm.raw, algorithm.raw)) {
          throw malformed('x509.signature-algorithm', 'the signature algorithm differs inside and outside of what is signed')
        }
        return Object.freeze({ raw, tbs, ...fields, signatureAlgorithm, signature: outer.bitString() })
      }),
    { maxBytes: maxListBytes },
  )
}

/** Whether the issuer made this list: its name, its key, and a key that may sign lists. Time is the caller's business. */
export function revocationListSignedBy(list: RevocationList, issuer: Certificate): boolean {
  if (!sameBytes(list.issuer.raw, issuer.subject.raw) || issuer.keyUsage?.cRLSign === false) return false
  return verifySignature(importPublicKey(issuer.spki), list.signatureAlgorithm, list.tbs, list.signature)
}

export interface RevocationListContent {
  readonly issuer: Pick<Certificate, 'subject' | 'subjectKeyId'>
  /** Greater than that of every list before (RFC 5280 section 5.2.3). */
  readonly number: bigint
  readonly thisUpdate: Instant
  readonly nextUpdate: Instant
  readonly revoked: readonly { readonly serial: string; readonly at: Instant }[]
}

/** A signed list, DER, its entries in the order given. */
export async function createRevocationList(signer: Signer, content: RevocationListContent, signal?: AbortSignal): Promise<Uint8Array> {
  const { issuer, number, thisUpdate, nextUpdate, revoked } = content
  const algorithm = keyTypes[signer.keyType].signatureAlgorithm
  const entries = revoked.map(({ serial, at }) => sequence(unsignedInteger(fromHex(serial)), time(at)))
  const extensions = [
    ...(issuer.subjectKeyId ? [writeExtension(oid.authorityKeyIdentifier, false, writeAuthorityKeyIdentifier(issuer.subjectKeyId))] : []),
    writeExtension(oid.cRLNumber, false, unsignedInteger(fromHex(evenHex(number)))),
  ]
  const tbs = encodeDer(
    sequence(
      tinyInteger(1),
      algorithm,
      issuer.subject.raw,
      time(thisUpdate),
      time(nextUpdate),
      ...(entries.length > 0 ? [sequence(...entries)] : []),
      tagged(0, sequence(...extensions)),
    ),
  )
  return encodeDer(sequence(tbs, algorithm, bitString(await signer.sign(tbs, signal))))
}

function readToBeSigned(reader: DerReader) {
  if (!reader.nextIs(derTag.integer) || reader.smallInteger() !== 1) throw malformed('crl.version', 'a revocation list is not of version 2')
  const algorithm = readSignatureAlgorithm(reader)
  const issuer = readName(reader)
  const thisUpdate = reader.time()
  const nextUpdate = reader.time()
  if (nextUpdate < thisUpdate) throw malformed('crl.times', 'a revocation list ends before it begins')
  const revoked = reader.nextIs(derTag.sequence) ? readEntries(reader) : new Map<string, Instant>()
  const extensions = reader.inside(contextConstructed(0), readExtensions)
  demandKnown(extensions, listExtensions)
  const number = extensions.get(oid.cRLNumber)
  if (!number) throw malformed('crl.no-number', 'a revocation list has no number')
  const authority = extensions.get(oid.authorityKeyIdentifier)
  return {
    algorithm,
    issuer,
    thisUpdate,
    nextUpdate,
    revoked,
    number: hex(readDer(number.value, (inside) => inside.unsigned())),
    authorityKeyId: authority && readAuthorityKeyIdentifier(authority),
  }
}

function readEntries(reader: DerReader): Map<string, Instant> {
  const revoked = new Map<string, Instant>()
  reader.listOf(
    derTag.sequence,
    (element) =>
      element.sequence((entry) => {
        const serial = hex(entry.unsigned())
        if (revoked.has(serial)) throw malformed('crl.duplicate-entry', 'a revocation list names a certificate twice')
        if (revoked.size >= maxEntries) throw malformed('crl.too-many-entries', `a revocation list has more than ${maxEntries} entries`)
        revoked.set(serial, entry.time())
        if (entry.more) demandKnown(readExtensions(entry), entryExtensions)
      }),
    1,
  )
  return revoked
}

/** An indirect or partial list says so in a critical extension: read as a whole one, it would let revoked certificates through. */
function demandKnown(extensions: ReadonlyMap<string, Extension>, known: ReadonlySet<string>): void {
  for (const [type, { critical }] of extensions) {
    if (critical && !known.has(type)) throw malformed('crl.unknown-critical', `a revocation list has the critical extension \`${type}\``)
  }
}

function evenHex(number: bigint): string {
  const digits = number.toString(16)
  return digits.length % 2 === 0 ? digits : `0${digits}`
}

function malformed(reason: string, text: string): Failure {
  return new Failure('invalid_argument', reason, { public: text })
}

const listExtensions: ReadonlySet<string> = new Set([oid.authorityKeyIdentifier, oid.cRLNumber])
const entryExtensions: ReadonlySet<string> = new Set([oid.cRLReason])
/** An entry takes about 35 octets. */
const maxListBytes = 1024 * 1024
const maxEntries = 20_000
