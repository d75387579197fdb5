import { Failure } from '../kernel/failure.ts'
import { contextConstructed, contextPrimitive, type DerReader, derTag, readDer } from './der-reader.ts'
import {
  ascii,
  booleanTrue,
  type Der,
  encodeDer,
  namedBits,
  objectIdentifier,
  octetString as writeOctetString,
  sequence,
  tagged,
  taggedPrimitive,
  tinyInteger,
} from './der-writer.ts'
import { oid } from './oid.ts'

/** One extension as it stands in a certificate: `value` is the content of its octet string. */
export interface Extension {
  readonly critical: boolean
  readonly value: Uint8Array
}

/** RFC 5280 section 4.2.1.9. */
export interface BasicConstraints {
  readonly critical: boolean
  readonly ca: boolean
  readonly pathLength?: number
}

/** In the order of their bits (RFC 5280 section 4.2.1.3). */
export const keyUsageNames = [
  'digitalSignature',
  'nonRepudiation',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
  'encipherOnly',
  'decipherOnly',
] as const
export type KeyUsageName = (typeof keyUsageNames)[number]

export interface KeyUsage extends Readonly<Record<KeyUsageName, boolean>> {
  readonly critical: boolean
}

/** RFC 5280 section 4.2.1.12; purposes as dotted object identifiers. */
export interface ExtKeyUsage {
  readonly critical: boolean
  readonly purposes: readonly string[]
}

/** Names by their type in the DER, never by a text that joins them (rule R-14). */
export interface SubjectAltName {
  readonly critical: boolean
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
  /** 4 or 16 octets each. */
  readonly ips: readonly Uint8Array[]
  readonly emails: readonly string[]
  /** How many names there are of other types. */
  readonly others: number
}

/** RFC 5280 section 4.2.1.10. */
export interface NameConstraints {
  readonly critical: boolean
  readonly permittedUris: readonly string[]
  readonly excludedUris: readonly string[]
  readonly permittedDns: readonly string[]
  readonly excludedDns: readonly string[]
  /** Types of name (numbers of GeneralName) that are constrained as well, in a way that we do not evaluate: names of these types are refused below. */
  readonly otherTypes: readonly number[]
}

export function readExtensions(reader: DerReader): Map<string, Extension> {
  const extensions = new Map<string, Extension>()
  reader.listOf(
    derTag.sequence,
    (element) =>
      element.sequence((inside) => {
        const type = inside.oid()
        const critical = inside.trueOrAbsent()
        if (extensions.has(type)) throw malformed('duplicate-extension', `extension \`${type}\` occurs twice`)
        if (extensions.size >= maxExtensions) throw malformed('too-many-extensions', `there are more than ${maxExtensions} extensions`)
        extensions.set(type, { critical, value: inside.octetString() })
      }),
    1,
  )
  return extensions
}

export function writeExtension(type: string, critical: boolean, value: Der): Der {
  const known = writtenOids.get(type) ?? objectIdentifier(type)
  return critical ? sequence(known, booleanTrue, writeOctetString(value)) : sequence(known, writeOctetString(value))
}

export function readBasicConstraints({ critical, value }: Extension): BasicConstraints {
  return readDer(value, (reader) =>
    reader.sequence((inside) => {
      const ca = inside.trueOrAbsent()
      if (!inside.more) return { critical, ca }
      if (!ca) throw malformed('basic-constraints', 'a path length is given for what is not a CA')
      return { critical, ca, pathLength: inside.smallInteger() }
    }),
  )
}

export function writeBasicConstraints(ca: false | { readonly pathLength?: number }): Der {
  if (ca === false) return sequence()
  return ca.pathLength === undefined ? sequence(booleanTrue) : sequence(booleanTrue, tinyInteger(ca.pathLength))
}

export function readKeyUsage({ critical, value }: Extension): KeyUsage {
  const bits = readDer(value, (reader) => reader.namedBits())
  if (bits === 0) throw malformed('key-usage', 'a key usage names no use')
  return {
    critical,
    digitalSignature: (bits & 0x8000) !== 0,
    nonRepudiation: (bits & 0x4000) !== 0,
    keyEncipherment: (bits & 0x2000) !== 0,
    dataEncipherment: (bits & 0x1000) !== 0,
    keyAgreement: (bits & 0x0800) !== 0,
    keyCertSign: (bits & 0x0400) !== 0,
    cRLSign: (bits & 0x0200) !== 0,
    encipherOnly: (bits & 0x0100) !== 0,
    decipherOnly: (bits & 0x0080) !== 0,
  }
}

export function writeKeyUsage(names: readonly KeyUsageName[]): Der {
  let bits = 0
  for (const name of names) bits |= 0x8000 >> keyUsageNames.indexOf(name)
  return namedBits(bits)
}

export function readExtKeyUsage({ critical, value }: Extension): ExtKeyUsage {
  return { critical, purposes: readDer(value, (reader) => reader.listOf(derTag.sequence, (element) => element.oid(), 1)) }
}

export function writeExtKeyUsage(purposes: readonly ('serverAuth' | 'clientAuth')[]): Der {
  return sequence(...purposes.map((purpose) => purposeOids[purpose]))
}

export function readSubjectAltName({ critical, value }: Extension): SubjectAltName {
  const uris: string[] = []
  const dnsNames: string[] = []
  const ips: Uint8Array[] = []
  const emails: string[] = []
  let others = 0
  readDer(value, (reader) =>
    reader.listOf(
      derTag.sequence,
      (element) => {
        const tag = element.nextTag()
        if (tag === contextPrimitive(generalName.uri)) uris.push(element.ascii(tag))
        else if (tag === contextPrimitive(generalName.dns)) dnsNames.push(element.ascii(tag))
        else if (tag === contextPrimitive(generalName.email)) emails.push(element.ascii(tag))
        else if (tag === contextPrimitive(generalName.ip)) ips.push(ipAddress(element.primitive(tag)))
        else {
          if (!otherNames.has(tag)) throw malformed('subject-alt-name', `a name has the unknown tag ${tag.toString(16)}`)
          element.skip()
          others++
        }
      },
      1,
    ),
  )
  return { critical, uris, dnsNames, ips, emails, others }
}

export function writeSubjectAltName({ uris, dnsNames }: { readonly uris: readonly string[]; readonly dnsNames: readonly string[] }): Der {
  return sequence(
    ...uris.map((uri) => taggedPrimitive(generalName.uri, ascii(uri))),
    ...dnsNames.map((name) => taggedPrimitive(generalName.dns, ascii(name))),
  )
}

export function readSubjectKeyIdentifier({ value }: Extension): Uint8Array {
  const identifier = readDer(value, (reader) => reader.octetString())
  if (identifier.length === 0) throw malformed('key-identifier', 'a key identifier is empty')
  return identifier
}

export function writeSubjectKeyIdentifier(identifier: Uint8Array): Der {
  return writeOctetString(identifier)
}

/** Only the key identifier matters to us; issuer and serial are checked for form (RFC 5280 section 4.2.1.1). */
export function readAuthorityKeyIdentifier({ value }: Extension): Uint8Array | undefined {
  return readDer(value, (reader) =>
    reader.sequence((inside) => {
      const identifier = inside.nextIs(contextPrimitive(0)) ? inside.primitive(contextPrimitive(0)) : undefined
      if (inside.nextIs(contextConstructed(1))) inside.skip()
      if (inside.nextIs(contextPrimitive(2))) inside.integer(contextPrimitive(2))
      return identifier
    }),
  )
}

export function writeAuthorityKeyIdentifier(identifier: Uint8Array): Der {
  return sequence(taggedPrimitive(0, identifier))
}

export function readNameConstraints({ critical, value }: Extension): NameConstraints {
  return readDer(value, (reader) =>
    reader.sequence((inside) => {
      const permitted = readSubtrees(inside, 0)
      const excluded = readSubtrees(inside, 1)
      if (!permitted && !excluded) throw malformed('name-constraints', 'name constraints constrain nothing')
      return {
        critical,
        permittedUris: permitted?.uris ?? [],
        excludedUris: excluded?.uris ?? [],
        permittedDns: permitted?.dns ?? [],
        excludedDns: excluded?.dns ?? [],
        otherTypes: [...new Set([...(permitted?.others ?? []), ...(excluded?.others ?? [])])],
      }
    }),
  )
}

export type NameConstraintLists = Partial<Pick<NameConstraints, 'permittedUris' | 'excludedUris' | 'permittedDns' | 'excludedDns'>>

export function writeNameConstraints(lists: NameConstraintLists): Der {
  const permitted = writeSubtrees(lists.permittedUris ?? [], lists.permittedDns ?? [])
  const excluded = writeSubtrees(lists.excludedUris ?? [], lists.excludedDns ?? [])
  return sequence(...(permitted.length > 0 ? [tagged(0, ...permitted)] : []), ...(excluded.length > 0 ? [tagged(1, ...excluded)] : []))
}

interface Subtrees {
  readonly uris: string[]
  readonly dns: string[]
  readonly others: number[]
}

function readSubtrees(reader: DerReader, number: number): Subtrees | undefined {
  if (!reader.nextIs(contextConstructed(number))) return undefined
  const found: Subtrees = { uris: [], dns: [], others: [] }
  reader.listOf(
    contextConstructed(number),
    (element) =>
      // `minimum` is always its default and `maximum` absent (RFC 5280 section 4.2.1.10), so a base is all there may be.
      element.sequence((inside) => {
        const tag = inside.nextTag()
        if (tag === contextPrimitive(generalName.uri)) found.uris.push(host(inside.ascii(tag)))
        else if (tag === contextPrimitive(generalName.dns)) found.dns.push(inside.ascii(tag).toLowerCase())
        else {
          inside.skip()
          found.others.push(tag & 0x1f)
        }
      }),
    1,
  )
  return found
}

/** A constraint on URIs names a host, or with a leading dot every host below a domain; what is no host would match nothing. */
function host(text: string): string {
  if (!/^\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$/.test(text))
    throw malformed('name-constraints', 'a name constraint on URIs is not the name of a host')
  return text.toLowerCase()
}

function writeSubtrees(uris: readonly string[], dns: readonly string[]): Der[] {
  return [
    ...uris.map((uri) => sequence(taggedPrimitive(generalName.uri, ascii(uri)))),
    ...dns.map((name) => sequence(taggedPrimitive(generalName.dns, ascii(name)))),
  ]
}

function ipAddress(octets: Uint8Array): Uint8Array {
  if (octets.length !== 4 && octets.length !== 16) throw malformed('subject-alt-name', 'an IP address has neither 4 nor 16 octets')
  return octets
}

function malformed(what: string, text: string): Failure {
  return new Failure('invalid_argument', `x509.${what}`, { public: text })
}

/** Numbers of GeneralName (RFC 5280 section 4.2.1.6). */
export const generalName = { otherName: 0, email: 1, dns: 2, x400: 3, directory: 4, ediParty: 5, uri: 6, ip: 7, registeredId: 8 } as const

const otherNames: ReadonlySet<number> = new Set([
  contextConstructed(generalName.otherName),
  contextConstructed(generalName.x400),
  contextConstructed(generalName.directory),
  contextConstructed(generalName.ediParty),
  contextPrimitive(generalName.registeredId),
])

const purposeOids = { serverAuth: encodeDer(objectIdentifier(oid.serverAuth)), clientAuth: encodeDer(objectIdentifier(oid.clientAuth)) }

/** Encoded once, since every certificate carries them. */
const writtenOids: ReadonlyMap<string, Uint8Array> = new Map(
  [
    oid.basicConstraints,
    oid.keyUsage,
    oid.extKeyUsage,
    oid.subjectAltName,
    oid.subjectKeyIdentifier,
    oid.authorityKeyIdentifier,
    oid.nameConstraints,
  ].map((type) => [type, encodeDer(objectIdentifier(type))]),
)

const maxExtensions = 64
