import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readClaims } from '../../src/spiffe/claims.ts'

const nested = (depth: number): string => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`

describe('claims are refused', () => {
  test.for([
    ...['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti', 'cnf', 'act', 'may_act', 'alg', 'kid', 'typ', 'crit', 'jwk', 'wth'].map(
      (name) => [`that say \`${name}\``, `{"${name}":"x"}`, 'claims.reserved'] as const,
    ),
    ['that say `sub` in another spelling', '{"s\\u0075b":"spiffe://example.org/admin"}', 'claims.reserved'],
    ['with a name that occurs twice', '{"a":1,"a":2}', 'json.duplicate-name'],
    ['with a name that occurs twice, deeper', '{"a":{"b":1,"b":2}}', 'json.duplicate-name'],
    ['with an empty name', '{"":1}', 'claims.name'],
    ['with a space in a name', '{"a b":1}', 'claims.name'],
    ['with a name of 129 characters', `{"${'a'.repeat(129)}":1}`, 'claims.name'],
    ['with a name in another script', '{"роль":1}', 'claims.name'],
    ['with a prototype', '{"a":{"__proto__":{"admin":true}}}', 'claims.name'],
    ['with a number that readers round', '{"a":9007199254740993}', 'claims.number'],
    ['nested six deep', nested(6), 'claims.too-deep'],
    ['with 129 values', `{"a":[${Array(127).fill(0).join()}]}`, 'claims.too-many'],
    ['of more than 2048 bytes', `{"a":"${'x'.repeat(2041)}"}`, 'claims.too-long'],
    ['of more than 2048 bytes, counted as they travel', `{"a":"${'ß'.repeat(1021)}"}`, 'claims.too-long'],
    ['that are a list', '[1]', 'json.not-an-object'],
    ['with something behind them', '{} {}', 'json.malformed'],
  ] as const)('%s', ([, text, reason]) => {
    expect(() => readClaims(text)).toThrow(expect.objectContaining({ reason }))
  })
})

test('claims take five levels, 128 values and 2048 bytes, and nothing is no claims', () => {
  expect(readClaims(nested(5))).toEqual(JSON.parse(nested(5)))
  expect(readClaims(`{"a":[${Array(126).fill(0).join()}]}`)).toBeDefined()
  expect(readClaims(`{"a":"${'x'.repeat(2040)}"}`)).toBeDefined()
  expect(readClaims(' {} ')).toBeUndefined()
})

test('claims are read as they were written, or refused', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.stringMatching(/^[a-z]{4,8}$/), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 5 }), (claims) => {
      const text = JSON.stringify(claims)
      try {
        expect(readClaims(text) ?? {}).toEqual(JSON.parse(text))
      } catch (error) {
        expect(error).toMatchObject({ reason: expect.stringMatching(/^(claims|json)\./) as string })
      }
    }),
  )
})
