/** The WIT authority of this moment, and the WIT-SVIDs it signs. WIT-SVID sections 2 to 4. */
import { witSvidIssued } from '../audit/event.ts'
import type { AuditTrail } from '../audit/trail.ts'
import type { Clock, Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { uuid, type Random } from '../kernel/random.ts'
import { isDeepStrictEqual } from 'node:util'
import { bundleSet } from '../spiffe/bundle-set.ts'
import type { AddedClaims } from '../spiffe/claims.ts'
import { isAlgorithm } from '../spiffe/jws.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { makeWitSvid, verifyWitSvid } from '../spiffe/wit-svid.ts'
import { demandAdditions } from './additions.ts'
import type { IssuedWitSvid, WitSvidRequest } from './certificate-authority.ts'
import type { Intents } from './intents.ts'
import { purposeIn, recordedSigner } from './issuance.ts'
import type { JwtMaterial } from './journal.ts'
import { demandTime, wholeSecond } from './jwt-authority.ts'
import { lifetimeFor, type IssuanceProfile } from './profile.ts'
import { demandStranger } from './workbench.ts'
import { demandOurs, demandTimeLeft, type Signing } from './x509-authority.ts'

/** What {@link issueWitSvid} stands on. */
export interface WitPorts {
  readonly clock: Clock
  readonly random: Random
  readonly audit: AuditTrail
  readonly intents: Intents
  readonly profile: IssuanceProfile
  readonly trustDomain: TrustDomain
  /** The authority of this moment. @throws Failure `ca.no-authority` */
  signing(): Signing<JwtMaterial>
  /** SubjectPublicKeyInfo of every key of this CA. */
  authorityKeys(): readonly Uint8Array[]
}

/**
 * Issues one WIT-SVID, which lives as long as a JWT-SVID may. It was verified with the published key, and is in the audit trail,
 * before it is handed out.
 * @throws Failure `ca.foreign-trust-domain`, `ca.no-path`, `ca.authority-key`, `ca.proof-key`, `ca.claim-not-allowed`, `ca.lifetime-too-short`, `ca.lifetime-too-long`,
 *   `ca.entry-expired`, `ca.no-authority`, `ca.ending`, `issuance.bad-token`, `intents.*`, `audit.*`
 */
export async function issueWitSvid(request: WitSvidRequest, ports: WitPorts, signal: AbortSignal): Promise<IssuedWitSvid> {
  const { spiffeId, proofKey, proofAlgorithm, claims: added, context } = request
  const { audit, clock, random, profile, trustDomain } = ports
  demandOurs(spiffeId, trustDomain)
  demandStranger(proofKey, ports.authorityKeys())
  if (proofAlgorithm !== undefined && !isAlgorithm(proofAlgorithm))
    throw refusedKey(`proofs cannot be signed with \`${proofAlgorithm.slice(0, 40)}\``)
  if (added) demandAdditions({ claims: added }, profile)
  const lifetime = lifetimeFor(profile.jwt, request.lifetime)
  const { authority, key } = ports.signing()
  const now = clock.now()
  demandTimeLeft(authority, now)

  const { kid, publicKey } = authority.material
  const issuedAt = wholeSecond(now)
  const expiresAt = wholeSecond(Math.min(now + lifetime, authority.until, request.until ?? Infinity))
  demandTime(issuedAt, expiresAt)
  const jti = uuid(random)
  const intent = { kind: 'wit', name: jti, id: spiffeId, ...purposeIn(context), until: expiresAt } as const
  const { signer, settle } = recordedSigner(key, intent, ports.intents)
  try {
    const content = { spiffeId, proofKey, proofAlgorithm, issuedAt, expiresAt, jti, added }
    const token = await makeWitSvid(signer, kid, content, signal).catch(refuseKey)
    await demandValid(token, { at: issuedAt, trustDomain, kid, publicKey, added })
    await audit.append(witSvidIssued({ spiffeId, jti, expiresAt, keyId: kid }, context))
    settle('issued')
    return { spiffeId, token, issuedAt, expiresAt }
  } catch (error) {
    settle('withheld')
    throw error
  }
}

/** C-21: read and verified as a stranger would. */
async function demandValid(
  token: string,
  told: {
    readonly at: Instant
    readonly trustDomain: TrustDomain
    readonly kid: string
    readonly publicKey: Uint8Array
    readonly added: AddedClaims | undefined
  },
): Promise<void> {
  const { at, trustDomain, kid, publicKey, added = {} } = told
  const witAuthorities = [{ keyId: kid, publicKey, tainted: false }]
  try {
    const bundles = bundleSet([{ trustDomain, x509Authorities: [], jwtAuthorities: [], witAuthorities, sequence: 0n }])
    const { claims } = await verifyWitSvid(token, bundles, at)
    const { sub: _sub, cnf: _cnf, iat: _iat, exp: _exp, jti: _jti, ...others } = claims
    if (!isDeepStrictEqual(JSON.parse(JSON.stringify(others)), added)) throw new Error('a token says something else than was ordered')
  } catch (cause) {
    throw new Failure('internal', 'issuance.bad-token', { public: 'nothing was issued: a token does not verify', cause })
  }
}

/** A key that the token cannot be bound to is the caller's mistake. */
function refuseKey(cause: unknown): never {
  const failure = Failure.from(cause)
  if (failure.reason === 'wit-svid.proof-key' || /^(x509|der)\./.test(failure.reason)) throw refusedKey(failure.message, cause)
  throw cause
}

function refusedKey(problem: string, cause?: unknown): Failure {
  return new Failure('invalid_argument', 'ca.proof-key', { public: `the token cannot be bound to the key: ${problem}`, cause })
}
