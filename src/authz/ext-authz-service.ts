/** Envoy's external authorization: the same decision function, for what a proxy does not decide itself. */
import type { Agent } from '../agent/agent.ts'
import type { Workload } from '../agent/identities.ts'
import type { ShadowVerdict } from '../agent/shadow.ts'
import type { Peer } from '../attestation/peer.ts'
import type { Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { tellChain } from '../kernel/failure.ts'
import type { CompiledPolicies } from '../policy/compile.ts'
import type { Decision } from '../policy/decision.ts'
import { decide } from '../policy/evaluate.ts'
import type { AttributeContext, Authorization } from '../rpc/gen/envoy/service/auth/v3/auth_pb.ts'
import type { Encoded, Handlers } from '../rpc/handler.ts'
import { toCheckResponse, toPolicyRequest } from './messages.ts'
import type { Candidate, WorkloadRules } from './workload-rules.ts'

/**
 * Check. The destination is the proxy that asks, as the kernel knows it; the source is what the proxy verified.
 * Every answer is a verdict, never an error: a proxy that is told to let requests through on errors does not let these through.
 */
export function externalAuthorization({
  agent,
  rules,
}: {
  readonly agent: Agent
  readonly rules: WorkloadRules
}): Handlers<typeof Authorization, Peer> {
  const responses = new Responses()
  const told = new Ration()
  return {
    async check({ attributes }, call) {
      try {
        const workload = await agent.identify(call.peer, call.signal)
        const { compiled, candidate } = rules.of(workload)
        const decision = decided(compiled, attributes)
        if (candidate) agent.noteShadow(compared(workload, decision, candidate, attributes))
        if (!decision.allowed && told.allows(agent.clock.now())) {
          agent.log.info('a request was refused', {
            pid: workload.pid,
            decision: decision.reason,
            rule: decision.decidedBy[0]?.id,
            errors: decision.errors,
          })
        }
        return responses.of(decision)
      } catch (error) {
        if (told.allows(agent.clock.now()))
          agent.log.warn('a request was refused because it could not be decided', { pid: call.peer.pid, error: tellChain(error) })
        return responses.of(undecided)
      }
    },
  }
}

const decided = (compiled: CompiledPolicies | undefined, attributes: AttributeContext | undefined): Decision =>
  compiled ? decide(compiled, toPolicyRequest(attributes, compiled.mode)) : noPolicies

/** What a set that is tried would have said. */
function compared(
  workload: Workload,
  { allowed }: Decision,
  candidate: Candidate,
  attributes: AttributeContext | undefined,
): ShadowVerdict {
  const tried = decided(candidate.compiled, attributes)
  const { peer, http } = toPolicyRequest(attributes, candidate.compiled.mode)
  return {
    candidateVersion: candidate.version,
    workload: workload.identities.current.identities[0]?.spiffeId ?? '',
    allowed,
    candidateAllows: tried.allowed,
    rule: tried.decidedBy[0]?.id ?? '',
    peer: peer?.spiffeId ?? '',
    method: http?.method ?? '',
    path: http?.path ?? '',
  }
}

/** Answers are few and asked for often, so each is serialised once. */
class Responses {
  readonly #known = new Map<string, Encoded>()

  of(decision: Decision): Encoded {
    const key = `${decision.reason} ${decision.decidedBy[0]?.id ?? ''}`
    const known = this.#known.get(key)
    if (known) return known
    const response = toCheckResponse(decision)
    if (this.#known.size >= maxKnown) this.#known.clear()
    this.#known.set(key, response)
    return response
  }
}

/** So many a second, so that whoever is refused cannot fill the log. Access logs of the proxy hold every one of them. */
class Ration {
  #second = 0
  #used = 0

  allows(now: Instant): boolean {
    const second = Math.floor(now / seconds(1))
    if (second !== this.#second) [this.#second, this.#used] = [second, 0]
    return ++this.#used <= linesASecond
  }
}

const noPolicies: Decision = { allowed: false, reason: 'no-policy', decidedBy: [], errors: [] }
const undecided: Decision = { allowed: false, reason: 'error', decidedBy: [], errors: [] }

const maxKnown = 10_000
const linesASecond = 10
