import type { Instant } from '../kernel/clock.ts'

export interface Validity {
  readonly notBefore: Instant
  readonly notAfter: Instant
}

/**
 * When something is due for renewal: at half its life, give or take a tenth of it.
 * @param chance a number in [0, 1), drawn once for each lifetime so that the moment does not move
 */
export function renewalDue(validity: Validity, chance: number): Instant {
  const life = validity.notAfter - validity.notBefore
  return validity.notBefore + life * (0.45 + 0.1 * chance)
}

export const isValidAt = (validity: Validity, at: Instant): boolean => validity.notBefore <= at && at <= validity.notAfter
