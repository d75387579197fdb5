import type { Instant } from '../kernel/clock.ts'
import { WatchedValue, type Watched } from '../kernel/watched.ts'
import type { Decision } from '../policy/decision.ts'
import { parsePolicySet } from '../policy/language.ts'
import type { PolicyDocument } from '../policy/policy-set.ts'
import type { ServerApiRequest } from '../policy/request.ts'
import { decideServerApi, serverApiPolicy } from '../policy/server-api.ts'
import type { PolicyStore } from '../registry/policy-documents.ts'

/** The policy documents that every agent gets. */
export interface PoliciesInForce {
  /** Fingerprint: equal documents have equal versions. */
  readonly version: string
  /** Absent before the first were applied. */
  readonly appliedAt?: Instant
  readonly documents: readonly PolicyDocument[]
}

/** The policies in force: for distribution, and, those about our own API, compiled to decide by. */
export class Policies {
  readonly #store: PolicyStore
  readonly #ownApi: readonly PolicyDocument[]
  readonly #inForce: WatchedValue<PoliciesInForce>
  #compiled: ReturnType<typeof serverApiPolicy>

  private constructor(store: PolicyStore, ownApi: readonly PolicyDocument[], inForce: PoliciesInForce) {
    this.#store = store
    this.#ownApi = ownApi
    this.#inForce = new WatchedValue(inForce)
    this.#compiled = compile(ownApi, inForce.documents)
  }

  /**
   * Loads what was applied last.
   * @param ownApi the policies about our own API that the program comes with; applied ones of that kind join them
   * @throws Failure `policy.invalid`, also for stored documents: a server that cannot read who may call it does not start
   */
  static async open(store: PolicyStore, ownApi: readonly PolicyDocument[]): Promise<Policies> {
    const stored = await store.current()
    return new Policies(store, ownApi, stored ?? { version: parsePolicySet([]).fingerprint, documents: [] })
  }

  get inForce(): Watched<PoliciesInForce> {
    return this.#inForce
  }

  /** Whether a call of our own API is allowed. */
  decide(request: ServerApiRequest, at: Instant): Decision {
    return decideServerApi(this.#compiled, request, at)
  }

  /** Checks the whole set, stores it, and puts it in force; or changes nothing. @throws Failure `policy.invalid` */
  async apply(documents: readonly PolicyDocument[], at: Instant): Promise<PoliciesInForce> {
    const { fingerprint: version } = parsePolicySet(documents)
    const compiled = compile(this.#ownApi, documents)
    await this.#store.apply(documents, version, at)
    const inForce = { version, appliedAt: at, documents }
    this.#compiled = compiled
    this.#inForce.set(inForce)
    return inForce
  }
}

function compile(ownApi: readonly PolicyDocument[], applied: readonly PolicyDocument[]): ReturnType<typeof serverApiPolicy> {
  return serverApiPolicy(parsePolicySet([...ownApi, ...applied]))
}
