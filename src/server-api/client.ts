/** The server API from outside: for agents over TLS, for operators over the private socket. Protobuf ends here. */
import { timestampMs } from '@bufbuild/protobuf/wkt'
import type {
  AgentCredentials,
  PolicyDocuments,
  SignedJwtSvid,
  SignedWitSvid,
  SignedX509Svid,
  UpstreamServer,
} from '../agent/upstream-server.ts'
import type { NodeProver } from '../attestation/node-attestor.ts'
import type { AuthorityKind, AuthorityState, AuthorityStatus } from '../ca/authorities.ts'
import { deadline, type Clock, type Instant } from '../kernel/clock.ts'
import type { World } from '../kernel/driver.ts'
import { seconds, type Duration } from '../kernel/duration.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import { Secret, type Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import type { LanguageOptions } from '../policy/language.ts'
import { formatLanguageOptions, parseLanguageOptions } from '../policy/options.ts'
import type { EntryDraft, RegistrationEntry } from '../registry/entry.ts'
import { clientOf, connectTls, connectUnix, type CallOptions, type Channel, type Client } from '../rpc/client.ts'
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from '../rpc/gen/grpc/health/v1/health_pb.ts'
import { Agent } from '../rpc/gen/spire/api/server/agent/v1/agent_pb.ts'
import { Bundle } from '../rpc/gen/spire/api/server/bundle/v1/bundle_pb.ts'
import { Entry, type EntryRevision } from '../rpc/gen/spire/api/server/entry/v1/entry_pb.ts'
import { LocalAuthority } from '../rpc/gen/spire/api/server/localauthority/v1/localauthority_pb.ts'
import { SVID } from '../rpc/gen/spire/api/server/svid/v1/svid_pb.ts'
import type { Entry as EntryMessage } from '../rpc/gen/spire/api/types/types_pb.ts'
import { AmendedEntries, type AmendedEntry } from '../rpc/gen/vidimus/api/entry/v1/entry_pb.ts'
import { FrozenNodes } from '../rpc/gen/vidimus/api/node/v1/node_pb.ts'
import {
  PolicyAdministration,
  PolicyDistribution,
  PolicyHistory,
  PolicyObservation,
  PolicyShadow,
  type PolicyOptions,
  type PolicySet,
  type ShadowReport as ShadowReportMessage,
} from '../rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import type { PolicyChanges, PolicyWish } from '../server/manage-policies.ts'
import type { ShadowCount, ShadowObservations } from '../policy/shadow.ts'
import type { TlsIdentity } from '../rpc/tls-material.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { bundleSet } from '../spiffe/bundle-set.ts'
import { spiffeId, type SpiffeId } from '../spiffe/id.ts'
import { verifyX509Svid } from '../spiffe/x509-svid.ts'
import { parseCertificate } from '../x509/certificate.ts'
import { formatPem } from '../x509/pem.ts'
import {
  readAgent,
  readAuthority,
  readAuthorityState,
  readBundle,
  fromAdditions,
  readEntry,
  readFrozenNode,
  readJwtSvid,
  readStatus,
  readWitSvid,
  readX509Svid,
  toAmended,
  toSpiffeId,
  understood,
  type AgentSummary,
  type FrozenAgent,
} from './messages.ts'
import { clientMetrics } from './metrics.ts'

export type { AgentSummary, FrozenAgent, AuthorityKind, AuthorityState, AuthorityStatus }

type ClientWorld = Pick<World, 'clock' | 'log' | 'meter'>

export interface ServerAddress {
  readonly host: string
  readonly port: number
  /** Nothing is said to a server without X25519MLKEM768 (C-32). */
  readonly requirePostQuantum?: boolean
}

/**
 * The server as an agent sees it. The server must prove to be `spiffe://<trust domain>/spire/server` against the bundle of the moment,
 * at every connection; nothing is sent before it did.
 */
export function connectServer(address: ServerAddress, world: ClientWorld): UpstreamServer {
  return new ServerOverTls(address, world)
}

class ServerOverTls implements UpstreamServer {
  readonly #address: ServerAddress
  readonly #clock: Clock
  readonly #log: Log
  readonly #meter: Meter
  #link: Link | undefined
  /** Entries by id as they were last sent, so that only what changed is asked for. */
  #entries: ReadonlyMap<string, RegistrationEntry> = new Map()
  readonly #closing = new Set<Promise<void>>()

  constructor(address: ServerAddress, { clock, log, meter }: ClientWorld) {
    this.#address = address
    this.#clock = clock
    this.#log = log
    this.#meter = meter
  }

  async attest(prover: NodeProver, csr: Uint8Array, bundle: TrustBundle, signal: AbortSignal) {
    await using channel = this.#open(() => bundle, undefined)
    return await translated(() => converse(clientOf(Agent, channel), prover, csr, deadline(attestTimeout, signal)))
  }

  use(credentials: AgentCredentials, bundle: TrustBundle): void {
    if (this.#link?.credentials === credentials) {
      this.#link.bundle = bundle
      return
    }
    this.#disconnect()
    const link: Link = { credentials, bundle, channel: this.#open(() => link.bundle, tlsIdentity(credentials)) }
    this.#link = link
  }

  async renew(csr: Uint8Array, signal: AbortSignal): Promise<SignedX509Svid> {
    const { svid } = await this.#ask(Agent, (agent, options) => agent.renewAgent({ params: { csr } }, options), signal)
    return readX509Svid(svid)
  }

  async bundle(signal: AbortSignal): Promise<TrustBundle> {
    return readBundle(await this.#ask(Bundle, (bundle, options) => bundle.getBundle({}, options), signal))
  }

  async entries(signal: AbortSignal): Promise<readonly RegistrationEntry[]> {
    const entry = clientOf(Entry, this.#channel())
    const entries = await translated(() => sync(entry, this.#entries, this.#log, deadline(syncTimeout, signal)), signal)
    this.#entries = new Map(entries.map((one) => [one.id, one]))
    return entries
  }

  async signX509(
    requests: readonly { readonly entryId: string; readonly csr: Uint8Array }[],
    signal: AbortSignal,
  ): Promise<readonly (SignedX509Svid | Failure)[]> {
    if (requests.length === 0) return []
    const { results } = await this.#ask(
      SVID,
      (svid, options) => svid.batchNewX509SVID({ params: requests.map(({ entryId, csr }) => ({ entryId, csr })) }, options),
      signal,
    )
    demandAll(results.length, requests.length)
    return results.map(({ status, svid }) => readStatus(status) ?? orFailure(() => readX509Svid(svid)))
  }

  async signJwt(entryId: string, audience: readonly string[], signal: AbortSignal): Promise<SignedJwtSvid> {
    const { svid } = await this.#ask(SVID, (client, options) => client.newJWTSVID({ entryId, audience: [...audience] }, options), signal)
    return readJwtSvid(svid)
  }

  async signWit(
    requests: readonly { readonly entryId: string; readonly publicKey: Uint8Array; readonly signingAlgorithm?: string }[],
    signal: AbortSignal,
  ): Promise<readonly (SignedWitSvid | Failure)[]> {
    if (requests.length === 0) return []
    const { results } = await this.#ask(SVID, (svid, options) => svid.batchNewWITSVID({ params: [...requests] }, options), signal)
    demandAll(results.length, requests.length)
    return results.map(({ status, svid }) => readStatus(status) ?? orFailure(() => readWitSvid(svid)))
  }

  async *policies(signal: AbortSignal): AsyncGenerator<PolicyDocuments, void, void> {
    try {
      for await (const set of clientOf(PolicyDistribution, this.#channel()).watchPolicies({}, { signal })) yield readPolicySet(set)
    } catch (error) {
      if (signal.aborted) return
      throw reachable(understood(error))
    }
  }

  async reportShadow({ counts, unlisted, ...seen }: ShadowObservations, signal: AbortSignal): Promise<void> {
    const message = { ...seen, counts: counts.map((row) => ({ ...row, count: BigInt(row.count) })), unlisted: BigInt(unlisted) }
    await this.#ask(PolicyObservation, (client, options) => client.reportShadow(message, options), signal)
  }

  async postStatus(
    { agentVersion, bundleSequence }: { readonly agentVersion: string; readonly bundleSequence: bigint },
    signal: AbortSignal,
  ): Promise<void> {
    await this.#ask(Agent, (agent, options) => agent.postStatus({ agentVersion, currentBundleSerial: bundleSequence }, options), signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disconnect()
    await Promise.all(this.#closing)
  }

  #ask<S extends Parameters<typeof clientOf>[0], T>(
    service: S,
    call: (client: Client<S>, options: CallOptions) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const client = clientOf(service, this.#channel())
    return translated(() => call(client, { signal, timeout: callTimeout }), signal)
  }

  #channel(): Channel {
    if (!this.#link) throw new Error('bug: the server was called before the agent had an identity')
    return this.#link.channel
  }

  #open(bundle: () => TrustBundle, identity: TlsIdentity | undefined): Channel {
    return connectTls({
      ...this.#address,
      verify: (chain) => verifyServer(chain, bundle(), this.#clock.now()),
      identity: () => identity,
      connected: (secured) => {
        this.#log.info('connected to the server', secured)
        this.#meter.counter(clientMetrics.connections, { key_exchange: secured.keyExchange }).add()
      },
    })
  }

  #disconnect(): void {
    if (!this.#link) return
    const closing = close(this.#link.channel).finally(() => this.#closing.delete(closing))
    this.#closing.add(closing)
    this.#link = undefined
  }
}

async function close(channel: Channel): Promise<void> {
  await channel[Symbol.asyncDispose]()
}

interface Link {
  readonly credentials: AgentCredentials
  bundle: TrustBundle
  readonly channel: Channel
}

/**
 * The exact ID, under the bundle and nothing else.
 * @throws Failure `server.not-the-server`, those of `verifyX509Svid`
 */
export function verifyServer(chain: readonly Uint8Array[], bundle: TrustBundle, at: Instant): void {
  const { spiffeId: found } = verifyX509Svid(
    chain.map((der) => parseCertificate(der)),
    bundleSet([bundle]),
    at,
  )
  const expected = spiffeId(bundle.trustDomain, '/spire/server')
  if (found !== expected) {
    throw new Failure('unauthenticated', 'server.not-the-server', {
      public: `the server showed the identity \`${found}\`: expected \`${expected}\``,
    })
  }
}

/** Shows the evidence, and answers challenges until the server is convinced. */
async function converse(agent: Client<typeof Agent>, prover: NodeProver, csr: Uint8Array, signal: AbortSignal) {
  const conversation = agent.attestAgent({ signal })
  await conversation.send({
    step: { case: 'params', value: { data: { type: prover.type, payload: await prover.payload(signal) }, params: { csr } } },
  })
  for await (const { step } of conversation.responses) {
    if (step.case === 'result') {
      conversation.end()
      return { svid: readX509Svid(step.value.svid), reattestable: step.value.reattestable }
    }
    if (step.case !== 'challenge' || !prover.answer) {
      throw new Failure('failed_precondition', 'server.unexpected-challenge', {
        public: `evidence of type \`${prover.type}\` has no answer to what the server asks`,
      })
    }
    await conversation.send({ step: { case: 'challengeResponse', value: await prover.answer(step.value, signal) } })
  }
  throw new Failure('unavailable', 'server.bad-answer', { public: 'the server ended the attestation without a result' })
}

/** Every entry there is for this agent; of those that are known in their present revision only that is asked. */
async function sync(
  entry: Client<typeof Entry>,
  known: ReadonlyMap<string, RegistrationEntry>,
  log: Log,
  signal: AbortSignal,
): Promise<readonly RegistrationEntry[]> {
  const conversation = entry.syncAuthorizedEntries({ signal })
  await conversation.send({})
  const revisions: EntryRevision[] = []
  let pageSize = 0
  for (;;) {
    const { value: answer, done } = await conversation.responses.next()
    if (done) throw new Failure('unavailable', 'server.bad-answer', { public: 'the server ended the sync before it was complete' })
    if (answer.entryRevisions.length === 0) {
      await conversation.responses.return()
      return readable(answer.entries, log)
    }
    revisions.push(...answer.entryRevisions)
    pageSize ||= answer.entryRevisions.length
    if (!answer.more) break
  }
  const current = new Map<string, RegistrationEntry>()
  const wanted: string[] = []
  for (const revision of revisions) {
    const one = known.get(revision.id)
    if (one && isSameRevision(one, revision)) current.set(one.id, one)
    else wanted.push(revision.id)
  }
  for (const one of await fetchEntries(conversation, wanted.sort(), pageSize, log)) current.set(one.id, one)
  conversation.end()
  await conversation.responses.return()
  return [...current.values()]
}

/** Asks for one page of ids at a time, and waits for all of its entries before the next. */
async function fetchEntries(
  conversation: ReturnType<Client<typeof Entry>['syncAuthorizedEntries']>,
  ids: readonly string[],
  pageSize: number,
  log: Log,
): Promise<readonly RegistrationEntry[]> {
  const entries: RegistrationEntry[] = []
  for (let from = 0; from < ids.length; from += pageSize) {
    const page = ids.slice(from, from + pageSize)
    const asked = new Set(page)
    await conversation.send({ ids: page })
    for (let more = true; more;) {
      const { value: answer, done } = await conversation.responses.next()
      if (done) throw new Failure('unavailable', 'server.bad-answer', { public: 'the server ended the sync before it was complete' })
      entries.push(...readable(answer.entries, log).filter(({ id }) => asked.has(id)))
      more = answer.more
    }
  }
  return entries
}

/** An entry that we cannot read costs its own workloads their identity, not all the others. */
function readable(messages: readonly EntryMessage[], log: Log): RegistrationEntry[] {
  return messages.flatMap((message) => {
    try {
      return [readEntry(message)]
    } catch (error) {
      log.warn('the server sent an entry that cannot be read', { entry: message.id.slice(0, 255), error: tellChain(error) })
      return []
    }
  })
}

function isSameRevision(entry: RegistrationEntry, revision: EntryRevision): boolean {
  return entry.revision === revision.revisionNumber && BigInt(Math.floor(entry.createdAt / seconds(1))) === revision.createdAt
}

function tlsIdentity({ chain, privateKeyPem }: AgentCredentials): TlsIdentity {
  return { cert: chain.map(({ raw }) => formatPem('CERTIFICATE', raw)).join(''), key: privateKeyPem }
}

function readPolicySet({
  version,
  documents,
  options,
  signature,
  serial,
  appliedAt,
  appliedBy,
  changes,
  candidate,
}: PolicySet): AppliedSet {
  return {
    version,
    documents: documents.map(({ name, text }) => ({ name, text })),
    options: readOptions(options),
    ...(signature !== '' && { signature }),
    serial: Number(serial),
    ...(appliedAt && { appliedAt: timestampMs(appliedAt) }),
    ...(appliedBy !== '' && { appliedBy }),
    ...(changes && { changes }),
    ...(candidate && { candidate: readCandidate(candidate) }),
  }
}

const readCandidate = ({ version, documents, options }: PolicySet) => ({
  version,
  documents: documents.map(({ name, text }) => ({ name, text })),
  options: readOptions(options),
})

function readReport({ candidate, counts, unlisted, agents }: ShadowReportMessage): SeenInShadow {
  return {
    ...(candidate && { candidate: readPolicySet(candidate) }),
    counts: counts.map(({ count, workload, allowed, candidateAllows, rule, peer, method, path }) => ({
      workload,
      allowed,
      candidateAllows,
      rule,
      count: Number(count),
      peer,
      method,
      path,
    })),
    unlisted: Number(unlisted),
    agents,
  }
}

/** A newer server may know options that this program cannot follow. */
function readOptions(options: PolicyOptions | undefined): LanguageOptions {
  try {
    return parseLanguageOptions(options ?? {})
  } catch (cause) {
    throw new Failure('unavailable', 'server.bad-answer', { public: `the server's policies cannot be read: ${tellChain(cause)}`, cause })
  }
}

async function translated<T>(call: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  try {
    return await call()
  } catch (error) {
    const failure = understood(error)
    throw signal?.aborted ? failure : reachable(failure)
  }
}

/** A call that nobody here gave up was cut off, by a server that closes or by new credentials: trying again helps. */
function reachable(failure: Failure): Failure {
  if (failure.category !== 'cancelled') return failure
  return new Failure('unavailable', 'server.cut-off', { public: 'the connection to the server was closed', cause: failure })
}

function demandAll(answered: number, asked: number): void {
  if (answered === asked) return
  throw new Failure('unavailable', 'server.bad-answer', { public: `the server answered ${answered} of ${asked} requests` })
}

function orFailure<T>(read: () => T): T | Failure {
  try {
    return read()
  } catch (error) {
    return Failure.from(error)
  }
}

/** The server as operators see it on its private socket. Failures carry the server's own reason codes. */
export interface AdminClient extends AsyncDisposable {
  readonly entries: {
    /** One outcome for each draft, in order; `created` is false for a similar entry that was there before. */
    create(
      drafts: readonly EntryDraft[],
      signal: AbortSignal,
    ): Promise<readonly (Failure | { readonly created: boolean; readonly entry: RegistrationEntry })[]>
    /** @throws Failure `entry.not-found` */
    find(id: string, signal: AbortSignal): Promise<RegistrationEntry>
    list(filter: AdminEntryFilter, signal: AbortSignal): Promise<readonly RegistrationEntry[]>
    /** Replaces every field of the entries with these ids; one outcome for each. */
    update(
      entries: readonly (EntryDraft & { readonly id: string })[],
      signal: AbortSignal,
    ): Promise<readonly (Failure | RegistrationEntry)[]>
    /** One outcome for each id; undefined means that it is gone. */
    remove(ids: readonly string[], signal: AbortSignal): Promise<readonly (Failure | undefined)[]>
  }
  readonly agents: {
    list(signal: AbortSignal): Promise<readonly AgentSummary[]>
    /** @throws Failure `node.not-found` */
    find(id: SpiffeId, signal: AbortSignal): Promise<AgentSummary>
    ban(id: SpiffeId, signal: AbortSignal): Promise<void>
    /** Forgets the agent, so that its node may attest again. */
    evict(id: SpiffeId, signal: AbortSignal): Promise<void>
    /** Those whose identity two parties hold. */
    frozen(signal: AbortSignal): Promise<readonly FrozenAgent[]>
    /** Lets a frozen agent attest again. @throws Failure `node.not-found`, `node.not-frozen` */
    release(id: SpiffeId, signal: AbortSignal): Promise<void>
  }
  readonly tokens: {
    create(
      wish: { readonly ttl: Duration; readonly agentId?: SpiffeId },
      signal: AbortSignal,
    ): Promise<{ readonly token: Secret; readonly expiresAt: Instant }>
  }
  /** A forced rotation: prepare, activate, taint, revoke. @throws Failure `ca.wit-off`, `authority.*` */
  readonly authorities: {
    state(kind: AuthorityKind, signal: AbortSignal): Promise<AuthorityState>
    prepare(kind: AuthorityKind, signal: AbortSignal): Promise<AuthorityStatus>
    activate(kind: AuthorityKind, id: string, signal: AbortSignal): Promise<AuthorityStatus>
    taint(kind: AuthorityKind, id: string, signal: AbortSignal): Promise<AuthorityStatus>
    revoke(kind: AuthorityKind, id: string, signal: AbortSignal): Promise<AuthorityStatus>
    /** The root above the X.509 authorities, by its subject key identifier in hex. */
    taintRoot(subjectKeyId: string, signal: AbortSignal): Promise<void>
    revokeRoot(subjectKeyId: string, signal: AbortSignal): Promise<void>
  }
  readonly bundle: {
    find(signal: AbortSignal): Promise<TrustBundle>
  }
  /** A whole set of policies tried beside the one in force. */
  readonly shadow: {
    /** @throws Failure `policy.invalid`, … */
    start(wish: Pick<PolicyWish, 'documents' | 'options' | 'prune'>, signal: AbortSignal): Promise<AppliedSet>
    report(signal: AbortSignal): Promise<SeenInShadow>
    /** Ends it, and says what was seen. @throws Failure `policy.no-candidate` */
    stop(signal: AbortSignal): Promise<SeenInShadow>
  }
  readonly policies: {
    /** @throws Failure `policy.invalid` with every problem in its text, `policy.lockout`, `policy.changed-meanwhile`, `policy.unsigned`, … */
    apply(wish: PolicyWish, signal: AbortSignal): Promise<AppliedSet>
    list(signal: AbortSignal): Promise<AppliedSet>
    /** The newest first, without the texts of their documents. */
    history(limit: number, signal: AbortSignal): Promise<readonly AppliedSet[]>
    /** To the set of this serial, or, with 0, to the one before the one in force. */
    rollBack(wish: { readonly serial: number; readonly force: boolean }, signal: AbortSignal): Promise<AppliedSet>
  }
  /** Whether the server answers as it should. */
  isHealthy(signal: AbortSignal): Promise<boolean>
}

/** Every given condition must hold. */
export interface AdminEntryFilter {
  readonly spiffeId?: SpiffeId
  readonly parentId?: SpiffeId
  readonly hint?: string
  readonly downstream?: boolean
}

/** Policies as the server has them; in answers to changes the documents have names and no texts. */
export type AppliedSet = PolicyDocuments & {
  readonly serial: number
  readonly appliedAt?: Instant
  readonly appliedBy?: string
  readonly changes?: PolicyChanges
}

/** What agents saw of a set that is tried; `candidate` is absent if none is. */
export interface SeenInShadow {
  readonly candidate?: AppliedSet
  readonly counts: readonly ShadowCount[]
  readonly unlisted: number
  readonly agents: number
}

export type { PolicyChanges, PolicyWish, ShadowCount }

/** Connects to the server's private socket. Nothing is sent before the first call. */
export function connectAdmin(socketPath: string): AdminClient {
  return adminClient(connectUnix(socketPath))
}

/** An admin client on any channel; closing it closes the channel. */
export function adminClient(channel: Channel): AdminClient {
  const [entry, amended, agent, frozen, bundle, policies, history, shadow, health] = [
    clientOf(Entry, channel),
    clientOf(AmendedEntries, channel),
    clientOf(Agent, channel),
    clientOf(FrozenNodes, channel),
    clientOf(Bundle, channel),
    clientOf(PolicyAdministration, channel),
    clientOf(PolicyHistory, channel),
    clientOf(PolicyShadow, channel),
    clientOf(Health, channel),
  ]
  const ask = <T>(call: (options: CallOptions) => Promise<T>, signal: AbortSignal): Promise<T> =>
    translated(() => call({ signal, timeout: callTimeout }), signal)
  /** SPIRE's messages have no place for them. */
  const withAdditions = async (messages: readonly EntryMessage[], signal: AbortSignal): Promise<readonly RegistrationEntry[]> => {
    if (messages.length === 0) return []
    const ids = messages.map(({ id }) => id)
    const { additions } = await ask((options) => amended.listAdditions({ ids }, options), signal)
    return messages.map((message) => ({ ...readEntry(message), ...fromAdditions(additions[message.id]) }))
  }
  return {
    entries: {
      async create(drafts, signal) {
        const { results } = await ask((options) => amended.batchCreateAmended({ entries: drafts.map(draftMessage) }, options), signal)
        return results.map(({ status, entry: message }) => {
          const failure = readStatus(status)
          if (message && (!failure || failure.category === 'already_exists')) return { created: !failure, entry: readAmended(message) }
          return failure ?? new Failure('internal', 'server.bad-answer', { public: 'the server created an entry and did not send it' })
        })
      },
      async find(id, signal) {
        const [found] = await withAdditions([await ask((options) => entry.getEntry({ id }, options), signal)], signal)
        if (!found) throw missingAnswer()
        return found
      },
      list: (filter, signal) =>
        allPages(async (pageToken) => {
          const answer = await ask(
            (options) => entry.listEntries({ filter: filterMessage(filter), pageSize: adminPage, pageToken }, options),
            signal,
          )
          return { items: await withAdditions(answer.entries, signal), next: answer.nextPageToken }
        }),
      async update(entries, signal) {
        const { results } = await ask((options) => amended.batchUpdateAmended({ entries: entries.map(draftMessage) }, options), signal)
        return results.map(({ status, entry: message }) => readStatus(status) ?? (message ? readAmended(message) : missingAnswer()))
      },
      async remove(ids, signal) {
        const { results } = await ask((options) => entry.batchDeleteEntry({ ids: [...ids] }, options), signal)
        return results.map(({ status }) => readStatus(status))
      },
    },
    agents: {
      list: (signal) =>
        allPages(async (pageToken) => {
          const answer = await ask((options) => agent.listAgents({ pageSize: adminPage, pageToken }, options), signal)
          return { items: answer.agents.map(readAgent), next: answer.nextPageToken }
        }),
      find: async (id, signal) => readAgent(await ask((options) => agent.getAgent({ id: toSpiffeId(id) }, options), signal)),
      ban: async (id, signal) => void (await ask((options) => agent.banAgent({ id: toSpiffeId(id) }, options), signal)),
      evict: async (id, signal) => void (await ask((options) => agent.deleteAgent({ id: toSpiffeId(id) }, options), signal)),
      frozen: (signal) =>
        allPages(async (pageToken) => {
          const answer = await ask((options) => frozen.listFrozenNodes({ pageSize: adminPage, pageToken }, options), signal)
          return { items: answer.nodes.map(readFrozenNode), next: answer.nextPageToken }
        }),
      release: async (id, signal) => void (await ask((options) => frozen.releaseNode({ id: toSpiffeId(id) }, options), signal)),
    },
    tokens: {
      async create({ ttl, agentId }, signal) {
        const request = { ttl: Math.ceil(ttl / seconds(1)), ...(agentId && { agentId: toSpiffeId(agentId) }) }
        const { value, expiresAt } = await ask((options) => agent.createJoinToken(request, options), signal)
        return { token: new Secret(value), expiresAt: seconds(Number(expiresAt)) }
      },
    },
    authorities: authoritiesOver(clientOf(LocalAuthority, channel), ask),
    bundle: { find: async (signal) => readBundle(await ask((options) => bundle.getBundle({}, options), signal)) },
    policies: {
      apply: async ({ documents, options: reading, ...wish }, signal) =>
        readPolicySet(
          await ask(
            (options) => policies.applyPolicies({ documents: [...documents], ...optionsMessage(reading), ...wish }, options),
            signal,
          ),
        ),
      list: async (signal) => readPolicySet(await ask((options) => policies.listPolicies({}, options), signal)),
      history: async (limit, signal) =>
        (await ask((options) => history.listPolicyHistory({ limit }, options), signal)).sets.map(readPolicySet),
      rollBack: async ({ serial, force }, signal) =>
        readPolicySet(await ask((options) => history.rollBackPolicies({ serial: BigInt(serial), force }, options), signal)),
    },
    shadow: {
      start: async ({ documents, options: reading, ...wish }, signal) =>
        readPolicySet(
          await ask((options) => shadow.startShadow({ documents: [...documents], ...optionsMessage(reading), ...wish }, options), signal),
        ),
      report: async (signal) => readReport(await ask((options) => shadow.getShadow({}, options), signal)),
      stop: async (signal) => readReport(await ask((options) => shadow.stopShadow({}, options), signal)),
    },
    isHealthy: async (signal) => (await ask((options) => health.check({}, options), signal)).status === ServingStatus.SERVING,
    [Symbol.asyncDispose]: () => channel[Symbol.asyncDispose](),
  }
}

const optionsMessage = (options: LanguageOptions | undefined) => (options ? { options: formatLanguageOptions(options) } : {})

type Ask = <T>(call: (options: CallOptions) => Promise<T>, signal: AbortSignal) => Promise<T>

function authoritiesOver(client: Client<typeof LocalAuthority>, ask: Ask): AdminClient['authorities'] {
  return {
    state: async (kind, signal) =>
      readAuthorityState(await ask((options) => client[`get${wireNames[kind]}AuthorityState`]({}, options), signal)),
    async prepare(kind, signal) {
      const { preparedAuthority } = await ask((options) => client[`prepare${wireNames[kind]}Authority`]({}, options), signal)
      return readAuthority(preparedAuthority)
    },
    async activate(kind, authorityId, signal) {
      const { activatedAuthority } = await ask((options) => client[`activate${wireNames[kind]}Authority`]({ authorityId }, options), signal)
      return readAuthority(activatedAuthority)
    },
    async taint(kind, authorityId, signal) {
      const { taintedAuthority } = await ask((options) => client[`taint${wireNames[kind]}Authority`]({ authorityId }, options), signal)
      return readAuthority(taintedAuthority)
    },
    async revoke(kind, authorityId, signal) {
      const { revokedAuthority } = await ask((options) => client[`revoke${wireNames[kind]}Authority`]({ authorityId }, options), signal)
      return readAuthority(revokedAuthority)
    },
    taintRoot: async (subjectKeyId, signal) =>
      void (await ask((options) => client.taintX509UpstreamAuthority({ subjectKeyId }, options), signal)),
    revokeRoot: async (subjectKeyId, signal) =>
      void (await ask((options) => client.revokeX509UpstreamAuthority({ subjectKeyId }, options), signal)),
  }
}

const wireNames = { x509: 'X509', jwt: 'JWT', wit: 'WIT' } as const

function draftMessage(draft: EntryDraft) {
  return toAmended({ ...draft, id: draft.id ?? '', revision: 0n, createdAt: 0 })
}

function filterMessage({ spiffeId: id, parentId, hint, downstream }: AdminEntryFilter) {
  return {
    ...(id && { bySpiffeId: toSpiffeId(id) }),
    ...(parentId && { byParentId: toSpiffeId(parentId) }),
    ...(hint !== undefined && { byHint: hint }),
    ...(downstream !== undefined && { byDownstream: downstream }),
  }
}

async function allPages<T>(
  page: (token: string) => Promise<{ readonly items: readonly T[]; readonly next: string }>,
): Promise<readonly T[]> {
  const all: T[] = []
  for (let token = '', pages = 0; pages < maxPages; pages++) {
    const { items, next } = await page(token)
    all.push(...items)
    if (next === '') return all
    token = next
  }
  throw new Failure('resource_exhausted', 'server.too-many-pages', { public: `there are more than ${maxPages * adminPage} items` })
}

function readAmended({ entry, additions }: AmendedEntry): RegistrationEntry {
  if (!entry) throw missingAnswer()
  return { ...readEntry(entry), ...fromAdditions(additions) }
}

function missingAnswer(): Failure {
  return new Failure('internal', 'server.bad-answer', { public: 'the server changed an entry and did not send it' })
}

const callTimeout: Duration = seconds(30)
const attestTimeout: Duration = seconds(60)
const syncTimeout: Duration = seconds(60)
const adminPage = 500
const maxPages = 10_000
