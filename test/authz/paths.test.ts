import fc from 'fast-check'
import { expect, test } from 'vitest'
import { hasOneSpelling, spellings } from '../../src/authz/paths.ts'
import { foldPath } from '../../src/policy/normalize.ts'

// RE2 and JavaScript read these expressions in the same way: no newline ever stands in a path.
const full = (expression: string) => new RegExp(`^(?:${expression})$`, 's')

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
