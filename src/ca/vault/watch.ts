/** Looks at a vault now and then, and keeps in mind what is wrong there. */
import { backoff } from '../../kernel/backoff.ts'
import type { World } from '../../kernel/driver.ts'
import { hours, minutes, seconds, type Duration } from '../../kernel/duration.ts'
import { Failure, tellChain } from '../../kernel/failure.ts'
import { fraction } from '../../kernel/random.ts'
import { formatRight, missingRights, type Right } from './rights.ts'
import type { VaultSession } from './session.ts'

export class VaultWatch implements AsyncDisposable {
  readonly #world: World
  readonly #stop = new AbortController()
  readonly #running: Promise<void>[] = []
  readonly #complaints = new Map<string, string>()

  constructor(world: World) {
    this.#world = world
  }

  /** Does it at once and then again and again. What it throws is a complaint until it goes well; it is tried again sooner then. */
  every(about: string, period: Duration, deed: (signal: AbortSignal) => Promise<void>): void {
    this.#running.push(this.#repeat(about, period, deed))
  }

  /** V-2: what will be needed at the next rotation is asked for now, not then. */
  demandRights(session: VaultSession, rights: readonly Right[]): void {
    this.every('rights', hours(1), async (signal) => {
      const lacking = await missingRights(session, rights, signal)
      if (lacking.length === 0) return
      const text = `the policy of our token at the vault lacks ${lacking.map(formatRight).join(' ')}`
      throw new Failure('failed_precondition', 'vault.lacks-rights', { public: text })
    })
  }

  /** Sets or, with undefined, takes back a complaint that something else than a repeated deed found. */
  complain(about: string, text: string | undefined): void {
    if (text === undefined) this.#complaints.delete(about)
    else this.#complaints.set(about, text)
  }

  complaints(): readonly string[] {
    return [...this.#complaints.values()]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await Promise.all(this.#running)
  }

  async #repeat(about: string, period: Duration, deed: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { clock, log, random } = this.#world
    const { signal } = this.#stop
    let pauses = backoff(random, retries)
    while (!signal.aborted) {
      let pause = period * (0.9 + fraction(random) / 10)
      try {
        await deed(signal)
        this.complain(about, undefined)
        pauses = backoff(random, retries)
      } catch (error) {
        if (signal.aborted) return
        const text = tellChain(error)
        if (this.#complaints.get(about) !== text)
          log.error('the vault is not as it should be', { reason: Failure.from(error).reason, error: text })
        this.complain(about, text)
        pause = Math.min(pause, pauses.next().value ?? retries.longest)
      }
      await clock.sleep(pause, signal).catch(() => {})
    }
  }
}

/** V-9. */
const retries = { first: seconds(5), longest: minutes(1) }
