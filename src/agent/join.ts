/** How an agent comes by its identity: the one it kept, or by proving itself to the server. */
import type { NodeProver } from '../attestation/node-attestor.ts'
import { backoff } from '../kernel/backoff.ts'
import { sameBytes } from '../kernel/bytes.ts'
import type { Clock, Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { type Category, Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import type { Random } from '../kernel/random.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { bundleSet } from '../spiffe/bundle-set.ts'
import { pathOf, trustDomainOf } from '../spiffe/id.ts'
import { verifyX509Svid } from '../spiffe/x509-svid.ts'
import { createCertificateRequest } from '../x509/certificate-request.ts'
import type { AgentState, KeptState } from './kept-state.ts'
import { makeSvidKey, type SvidKey } from './svid-key.ts'
import type { AgentCredentials, SignedX509Svid, UpstreamServer } from './upstream-server.ts'

export interface Joining {
  readonly kept: KeptState
  readonly upstream: Pick<UpstreamServer, 'attest' | 'use'>
  /** Evidence; without it only a kept identity will do. */
  readonly prover: NodeProver | undefined
  /** What the server must prove itself against at first contact; after an absence that outlasted the identity, beside the bundle that was kept. */
  readonly firstBundle: () => Promise<TrustBundle>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/**
 * The identity that was kept, if it still holds; otherwise a new one, as soon as the server can be reached.
 * @throws Failure `agent.no-evidence`, `agent.bad-identity`, `agent.server-not-trusted`, and whatever the server refuses the evidence with
 */
export async function join(parts: Joining, signal: AbortSignal): Promise<AgentState> {
  const kept = await parts.kept.load()
  if (kept && isUsable(kept, parts.clock.now())) {
    parts.upstream.use(kept.credentials, kept.bundle)
    parts.log.info('the agent goes on with the identity it kept', { spiffeId: kept.credentials.spiffeId })
    return kept
  }
  const bundle = kept ? await withConfigured(kept.bundle, parts) : await parts.firstBundle()
  return attest({ ...parts, upstream: refusingStrangers(parts.upstream) }, bundle, signal)
}

/**
 * While the agent was away its server may have got new authorities. Then those count as well that the operator says an agent is to trust
 * at first contact, for this is one.
 */
async function withConfigured(kept: TrustBundle, { firstBundle, log }: Joining): Promise<TrustBundle> {
  try {
    const { x509Authorities: configured } = await firstBundle()
    const unknown = configured.filter(
      ({ certificate }) => !kept.x509Authorities.some((one) => sameBytes(one.certificate.raw, certificate.raw)),
    )
    return { ...kept, x509Authorities: [...kept.x509Authorities, ...unknown] }
  } catch (error) {
    log.debug('the configured trust bundle cannot be used; the one that was kept will do', { error: tellChain(error) })
    return kept
  }
}

/** A server that cannot prove itself at first contact stays one: waiting for it would hide a wrong address or a wrong bundle. */
function refusingStrangers(upstream: Joining['upstream']): Joining['upstream'] {
  return {
    use: (credentials, bundle) => upstream.use(credentials, bundle),
    async attest(...evidence) {
      try {
        return await upstream.attest(...evidence)
      } catch (error) {
        if (!(error instanceof Failure && error.cause instanceof Failure && error.cause.category === 'unauthenticated')) throw error
        throw new Failure('unauthenticated', 'agent.server-not-trusted', {
          public:
            'the server cannot prove itself against the trust bundle: compare it with what `vidimus bundle show` prints on the server',
          cause: error.cause,
        })
      }
    },
  }
}

/** Proves this node to the server, with a new key, until it answers. @throws Failure as {@link join} */
export async function attest(parts: Joining, bundle: TrustBundle, signal: AbortSignal): Promise<AgentState> {
  const { kept, upstream, clock, log, prover } = parts
  if (!prover) {
    throw new Failure('failed_precondition', 'agent.no-evidence', {
      public: 'the agent has no valid identity and nothing to prove itself with: give it a join token (`vidimus token generate`)',
    })
  }
  const key = await makeSvidKey()
  const csr = await createCertificateRequest({ signer: key.signer })
  const { svid, reattestable } = await untilAnswered(parts, signal, () => upstream.attest(prover, csr, bundle, signal))
  const credentials = checkedCredentials(svid, key, bundle, clock.now())
  const state = { credentials, reattestable, bundle }
  // INVARIANT: kept before anything else can fail, for a token that was used brings no second identity.
  await kept.save(state)
  upstream.use(credentials, bundle)
  log.info('the agent joined', { spiffeId: credentials.spiffeId, evidence: prover.type })
  return state
}

/**
 * What the server issued, if it is an identity of an agent, of this trust domain, for this key, under this bundle.
 * @throws Failure `agent.bad-identity`
 */
export function checkedCredentials(svid: SignedX509Svid, key: SvidKey, bundle: TrustBundle, at: Instant): AgentCredentials {
  try {
    const { spiffeId, leaf } = verifyX509Svid(svid.chain, bundleSet([bundle]), at)
    if (trustDomainOf(spiffeId) !== bundle.trustDomain || !pathOf(spiffeId).startsWith('/spire/agent/')) {
      throw new Failure('unauthenticated', 'agent.not-an-agent-id', { public: `\`${spiffeId}\` is not the ID of an agent` })
    }
    if (!sameBytes(leaf.spki, key.signer.publicKey)) {
      throw new Failure('unauthenticated', 'agent.foreign-key', { public: 'the certificate is not for the key that was asked for' })
    }
    return { spiffeId, chain: svid.chain, privateKeyPem: key.privateKeyPem }
  } catch (cause) {
    throw new Failure('unauthenticated', 'agent.bad-identity', {
      public: 'the server issued an identity that does not hold',
      cause,
    })
  }
}

function isUsable({ credentials }: AgentState, at: Instant): boolean {
  return at < credentials.chain[0]!.notAfter
}

async function untilAnswered<T>({ clock, random, log }: Joining, signal: AbortSignal, ask: () => Promise<T>): Promise<T> {
  for (const delay of backoff(random, { first: seconds(1), longest: seconds(60) })) {
    try {
      return await ask()
    } catch (error) {
      signal.throwIfAborted()
      if (!passing.has(Failure.from(error).category)) throw error
      log.warn('the server cannot be reached to join; trying again', { error: tellChain(error), inMs: Math.round(delay) })
    }
    await clock.sleep(delay, signal)
  }
  throw new Error('bug: endless backoff ended')
}

/** Troubles that go away by themselves. Anything else is an answer. */
const passing: ReadonlySet<Category> = new Set(['unavailable', 'deadline_exceeded', 'resource_exhausted', 'cancelled'])
