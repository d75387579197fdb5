/** DNS names in certificates: RFC 5280 section 4.2.1.6, RFC 1034 section 3.5, rule C-13. */
import { Failure } from '../kernel/failure.ts'

/**
 * Refuses names that are not host names of letters, digits and hyphens: no wildcards, no addresses, no trailing dot.
 * @throws Failure `ca.dns-name`, `ca.too-many-dns-names`
 */
export function checkDnsNames(names: readonly string[]): void {
  if (names.length > maxDnsNames) {
    throw new Failure('invalid_argument', 'ca.too-many-dns-names', {
      public: `${names.length} DNS names are too many: at most ${maxDnsNames}`,
    })
  }
  for (const name of names) {
    if (!isDnsName(name)) {
      throw new Failure('invalid_argument', 'ca.dns-name', {
        public: `\`${name.slice(0, 80)}\` is not a DNS name: expected labels of letters, digits and \`-\`, joined by dots`,
      })
    }
  }
}

export function isDnsName(name: string): boolean {
  if (name.length > maxNameLength) return false
  const labels = name.split('.')
  // A last label of digits alone makes it an IPv4 address (RFC 1123 section 2.1).
  return labels.every((label) => labelPattern.test(label)) && !/^[0-9]+$/.test(labels.at(-1)!)
}

const labelPattern = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i
/** RFC 1035 section 2.3.4, without the root. */
const maxNameLength = 253
const maxDnsNames = 64
