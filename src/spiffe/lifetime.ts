import type { Instant } from '../kernel/clock.ts'

/**
 * When something is due for renewal: at half of what is left of its life when it was obtained, give or take a tenth of that.
 * Counted from then and not from `notBefore`, because a certificate is backdated by more than a short one lives.
 * @param chance a number in [0, 1), drawn once for each lifetime so that the moment does not move
 */
export function renewalDue(obtained: Instant, notAfter: Instant, chance: number): Instant {
  return obtained + (notAfter - obtained) * (0.45 + 0.1 * chance)
}
