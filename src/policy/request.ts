/** What a decision is about. Everything here was seen by whoever asks, not said by the caller. */
import type { Duration } from '../kernel/duration.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'

/** A request (or, without `http`, a connection) at a workload. What is absent is not known, and strict mode decides it on the refusing side. */
export interface PolicyRequest {
  /** Who the validated certificate names. Absent: nobody was authenticated. */
  readonly peer?: VerifiedPeer
  /** The address of the physical peer. */
  readonly sourceIp?: string
  /** The address of the client behind trusted proxies; without any, the physical peer's. */
  readonly remoteIp?: string
  readonly destinationIp?: string
  /** The port the workload listens on. */
  readonly destinationPort?: number
  readonly sni?: string
  readonly http?: HttpFacts
  /** The end user's token, if there was one and it was verified. */
  readonly token?: VerifiedToken
  /** What other filters of the proxy said, by filter and key. */
  readonly filterMetadata?: Readonly<Record<string, Claims>>
  /** What the providers of CUSTOM policies answered, by provider. A provider that is not here has not answered, which is a refusal. */
  readonly providers?: Readonly<Record<string, 'allowed' | 'denied'>>
}

/** A token whose signature, issuer and times were checked. */
export interface VerifiedToken {
  /** All of them, `iss`, `sub`, `aud` and `azp` too. */
  readonly claims: Claims
}
/** As JSON has them. Only own keys count. */
export type Claims = Readonly<Record<string, unknown>>

export interface VerifiedPeer {
  readonly spiffeId: SpiffeId
  /** Istio mode alone: all names of the certificate in Envoy's order (URI SANs, DNS SANs, subject). By default the SPIFFE ID. */
  readonly names?: readonly string[]
}

export interface HttpFacts {
  readonly method: string
  /** As received, with its query; it is normalised before it is compared. */
  readonly path: string
  /** `:authority` or `Host` as sent. */
  readonly host: string
  readonly headers: HeaderValues
}

/** By name in lower case; a header that was sent twice has two values. */
export type HeaderValues = ReadonlyMap<string, readonly string[]>

/** Header lines as they came, as values by lower-case name. */
export function headerValues(lines: Iterable<readonly [name: string, value: string]>): HeaderValues {
  const values = new Map<string, string[]>()
  for (const [name, value] of lines) {
    const key = name.toLowerCase()
    const before = values.get(key)
    if (before) before.push(value)
    else values.set(key, [value])
  }
  return values
}

/**
 * Who calls our own API: `local` came over the operators' socket, `admin` and `downstream` by a registration entry,
 * `agent` by its own SVID; `anyone` has shown nothing.
 */
export const serverApiCallers = ['local', 'admin', 'agent', 'downstream', 'anyone'] as const
export type ServerApiCaller = (typeof serverApiCallers)[number]

/** A call of our own API. */
export interface ServerApiRequest {
  /** Several where one identity is several things, an entry that is admin and downstream for example. */
  readonly caller: ServerApiCaller | readonly ServerApiCaller[]
  /** The gRPC path, `/spire.api.server.entry.v1.Entry/BatchCreateEntry`. */
  readonly method: string
  /** What the call is about, as far as it is known. A call about many entries is asked about each. */
  readonly attributes: ServerApiAttributes
}

/** A node that wants to be admitted, by evidence that was verified. A join token is itself an admission and is not asked about. */
export interface OnboardingRequest {
  /** The type of the evidence, `x509pop` for example. */
  readonly type: string
  readonly selectors: readonly Selector[]
}

export interface ServerApiAttributes {
  readonly 'entry.spiffeId'?: SpiffeId
  readonly 'entry.parentId'?: SpiffeId
  readonly 'entry.x509Ttl'?: Duration
  readonly 'entry.admin'?: boolean
  readonly 'entry.downstream'?: boolean
  readonly 'agent.id'?: SpiffeId
  readonly trustDomain?: TrustDomain
}
