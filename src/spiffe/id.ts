/** SPIFFE IDs: SPIFFE-ID section 2. Never parsed as a URL, which would fold and repair (rule T-3). */
import { Failure } from '../kernel/failure.ts'
import { maxTrustDomainBytes, type TrustDomain } from './trust-domain.ts'

/** `spiffe://trust-domain/path`, parsed, so a value of this type is valid. Equal IDs are equal strings. */
export type SpiffeId = string & { readonly [spiffeIdBrand]: true }
declare const spiffeIdBrand: unique symbol

/**
 * Reads a SPIFFE ID. An ID without a path names the trust domain itself. Nothing is folded or repaired: upper case in a trust domain is refused (ID-8, ID-19).
 * @throws Failure `spiffe-id.too-long`, `.scheme`, `.no-trust-domain`, `.trust-domain-too-long`, `.trust-domain-case`, `.trust-domain-percent`,
 *   `.trust-domain-character`, `.user-info`, `.port`, `.query`, `.fragment`, `.trailing-slash`, `.empty-segment`, `.dot-segment`, `.path-percent`, `.path-character`
 */
export function parseSpiffeId(text: string): SpiffeId {
  if (text.length > maxIdBytes || !wholeId.test(text)) throw whyNot(text)
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

/** The first rule that a text breaks which is not a SPIFFE ID. */
function whyNot(text: string): Failure {
  if (text.length > maxIdBytes) return refused('too-long', text, `it has more than ${maxIdBytes} characters`)
  if (!text.startsWith(scheme)) return refused('scheme', text, `expected it to begin with \`${scheme}\``)
  const slash = text.indexOf('/', scheme.length)
  const trustDomain = slash === -1 ? text.slice(scheme.length) : text.slice(scheme.length, slash)
  return whyNoTrustDomain(trustDomain, text) ?? whyNoPath(slash === -1 ? '' : text.slice(slash), text)
}

function whyNoTrustDomain(name: string, whole: string): Failure | undefined {
  if (name === '') return refused('no-trust-domain', whole, 'it has no trust domain')
  const bad = /[^a-z0-9._-]/u.exec(name)?.[0]
  if (bad === undefined) {
    return name.length > maxTrustDomainBytes
      ? refused('trust-domain-too-long', whole, `its trust domain has more than ${maxTrustDomainBytes} characters`)
      : undefined
  }
  if (/[A-Z]/.test(bad)) return refused('trust-domain-case', whole, 'its trust domain has a letter in upper case')
  const delimiter = delimiters.get(bad)
  if (delimiter) return refused(delimiter.what, whole, delimiter.why)
  if (bad === '%') return refused('trust-domain-percent', whole, 'its trust domain has a percent sign')
  return refused('trust-domain-character', whole, 'expected only `a-z`, `0-9`, `.`, `-` and `_` in its trust domain')
}

function whyNoPath(path: string, whole: string): Failure {
  if (path.endsWith('/')) return refused('trailing-slash', whole, 'it ends with a slash')
  for (const segment of path.slice(1).split('/')) {
    if (segment === '') return refused('empty-segment', whole, 'its path has an empty segment')
    if (segment === '.' || segment === '..') return refused('dot-segment', whole, 'its path has a `.` or `..` segment')
  }
  const bad = /[^a-zA-Z0-9._/-]/u.exec(path)?.[0]
  const delimiter = bad === '?' || bad === '#' ? delimiters.get(bad) : undefined
  if (delimiter) return refused(delimiter.what, whole, delimiter.why)
  if (bad === '%') return refused('path-percent', whole, 'its path has a percent sign')
  return refused('path-character', whole, 'expected only letters, digits, `.`, `-` and `_` in its path')
}

function refused(what: string, text: string, why: string): Failure {
  return new Failure('invalid_argument', `spiffe-id.${what}`, { public: `\`${shown(text)}\` is not a SPIFFE ID: ${why}` })
}

const shown = (text: string): string => (text.length > 120 ? `${text.slice(0, 120)}…` : text)

const scheme = 'spiffe://'
/** SPIFFE-ID sections 2.1 and 2.2. */
const wholeId = /^spiffe:\/\/[a-z0-9._-]{1,255}(?:\/(?!\.{1,2}(?:\/|$))[a-zA-Z0-9._-]+)*$/
/** SPIFFE-ID section 2.3. */
const maxIdBytes = 2048

/** What separates the parts of other URIs, and has no place in these (SPIFFE-ID section 2). */
const delimiters: ReadonlyMap<string, { readonly what: string; readonly why: string }> = new Map([
  ['@', { what: 'user-info', why: 'it names a user' }],
  [':', { what: 'port', why: 'it has a port' }],
  ['?', { what: 'query', why: 'it has a query' }],
  ['#', { what: 'fragment', why: 'it has a fragment' }],
])
