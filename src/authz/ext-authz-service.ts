/** Envoy's external authorization: the same decision function, for what a proxy does not decide itself. */
import type { Agent } from '../agent/agent.ts'
import type { Workload } from '../agent/identities.ts'
import type { Peer } from '../attestation/peer.ts'
import type { Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { tellChain } from '../kernel/failure.ts'
import type { Decision } from '../policy/decision.ts'
import { decide } from '../policy/evaluate.ts'
import type { AttributeContext, Authorization } from '../rpc/gen/envoy/service/auth/v3/auth_pb.ts'
import type { Encoded, Handlers } from '../rpc/handler.ts'
import { toCheckResponse, toPolicyRequest } from './messages.ts'
import type { WorkloadRules } from './workload-rules.ts'

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
        const decision = decideAt(rules, workload, attributes)
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

function decideAt(rules: WorkloadRules, workload: Workload, attributes: AttributeContext | undefined): Decision {
  const { compiled } = rules.of(workload)
  return compiled ? decide(compiled, toPolicyRequest(attributes, compiled.mode)) : noPolicies
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
