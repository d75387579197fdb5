/** JWT-SVIDs: made and verified. JWT-SVID sections 1 to 4; R-17. */
import type { Instant } from '../kernel/clock.ts'
import type { Failure } from '../kernel/failure.ts'
import type { Signer } from '../x509/signature.ts'
import type { BundleSet } from './bundle-set.ts'
import type { AddedClaims } from './claims.ts'
import { demandNone, type Flaws } from './flaws.ts'
import { trustDomainOf, type SpiffeId } from './id.ts'
import type { JsonObject } from './json.ts'
import {
  algorithmFlaws,
  makeToken,
  readToken,
  refused as refusedToken,
  signingKeys,
  subjectOf,
  timesOf,
  tokenFlaws,
  toSeconds,
  verifiedClaims,
} from './jws.ts'

export interface JwtSvidContent {
  readonly spiffeId: SpiffeId
  /** At least one (J-9). */
  readonly audience: readonly string[]
  readonly issuedAt: Instant
  readonly expiresAt: Instant
  readonly jti: string
  readonly issuer?: string | undefined
  /** Whatever they are called, those above are said as they are above. */
  readonly added?: AddedClaims | undefined
}

/** A token whose signature, audience and time were checked. Only {@link verifyJwtSvid} makes one. */
export interface VerifiedJwtSvid {
  readonly spiffeId: SpiffeId
  readonly audience: readonly string[]
  readonly expiresAt: Instant
  /** All claims, `aud` always a list. */
  readonly claims: JsonObject
}

/**
 * Makes a token in compact serialization, with the headers `alg`, `kid` and `typ` only (J-2, J-4).
 * @throws Failure `jwt-svid.no-audience`
 */
export async function makeJwtSvid(signer: Signer, keyId: string, content: JwtSvidContent, signal?: AbortSignal): Promise<string> {
  if (content.audience.length === 0) throw refused('no-audience', 'a token needs at least one audience')
  const claims = {
    ...content.added,
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
 * @throws Failure `jwt-svid.too-long`, `.encrypted`, `.malformed`, `.algorithm`, `.header`, `.type`, `.key-id`, `.subject`, `.unknown-trust-domain`,
 *   `.unknown-key`, `.signature`, `.no-expiry`, `.expired`, `.not-yet-valid`, `.no-audience`, `.wrong-audience`
 */
export async function verifyJwtSvid(text: string, bundles: BundleSet, audience: string, at: Instant): Promise<VerifiedJwtSvid> {
  const token = readToken('jwt-svid', text)
  demandNone(headerFlaws(token.header))
  const spiffeId = demandNone(subjectOf('jwt-svid', token.claims))
  const keys = signingKeys('jwt-svid', bundles.find(trustDomainOf(spiffeId))?.jwtAuthorities, token.header['kid'], spiffeId)
  const claims = await verifiedClaims('jwt-svid', token, keys)
  const expiresAt = demandNone(timesOf('jwt-svid', claims, at))
  const audiences = demandNone(audienceOf(claims, audience))
  return { spiffeId, audience: audiences, expiresAt, claims: { ...claims, aud: audiences } }
}

/** Everything that a reader finds wrong with a token, its signature aside; the audience is compared where one is given. */
export function jwtSvidFlaws(text: string, expected: { readonly at: Instant; readonly audience?: string | undefined }): Failure[] {
  return tokenFlaws('jwt-svid', text, ({ header, claims }) => [
    headerFlaws(header),
    subjectOf('jwt-svid', claims),
    timesOf('jwt-svid', claims, expected.at),
    audienceOf(claims, expected.audience),
  ])
}

function* headerFlaws(header: JsonObject): Flaws {
  yield* algorithmFlaws('jwt-svid', header)
  const strange = Object.keys(header).find((name) => !allowedHeaders.has(name))
  if (strange !== undefined)
    yield refused('header', `a token has the header \`${strange.slice(0, 40)}\`: expected only \`alg\`, \`kid\` and \`typ\``)
  const { typ, kid } = header
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE') yield refused('type', 'a token has a `typ` other than `JWT` or `JOSE`')
  if (kid !== undefined && (typeof kid !== 'string' || kid === '')) yield refused('key-id', 'a token has a `kid` that is not a text')
}

function* audienceOf({ aud }: JsonObject, expected: string | undefined): Flaws<readonly string[]> {
  const audiences: readonly unknown[] = Array.isArray(aud) ? aud : [aud]
  if (audiences.length === 0 || !audiences.every((one) => typeof one === 'string')) throw refused('no-audience', 'a token has no audience')
  if (expected !== undefined && !audiences.includes(expected)) {
    yield refused('wrong-audience', `a token is not meant for the audience \`${expected.slice(0, 120)}\``)
  }
  return audiences
}

const refused = (what: string, text: string) => refusedToken('jwt-svid', what, text)

/** JWT-SVID section 2: a validator meets no other headers in a JWT-SVID, so `crit`, `jku`, `x5u` and `jwk` have no effect here. */
const allowedHeaders = new Set(['alg', 'kid', 'typ'])
