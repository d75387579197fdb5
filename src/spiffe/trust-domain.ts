/** Trust domains: SPIFFE-ID sections 2 and 2.1. */
import { Failure } from '../kernel/failure.ts'

/** The name of a trust domain, `example.org`: parsed, so a value of this type is valid. Equal names are equal strings. */
export type TrustDomain = string & { readonly [trustDomainBrand]: true }
declare const trustDomainBrand: unique symbol

/**
 * Reads a trust domain name. Nothing is folded or repaired: upper case is refused (ID-8, ID-19).
 * @throws Failure `trust-domain.empty`, `trust-domain.too-long`, `trust-domain.bad-character`
 */
export function parseTrustDomain(name: string): TrustDomain {
  if (name === '') throw refused('empty', 'a trust domain name is empty: expected for example `example.org`')
  if (name.length > maxTrustDomainBytes) {
    throw refused('too-long', `a trust domain name has ${name.length} characters: at most ${maxTrustDomainBytes}`)
  }
  if (!allowed.test(name)) {
    throw refused(
      'bad-character',
      `\`${name.slice(0, 80)}\` is not a trust domain name: expected only \`a-z\`, \`0-9\`, \`.\`, \`-\` and \`_\``,
    )
  }
  return name as TrustDomain
}

function refused(what: string, text: string): Failure {
  return new Failure('invalid_argument', `trust-domain.${what}`, { public: text })
}

/** SPIFFE-ID section 2.1. */
const allowed = /^[a-z0-9._-]+$/
/** SPIFFE-ID section 2.3: the maximum length of a host in RFC 3986 section 3.2.2. */
export const maxTrustDomainBytes = 255
