/** The policies in force, from the server's stream; kept on disk, so that a restart without the server still enforces them. */
import { createHash, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { z } from 'zod'
import { backoff } from '../kernel/backoff.ts'
import { fromUtf8, utf8 } from '../kernel/bytes.ts'
import { formatInstant, type Clock, type Instant } from '../kernel/clock.ts'
import { minutes, seconds } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import type { Files } from '../kernel/files.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import type { Random } from '../kernel/random.ts'
import { type Watched, WatchedValue } from '../kernel/watched.ts'
import { parseLanguageOptions } from '../policy/options.ts'
import { authenticPolicySet, type SetClaims, verifyPolicySet } from '../policy/signed-set.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { formatSelector } from '../spiffe/selector.ts'
import { Bell } from './bell.ts'
import type { WorkloadPolicies } from './identities.ts'
import { agentMetrics } from './metrics.ts'
import { isRejection } from './rejection.ts'
import type { SelectorGroup } from './selector-group.ts'
import type { PolicyDocuments, UpstreamServer } from './upstream-server.ts'

export interface PolicyFeedParts {
  readonly upstream: Pick<UpstreamServer, 'policies'>
  readonly directory: string
  /** Who may sign policies; with none, nobody need sign them. */
  readonly trusted: readonly KeyObject[]
  readonly files: Files
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly meter: Meter
}

/** The policies of the whole trust domain as this agent knows them. */
export class PolicyFeed {
  readonly #parts: PolicyFeedParts
  readonly #documents: WatchedValue<PolicyDocuments>
  readonly #serverIsThere = new Bell()
  #claims: SetClaims | undefined
  #refusal: string | undefined
  /** Why a restart would not find the policies in force. */
  #unkept: string | undefined

  private constructor(parts: PolicyFeedParts, documents: PolicyDocuments, claims: SetClaims | undefined) {
    this.#parts = parts
    this.#documents = new WatchedValue(documents)
    this.#claims = claims
  }

  /** Begins with what was kept on disk, or with no policy at all, which allows nothing. What nobody signed who should have is none. */
  static async open(parts: PolicyFeedParts): Promise<PolicyFeed> {
    const kept = await load(parts)
    if (!kept) return new PolicyFeed(parts, none, undefined)
    if (parts.trusted.length === 0) return new PolicyFeed(parts, kept, undefined)
    try {
      return new PolicyFeed(parts, kept, await authenticPolicySet({ options: {}, ...kept }, parts.trusted))
    } catch (error) {
      const failure = Failure.from(error)
      parts.log.error('the policies that were kept on disk are not enforced: nothing is allowed until the server sends others', {
        reason: failure.reason,
        error: tellChain(failure),
      })
      return new PolicyFeed(parts, none, undefined)
    }
  }

  get documents(): Watched<PolicyDocuments> {
    return this.#documents
  }

  /** Somebody heard of the server: a stream that waits to be taken up again need not wait any longer. */
  serverIsThere(): void {
    this.#serverIsThere.ring()
  }

  /** Follows the server's stream, and takes it up again when it breaks. @throws Failure the server's rejection of this agent */
  async run(signal: AbortSignal): Promise<void> {
    const { upstream, clock, log } = this.#parts
    let delays = this.#delays()
    let tries = 0
    // A server of SPIRE's knows no policies; it may be replaced by one that does.
    let isUnknownThere = false
    for (;;) {
      try {
        for await (const documents of upstream.policies(signal)) {
          await this.#take(documents)
          delays = this.#delays()
          tries = 0
        }
      } catch (error) {
        signal.throwIfAborted()
        const failure = Failure.from(error)
        if (isRejection(failure)) throw failure
        isUnknownThere = failure.category === 'unimplemented'
        const fields = { reason: failure.reason, error: tellChain(failure) }
        // Connections end whenever the agent's SVID is renewed; only what lasts is news.
        if (tries++ === 0) log.debug('the stream of policies broke', fields)
        else log.warn('the stream of policies cannot be taken up again; what is known stays in force', fields)
      }
      if (isUnknownThere) await clock.sleep(minutes(10), signal)
      else await this.#serverIsThere.waitUntil(clock.now() + (delays.next().value ?? 0), clock, signal)
    }
  }

  /** Writes each change to the disk, again and again where that fails. A disk that is slow or fails keeps no policy from being enforced. */
  async keep(signal: AbortSignal): Promise<void> {
    const { files, directory, clock, log } = this.#parts
    let written = this.#documents.current
    for await (const _ of this.#documents.changes(signal)) {
      while (written !== this.#documents.current) {
        const documents = this.#documents.current
        try {
          await files.writeAtomically(pathIn(directory), utf8(JSON.stringify(documents)))
          written = documents
          if (this.#unkept !== undefined) log.info('the policies are kept on disk again')
          this.#unkept = undefined
        } catch (error) {
          const problem = tellChain(error)
          if (this.#unkept === undefined) log.error('the policies cannot be kept on disk', { error: problem })
          this.#unkept = problem
          await clock.sleep(tryDiskEvery, signal)
        }
      }
    }
  }

  /** Why the policies are not as they should be, in words; empty when they are. */
  complaints(at: Instant): readonly string[] {
    const expired = this.#claims && at >= this.#claims.expires
    return [
      ...(this.#refusal === undefined ? [] : [`newer policies were refused: ${this.#refusal}`]),
      ...(this.#unkept === undefined ? [] : [`the policies cannot be kept on disk: ${this.#unkept}`]),
      ...(expired ? [`the signature of the policies expired ${formatInstant(this.#claims!.expires)}`] : []),
    ]
  }

  async #take(documents: PolicyDocuments): Promise<void> {
    if (JSON.stringify(documents) === JSON.stringify(this.#documents.current)) return
    try {
      this.#claims = await this.#checked(documents)
      this.#refusal = undefined
    } catch (error) {
      const failure = Failure.from(error)
      this.#refusal = failure.message
      this.#parts.meter.counter(agentMetrics.policies, { outcome: 'refused' }).add()
      this.#parts.meter.counter(agentMetrics.policyRefusals, { reason: failure.reason }).add()
      this.#parts.log.error('policies were refused; what is known stays in force', {
        version: documents.version,
        reason: failure.reason,
        error: tellChain(failure),
      })
      return
    }
    this.#documents.set(documents)
    this.#parts.meter.counter(agentMetrics.policies, { outcome: 'applied' }).add()
    this.#parts.log.info('policies are in force', { version: documents.version, documents: documents.documents.length })
  }

  /** Nothing is believed because the server says it, where somebody else must have signed it. */
  async #checked(documents: PolicyDocuments): Promise<SetClaims | undefined> {
    const { trusted, clock } = this.#parts
    if (trusted.length === 0) return undefined
    return verifyPolicySet({ options: {}, ...documents }, { keys: trusted, after: this.#claims?.serial ?? 0, at: clock.now() })
  }

  #delays() {
    return backoff(this.#parts.random, { first: seconds(1), longest: seconds(60) })
  }
}

/** The policies that one workload is judged by, with the facts that they select on: its attested selectors and the IDs of its entries. */
export function policiesOf(group: SelectorGroup, documents: Watched<PolicyDocuments>): Watched<WorkloadPolicies> {
  let last: { readonly from: PolicyDocuments; readonly entries: readonly RegistrationEntry[]; readonly value: WorkloadPolicies } | undefined
  // Asked for each request that a proxy has decided here, so nothing is computed twice.
  const now = (): WorkloadPolicies => {
    const [from, { entries }] = [documents.current, group]
    if (last?.from === from && last.entries === entries) return last.value
    const spiffeIds = [...new Set(entries.map((one) => one.spiffeId))]
    const version = versionOf(from, spiffeIds, group)
    const value =
      last?.from === from && last.value.version === version
        ? last.value
        : {
            version,
            documents: from.documents,
            ...(from.options && { options: from.options }),
            ...(from.candidate && { candidate: from.candidate }),
            spiffeIds,
            selectors: group.selectors,
          }
    last = { from, entries, value }
    return value
  }
  return {
    get current() {
      return now()
    },
    async *changes(signal) {
      let told: WorkloadPolicies | undefined
      for await (const _ of eitherChanges(group, documents, signal)) {
        const value = now()
        if (value !== told) yield value
        told = value
      }
    },
  }
}

/** The same for the same documents and the same facts, so that nobody is sent what he has. */
function versionOf({ version, candidate }: PolicyDocuments, spiffeIds: readonly SpiffeId[], group: SelectorGroup): string {
  const facts = createHash('sha256')
    .update(JSON.stringify([spiffeIds, group.selectors.map(formatSelector)]))
    .digest('hex')
  return `${version}+${facts.slice(0, 12)}${candidate ? `~${candidate.version.slice(0, 12)}` : ''}`
}

/** One value now, and one after each change of the group or the documents. */
async function* eitherChanges(group: SelectorGroup, documents: Watched<unknown>, signal: AbortSignal): AsyncGenerator<void, void, void> {
  const changed = new WatchedValue(0)
  const over = new AbortController()
  const both = AbortSignal.any([signal, over.signal])
  const follow = async (changes: AsyncIterable<unknown>) => {
    for await (const _ of changes) changed.set(changed.current + 1)
  }
  const following = Promise.all([follow(group.entryChanges(both)), follow(documents.changes(both))]).catch((error: unknown) =>
    changed.close(error),
  )
  try {
    for await (const _ of changed.changes(both)) yield
  } finally {
    over.abort()
    await following
  }
}

async function load({ directory, files, log }: PolicyFeedParts): Promise<PolicyDocuments | undefined> {
  const content = await files.read(pathIn(directory))
  if (!content) return undefined
  const kept = format.safeParse(parsed(content))
  if (kept.success) return kept.data
  log.error('the policies that were kept on disk cannot be read; nothing is allowed until the server sends them', {
    path: pathIn(directory),
  })
  return undefined
}

function parsed(content: Uint8Array): unknown {
  try {
    return JSON.parse(fromUtf8(content))
  } catch {
    return undefined
  }
}

const pathIn = (directory: string): string => join(directory, 'policies.json')
const none: PolicyDocuments = { version: '', documents: [] }
const documentsSchema = {
  version: z.string(),
  documents: z.array(z.strictObject({ name: z.string(), text: z.string() })),
  options: z
    .strictObject({
      mode: z.string().optional(),
      rootNamespace: z.string().optional(),
      pathNormalization: z.string().optional(),
      trustDomainAliases: z.array(z.string()).optional(),
    })
    .transform(parseLanguageOptions)
    .exactOptional(),
}
const tryDiskEvery = seconds(5)
const format = z.strictObject({
  ...documentsSchema,
  signature: z.string().exactOptional(),
  candidate: z.strictObject(documentsSchema).exactOptional(),
})
