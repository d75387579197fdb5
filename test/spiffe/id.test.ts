import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { idOfTrustDomain, parseSpiffeId, pathOf, spiffeId, trustDomainOf } from '../../src/spiffe/id.ts'
import { brokenRules } from '../../src/spiffe/rules.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'

const refused: readonly [rule: string, text: string, reason: string][] = [
  ['ID-1', 'http://example.org/a', 'scheme'],
  ['ID-1', 'SPIFFE://example.org/a', 'scheme'],
  ['ID-1', 'spiffe:/example.org/a', 'scheme'],
  ['ID-1', ' spiffe://example.org/a', 'scheme'],
  ['ID-1', '', 'scheme'],
  ['ID-2', 'spiffe://', 'no-trust-domain'],
  ['ID-5', 'spiffe:///a', 'no-trust-domain'],
  ['ID-3', 'spiffe://example.org/a?b', 'query'],
  ['ID-3', 'spiffe://example.org/a?', 'query'],
  ['ID-3', 'spiffe://example.org?', 'query'],
  ['ID-4', 'spiffe://example.org/a#b', 'fragment'],
  ['ID-4', 'spiffe://example.org/a#', 'fragment'],
  ['ID-4', 'spiffe://example.org#', 'fragment'],
  ['ID-6', 'spiffe://me@example.org/a', 'user-info'],
  ['ID-6', 'spiffe://@example.org/a', 'user-info'],
  ['ID-7', 'spiffe://example.org:443/a', 'port'],
  ['ID-7', 'spiffe://example.org:/a', 'port'],
  ['ID-8', 'spiffe://Example.org/a', 'trust-domain-case'],
  ['ID-19', 'spiffe://example.ORG', 'trust-domain-case'],
  ['ID-9', 'spiffe://exämple.org/a', 'trust-domain-character'],
  ['ID-9', 'spiffe://ex\u0430mple.org/a', 'trust-domain-character'],
  ['ID-9', 'spiffe://example\u3002org/a', 'trust-domain-character'],
  ['ID-9', 'spiffe://example.org\\a', 'trust-domain-character'],
  ['ID-9', 'spiffe://example.org\u0000/a', 'trust-domain-character'],
  ['ID-9', 'spiffe://💩/a', 'trust-domain-character'],
  ['ID-10', 'spiffe://ex%61mple.org/a', 'trust-domain-percent'],
  ['ID-11', 'spiffe://[::1]/a', 'trust-domain-character'],
  ['ID-12', 'spiffe://example.org/%61', 'path-percent'],
  ['ID-12', 'spiffe://example.org/a%2fb', 'path-percent'],
  ['ID-13', 'spiffe://example.org//a', 'empty-segment'],
  ['ID-13', 'spiffe://example.org/a//b', 'empty-segment'],
  ['ID-13', 'spiffe://example.org/./a', 'dot-segment'],
  ['ID-13', 'spiffe://example.org/a/../b', 'dot-segment'],
  ['ID-13', 'spiffe://example.org/a/..', 'dot-segment'],
  ['ID-14', 'spiffe://example.org/', 'trailing-slash'],
  ['ID-14', 'spiffe://example.org/a/', 'trailing-slash'],
  ['ID-15', 'spiffe://example.org/a b', 'path-character'],
  ['ID-15', 'spiffe://example.org/a\n', 'path-character'],
  ['ID-15', 'spiffe://example.org/a:b', 'path-character'],
  ['ID-15', 'spiffe://example.org/ä', 'path-character'],
  ['ID-16', `spiffe://example.org/${'a'.repeat(2048)}`, 'too-long'],
  ['ID-18', `spiffe://${'a'.repeat(256)}/a`, 'trust-domain-too-long'],
]

describe('SPIFFE IDs', () => {
  test.each(refused)('%s refuses `%s`, and says which rule it breaks', (rule, text, reason) => {
    const refusal = refusalOf(text)
    expect(refusal?.reason).toBe(`spiffe-id.${reason}`)
    expect(brokenRules(refusal)).toContain(rule)
  })

  test('ID-9, ID-15 no character above ASCII is allowed anywhere, whatever it looks like', () => {
    for (let code = 0x80; code < 0x1_0000; code++) {
      const character = String.fromCharCode(code)
      if (accepted(`spiffe://a${character}a/x`) || accepted(`spiffe://a/x${character}`)) expect.fail(`U+${code.toString(16)} is accepted`)
    }
  })

  test('ID-11 a name that looks like an address is a name like any other', () => {
    expect(trustDomainOf(parseSpiffeId('spiffe://127.0.0.1/a'))).toBe('127.0.0.1')
    expect(trustDomainOf(parseSpiffeId('spiffe://-.-/a'))).toBe('-.-')
  })

  test('ID-13 segments that only begin with dots are allowed', () => {
    for (const text of ['spiffe://a/...', 'spiffe://a/.b/..c', 'spiffe://a/b.', 'spiffe://../b']) expect(parseSpiffeId(text)).toBe(text)
  })

  test('ID-18 accepts a trust domain of exactly 255 bytes', () => {
    expect(trustDomainOf(parseSpiffeId(`spiffe://${'a'.repeat(255)}/a`))).toHaveLength(255)
  })

  test('ID-19 two IDs that differ in the case of their paths are two', () => {
    expect(parseSpiffeId('spiffe://a/B')).not.toBe(parseSpiffeId('spiffe://a/b'))
  })

  test('T-3 the reader of IDs and the reader of trust domains know the same names', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a-z0-9._-]{1,260}$/)), (name) => {
        expect(accepted(`spiffe://${name}`)).toBe(isTrustDomain(name))
      }),
    )
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

function refusalOf(text: string): Failure | undefined {
  try {
    parseSpiffeId(text)
    return undefined
  } catch (error) {
    return Failure.from(error)
  }
}

function isTrustDomain(name: string): boolean {
  try {
    return parseTrustDomain(name) === name
  } catch {
    return false
  }
}

function accepted(text: string): boolean {
  try {
    return parseSpiffeId(text) === text
  } catch {
    return false
  }
}
