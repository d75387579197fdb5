import { X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, hex } from '../../src/kernel/bytes.ts'
import { readDer } from '../../src/x509/der-reader.ts'
import * as der from '../../src/x509/der-writer.ts'
import { encodeName, readName } from '../../src/x509/name.ts'
import { oid } from '../../src/x509/oid.ts'
import { TestCa } from '../support/test-ca.ts'

const nameOf = (...values: readonly der.Der[]) =>
  der.encodeDer(der.sequence(...values.map((value) => der.setOf([der.sequence(der.objectIdentifier(oid.commonName), value)]))))
const read = (bytes: Uint8Array) => readDer(bytes, readName)
const primitive = (tag: number, content: string) => Uint8Array.of(tag, content.length / 2, ...fromHex(content))

describe('refused', () => {
  const names: readonly [string, string, Uint8Array][] = [
    ['UTF-8 that is malformed', 'x509.name', nameOf(primitive(0x0c, 'c080'))],
    ['UTF-16 with half a pair', 'x509.name', nameOf(primitive(0x1e, 'd800'))],
    ['a printable text that is not ASCII', 'der.value', nameOf(primitive(0x13, 'e4'))],
    ['a relative name without an attribute', 'der.value', fromHex('30023100')],
    [
      'an attribute with two values',
      'der.trailing-bytes',
      der.encodeDer(
        der.sequence(der.setOf([der.sequence(der.objectIdentifier(oid.commonName), der.utf8String('a'), der.utf8String('b'))])),
      ),
    ],
  ]
  test.each(names)('%s', (_, reason, bytes) => {
    expect(() => read(bytes)).toThrow(expect.objectContaining({ name: 'Failure', reason }))
  })
})

test('every string type that names are written in is read', () => {
  const values = [
    der.utf8String('ä'),
    der.printableString('b'),
    der.ia5String('c'),
    primitive(0x14, 'e4'),
    primitive(0x1e, '00e40031'),
    primitive(0x03, '0001'),
  ]
  expect(read(nameOf(...values)).attributes.map(({ value }) => value)).toEqual(['ä', 'b', 'c', 'ä', 'ä1', '#03020001'])
})

test('what is written is read again, byte for byte', () => {
  const attribute = fc.record({
    oid: fc.constantFrom(oid.commonName, oid.organizationName, '1.2.3.4'),
    value: fc.string({ unit: 'grapheme', maxLength: 20 }),
  })
  fc.assert(
    fc.property(fc.array(attribute, { maxLength: 5 }), (attributes) => {
      const name = read(encodeName(attributes))
      expect(name.attributes).toEqual(attributes)
      expect(hex(name.raw)).toBe(hex(encodeName(attributes)))
    }),
  )
})

test('people read the most specific part first, and nothing that looks like another part (RFC 4514)', () => {
  const name = read(
    encodeName([
      { oid: oid.countryName, value: 'US' },
      { oid: oid.organizationName, value: 'SPIRE' },
      { oid: oid.commonName, value: 'a,O=root+"x"\n' },
      { oid: '1.2.3.4', value: ' b ' },
    ]),
  )
  expect(name.text).toBe('1.2.3.4=\\ b\\ ,CN=a\\,O=root\\+\\"x\\"\\0a,O=SPIRE,C=US')
})

test('Node reads the same attributes', async () => {
  const ca = await TestCa.create({ at: 1_767_225_600_000 })
  const subject = [
    { oid: oid.countryName, value: 'DE' },
    { oid: oid.organizationName, value: 'Größe' },
    { oid: oid.commonName, value: 'web' },
  ]
  const { certificate } = await ca.leaf({ subject })
  expect(certificate.subject.attributes).toEqual(subject)
  expect(new X509Certificate(certificate.raw).subject).toBe('C=DE\nO=Größe\nCN=web')
})
