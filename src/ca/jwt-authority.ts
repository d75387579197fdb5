/** The JWT authority of this moment, and the JWT-SVIDs it signs (C-14). */
import { calculateJwkThumbprint } from 'jose'
import { jwtSvidIssued } from '../audit/event.ts'
import type { AuditTrail } from '../audit/trail.ts'
import type { Clock, Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { uuid, type Random } from '../kernel/random.ts'
import { makeJwtSvid } from '../spiffe/jwt-svid.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { keyTypes } from '../x509/key-type.ts'
import { importPublicKey } from '../x509/signature.ts'
import { demandAdditions } from './additions.ts'
import type { IssuedJwtSvid, JwtSvidRequest } from './certificate-authority.ts'
import type { Intents } from './intents.ts'
import { purposeIn, recordedSigner } from './issuance.ts'
import type { JwtMaterial } from './journal.ts'
import { lifetimeFor, type IssuanceProfile } from './profile.ts'
import { checkToken } from './workbench.ts'
import { demandOurs, demandTimeLeft, type Signing } from './x509-authority.ts'

/** What {@link issueJwtSvid} stands on. */
export interface JwtPorts {
  readonly clock: Clock
  readonly random: Random
  readonly audit: AuditTrail
  readonly intents: Intents
  readonly profile: IssuanceProfile
  readonly trustDomain: TrustDomain
  /** The authority of this moment. @throws Failure `ca.no-authority` */
  signing(): Signing<JwtMaterial>
}

/**
 * Issues one JWT-SVID. It was verified with the published key, and is in the audit trail, before it is handed out.
 * @throws Failure `ca.foreign-trust-domain`, `ca.no-path`, `ca.audience`, `ca.claim-not-allowed`, `ca.lifetime-too-short`, `ca.lifetime-too-long`,
 *   `ca.entry-expired`, `ca.no-authority`, `ca.ending`, `issuance.bad-token`, `intents.*`, `audit.*`
 */
export async function issueJwtSvid(request: JwtSvidRequest, ports: JwtPorts, signal: AbortSignal): Promise<IssuedJwtSvid> {
  const { spiffeId, audience, claims: added, context } = request
  const { clock, random, profile, trustDomain } = ports
  demandOurs(spiffeId, trustDomain)
  demandAudience(audience)
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
  const intent = {
    kind: 'jwt',
    name: jti,
    id: spiffeId,
    ...purposeIn(context),
    until: expiresAt,
  } as const
  const { signer, settle } = recordedSigner(key, intent, ports.intents)
  try {
    const token = await makeJwtSvid(signer, kid, { spiffeId, audience, issuedAt, expiresAt, jti, added }, signal)
    const claims = { ...added, sub: spiffeId, aud: audience, iat: issuedAt / 1000, exp: expiresAt / 1000, jti }
    checkToken({
      token,
      header: { alg: keyTypes[key.keyType].jws, kid, typ: 'JWT' },
      claims,
      signer: { keyType: key.keyType, publicKey },
    })
    await ports.audit.append(jwtSvidIssued({ spiffeId, jti, expiresAt, keyId: kid, audience }, context))
    settle('issued')
    return { spiffeId, token, issuedAt, expiresAt }
  } catch (error) {
    settle('withheld')
    throw error
  }
}

/** The `kid` of a key: the beginning of its RFC 7638 thumbprint, so that one key has one name wherever it turns up. */
export async function keyIdOf(publicKey: Uint8Array): Promise<string> {
  const thumbprint = await calculateJwkThumbprint(importPublicKey(publicKey).export({ format: 'jwk' }), 'sha256')
  return thumbprint.slice(0, keyIdLength)
}

function demandAudience(audience: readonly string[]): void {
  const problem =
    audience.length === 0
      ? 'a token needs at least one audience'
      : audience.length > maxAudiences
        ? `${audience.length} audiences are too many: at most ${maxAudiences}`
        : audience.some((one) => one === '' || one.length > maxAudienceLength)
          ? `an audience is empty or has more than ${maxAudienceLength} characters`
          : undefined
  if (problem !== undefined) throw new Failure('invalid_argument', 'ca.audience', { public: problem })
}

/** @throws Failure `ca.entry-expired` */
export function demandTime(issuedAt: Instant, expiresAt: Instant): void {
  if (expiresAt > issuedAt) return
  throw new Failure('failed_precondition', 'ca.entry-expired', { public: 'the registration entry has expired, or is about to' })
}

export const wholeSecond = (moment: number): number => Math.floor(moment / seconds(1)) * seconds(1)
/** 192 bits: enough that two keys never share a name. */
const keyIdLength = 32
const maxAudiences = 32
const maxAudienceLength = 1024
