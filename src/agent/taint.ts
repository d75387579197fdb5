import type { Instant } from '../kernel/clock.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { bundleSet } from '../spiffe/bundle-set.ts'
import { verifyX509Svid } from '../spiffe/x509-svid.ts'
import type { Certificate } from '../x509/certificate.ts'

/**
 * True if a chain leads only to authorities that are tainted, or gone from the bundle: then its holder asks for a new SVID now.
 * An authority that is tainted and one with the same key that is not count as two.
 */
export function hasTaintedPath(chain: readonly Certificate[], bundle: TrustBundle, at: Instant): boolean {
  const x509Authorities = bundle.x509Authorities.filter((one) => !one.tainted)
  try {
    verifyX509Svid(chain, bundleSet([{ ...bundle, x509Authorities }]), at)
    return false
  } catch {
    return true
  }
}
