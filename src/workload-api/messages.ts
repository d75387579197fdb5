/** What workloads hold, as the Workload API's messages. Each is serialised once and shared by all who get the same. */
import type { JsonObject } from '@bufbuild/protobuf'
import type { HintedWitSvid } from '../agent/agent.ts'
import type { HeldIdentity, WorkloadIdentities } from '../agent/identities.ts'
import type { SignedJwtSvid } from '../agent/upstream-server.ts'
import { concat, utf8 } from '../kernel/bytes.ts'
import {
  JWTBundlesResponseSchema,
  JWTSVIDResponseSchema,
  ValidateJWTSVIDResponseSchema,
  WITBundlesResponseSchema,
  WITSVIDResponseSchema,
  X509BundlesResponseSchema,
  X509SVIDResponseSchema,
} from '../rpc/gen/spiffe/workload/workload_pb.ts'
import { encode, type Encoded } from '../rpc/handler.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { formatJwtKeySet, formatWitKeySet } from '../spiffe/bundle-document.ts'
import { idOfTrustDomain, trustDomainOf } from '../spiffe/id.ts'
import type { VerifiedJwtSvid } from '../spiffe/jwt-svid.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'

/** The whole state: every identity with its bundle, and the bundles of the others (API-4, API-12). */
export const x509SvidResponse = onceEach((held) =>
  encode(X509SVIDResponseSchema, {
    svids: held.identities.map((one) => x509Svid(one, held.bundle)),
    federatedBundles: Object.fromEntries(
      [...held.federated.values()].map((one) => [idOfTrustDomain(one.trustDomain), certificatesOf(one)]),
    ),
  }),
)

/** Always with the bundle of our own trust domain (API-17). */
export const x509BundlesResponse = onceEach((held) => encode(X509BundlesResponseSchema, { bundles: byTrustDomain(held, certificatesOf) }))

/** Plain JWK sets, with JWT keys only; always with that of our own trust domain (API-19). */
export const jwtBundlesResponse = onceEach((held) =>
  encode(JWTBundlesResponseSchema, { bundles: byTrustDomain(held, (bundle) => utf8(formatJwtKeySet(bundle))) }),
)

/** The same of WIT keys (API-25). */
export const witBundlesResponse = onceEach((held) => encode(WITBundlesResponseSchema, { bundles: byTrustDomain(held, formatWitKeySet) }))

export function witSvidResponse(svids: readonly HintedWitSvid[]): Encoded {
  return encode(WITSVIDResponseSchema, {
    svids: svids.map(({ spiffeId, token, privateKeyJwk, hint }) => ({ spiffeId, witSvid: token, witSvidKey: privateKeyJwk, hint })),
  })
}

export function jwtSvidResponse(svids: readonly (SignedJwtSvid & { readonly hint: string })[]): Encoded {
  return encode(JWTSVIDResponseSchema, { svids: svids.map(({ spiffeId, token, hint }) => ({ spiffeId, svid: token, hint })) })
}

/** The claims of our own trust domain as they are; of a foreign one only those that the standard defines, for others mean nothing here (J-19). */
export function validatedResponse({ spiffeId, claims }: VerifiedJwtSvid, own: TrustDomain): Encoded {
  const shown =
    trustDomainOf(spiffeId) === own ? Object.entries(claims) : Object.entries(claims).filter(([name]) => standardClaims.has(name))
  return encode(ValidateJWTSVIDResponseSchema, { spiffeId, claims: Object.fromEntries(shown) as JsonObject })
}

function x509Svid({ spiffeId, chainDer, privateKeyDer, hint }: HeldIdentity, bundle: TrustBundle) {
  return { spiffeId, x509Svid: chainDer, x509SvidKey: privateKeyDer, bundle: certificatesOf(bundle), hint }
}

function byTrustDomain<T>(held: WorkloadIdentities, format: (bundle: TrustBundle) => T): Record<string, T> {
  return Object.fromEntries([held.bundle, ...held.federated.values()].map((one) => [idOfTrustDomain(one.trustDomain), format(one)]))
}

const certificatesOf = (bundle: TrustBundle): Uint8Array => concat(bundle.x509Authorities.map((one) => one.certificate.raw))

/** What a workload holds is a value that never changes, so its message does not either. */
function onceEach(make: (held: WorkloadIdentities) => Encoded): (held: WorkloadIdentities) => Encoded {
  const made = new WeakMap<WorkloadIdentities, Encoded>()
  return (held) => {
    const known = made.get(held)
    if (known) return known
    const fresh = make(held)
    made.set(held, fresh)
    return fresh
  }
}

/** JWT-SVID section 3. */
const standardClaims: ReadonlySet<string> = new Set(['sub', 'aud', 'exp'])
