import { seconds } from '../kernel/duration.ts'
import { Scope } from '../kernel/scope.ts'
import type { Watched } from '../kernel/watched.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Agent, HintedWitSvid } from './agent.ts'
import { Bell } from './bell.ts'
import { isInForce, uniqueHints } from './entry-index.ts'
import { groupOf, noIdentity } from './identify.ts'
import type { Workload } from './identities.ts'
import type { WitCache } from './wit-cache.ts'

export interface WitSvidsParts extends Pick<Agent, 'clock' | 'bundle'> {
  readonly cache: WitCache
}

/**
 * The WIT-SVIDs of a workload, the default first: all of them at once, and again after each change (API-24).
 * @throws Failure `workload.no-identity`, `wit.unavailable`, `wit.not-issued`
 */
export async function* witSvidsOf(
  { cache, clock, bundle }: WitSvidsParts,
  workload: Workload,
  spiffeId: SpiffeId | undefined,
  signal: AbortSignal,
): AsyncGenerator<readonly HintedWitSvid[], void, void> {
  const group = groupOf(workload)
  await using scope = new Scope(signal)
  const bell = new Bell()
  const listen = (news: Watched<unknown>['changes']) => async (stop: AbortSignal) => {
    for await (const _ of news(stop)) bell.ring()
  }
  scope.run(
    'entries',
    listen((stop) => group.entryChanges(stop)),
  )
  scope.run(
    'bundle',
    listen((stop) => bundle.changes(stop)),
  )
  for (;;) {
    signal.throwIfAborted()
    const now = clock.now()
    const entries = group.entries.filter((one) => isInForce(one, now) && (spiffeId === undefined || one.spiffeId === spiffeId))
    if (entries.length === 0) throw noIdentity(workload)
    const hints = uniqueHints(entries)
    const { svids, next } = await cache.fetch(entries, signal)
    yield svids.map((svid) => ({ ...svid, hint: hints.get(svid.entryId)! }))
    await bell.waitUntil(Math.max(next, now + soonest), clock, signal)
  }
}

/** A stream looks again this often at most, unless there is news. */
const soonest = seconds(0.5)
