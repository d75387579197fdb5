import type { KeyObject } from 'node:crypto'
import { formatInstant, type Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { WatchedValue, type Watched } from '../kernel/watched.ts'
import type { Decision } from '../policy/decision.ts'
import { type LanguageOptions, parsePolicySet, ReadBefore } from '../policy/language.ts'
import type { PolicyDocument } from '../policy/policy-set.ts'
import type { OnboardingRequest, ServerApiCaller, ServerApiRequest } from '../policy/request.ts'
import type { CompiledPolicies } from '../policy/compile.ts'
import { decideOnboarding, onboardingPolicy } from '../policy/onboarding.ts'
import { decideServerApi, serverApiPolicy } from '../policy/server-api.ts'
import { authenticPolicySet, type SetClaims, verifyPolicySet } from '../policy/signed-set.ts'
import type { CandidatePolicies, PolicyStore } from '../registry/policy-documents.ts'

/** The policy documents that every agent gets. */
export interface PoliciesInForce {
  /** Fingerprint: equal documents with equal options have equal versions. */
  readonly version: string
  readonly documents: readonly PolicyDocument[]
  readonly options: LanguageOptions
  readonly signature?: string
  /** Counts what was put in force; 0 before the first. */
  readonly serial: number
  /** Absent before the first were applied. */
  readonly appliedAt?: Instant
  readonly appliedBy?: string
  /** A set that is tried beside it. */
  readonly candidate?: CandidatePolicies
}

/** A set that was checked, and may be put in force in place of the one that it was checked against. */
export interface CheckedRelease {
  readonly version: string
  readonly documents: readonly PolicyDocument[]
  readonly options: LanguageOptions
  readonly signature?: string
  readonly compiled: OwnPolicies
  readonly claims?: SetClaims
  readonly after: PoliciesInForce
}

/** What the server itself decides by. */
interface OwnPolicies {
  readonly api: CompiledPolicies
  readonly onboarding: CompiledPolicies
}

/** The policies in force: for distribution, and, those about our own API, compiled to decide by. */
export class Policies {
  readonly #store: PolicyStore
  readonly #ownApi: readonly PolicyDocument[]
  readonly #trusted: readonly KeyObject[]
  readonly #inForce: WatchedValue<PoliciesInForce>
  readonly #readBefore = new ReadBefore()
  #compiled: OwnPolicies
  #claims: SetClaims | undefined

  private constructor(
    store: PolicyStore,
    { ownApi, trusted }: { ownApi: readonly PolicyDocument[]; trusted: readonly KeyObject[] },
    inForce: PoliciesInForce,
    claims: SetClaims | undefined,
  ) {
    this.#store = store
    this.#ownApi = ownApi
    this.#trusted = trusted
    this.#inForce = new WatchedValue(inForce)
    this.#compiled = this.#compile(inForce.documents, inForce.options)
    this.#claims = claims
  }

  /**
   * Loads what was applied last.
   * @param ownApi the policies about our own API that the program comes with; applied ones of that kind join them
   * @param trusted who may sign policies; with none, nobody need sign them
   * @throws Failure `policy.invalid`, also for stored documents: a server that cannot read who may call it does not start
   */
  static async open(store: PolicyStore, ownApi: readonly PolicyDocument[], trusted: readonly KeyObject[] = []): Promise<Policies> {
    const [stored, candidate] = await Promise.all([store.current(), store.candidate()])
    const applied: PoliciesInForce = stored ?? { version: parsePolicySet([]).fingerprint, documents: [], options: {}, serial: 0 }
    const inForce = candidate ? { ...applied, candidate } : applied
    // What was put in force before signatures were asked for stays there; complaints() says so.
    const claims = stored && trusted.length > 0 ? await authenticPolicySet(stored, trusted).catch(() => undefined) : undefined
    return new Policies(store, { ownApi, trusted }, inForce, claims)
  }

  get inForce(): Watched<PoliciesInForce> {
    return this.#inForce
  }

  /** Whether a call of our own API is allowed. */
  decide(request: ServerApiRequest, at: Instant): Decision {
    return decideServerApi(this.#compiled.api, request, at)
  }

  /** Whether a node is admitted by what it proved. */
  decideOnboarding(request: OnboardingRequest, at: Instant): Decision {
    return decideOnboarding(this.#compiled.onboarding, request, at)
  }

  /**
   * Checks a whole set: what it says and, where signatures are asked for, who says it.
   * @throws Failure `policy.invalid`, and those of {@link verifyPolicySet}
   */
  async check(
    { documents, options, signature }: Pick<PoliciesInForce, 'documents' | 'options'> & { readonly signature?: string | undefined },
    at: Instant,
  ): Promise<CheckedRelease> {
    const after = this.#inForce.current
    const claims =
      this.#trusted.length === 0
        ? undefined
        : await verifyPolicySet({ documents, options, signature }, { keys: this.#trusted, after: this.#claims?.serial ?? 0, at })
    const { fingerprint: version } = parsePolicySet(documents, options, this.#readBefore)
    const compiled = this.#compile(documents, options)
    return {
      version,
      documents,
      options,
      ...(signature === undefined ? {} : { signature }),
      compiled,
      ...(claims ? { claims } : {}),
      after,
    }
  }

  /** True if one of these callers could still put other policies in force. */
  canBeAdministered({ compiled }: CheckedRelease, callers: readonly ServerApiCaller[], at: Instant): boolean {
    const asks = (caller: ServerApiCaller) =>
      decideServerApi(compiled.api, { caller: [caller, 'anyone'], method: applyMethod, attributes: {} }, at)
    return callers.some((caller) => asks(caller).allowed)
  }

  /** Stores a checked set and puts it in force; or changes nothing. @throws Failure `policy.changed-meanwhile` */
  async putInForce(release: CheckedRelease, { at, by }: { readonly at: Instant; readonly by: string }): Promise<PoliciesInForce> {
    const { compiled, claims, after, version, documents, options, signature } = release
    const applied = await this.#store.apply(
      { version, documents, options, ...(signature === undefined ? {} : { signature }), appliedAt: at, appliedBy: by },
      after.serial,
    )
    const { candidate } = this.#inForce.current
    this.#compiled = compiled
    this.#claims = claims
    // A candidate that is in force now need not be tried any more.
    const tried = candidate && candidate.version !== version
    this.#inForce.set(tried ? { ...applied, candidate } : applied)
    if (candidate && !tried) await this.#store.setCandidate(undefined)
    return applied
  }

  /** Tries a set beside the one in force, in place of one that is tried; undefined ends it. @throws Failure `policy.invalid` */
  async tryOut(candidate: Omit<CandidatePolicies, 'version'> | undefined): Promise<CandidatePolicies | undefined> {
    const checked = candidate && {
      ...candidate,
      version: parsePolicySet(candidate.documents, candidate.options, this.#readBefore).fingerprint,
    }
    await this.#store.setCandidate(checked)
    const { candidate: _, ...inForce } = this.#inForce.current
    this.#inForce.set(checked ? { ...inForce, candidate: checked } : inForce)
    return checked
  }

  /** The newest first; at most `limit` (1 to 100). */
  history(limit: number): Promise<readonly PoliciesInForce[]> {
    return this.#store.history(limit)
  }

  /**
   * What was in force under this serial, or, with 0, before what is in force now.
   * @throws Failure `policy.no-such-set`, `policy.nothing-before`
   */
  async before(serial: number): Promise<PoliciesInForce> {
    const found = serial === 0 ? (await this.#store.history(2))[1] : await this.#store.find(serial)
    if (found) return found
    if (serial === 0)
      throw new Failure('failed_precondition', 'policy.nothing-before', { public: 'no policies were in force before these' })
    throw new Failure('not_found', 'policy.no-such-set', {
      public: `no policies are kept under serial ${serial}: \`vidimus policy history\` lists those that are`,
    })
  }

  /** Why the policies are not well, in words; empty when they are. */
  complaints(at: Instant): readonly string[] {
    if (this.#trusted.length === 0 || this.#inForce.current.serial === 0) return []
    if (!this.#claims) return ['the policies in force are not signed by a key that is trusted for it']
    return at < this.#claims.expires ? [] : [`the signature of the policies in force expired ${formatInstant(this.#claims.expires)}`]
  }

  #compile(applied: readonly PolicyDocument[], options: LanguageOptions): OwnPolicies {
    const set = parsePolicySet([...this.#ownApi, ...applied], options, this.#readBefore)
    return { api: serverApiPolicy(set), onboarding: onboardingPolicy(set) }
  }
}

const applyMethod = '/vidimus.api.policy.v1.PolicyAdministration/ApplyPolicies'
