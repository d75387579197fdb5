import { sameBytes } from '../kernel/bytes.ts'
import { formatInstant, type Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { type Certificate, isSelfIssued, signedBy } from './certificate.ts'
import { generalName, type NameConstraints } from './extension.ts'
import { oid } from './oid.ts'

export interface ChainQuestion {
  readonly leaf: Certificate
  /** In any order; they may be of no use. */
  readonly intermediates: readonly Certificate[]
  /** Trusted by their bytes, self-signed or not. Not the leaf itself: an anchor vouches for others. */
  readonly roots: readonly Certificate[]
  readonly at: Instant
  /** Accepts signatures of ML-DSA-65 (RFC 9881) as well, which few others can verify yet. */
  readonly postQuantum?: boolean | undefined
}

/**
 * Finds a path from the leaf to a root and checks it at a moment (RFC 5280 section 6.1, rule X-21): the result begins with the leaf and ends with the root.
 * Every issuer must be a CA that may sign certificates (rule R-13); no certificate, the root included, may be outside its validity.
 * Purposes and the leaf's own shape are the caller's business.
 * @throws Failure `chain.expired`, `chain.not-yet-valid`, `chain.unknown-critical`, `chain.not-a-ca`, `chain.may-not-sign`, `chain.path-too-long`,
 * `chain.name-constraint`, `chain.too-many-certificates`, and `chain.no-path` where nobody known signed a certificate
 */
export function buildChain({ leaf, intermediates, roots, at, postQuantum = false }: ChainQuestion): Certificate[] {
  if (intermediates.length > maxIntermediates) {
    throw refusal('too-many-certificates', `${intermediates.length} intermediate certificates are too many: at most ${maxIntermediates}`)
  }
  demandUsable(leaf, at)
  const search: Search = {
    at,
    postQuantum,
    roots,
    intermediates: intermediates.filter((each) => !roots.some((root) => sameBytes(root.raw, each.raw))),
    checks: 0,
    refused: undefined,
  }
  const chain = extend([leaf], search)
  if (chain) return chain
  throw search.refused ?? refusal('no-path', 'no trusted certificate signed this chain')
}

interface Search {
  readonly at: Instant
  readonly postQuantum: boolean
  readonly roots: readonly Certificate[]
  readonly intermediates: readonly Certificate[]
  /** Signatures looked at so far (rule R-29). */
  checks: number
  /** Why the first certificate that had signed was no good after all. */
  refused: Failure | undefined
}

/** The chain to a root, or nothing. Roots are tried before intermediates, matching key identifiers before others. */
function extend(chain: readonly Certificate[], search: Search): Certificate[] | undefined {
  const child = chain.at(-1)!
  for (const root of candidates(child, search.roots)) {
    if (!sameBytes(root.raw, child.raw) && accepted(root, chain, search, true)) return [...chain, root]
  }
  for (const issuer of candidates(child, search.intermediates)) {
    if (chain.some((each) => sameSubject(each, issuer)) || !accepted(issuer, chain, search, false)) continue
    const whole = extend([...chain, issuer], search)
    if (whole) return whole
  }
  return undefined
}

/** Those that could have signed by their name. A key identifier is a hint that orders them (RFC 5280 section 4.2.1.1). */
function candidates(child: Certificate, among: readonly Certificate[]): Certificate[] {
  const named = among.filter((each) => sameBytes(each.subject.raw, child.issuer.raw))
  return named.length < 2 ? named : named.toSorted((a, b) => rank(child, b) - rank(child, a))
}

function rank({ authorityKeyId }: Certificate, { subjectKeyId }: Certificate): number {
  if (!authorityKeyId || !subjectKeyId) return 1
  return sameBytes(authorityKeyId, subjectKeyId) ? 2 : 0
}

function accepted(issuer: Certificate, chain: readonly Certificate[], search: Search, isRoot: boolean): boolean {
  if (++search.checks > maxSignatureChecks)
    throw refusal('too-many-certificates', `a path takes more than ${maxSignatureChecks} signature checks to find`)
  const child = chain.at(-1)!
  if (child.signatureAlgorithm.oid === oid.mlDsa65 && !search.postQuantum) return false
  if (!signedBy(child, issuer)) return false
  try {
    demandIssuer(issuer, chain, search.at, isRoot)
    return true
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    search.refused ??= error
    return false
  }
}

/** Everything that must be true of an issuer of this chain, given that it signed the last certificate of it. */
function demandIssuer(issuer: Certificate, chain: readonly Certificate[], at: Instant, isRoot: boolean): void {
  if (chain.length >= maxChainLength) throw refusal('too-many-certificates', `a chain is longer than ${maxChainLength} certificates`)
  demandUsable(issuer, at)
  demandCa(issuer, isRoot)
  demandPathLength(issuer, chain)
  if (issuer.nameConstraints)
    for (const [place, each] of chain.entries()) if (place === 0 || !isSelfIssued(each)) demandNames(issuer.nameConstraints, each)
}

function demandUsable(certificate: Certificate, at: Instant): void {
  const { notBefore, notAfter, unknownCritical } = certificate
  // Both written so that a moment that is not a number is refused.
  if (!(at >= notBefore)) throw refusal('not-yet-valid', `${tell(certificate)} is valid from ${formatInstant(notBefore)} on`)
  // Valid through the whole of its last second (RFC 5280 section 4.1.2.5).
  if (!(at < notAfter + 1000)) throw refusal('expired', `${tell(certificate)} expired at ${formatInstant(notAfter)}`)
  if (unknownCritical.length > 0)
    throw refusal('unknown-critical', `${tell(certificate)} has the critical extension \`${unknownCritical[0]}\`, which is not understood`)
}

function demandCa(issuer: Certificate, isRoot: boolean): void {
  const { basicConstraints, keyUsage } = issuer
  if (!basicConstraints?.ca) throw refusal('not-a-ca', `${tell(issuer)} signed a certificate and is not a CA`)
  // Roots made by hand often have no key usage, and are trusted by their bytes; RFC 5280 section 6.1.4 (n) asks only where there is one.
  const maySign = keyUsage ? keyUsage.keyCertSign : isRoot
  if (!maySign) throw refusal('may-not-sign', `${tell(issuer)} signed a certificate and has a key that may not`)
}

/** Counts the CAs between an issuer and the leaf, without those that only renew a key (RFC 5280 section 6.1.4 (l)). */
function demandPathLength(issuer: Certificate, chain: readonly Certificate[]): void {
  const allowed = issuer.basicConstraints?.pathLength
  const between = chain.slice(1).filter((each) => !isSelfIssued(each)).length
  if (allowed !== undefined && between > allowed)
    throw refusal('path-too-long', `${tell(issuer)} allows ${allowed} CAs below it: found ${between}`)
}

/** RFC 5280 section 4.2.1.10, rules R-44 and X-14. */
export function demandNames(constraints: NameConstraints, certificate: Certificate): void {
  const { uris = [], dnsNames = [] } = certificate.subjectAltName ?? {}
  const { permittedUris, excludedUris, permittedDns, excludedDns, otherTypes } = constraints
  for (const uri of uris) demandName(certificate, hostOf(uri), permittedUris, excludedUris, uriMatches)
  for (const name of dnsNames) demandName(certificate, domainOf(name), permittedDns, excludedDns, dnsMatches)
  if (otherTypes.some((type) => hasNameOf(type, certificate))) {
    throw refusal('name-constraint', `${tell(certificate)} has a name of a type that its issuer constrains, and that is not evaluated`)
  }
}

function demandName(
  certificate: Certificate,
  name: string | undefined,
  permitted: readonly string[],
  excluded: readonly string[],
  matches: (name: string, constraint: string) => boolean,
): void {
  if (permitted.length === 0 && excluded.length === 0) return
  const allowed = permitted.length === 0 || (name !== undefined && permitted.some((each) => matches(name, each)))
  if (name === undefined || !allowed || excluded.some((each) => matches(name, each) || wildcardCovers(name, each))) {
    throw refusal('name-constraint', `${tell(certificate)} has a name that its issuer may not certify`)
  }
}

/** The host of a URI in lower case; nothing where there is none by name, or a user before it: no constraint then allows it. */
function hostOf(uri: string): string | undefined {
  const host = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([A-Za-z0-9._-]+)(?::[0-9]*)?(?:[/?#]|$)/.exec(uri)?.[1]
  return host === undefined || /^[0-9.]+$/.test(host) || !labels.test(host) ? undefined : host.toLowerCase()
}

/** A DNS name in lower case; nothing where it is none: a dot at its end would be another spelling of an excluded name. */
function domainOf(name: string): string | undefined {
  return labels.test(name.startsWith('*.') ? name.slice(2) : name) ? name.toLowerCase() : undefined
}

/** A host is meant exactly; with a leading dot, every host below. */
function uriMatches(host: string, constraint: string): boolean {
  return constraint.startsWith('.') ? host.endsWith(constraint) && host.length > constraint.length : host === constraint
}

/** A domain and everything below it; the empty constraint means every name. */
function dnsMatches(name: string, constraint: string): boolean {
  if (constraint === '' || name === constraint) return true
  return name.endsWith(constraint.startsWith('.') ? constraint : `.${constraint}`)
}

/** Whether a wildcard certificate would serve a name that is excluded, as `*.a.test` serves `b.a.test`. */
function wildcardCovers(name: string, excluded: string): boolean {
  return name.startsWith('*.') && `.${excluded}`.endsWith(name.slice(1))
}

function hasNameOf(type: number, { subject, subjectAltName }: Certificate): boolean {
  const { ips = [], emails = [], others = 0 } = subjectAltName ?? {}
  if (type === generalName.ip) return ips.length > 0
  // Of a mailbox in the subject the constraints on mailboxes speak as well (RFC 5280 section 4.2.1.10).
  if (type === generalName.email) return emails.length > 0 || subject.attributes.some((attribute) => attribute.oid === oid.emailAddress)
  return others > 0 || (type === generalName.directory && subject.attributes.length > 0)
}

/** One name and one key are one CA, whatever the certificate says otherwise: a path does not pass it twice. */
function sameSubject(a: Certificate, b: Certificate): boolean {
  return sameBytes(a.subject.raw, b.subject.raw) && sameBytes(a.spki, b.spki)
}

function tell(certificate: Certificate): string {
  const name = certificate.subjectAltName?.uris[0] ?? certificate.subject.text
  if (name === '') return `the certificate with serial \`${certificate.serial}\``
  // The name is whatever its maker wrote; this text is read on terminals.
  return `the certificate of \`${name.slice(0, 128).replace(/[^ -~]|`/g, '?')}\``
}

function refusal(what: string, text: string): Failure {
  return new Failure('unauthenticated', `chain.${what}`, { public: text })
}

const labels = /^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$/
/** Leaf and root included. */
const maxChainLength = 8
/** Rule R-28: 16 certificates a chain, the leaf among them. */
const maxIntermediates = 15
/** Rule R-29. */
const maxSignatureChecks = 32
