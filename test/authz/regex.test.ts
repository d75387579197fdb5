import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { globbed, noneOf, quoted, templated } from '../../src/authz/regex.ts'
import type { StringMatch } from '../../src/policy/matching.ts'

// What is tested here is read the same way by JavaScript and by RE2: literals, classes, groups, `.`, `*`, `+`, `?` and `|`.
const full = (expression: string) => new RegExp(`^(?:${expression})$`, 's')

describe('an expression for the texts that none of some matches match', () => {
  test('is refused for prefixes beside suffixes, for `*`, and for characters that proxies read in different ways', () => {
    expect(noneOf([prefix('a'), suffix('b')])).toBeUndefined()
    expect(noneOf([{ kind: 'present' }])).toBeUndefined()
    expect(noneOf([exact('é')])).toBeUndefined()
  })

  test('is right for every short text', () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'b', '-', ']', '^', '\\', '.'), maxLength: 4 })
    const some = (make: (value: string) => StringMatch) =>
      fc.array(text.filter((value) => value !== '').map(make), { minLength: 1, maxLength: 4 })
    const matches = fc.oneof(
      fc.array(fc.oneof(text.map(exact), text.filter((value) => value !== '').map(prefix)), { minLength: 1, maxLength: 4 }),
      fc.tuple(some(exact), some(suffix)).map(([one, other]) => [...one, ...other]),
    )
    fc.assert(
      fc.property(matches, fc.array(text, { minLength: 1, maxLength: 20 }), (wanted, values) => {
        const expression = noneOf(wanted)!
        for (const value of [...values, ...wanted.map((match) => (match.kind === 'present' ? '' : match.value))]) {
          expect({ value, wanted, outside: full(expression).test(value) }).toEqual({
            value,
            wanted,
            outside: !wanted.some((match) => holds(match, value)),
          })
        }
      }),
    )
  })
})

test('a quoted literal matches itself and nothing else', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...String.raw`.+*?()|[]{}^$\/a-`) }), (literal) => {
      expect(full(quoted(literal)).test(literal)).toBe(true)
      expect(full(quoted(literal)).test(`${literal}x`)).toBe(false)
    }),
  )
  expect(full(quoted('a.c')).test('abc')).toBe(false)
})

test('a star stands for the piece that is given, and a template for whole segments', () => {
  expect(globbed('team-*', '[^/]*')).toBe('team-[^/]*')
  const orders = templated([{ kind: 'literal', text: '' }, { kind: 'literal', text: 'orders' }, { kind: 'one' }, { kind: 'rest' }])
  expect(['/orders/7/', '/orders/7/a/b', '/orders/7', '/orders//a'].map((path) => full(orders).test(path))).toEqual([
    true,
    true,
    false,
    false,
  ])
})

const exact = (value: string): StringMatch => ({ kind: 'exact', value })
const prefix = (value: string): StringMatch => ({ kind: 'prefix', value })
const suffix = (value: string): StringMatch => ({ kind: 'suffix', value })

function holds(match: StringMatch, value: string): boolean {
  if (match.kind === 'exact') return value === match.value
  if (match.kind === 'prefix') return value.startsWith(match.value)
  return match.kind === 'present' || value.endsWith(match.value)
}
