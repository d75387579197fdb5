/** Policies as values: what `language.ts` reads and everything else in this room starts from. */
import { createHash } from 'node:crypto'
import type { Instant } from '../kernel/clock.ts'
import type { Duration } from '../kernel/duration.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { AddressBlock, PathMatch, StringMatch, Template } from './matching.ts'
import type { PathNormalization } from './normalize.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { CelCondition } from './cel.ts'
import type { ServerApiCaller } from './request.ts'

/** `strict`: nothing is allowed unless a rule allows it, whatever is unknown is refused. `istio`: Istio's verdicts, holes included. */
export type PolicyMode = 'strict' | 'istio'

/** A text that policies are read from; the name is what errors point at. */
export interface PolicyDocument {
  readonly name: string
  readonly text: string
}

/** Where something stands in the text it was read from; line and column count from 1. */
export interface Place {
  readonly document: string
  readonly line: number
  readonly column: number
}

/** Many policies, checked together, immutable. */
export interface PolicySet {
  readonly mode: PolicyMode
  /** The namespace whose policies apply everywhere. */
  readonly rootNamespace: string
  readonly pathNormalization: PathNormalization
  /** Other names of a workload's own trust domain: a principal of one of them is a principal of each. */
  readonly trustDomainAliases: readonly TrustDomain[]
  readonly policies: readonly Policy[]
  readonly peerAuthentications: readonly PeerAuthentication[]
  readonly requestAuthentications: readonly RequestAuthentication[]
  /** SHA-256 in hex of mode, options and documents: changes with every change of text. */
  readonly fingerprint: string
  readonly documents: readonly PolicyDocument[]
}

export interface Policy {
  readonly apiVersion: 'security.istio.io/v1' | 'vidimus.dev/v1'
  /** Empty where a policy of ours selects by identity alone, and for `serverApi`. */
  readonly namespace: string
  readonly name: string
  readonly action: PolicyAction
  /** CUSTOM: who is asked. */
  readonly provider?: string
  /** What it gates: a workload, our own API, or the attestation of nodes. */
  readonly target: PolicyTarget
  /** Annotated `istio.io/dry-run: "true"`: it decides nothing, and what it would decide is reported. */
  readonly dryRun: boolean
  readonly selection: Selection
  /** A request without a verified peer matches none of its rules. False for Istio's kind, which has no such field. */
  readonly requirePeer: boolean
  /** From this moment on it allows and denies nothing. */
  readonly expires?: Instant
  /** No rule at all is a policy that matches nothing: an ALLOW that refuses everything. */
  readonly rules: readonly Rule[]
  readonly place: Place
}

/** AUDIT marks and never decides; CUSTOM asks its provider, and what that refuses is refused (authorization.md 1.1). */
export type PolicyAction = 'ALLOW' | 'DENY' | 'AUDIT' | 'CUSTOM'
export type PolicyTarget = 'workload' | 'serverApi' | 'onboarding'

/** `PeerAuthentication`: whether connections without mTLS are taken (authorization.md 1.9). An absent mode is inherited. */
export interface PeerAuthentication {
  readonly namespace: string
  readonly name: string
  readonly matchLabels: Selection['matchLabels']
  readonly mode?: MtlsMode
  readonly ports: readonly { readonly port: number; readonly mode?: MtlsMode }[]
  /** Of several in one scope the oldest counts. */
  readonly createdAt?: Instant
  readonly place: Place
}
export type MtlsMode = 'DISABLE' | 'PERMISSIVE' | 'STRICT'

/** `RequestAuthentication`: which end-user tokens are read, and from where (authorization.md 1.9). */
export interface RequestAuthentication {
  readonly namespace: string
  readonly name: string
  readonly selection: Selection
  readonly jwtRules: readonly JwtRule[]
  readonly place: Place
}

export interface JwtRule {
  readonly issuer: string
  /** One of them must be in the token. Empty: any audience is taken. */
  readonly audiences: readonly string[]
  /** The keys, one way or the other. */
  readonly keys: { readonly jwks: string } | { readonly jwksUri: string } | 'discovered'
  readonly fromHeaders: readonly { readonly name: string; readonly prefix: string }[]
  readonly fromParams: readonly string[]
  readonly fromCookies: readonly string[]
  readonly forwardOriginalToken: boolean
  readonly outputPayloadToHeader?: string
  readonly outputClaimToHeaders: readonly { readonly header: string; readonly claim: string }[]
  readonly timeout?: Duration
  /** Claims that are cut at spaces, beside `scope` and `permission`, which always are. */
  readonly spaceDelimitedClaims: readonly string[]
  readonly place: Place
}

/** What a policy of a gateway is attached to. */
export interface TargetRef {
  readonly group: string
  readonly kind: string
  readonly name: string
}

/** Which workloads: every part that is given must hold. */
export interface Selection {
  /** Absent: of any namespace. The root namespace: of any namespace as well. */
  readonly namespace?: string
  readonly matchLabels: readonly { readonly key: string; readonly value: string }[]
  /** SPIFFE IDs, any of them. Absent: any identity. */
  readonly identities?: readonly IdMatch[]
  /** Only gateways have such policies: a workload that is none has nothing to do with it (authorization.md 1.6). */
  readonly targetRefs?: readonly TargetRef[]
}

/** (one of `from`) and (one of `to`) and (all of `when`). `any` is said, never meant by an empty list. */
export interface Rule {
  readonly from: 'any' | readonly Source[]
  readonly to: 'any' | readonly Operation[]
  readonly when: readonly Condition[]
  /** `vidimus.dev/v1`: must hold as well. */
  readonly cel?: CelCondition
  readonly place: Place
}

/** All clauses must hold. */
export type Source = readonly SourceClause[]
/** All clauses must hold. */
export type Operation = readonly OperationClause[]

/** One line of a policy: (one of `anyOf`), or, where `not`, none of them. `field` is how the policy spells it, `notPaths` for example. */
interface ClauseOf<On, Match> {
  readonly on: On
  readonly not: boolean
  readonly anyOf: readonly Match[]
  readonly field: string
  readonly place: Place
}

export type PeerClause = ClauseOf<'peer', PeerMatch>
export type AddressClause = ClauseOf<'source.ip' | 'remote.ip' | 'destination.ip', AddressBlock>
export type PortClause = ClauseOf<'destination.port', number>
/** Hosts are compared without regard to case. */
export type HostClause = ClauseOf<'host', StringMatch>
export type MethodClause = ClauseOf<'method', StringMatch>
export type PathClause = ClauseOf<'path', PathMatch>
export type SniClause = ClauseOf<'connection.sni', StringMatch>
/** `name` in lower case. */
export type HeaderClause = ClauseOf<'header', StringMatch> & { readonly name: string }
/** Who the end user's token names. */
export type RequestPrincipalClause = ClauseOf<'request.auth.principal', RequestPrincipalMatch>
/** A claim of the end user's token by its path of keys, `['aud']` for audiences, `['azp']` for the presenter. One of several values is enough. */
export type ClaimClause = ClauseOf<'claim', StringMatch> & { readonly path: readonly string[] }
/** What another filter of the proxy said, under its name and a key. */
export type FilterMetadataClause = ClauseOf<'filter-metadata', FilterMetadataMatch> & { readonly filter: string; readonly key: string }
/** What a node proved by evidence of a type: the values of its selectors `<type>:<selector>:<value>`. */
export type AttestedClause = ClauseOf<'attested', StringMatch> & { readonly type: string; readonly selector: string }
export type CallerClause = ClauseOf<'caller', ServerApiCaller>
export type ServerApiIdClause = ClauseOf<'entry.spiffeId' | 'entry.parentId' | 'agent.id', IdMatch>
export type ServerApiTextClause = ClauseOf<'entry.admin' | 'entry.downstream' | 'trustDomain', string>
export type ServerApiTtlClause = ClauseOf<'entry.x509Ttl', DurationMatch>

export type SourceClause = PeerClause | AddressClause | RequestPrincipalClause | CallerClause
export type OperationClause = HostClause | PortClause | MethodClause | PathClause
export type Condition =
  | PeerClause
  | AddressClause
  | PortClause
  | SniClause
  | HeaderClause
  | RequestPrincipalClause
  | ClaimClause
  | FilterMetadataClause
  | AttestedClause
  | ServerApiIdClause
  | ServerApiTextClause
  | ServerApiTtlClause
export type Clause = SourceClause | OperationClause | Condition

/** Typed SPIFFE IDs, by whole segments. */
export type IdMatch = { readonly kind: 'id'; readonly id: SpiffeId } | Template

/**
 * Who is on the other end of a verified connection.
 * - `any`: whoever was verified
 * - `id`: exactly this SPIFFE ID; a `template` is compared with the whole ID, `spiffe://` included
 * - `below`: IDs that begin with `prefix`, which ends with a slash; `ending`: IDs that end with `suffix`, which begins with one
 * - `namespace`: strict: the path is exactly `/ns/<namespace>/sa/<name>`, and `*` in the glob stays inside its segment; istio: `/ns/<glob>/` anywhere in the name, `*` crosses slashes
 * - `service-account`: strict: the path is exactly `/ns/<namespace>/sa/<name>`; istio: `spiffe://.+/ns/<namespace>/(.+/|)sa/<name>(/.+)?`
 * - `trust-domain`: the trust domain, `*` in the glob any text without a slash; `*` alone is any SPIFFE ID
 * - `principal` (istio mode only): Istio's text comparison over what follows `spiffe://`; `present` is any name that is not empty
 */
export type PeerMatch =
  | { readonly kind: 'any' }
  | IdMatch
  | { readonly kind: 'below'; readonly prefix: string }
  | { readonly kind: 'ending'; readonly suffix: string }
  | { readonly kind: 'namespace'; readonly glob: string }
  | { readonly kind: 'trust-domain'; readonly glob: string }
  | { readonly kind: 'service-account'; readonly namespace: string; readonly name: string }
  | { readonly kind: 'principal'; readonly match: StringMatch }

/** `<issuer>/<subject>`, cut at its last slash (authorization.md 1.4). `present` is any text that is not empty. */
export interface RequestPrincipalMatch {
  /** As it was written. */
  readonly text: string
  readonly issuer: StringMatch
  readonly subject: StringMatch
}

/** `[value]` looks through a list, `value` compares a text. `present` is any text that is not empty. */
export interface FilterMetadataMatch {
  readonly inList: boolean
  readonly match: StringMatch
}

/** `1h`, or `<=1h` and `>=1h`. */
export interface DurationMatch {
  readonly comparison: 'equal' | 'at-most' | 'at-least'
  readonly duration: Duration
}

/** Puts checked policies together and fingerprints them. */
export function policySet(parts: Omit<PolicySet, 'fingerprint'>): PolicySet {
  const { mode, rootNamespace, pathNormalization, trustDomainAliases, documents } = parts
  const texts = documents.map(({ name, text }) => [name, text])
  const meaning = JSON.stringify([
    mode,
    rootNamespace,
    pathNormalization,
    texts,
    ...(trustDomainAliases.length > 0 ? [trustDomainAliases] : []),
  ])
  return Object.freeze({ ...parts, fingerprint: createHash('sha256').update(meaning).digest('hex') })
}
