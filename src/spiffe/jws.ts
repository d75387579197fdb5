/** Signed tokens in compact serialization, RFC 7515 section 7.1: what JWT-SVIDs, WIT-SVIDs and proofs of possession have in common. */
import type { KeyObject } from 'node:crypto'
import { compactVerify } from 'jose'
import { base64url, fromBase64url, fromUtf8, utf8 } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { keyTypes } from '../x509/key-type.ts'
import { importPublicKey, joseSignature, type Signer } from '../x509/signature.ts'
import type { TokenAuthority } from './bundle.ts'
import { collect, type Flaws } from './flaws.ts'
import { parseSpiffeId, pathOf, trustDomainOf, type SpiffeId } from './id.ts'
import { parseJsonObject, type JsonObject } from './json.ts'

/** What a token is meant to be: the first half of its reason codes. */
export type TokenKind = 'jwt-svid' | 'wit-svid' | 'wit-proof'

/** The algorithms that SVIDs may be signed with: JWT-SVID section 2.1, WIT-SVID section 2.3. */
export type JwsAlgorithm = (typeof rsaAlgorithms)[number] | 'ES256' | 'ES384' | 'ES512'

/** A token that was taken apart, and that nobody has vouched for yet. */
export interface UnverifiedToken {
  readonly text: string
  readonly header: JsonObject
  readonly claims: JsonObject
}

/** Signs claims with the algorithm of the signer's key. */
export async function makeToken(signer: Signer, header: object, claims: object, signal?: AbortSignal): Promise<string> {
  const signed = `${encode({ alg: keyTypes[signer.keyType].jws, ...header })}.${encode(claims)}`
  const signature = await signer.sign(utf8(signed), signal)
  return `${signed}.${base64url(joseSignature(signer.keyType, signature))}`
}

/**
 * Takes a token apart. Only compact serialization is read, and only a JWS: what has five parts is encrypted.
 * @throws Failure `.too-long`, `.encrypted`, `.malformed`
 */
export function readToken(kind: TokenKind, text: string): UnverifiedToken {
  if (text.length > maxTokenBytes) throw refused(kind, 'too-long', `a token has ${text.length} characters: at most ${maxTokenBytes}`)
  const parts = text.split('.')
  if (parts.length === 5) throw refused(kind, 'encrypted', 'a token is encrypted: expected one that is signed')
  const [header, claims, signature] = parts.map(decoded)
  if (parts.length !== 3 || !header || !claims || !signature) {
    throw refused(kind, 'malformed', 'a token is not a signed JWT in compact serialization')
  }
  return { text, header: json(kind, header, 'header'), claims: json(kind, claims, 'payload') }
}

/**
 * The claims of a token that one of these keys signed. The algorithm must be one of the key's own; the header only says which.
 * @throws Failure `.signature`
 */
export async function verifiedClaims(
  kind: TokenKind,
  { text, header, claims }: UnverifiedToken,
  keys: readonly KeyObject[],
): Promise<JsonObject> {
  for (const key of keys) {
    const fitting = algorithmsOf(key).filter((algorithm) => algorithm === header['alg'])
    if (fitting.length === 0) continue
    try {
      await compactVerify(text, key, { algorithms: fitting })
      // INVARIANT: readToken read them from this very text, all of which is signed.
      return claims
    } catch {
      // The next key may fit; with no key left the refusal below is the answer.
    }
  }
  throw refused(kind, 'signature', 'the signature of a token is not valid')
}

/** Every flaw of a token that can be taken apart, else why it cannot. */
export function tokenFlaws(kind: TokenKind, text: string, within: (token: UnverifiedToken) => Flaws<unknown>[]): Failure[] {
  let token: UnverifiedToken
  try {
    token = readToken(kind, text)
  } catch (error) {
    return [Failure.from(error)]
  }
  return within(token).flatMap(collect)
}

/** What is wrong with the algorithm that a token names: `.algorithm`. */
export function* algorithmFlaws(kind: TokenKind, header: JsonObject): Flaws {
  if (!isAlgorithm(header['alg'])) yield refused(kind, 'algorithm', 'a token names an algorithm that SVIDs may not use')
}

/** The workload that a token speaks of. Flaw: `.subject`. */
export function* subjectOf(kind: TokenKind, claims: JsonObject): Flaws<SpiffeId> {
  const sub = claims['sub']
  if (typeof sub !== 'string') throw refused(kind, 'subject', 'a token has no subject')
  try {
    const id = parseSpiffeId(sub)
    if (pathOf(id) === '') yield refused(kind, 'subject', 'the subject of a token names a trust domain, not a workload')
    return id
  } catch (cause) {
    throw refused(kind, 'subject', 'the subject of a token is not a SPIFFE ID', cause)
  }
}

/**
 * The keys that may have signed for a subject: those that `kid` names, or, without one, each of the trust domain's (J-6), at most {@link maxKeysTried}.
 * @throws Failure `.unknown-trust-domain`, `.unknown-key`
 */
export function signingKeys(
  kind: TokenKind,
  authorities: readonly TokenAuthority[] | undefined,
  keyId: unknown,
  subject: SpiffeId,
): KeyObject[] {
  if (!authorities || authorities.length === 0) {
    throw refused(kind, 'unknown-trust-domain', `no authority for such tokens is known for the trust domain \`${trustDomainOf(subject)}\``)
  }
  const found = keyId === undefined ? authorities.slice(0, maxKeysTried) : authorities.filter((authority) => authority.keyId === keyId)
  if (found.length === 0) throw refused(kind, 'unknown-key', 'a token is signed with a key that its trust domain does not announce')
  return found.map((authority) => importPublicKey(authority.publicKey))
}

/** When a token ends, which must be later than now; no leeway is granted. Flaws: `.no-expiry`, `.expired`, `.not-yet-valid`. */
export function* timesOf(kind: TokenKind, claims: JsonObject, at: Instant): Flaws<Instant> {
  const { exp, nbf } = claims
  if (typeof exp !== 'number') yield refused(kind, 'no-expiry', 'a token has no expiry')
  else if (!(exp * 1000 > at)) yield refused(kind, 'expired', 'a token has expired')
  if (nbf !== undefined && (typeof nbf !== 'number' || !(nbf * 1000 <= at + leeway))) {
    yield refused(kind, 'not-yet-valid', 'a token is not valid yet')
  }
  return Number(exp) * 1000
}

export function isAlgorithm(name: unknown): name is JwsAlgorithm {
  return typeof name === 'string' && algorithms.has(name)
}

/** The algorithms that a public key can be used with (RFC 7518 section 3.1); none for a key that SVIDs may not use. The first is the usual one. */
export function algorithmsOf(key: KeyObject): readonly JwsAlgorithm[] {
  if (key.asymmetricKeyType === 'rsa') return rsaAlgorithms
  if (key.asymmetricKeyType === 'ec') return curveAlgorithms.get(key.asymmetricKeyDetails?.namedCurve ?? '') ?? []
  return []
}

/** A moment as claims hold it: whole seconds (RFC 7519 section 2, NumericDate). */
export const toSeconds = (at: Instant): number => Math.floor(at / 1000)

/** A refusal of a token: the reason code says what it was meant to be and what is wrong. */
export function refused(kind: TokenKind, what: string, text: string, cause?: unknown): Failure {
  return new Failure('unauthenticated', `${kind}.${what}`, { public: text, ...(cause === undefined ? {} : { cause }) })
}

function json(kind: TokenKind, bytes: Uint8Array, part: string): JsonObject {
  try {
    return parseJsonObject(fromUtf8(bytes), { maxLength: maxTokenBytes })
  } catch (cause) {
    throw refused(kind, 'malformed', `the ${part} of a token is not a JSON object`, cause)
  }
}

/** The bytes of base64url in its one canonical form, so that nobody writes one token in two ways; undefined for anything else, and for nothing. */
function decoded(part: string): Uint8Array | undefined {
  const content = fromBase64url(part)
  return part !== '' && base64url(content) === part ? content : undefined
}

const encode = (value: unknown): string => base64url(utf8(JSON.stringify(value)))

const rsaAlgorithms = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'] as const
const curveAlgorithms: ReadonlyMap<string, readonly JwsAlgorithm[]> = new Map([
  ['prime256v1', ['ES256']],
  ['secp384r1', ['ES384']],
  ['secp521r1', ['ES512']],
])
const algorithms: ReadonlySet<string> = new Set<JwsAlgorithm>([...rsaAlgorithms, 'ES256', 'ES384', 'ES512'])
/** */
const maxTokenBytes = 8 * 1024
const maxKeysTried = 8
/** Clocks of two machines may differ a little: JWT-SVID section 7.1 permits it. Never granted to expiry. */
const leeway = 60_000
