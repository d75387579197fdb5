/** One key, one identity: rule C-12, for those who want it. */
import { hash } from 'node:crypto'
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { SpiffeId } from '../spiffe/id.ts'

/** Remembers whose key was certified, for as long as the certificate is valid and among the latest 65,536 of this run. */
export class KeyUse {
  readonly #users = new Map<string, { readonly id: SpiffeId; readonly until: Instant }>()

  /** @throws Failure `ca.key-reused` where the key is another identity's */
  demand(spki: Uint8Array, id: SpiffeId, until: Instant, now: Instant): void {
    const key = hash('sha256', spki)
    const user = this.#users.get(key)
    if (user && user.id !== id && user.until >= now) {
      throw new Failure('permission_denied', 'ca.key-reused', {
        public: 'the key of the request is certified for another identity: make a key for each',
        internal: { id: user.id },
      })
    }
    this.#users.delete(key)
    if (this.#users.size >= remembered) this.#users.delete(this.#users.keys().next().value!)
    this.#users.set(key, { id, until: Math.max(until, user?.until ?? 0) })
  }
}

const remembered = 65_536
