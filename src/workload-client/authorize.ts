/** The policies that concern this workload, decided here by the same function that decides everywhere. */
import type { IncomingMessage, RequestListener } from 'node:http'
import { deadline, systemClock, type Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { firstOf, WatchedValue } from '../kernel/watched.ts'
import { compileFor, type CompiledPolicies } from '../policy/compile.ts'
import type { Decision } from '../policy/decision.ts'
import { decide } from '../policy/evaluate.ts'
import { parsePolicySet, ReadBefore } from '../policy/language.ts'
import { headerValues, type PolicyRequest } from '../policy/request.ts'
import { openWorkloadApiClient, type WorkloadPolicyUpdate } from './client.ts'
import { endpointOf } from './endpoint.ts'
import { followForever, type SourceOptions } from './source.ts'
import { verifiedPeer } from './tls.ts'

/** Decides requests at this workload. Follows policy changes for as long as it is open. */
export interface Authorizer extends AsyncDisposable {
  /** Version of the policies in force; empty while there are none. */
  readonly version: string
  /** Why newer policies are not in force: what this workload was sent last does not parse. Undefined while all is well. */
  readonly problem: Failure | undefined
  /** Total: an error is a denial with a reason. */
  authorize(request: PolicyRequest): Decision
  /** The same for a request that came through `serveMtls`; through anything else, its peer counts as not authenticated. */
  authorizeHttp(request: IncomingMessage): Decision
}

/**
 * Opens an authorizer and resolves when the first policies are there. Until then, and whenever a set does not parse, the last good
 * one stays in force; without any, everything is refused.
 * @throws Failure `endpoint.*`, `workload-client.no-policies` after `timeout`
 */
export async function openAuthorizer(options: SourceOptions = {}): Promise<Authorizer> {
  const clock = options.clock ?? systemClock
  const client = openWorkloadApiClient(endpointOf(options.address), clock)
  const inForce = new WatchedValue<InForce | undefined>(undefined)
  const before = new ReadBefore()
  /** An exception that has expired ends at its moment, not with the next update. */
  const now = (): InForce | undefined => {
    const { current } = inForce
    if (current?.policies.validUntil === undefined || clock.now() < current.policies.validUntil) return current
    inForce.set(compiled(current.update, clock.now(), before))
    return inForce.current
  }
  let problem: Failure | undefined
  const adopt = (update: WorkloadPolicyUpdate): void => {
    try {
      inForce.set(compiled(update, clock.now(), before))
      problem = undefined
    } catch (error) {
      problem = Failure.from(error)
    }
  }
  let latest: Failure | undefined
  const stop = new AbortController()
  const follow = followForever(
    (signal) => client.watchPolicies(signal),
    adopt,
    (failure) => (latest = failure),
    { clock, signal: stop.signal },
  ).catch((error: unknown) => inForce.close(error))
  const authorizer: Authorizer = {
    get version() {
      return inForce.current?.update.version ?? ''
    },
    get problem() {
      return problem
    },
    authorize(request) {
      const policies = now()?.policies
      return policies ? decide(policies, request) : noPolicies
    },
    authorizeHttp: (request) => authorizer.authorize(requestOf(request)),
    async [Symbol.asyncDispose]() {
      stop.abort()
      await follow
      await client[Symbol.asyncDispose]()
    },
  }
  try {
    await firstOf(inForce, (value) => value !== undefined, deadline(options.timeout ?? seconds(30)))
    return authorizer
  } catch (error) {
    await authorizer[Symbol.asyncDispose]()
    if (error instanceof Failure) throw error
    const cause = problem ?? latest
    const why = cause ? `: ${cause.message}` : ''
    throw new Failure('unavailable', 'workload-client.no-policies', {
      public: `the agent sent no policies that can be used in time${why}`,
      cause,
    })
  }
}

/** Answers 403 to every request that the policies refuse, and hands the others on. Why it was refused, the caller does not learn. */
export function guarded(authorizer: Authorizer, listener: RequestListener): RequestListener {
  return (request, response) => {
    if (authorizer.authorizeHttp(request).allowed) return listener(request, response)
    response.writeHead(403, { 'content-type': 'text/plain' }).end('RBAC: access denied\n')
  }
}

function requestOf(request: IncomingMessage): PolicyRequest {
  const lines = request.rawHeaders.flatMap((name, index) => (index % 2 === 0 ? [[name, request.rawHeaders[index + 1] ?? ''] as const] : []))
  const { remoteAddress, localAddress, localPort } = request.socket
  const spiffeId = verifiedPeer(request)
  return {
    ...(spiffeId === undefined ? {} : { peer: { spiffeId } }),
    ...(remoteAddress === undefined ? {} : { sourceIp: remoteAddress, remoteIp: remoteAddress }),
    ...(localAddress === undefined ? {} : { destinationIp: localAddress }),
    ...(localPort === undefined ? {} : { destinationPort: localPort }),
    http: { method: request.method ?? '', path: request.url ?? '', host: request.headers.host ?? '', headers: headerValues(lines) },
  }
}

interface InForce {
  readonly update: WorkloadPolicyUpdate
  readonly policies: CompiledPolicies
}

function compiled(update: WorkloadPolicyUpdate, at: Instant, before: ReadBefore): InForce {
  return { update, policies: compileFor(parsePolicySet(update.documents, update.options, before), update.facts, { at }) }
}

const noPolicies: Decision = { allowed: false, reason: 'no-policy', decidedBy: [], errors: [] }
