/** The agent's socket as a Node service uses it: answers of the wire become values of the domain, verified where they can be. */
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import type { Clock, Instant } from '../kernel/clock.ts'
import { fromBase64url, fromUtf8, sameBytes, utf8 } from '../kernel/bytes.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { LanguageOptions } from '../policy/language.ts'
import { parseLanguageOptions } from '../policy/options.ts'
import type { PolicyDocument } from '../policy/policy-set.ts'
import type { WorkloadFacts } from '../policy/compile.ts'
import { type Channel, clientOf, connectTcp, connectUnix } from '../rpc/client.ts'
import { SpiffeWorkloadAPI, type WITSVID, type X509SVID, type X509SVIDResponse } from '../rpc/gen/spiffe/workload/workload_pb.ts'
import { WorkloadPolicies, type WorkloadPolicySet } from '../rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { parseKeySet } from '../spiffe/bundle-document.ts'
import { bundleSet, type BundleSet } from '../spiffe/bundle-set.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { parseSpiffeId, trustDomainOf, type SpiffeId } from '../spiffe/id.ts'
import type { JsonObject } from '../spiffe/json.ts'
import { readJwk } from '../spiffe/jwk.ts'
import { selector } from '../spiffe/selector.ts'
import { parseTrustDomain, type TrustDomain } from '../spiffe/trust-domain.ts'
import { witSvidFlaws } from '../spiffe/wit-svid.ts'
import { verifyX509Svid } from '../spiffe/x509-svid.ts'
import { parseCertificates, type Certificate } from '../x509/certificate.ts'
import { formatPem } from '../x509/pem.ts'
import type { Endpoint } from './endpoint.ts'

/** One X509-SVID of this workload with its key, verified against the bundle that came with it. */
export interface X509Identity {
  readonly spiffeId: SpiffeId
  readonly hint: string
  /** Leaf first, no root. */
  readonly chain: readonly Certificate[]
  readonly chainPem: string
  readonly privateKey: KeyObject
}

/** Everything that this workload holds at a moment. The first identity is the default (API-26). */
export interface X509Context {
  readonly identities: readonly [X509Identity, ...X509Identity[]]
  readonly bundles: BundleSet
}

export interface JwtSvid {
  readonly spiffeId: SpiffeId
  readonly token: string
  readonly hint: string
}

/** A token of this workload, and the private key that proves whose it is: a JSON Web Key. */
export interface WitIdentity extends JwtSvid {
  readonly privateKeyJwk: string
}

export interface ValidatedJwtSvid {
  readonly spiffeId: SpiffeId
  readonly claims: Readonly<Record<string, unknown>>
}

export interface WorkloadPolicyUpdate {
  readonly version: string
  readonly documents: readonly PolicyDocument[]
  /** How the documents are to be read. */
  readonly options?: LanguageOptions
  readonly facts: WorkloadFacts
}

/** The calls of the Workload API, and the stream of policies that concern this workload. Each throws Failure. */
export interface WorkloadApiClient extends AsyncDisposable {
  watchX509(signal: AbortSignal): AsyncIterable<X509Context>
  watchX509Bundles(signal: AbortSignal): AsyncIterable<ReadonlyMap<TrustDomain, readonly Certificate[]>>
  watchJwtBundles(signal: AbortSignal): AsyncIterable<ReadonlyMap<TrustDomain, TrustBundle>>
  fetchJwt(audience: readonly string[], spiffeId: string | undefined, signal: AbortSignal): Promise<readonly JwtSvid[]>
  validateJwt(audience: string, token: string, signal: AbortSignal): Promise<ValidatedJwtSvid>
  /** Unimplemented where the agent does not serve WIT-SVIDs, and not tried again then (API-23). */
  watchWit(spiffeId: string | undefined, signal: AbortSignal): AsyncIterable<readonly WitIdentity[]>
  watchPolicies(signal: AbortSignal): AsyncIterable<WorkloadPolicyUpdate>
}

/** Opens a client of the Workload API at an endpoint. Nothing is sent before the first call. */
export function openWorkloadApiClient(endpoint: Endpoint, clock: Clock): WorkloadApiClient {
  const channel = connect(endpoint)
  const workload = clientOf(SpiffeWorkloadAPI, channel)
  const policies = clientOf(WorkloadPolicies, channel)
  return {
    async *watchX509(signal) {
      for await (const response of workload.fetchX509SVID({}, { signal, metadata }))
        yield understood(() => contextOf(response, clock.now()))
    },
    async *watchX509Bundles(signal) {
      for await (const { bundles } of workload.fetchX509Bundles({}, { signal, metadata })) {
        yield understood(() => new Map(Object.entries(bundles).map(([id, der]) => [domainOf(id), parseCertificates(der)])))
      }
    },
    async *watchJwtBundles(signal) {
      for await (const { bundles } of workload.fetchJWTBundles({}, { signal, metadata })) {
        yield understood(() => new Map(Object.entries(bundles).map(([id, text]) => [domainOf(id), jwtBundle(domainOf(id), text)])))
      }
    },
    async fetchJwt(audience, spiffeId, signal) {
      const { svids } = await workload.fetchJWTSVID({ audience: [...audience], spiffeId: spiffeId ?? '' }, { signal, metadata })
      return understood(() =>
        firstOfEachHint(svids).map(({ spiffeId: id, svid, hint }) => ({ spiffeId: parseSpiffeId(id), token: svid, hint })),
      )
    },
    async validateJwt(audience, token, signal) {
      const { spiffeId, claims } = await workload.validateJWTSVID({ audience, svid: token }, { signal, metadata })
      return understood(() => ({ spiffeId: parseSpiffeId(spiffeId), claims: claims ?? {} }))
    },
    async *watchWit(spiffeId, signal) {
      for await (const { svids } of workload.fetchWITSVID({ spiffeId: spiffeId ?? '' }, { signal, metadata })) {
        if (svids.length === 0) throw malformed('the answer has no identity')
        yield understood(() => firstOfEachHint(svids).map((svid) => witIdentityOf(svid, clock.now())))
      }
    },
    async *watchPolicies(signal) {
      for await (const update of policies.watchPolicies({}, { signal, metadata })) yield understood(() => policyUpdateOf(update))
    },
    [Symbol.asyncDispose]: () => channel[Symbol.asyncDispose](),
  }
}

function connect(endpoint: Endpoint): Channel {
  return endpoint.scheme === 'unix' ? connectUnix(endpoint.path) : connectTcp(endpoint)
}

function contextOf({ svids, federatedBundles }: X509SVIDResponse, at: Instant): X509Context {
  if (svids.length === 0) throw malformed('the answer has no identity')
  const own = svids.map(({ spiffeId, bundle }) => bundleOf(trustDomainOf(parseSpiffeId(spiffeId)), bundle))
  const bundles = bundleSet([...Object.entries(federatedBundles).map(([id, der]) => bundleOf(domainOf(id), der)), ...own])
  const [first, ...others] = firstOfEachHint(svids).map((svid) => identityOf(svid, bundles, at))
  return { identities: [first!, ...others], bundles }
}

/** The chain must verify, name the identity that was announced, and belong to the key that came along. */
function identityOf({ spiffeId, hint, x509Svid, x509SvidKey }: X509SVID, bundles: BundleSet, at: Instant): X509Identity {
  const chain = parseCertificates(x509Svid)
  const verified = verifyX509Svid(chain, bundles, at)
  if (verified.spiffeId !== spiffeId) throw malformed(`the certificate is for \`${verified.spiffeId}\`, not for \`${spiffeId}\``)
  const privateKey = createPrivateKey({ key: Buffer.from(x509SvidKey), format: 'der', type: 'pkcs8' })
  if (!sameBytes(createPublicKey(privateKey).export({ format: 'der', type: 'spki' }), verified.leaf.spki)) {
    throw malformed('the private key does not belong to the certificate')
  }
  const chainPem = chain.map(({ raw }) => formatPem('CERTIFICATE', raw)).join('')
  return { spiffeId: verified.spiffeId, hint, chain, chainPem, privateKey }
}

/** The token must be well formed, name the identity that was announced, and be bound to the key that came along. */
function witIdentityOf({ spiffeId, hint, witSvid, witSvidKey }: WITSVID, at: Instant): WitIdentity {
  const [flaw] = witSvidFlaws(witSvid, at)
  if (flaw) throw flaw
  const { sub, cnf } = JSON.parse(fromUtf8(fromBase64url(witSvid.split('.')[1]!))) as { sub: string; cnf: { jwk: JsonObject } }
  if (sub !== spiffeId) throw malformed(`the token is for \`${sub}\`, not for \`${spiffeId}\``)
  const privateKey = createPrivateKey({ key: JSON.parse(witSvidKey) as Record<string, string>, format: 'jwk' })
  if (!createPublicKey(privateKey).equals(readJwk(cnf.jwk).key)) throw malformed('the private key does not belong to the token')
  return { spiffeId: parseSpiffeId(spiffeId), token: witSvid, hint, privateKeyJwk: witSvidKey }
}

/** Hints tell identities apart; of several with the same one the first counts (API-14), and one that is too long is none (API-27). */
function firstOfEachHint<T extends { readonly hint: string }>(svids: readonly T[]): T[] {
  const hints = new Set<string>()
  return svids.flatMap((svid) => {
    const hint = utf8(svid.hint).length > longestHint ? '' : svid.hint
    if (hint !== '' && hints.has(hint)) return []
    hints.add(hint)
    return [{ ...svid, hint }]
  })
}

function bundleOf(trustDomain: TrustDomain, der: Uint8Array): TrustBundle {
  const x509Authorities = parseCertificates(der).map((certificate) => ({ certificate, tainted: false }))
  return { trustDomain, x509Authorities, jwtAuthorities: [], witAuthorities: [], sequence: 0n }
}

/** The keys of a Workload API answer have no `use`; here they are all for JWT-SVIDs (API-19). */
function jwtBundle(trustDomain: TrustDomain, keySet: Uint8Array): TrustBundle {
  const jwtAuthorities = parseKeySet('jwt-svid', fromUtf8(keySet))
  return { trustDomain, x509Authorities: [], jwtAuthorities, witAuthorities: [], sequence: 0n }
}

function policyUpdateOf({ version, documents, options, spiffeIds, selectors }: WorkloadPolicySet): WorkloadPolicyUpdate {
  const facts = { spiffeIds: spiffeIds.map(parseSpiffeId), selectors: selectors.map(({ type, value }) => selector(type, value)) }
  return { version, documents: documents.map(({ name, text }) => ({ name, text })), options: parseLanguageOptions(options ?? {}), facts }
}

/** Bundles are keyed by the SPIFFE ID of their trust domain. */
function domainOf(id: string): TrustDomain {
  return id.startsWith('spiffe://') ? trustDomainOf(parseSpiffeId(id)) : parseTrustDomain(id)
}

/**
 * What an answer means, or a failure of the agent's: whatever is wrong with what it sent says nothing about what we asked (API-10).
 * @throws Failure `workload-client.malformed-answer`
 */
function understood<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    const failure = Failure.from(error)
    throw failure.reason === malformedAnswer ? failure : malformed(tellChain(failure), failure)
  }
}

function malformed(text: string, cause?: Failure): Failure {
  return new Failure('unavailable', malformedAnswer, { public: `the agent's answer cannot be used: ${text}`, cause })
}

const malformedAnswer = 'workload-client.malformed-answer'

/** EP-4. */
const metadata = { 'workload.spiffe.io': 'true' }
/** In bytes: SPIFFE Workload API section 8. */
const longestHint = 1024
