import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { foldPath, isCanonicalPath, normalizePath, pathNormalizations } from '../../src/policy/normalize.ts'
import { envoyPaths } from './envoy-paths.ts'

const anyPath = fc
  .array(
    fc.constantFrom(
      '/',
      '/',
      '.',
      '..',
      '%2e',
      '%2F',
      '%5c',
      '\\',
      '%',
      '%2',
      '25',
      '2e',
      'a',
      'A',
      '0',
      ';',
      ';x',
      '%61',
      '%00',
      '%c3%a9',
      '%C0%AF',
      '@',
      '%40',
      '[',
      '"',
      '~',
      '+',
    ),
    { maxLength: 14 },
  )
  .map((parts) => `/${parts.join('')}`)

describe('a path is read as the proxy reads it', () => {
  for (const [index, mode] of pathNormalizations.entries()) {
    test(`R-7 ${mode}: as Envoy does, on ${envoyPaths.length} paths that one was asked about`, () => {
      for (const row of envoyPaths) expect([row[0], normalizePath(row[0], mode)]).toEqual([row[0], row[index + 1]])
    })
  }

  test('R-7 what no proxy would forward has no normal form', () => {
    for (const path of ['', 'admin', '*', '%2fadmin', '\\admin', '/a b', '/\u0001', '/é', `/${'a'.repeat(70_000)}`]) {
      for (const mode of pathNormalizations) expect(normalizePath(path, mode)).toBeUndefined()
    }
  })

  test('query and fragment are cut off, whatever they hold', () => {
    for (const path of ['/a?b', '/a#b', '/a?/../b', '/a#?/../b', '/a?é']) expect(normalizePath(path, 'decode-and-merge-slashes')).toBe('/a')
  })
})

describe('a canonical path has one reading', () => {
  test.each([
    '/admin;x', '/;/admin', '/%2e/admin', '/x/..', '/./x', '//x', '/x//', '/%252fadmin', '/%2561', '/admin%00', '/admin%0a', '/%7f', '/%c0%af', '/%e0%80%af', '/%f0%80%80%af',
    '/%ed%a0%80', '/%f4%90%80%80', '/%c3', '/%ff', '/%', '/%2', '/%zz', '/%u002f', '/a%3Bb', '/a%3fb', '/a%23', '/a%2Fb', '/a%5cb', '/%61', '/%7E', '/a"b', '/a{b}', '/a|b', '/a b', '', 'a',
  ])('R-7 `%s` is not canonical', (path) => {
    expect(isCanonicalPath(path)).toBe(false)
  }) // prettier-ignore

  test.each([
    '/',
    '/a',
    '/a/',
    '/a.b/..c/...',
    '/caf%C3%A9',
    '/%e2%82%ac',
    '/%F0%9F%98%80',
    '/100%25',
    '/100%25x',
    '/a%20b',
    '/a@b:c',
    '/a%40b',
    '/a[0]',
    '/~u',
    '/%22',
    "/!$&'()*+,=",
  ])('`%s` is canonical', (path) => {
    expect(isCanonicalPath(path)).toBe(true)
  })

  test('R-7 normalising a canonical path changes nothing, and what was normalised is canonical or refused', () => {
    fc.assert(
      fc.property(anyPath, (path) => {
        const normal = normalizePath(path, 'decode-and-merge-slashes')
        if (normal !== undefined && isCanonicalPath(normal)) expect(normalizePath(normal, 'decode-and-merge-slashes')).toBe(normal)
        if (isCanonicalPath(path)) expect(isCanonicalPath(normal ?? '')).toBe(true)
      }),
      { numRuns: 5000 },
    )
  })

  test('deciding on a long path takes no longer than reading it', () => {
    expect(isCanonicalPath(`/${'a/'.repeat(30_000)};`)).toBe(false)
    expect(isCanonicalPath(`/${'%40'.repeat(20_000)}%`)).toBe(false)
  })
})

describe('what is left of freedom in spelling is folded', () => {
  test('R-7 escapes that need not be, and the case of those that must', () => {
    expect(foldPath('/a%40b%3ac')).toBe('/a@b:c')
    expect(foldPath('/caf%c3%a9')).toBe('/caf%C3%A9')
    expect(foldPath('/plain')).toBe('/plain')
  })
})
