import type { KeyObject } from 'node:crypto'
/** The agent, put together. */
import type { Collection } from '../attestation/collect.ts'
import type { NodeProver } from '../attestation/node-attestor.ts'
import type { PeerCredentials } from '../attestation/peer-credentials.ts'
import type { WorkloadAttestor } from '../attestation/workload-attestor.ts'
import { fromUtf8 } from '../kernel/bytes.ts'
import type { World } from '../kernel/driver.ts'
import { type Duration, seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { Files } from '../kernel/files.ts'
import { Scope } from '../kernel/scope.ts'
import type { Watched } from '../kernel/watched.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { parseBundle } from '../spiffe/bundle-document.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Agent } from './agent.ts'
import { explain, type Explanation } from './explain.ts'
import { agentStatus, showStatus, type AgentStatus } from './health.ts'
import { identifier } from './identify.ts'
import { IdentityCache } from './identity-cache.ts'
import { JwtCache } from './jwt-cache.ts'
import { jwtSvidsOf } from './jwt-svids.ts'
import { jwtValidation } from './jwt-validation.ts'
import { openKeptState } from './kept-state.ts'
import { OwnIdentity } from './own-identity.ts'
import { PolicyFeed } from './policies.ts'
import { ShadowVerdicts } from './shadow.ts'
import { isRejection } from './rejection.ts'
import { Sync } from './sync.ts'
import type { UpstreamServer } from './upstream-server.ts'
import { WitCache, type WitCacheParts } from './wit-cache.ts'
import { witSvidsOf } from './wit-svids.ts'

export interface AgentParts extends Pick<World, 'clock' | 'random' | 'files' | 'log' | 'meter'> {
  readonly trustDomain: TrustDomain
  readonly upstream: UpstreamServer
  /** What this node proves itself with at its first start; without it, only a kept identity will do. */
  readonly prover?: NodeProver | undefined
  /** What the server must prove itself against at first contact: a file, or the bundle itself. */
  readonly trustBundle: { readonly path: string } | { readonly bundle: TrustBundle }
  /** Where the agent keeps its key, its SVID, the bundle and the policies. Nobody else may enter it. */
  readonly dataDirectory: string
  /** By kind. */
  readonly attestors: ReadonlyMap<string, WorkloadAttestor>
  /** To look at a process by its number, when an operator asks. */
  readonly peers: Pick<PeerCredentials, 'ofPid'>
  /** How often the server is asked for entries and bundles; 5 s when left out. */
  readonly syncInterval?: Duration
  /** Who may sign policies; with none, nobody need sign them. */
  readonly policySigners?: readonly KeyObject[]
  readonly agentVersion: string
  /** Whether workloads may ask for WIT-SVIDs, whose standard is incubating; false when left out. */
  readonly witSvid?: boolean
}

/** An agent that has an identity. It serves what it knows; {@link run} keeps that fresh. */
export interface OpenAgent extends Agent {
  /**
   * Works until the signal aborts.
   * @throws Failure `agent.rejected` when the server does not accept this agent any more; it serves nobody from then on
   */
  run(signal: AbortSignal): Promise<void>
  /** @throws Failure `peer.no-such-process`, `workload.attestation-failed`, `workload.gone` */
  explain(pid: number, signal: AbortSignal): Promise<Explanation>
  status(): AgentStatus
  /** Whether workloads get what they are entitled to: for health checks. */
  readonly serving: Watched<{ readonly serving: boolean }>
}

/**
 * Resolves when the agent has an identity: at once after a restart, after attestation at the first start.
 * @throws Failure `agent.no-evidence`, `agent.bad-identity`, `agent.state-damaged`, `agent.other-trust-domain`, `agent.no-trust-bundle`, `agent.bad-trust-bundle`,
 *   `directory.*`, and whatever the server refuses the evidence with
 */
export async function openAgent(parts: AgentParts, signal: AbortSignal): Promise<OpenAgent> {
  const { trustDomain, upstream, prover, dataDirectory: directory, files, clock, random, log, meter } = parts
  const kept = await openKeptState(directory, trustDomain, files)
  const own = await OwnIdentity.open({ kept, upstream, prover, firstBundle: () => firstBundle(parts), clock, random, log }, signal)
  const policies = await PolicyFeed.open({ upstream, directory, trusted: parts.policySigners ?? [], files, clock, random, log, meter })
  const cache = new IdentityCache({ upstream, bundle: own.bundle.current, clock, random, log, meter })
  const jwts = new JwtCache({ upstream, bundle: own.bundle, clock, random, log })
  const sync = new Sync({
    upstream,
    own,
    into: {
      update(entitlements) {
        cache.update(entitlements)
        policies.serverIsThere()
      },
      get timeLeft() {
        return cache.timeLeft
      },
    },
    interval: parts.syncInterval ?? seconds(5),
    agentVersion: parts.agentVersion,
    clock,
    random,
    log,
    meter,
  })
  const collection: Collection = { attestors: parts.attestors, log, timeout: attestationTimeout }

  const shadow = new ShadowVerdicts({ upstream, clock, random, log, meter })

  const work = async (stop: AbortSignal): Promise<void> => {
    await using scope = new Scope(stop)
    scope.run('sync', (each) => sync.run(each))
    scope.run('signing', (each) => cache.run(each))
    scope.run('expiry', (each) => cache.expire(each))
    scope.run('own identity', (each) => own.keepFresh(each))
    scope.run('policies on disk', (each) => policies.keep(each))
    scope.run('policies', (each) => policies.run(each))
    scope.run('shadow', (each) => shadow.keepTelling(each))
    await scope.finished
  }

  const status = () => agentStatus({ own, sync, cache, policies, clock })
  const serving = () => ({ serving: status().ready })
  showStatus(meter, status, cache)

  return {
    trustDomain,
    clock,
    log,
    meter,
    bundle: own.bundle,
    noteShadow: (verdict) => shadow.note(verdict),
    identify: identifier({ collection, cache, documents: policies.documents, clock }),
    jwtSvids: (workload, audience, spiffeId, caller) => jwtSvidsOf(jwts, workload, { audience, spiffeId }, caller),
    validateJwt: jwtValidation(clock),
    ...(parts.witSvid === true && witDoor({ upstream, bundle: own.bundle, clock, random, log })),
    explain: (pid, caller) => explain({ peers: parts.peers, collection, cache, clock }, pid, caller),
    status,
    serving: {
      get current() {
        return serving()
      },
      async *changes(caller) {
        for await (const _ of sync.status.changes(caller)) yield serving()
      },
    },
    async run(stop) {
      while (!stop.aborted) {
        try {
          await work(stop)
        } catch (error) {
          const failure = Failure.from(error)
          if (!isRejection(failure)) throw error
          await own.forget()
          if (!mayRejoin(failure, own, parts)) {
            cache.clear()
            throw rejected(failure)
          }
          log.warn('the server does not know this agent any more; joining again', { reason: failure.reason })
          await own.rejoin(stop)
        }
      }
    },
  }
}

function witDoor(parts: WitCacheParts): Required<Pick<Agent, 'witSvids'>> {
  const cache = new WitCache(parts)
  return { witSvids: (workload, spiffeId, signal) => witSvidsOf({ ...parts, cache }, workload, spiffeId, signal) }
}

function mayRejoin({ reason }: Failure, own: OwnIdentity, { prover }: AgentParts): boolean {
  return prover !== undefined && own.state.current.reattestable && !untilAnOperatorDecides.has(reason)
}

/** New evidence changes nothing about these. */
const untilAnOperatorDecides: ReadonlySet<string> = new Set(['server.agent-banned', 'server.agent-cloned'])

function rejected(cause: Failure): Failure {
  return new Failure('permission_denied', 'agent.rejected', {
    public:
      'the server does not accept this agent any more: it serves nobody; to let it join again, evict it on the server if it is banned or frozen, and give it a new join token',
    cause,
  })
}

async function firstBundle({
  trustBundle,
  trustDomain,
  files,
}: Pick<AgentParts, 'trustBundle' | 'trustDomain'> & { readonly files: Files }): Promise<TrustBundle> {
  if ('bundle' in trustBundle) return trustBundle.bundle
  const content = await files.read(trustBundle.path)
  if (content) return readBundle(trustBundle.path, trustDomain, content)
  throw new Failure('failed_precondition', 'agent.no-trust-bundle', {
    public: `the trust bundle \`${trustBundle.path}\` does not exist: write it with \`vidimus bundle show\` on the server`,
  })
}

function readBundle(path: string, trustDomain: TrustDomain, content: Uint8Array): TrustBundle {
  try {
    return parseBundle(trustDomain, fromUtf8(content))
  } catch (cause) {
    throw new Failure('failed_precondition', 'agent.bad-trust-bundle', {
      public: `the trust bundle \`${path}\` cannot be used`,
      cause,
    })
  }
}

const attestationTimeout: Duration = seconds(10)
