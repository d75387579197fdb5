import { seconds } from '../kernel/duration.ts'
import { tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import { WatchedValue, type Watched } from '../kernel/watched.ts'
import { complaintSources, serverMetrics } from './metrics.ts'
import type { OwnIdentity } from './own-identity.ts'
import type { Server } from './server.ts'

/** Whether the server does what it is there for, and if not, why. */
export interface ServerHealth {
  readonly serving: boolean
  /** In words, for operators; not all of them keep the server from serving. */
  readonly complaints: readonly string[]
}

type Needs = Pick<Server, 'ca' | 'audit' | 'tryWrite' | 'nodes' | 'clock' | 'policies'> & { readonly identity: Pick<OwnIdentity, 'isGood'> }

type Watching = Needs & Pick<Server, 'log' | 'meter'>

/** Healthy means: the CA can sign, the store takes what it is given, and those who connect can verify us. */
export async function healthOf(server: Needs): Promise<ServerHealth> {
  return judged(await examined(server))
}

/** What there is to complain about, by who says so. */
type Findings = Readonly<Record<(typeof complaintSources)[number], readonly string[]>>

async function examined(server: Needs): Promise<Findings> {
  await server.audit.retry()
  return {
    ca: server.ca.complaints(),
    policies: server.policies.complaints(server.clock.now()),
    store: await storeComplaints(server),
    identity: server.identity.isGood ? [] : ['the server certificate is not valid'],
    clones: await cloneComplaints(server),
  }
}

/** Somebody who copied one agent must not bring down the server for all others. */
function judged({ clones, ...grave }: Findings): ServerHealth {
  const complaints = Object.values(grave).flat()
  return { serving: complaints.length === 0, complaints: [...complaints, ...clones] }
}

/** The server's health, looked at every few seconds; the log says what changes. */
export class WatchedHealth {
  readonly #server: Watching
  readonly #state: WatchedValue<ServerHealth>

  #findings: Findings

  private constructor(server: Watching, first: Findings) {
    this.#server = server
    this.#findings = first
    this.#state = new WatchedValue(judged(first))
    this.#show(server.meter)
  }

  static async open(server: Watching): Promise<WatchedHealth> {
    const first = await examined(server)
    tell(server.log, [], judged(first))
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
      this.#findings = await examined(this.#server)
      const now = judged(this.#findings)
      tell(this.#server.log, this.#state.current.complaints, now)
      this.#state.set(now)
    }
  }

  /** For as long as the process lives. */
  #show(meter: Meter): void {
    meter.gauge(serverMetrics.serving, () => [{ labels: {}, value: Number(this.#state.current.serving) }])
    meter.gauge(serverMetrics.complaints, () =>
      complaintSources.map((source) => ({ labels: { source }, value: this.#findings[source].length })),
    )
  }
}

async function storeComplaints({ tryWrite }: Needs): Promise<string[]> {
  try {
    await tryWrite()
    return []
  } catch (error) {
    return [`the store cannot be written: ${tellChain(error)}`]
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
