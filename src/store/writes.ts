import { sql, type Kysely, type Transaction } from 'kysely'
import { Failure } from '../kernel/failure.ts'
import type { Tables } from './schema.ts'

/**
 * Writes that wait for the disk together: what was asked for while one group is being committed makes up the next.
 * Each write of a group succeeds or fails by itself, and none is acknowledged before the group is on the disk.
 */
export class Writes {
  readonly #db: Kysely<Tables>
  #waiting: Write[] = []
  #running: Promise<void> | undefined

  constructor(db: Kysely<Tables>) {
    this.#db = db
  }

  /**
   * Runs `work` in a transaction of its own or of a group; what it throws undoes what it did, and nothing else.
   * `work` reads and writes through `tx` only, and waits for nothing else.
   * @throws Failure `store.too-slow` when too much waits already
   */
  run<T>(work: (tx: Transaction<Tables>) => Promise<T>): Promise<T> {
    if (this.#waiting.length >= maxWaiting) {
      return Promise.reject(new Failure('resource_exhausted', 'store.too-slow', { public: 'too many writes are waiting for the store' }))
    }
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    this.#waiting.push({
      async run(tx) {
        const value = await work(tx)
        return () => resolve(value)
      },
      reject,
    })
    this.#running ??= this.#runAll()
    return promise
  }

  /** Resolves when nothing waits any more. */
  async settled(): Promise<void> {
    await this.#running
  }

  async #runAll(): Promise<void> {
    // Lets the writes of one turn of the event loop gather.
    await Promise.resolve()
    while (this.#waiting.length > 0) await this.#runGroup(this.#waiting.splice(0, maxGroup))
    this.#running = undefined
  }

  async #runGroup(group: readonly Write[]): Promise<void> {
    let acknowledge: (() => void)[] = []
    try {
      await this.#db.transaction().execute(async (tx) => {
        acknowledge = []
        for (const write of group) {
          const done = await attempt(tx, write)
          if (done) acknowledge.push(done)
        }
      })
    } catch (error) {
      for (const write of group) write.reject(error)
      return
    }
    for (const done of acknowledge) done()
  }
}

interface Write {
  /** Returns how to tell that it succeeded, once that is on the disk. */
  run(tx: Transaction<Tables>): Promise<() => void>
  reject(error: unknown): void
}

async function attempt(tx: Transaction<Tables>, write: Write): Promise<(() => void) | undefined> {
  await sql`savepoint one_write`.execute(tx)
  try {
    const done = await write.run(tx)
    await sql`release one_write`.execute(tx)
    return done
  } catch (error) {
    try {
      await sql`rollback to one_write`.execute(tx)
      await sql`release one_write`.execute(tx)
    } catch {
      // Where the disk is full the database undoes the whole group by itself: why is what everybody is told.
      throw error
    }
    write.reject(error)
    return undefined
  }
}

const maxGroup = 500
const maxWaiting = 50_000
