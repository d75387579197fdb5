import { Failure } from '../kernel/failure.ts'
import { fromUtf8, hex } from '../kernel/bytes.ts'
import { type DerReader, derTag } from './der-reader.ts'
import { type Der, encodeDer, ia5String, objectIdentifier, printableString, sequence, setOf, utf8String } from './der-writer.ts'
import { oid } from './oid.ts'

export interface NameAttribute {
  readonly oid: string
  readonly value: string
}

/** A distinguished name (RFC 5280 section 4.1.2.4). Two are the same when their bytes are. */
export interface Name {
  readonly raw: Uint8Array
  /** In the order in which they are written. */
  readonly attributes: readonly NameAttribute[]
  /** For people, most specific first (RFC 4514). Never compared. */
  readonly text: string
}

/** Reads the Name that follows. @throws Failure `der.*`, `x509.name` */
export function readName(reader: DerReader): Name {
  const raw = reader.peek()
  const relative = reader.listOf(derTag.sequence, (inside) => inside.setOf(derTag.set, readAttribute, 1))
  return { raw, attributes: relative.length === 1 ? relative[0]! : relative.flat(), text: tell(relative) }
}

/** The bytes of a name, each attribute in a relative name of its own, in this order. */
export function encodeName(attributes: readonly NameAttribute[]): Uint8Array {
  return encodeDer(
    sequence(
      ...attributes.map(({ oid: type, value }) =>
        setOf([sequence(writtenTypes.get(type) ?? objectIdentifier(type), attributeValue(type, value))]),
      ),
    ),
  )
}

function readAttribute(reader: DerReader): NameAttribute {
  return reader.sequence((inside) => ({ oid: inside.oid(), value: readValue(inside) }))
}

function readValue(reader: DerReader): string {
  const tag = reader.nextTag()
  switch (tag) {
    case derTag.utf8String:
      return wellFormed(() => fromUtf8(reader.primitive(tag)))
    case derTag.printableString:
    case derTag.ia5String:
      return reader.ascii(tag)
    case derTag.teletexString:
      return Buffer.from(reader.primitive(tag)).toString('latin1')
    case derTag.bmpString:
      return wellFormed(() => utf16.decode(reader.primitive(tag)))
    default: {
      const raw = reader.peek()
      reader.skip()
      return `#${hex(raw)}`
    }
  }
}

function wellFormed(decode: () => string): string {
  try {
    return decode()
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw new Failure('invalid_argument', 'x509.name', { public: 'a name holds text that is not well formed', cause })
  }
}

/** RFC 5280 appendix A.1: some attributes have a string type of their own, the others take UTF8String. */
function attributeValue(type: string, value: string): Der {
  if (type === oid.countryName || type === oid.serialNumber || type === oid.dnQualifier) return printableString(value)
  if (type === oid.domainComponent || type === oid.emailAddress) return ia5String(value)
  return utf8String(value)
}

function tell(relative: readonly (readonly NameAttribute[])[]): string {
  let text = ''
  for (const attributes of relative) {
    const one = attributes.map(({ oid: type, value }) => `${shortNames.get(type) ?? type}=${escape(value)}`).join('+')
    text = text === '' ? one : `${one},${text}`
  }
  return text
}

/** RFC 4514 section 2.4. */
function escape(value: string): string {
  if (plain.test(value)) return value
  return value
    .replace(/[\\"+,;<>]/g, '\\$&')
    .replace(/^[ #]|(?<=.) $/g, '\\$&')
    .replace(/[\x00-\x1f\x7f]/g, (control) => `\\${control.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

const plain = /^[A-Za-z0-9](?:[A-Za-z0-9 ._/:@-]*[A-Za-z0-9])?$/
const utf16 = new TextDecoder('utf-16be', { fatal: true })

const shortNames: ReadonlyMap<string, string> = new Map([
  [oid.commonName, 'CN'],
  [oid.surname, 'SN'],
  [oid.serialNumber, 'SERIALNUMBER'],
  [oid.countryName, 'C'],
  [oid.localityName, 'L'],
  [oid.stateOrProvinceName, 'ST'],
  [oid.organizationName, 'O'],
  [oid.organizationalUnitName, 'OU'],
  [oid.domainComponent, 'DC'],
  [oid.emailAddress, 'EMAIL'],
])

/** Encoded once, since every name carries some of them. */
const writtenTypes: ReadonlyMap<string, Uint8Array> = new Map(
  [...shortNames.keys()].map((type) => [type, encodeDer(objectIdentifier(type))]),
)
