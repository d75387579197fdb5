import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { idOfTrustDomain, parseSpiffeId, pathOf, spiffeId, trustDomainOf } from '../../src/spiffe/id.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'

const refused: readonly [rule: string, text: string, reason: string][] = [
  ['ID-1', 'http://example.org/a', 'spiffe-id.scheme'],
  ['ID-1', 'SPIFFE://example.org/a', 'spiffe-id.scheme'],
  ['ID-1', '', 'spiffe-id.scheme'],
  ['ID-2', 'spiffe://', 'spiffe-id.trust-domain'],
  ['ID-5', 'spiffe:///a', 'spiffe-id.trust-domain'],
  ['ID-3', 'spiffe://example.org/a?b', 'spiffe-id.path-character'],
  ['ID-3', 'spiffe://example.org?', 'spiffe-id.trust-domain'],
  ['ID-4', 'spiffe://example.org/a#b', 'spiffe-id.path-character'],
  ['ID-4', 'spiffe://example.org#', 'spiffe-id.trust-domain'],
  ['ID-6', 'spiffe://me@example.org/a', 'spiffe-id.trust-domain'],
  ['ID-6', 'spiffe://@example.org/a', 'spiffe-id.trust-domain'],
  ['ID-7', 'spiffe://example.org:443/a', 'spiffe-id.trust-domain'],
  ['ID-7', 'spiffe://example.org:/a', 'spiffe-id.trust-domain'],
  ['ID-8', 'spiffe://Example.org/a', 'spiffe-id.trust-domain'],
  ['ID-9', 'spiffe://exämple.org/a', 'spiffe-id.trust-domain'],
  ['ID-10', 'spiffe://ex%61mple.org/a', 'spiffe-id.trust-domain'],
  ['ID-11', 'spiffe://[::1]/a', 'spiffe-id.trust-domain'],
  ['ID-12', 'spiffe://example.org/%61', 'spiffe-id.path-character'],
  ['ID-13', 'spiffe://example.org//a', 'spiffe-id.empty-segment'],
  ['ID-13', 'spiffe://example.org/./a', 'spiffe-id.dot-segment'],
  ['ID-13', 'spiffe://example.org/a/..', 'spiffe-id.dot-segment'],
  ['ID-14', 'spiffe://example.org/', 'spiffe-id.trailing-slash'],
  ['ID-14', 'spiffe://example.org/a/', 'spiffe-id.trailing-slash'],
  ['ID-15', 'spiffe://example.org/a b', 'spiffe-id.path-character'],
  ['ID-15', 'spiffe://example.org/a\n', 'spiffe-id.path-character'],
  ['ID-16', `spiffe://example.org/${'a'.repeat(2048)}`, 'spiffe-id.too-long'],
  ['ID-18', `spiffe://${'a'.repeat(256)}/a`, 'spiffe-id.trust-domain'],
]

describe('SPIFFE IDs', () => {
  test.each(refused)('%s refuses `%s`', (_rule, text, reason) => {
    expect(() => parseSpiffeId(text)).toThrow(expect.objectContaining({ reason }))
  })

  test('ID-9, ID-15 each of the 256 bytes is allowed in a trust domain and in a path only where the charset says so', () => {
    for (let byte = 0; byte < 256; byte++) {
      const character = String.fromCharCode(byte)
      expect(accepted(`spiffe://a${character}a/x`), `trust domain, byte ${byte}`).toBe(/[a-z0-9._-]/.test(character) || character === '/')
      expect(accepted(`spiffe://a/x${character}x`), `path, byte ${byte}`).toBe(/[a-zA-Z0-9._/-]/.test(character))
    }
  })

  test('ID-16 accepts an ID of exactly 2048 bytes', () => {
    const longest = `spiffe://example.org/${'a'.repeat(2048 - 'spiffe://example.org/'.length)}`
    expect(parseSpiffeId(longest)).toBe(longest)
  })

  test('R-1 what is accepted is kept as it is, and its parts make it again', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^spiffe:\/\/[a-z0-9._-]{1,20}(\/[a-zA-Z0-9._-]{1,8}){0,4}$/), (text) => {
        fc.pre(!/\/\.{1,2}(\/|$)/.test(text.slice('spiffe://'.length)))
        const id = parseSpiffeId(text)
        expect(id).toBe(text)
        expect(spiffeId(trustDomainOf(id), pathOf(id))).toBe(id)
      }),
    )
  })

  test('R-1 nothing but a Failure is thrown, whatever is read', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.string().map((rest) => `spiffe://${rest}`),
        ),
        (text) => {
          try {
            expect(parseSpiffeId(text)).toBe(text)
          } catch (error) {
            expect(error).toBeInstanceOf(Failure)
          }
        },
      ),
    )
  })

  test('the ID of a trust domain has no path', () => {
    const domain = parseTrustDomain('example.org')
    expect(idOfTrustDomain(domain)).toBe('spiffe://example.org')
    expect(pathOf(idOfTrustDomain(domain))).toBe('')
    expect(trustDomainOf(parseSpiffeId('spiffe://example.org/a/b'))).toBe(domain)
  })
})

function accepted(text: string): boolean {
  try {
    return parseSpiffeId(text) === text
  } catch {
    return false
  }
}
