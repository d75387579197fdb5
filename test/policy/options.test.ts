import { expect, test } from 'vitest'
import { parseLanguageOptions } from '../../src/policy/options.ts'

const names = (count: number) => Array.from({ length: count }, (_, n) => `td-${n}.test`)

test('options that are not known are refused, and so are more than a hundred aliases, of which none is left out', () => {
  expect(() => parseLanguageOptions({ mode: 'lenient' })).toThrow(expect.objectContaining({ reason: 'policy.unknown-option' }) as Error)
  expect(() => parseLanguageOptions({ trustDomainAliases: names(101) })).toThrow(
    expect.objectContaining({ reason: 'policy.too-many-aliases' }) as Error,
  )
  expect(parseLanguageOptions({ trustDomainAliases: names(100) }).trustDomainAliases).toHaveLength(100)
  expect(parseLanguageOptions({ mode: '', rootNamespace: '' })).toEqual({})
})
