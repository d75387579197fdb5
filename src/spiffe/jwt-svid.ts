/** JWT-SVIDs: made and verified. JWT-SVID sections 1 to 4; R-17. */
import type { Instant } from '../kernel/clock.ts'
import type { Signer } from '../x509/signature.ts'
import type { BundleSet } from './bundle-set.ts'
import { trustDomainOf, type SpiffeId } from './id.ts'
import {
  demandBegun,
  expiryOf,
  makeToken,
  readToken,
  refused as refusedToken,
  signingKeys,
  subjectOf,
  toSeconds,
  verifiedClaims,
  type Claims,
} from './jws.ts'

export interface JwtSvidContent {
  readonly spiffeId: SpiffeId
  /** At least one (J-9). */
  readonly audience: readonly string[]
  readonly issuedAt: Instant
  readonly expiresAt: Instant
  readonly jti: string
  readonly issuer?: string | undefined
}

/** A token whose signature, audience and time were checked. Only {@link verifyJwtSvid} makes one. */
export interface VerifiedJwtSvid {
  readonly spiffeId: SpiffeId
  readonly audience: readonly string[]
  readonly expiresAt: Instant
  /** All claims, `aud` always a list. */
  readonly claims: Claims
}

/**
 * Makes a token in compact serialization, with the headers `alg`, `kid` and `typ` only (J-2, J-4).
 * @throws Failure `jwt-svid.no-audience`
 */
export async function makeJwtSvid(signer: Signer, keyId: string, content: JwtSvidContent, signal?: AbortSignal): Promise<string> {
  if (content.audience.length === 0) throw refused('no-audience', 'a token needs at least one audience')
  const claims = {
    ...(content.issuer === undefined ? {} : { iss: content.issuer }),
    sub: content.spiffeId,
    aud: content.audience,
    iat: toSeconds(content.issuedAt),
    exp: toSeconds(content.expiresAt),
    jti: content.jti,
  }
  return makeToken(signer, { kid: keyId, typ: 'JWT' }, claims, signal)
}

/**
 * Verifies a token for one audience at a moment. The algorithm comes from the key, never from the header;
 * the key comes from the bundle of the trust domain of `sub` (API-22).
 * @throws Failure `jwt-svid.too-long`, `.encrypted`, `.malformed`, `.header`, `.algorithm`, `.type`, `.subject`, `.unknown-trust-domain`,
 *   `.unknown-key`, `.signature`, `.no-expiry`, `.expired`, `.not-yet-valid`, `.no-audience`, `.wrong-audience`
 */
export async function verifyJwtSvid(text: string, bundles: BundleSet, audience: string, at: Instant): Promise<VerifiedJwtSvid> {
  const token = readToken('jwt-svid', text)
  checkHeader(token.header)
  const spiffeId = subjectOf('jwt-svid', token.claims)
  const keys = signingKeys('jwt-svid', bundles.find(trustDomainOf(spiffeId))?.jwtAuthorities, token.header['kid'], spiffeId)
  const claims = await verifiedClaims('jwt-svid', token, keys)
  return { spiffeId, ...checkClaims(claims, audience, at) }
}

function checkHeader(header: Claims): void {
  const strange = Object.keys(header).find((name) => !allowedHeaders.has(name))
  if (strange !== undefined)
    throw refused('header', `a token has the header \`${strange.slice(0, 40)}\`: expected only \`alg\`, \`kid\` and \`typ\``)
  if (header['typ'] !== undefined && header['typ'] !== 'JWT' && header['typ'] !== 'JOSE') {
    throw refused('type', 'a token has a `typ` other than `JWT` or `JOSE`')
  }
  if (header['kid'] !== undefined && (typeof header['kid'] !== 'string' || header['kid'] === ''))
    throw refused('header', 'a token has a `kid` that is not a text')
}

function checkClaims(claims: Claims, audience: string, at: Instant): Omit<VerifiedJwtSvid, 'spiffeId'> {
  const expiresAt = expiryOf('jwt-svid', claims, at)
  demandBegun('jwt-svid', claims, at)
  const aud = claims['aud']
  const audiences = typeof aud === 'string' ? [aud] : Array.isArray(aud) ? aud : []
  if (audiences.length === 0 || !audiences.every((one) => typeof one === 'string')) throw refused('no-audience', 'a token has no audience')
  if (!audiences.includes(audience)) throw refused('wrong-audience', `a token is not meant for the audience \`${audience.slice(0, 120)}\``)
  return { audience: audiences, expiresAt, claims: { ...claims, aud: audiences } }
}

const refused = (what: string, text: string) => refusedToken('jwt-svid', what, text)

/** JWT-SVID section 2: a validator meets no other headers in a JWT-SVID, so `crit`, `jku`, `x5u` and `jwk` have no effect here. */
const allowedHeaders = new Set(['alg', 'kid', 'typ'])
