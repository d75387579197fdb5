/** What a server takes up of a changed configuration without a restart: the types of the next keys of its CA (C-35). */
import { isDeepStrictEqual } from 'node:util'
import type { KeyTypes } from '../ca/profile.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import type { Watched } from '../kernel/watched.ts'
import type { ServerConfig } from './config/server.ts'
import { showConfig } from './config/show.ts'

/** How a configuration is read again. */
export interface Rereading {
  /** How often somebody asked for it. */
  readonly asked: Watched<number>
  /** @throws Failure `config.invalid`, `usage.no-file` */
  read(): Promise<ServerConfig>
}

/** Reads the configuration whenever it is asked for. One that cannot be used changes nothing; what needs a restart is said. */
export async function keepReading(
  running: ServerConfig,
  { asked, read }: Rereading,
  { log, use }: { readonly log: Log; use(types: KeyTypes): void },
  signal: AbortSignal,
): Promise<void> {
  for await (const times of asked.changes(signal)) {
    if (times === 0) continue
    try {
      const { ca, ...rest } = await read()
      const waiting = differing(running, { ...rest, ca: { ...ca, keyType: running.ca.keyType, jwtKeyType: running.ca.jwtKeyType } })
      if (waiting.length > 0) log.warn('the configuration has changes that wait for a restart', { keys: waiting.join(' ') })
      use(ca)
      log.info('the configuration was read anew', { keyType: ca.keyType, jwtKeyType: ca.jwtKeyType })
    } catch (error) {
      const { reason } = Failure.from(error)
      log.error('the configuration cannot be used, and the one of before is', { reason, error: tellChain(error) })
    }
  }
}

function differing(running: ServerConfig, next: ServerConfig): string[] {
  const [before, after] = [showConfig(running), showConfig(next)].map((shown) => new Map(Object.entries(shown)))
  return [...before!.keys()].filter((key) => !isDeepStrictEqual(before!.get(key), after!.get(key)))
}
