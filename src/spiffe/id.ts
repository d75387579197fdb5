/** SPIFFE IDs: SPIFFE-ID section 2. Never parsed as a URL, which would fold and repair (rule T-3). */
import { Failure } from '../kernel/failure.ts'
import { parseTrustDomain, type TrustDomain } from './trust-domain.ts'

/** `spiffe://trust-domain/path`, parsed, so a value of this type is valid. Equal IDs are equal strings. */
export type SpiffeId = string & { readonly [spiffeIdBrand]: true }
declare const spiffeIdBrand: unique symbol

/**
 * Reads a SPIFFE ID. An ID without a path names the trust domain itself.
 * @throws Failure `spiffe-id.too-long`, `spiffe-id.scheme`, `spiffe-id.trust-domain`, `spiffe-id.path-character`,
 *   `spiffe-id.empty-segment`, `spiffe-id.dot-segment`, `spiffe-id.trailing-slash`
 */
export function parseSpiffeId(text: string): SpiffeId {
  if (text.length > maxIdBytes) throw refused('too-long', text, `it has more than ${maxIdBytes} characters`)
  if (!text.startsWith(scheme)) throw refused('scheme', text, `expected it to begin with \`${scheme}\``)
  const slash = text.indexOf('/', scheme.length)
  checkTrustDomain(slash === -1 ? text.slice(scheme.length) : text.slice(scheme.length, slash), text)
  if (slash !== -1) checkPath(text.slice(slash), text)
  return text as SpiffeId
}

/**
 * A SPIFFE ID from its parts. The path is empty or begins with a slash.
 * @throws Failure as {@link parseSpiffeId}
 */
export function spiffeId(trustDomain: TrustDomain, path: string): SpiffeId {
  return parseSpiffeId(`${scheme}${trustDomain}${path}`)
}

/** The trust domain that an ID belongs to. */
export function trustDomainOf(id: SpiffeId): TrustDomain {
  const slash = id.indexOf('/', scheme.length)
  return (slash === -1 ? id.slice(scheme.length) : id.slice(scheme.length, slash)) as TrustDomain
}

/** The path of an ID with its leading slash, or the empty string for the ID of a trust domain. */
export function pathOf(id: SpiffeId): string {
  const slash = id.indexOf('/', scheme.length)
  return slash === -1 ? '' : id.slice(slash)
}

/** The ID that names a trust domain itself. */
export function idOfTrustDomain(trustDomain: TrustDomain): SpiffeId {
  return `${scheme}${trustDomain}` as SpiffeId
}

function checkTrustDomain(name: string, whole: string): void {
  try {
    parseTrustDomain(name)
  } catch (cause) {
    throw new Failure('invalid_argument', 'spiffe-id.trust-domain', {
      public: `\`${shown(whole)}\` is not a SPIFFE ID: ${cause instanceof Error ? cause.message : 'bad trust domain'}`,
      cause,
    })
  }
}

function checkPath(path: string, whole: string): void {
  if (path.endsWith('/')) throw refused('trailing-slash', whole, 'it ends with a slash')
  for (const segment of path.slice(1).split('/')) {
    if (segment === '') throw refused('empty-segment', whole, 'its path has an empty segment')
    if (segment === '.' || segment === '..') throw refused('dot-segment', whole, 'its path has a `.` or `..` segment')
    if (!segmentCharacters.test(segment)) {
      throw refused('path-character', whole, 'expected only letters, digits, `.`, `-` and `_` in its path')
    }
  }
}

function refused(what: string, text: string, why: string): Failure {
  return new Failure('invalid_argument', `spiffe-id.${what}`, { public: `\`${shown(text)}\` is not a SPIFFE ID: ${why}` })
}

const shown = (text: string): string => (text.length > 120 ? `${text.slice(0, 120)}…` : text)

const scheme = 'spiffe://'
/** SPIFFE-ID section 2.2. */
const segmentCharacters = /^[a-zA-Z0-9._-]+$/
/** SPIFFE-ID section 2.3. */
const maxIdBytes = 2048
