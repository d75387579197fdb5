/** How a set of policies that is tried would decide, as agents count it. */
import type { ShadowCount, ShadowObservations } from '../policy/shadow.ts'

/** What agents counted, in memory: after a restart of the server each tells its own again. */
export class Shadow {
  /** By agent: what its last run counted so far, and what its runs before had. */
  readonly #agents = new Map<string, Seen>()

  take(agent: string, seen: ShadowObservations): void {
    const limited = { ...seen, counts: seen.counts.slice(0, maxRows) }
    const known = this.#agents.get(agent)
    if (!known && this.#agents.size >= maxAgents) return
    const before = known?.last.candidateVersion === seen.candidateVersion ? beforeThisRun(known, seen) : emptyTally()
    this.#agents.set(agent, { last: limited, before })
  }

  forget(): void {
    this.#agents.clear()
  }

  /** Of all agents, about this version. */
  sum(version: string): { readonly counts: readonly ShadowCount[]; readonly unlisted: number; readonly agents: number } {
    let all = emptyTally()
    const seen = [...this.#agents.values()].filter(({ last }) => last.candidateVersion === version)
    for (const { last, before } of seen) {
      all = added(all, { counts: [...before.rows.values()], unlisted: before.unlisted })
      all = added(all, last)
    }
    return { counts: [...all.rows.values()].toSorted((a, b) => b.count - a.count), unlisted: all.unlisted, agents: seen.length }
  }
}

interface Seen {
  readonly last: ShadowObservations
  readonly before: Tally
}

function beforeThisRun({ last, before }: Seen, { run }: ShadowObservations): Tally {
  return last.run === run ? before : added(before, last)
}

interface Tally {
  readonly rows: Map<string, ShadowCount>
  readonly unlisted: number
}

const emptyTally = (): Tally => ({ rows: new Map(), unlisted: 0 })

function added({ rows, unlisted }: Tally, more: Pick<ShadowObservations, 'counts' | 'unlisted'>): Tally {
  let over = unlisted + more.unlisted
  for (const row of more.counts) {
    const key = JSON.stringify([row.workload, row.allowed, row.candidateAllows, row.rule])
    const known = rows.get(key)
    if (known) rows.set(key, { ...known, count: known.count + row.count })
    else if (rows.size < maxRows) rows.set(key, row)
    else over += row.count
  }
  return { rows, unlisted: over }
}

/** Of one agent, and of all together. */
const maxRows = 10_000
const maxAgents = 100_000
