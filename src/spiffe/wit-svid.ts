/** WIT-SVIDs: made and verified, with proof of possession. WIT-SVID sections 2 to 7; draft-ietf-wimse-wpt-01 for the proof. */
import { createHash, type KeyObject } from 'node:crypto'
import { base64url, utf8 } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import { minutes, type Duration } from '../kernel/duration.ts'
import type { Failure } from '../kernel/failure.ts'
import { importStrangersKey, type Signer } from '../x509/signature.ts'
import type { BundleSet } from './bundle-set.ts'
import type { AddedClaims } from './claims.ts'
import { demandNone, type Flaws } from './flaws.ts'
import { trustDomainOf, type SpiffeId } from './id.ts'
import { formatJwk, readJwk } from './jwk.ts'
import { isJsonObject, type JsonObject } from './json.ts'
import {
  algorithmFlaws,
  algorithmsOf,
  isAlgorithm,
  makeToken,
  readToken,
  refused,
  signingKeys,
  subjectOf,
  timesOf,
  tokenFlaws,
  toSeconds,
  verifiedClaims,
  type JwsAlgorithm,
  type TokenKind,
} from './jws.ts'

export interface WitSvidContent {
  readonly spiffeId: SpiffeId
  /** The workload's public key, SubjectPublicKeyInfo: whoever presents the token proves to hold its private half. */
  readonly proofKey: Uint8Array
  /** What proofs are signed with; the usual one of the key where left out. */
  readonly proofAlgorithm?: JwsAlgorithm | undefined
  readonly issuedAt: Instant
  readonly expiresAt: Instant
  readonly jti: string
  /** Nothing that OpenID Connect Discovery would find (W-12). */
  readonly issuer?: string | undefined
  /** Whatever they are called, those above are said as they are above. */
  readonly added?: AddedClaims | undefined
}

/**
 * A token that its trust domain signed and that has not expired. It says whose key it is, and not who sends it:
 * nobody is authenticated by this alone (W-16).
 */
export interface WitSvid {
  readonly token: string
  readonly spiffeId: SpiffeId
  readonly expiresAt: Instant
  readonly proofKey: KeyObject
  readonly proofAlgorithm: JwsAlgorithm
  readonly claims: JsonObject
}

/** A workload that presented its token and proved to hold the key in it. Only {@link verifyWitPresentation} makes one. */
export interface VerifiedWitSvid {
  readonly spiffeId: SpiffeId
  readonly expiresAt: Instant
  readonly claims: JsonObject
  /** Of the proof: whoever serves each request once remembers `jti` until then (WIT-SVID section 7.2). */
  readonly proof: { readonly jti: string; readonly expiresAt: Instant }
}

/**
 * Makes a token with the headers `alg`, `kid` and `typ`, and with the public key bound to it (W-15). It has no audience (W-13).
 * @throws Failure `wit-svid.proof-key`, `x509.*`
 */
export async function makeWitSvid(signer: Signer, keyId: string, content: WitSvidContent, signal?: AbortSignal): Promise<string> {
  const claims = {
    ...content.added,
    ...(content.issuer === undefined ? {} : { iss: content.issuer }),
    sub: content.spiffeId,
    cnf: { jwk: proofJwk(content) },
    iat: toSeconds(content.issuedAt),
    exp: toSeconds(content.expiresAt),
    jti: content.jti,
  }
  return makeToken(signer, { kid: keyId, typ: witType }, claims, signal)
}

/**
 * Verifies a token by itself at a moment: for whoever received its own. A peer is known only after {@link verifyWitPresentation}.
 * @throws Failure `wit-svid.too-long`, `.encrypted`, `.malformed`, `.algorithm`, `.type`, `.key-id`, `.critical`, `.subject`, `.unknown-trust-domain`,
 *   `.unknown-key`, `.signature`, `.no-expiry`, `.expired`, `.not-yet-valid`, `.audience`, `.proof-key`
 */
export async function verifyWitSvid(text: string, bundles: BundleSet, at: Instant): Promise<WitSvid> {
  const token = readToken('wit-svid', text)
  const keyId = demandNone(headerFlaws(token.header))
  const spiffeId = demandNone(subjectOf('wit-svid', token.claims))
  const keys = signingKeys('wit-svid', bundles.find(trustDomainOf(spiffeId))?.witAuthorities, keyId, spiffeId)
  const claims = await verifiedClaims('wit-svid', token, keys)
  const expiresAt = demandNone(timesOf('wit-svid', claims, at))
  return { token: text, spiffeId, expiresAt, ...demandNone(proofKeyOf(claims)), claims }
}

/** Everything that a reader finds wrong with a token, its signature aside. */
export function witSvidFlaws(text: string, at: Instant): Failure[] {
  return tokenFlaws('wit-svid', text, ({ header, claims }) => [
    headerFlaws(header),
    timesOf('wit-svid', claims, at),
    subjectOf('wit-svid', claims),
    proofKeyOf(claims),
  ])
}

export interface WitProofContent {
  /** The token that the proof goes with. */
  readonly token: string
  /** What it is sent to, as the receiver calls itself: for HTTP, the target URI without query and fragment. */
  readonly audience: string
  /** A few seconds ahead (W-21). */
  readonly expiresAt: Instant
  readonly jti: string
}

/** Makes the proof that goes with one request, with the key that is bound to the token (a WIMSE Workload Proof Token, W-18). */
export async function makeWitProof(signer: Signer, content: WitProofContent, signal?: AbortSignal): Promise<string> {
  const claims = { aud: content.audience, exp: toSeconds(content.expiresAt), jti: content.jti, wth: hashOf(content.token) }
  return makeToken(signer, { typ: proofType }, claims, signal)
}

export interface WitExpectation {
  /** What the receiver is called in proofs. */
  readonly audience: string
  readonly at: Instant
  /** How far ahead a proof may expire (W-21); five minutes when left out. */
  readonly longestProof?: Duration
}

/**
 * Verifies a token together with the proof that its sender holds the key in it (W-16, W-17).
 * @throws Failure those of {@link verifyWitSvid}, and `wit-proof.too-long`, `.encrypted`, `.malformed`, `.algorithm`, `.type`, `.critical`, `.signature`,
 *   `.no-expiry`, `.expired`, `.too-lasting`, `.not-yet-valid`, `.no-jti`, `.wrong-audience`, `.other-token`
 */
export async function verifyWitPresentation(
  presented: { readonly token: string; readonly proof: string },
  bundles: BundleSet,
  expected: WitExpectation,
): Promise<VerifiedWitSvid> {
  const { spiffeId, expiresAt, claims, ...bound } = await verifyWitSvid(presented.token, bundles, expected.at)
  return { spiffeId, expiresAt, claims, proof: await verifyProof(presented.proof, bound, expected) }
}

async function verifyProof(
  text: string,
  { token, proofKey, proofAlgorithm }: Pick<WitSvid, 'token' | 'proofKey' | 'proofAlgorithm'>,
  { audience, at, longestProof = minutes(5) }: WitExpectation,
): Promise<VerifiedWitSvid['proof']> {
  const proof = readToken('wit-proof', text)
  demandNone(typeFlaws('wit-proof', proof.header, proofType))
  if (proof.header['alg'] !== proofAlgorithm) throw refused('wit-proof', 'algorithm', 'a proof uses another algorithm than its token names')
  const claims = await verifiedClaims('wit-proof', proof, [proofKey])
  const expiresAt = demandNone(timesOf('wit-proof', claims, at))
  if (expiresAt > at + longestProof) throw refused('wit-proof', 'too-lasting', 'a proof lasts longer than one may')
  if (claims['wth'] !== hashOf(token)) throw refused('wit-proof', 'other-token', 'a proof goes with another token')
  if (claims['aud'] !== audience) throw refused('wit-proof', 'wrong-audience', 'a proof was made for somebody else')
  const jti = claims['jti']
  if (typeof jti !== 'string' || jti === '') throw refused('wit-proof', 'no-jti', 'a proof has no `jti`')
  return { jti, expiresAt }
}

function* headerFlaws(header: JsonObject): Flaws<string> {
  yield* algorithmFlaws('wit-svid', header)
  yield* typeFlaws('wit-svid', header, witType)
  const { kid } = header
  if (typeof kid !== 'string' || kid === '') yield refused('wit-svid', 'key-id', 'a token has no `kid`')
  return typeof kid === 'string' ? kid : ''
}

/** Unknown headers are passed over unless the token calls them critical (W-4); none that we know may be. */
function* typeFlaws(kind: TokenKind, header: JsonObject, type: string): Flaws {
  if (header['typ'] !== type) yield refused(kind, 'type', `a token has another \`typ\` than \`${type}\``)
  if (header['crit'] !== undefined) yield refused(kind, 'critical', 'a token has a critical header, which is not understood')
}

function proofJwk({ proofKey, proofAlgorithm }: WitSvidContent): object {
  const key = importStrangersKey(proofKey)
  const algorithm = proofAlgorithm ?? algorithmsOf(key)[0]
  if (algorithm === undefined || !algorithmsOf(key).includes(algorithm)) {
    throw refused('wit-svid', 'proof-key', 'a key cannot be used with the algorithm that proofs would be signed with')
  }
  return { ...formatJwk(proofKey), alg: algorithm }
}

/** The key that a token is bound to (RFC 7800 section 3.2, W-6, W-7), in a token that is bound to nothing else (W-13). */
function* proofKeyOf({ cnf, aud }: JsonObject): Flaws<Pick<WitSvid, 'proofKey' | 'proofAlgorithm'>> {
  if (aud !== undefined) yield refused('wit-svid', 'audience', 'a WIT-SVID has an audience: expected none')
  const jwk = isJsonObject(cnf) ? cnf['jwk'] : undefined
  if (!isJsonObject(jwk)) throw refused('wit-svid', 'proof-key', 'a token is bound to no key')
  const algorithm = jwk['alg']
  if (!isAlgorithm(algorithm)) throw refused('wit-svid', 'proof-key', 'the key of a token names an algorithm that proofs may not use')
  const proofKey = openProofKey(jwk)
  if (!algorithmsOf(proofKey).includes(algorithm)) {
    throw refused('wit-svid', 'proof-key', 'the key of a token cannot be used with the algorithm that it names')
  }
  return { proofKey, proofAlgorithm: algorithm }
}

function openProofKey(jwk: JsonObject): KeyObject {
  try {
    return readJwk(jwk).key
  } catch (cause) {
    throw refused('wit-svid', 'proof-key', 'the key of a token cannot be used', cause)
  }
}

/** draft-ietf-wimse-wpt-01 section 2: `wth`. */
const hashOf = (token: string): string => base64url(createHash('sha256').update(utf8(token)).digest())

/** WIT-SVID section 2.2. */
const witType = 'wit+jwt'
/** draft-ietf-wimse-wpt-01 section 2. */
const proofType = 'wpt+jwt'
