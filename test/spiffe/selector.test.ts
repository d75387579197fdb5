import { describe, expect, test } from 'vitest'
import { formatSelector, missingSelectors, parseSelector, satisfies, uniqueSelectors, tellSelector } from '../../src/spiffe/selector.ts'

const selectors = (...texts: string[]) => texts.map(parseSelector)

describe('selectors', () => {
  test.each(['', 'unix', ':uid', 'unix:'])('refuses `%s`', (text) => {
    expect(() => parseSelector(text)).toThrow(expect.objectContaining({ reason: 'selector.malformed' }))
  })

  test('R-11 an entry that asks for nothing is satisfied by nobody', () => {
    expect(satisfies(selectors('unix:uid:0'), [])).toBe(false)
  })

  test('says what is missing', () => {
    const seen = selectors('unix:uid:0', 'unix:path:/bin/sh')
    expect(missingSelectors(selectors('unix:uid:0', 'unix:uid:1'), seen).map(formatSelector)).toEqual(['unix:uid:1'])
    expect(satisfies(seen, selectors('unix:path:/bin/sh'))).toBe(true)
  })

  test('the value keeps its colons, and duplicates fall together', () => {
    expect(parseSelector('k8s:pod-label:a:b')).toEqual({ type: 'k8s', value: 'pod-label:a:b' })
    expect(uniqueSelectors(selectors('b:2', 'a:1', 'b:2')).map(formatSelector)).toEqual(['a:1', 'b:2'])
  })
})

test.for([
  ['docker:env:PASSWORD=hunter2', 'docker:env:PASSWORD=[secret]'],
  ['docker:env:KEY=a\nb=c', 'docker:env:KEY=[secret]'],
  ['docker:env:EMPTY=', 'docker:env:EMPTY=[secret]'],
  ['docker:label:env:a=b', 'docker:label:env:a=b'],
  ['unix:path:/usr/bin/env:x=1', 'unix:path:/usr/bin/env:x=1'],
  ['docker:env:FLAG', 'docker:env:FLAG'],
] as const)('R-36 `%s` is told as `%s`', ([text, told]) => {
  expect(tellSelector(parseSelector(text))).toBe(told)
})
