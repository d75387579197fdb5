import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { concat, fromHex, hex } from '../../src/kernel/bytes.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { type DerReader, derTag, readDer } from '../../src/x509/der-reader.ts'
import * as write from '../../src/x509/der-writer.ts'

const skip = (reader: DerReader) => reader.skip()
const readHex = <T>(text: string, read: (reader: DerReader) => T): T => readDer(fromHex(text.replaceAll(' ', '')), read)
const reasonOf = (deed: () => unknown): string | undefined => {
  try {
    deed()
    return undefined
  } catch (error) {
    if (error instanceof Failure) return error.reason
    throw error
  }
}

describe('what is not DER is refused', () => {
  const refused: readonly [string, string, string, (reader: DerReader) => unknown][] = [
    ['nothing at all', '', 'der.truncated', skip],
    ['a header cut short', '30', 'der.truncated', skip],
    ['a length cut short', '30 82 01', 'der.truncated', skip],
    ['content cut short', '04 03 01 02', 'der.truncated', skip],
    ['an element that reaches out of its sequence', '30 03 04 02 00 00', 'der.truncated', skip],
    ['an indefinite length', '30 80 00 00', 'der.length', skip],
    ['a long length where a short one fits', '04 81 01 00', 'der.length', skip],
    ['a length with a leading zero', `04 82 00 80 ${'00'.repeat(128)}`, 'der.length', skip],
    ['a length of four octets', '04 84 00 00 00 01 00', 'der.length', skip],
    ['a reserved length octet', '04 ff 00', 'der.length', skip],
    ['a tag number above 30', '1f 81 00 00', 'der.tag', skip],
    ['trailing bytes', '05 00 00', 'der.trailing-bytes', skip],
    ['trailing bytes within a sequence', '30 04 05 00 05 00', 'der.trailing-bytes', (r) => r.sequence((inside) => inside.null())],
    ['another tag than expected', '04 00', 'der.tag', (r) => r.integer()],
    ['a true that is not ff', '01 01 01', 'der.value', (r) => r.boolean()],
    ['a boolean of two octets', '01 02 00 00', 'der.value', (r) => r.boolean()],
    ['a default that is written out', '01 01 00', 'der.value', (r) => r.trueOrAbsent()],
    ['an empty integer', '02 00', 'der.value', (r) => r.integer()],
    ['an integer with a useless zero', '02 02 00 7f', 'der.value', (r) => r.integer()],
    ['an integer with a useless ff', '02 02 ff 80', 'der.value', (r) => r.integer()],
    ['a negative number where none may be', '02 01 80', 'der.value', (r) => r.unsigned()],
    ['a small number that is large', '02 05 00 80 00 00 00', 'der.value', (r) => r.smallInteger()],
    ['a null that holds something', '05 01 00', 'der.value', (r) => r.null()],
    ['an empty object identifier', '06 00', 'der.value', (r) => r.oid()],
    ['an object identifier that does not end', '06 02 2a 86', 'der.value', (r) => r.oid()],
    ['an object identifier with a useless 80', '06 03 2a 80 01', 'der.value', (r) => r.oid()],
    ['a bit string without its count', '03 00', 'der.value', (r) => r.bitString()],
    ['a bit string of odd bits where octets are meant', '03 02 01 fe', 'der.value', (r) => r.bitString()],
    ['named bits with unused bits set', '03 02 05 b0', 'der.value', (r) => r.namedBits()],
    ['named bits with a trailing zero bit', '03 02 04 a0', 'der.value', (r) => r.namedBits()],
    ['named bits with eight unused bits', '03 02 08 80', 'der.value', (r) => r.namedBits()],
    ['no named bits and yet unused ones', '03 01 01', 'der.value', (r) => r.namedBits()],
    ['a set out of order', '31 06 02 01 02 02 01 01', 'der.value', (r) => r.setOf(derTag.set, (each) => each.integer())],
    ['an empty list that must not be', '30 00', 'der.value', (r) => r.listOf(derTag.sequence, skip, 1)],
    ['a byte above 7f in ASCII', '16 01 80', 'der.value', (r) => r.ascii(derTag.ia5String)],
  ]
  test.each(refused)('%s', (_, bytes, reason, read) => {
    expect(reasonOf(() => readHex(bytes, read))).toBe(reason)
  })

  test('R-28 32 levels are read and 33 refused', () => {
    const nested = (levels: number) => {
      let value: write.Der = write.nullValue
      for (let level = 0; level < levels; level++) value = write.sequence(value)
      return write.encodeDer(value)
    }
    expect(reasonOf(() => readDer(nested(32), skip))).toBeUndefined()
    expect(reasonOf(() => readDer(nested(33), skip))).toBe('der.too-deep')
  })

  test('R-28 64 KiB are read and one byte more refused', () => {
    const of = (total: number) => write.encodeDer(write.octetString(new Uint8Array(total - 4)))
    expect(reasonOf(() => readDer(of(65_536), skip))).toBeUndefined()
    expect(reasonOf(() => readDer(of(65_537), skip))).toBe('der.too-long')
  })

  const times: readonly [string, string][] = [
    ['without Z', '17 0d 3236303130313030303030302b'],
    ['without seconds', '17 0b 323630313031303030305a'],
    ['with a zone', '17 11 3236303130313030303030302b30303030'],
    ['in month 13', '17 0d 3236313330313030303030305a'],
    ['on 29 February 2026', '17 0d 3236303232393030303030305a'],
    ['at hour 24', '17 0d 3236303130313234303030305a'],
    ['at second 60', '17 0d 3236303130313030303036305a'],
    ['with a space for a digit', '17 0d 3236303130312030303030305a'],
    ['before 2050 as GeneralizedTime', '18 0f 32303236303130313030303030305a'],
    ['with fractions', '18 11 32303630303130313030303030302e355a'],
  ]
  test.each(times)('a time %s', (_, bytes) => {
    expect(reasonOf(() => readHex(bytes, (reader) => reader.time()))).toBe('der.value')
  })
})

test('whatever the bytes, the reader returns or fails with a reason', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      reasonOf(() => readDer(bytes, skip))
      reasonOf(() => readDer(bytes, (reader) => reader.time()))
      reasonOf(() => readDer(bytes, (reader) => reader.oid()))
      reasonOf(() => readDer(bytes, (reader) => reader.namedBits()))
    }),
    { numRuns: 2000 },
  )
})

describe('what the writer writes the reader reads', () => {
  const roundTrip = <T>(value: write.Der, read: (reader: DerReader) => T): T => readDer(write.encodeDer(value), read, { maxBytes: 1 << 20 })

  test('integers of any size', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 40 }), (magnitude) => {
        const back = roundTrip(write.unsignedInteger(magnitude), (reader) => reader.unsigned())
        expect(BigInt(`0x${hex(back)}`)).toBe(BigInt(`0x${hex(magnitude)}`))
      }),
    )
    expect(hex(write.encodeDer(write.unsignedInteger(Uint8Array.of(0, 0x80))))).toBe('02020080')
    expect(hex(write.encodeDer(write.unsignedInteger(Uint8Array.of(0, 0x7f))))).toBe('02017f')
    expect(hex(write.encodeDer(write.unsignedInteger(new Uint8Array(0))))).toBe('020100')
  })

  test('octet strings of any length', () => {
    for (const length of [0, 1, 127, 128, 255, 256, 65_535, 65_536, 100_000]) {
      expect(roundTrip(write.octetString(new Uint8Array(length)), (reader) => reader.octetString().length)).toBe(length)
    }
  })

  test('object identifiers, also those made of UUIDs', () => {
    const arc = fc.bigInt({ min: 0n, max: 2n ** 128n })
    fc.assert(
      fc.property(
        fc.constantFrom('0.0', '0.39', '1.0', '1.39', '2.0', '2.39', '2.40', '2.999'),
        fc.array(arc, { maxLength: 3 }),
        (root, arcs) => {
          const dotted = [root, ...arcs].join('.')
          expect(roundTrip(write.objectIdentifier(dotted), (reader) => reader.oid())).toBe(dotted)
        },
      ),
    )
    const uuid = '2.25.329800735698586629295641978511506172918'
    expect(roundTrip(write.objectIdentifier(uuid), (reader) => reader.oid())).toBe(uuid)
  })

  test('every set of named bits', () => {
    for (let bits = 0; bits < 0x1_0000; bits++) {
      if (roundTrip(write.namedBits(bits), (reader) => reader.namedBits()) !== bits) expect.fail(`bits ${bits} came back changed`)
    }
  })

  test('moments from 1950 to 9999, in whole seconds', () => {
    const first = Date.UTC(1950, 0, 1)
    const last = Date.UTC(9999, 11, 31, 23, 59, 59)
    fc.assert(
      fc.property(
        fc.oneof(
          fc.integer({ min: first, max: last }),
          fc.constantFrom(first, last, Date.UTC(2049, 11, 31, 23, 59, 59), Date.UTC(2050, 0, 1), Date.UTC(2000, 1, 29)),
        ),
        (at) => {
          expect(roundTrip(write.time(at), (reader) => reader.time())).toBe(Math.floor(at / 1000) * 1000)
        },
      ),
      { numRuns: 2000 },
    )
    expect(hex(write.encodeDer(write.time(Date.UTC(2049, 11, 31, 23, 59, 59, 999))))).toBe(`170d${hex(Buffer.from('491231235959Z'))}`)
    expect(hex(write.encodeDer(write.time(Date.UTC(2050, 0, 1))))).toBe(`180f${hex(Buffer.from('20500101000000Z'))}`)
  })

  test('sets in the order of their bytes', () => {
    const elements = [3, 1, 2].map(write.tinyInteger)
    expect(roundTrip(write.setOf(elements), (reader) => reader.setOf(derTag.set, (each) => each.smallInteger()))).toEqual([1, 2, 3])
  })

  test('values within values, byte for byte', () => {
    const long = new Uint8Array(300).fill(7)
    const value = write.sequence(write.booleanTrue, write.tagged(3, write.octetString(long)), write.bitString(Uint8Array.of(1, 2)))
    expect(hex(write.encodeDer(value))).toBe(hex(concat([fromHex('3082013c0101ffa38201300482012c'), long, fromHex('0303000102')])))
  })
})
