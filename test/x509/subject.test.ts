import { describe, expect, test } from 'vitest'
import { oid } from '../../src/x509/oid.ts'
import { mayBeTakenForHost, parseSubject, subjectAttributes } from '../../src/x509/subject.ts'

describe('a subject that somebody chose is refused', () => {
  test.for([
    ['with an attribute that may not be chosen', { serialNumber: '1' }, 'subject.unknown-attribute'],
    ['with a name of the language in it', { constructor: 'x' }, 'subject.unknown-attribute'],
    ['with an empty attribute', { organization: '' }, 'subject.length'],
    ['with an attribute of 65 characters', { organization: 'x'.repeat(65) }, 'subject.length'],
    ['with a line feed', { organization: 'a\nb' }, 'subject.characters'],
    ['with a character that turns the text around', { organization: 'a\u202eb' }, 'subject.characters'],
    ['with a space that nobody sees', { organization: 'a\u200bb' }, 'subject.characters'],
    ['with half of a character', { organization: 'a\ud800' }, 'subject.characters'],
    ['with a space at its end', { organization: 'a ' }, 'subject.characters'],
    ['with a country that is none', { country: 'Germany' }, 'subject.country'],
    ['with a country in small letters', { country: 'de' }, 'subject.country'],
  ] as const)('%s', ([, written, reason]) => {
    expect(() => parseSubject(written as Record<string, string>)).toThrow(expect.objectContaining({ reason }))
  })
})

test('a subject takes 64 characters of any script, and is encoded from the country to the common name', () => {
  const longest = 'ß'.repeat(64)
  const subject = parseSubject({ commonName: 'Zahlungen 支払い', organizationalUnit: longest, country: 'DE' })
  expect(subjectAttributes(subject!)).toEqual([
    { oid: oid.countryName, value: 'DE' },
    { oid: oid.organizationalUnitName, value: longest },
    { oid: oid.commonName, value: 'Zahlungen 支払い' },
  ])
  expect(parseSubject({})).toBeUndefined()
})

test.for([
  ['bank', true],
  ['bank.example.org', true],
  ['*.example.org', true],
  ['bücher.example', true],
  ['_srv.example', true],
  ['10.0.0.1', true],
  ['::1', true],
  ['[::1]', true],
  ['Payments service', false],
  ['payments/blue', false],
  ['team@example.org', false],
] as const)('a verifier may take `%s` for a host: %s', ([name, host]) => {
  expect(mayBeTakenForHost(name)).toBe(host)
})
