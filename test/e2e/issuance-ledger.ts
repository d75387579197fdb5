import { open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { TrailCheck } from '../../src/audit/verify.ts'
import type { Intent } from '../../src/ca/intents.ts'
import type { Receipt } from './issuing-agent.ts'

/** What a server on this data directory says that it signed, from its three books: the files of intents, the store, and the audit trail. */
export class IssuanceLedger {
  /** In words. */
  readonly problems: string[] = []
  readonly #directory: string
  readonly #trail = new TrailCheck()
  readonly #inTrail = new Set<string>()
  readonly #received = new Set<string>()
  /** Hashes by name, of every intent that was ever seen in a file. */
  readonly #intended = new Map<string, string>()
  /** First and last signature of each authority. */
  readonly #signers = new Map<string, { readonly what: string; readonly first: number; last: number }>()
  #offset = 0

  constructor(directory: string) {
    this.#directory = directory
  }

  get certificates(): number {
    return this.#received.size
  }

  /** Everything received is in the trail, and is in a file or in the store with the hash of the very bytes. */
  async check(received: readonly Receipt[]): Promise<void> {
    // In this order: what is copied meanwhile is in the store.
    const intents = await this.#intents()
    await this.#readTrail()
    using store = this.#store()
    for (const { name, hash } of received) {
      if (this.#received.has(name)) this.problems.push(`${name} was given out twice`)
      this.#received.add(name)
      if (!this.#inTrail.has(name)) this.problems.push(`${name} is not in the audit trail`)
      const recorded = intents.get(name) ?? store.find(name)?.hash
      if (recorded !== hash) this.problems.push(`${name} was recorded ${recorded === undefined ? 'nowhere' : 'for other bytes'}`)
      if (store.find(name)?.outcome === 'withheld') this.problems.push(`${name} was given out and is recorded as withheld`)
    }
  }

  /** Nothing that was ever written down is gone, and no two authorities of a kind signed at a time. */
  async checkAll(): Promise<void> {
    const intents = await this.#intents()
    await this.#readTrail()
    using store = this.#store()
    for (const name of new Set([...this.#received, ...this.#intended.keys()]))
      if (!intents.has(name) && !store.find(name)) this.problems.push(`the record of ${name} is gone`)
    for (const name of this.#inTrail)
      if (!intents.has(name) && !store.find(name)) this.problems.push(`${name} is in the trail and has no record`)
    for (const what of new Set([...this.#signers.values()].map((signer) => signer.what))) {
      const signers = [...this.#signers].filter(([, signer]) => signer.what === what).sort(([, a], [, b]) => a.first - b.first)
      for (const [index, [authority, { first }]] of signers.entries()) {
        const before = signers[index - 1]
        if (before && before[1].last > first + underWay)
          this.problems.push(`${authority} and ${before[0]} signed at the same time (${what})`)
      }
    }
  }

  async #intents(): Promise<ReadonlyMap<string, string>> {
    const there = new Map<string, string>()
    const directory = join(this.#directory, 'intents')
    for (const name of await readdir(directory)) {
      const lines = (await readFile(join(directory, name), 'utf8').catch(() => '')).split('\n')
      lines.pop()
      for (const line of lines) {
        const { intent } = JSON.parse(line) as { readonly intent?: Intent }
        if (!intent) continue
        if (there.has(intent.name)) this.problems.push(`${intent.name} was intended twice`)
        const before = this.#intended.get(intent.name) ?? intent.hash
        if (before !== intent.hash) this.problems.push(`${intent.name} was intended for two certificates`)
        there.set(intent.name, intent.hash)
        this.#intended.set(intent.name, intent.hash)
      }
    }
    return there
  }

  async #readTrail(): Promise<void> {
    await using file = await open(join(this.#directory, 'audit.log'))
    const { size } = await file.stat()
    const bytes = Buffer.alloc(Math.max(0, size - this.#offset))
    await file.read(bytes, 0, bytes.length, this.#offset)
    const whole = bytes.subarray(0, bytes.lastIndexOf('\n') + 1)
    this.#offset += whole.length
    for (const line of whole.toString('utf8').split('\n').slice(0, -1)) {
      const problem = this.#trail.follow(line)
      if (problem !== undefined) this.problems.push(`the audit trail: ${problem}`)
      this.#note((JSON.parse(line) as { readonly event: TrailEvent }).event)
    }
  }

  #note({ at, what, fields }: TrailEvent): void {
    if (!what.endsWith('-svid.issued')) return
    const name = fields.serial ?? fields.jti ?? ''
    if (this.#inTrail.has(name)) this.problems.push(`${name} is in the audit trail twice`)
    this.#inTrail.add(name)
    const authority = fields.authority ?? fields.keyId ?? ''
    const moment = Date.parse(at)
    const signer = this.#signers.get(authority)
    if (signer) signer.last = moment
    else this.#signers.set(authority, { what, first: moment, last: moment })
  }

  #store() {
    const database = new DatabaseSync(join(this.#directory, 'vidimus.sqlite'), { readOnly: true })
    const statement = database.prepare('select hash, outcome from issuances where name = ?')
    return {
      find: (name: string) => statement.get(name) as { readonly hash: string; readonly outcome: string } | undefined,
      [Symbol.dispose]: () => database.close(),
    }
  }
}

interface TrailEvent {
  readonly at: string
  readonly what: string
  readonly fields: { readonly serial?: string; readonly jti?: string; readonly authority?: string; readonly keyId?: string }
}

/** How long a signature that an authority had begun may take, after another has taken over. */
const underWay = 2000
