import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { parseJsonObject } from '../../src/spiffe/json.ts'

const parse = (text: string) => parseJsonObject(text, { maxLength: 4 << 20 })
const deep = (depth: number) => `{"a":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`
const members = (count: number) => `{${Array.from({ length: count }, (_, index) => `"k${index}":0`).join()}}`

const refused: readonly [what: string, text: string, reason: string][] = [
  ['B-11 a name twice', '{"a":1,"b":2,"a":1}', 'json.duplicate-name'],
  ['B-11 a name twice, once escaped', '{"a":1,"\\u0061":1}', 'json.duplicate-name'],
  ['B-11 a name twice, deep down', '{"a":[{"b":{"c":1,"c":2}}]}', 'json.duplicate-name'],
  ['R-31 the name of the prototype twice', '{"__proto__":1,"__proto__":2}', 'json.duplicate-name'],
  ['R-28 33 levels', deep(33), 'json.too-deep'],
  ['R-28 a million levels', `{"a":${'['.repeat(1e6)}`, 'json.too-deep'],
  ['R-28 1001 members', members(1001), 'json.too-many-members'],
  ['R-28 a list of 1001', `{"a":[0${',0'.repeat(1000)}]}`, 'json.too-many-members'],
  ['R-28 more than was allowed', ' '.repeat((4 << 20) + 1), 'json.too-long'],
  ['a list', '[]', 'json.not-an-object'],
  ['null', 'null', 'json.not-an-object'],
  ['a number', '1', 'json.not-an-object'],
  ['nothing', '', 'json.malformed'],
  ['half a text', '{"a', 'json.malformed'],
  ['something after the end', '{} x', 'json.malformed'],
  ['two objects', '{}{}', 'json.malformed'],
  ['a comma before the end', '{"a":1,}', 'json.malformed'],
  ['a comma before the end of a list', '{"a":[1,]}', 'json.malformed'],
  ['a name without quotes', '{a:1}', 'json.malformed'],
  ['single quotes', "{'a':1}", 'json.malformed'],
  ['a comment', '{/**/}', 'json.malformed'],
  ['a leading zero', '{"a":01}', 'json.malformed'],
  ['a plus sign', '{"a":+1}', 'json.malformed'],
  ['a bare point', '{"a":1.}', 'json.malformed'],
  ['NaN', '{"a":NaN}', 'json.malformed'],
  ['a number without end', '{"a":1e999}', 'json.malformed'],
  ['a number of 65 digits', `{"a":${'1'.repeat(65)}}`, 'json.malformed'],
  ['a line end in a text', '{"a":"\n"}', 'json.malformed'],
  ['an unknown escape', '{"a":"\\x61"}', 'json.malformed'],
  ['half a surrogate pair', '{"a":"\\ud800"}', 'json.malformed'],
  ['half a surrogate pair, unescaped', '{"a":"\ud800"}', 'json.malformed'],
  ['a space of another alphabet', '{\u00a0}', 'json.malformed'],
  ['half a word', '{"a":tru}', 'json.malformed'],
]

describe('strict JSON', () => {
  test.each(refused)('refuses %s', (_, text, reason) => {
    expect(() => parse(text)).toThrow(expect.objectContaining({ reason }))
  })

  test.each([
    ['{"a":1,}', 'not valid JSON: a name is missing (line 1, column 8)'],
    ['{\n  "a": [1,\n  2 3]}', 'not valid JSON: a comma is missing (line 3, column 5)'],
    ['{"a":1,\n"a":2}', 'JSON that is not accepted: `a` occurs twice (line 2, column 4)'],
  ])('says where %j is wrong', (text, message) => {
    expect(() => parse(text)).toThrow(message)
  })

  test('R-28 accepts 32 levels and 1000 members', () => {
    expect(parse(deep(32))).toBeDefined()
    expect(Object.keys(parse(members(1000)))).toHaveLength(1000)
  })

  test('R-31 names of the prototype are names like any other', () => {
    const read = parse('{"__proto__":{"admin":true},"constructor":1,"hasOwnProperty":2}')
    expect(Object.keys(read)).toEqual(['__proto__', 'constructor', 'hasOwnProperty'])
    expect(read['admin']).toBeUndefined()
    expect(parse('{}')['constructor']).toBeUndefined()
    expect(({} as Record<string, unknown>)['admin']).toBeUndefined()
  })

  test('B-2 keeps integers of 64 bits where asked to', () => {
    const text = '{"a":18446744073709551615,"b":9007199254740993,"c":7,"d":1e300}'
    const { a, b, c, d } = parseJsonObject(text, { maxLength: 100, bigIntegers: true })
    expect([a, b, c, d]).toEqual([18_446_744_073_709_551_615n, 9_007_199_254_740_993n, 7, 1e300])
    expect(parse(text)['a']).toBe(2 ** 64)
  })

  test('reads whatever is written as JSON, as the language itself does', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ unit: 'grapheme' }), fc.jsonValue({ maxDepth: 5 })), fc.constantFrom(0, 2), (value, indent) => {
        const text = JSON.stringify(value, null, indent)
        expect(JSON.stringify(parse(text))).toBe(JSON.stringify(JSON.parse(text)))
      }),
      { numRuns: 300 },
    )
  })

  test('accepts nothing that the language itself refuses, and throws nothing but a Failure', () => {
    fc.assert(
      fc.property(
        fc.jsonValue({ maxDepth: 3 }).map((value) => JSON.stringify({ a: value })),
        fc.nat(),
        fc.oneof(fc.constantFrom('"', '\\', '{', '}', ',', ':', '0', '-', 'e', ''), fc.string({ maxLength: 2 })),
        (text, place, change) => {
          const at = place % text.length
          const changed = text.slice(0, at) + change + text.slice(at + 1)
          try {
            const read = parse(changed)
            expect(JSON.stringify(read)).toBe(JSON.stringify(JSON.parse(changed)))
          } catch (error) {
            expect(error).toBeInstanceOf(Failure)
          }
        },
      ),
      { numRuns: 1000 },
    )
  })
})
