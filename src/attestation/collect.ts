import { deadline } from '../kernel/clock.ts'
import type { Duration } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import { type Selector, uniqueSelectors } from '../spiffe/selector.ts'
import type { Peer } from './peer.ts'
import type { WorkloadAttestor } from './workload-attestor.ts'

export interface Collection {
  /** By kind, which is also the type of the selectors that each may give. */
  readonly attestors: ReadonlyMap<string, WorkloadAttestor>
  readonly log: Log
  /** How long all of them together may take. */
  readonly timeout: Duration
}

/**
 * What can be known of a process: all attestors at once, sorted, each selector once. One that fails is noted in the log and its
 * selectors are missing, which can only make fewer entries match, because an entry asks for selectors and never for their absence.
 * @throws Failure `workload.attestation-failed` when none succeeded, `workload.gone`
 */
export async function collectSelectors(
  peer: Peer,
  { attestors, log, timeout }: Collection,
  signal: AbortSignal,
): Promise<readonly Selector[]> {
  const inTime = deadline(timeout, signal)
  const results = await Promise.allSettled([...attestors].map(([kind, attestor]) => attestOne(kind, attestor, peer, inTime)))
  signal.throwIfAborted()
  // INVARIANT: asked last, after everything that was read under this pid.
  if (!peer.stillThere())
    throw new Failure('unavailable', 'workload.gone', { public: 'the calling process has ended', internal: { pid: peer.pid } })

  const failures = results.filter((one) => one.status === 'rejected').map((one) => one.reason as unknown)
  const seen = results.flatMap((one) => (one.status === 'fulfilled' ? one.value : []))
  if (failures.length === results.length) throw allFailed(peer, failures)
  for (const failure of failures)
    log.warn('a workload attestor failed', { pid: peer.pid, reason: Failure.from(failure).reason, error: tellChain(failure) })
  return uniqueSelectors(seen)
}

async function attestOne(kind: string, attestor: WorkloadAttestor, peer: Peer, signal: AbortSignal): Promise<readonly Selector[]> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const onAbort = () => reject(signal.reason as Error)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    signal.throwIfAborted()
    return checked(kind, await Promise.race([attestor.attest(peer, signal), late]))
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** What a driver says is believed within its own type and in reasonable number only. */
function checked(kind: string, selectors: readonly Selector[]): readonly Selector[] {
  const foreign = selectors.find((one) => one.type !== kind)
  if (foreign === undefined && selectors.length <= maxSelectors) return selectors
  throw new Failure('internal', 'workload.bad-selectors', {
    public: foreign
      ? `the workload attestor \`${kind}\` gave a selector of type \`${foreign.type.slice(0, 40)}\``
      : `the workload attestor \`${kind}\` gave ${selectors.length} selectors: at most ${maxSelectors}`,
  })
}

function allFailed(peer: Peer, failures: readonly unknown[]): Failure {
  return new Failure('unavailable', 'workload.attestation-failed', {
    public: 'the calling process could not be attested',
    internal: { pid: peer.pid, failures: failures.map((one) => `${Failure.from(one).reason}: ${tellChain(one)}`) },
    cause: failures[0],
  })
}

/** More than the 65,536 groups that a process can be in twice over would be needed to exceed it by honest means. */
const maxSelectors = 200_000
