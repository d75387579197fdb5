import { minutes } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { Server } from './server.ts'

type Needs = Pick<Server, 'clock' | 'log' | 'entries' | 'tokens'>

/** Takes what has expired out of the store, every minute for as long as the signal lives. A store that is away is tried again. */
export async function keepPruned(server: Needs, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await pruneOnce(server).catch((error: unknown) =>
      server.log.warn('expired entries and tokens could not be removed', { error: Failure.from(error).reason }),
    )
    await server.clock.sleep(interval, signal).catch(() => {})
  }
}

/** Removes expired entries and join tokens. */
export async function pruneOnce({ clock, log, entries, tokens }: Needs): Promise<void> {
  const at = clock.now()
  const expired = await entries.prune(at)
  const unused = await tokens.prune(at)
  if (expired.length + unused > 0) log.info('removed what expired', { entries: expired.length, tokens: unused })
}

const interval = minutes(1)
