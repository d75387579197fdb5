/** Trust bundles as documents: SPIFFE Trust Domain and Bundle section 4, X509-SVID section 6, JWT-SVID section 6, WIT-SVID section 6. */
import { base64 } from '../kernel/bytes.ts'
import { seconds, type Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { fingerprint, isSelfIssued, parseCertificate, signedBy } from '../x509/certificate.ts'
import { formatPem, parseCertificatesPem } from '../x509/pem.ts'
import type { TokenAuthority, TrustBundle, X509Authority } from './bundle.ts'
import { collect, type Flaws } from './flaws.ts'
import { formatJwk, isKnownKey, readJwk } from './jwk.ts'
import { formatJson, isJsonList, isJsonObject, parseJsonObject, type JsonObject, type JsonValue } from './json.ts'
import type { TrustDomain } from './trust-domain.ts'
import { signingCertificateFlaws } from './x509-svid.ts'

/** The SPIFFE bundle document: a JWK set with the keys of every kind, the sequence and the refresh hint. */
export function formatBundleDocument(bundle: TrustBundle): string {
  const { refreshHint } = bundle
  return formatJson({
    ...bundleObject(bundle),
    ...(refreshHint === undefined ? {} : { spiffe_refresh_hint: Math.round(refreshHint / seconds(1)) }),
  })
}

/** The members of a bundle document, without the refresh hint (B-12). */
export function bundleObject(bundle: TrustBundle): JsonObject {
  const keys = [
    ...bundle.x509Authorities.map(x509Jwk),
    ...bundle.jwtAuthorities.map((authority) => ({ use: 'jwt-svid', ...tokenJwk(authority) })),
    ...bundle.witAuthorities.map((authority) => ({ use: 'wit-svid', ...tokenJwk(authority) })),
  ]
  return { keys, spiffe_sequence: bundle.sequence }
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
 * @throws Failure `bundle.empty`, those of {@link parseBundleDocument}, `pem.*`, `der.*`, `x509.*`
 */
export function parseBundle(trustDomain: TrustDomain, text: string): TrustBundle {
  const bundle = text.trimStart().startsWith('{') ? parseBundleDocument(trustDomain, text) : parseBundlePem(trustDomain, text)
  if (bundle.x509Authorities.length === 0) throw refused('empty', `the bundle of \`${trustDomain}\` has no X.509 authority`)
  return bundle
}

/**
 * Reads a SPIFFE bundle document. Keys of unknown type or use are passed over (B-5, B-8, B-9), and so are those for tokens that are too weak;
 * the rest must be well formed. A document without keys is a bundle that trusts nothing (B-6).
 * @throws Failure `bundle.malformed`, `.no-keys`, `.too-many-keys`, `.sequence`, `.refresh-hint`, `.certificate`, `.no-key-id`, `.key-id-twice`, `.key`
 */
export function parseBundleDocument(trustDomain: TrustDomain, text: string): TrustBundle {
  return readBundle(trustDomain, parseDocument(text))
}

/** {@link parseBundleDocument} of a document that was read as JSON, with integers of any size. */
export function readBundle(trustDomain: TrustDomain, document: JsonObject): TrustBundle {
  const keys = keysOf(document)
  const of = (use: string) => keys.filter((jwk) => jwk['use'] === use)
  const jwtAuthorities = readTokenKeys(of('jwt-svid'))
  const witAuthorities = readTokenKeys(of('wit-svid'))
  demandUniqueKeyIds(jwtAuthorities, witAuthorities)
  return {
    trustDomain,
    x509Authorities: of('x509-svid').flatMap(readX509),
    jwtAuthorities,
    witAuthorities,
    sequence: sequenceOf(document),
    ...refreshHintOf(document),
  }
}

/**
 * Reads a plain JWK set of the Workload API: keys for one kind of token. Those that say another use are passed over.
 * @throws Failure `bundle.malformed`, `.no-keys`, `.too-many-keys`, `.no-key-id`, `.key`
 */
export function parseKeySet(use: 'jwt-svid' | 'wit-svid', text: string): TokenAuthority[] {
  return readTokenKeys(keysOf(parseDocument(text)).filter((jwk) => jwk['use'] === undefined || jwk['use'] === use))
}

/** A document as JSON. @throws Failure `bundle.malformed` */
export function parseDocument(text: string): JsonObject {
  try {
    return parseJsonObject(text, { maxLength: maxDocumentLength, bigIntegers: true })
  } catch (cause) {
    throw refused('malformed', 'a bundle document is not what it should be', cause)
  }
}

/** Everything that whoever publishes a bundle document did wrong, much of which readers pass over. */
export function bundleDocumentFlaws(trustDomain: TrustDomain, text: string): Failure[] {
  try {
    const document = parseDocument(text)
    readBundle(trustDomain, document)
    return keysOf(document).flatMap((jwk) => collect(publishedKeyFlaws(trustDomain, jwk)))
  } catch (error) {
    return [Failure.from(error)]
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

function x509Jwk({ certificate }: X509Authority): JsonObject {
  return { use: 'x509-svid', ...formatJwk(certificate.spki), x5c: [base64(certificate.raw)] }
}

function tokenJwk({ keyId, publicKey }: TokenAuthority): JsonObject {
  return { kid: keyId, ...formatJwk(publicKey) }
}

function keysOf(document: JsonObject): JsonObject[] {
  const keys = document['keys']
  if (!isJsonList(keys)) throw refused('no-keys', 'a bundle document has no list `keys`')
  return keys.filter(isJsonObject)
}

/** An entry without certificate is passed over, and only the first certificate counts. */
function readX509(jwk: JsonObject): X509Authority[] {
  if (!x509KeyTypes.has(jwk['kty'])) return []
  const x5c = jwk['x5c']
  const first = isJsonList(x5c) ? x5c[0] : undefined
  if (typeof first !== 'string' || first === '') return []
  const der = Buffer.from(first, 'base64')
  if (base64(der) !== first) throw refused('certificate', 'a certificate of a bundle document is not in base64')
  try {
    return [{ certificate: parseCertificate(der), tainted: false }]
  } catch (cause) {
    throw refused('certificate', 'a certificate of a bundle document cannot be read', cause)
  }
}

function readTokenKeys(jwks: readonly JsonObject[]): TokenAuthority[] {
  const known = jwks.filter(isKnownKey)
  if (known.length > maxTokenKeys) throw refused('too-many-keys', `a bundle document has more than ${maxTokenKeys} keys for tokens`)
  return known.flatMap(readTokenKey)
}

/** A key that is too weak to be trusted is passed over: it would only take the good ones of its trust domain with it. */
function readTokenKey(jwk: JsonObject): TokenAuthority[] {
  const keyId = jwk['kid']
  if (typeof keyId !== 'string' || keyId === '') throw refused('no-key-id', 'a key for tokens of a bundle document has no `kid`')
  try {
    return [{ keyId, publicKey: readJwk(jwk).spki, tainted: false }]
  } catch (cause) {
    if (cause instanceof Failure && unusable.has(cause.reason)) return []
    throw refused('key', `the key \`${keyId.slice(0, 80)}\` of a bundle document cannot be read`, cause)
  }
}

/** W-19: the name of a key for WIT-SVIDs is that of no other key, whatever that one is for. */
function demandUniqueKeyIds(jwtAuthorities: readonly TokenAuthority[], witAuthorities: readonly TokenAuthority[]): void {
  const seen = new Set(jwtAuthorities.map(({ keyId }) => keyId))
  for (const { keyId } of witAuthorities) {
    if (seen.has(keyId)) throw refused('key-id-twice', `two keys of a bundle document are called \`${keyId.slice(0, 80)}\``)
    seen.add(keyId)
  }
}

/** Zero where there is none (B-2). */
function sequenceOf(document: JsonObject): bigint {
  const sequence = wholeNumber(document['spiffe_sequence'] ?? 0)
  if (sequence === undefined || sequence > maxSequence) {
    throw refused('sequence', '`spiffe_sequence` of a bundle document is not a whole number of at most 64 bits')
  }
  return sequence
}

/** Zero hints at nothing (B-3). */
function refreshHintOf(document: JsonObject): { refreshHint?: Duration } {
  const hint = wholeNumber(document['spiffe_refresh_hint'] ?? 0)
  if (hint === undefined) throw refused('refresh-hint', '`spiffe_refresh_hint` of a bundle document is not a whole number of seconds')
  return hint === 0n ? {} : { refreshHint: seconds(Math.min(Number(hint), longestRefreshHint)) }
}

function wholeNumber(value: JsonValue): bigint | undefined {
  if (typeof value === 'bigint') return value < 0n ? undefined : value
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? BigInt(value) : undefined
}

function* publishedKeyFlaws(trustDomain: TrustDomain, jwk: JsonObject): Flaws {
  const { kty, use, kid, x5c } = jwk
  if (typeof kty !== 'string') yield refused('no-key-type', 'a key of a bundle document has no `kty`')
  if (typeof use !== 'string') yield refused('no-use', 'a key of a bundle document has no `use`')
  if (use !== 'x509-svid') return
  if (kid !== undefined) yield refused('certificate-key-id', 'the entry of a certificate has a `kid`')
  if (!isJsonList(x5c) || x5c.length !== 1) yield refused('certificate-count', 'the entry of a certificate does not hold exactly one')
  for (const { certificate } of readX509(jwk)) {
    if (!isSelfIssued(certificate) || !signedBy(certificate, certificate)) {
      yield refused('not-self-signed', 'a certificate of a bundle document is not self-signed')
    }
    const { kty: type, ...members } = formatJwk(certificate.spki)
    if (type !== kty || Object.entries(members).some(([name, value]) => jwk[name] !== value)) {
      yield refused('other-key', 'the entry of a certificate holds another key than the certificate')
    }
    yield* signingCertificateFlaws(certificate, trustDomain)
  }
}

function refused(what: string, text: string, cause?: unknown): Failure {
  return new Failure('invalid_argument', `bundle.${what}`, { public: text, ...(cause === undefined ? {} : { cause }) })
}

/** Of certificates: what this program can read the keys of (RFC 7518 section 6.1, RFC 8037, RFC 9964). */
const x509KeyTypes: ReadonlySet<unknown> = new Set(['RSA', 'EC', 'OKP', 'AKP'])
const unusable: ReadonlySet<string> = new Set(['x509.weak-key', 'x509.unsupported-key'])
const maxDocumentLength = 4 * 1024 * 1024
/** Some clouds take no more than 100 keys of an issuer; a CA announces a handful. */
const maxTokenKeys = 128
const maxSequence = 2n ** 64n - 1n
/** A year: more is a slip, and would not fit a timer. */
const longestRefreshHint = 365 * 24 * 60 * 60
