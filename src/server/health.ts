import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import { WatchedValue, type Watched } from '../kernel/watched.ts'
import type { OwnIdentity } from './own-identity.ts'
import type { Server } from './server.ts'

/** Whether the server does what it is there for, and if not, why. */
export interface ServerHealth {
  readonly serving: boolean
  /** In words, for operators; not all of them keep the server from serving. */
  readonly complaints: readonly string[]
}

type Needs = Pick<Server, 'ca' | 'entries' | 'nodes' | 'clock' | 'policies'> & { readonly identity: Pick<OwnIdentity, 'isGood'> }

type Watching = Needs & Pick<Server, 'log'>

/** Healthy means: the CA can sign, the store answers, and those who connect can verify us. */
export async function healthOf(server: Needs): Promise<ServerHealth> {
  const complaints = [...server.ca.complaints(), ...server.policies.complaints(server.clock.now()), ...(await storeComplaints(server))]
  if (!server.identity.isGood) complaints.push('the server certificate is not valid')
  // Somebody who copied one agent must not bring down the server for all others.
  return { serving: complaints.length === 0, complaints: [...complaints, ...(await cloneComplaints(server))] }
}

/** The server's health, looked at every few seconds; the log says what changes. */
export class WatchedHealth {
  readonly #server: Watching
  readonly #state: WatchedValue<ServerHealth>

  private constructor(server: Watching, first: ServerHealth) {
    this.#server = server
    this.#state = new WatchedValue(first)
  }

  static async open(server: Watching): Promise<WatchedHealth> {
    const first = await healthOf(server)
    tell(server.log, [], first)
    return new WatchedHealth(server, first)
  }

  get state(): Watched<ServerHealth> {
    return this.#state
  }

  /** Looks again for as long as the signal lives. */
  async keepWatching(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#server.clock.sleep(interval, signal).catch(() => {})
      if (signal.aborted) return
      const now = await healthOf(this.#server)
      tell(this.#server.log, this.#state.current.complaints, now)
      this.#state.set(now)
    }
  }
}

async function storeComplaints({ entries }: Needs): Promise<string[]> {
  try {
    await entries.find('health')
    return []
  } catch (error) {
    return [`the store does not answer: ${Failure.from(error).message}`]
  }
}

async function cloneComplaints({ nodes }: Needs): Promise<string[]> {
  const filter = { frozen: true }
  const count = await nodes.count(filter).catch(() => 0)
  if (count === 0) return []
  const { items } = await nodes.list(filter, { limit: namedClones })
  const more = count > items.length ? ` and ${count - items.length} more` : ''
  return [`frozen because two parties hold the identity: ${items.map(({ id }) => id).join(', ')}${more}`]
}

const namedClones = 3
/** Logs what changes: whoever is told that the server is not well finds out why. */
function tell(log: Log, before: readonly string[], now: ServerHealth): void {
  if (now.complaints.join('\n') === before.join('\n')) return
  if (now.complaints.length === 0) log.info('the server is well again')
  else log.warn(now.serving ? 'the server complains' : 'the server is not well', { complaints: now.complaints })
}

const interval = seconds(5)
