import type { Instant } from '../kernel/clock.ts'

/**
 * A value about to be written. Building one only adds up lengths; {@link encodeDer} then fills one buffer.
 * A Uint8Array stands for bytes that are DER already.
 */
export type Der = Uint8Array | DerNode

interface DerNode {
  readonly tag: number
  readonly parts: readonly Der[]
  /** Of the content. */
  readonly length: number
  /** An octet that precedes the content: the count of unused bits of a bit string. */
  readonly lead: number | undefined
}

/** The bytes of a value, in the one form that DER allows (X.690 sections 10 and 11). */
export function encodeDer(value: Der): Uint8Array {
  const out = new Uint8Array(sizeOf(value))
  write(value, out, 0)
  return out
}

export const sequence = (...parts: readonly Der[]): Der => node(0x30, parts)

/** SET OF: DER sorts the elements by their bytes (X.690 section 11.6). */
export function setOf(elements: readonly Der[]): Der {
  if (elements.length < 2) return node(0x31, elements)
  return node(0x31, elements.map(encodeDer).toSorted(Buffer.compare))
}

/** `[number] EXPLICIT`, or `[number] IMPLICIT` of something constructed. */
export const tagged = (number: number, ...parts: readonly Der[]): Der => node(0xa0 | number, parts)

/** `[number] IMPLICIT` of something primitive. */
export const taggedPrimitive = (number: number, content: Uint8Array): Der => node(0x80 | number, [content])

/** TRUE only: a FALSE is always a default in what we write, and defaults are left out (X.690 section 11.5). */
export const booleanTrue: Der = Uint8Array.of(0x01, 0x01, 0xff)

export const nullValue: Der = Uint8Array.of(0x05, 0x00)

/** A number from zero on, of any size, big-endian; leading zeros do not matter. */
export function unsignedInteger(magnitude: Uint8Array): Der {
  let start = 0
  while (start < magnitude.length - 1 && magnitude[start] === 0) start++
  const digits = magnitude.length === 0 ? Uint8Array.of(0) : magnitude.subarray(start)
  return digits[0]! >= 0x80 ? node(0x02, [digits], 0) : node(0x02, [digits])
}

/** A number from zero to 127: versions and path lengths. */
export function tinyInteger(value: number): Der {
  if (!Number.isInteger(value) || value < 0 || value > 127) throw new Error(`bug: ${value} is no integer from 0 to 127`)
  return Uint8Array.of(0x02, 0x01, value)
}

export const octetString = (...parts: readonly Der[]): Der => node(0x04, parts)

/** A bit string of whole octets. */
export const bitString = (content: Uint8Array): Der => node(0x03, [content], 0)

/** Named bits, the first in the highest of 16 bits; trailing zero bits are left out (X.690 section 11.2.2). */
export function namedBits(bits: number): Der {
  if (bits === 0) return Uint8Array.of(0x03, 0x01, 0x00)
  const octets = (bits & 0xff) === 0 ? [bits >> 8] : [bits >> 8, bits & 0xff]
  const last = octets.at(-1)!
  const unused = 31 - Math.clz32(last & -last)
  return Uint8Array.of(0x03, octets.length + 1, unused, ...octets)
}

export function objectIdentifier(dotted: string): Der {
  const arcs = dotted.split('.').map(BigInt)
  const [first, second, ...others] = arcs
  if (first === undefined || second === undefined) throw new Error(`bug: \`${dotted}\` is no object identifier`)
  return node(0x06, [Uint8Array.from([first * 40n + second, ...others].flatMap(base128))])
}

export const utf8String = (text: string): Der => node(0x0c, [Buffer.from(text, 'utf8')])
export const printableString = (text: string): Der => node(0x13, [ascii(text)])
export const ia5String = (text: string): Der => node(0x16, [ascii(text)])

/** The bytes of a text that holds ISO 646 only. */
export function ascii(text: string): Uint8Array {
  const bytes = Buffer.from(text, 'latin1')
  if (bytes.length !== text.length || /[^\x00-\x7f]/.test(text)) throw new Error('bug: a text that must be ASCII is not')
  return bytes
}

/**
 * A moment in whole seconds: UTCTime through 2049, GeneralizedTime from 2050 to 9999 (RFC 5280 section 4.1.2.5).
 * Fractions of a second are cut off.
 */
export function time(at: Instant): Der {
  const seconds = Math.floor(at / 1000)
  const days = Math.floor(seconds / 86_400)
  const left = seconds - days * 86_400
  const { year, month, day } = calendar(days)
  if (!(year >= 1950 && year <= 9999)) throw new Error('bug: a certificate cannot hold this moment')
  const rest = `${two(month)}${two(day)}${two(Math.floor(left / 3600))}${two(Math.floor(left / 60) % 60)}${two(left % 60)}Z`
  return year < 2050 ? node(0x17, [ascii(two(year % 100) + rest)]) : node(0x18, [ascii(`${year}${rest}`)])
}

function node(tag: number, parts: readonly Der[], lead?: number): DerNode {
  let length = lead === undefined ? 0 : 1
  for (const part of parts) length += sizeOf(part)
  return { tag, parts, length, lead }
}

function sizeOf(value: Der): number {
  if (value instanceof Uint8Array) return value.length
  return 1 + lengthOctets(value.length) + value.length
}

function lengthOctets(length: number): number {
  if (length < 0x80) return 1
  return length < 0x100 ? 2 : length < 0x1_0000 ? 3 : 4
}

/** Writes at `at` and tells where the next value goes. */
function write(value: Der, out: Uint8Array, at: number): number {
  if (value instanceof Uint8Array) {
    out.set(value, at)
    return at + value.length
  }
  out[at++] = value.tag
  at = writeLength(value.length, out, at)
  if (value.lead !== undefined) out[at++] = value.lead
  for (const part of value.parts) at = write(part, out, at)
  return at
}

function writeLength(length: number, out: Uint8Array, at: number): number {
  const octets = lengthOctets(length) - 1
  if (octets > 0) out[at++] = 0x80 | octets
  for (let shift = 8 * Math.max(octets - 1, 0); shift >= 0; shift -= 8) out[at++] = (length >>> shift) & 0xff
  return at
}

function base128(arc: bigint): number[] {
  const octets = [Number(arc & 0x7fn)]
  for (let left = arc >> 7n; left > 0n; left >>= 7n) octets.unshift(Number(left & 0x7fn) | 0x80)
  return octets
}

/** The date of a day counted from 1970-01-01, by eras of 400 years that begin in March (Gregorian calendar). */
function calendar(days: number): { year: number; month: number; day: number } {
  const shifted = days + 719_468
  const era = Math.floor(shifted / 146_097)
  const dayOfEra = shifted - era * 146_097
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096)) / 365,
  )
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const fromMarch = Math.floor((5 * dayOfYear + 2) / 153)
  const month = fromMarch < 10 ? fromMarch + 3 : fromMarch - 9
  return { year: era * 400 + yearOfEra + (month <= 2 ? 1 : 0), month, day: dayOfYear - Math.floor((153 * fromMarch + 2) / 5) + 1 }
}

function two(value: number): string {
  return value < 10 ? `0${value}` : `${value}`
}
