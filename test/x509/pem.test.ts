import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { formatPem, parseCertificatesPem, parsePem } from '../../src/x509/pem.ts'
import { TestCa } from '../support/test-ca.ts'

const begin = '-----BEGIN CERTIFICATE-----'
const end = '-----END CERTIFICATE-----'

describe('refused', () => {
  const texts: readonly [string, string, string][] = [
    ['an empty text (R-12)', '', 'pem.no-block'],
    ['a text without a block', 'hello\nworld\n', 'pem.no-block'],
    ['a block that does not end', `${begin}\nAAAA\n`, 'pem.malformed'],
    ['an end without a beginning', `${end}\n`, 'pem.malformed'],
    ['an end of something else', `${begin}\nAAAA\n-----END PRIVATE KEY-----\n`, 'pem.malformed'],
    ['a beginning within a block', `${begin}\nAAAA\n${begin}\nAAAA\n${end}\n`, 'pem.malformed'],
    ['a beginning with too few dashes', `-----BEGIN CERTIFICATE----\nAAAA\n${end}\n`, 'pem.malformed'],
    ['an empty block', `${begin}\n${end}\n`, 'pem.malformed'],
    ['a header of old', `${begin}\nProc-Type: 4,ENCRYPTED\n\nAAAA\n${end}\n`, 'pem.malformed'],
    ['base64 without its padding', `${begin}\nAA\n${end}\n`, 'pem.malformed'],
    ['base64 with bits that stand for nothing', `${begin}\nAB==\n${end}\n`, 'pem.malformed'],
    ['base64 of URLs', `${begin}\n-_-_\n${end}\n`, 'pem.malformed'],
    ['base64 with a blank', `${begin}\nAA AA\n${end}\n`, 'pem.malformed'],
    ['dashes within a line of base64', `${begin}\nAA-----AA\n${end}\n`, 'pem.malformed'],
    ['base64 on the line of the boundary', `${begin}AAAA\n${end}\n`, 'pem.malformed'],
    ['another label', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n', 'pem.unexpected-label'],
  ]
  test.each(texts)('%s', (_, text, reason) => {
    expect(() => parsePem(text, { label: 'CERTIFICATE' })).toThrow(expect.objectContaining({ reason }))
  })

  test('more blocks than were asked for', () => {
    const block = formatPem('CERTIFICATE', Uint8Array.of(1))
    expect(parsePem(block.repeat(2), { max: 2 })).toHaveLength(2)
    expect(() => parsePem(block.repeat(3), { max: 2 })).toThrow(expect.objectContaining({ reason: 'pem.too-many-blocks' }))
  })

  test('R-28 a text of five million characters', () => {
    expect(() => parsePem('A'.repeat(5_000_000))).toThrow(expect.objectContaining({ reason: 'pem.too-long' }))
  })
})

test('whatever the text, it is read or fails with a reason', () => {
  const line = fc.oneof(fc.constantFrom(begin, end, 'AAAA', '', '-----', '-----BEGIN -----', '\r', 'AA=='), fc.string({ maxLength: 70 }))
  fc.assert(
    fc.property(fc.array(line, { maxLength: 12 }), (list) => {
      try {
        parsePem(list.join('\n'))
      } catch (error) {
        expect(error).toBeInstanceOf(Failure)
      }
    }),
    { numRuns: 1000 },
  )
})

test('what is written is read again, with text around it and either line end', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), fc.constantFrom('\n', '\r\n'), (der, lineEnd) => {
      const text = `# ----- a comment -----\n${formatPem('X509 CRL', der)}\n`.replaceAll('\n', lineEnd)
      expect(parsePem(text)).toEqual([{ label: 'X509 CRL', der }])
    }),
  )
})

test('a file of certificates gives them in their order', async () => {
  const ca = await TestCa.create({ at: 1_767_225_600_000 })
  const { certificate } = await ca.leaf()
  const text = formatPem('CERTIFICATE', certificate.raw) + formatPem('CERTIFICATE', ca.certificate.raw)
  expect(parseCertificatesPem(text).map(({ serial }) => serial)).toEqual([certificate.serial, ca.certificate.serial])
})
