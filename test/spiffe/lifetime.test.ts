import fc from 'fast-check'
import { expect, test } from 'vitest'
import { hours, seconds } from '../../src/kernel/duration.ts'
import { renewalDue } from '../../src/spiffe/lifetime.ts'

test('is renewed at half of what was left of its life, give or take a tenth, however far it is backdated', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: seconds(1), max: hours(1000) }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (left, chance) => {
        const obtained = 1_767_225_600_000
        const due = renewalDue(obtained, obtained + left, chance)
        expect(due - obtained).toBeGreaterThanOrEqual(left * 0.45 - 1)
        expect(due - obtained).toBeLessThanOrEqual(left * 0.55 + 1)
      },
    ),
  )
})
