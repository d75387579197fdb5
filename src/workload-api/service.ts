/** The SPIFFE Workload API. Who is calling is what the kernel says; what is answered follows from that alone. */
import type { Agent } from '../agent/agent.ts'
import { requireIdentity } from '../agent/identify.ts'
import type { WorkloadIdentities } from '../agent/identities.ts'
import type { Peer } from '../attestation/peer.ts'
import { sameBytes } from '../kernel/bytes.ts'
import { Failure } from '../kernel/failure.ts'
import { SpiffeWorkloadAPI, type WITSVIDRequest } from '../rpc/gen/spiffe/workload/workload_pb.ts'
import { type Call, type Encoded, mount, type Mounted } from '../rpc/handler.ts'
import { parseSpiffeId } from '../spiffe/id.ts'
import type { VerifiedJwtSvid } from '../spiffe/jwt-svid.ts'
import {
  jwtBundlesResponse,
  jwtSvidResponse,
  validatedResponse,
  witBundlesResponse,
  witSvidResponse,
  x509BundlesResponse,
  x509SvidResponse,
} from './messages.ts'

/** The methods over an agent. Serve it behind `requireSecurityHeader`. */
export function workloadApi(agent: Pick<Agent, 'trustDomain' | 'identify' | 'jwtSvids' | 'validateJwt' | 'witSvids'>): Mounted<Peer> {
  return mount<typeof SpiffeWorkloadAPI, Peer>(SpiffeWorkloadAPI, {
    fetchX509SVID: (_request, call) => push(agent, call, x509SvidResponse),

    fetchX509Bundles: (_request, call) => push(agent, call, x509BundlesResponse),

    fetchJWTBundles: (_request, call) => push(agent, call, jwtBundlesResponse),

    async fetchJWTSVID({ audience, spiffeId }, { peer, signal }) {
      if (audience.length === 0) throw missing('audience')
      const wanted = spiffeId === '' ? undefined : parseSpiffeId(spiffeId)
      const workload = await agent.identify(peer, signal)
      requireIdentity(workload)
      return jwtSvidResponse(await agent.jwtSvids(workload, audience, wanted, signal))
    },

    async validateJWTSVID({ audience, svid }, { peer, signal }) {
      if (audience === '') throw missing('audience')
      if (svid === '') throw missing('svid')
      const held = requireIdentity(await agent.identify(peer, signal))
      return validatedResponse(await judged(() => agent.validateJwt(held, audience, svid)), agent.trustDomain)
    },

    ...(hasWit(agent) ? witMethods(agent) : { fetchWITSVID: notServed, fetchWITBundles: notServed }),
  })
}

/**
 * The whole state at once, and again after each change that shows in it (API-4, API-5); ends when the caller's last identity is gone (API-15).
 */
async function* push(
  agent: Pick<Agent, 'identify'>,
  { peer, signal }: Call<Peer>,
  respond: (held: WorkloadIdentities) => Encoded,
): AsyncGenerator<Encoded, void, void> {
  const workload = await agent.identify(peer, signal)
  yield* news(peer, workload.identities.changes(signal), (held) => respond(requireIdentity(workload, held)))
}

/** WIT-SVIDs with their keys (API-24), and their bundles (API-25). */
function witMethods(agent: Pick<Agent, 'identify'> & Required<Pick<Agent, 'witSvids'>>) {
  return {
    async *fetchWITSVID({ spiffeId }: WITSVIDRequest, { peer, signal }: Call<Peer>) {
      const wanted = spiffeId === '' ? undefined : parseSpiffeId(spiffeId)
      const workload = await agent.identify(peer, signal)
      yield* news(peer, agent.witSvids(workload, wanted, signal), witSvidResponse)
    },
    fetchWITBundles: (_request: unknown, call: Call<Peer>) => push(agent, call, witBundlesResponse),
  }
}

/** One response for each state that differs from the one before. */
async function* news<T>(peer: Peer, states: AsyncIterable<T>, respond: (state: T) => Encoded): AsyncGenerator<Encoded, void, void> {
  let told: Encoded | undefined
  for await (const state of states) {
    const response = respond(state)
    // A connection can outlive its process in the hands of a child: what is new is for the process that was attested.
    if (told && !peer.stillThere()) throw new Failure('unavailable', 'workload.gone', { public: 'the calling process has ended' })
    if (!told || !sameBytes(told.bytes, response.bytes)) yield response
    told = response
  }
}

function hasWit<A extends Pick<Agent, 'witSvids'>>(agent: A): agent is A & Required<Pick<Agent, 'witSvids'>> {
  return agent.witSvids !== undefined
}

/** What an agent that does not speak the profile answers (API-23, EP-15). */
function notServed(): never {
  throw new Failure('unimplemented', 'workload-api.no-wit', { public: 'WIT-SVIDs are not served here' })
}

/** A token that does not hold is a bad argument, and the caller may know why: it has the token. */
async function judged(verify: () => Promise<VerifiedJwtSvid>): Promise<VerifiedJwtSvid> {
  try {
    return await verify()
  } catch (error) {
    const { reason, message, category } = Failure.from(error)
    if (category === 'internal') throw error
    throw new Failure('invalid_argument', reason, { public: message, cause: error })
  }
}

function missing(field: string): Failure {
  return new Failure('invalid_argument', `workload-api.no-${field}`, { public: `\`${field}\` must be specified` })
}
