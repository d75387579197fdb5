import { type Category, Failure } from '../../src/kernel/failure.ts'
import { type AdminClient, connectAdmin } from '../../src/server-api/client.ts'
import { idOf, type ServerProgram } from '../support/programs.ts'

/** Creates and removes entries one after the other, and remembers what the server said was done. */
export class EntryWriter {
  readonly created = new Set<string>()
  readonly #removed = new Set<string>()
  /** Asked for, and cut off before there was an answer: may be done or not. */
  readonly #open = new Set<string>()
  readonly #server: ServerProgram
  #count = 0

  constructor(server: ServerProgram) {
    this.#server = server
  }

  get acknowledged(): number {
    return this.created.size + this.#removed.size
  }

  /** Writes until the server is gone. @throws whatever the server refuses instead */
  async writeUntilCutOff(): Promise<void> {
    await using admin = connectAdmin(this.#server.adminSocket)
    const signal = AbortSignal.timeout(20_000)
    try {
      for (;;) {
        await this.#create(admin, `entry-${++this.#count}`, signal)
        if (this.#count % 5 === 0) await this.#remove(admin, `entry-${this.#count - 2}`, signal)
      }
    } catch (error) {
      if (!cutOff.has(Failure.from(error).category)) throw error
    }
  }

  /** What the server does not hold to, in words. */
  async broken(): Promise<readonly string[]> {
    const there = new Set((await this.#server.asOperator(({ entries }, signal) => entries.list({}, signal))).map(({ id }) => id))
    const mayBeGone = (id: string): boolean => this.#removed.has(id) || this.#open.has(`remove ${id}`)
    return [
      ...[...this.created].filter((id) => !there.has(id) && !mayBeGone(id)).map((id) => `${id} was acknowledged and is gone`),
      ...[...this.#removed].filter((id) => there.has(id)).map((id) => `${id} was removed and is there`),
      ...[...there].filter((id) => !this.created.has(id) && !this.#open.has(id)).map((id) => `nobody asked for ${id}`),
    ]
  }

  async #create({ entries }: AdminClient, id: string, signal: AbortSignal): Promise<void> {
    this.#open.add(id)
    const [outcome] = await entries.create([{ ...draft, id, spiffeId: idOf(`/${id}`) }], signal)
    if (outcome instanceof Error) throw outcome
    this.#open.delete(id)
    this.created.add(id)
  }

  async #remove({ entries }: AdminClient, id: string, signal: AbortSignal): Promise<void> {
    if (!this.created.has(id)) return
    this.#open.add(`remove ${id}`)
    const [failure] = await entries.remove([id], signal)
    if (failure) throw failure
    this.#removed.add(id)
  }
}

const cutOff: ReadonlySet<Category> = new Set(['unavailable', 'cancelled', 'internal'])

const draft = {
  parentId: idOf('/parent'),
  selectors: [{ type: 'unix', value: 'uid:1' }],
  x509SvidTtl: 0,
  jwtSvidTtl: 0,
  federatesWith: [],
  admin: false,
  downstream: false,
  storeSvid: false,
  dnsNames: [],
  hint: '',
  disableX509SvidPrefetch: false,
  jwtSvidIncludeJti: false,
}
