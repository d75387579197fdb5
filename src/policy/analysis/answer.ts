/** What every answer carries: why something could not be said, and what was taken for granted (authorization.md 5.4). */
import type { PolicyMode } from '../policy-set.ts'
import { destinationAssumptions } from './destinations.ts'

/**
 * Why an answer is `unknown`: a closed list.
 * - `opaque`: it depends on what a provider or another filter says; `regex`: on an expression that analysis does not read
 * - `cel`, `environment`, `connection-lifetime`: on what no policy says; `budget`: it was not worked out to the end
 */
export type UnknownReason = 'opaque' | 'cel' | 'regex' | 'environment' | 'connection-lifetime' | 'budget'

export interface Unknown {
  readonly reason: UnknownReason
  /** What is left open, in words. */
  readonly what: string
}

/** What holds only if the world is as assumed; printed with every report. */
export function assumptions(mode: PolicyMode): readonly string[] {
  return [
    ...destinationAssumptions,
    'the proxy knows the addresses and the port of every connection, and takes `X-Forwarded-For` from whom it should',
    ...(mode === 'istio' ? ['a certificate has one name, its SPIFFE ID: no DNS name and no subject that policies could match'] : []),
    'verdicts are of new requests: connections that are open already are not closed',
  ]
}
