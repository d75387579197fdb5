/** Domain ⇄ protobuf, both directions, and nothing else: what comes in is parsed strictly, what goes out is masked. */
import { create, isMessage, type DescMessage, type MessageInitShape } from '@bufbuild/protobuf'
import { anyPack, anyUnpack, timestampFromMs, timestampMs, type Any } from '@bufbuild/protobuf/wkt'
import { parseInstant, type Instant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure, type Category } from '../kernel/failure.ts'
import type { AuthorityState, AuthorityStatus } from '../ca/authorities.ts'
import type { IssuedJwtSvid, IssuedWitSvid, IssuedX509Svid } from '../ca/certificate-authority.ts'
import type { EntryDraft, EntryFilter, ListMatch, RegistrationEntry } from '../registry/entry.ts'
import type { AttestedNode, CertificateSeen, NodeFilter } from '../registry/node.ts'
import { ErrorInfoSchema } from '../rpc/gen/google/rpc/status_pb.ts'
import {
  BanAgentRequestSchema,
  CreateJoinTokenRequestSchema,
  DeleteAgentRequestSchema,
  GetAgentRequestSchema,
  type ListAgentsRequest_Filter,
} from '../rpc/gen/spire/api/server/agent/v1/agent_pb.ts'
import type {
  AuthorityState as AuthorityMessage,
  AuthorityStateSchema,
  GetAuthorityStateResponse,
  GetAuthorityStateResponseSchema,
} from '../rpc/gen/spire/api/server/localauthority/v1/localauthority_pb.ts'
import {
  BatchCreateEntryRequestSchema,
  BatchDeleteEntryRequestSchema,
  BatchUpdateEntryRequestSchema,
  GetEntryRequestSchema,
  type ListEntriesRequest_Filter,
} from '../rpc/gen/spire/api/server/entry/v1/entry_pb.ts'
import {
  AgentMaskSchema,
  BundleMaskSchema,
  EntryMaskSchema,
  PermissionDeniedDetailsSchema,
  PermissionDeniedDetails_Reason as Reason,
  SelectorMatch_MatchBehavior as MatchBehavior,
  type Agent,
  type AgentMask,
  type AgentSchema,
  type Bundle,
  type BundleMask,
  type BundleSchema,
  type Entry,
  type EntryMask,
  type EntrySchema,
  type JWTKey,
  type JWTSVID,
  type JWTSVIDSchema,
  type PermissionDeniedDetails_Reason,
  type Selector as SelectorMessage,
  type SPIFFEID,
  type Status,
  type WITKey,
  type WITSVID,
  type WITSVIDSchema,
  type X509SVID,
  type X509SVIDSchema,
} from '../rpc/gen/spire/api/types/types_pb.ts'
import {
  BatchCreateAmendedRequestSchema,
  BatchUpdateAmendedRequestSchema,
  ListAdditionsRequestSchema,
  type Additions,
  type AdditionsSchema,
  type AmendedEntry,
  type AmendedEntrySchema,
} from '../rpc/gen/vidimus/api/entry/v1/entry_pb.ts'
import {
  ReleaseNodeRequestSchema,
  type CertificateSeen as SeenMessage,
  type FrozenNode,
  type FrozenNodeSchema,
} from '../rpc/gen/vidimus/api/node/v1/node_pb.ts'
import { categoryOf, codeOf, detailsOf } from '../rpc/status.ts'
import type { TokenAuthority, TrustBundle } from '../spiffe/bundle.ts'
import { readClaims } from '../spiffe/claims.ts'
import { pathOf, spiffeId, trustDomainOf, type SpiffeId } from '../spiffe/id.ts'
import { selector, type Selector } from '../spiffe/selector.ts'
import { parseTrustDomain } from '../spiffe/trust-domain.ts'
import { parseCertificate, type Certificate } from '../x509/certificate.ts'
import { parseSubject } from '../x509/subject.ts'

type Fields<S extends DescMessage> = MessageInitShape<S>

// --- identities and selectors

/** @throws Failure `api.missing-field`, `spiffe-id.*`, `trust-domain.*`; the text names the field */
export function fromSpiffeId(field: string, message: SPIFFEID | undefined): SpiffeId {
  if (!message) throw new Failure('invalid_argument', 'api.missing-field', { public: `field \`${field}\` is missing` })
  return inField(field, () => {
    const trustDomain = parseTrustDomain(message.trustDomain)
    if (message.path !== '' && !message.path.startsWith('/')) {
      throw new Failure('invalid_argument', 'spiffe-id.path-character', {
        public: `the path \`${message.path.slice(0, 80)}\` does not begin with a slash`,
      })
    }
    return spiffeId(trustDomain, message.path)
  })
}

export const toSpiffeId = (id: SpiffeId): { trustDomain: string; path: string } => ({ trustDomain: trustDomainOf(id), path: pathOf(id) })

const fromSelectors = (field: string, list: readonly SelectorMessage[]): Selector[] =>
  inField(field, () => list.map(({ type, value }) => selector(type, value)))

// --- registration entries

/** An entry as somebody asks for it; what the registry decides itself is not read. @throws Failure naming the field */
export function fromEntry(message: Entry): EntryDraft {
  const expiresAt = fromSeconds('expires_at', message.expiresAt)
  return {
    ...(message.id === '' ? {} : { id: message.id }),
    spiffeId: fromSpiffeId('spiffe_id', message.spiffeId),
    parentId: fromSpiffeId('parent_id', message.parentId),
    selectors: fromSelectors('selectors', message.selectors),
    x509SvidTtl: seconds(message.x509SvidTtl),
    jwtSvidTtl: seconds(message.jwtSvidTtl),
    federatesWith: inField('federates_with', () => message.federatesWith.map(parseTrustDomain)),
    admin: message.admin,
    downstream: message.downstream,
    storeSvid: message.storeSvid,
    ...(expiresAt === undefined ? {} : { expiresAt }),
    dnsNames: message.dnsNames,
    hint: message.hint,
    disableX509SvidPrefetch: message.additionalAttributes?.disableX509SvidPrefetch ?? false,
    jwtSvidIncludeJti: message.additionalAttributes?.jwtSvidIncludeJti ?? false,
  }
}

/** The entry with the fields that the mask names taken from the message; without a mask, all of them. @throws Failure naming the field */
export function changedBy(message: Entry, mask: EntryMask | undefined): (entry: RegistrationEntry) => EntryDraft {
  // The registry's own fields, and those that the message has no place for, stay what they are, whatever a mask says.
  return (entry) => ({ ...fromEntry({ ...message, ...unmaskedFields(entry, mask), id: entry.id }), ...additionsOf(entry) })
}

export function toEntry(entry: RegistrationEntry, mask?: EntryMask): Fields<typeof EntrySchema> {
  return masked(EntryMaskSchema, mask, entryFields(entry), ['id'])
}

/** @throws Failure `api.missing-field`, `subject.*`, `claims.*`, `json.*`, and those of {@link fromEntry} */
export function fromAmended({ entry, additions }: AmendedEntry): EntryDraft {
  if (!entry) throw new Failure('invalid_argument', 'api.missing-field', { public: 'field `entry` is missing' })
  return { ...fromEntry(entry), ...fromAdditions(additions) }
}

export function toAmended(entry: RegistrationEntry): Fields<typeof AmendedEntrySchema> {
  return { entry: toEntry(entry), additions: toAdditions(entry) }
}

export function toAdditions({ subject, claims }: Pick<EntryDraft, 'subject' | 'claims'>): Fields<typeof AdditionsSchema> {
  return { ...(subject && { subject }), ...(claims && { claims: JSON.stringify(claims) }) }
}

/** @throws Failure `subject.*`, `claims.*`, `json.*` */
export function fromAdditions(message: Additions | undefined): Pick<EntryDraft, 'subject' | 'claims'> {
  const subject = message && parseSubject(message.subject)
  const claims = message && message.claims !== '' ? readClaims(message.claims) : undefined
  return additionsOf({ subject, claims })
}

const additionsOf = ({ subject, claims }: Pick<EntryDraft, 'subject' | 'claims'>) => ({
  ...(subject && { subject }),
  ...(claims && { claims }),
})

/** An entry as the server sent it. @throws Failure naming the field */
export function readEntry(message: Entry): RegistrationEntry {
  return { ...fromEntry(message), id: message.id, revision: message.revisionNumber, createdAt: seconds(Number(message.createdAt)) }
}

/** An entry's revision, as agents compare it with what they have. */
export const toRevision = (entry: RegistrationEntry): { id: string; revisionNumber: bigint; createdAt: bigint } => ({
  id: entry.id,
  revisionNumber: entry.revision,
  createdAt: toSeconds(entry.createdAt),
})

/** @throws Failure naming the field */
export function fromEntryFilter(filter: ListEntriesRequest_Filter | undefined): EntryFilter {
  if (!filter) return {}
  const { bySpiffeId, byParentId, bySelectors, byFederatesWith, byHint, byDownstream } = filter
  return {
    ...(bySpiffeId && { spiffeId: fromSpiffeId('by_spiffe_id', bySpiffeId) }),
    ...(byParentId && { parentId: fromSpiffeId('by_parent_id', byParentId) }),
    ...(bySelectors && {
      selectors: { selectors: fromSelectors('by_selectors', bySelectors.selectors), match: fromMatch('by_selectors', bySelectors.match) },
    }),
    ...(byFederatesWith && {
      federatesWith: {
        trustDomains: inField('by_federates_with', () => byFederatesWith.trustDomains.map(parseTrustDomain)),
        match: fromMatch('by_federates_with', byFederatesWith.match),
      },
    }),
    ...(byHint !== undefined && { hint: byHint }),
    ...(byDownstream !== undefined && { downstream: byDownstream }),
  }
}

type EntryFields = Required<Omit<Entry, '$typeName' | '$unknown' | 'spiffeId' | 'parentId' | 'selectors' | 'additionalAttributes'>> & {
  spiffeId: { trustDomain: string; path: string }
  parentId: { trustDomain: string; path: string }
  selectors: Selector[]
  additionalAttributes: { disableX509SvidPrefetch: boolean; jwtSvidIncludeJti: boolean }
}

function entryFields(entry: RegistrationEntry): EntryFields {
  return {
    id: entry.id,
    spiffeId: toSpiffeId(entry.spiffeId),
    parentId: toSpiffeId(entry.parentId),
    selectors: [...entry.selectors],
    x509SvidTtl: Math.floor(entry.x509SvidTtl / seconds(1)),
    federatesWith: [...entry.federatesWith],
    admin: entry.admin,
    downstream: entry.downstream,
    expiresAt: toSeconds(entry.expiresAt),
    dnsNames: [...entry.dnsNames],
    revisionNumber: entry.revision,
    storeSvid: entry.storeSvid,
    jwtSvidTtl: Math.floor(entry.jwtSvidTtl / seconds(1)),
    hint: entry.hint,
    createdAt: toSeconds(entry.createdAt),
    additionalAttributes: { disableX509SvidPrefetch: entry.disableX509SvidPrefetch, jwtSvidIncludeJti: entry.jwtSvidIncludeJti },
  }
}

/** The stored fields that a mask leaves alone, as a message has them. */
function unmaskedFields(entry: RegistrationEntry, mask: EntryMask | undefined): Partial<Entry> {
  if (!mask) return {}
  const stored = entryFields(entry) as unknown as Record<string, unknown>
  const kept = EntryMaskSchema.fields.filter(({ localName }) => !mask[localName as keyof EntryMask])
  return Object.fromEntries(kept.map(({ localName }) => [localName, stored[localName]])) as Partial<Entry>
}

// --- agents

export function toAgent(node: AttestedNode, mask?: AgentMask): Fields<typeof AgentSchema> {
  return masked(
    AgentMaskSchema,
    mask,
    {
      id: toSpiffeId(node.id),
      attestationType: node.attestationType,
      x509svidSerialNumber: decimal(node.serial),
      x509svidExpiresAt: toSeconds(node.expiresAt),
      selectors: [...node.selectors],
      banned: node.banned,
      canReattest: node.canReattest,
      agentVersion: node.agentVersion,
    },
    ['id'],
  )
}

/** What an operator reads about an agent. */
export interface AgentSummary {
  readonly id: SpiffeId
  readonly attestationType: string
  /** Decimal, as SPIRE shows it; empty when banned. */
  readonly serialNumber: string
  readonly expiresAt: Instant
  readonly selectors: readonly Selector[]
  readonly banned: boolean
  readonly canReattest: boolean
  readonly agentVersion: string
}

/** @throws Failure naming the field */
export function readAgent(message: Agent): AgentSummary {
  return {
    id: fromSpiffeId('id', message.id),
    attestationType: message.attestationType,
    serialNumber: message.x509svidSerialNumber,
    expiresAt: seconds(Number(message.x509svidExpiresAt)),
    selectors: fromSelectors('selectors', message.selectors),
    banned: message.banned,
    canReattest: message.canReattest,
    agentVersion: message.agentVersion,
  }
}

export function toFrozenNode({ id, frozen }: AttestedNode): Fields<typeof FrozenNodeSchema> {
  const seen = ({ serial, address }: CertificateSeen) => ({ serialNumber: decimal(serial), address })
  return {
    id: toSpiffeId(id),
    ...(frozen && { frozenAt: timestampFromMs(frozen.at), superseded: seen(frozen.superseded), successor: seen(frozen.successor) }),
  }
}

/** What an operator reads about an agent whose identity two parties hold: the certificates, and from where each was shown. */
export interface FrozenAgent {
  readonly id: SpiffeId
  readonly at: Instant
  /** Serial numbers are decimal. */
  readonly superseded: CertificateSeen
  readonly successor: CertificateSeen
}

/** @throws Failure naming the field */
export function readFrozenNode({ id, frozenAt, superseded, successor }: FrozenNode): FrozenAgent {
  const seen = (message: SeenMessage | undefined) => ({ serial: message?.serialNumber ?? '', address: message?.address ?? '' })
  return {
    id: fromSpiffeId('id', id),
    at: frozenAt ? timestampMs(frozenAt) : 0,
    superseded: seen(superseded),
    successor: seen(successor),
  }
}

/** @throws Failure naming the field */
export function fromAgentFilter(filter: ListAgentsRequest_Filter | undefined): NodeFilter {
  if (!filter) return {}
  const { byAttestationType, bySelectorMatch, byBanned, byCanReattest, byExpiresBefore } = filter
  return {
    ...(byAttestationType !== '' && { attestationType: byAttestationType }),
    ...(bySelectorMatch && {
      selectors: {
        selectors: fromSelectors('by_selector_match', bySelectorMatch.selectors),
        match: fromMatch('by_selector_match', bySelectorMatch.match),
      },
    }),
    ...(byBanned !== undefined && { banned: byBanned }),
    ...(byCanReattest !== undefined && { canReattest: byCanReattest }),
    ...(byExpiresBefore !== '' && { expiresBefore: fromGoTime('by_expires_before', byExpiresBefore) }),
  }
}

// --- bundles

export function toBundle(bundle: TrustBundle, mask?: BundleMask): Fields<typeof BundleSchema> {
  return masked(
    BundleMaskSchema,
    mask,
    {
      trustDomain: bundle.trustDomain,
      x509Authorities: bundle.x509Authorities.map(({ certificate, tainted }) => ({ asn1: certificate.raw, tainted })),
      jwtAuthorities: bundle.jwtAuthorities.map(toTokenKey),
      refreshHint: toSeconds(bundle.refreshHint),
      sequenceNumber: bundle.sequence,
      witAuthorities: bundle.witAuthorities.map(toTokenKey),
    },
    ['trustDomain'],
  )
}

/** @throws Failure `trust-domain.*`, `der.*`, `x509.*`, `api.bad-bundle` */
export function readBundle(message: Bundle): TrustBundle {
  if (message.x509Authorities.length + message.jwtAuthorities.length + message.witAuthorities.length > maxAuthorities) {
    throw new Failure('invalid_argument', 'api.bad-bundle', { public: `the bundle has more than ${maxAuthorities} authorities` })
  }
  return {
    trustDomain: parseTrustDomain(message.trustDomain),
    x509Authorities: message.x509Authorities.map(({ asn1, tainted }) => ({ certificate: parseCertificate(asn1), tainted })),
    jwtAuthorities: message.jwtAuthorities.map(fromTokenKey),
    witAuthorities: message.witAuthorities.map(fromTokenKey),
    sequence: message.sequenceNumber,
    ...(message.refreshHint > 0n && { refreshHint: seconds(Number(message.refreshHint)) }),
  }
}

function toTokenKey({ keyId, publicKey, expiresAt, tainted }: TokenAuthority) {
  return { keyId, publicKey, expiresAt: toSeconds(expiresAt), tainted }
}

function fromTokenKey({ keyId, publicKey, expiresAt, tainted }: JWTKey | WITKey): TokenAuthority {
  return { keyId, publicKey, ...(expiresAt > 0n && { expiresAt: seconds(Number(expiresAt)) }), tainted }
}

// --- authorities

export function toAuthority({ id, expiresAt, upstreamId }: AuthorityStatus): Fields<typeof AuthorityStateSchema> {
  return { authorityId: id, expiresAt: toSeconds(expiresAt), upstreamAuthoritySubjectKeyId: upstreamId ?? '' }
}

export function toAuthorityState({ active, prepared, old }: AuthorityState): Fields<typeof GetAuthorityStateResponseSchema> {
  return {
    ...(active && { active: toAuthority(active) }),
    ...(prepared && { prepared: toAuthority(prepared) }),
    ...(old && { old: toAuthority(old) }),
  }
}

/** @throws Failure `api.missing-field` */
export function readAuthority(message: AuthorityMessage | undefined): AuthorityStatus {
  if (!message) throw new Failure('invalid_argument', 'api.missing-field', { public: 'the authority is missing in the answer' })
  const { authorityId: id, expiresAt, upstreamAuthoritySubjectKeyId: upstreamId } = message
  return { id, expiresAt: seconds(Number(expiresAt)), ...(upstreamId !== '' && { upstreamId }) }
}

export function readAuthorityState({ active, prepared, old }: GetAuthorityStateResponse): AuthorityState {
  return {
    ...(active && { active: readAuthority(active) }),
    ...(prepared && { prepared: readAuthority(prepared) }),
    ...(old && { old: readAuthority(old) }),
  }
}

// --- SVIDs

export function toX509Svid({ spiffeId: id, der, notAfter }: IssuedX509Svid, hint = ''): Fields<typeof X509SVIDSchema> {
  return { certChain: [...der], id: toSpiffeId(id), expiresAt: toSeconds(notAfter), hint }
}

/** @throws Failure `api.missing-field`, `api.bad-chain`, `der.*`, `x509.*` */
export function readX509Svid(message: X509SVID | undefined): {
  readonly spiffeId: SpiffeId
  readonly chain: readonly Certificate[]
  readonly hint: string
} {
  if (!message) throw new Failure('invalid_argument', 'api.missing-field', { public: 'field `svid` is missing' })
  if (message.certChain.length === 0 || message.certChain.length > maxChain) {
    throw new Failure('invalid_argument', 'api.bad-chain', {
      public: `the chain has ${message.certChain.length} certificates: expected 1 to ${maxChain}`,
    })
  }
  return { spiffeId: fromSpiffeId('id', message.id), chain: message.certChain.map((der) => parseCertificate(der)), hint: message.hint }
}

export function toJwtSvid({ spiffeId: id, token, issuedAt, expiresAt }: IssuedJwtSvid, hint: string): Fields<typeof JWTSVIDSchema> {
  return { token, id: toSpiffeId(id), expiresAt: toSeconds(expiresAt), issuedAt: toSeconds(issuedAt), hint }
}

/** @throws Failure `api.missing-field`, `spiffe-id.*` */
export function readJwtSvid(message: JWTSVID | undefined): IssuedJwtSvid {
  return readToken(message)
}

function readToken(message: JWTSVID | WITSVID | undefined): IssuedJwtSvid {
  if (!message) throw new Failure('invalid_argument', 'api.missing-field', { public: 'field `svid` is missing' })
  const { id, token, issuedAt, expiresAt } = message
  return { spiffeId: fromSpiffeId('id', id), token, issuedAt: seconds(Number(issuedAt)), expiresAt: seconds(Number(expiresAt)) }
}

/** The key that a WIT-SVID is to be bound to. */
export const fromWitKey = ({ publicKey, signingAlgorithm }: { publicKey: Uint8Array; signingAlgorithm: string }) => ({
  publicKey,
  ...(signingAlgorithm !== '' && { signingAlgorithm }),
})

export function toWitSvid({ spiffeId: id, token, issuedAt, expiresAt }: IssuedWitSvid, hint = ''): Fields<typeof WITSVIDSchema> {
  return { token, id: toSpiffeId(id), expiresAt: toSeconds(expiresAt), issuedAt: toSeconds(issuedAt), hint }
}

/** @throws Failure `api.missing-field`, `spiffe-id.*` */
export function readWitSvid(message: WITSVID | undefined): IssuedWitSvid {
  return readToken(message)
}

// --- outcomes of the items of a batch

export const okStatus = { code: 0, message: 'OK' } as const

export const toStatus = (failure: Failure): { code: number; message: string } => ({
  code: codeOf(failure.category),
  message: failure.message.slice(0, maxText),
})

/** The failure of one item; undefined if it went well. Absent means that the server forgot it. */
export function readStatus(status: Status | undefined): Failure | undefined {
  if (status?.code === 0) return undefined
  const { code = 13, message = 'the answer has no status' } = status ?? {}
  return new Failure(categoryOf(code), 'api.item-failed', { public: message.slice(0, maxText) })
}

// --- what travels with a failure

/**
 * The details of a failure: for agents why they are refused, without which SPIRE's neither attests again nor stops;
 * for mistakes of the caller our reason code.
 */
export function detailsFor(failure: Failure): readonly Any[] {
  const reason = agentReasons.get(failure.reason)
  const ours = anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: failure.reason, domain: errorDomain }))
  if (reason !== undefined) return [anyPack(PermissionDeniedDetailsSchema, create(PermissionDeniedDetailsSchema, { reason })), ours]
  return callersMistakes.has(failure.category) ? [ours] : []
}

/** The failure as the server meant it: with its own reason code, where it told one. */
export function understood(thrown: unknown): Failure {
  const failure = Failure.from(thrown)
  const details = detailsOf(failure)
  const reason = details.map(ourReason).find(Boolean) ?? details.map(reasonForAgents).find(Boolean)
  if (!reason) return failure
  return new Failure(failure.category, reason, { public: failure.message, internal: failure.internal, cause: failure.cause })
}

function ourReason(detail: Any): string | undefined {
  const info = anyUnpack(detail, ErrorInfoSchema)
  return info?.domain === errorDomain && reasonCode.test(info.reason) ? info.reason : undefined
}

/** As a server of SPIRE's tells it. */
function reasonForAgents(detail: Any): string | undefined {
  const denied = anyUnpack(detail, PermissionDeniedDetailsSchema)
  return denied && [...agentReasons].find(([, reason]) => reason === denied.reason)?.[0]
}

// --- what a call is about

/** What a request is about, before anything is looked up. A fact that it does not tell, or tells wrongly, is left out. */
export type Subject =
  | { readonly kind: 'none' }
  | { readonly kind: 'drafts'; readonly drafts: readonly EntryFacts[] }
  /** Entries by id; `change` says what they would become, undefined where the request cannot be read. */
  | {
      readonly kind: 'entries'
      readonly entries: readonly { readonly id: string; readonly change?: (entry: RegistrationEntry) => EntryFacts | undefined }[]
    }
  | { readonly kind: 'agent'; readonly id?: SpiffeId }

/** The facts about an entry that policies may ask for. */
export type EntryFacts = Partial<Pick<RegistrationEntry, 'spiffeId' | 'parentId' | 'x509SvidTtl' | 'admin' | 'downstream'>>

export function subjectOf(request: unknown): Subject {
  if (isMessage(request, BatchCreateEntryRequestSchema)) return { kind: 'drafts', drafts: request.entries.map(factsOf) }
  if (isMessage(request, BatchUpdateEntryRequestSchema)) {
    const { entries, inputMask } = request
    return {
      kind: 'entries',
      entries: entries.map((one) => ({ id: one.id, change: (entry) => ifReadable(() => changedBy(one, inputMask)(entry)) })),
    }
  }
  if (isMessage(request, BatchCreateAmendedRequestSchema)) {
    return { kind: 'drafts', drafts: request.entries.map(({ entry }) => (entry ? factsOf(entry) : {})) }
  }
  if (isMessage(request, BatchUpdateAmendedRequestSchema)) {
    return {
      kind: 'entries',
      entries: request.entries.map((one) => ({ id: one.entry?.id ?? '', change: () => ifReadable(() => fromAmended(one)) })),
    }
  }
  if (isMessage(request, ListAdditionsRequestSchema)) return { kind: 'entries', entries: request.ids.map((id) => ({ id })) }
  if (isMessage(request, BatchDeleteEntryRequestSchema)) return { kind: 'entries', entries: request.ids.map((id) => ({ id })) }
  if (isMessage(request, GetEntryRequestSchema)) return { kind: 'entries', entries: [{ id: request.id }] }
  if (isMessage(request, CreateJoinTokenRequestSchema)) return aboutAgent(request.agentId)
  const isAboutAgent =
    isMessage(request, GetAgentRequestSchema) ||
    isMessage(request, DeleteAgentRequestSchema) ||
    isMessage(request, BanAgentRequestSchema) ||
    isMessage(request, ReleaseNodeRequestSchema)
  return isAboutAgent ? aboutAgent(request.id) : { kind: 'none' }
}

function aboutAgent(message: SPIFFEID | undefined): Subject {
  const id = ifReadable(() => fromSpiffeId('id', message))
  return { kind: 'agent', ...(id && { id }) }
}

function factsOf(entry: Entry): EntryFacts {
  const id = ifReadable(() => fromSpiffeId('spiffe_id', entry.spiffeId))
  const parentId = ifReadable(() => fromSpiffeId('parent_id', entry.parentId))
  return {
    ...(id && { spiffeId: id }),
    ...(parentId && { parentId }),
    x509SvidTtl: seconds(entry.x509SvidTtl),
    admin: entry.admin,
    downstream: entry.downstream,
  }
}

function ifReadable<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof Failure) return undefined
    throw error
  }
}

// --- small things

/** Seconds since 1970, or of a duration; 0 for none. */
export const toSeconds = (milliseconds: number | undefined): bigint => BigInt(Math.floor((milliseconds ?? 0) / seconds(1)))

/** @throws Failure `api.bad-time` */
function fromSeconds(field: string, value: bigint): Instant | undefined {
  if (value === 0n) return undefined
  if (value < 0n || value > maxSeconds)
    throw new Failure('invalid_argument', 'api.bad-time', { public: `field \`${field}\` is ${value}: expected seconds since 1970` })
  return seconds(Number(value))
}

/** `2006-01-02 15:04:05 -0700 -07`, the way Go prints a time. */
function fromGoTime(field: string, text: string): Instant {
  const parts = goTime.exec(text)
  const at = parts && parseInstant(`${parts[1]}T${parts[2]}${parts[3]}:${parts[4]}`)
  if (at === null || at === undefined) {
    throw new Failure('invalid_argument', 'api.bad-time', {
      public: `field \`${field}\` is \`${text.slice(0, 60)}\`: expected for example \`2026-01-02 15:04:05 +0000 UTC\``,
    })
  }
  return at
}

function fromMatch(field: string, match: number): ListMatch {
  const known = matches.get(match)
  if (!known) throw new Failure('invalid_argument', 'api.bad-match', { public: `field \`${field}\` has the unknown match ${match}` })
  return known
}

/** Keeps the fields that the mask names, and those that are always sent. Without a mask everything is sent. */
function masked<T extends object>(schema: DescMessage, mask: object | undefined, fields: T, always: readonly string[]): Partial<T> {
  if (!mask) return fields
  const wanted = mask as Readonly<Record<string, unknown>>
  const names = new Set([...always, ...schema.fields.map(({ localName }) => localName).filter((name) => wanted[name] === true)])
  return Object.fromEntries(Object.entries(fields).filter(([name]) => names.has(name))) as Partial<T>
}

/** Serial numbers are decimal on this wire. */
const decimal = (serial: string): string => (serial === '' ? '' : BigInt(`0x${serial}`).toString())

function inField<T>(field: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    throw new Failure(error.category, error.reason, {
      public: `field \`${field}\`: ${error.message}`,
      internal: error.internal,
      cause: error,
    })
  }
}

const matches: ReadonlyMap<number, ListMatch> = new Map([
  [MatchBehavior.MATCH_EXACT, 'exact'],
  [MatchBehavior.MATCH_SUBSET, 'subset'],
  [MatchBehavior.MATCH_SUPERSET, 'superset'],
  [MatchBehavior.MATCH_ANY, 'any'],
])
const goTime = /^(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2})(?:\.\d{1,9})? ([+-]\d{2})(\d{2}) (?:[A-Z]{1,5}|[+-]\d{2}(?:\d{2})?)$/
/** The year 9999. */
const maxSeconds = 253_402_300_799n
const maxText = 2048
const maxChain = 16
const maxAuthorities = 1000
const agentReasons: ReadonlyMap<string, PermissionDeniedDetails_Reason> = new Map([
  ['server.agent-expired', Reason.AGENT_EXPIRED],
  ['server.agent-not-attested', Reason.AGENT_NOT_ATTESTED],
  ['server.agent-not-active', Reason.AGENT_NOT_ACTIVE],
  ['server.agent-banned', Reason.AGENT_BANNED],
  ['server.agent-must-reattest', Reason.AGENT_MUST_REATTEST],
  // SPIRE has no word for it; its agent stops, which is what is meant.
  ['server.agent-cloned', Reason.AGENT_BANNED],
])
const callersMistakes: ReadonlySet<Category> = new Set([
  'invalid_argument',
  'not_found',
  'already_exists',
  'failed_precondition',
  'resource_exhausted',
])
const errorDomain = 'vidimus'
const reasonCode = /^[a-z0-9-]{1,40}\.[a-z0-9-]{1,60}$/
