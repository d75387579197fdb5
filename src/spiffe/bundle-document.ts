/** Trust bundles as documents: SPIFFE Trust Domain and Bundle section 4, X509-SVID section 6, JWT-SVID section 6. */
import { base64 } from '../kernel/bytes.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { fingerprint, parseCertificate, type Certificate } from '../x509/certificate.ts'
import { formatPem, parseCertificatesPem } from '../x509/pem.ts'
import type { TokenAuthority, TrustBundle, X509Authority } from './bundle.ts'
import { formatJwk, readJwk, type Jwk } from './jwk.ts'
import type { TrustDomain } from './trust-domain.ts'

/** The SPIFFE bundle document: a JWK set with the keys of every kind, the sequence and the refresh hint. */
export function formatBundleDocument(bundle: TrustBundle): string {
  const keys = [
    ...bundle.x509Authorities.map(x509Jwk),
    ...bundle.jwtAuthorities.map((authority) => ({ use: 'jwt-svid', ...tokenJwk(authority) })),
    ...bundle.witAuthorities.map((authority) => ({ use: 'wit-svid', ...tokenJwk(authority) })),
  ]
  const hint = bundle.refreshHint === undefined ? {} : { spiffe_refresh_hint: Math.round(bundle.refreshHint / seconds(1)) }
  // The sequence may have 64 bits (B-2), more than a number here can hold, so its digits are put in as text.
  return JSON.stringify({ keys, spiffe_sequence: 0, ...hint }, null, 2).replace(
    '"spiffe_sequence": 0',
    `"spiffe_sequence": ${bundle.sequence}`,
  )
}

/** The plain JWK set of the JWT authorities, as FetchJWTBundles sends it: no other uses (API-19). */
export function formatJwtKeySet(bundle: TrustBundle): string {
  return JSON.stringify({ keys: bundle.jwtAuthorities.map(tokenJwk) })
}

/** The plain JWK set of the WIT authorities, as FetchWITBundles sends it: no other uses (API-25). */
export function formatWitKeySet(bundle: TrustBundle): string {
  return JSON.stringify({ keys: bundle.witAuthorities.map(tokenJwk) })
}

/** The X.509 authorities, PEM, one after the other. */
export function formatBundlePem(bundle: TrustBundle): string {
  return bundle.x509Authorities.map(({ certificate }) => formatPem('CERTIFICATE', certificate.raw)).join('')
}

/**
 * Reads a bundle as an operator keeps it: a SPIFFE bundle document, or certificates in PEM.
 * @throws Failure `bundle.empty`, `bundle.malformed`, `pem.*`, `x509.*`
 */
export function parseBundle(trustDomain: TrustDomain, text: string): TrustBundle {
  const bundle = text.trimStart().startsWith('{') ? parseBundleDocument(trustDomain, text) : parseBundlePem(trustDomain, text)
  if (bundle.x509Authorities.length === 0) throw refused('empty', `the bundle of \`${trustDomain}\` has no X.509 authority`)
  return bundle
}

/**
 * Reads a SPIFFE bundle document. Keys of unknown type or use are passed over (B-5, B-8, B-9), the rest must be well formed.
 * @throws Failure `bundle.malformed`
 */
export function parseBundleDocument(trustDomain: TrustDomain, text: string): TrustBundle {
  const document = object(text)
  const keys = document['keys']
  if (!Array.isArray(keys) || keys.length > maxKeys)
    throw refused('malformed', `a bundle document needs a list \`keys\` of at most ${maxKeys}`)
  const x509Authorities: X509Authority[] = []
  const jwtAuthorities: TokenAuthority[] = []
  const witAuthorities: TokenAuthority[] = []
  for (const jwk of keys as Jwk[]) {
    if (typeof jwk !== 'object' || jwk === null || !knownTypes.has(jwk['kty'] as string)) continue
    if (jwk['use'] === 'x509-svid') x509Authorities.push(...readX509(jwk))
    else if (jwk['use'] === 'jwt-svid') jwtAuthorities.push(readTokenKey(jwk))
    else if (jwk['use'] === 'wit-svid') witAuthorities.push(readTokenKey(jwk))
  }
  demandUniqueKeyIds([...jwtAuthorities, ...witAuthorities])
  const hint = document['spiffe_refresh_hint']
  return {
    trustDomain,
    x509Authorities,
    jwtAuthorities,
    witAuthorities,
    sequence: sequenceIn(text, document['spiffe_sequence']),
    ...(typeof hint === 'number' && hint > 0 ? { refreshHint: seconds(hint) } : {}),
  }
}

/** True if both trust the same keys. The sequence is not compared. */
export function sameAuthorities(a: TrustBundle, b: TrustBundle): boolean {
  return a.trustDomain === b.trustDomain && a.refreshHint === b.refreshHint && contentOf(a) === contentOf(b)
}

function contentOf(bundle: TrustBundle): string {
  const roots = bundle.x509Authorities.map(({ certificate, tainted }) => `${fingerprint(certificate)}${tainted ? '!' : ''}`)
  const keys = [...bundle.jwtAuthorities.map(contentOfKey('jwt')), ...bundle.witAuthorities.map(contentOfKey('wit'))]
  return [...roots, ...keys].sort().join(',')
}

function contentOfKey(use: string): (authority: TokenAuthority) => string {
  return ({ keyId, publicKey, tainted }) => `${use}:${keyId}=${base64(publicKey)}${tainted ? '!' : ''}`
}

function parseBundlePem(trustDomain: TrustDomain, text: string): TrustBundle {
  const certificates = parseCertificatesPem(text)
  return {
    trustDomain,
    x509Authorities: certificates.map((certificate) => ({ certificate, tainted: false })),
    jwtAuthorities: [],
    witAuthorities: [],
    sequence: 0n,
  }
}

function x509Jwk({ certificate }: X509Authority): Jwk {
  return { use: 'x509-svid', ...formatJwk(certificate.spki), x5c: [base64(certificate.raw)] }
}

function tokenJwk({ keyId, publicKey }: TokenAuthority): Jwk {
  return { kid: keyId, ...formatJwk(publicKey) }
}

/** An entry without certificate is passed over, and only the first certificate counts. */
function readX509(jwk: Jwk): X509Authority[] {
  const chain = jwk['x5c']
  if (!Array.isArray(chain) || typeof chain[0] !== 'string') return []
  const certificate: Certificate = parseCertificate(Buffer.from(chain[0], 'base64'))
  return [{ certificate, tainted: false }]
}

function readTokenKey(jwk: Jwk): TokenAuthority {
  const keyId = jwk['kid']
  if (typeof keyId !== 'string' || keyId === '') throw refused('malformed', 'a key for tokens of a bundle document has no `kid`')
  try {
    return { keyId, publicKey: readJwk(jwk).spki, tainted: false }
  } catch (cause) {
    throw refused('malformed', `the key \`${keyId.slice(0, 80)}\` of a bundle document cannot be read`, cause)
  }
}

/** W-19: no two keys for tokens share a name, whatever they are for. */
function demandUniqueKeyIds(authorities: readonly TokenAuthority[]): void {
  const seen = new Set<string>()
  for (const { keyId } of authorities) {
    if (seen.has(keyId)) throw refused('malformed', `two keys of a bundle document are called \`${keyId.slice(0, 80)}\``)
    seen.add(keyId)
  }
}

/** Read from the text: a JSON number has only 53 bits in this language, and the sequence may have 64 (B-2). */
function sequenceIn(text: string, parsed: unknown): bigint {
  if (parsed === undefined) return 0n
  const digits = /"spiffe_sequence"\s*:\s*(\d{1,20})\s*[,}]/.exec(text)?.[1]
  if (digits === undefined) throw refused('malformed', '`spiffe_sequence` of a bundle document is not a whole number')
  return BigInt(digits)
}

function object(text: string): Record<string, unknown> {
  if (text.length > maxDocumentBytes)
    throw refused('malformed', `a bundle document has ${text.length} characters: at most ${maxDocumentBytes}`)
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch (cause) {
    throw refused('malformed', 'a bundle document is not JSON', cause)
  }
  throw refused('malformed', 'a bundle document is not a JSON object')
}

function refused(what: string, text: string, cause?: unknown): Failure {
  return new Failure('invalid_argument', `bundle.${what}`, { public: text, ...(cause === undefined ? {} : { cause }) })
}

const knownTypes = new Set(['RSA', 'EC'])
const maxKeys = 1000
const maxDocumentBytes = 4 * 1024 * 1024
