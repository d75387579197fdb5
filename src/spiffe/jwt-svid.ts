/** JWT-SVIDs: made and verified. JWT-SVID sections 1 to 4; R-17. */
import type { KeyObject } from 'node:crypto'
import { compactVerify } from 'jose'
import { base64url, fromBase64url, fromUtf8, utf8 } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { importPublicKey, joseSignature, type Signer } from '../x509/signature.ts'
import { keyTypes } from '../x509/key-type.ts'
import type { JwtAuthority } from './bundle.ts'
import type { BundleSet } from './bundle-set.ts'
import { parseSpiffeId, pathOf, trustDomainOf, type SpiffeId } from './id.ts'

export interface JwtSvidContent {
  readonly spiffeId: SpiffeId
  /** At least one (J-9). */
  readonly audience: readonly string[]
  readonly issuedAt: Instant
  readonly expiresAt: Instant
  readonly jti: string
  readonly issuer?: string
}

/** A token whose signature, audience and time were checked. Only {@link verifyJwtSvid} makes one. */
export interface VerifiedJwtSvid {
  readonly spiffeId: SpiffeId
  readonly audience: readonly string[]
  readonly expiresAt: Instant
  /** All claims, `aud` always a list. */
  readonly claims: Readonly<Record<string, unknown>>
}

/**
 * Makes a token in compact serialization, with the headers `alg`, `kid` and `typ` only (J-2, J-4).
 * @throws Failure `jwt-svid.no-audience`
 */
export async function makeJwtSvid(signer: Signer, keyId: string, content: JwtSvidContent, signal?: AbortSignal): Promise<string> {
  if (content.audience.length === 0) throw refused('no-audience', 'a token needs at least one audience')
  const header = { alg: keyTypes[signer.keyType].jws, kid: keyId, typ: 'JWT' }
  const claims = {
    ...(content.issuer === undefined ? {} : { iss: content.issuer }),
    sub: content.spiffeId,
    aud: content.audience,
    iat: toSeconds(content.issuedAt),
    exp: toSeconds(content.expiresAt),
    jti: content.jti,
  }
  const signed = `${encode(header)}.${encode(claims)}`
  const signature = await signer.sign(utf8(signed), signal)
  return `${signed}.${base64url(joseSignature(signer.keyType, signature))}`
}

/**
 * Verifies a token for one audience at a moment. The algorithm comes from the key, never from the header;
 * the key comes from the bundle of the trust domain of `sub` (API-22).
 * @throws Failure `jwt-svid.too-long`, `.malformed`, `.header`, `.algorithm`, `.type`, `.subject`, `.unknown-trust-domain`,
 *   `.unknown-key`, `.signature`, `.no-expiry`, `.expired`, `.not-yet-valid`, `.no-audience`, `.wrong-audience`
 */
export async function verifyJwtSvid(token: string, bundles: BundleSet, audience: string, at: Instant): Promise<VerifiedJwtSvid> {
  const { header, unverified } = split(token)
  checkHeader(header)
  const sub = subject(unverified)
  const keys = candidates(bundles.find(trustDomainOf(sub))?.jwtAuthorities, header['kid'], sub)
  const payload = await verifiedPayload(token, keys, header['alg'] as string)
  const claims = json(payload, 'payload')
  return { spiffeId: sub, ...checkClaims(claims, audience, at) }
}

function split(token: string): { header: Claims; unverified: Claims } {
  if (token.length > maxTokenBytes) throw refused('too-long', `a token has ${token.length} characters: at most ${maxTokenBytes}`)
  const parts = token.split('.')
  if (parts.length !== 3 || !parts.every((part) => base64urlText.test(part))) {
    throw refused('malformed', 'a token is not a signed JWT in compact serialization')
  }
  return { header: json(fromBase64url(parts[0]!), 'header'), unverified: json(fromBase64url(parts[1]!), 'payload') }
}

function checkHeader(header: Claims): void {
  const strange = Object.keys(header).find((name) => !allowedHeaders.has(name))
  if (strange !== undefined)
    throw refused('header', `a token has the header \`${strange.slice(0, 40)}\`: expected only \`alg\`, \`kid\` and \`typ\``)
  if (typeof header['alg'] !== 'string' || !algorithms.has(header['alg']))
    throw refused('algorithm', 'a token names an algorithm that JWT-SVIDs may not use')
  if (header['typ'] !== undefined && header['typ'] !== 'JWT' && header['typ'] !== 'JOSE') {
    throw refused('type', 'a token has a `typ` other than `JWT` or `JOSE`')
  }
  if (header['kid'] !== undefined && (typeof header['kid'] !== 'string' || header['kid'] === ''))
    throw refused('header', 'a token has a `kid` that is not a text')
}

function subject(claims: Claims): SpiffeId {
  const sub = claims['sub']
  if (typeof sub !== 'string') throw refused('subject', 'a token has no subject')
  try {
    const id = parseSpiffeId(sub)
    if (pathOf(id) !== '') return id
  } catch (cause) {
    throw refused('subject', 'the subject of a token is not a SPIFFE ID', cause)
  }
  throw refused('subject', 'the subject of a token names a trust domain, not a workload')
}

/** The key that `kid` names, or, for a token without one, each of the trust domain's (J-6), at most {@link maxKeysTried}. */
function candidates(authorities: readonly JwtAuthority[] | undefined, kid: unknown, sub: SpiffeId): KeyObject[] {
  if (!authorities || authorities.length === 0) {
    throw refused('unknown-trust-domain', `no JWT authority is known for the trust domain \`${trustDomainOf(sub)}\``)
  }
  const found = kid === undefined ? authorities.slice(0, maxKeysTried) : authorities.filter((authority) => authority.keyId === kid)
  if (found.length === 0) throw refused('unknown-key', 'a token is signed with a key that its trust domain does not announce')
  return found.map((authority) => importPublicKey(authority.publicKey))
}

async function verifiedPayload(token: string, keys: readonly KeyObject[], claimed: string): Promise<Uint8Array> {
  for (const key of keys) {
    const fitting = algorithmsOf(key).filter((algorithm) => algorithm === claimed)
    if (fitting.length === 0) continue
    try {
      return (await compactVerify(token, key, { algorithms: fitting })).payload
    } catch {
      // The next key may fit; with no key left the refusal below is the answer.
    }
  }
  throw refused('signature', 'the signature of a token is not valid')
}

function checkClaims(claims: Claims, audience: string, at: Instant): Omit<VerifiedJwtSvid, 'spiffeId'> {
  const exp = claims['exp']
  if (typeof exp !== 'number' || !Number.isFinite(exp)) throw refused('no-expiry', 'a token has no expiry')
  if (exp * 1000 <= at) throw refused('expired', 'a token has expired')
  const nbf = claims['nbf']
  if (nbf !== undefined && (typeof nbf !== 'number' || nbf * 1000 > at + leeway)) throw refused('not-yet-valid', 'a token is not valid yet')
  const aud = claims['aud']
  const audiences = typeof aud === 'string' ? [aud] : Array.isArray(aud) ? aud : []
  if (audiences.length === 0 || !audiences.every((one) => typeof one === 'string')) throw refused('no-audience', 'a token has no audience')
  if (!audiences.includes(audience)) throw refused('wrong-audience', `a token is not meant for the audience \`${audience.slice(0, 120)}\``)
  return { audience: audiences, expiresAt: exp * 1000, claims: { ...claims, aud: audiences } }
}

type Claims = Record<string, unknown>

function json(bytes: Uint8Array, part: string): Claims {
  try {
    const value: unknown = JSON.parse(fromUtf8(bytes))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Claims
  } catch (cause) {
    throw refused('malformed', `the ${part} of a token is not JSON`, cause)
  }
  throw refused('malformed', `the ${part} of a token is not a JSON object`)
}

/** The algorithms that a public key can be used with: RFC 7518 section 3.1. */
function algorithmsOf(key: KeyObject): readonly string[] {
  if (key.asymmetricKeyType === 'rsa') return rsaAlgorithms
  if (key.asymmetricKeyType === 'ec') return curveAlgorithms.get(key.asymmetricKeyDetails?.namedCurve ?? '') ?? []
  return []
}

const encode = (value: unknown): string => base64url(utf8(JSON.stringify(value)))
const toSeconds = (at: Instant): number => Math.floor(at / 1000)

function refused(what: string, text: string, cause?: unknown): Failure {
  return new Failure('unauthenticated', `jwt-svid.${what}`, { public: text, ...(cause === undefined ? {} : { cause }) })
}

const rsaAlgorithms = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']
const curveAlgorithms = new Map([
  ['prime256v1', ['ES256']],
  ['secp384r1', ['ES384']],
  ['secp521r1', ['ES512']],
])
/** JWT-SVID section 2.1. */
const algorithms = new Set([...rsaAlgorithms, 'ES256', 'ES384', 'ES512'])
/** JWT-SVID section 2: a validator meets no other headers in a JWT-SVID, so `crit`, `jku`, `x5u` and `jwk` have no effect here. */
const allowedHeaders = new Set(['alg', 'kid', 'typ'])
const base64urlText = /^[A-Za-z0-9_-]+$/
/** */
const maxTokenBytes = 8 * 1024
const maxKeysTried = 8
/** Clocks of two machines may differ a little: JWT-SVID section 7.1 permits it. Never granted to expiry. */
const leeway = 60_000
