import fc from 'fast-check'
import { expect, test } from 'vitest'
import { dotSegments, hasOneSpelling, plainPath, spellings } from '../../src/authz/paths.ts'
import { foldPath, isCanonicalPath } from '../../src/policy/normalize.ts'

// RE2 and JavaScript read these expressions in the same way: no newline ever stands in a path.
const full = (expression: string) => new RegExp(`^(?:${expression})$`, 's')

test('R-7 the quick way takes no path for canonical that the evaluator does not', () => {
  const piece = fc.constantFrom('/', '.', '..', '%', '%41', '%40', 'a', '~', ';', '@', '*', '[', '\\', '"', '?', 'x.y', '.a')
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
      const path = `/${pieces.join('')}`
      const quick = full(plainPath).test(path) && !full(dotSegments).test(path)
      expect({ path, canonical: quick }).toEqual({ path, canonical: isCanonicalPath(path) && !path.includes('%') })
    }),
    { numRuns: 2000 },
  )
})

test('a folded literal is found in every spelling that folds to it', () => {
  const written = fc.array(
    fc.oneof(fc.constantFrom('/', 'a', '@', '+', ':', '[', '%40', '%2b', '%2B', '%5b', '%C3%A9', '%c3%a9', '%20', '%25')),
    { minLength: 1, maxLength: 6 },
  )
  fc.assert(
    fc.property(written, written, (one, other) => {
      const [a, b] = [one.join(''), other.join('')]
      expect({ a, b, same: full(spellings(foldPath(a))).test(b) }).toEqual({ a, b, same: foldPath(a) === foldPath(b) })
      if (hasOneSpelling(foldPath(a))) expect(foldPath(a) === foldPath(b)).toBe(foldPath(a) === b)
    }),
  )
})
