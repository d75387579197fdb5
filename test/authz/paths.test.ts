import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ambiguousPaths, hasOneSpelling, neverCanonical, plainPath, spellings } from '../../src/authz/paths.ts'
import { foldPath, isCanonicalPath } from '../../src/policy/normalize.ts'

// RE2 and JavaScript read these expressions in the same way: no newline ever stands in a path.
const full = (expression: string) => new RegExp(`^(?:${expression})$`, 's')
const never = full(neverCanonical)
const plain = full(plainPath)
const ambiguous = ambiguousPaths.map(full)
const canonicalToProxy = (path: string) => !never.test(path) && (plain.test(path) || !ambiguous.some((one) => one.test(path)))

test('R-7 the proxy takes exactly those paths for canonical that the evaluator does', () => {
  const hexDigit = fc.constantFrom(...'0123456789abcdefABCDEF')
  const escape = fc.oneof(
    fc.tuple(hexDigit, hexDigit).map(([a, b]) => `%${a}${b}`),
    fc.integer({ min: 0x80, max: 0x10ffff }).filter((code) => code < 0xd800 || code > 0xdfff).map((code) => encodeURIComponent(String.fromCodePoint(code))),
  )
  const piece = fc.oneof(
    { weight: 3, arbitrary: escape },
    { weight: 2, arbitrary: fc.constantFrom('/', '.', '..', '%', 'a', '~', ';', '@', '*', '[', '\\', '"', '?', '%E2%82', '%F0%9F', '%C3') },
    { weight: 1, arbitrary: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)) },
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
      const path = `/${pieces.join('')}`
      expect({ path, canonical: canonicalToProxy(path) }).toEqual({ path, canonical: isCanonicalPath(path) })
    }),
    { numRuns: 20_000 },
  )
})

test('a folded literal is found in every spelling that folds to it', () => {
  const written = fc.array(fc.oneof(fc.constantFrom('/', 'a', '@', '+', ':', '[', '%40', '%2b', '%2B', '%5b', '%C3%A9', '%c3%a9', '%20', '%25')), { minLength: 1, maxLength: 6 })
  fc.assert(
    fc.property(written, written, (one, other) => {
      const [a, b] = [one.join(''), other.join('')]
      expect({ a, b, same: full(spellings(foldPath(a))).test(b) }).toEqual({ a, b, same: foldPath(a) === foldPath(b) })
      if (hasOneSpelling(foldPath(a))) expect(foldPath(a) === foldPath(b)).toBe(foldPath(a) === b)
    }),
  )
})
