import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'

/** Bounds on what is read (rule R-28). */
export interface DerLimits {
  /** 64 KiB when left out. */
  readonly maxBytes?: number
}

/**
 * Reads one DER value that fills `bytes` to the end (X.690 section 10: definite, minimal lengths; one way to write each value).
 * @throws Failure `der.too-long`, `der.truncated`, `der.trailing-bytes`, `der.too-deep`, `der.length`, `der.tag`, `der.value`
 */
export function readDer<T>(bytes: Uint8Array, read: (reader: DerReader) => T, limits: DerLimits = {}): T {
  if (bytes.length > (limits.maxBytes ?? maxBytes)) {
    throw refusal('too-long', `${bytes.length} bytes are too many for one value: at most ${limits.maxBytes ?? maxBytes}`)
  }
  const reader = new DerReader(bytes, 0, bytes.length, 0)
  const value = read(reader)
  reader.end()
  return value
}

/** Walks over the values that stand one after the other in a stretch of bytes, each exactly once. */
export class DerReader {
  readonly #bytes: Uint8Array
  readonly #end: number
  readonly #depth: number
  #at: number
  #start = 0
  #contentStart = 0
  #contentEnd = 0

  /** Use {@link readDer}, which also bounds the input and refuses what trails it. */
  constructor(bytes: Uint8Array, start: number, end: number, depth: number) {
    if (depth > maxDepth) throw refusal('too-deep', `values are nested deeper than ${maxDepth}`)
    this.#bytes = bytes
    this.#at = start
    this.#end = end
    this.#depth = depth
  }

  get more(): boolean {
    return this.#at < this.#end
  }

  /** Whether a value follows and has this identifier octet. */
  nextIs(tag: number): boolean {
    return this.#at < this.#end && this.#bytes[this.#at] === tag
  }

  /** The identifier octet of the value that follows. @throws Failure `der.truncated` */
  nextTag(): number {
    if (this.#at >= this.#end) throw refusal('truncated', 'a value is missing')
    return this.#bytes[this.#at]!
  }

  /** The whole next value, identifier and length included, without moving on. */
  peek(): Uint8Array {
    const start = this.#at
    this.#header()
    this.#at = start
    return this.#bytes.subarray(start, this.#contentEnd)
  }

  /** What is left of this stretch, without moving on. */
  rest(): Uint8Array {
    return this.#bytes.subarray(this.#at, this.#end)
  }

  /** Refuses bytes that nobody asked for. @throws Failure `der.trailing-bytes` */
  end(): void {
    if (this.#at !== this.#end) throw refusal('trailing-bytes', `${this.#end - this.#at} bytes follow where nothing may`)
  }

  /** Reads a constructed value; `read` must consume all of it. */
  inside<T>(tag: number, read: (inside: DerReader) => T): T {
    this.#expect(tag)
    const inside = new DerReader(this.#bytes, this.#contentStart, this.#contentEnd, this.#depth + 1)
    const value = read(inside)
    inside.end()
    return value
  }

  sequence<T>(read: (inside: DerReader) => T): T {
    return this.inside(derTag.sequence, read)
  }

  /** Reads a constructed value whose elements are all alike, at least `least` of them. */
  listOf<T>(tag: number, read: (element: DerReader) => T, least = 0): T[] {
    return this.inside(tag, (inside) => {
      const list: T[] = []
      while (inside.more) list.push(read(inside))
      if (list.length < least) throw refusal('value', 'a list is empty that may not be')
      return list
    })
  }

  /** A SET OF: like {@link listOf}, and in the one order that DER allows (X.690 section 11.6). */
  setOf<T>(tag: number, read: (element: DerReader) => T, least = 0): T[] {
    let before: Uint8Array | undefined
    return this.listOf(
      tag,
      (element) => {
        const raw = element.peek()
        if (before !== undefined && Buffer.compare(before, raw) > 0) throw refusal('value', 'the elements of a set are out of order')
        before = raw
        return read(element)
      },
      least,
    )
  }

  /** The content of a primitive value with this identifier octet. */
  primitive(tag: number): Uint8Array {
    this.#expect(tag)
    return this.#bytes.subarray(this.#contentStart, this.#contentEnd)
  }

  /** Any value whatever: checks that it is well formed all the way down. */
  skip(): void {
    this.#header()
    if ((this.#bytes[this.#start]! & constructed) === 0) return
    const inside = new DerReader(this.#bytes, this.#contentStart, this.#contentEnd, this.#depth + 1)
    while (inside.more) inside.skip()
  }

  octetString(): Uint8Array {
    return this.primitive(derTag.octetString)
  }

  /** X.690 section 11.1: false is 00, true is FF. */
  boolean(): boolean {
    const content = this.primitive(derTag.boolean)
    const value = content[0]
    if (content.length !== 1 || (value !== 0 && value !== 0xff)) throw refusal('value', 'a boolean is neither 00 nor ff')
    return value === 0xff
  }

  /** A BOOLEAN DEFAULT FALSE: absent or true, for a default is never written (X.690 section 11.5). */
  trueOrAbsent(): boolean {
    if (!this.nextIs(derTag.boolean)) return false
    if (!this.boolean()) throw refusal('value', 'a default value is written out')
    return true
  }

  /** The content octets of an integer, in the shortest form (X.690 section 8.3.2). */
  integer(tag: number = derTag.integer): Uint8Array {
    const content = this.primitive(tag)
    if (content.length === 0) throw refusal('value', 'an integer is empty')
    if (content.length > 1) {
      const first = content[0]!
      const second = content[1]!
      if ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80))
        throw refusal('value', 'an integer is not in its shortest form')
    }
    return content
  }

  /** An integer from zero on, without its sign octet. */
  unsigned(tag: number = derTag.integer): Uint8Array {
    const content = this.integer(tag)
    if (content[0]! >= 0x80) throw refusal('value', 'an integer is negative')
    return content[0] === 0 && content.length > 1 ? content.subarray(1) : content
  }

  /** An integer from zero to 2^31 - 1. */
  smallInteger(tag: number = derTag.integer): number {
    const content = this.unsigned(tag)
    if (content.length > 4 || (content.length === 4 && content[0]! >= 0x80)) throw refusal('value', 'an integer is too large')
    let value = 0
    for (const byte of content) value = value * 256 + byte
    return value
  }

  /** A bit string of whole octets. */
  bitString(): Uint8Array {
    const content = this.primitive(derTag.bitString)
    if (content.length === 0 || content[0] !== 0) throw refusal('value', 'a bit string does not hold whole octets')
    return content.subarray(1)
  }

  /** A list of named bits, the first one in the highest bit; trailing zero bits are not written (X.690 section 11.2.2). */
  namedBits(): number {
    const content = this.primitive(derTag.bitString)
    const unused = content[0]
    if (unused === undefined || unused > 7 || content.length > 3) throw refusal('value', 'a list of bits is malformed')
    const last = content.length > 1 ? content[content.length - 1]! : 1
    if ((content.length === 1 && unused !== 0) || (last & ((1 << (unused + 1)) - 1)) !== 1 << unused) {
      throw refusal('value', 'a list of bits is not in its shortest form')
    }
    return ((content[1] ?? 0) << 8) | (content[2] ?? 0)
  }

  null(): void {
    if (this.primitive(derTag.null).length !== 0) throw refusal('value', 'a null holds something')
  }

  /** An object identifier in dotted form. */
  oid(tag: number = derTag.oid): string {
    return dotted(this.primitive(tag))
  }

  /** Characters of ISO 646 only. */
  ascii(tag: number): string {
    const content = this.primitive(tag)
    for (const byte of content) if (byte > 0x7f) throw refusal('value', 'a text holds a byte above 7f')
    return asBuffer(content).toString('latin1')
  }

  /** UTCTime through 2049, GeneralizedTime from 2050 on, in the one form that RFC 5280 section 4.1.2.5 allows. */
  time(): Instant {
    const tag = this.nextTag()
    if (tag !== derTag.utcTime && tag !== derTag.generalizedTime) throw refusal('tag', `a time is tagged ${tag.toString(16)}`)
    return moment(this.primitive(tag), tag === derTag.generalizedTime)
  }

  #expect(tag: number): void {
    const found = this.nextTag()
    if (found !== tag) throw refusal('tag', `expected a value tagged ${tag.toString(16)}, found ${found.toString(16)}`)
    this.#header()
  }

  /** Reads identifier and length, and steps over the value (X.690 section 8.1, with the limits of section 10.1). */
  #header(): void {
    const bytes = this.#bytes
    const end = this.#end
    let at = this.#at
    this.#start = at
    if (at + 2 > end) throw refusal('truncated', 'a value ends within its header')
    if ((bytes[at]! & 0x1f) === 0x1f) throw refusal('tag', 'a tag has a number above 30')
    let length = bytes[at + 1]!
    at += 2
    if (length >= 0x80) {
      const octets = length & 0x7f
      if (octets === 0) throw refusal('length', 'a length is indefinite')
      if (octets > 3) throw refusal('length', 'a length takes more than three octets')
      if (at + octets > end) throw refusal('truncated', 'a value ends within its header')
      length = 0
      for (let i = 0; i < octets; i++) length = length * 256 + bytes[at++]!
      if (length < 0x80 || (octets > 1 && length < 1 << (8 * (octets - 1)))) throw refusal('length', 'a length is not in its shortest form')
    }
    if (at + length > end) throw refusal('truncated', 'a value reaches beyond what holds it')
    this.#contentStart = at
    this.#contentEnd = at + length
    this.#at = at + length
  }
}

/** Identifier octets. */
export const derTag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const

/** The identifier octet of `[number]`, primitive. */
export const contextPrimitive = (number: number): number => 0x80 | number
/** The identifier octet of `[number]`, constructed. */
export const contextConstructed = (number: number): number => 0xa0 | number

function dotted(content: Uint8Array): string {
  if (content.length === 0 || content.length > maxOidBytes || content[content.length - 1]! >= 0x80)
    throw refusal('value', 'an object identifier is malformed')
  let text = ''
  for (let at = 0; at < content.length;) {
    if (content[at] === 0x80) throw refusal('value', 'an object identifier is not in its shortest form')
    let arc = 0
    let byte: number
    const start = at
    do {
      byte = content[at++]!
      arc = arc * 128 + (byte & 0x7f)
    } while (byte >= 0x80)
    if (text !== '') text += `.${at - start > 7 ? longArc(content.subarray(start, at)) : arc}`
    else if (at - start > 7) text = `2.${longArc(content.subarray(start, at)) - 80n}`
    else text = arc < 80 ? `${Math.floor(arc / 40)}.${arc % 40}` : `2.${arc - 80}`
  }
  return text
}

/** An arc that a number cannot hold exactly, as those made from UUIDs are. */
function longArc(octets: Uint8Array): bigint {
  let arc = 0n
  for (const octet of octets) arc = (arc << 7n) | BigInt(octet & 0x7f)
  return arc
}

function moment(text: Uint8Array, general: boolean): Instant {
  const yearDigits = general ? 4 : 2
  if (text.length !== yearDigits + 11 || text[text.length - 1] !== zulu)
    throw refusal('value', 'a time is not in the form that RFC 5280 demands')
  const two = (at: number): number => {
    const tens = text[at]! - zero
    const ones = text[at + 1]! - zero
    if (tens < 0 || tens > 9 || ones < 0 || ones > 9) throw refusal('value', 'a time holds something else than digits')
    return tens * 10 + ones
  }
  const short = two(0)
  const year = general ? short * 100 + two(2) : short < 50 ? 2000 + short : 1900 + short
  if (general && year < 2050) throw refusal('value', 'a year before 2050 is written with four digits')
  const month = two(yearDigits)
  const day = two(yearDigits + 2)
  const hour = two(yearDigits + 4)
  const minute = two(yearDigits + 6)
  const second = two(yearDigits + 8)
  if (month < 1 || month > 12 || day < 1 || day > daysIn(month, year) || hour > 23 || minute > 59 || second > 59) {
    throw refusal('value', 'a time does not exist in the calendar')
  }
  return (((daysSince1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000
}

function daysIn(month: number, year: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31
}

/** Counts in years that begin in March, so that the leap day is the last of its year. */
function daysSince1970(year: number, month: number, day: number): number {
  const y = month > 2 ? year : year - 1
  const dayOfYear = Math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  return y * 365 + Math.floor(y / 4) - Math.floor(y / 100) + Math.floor(y / 400) + dayOfYear - 719_468
}

function refusal(what: string, text: string): Failure {
  return new Failure('invalid_argument', `der.${what}`, { public: `not valid DER: ${text}` })
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

const constructed = 0x20
const zero = 0x30
const zulu = 0x5a
/** Rule R-28. */
const maxDepth = 32
const maxBytes = 64 * 1024
const maxOidBytes = 64
