/**
 * The evaluator: (policies of a workload, request) → decision. Total: whatever goes wrong is a denial with a reason.
 * Order: mTLS, token, CUSTOM, DENY, ALLOW, then refusal; in istio mode a workload that no ALLOW policy selects is open (authorization.md 1.1).
 */
import { tellChain } from '../kernel/failure.ts'
import { pathOf } from '../spiffe/id.ts'
import { celHolds, type CelFacts } from './cel.ts'
import { idMatches, type CompiledPolicies } from './compile.ts'
import type { CompiledRule } from './compiled-rule.ts'
import type { DecidingRule, Decision, DecisionReason } from './decision.ts'
import { blockHolds, globMatches, parseAddress, stringMatches, templateMatches, type StringMatch } from './matching.ts'
import { foldPath, isCanonicalPath, isPlainPath, normalizePath } from './normalize.ts'
import { isJoinedByEnvoy, leftByEnvoy } from './joined-headers.ts'
import { mtlsAt } from './mtls.ts'
import type {
  AddressClause,
  ClaimClause,
  Clause,
  FilterMetadataClause,
  HeaderClause,
  HostClause,
  PathClause,
  PeerClause,
  PeerMatch,
  PolicyAction,
  PolicyMode,
  RequestPrincipalClause,
} from './policy-set.ts'
import type { Claims, PolicyRequest } from './request.ts'
import { firstMatch, IndexKeys, type RuleIndex } from './rule-index.ts'

/** Decides one request at the workload that the policies were compiled for. */
export function decide(compiled: CompiledPolicies, request: PolicyRequest): Decision {
  try {
    return decideWith(compiled, see(compiled, request), findByIndex)
  } catch (cause) {
    return refusal('error', [tellChain(cause)])
  }
}

/** The same without the index: reads every rule. What {@link decide} must always agree with. */
export function decideByReading(compiled: CompiledPolicies, request: PolicyRequest): Decision {
  try {
    return decideWith(compiled, see(compiled, request), findByReading)
  } catch (cause) {
    return refusal('error', [tellChain(cause)])
  }
}

/** The number of the first rule that matches, -1 if none does. */
type Find = (rules: readonly CompiledRule[], index: RuleIndex, seen: SeenRequest) => number
const findByReading: Find = (rules, _, seen) => rules.findIndex((rule) => ruleMatches(rule, seen))
const findByIndex: Find = (rules, index, seen) =>
  seen.keys ? firstMatch(index, seen.keys, rules, seen, ruleMatches) : findByReading(rules, index, seen)

/** The request as rules see it. For `explain.ts`. */
export interface SeenRequest {
  readonly mode: PolicyMode
  readonly request: PolicyRequest
  /** Every name that the peer's certificate may be known by; empty without a verified peer. */
  readonly peers: readonly string[]
  /** Normalised, in strict mode folded. Undefined: no HTTP, or a path that nobody compares and that cannot be read in one way. */
  readonly path?: string | undefined
  /** In lower case, and in strict mode without a trailing dot; `bare` is without its port. Undefined: no HTTP. */
  readonly host?: SeenHost | undefined
  readonly sourceIp?: readonly number[] | undefined
  readonly remoteIp?: readonly number[] | undefined
  readonly destinationIp?: readonly number[] | undefined
  /** The verified token's, with those that are lists written with spaces cut into lists. Undefined: no token. */
  readonly claims?: Claims | undefined
  /** Why the request is refused whatever the rules say. */
  readonly malformed?: string | undefined
  /** Undefined where the index cannot be used because something it asks for is not known. */
  readonly keys?: IndexKeys | undefined
}

export interface SeenHost {
  readonly whole: string
  readonly bare: string
}

type Reading = Pick<CompiledPolicies, 'mode' | 'pathNormalization' | 'knownMethods' | 'comparesPaths' | 'tokens'>

/** Reads a request once, the way that all rules compare it. What few rules ask about is read when one does. */
export function see(compiled: Reading, request: PolicyRequest): SeenRequest {
  return new Seen(compiled, request)
}

class Seen implements SeenRequest {
  readonly mode: PolicyMode
  readonly request: PolicyRequest
  readonly peers: readonly string[]
  readonly path: string | undefined
  readonly host: SeenHost | undefined
  readonly malformed: string | undefined
  readonly keys: IndexKeys | undefined
  readonly #tokens: CompiledPolicies['tokens']
  #claims: Claims | undefined

  constructor(compiled: Reading, request: PolicyRequest) {
    const { mode } = compiled
    const { http, peer } = request
    this.mode = mode
    this.request = request
    this.#tokens = compiled.tokens
    this.peers = peer ? (mode === 'strict' ? [peer.spiffeId] : (peer.names ?? [peer.spiffeId])) : nobody
    this.path = http && (mode === 'strict' ? strictPath(http.path) : normalizePath(http.path, compiled.pathNormalization))
    this.host = http && (mode === 'strict' ? strictHost(http.host) : istioHost(http.host))
    this.malformed =
      http &&
      (mode === 'strict'
        ? strictRefusal(compiled, http, this.path, this.host)
        : this.path === undefined
          ? 'the path cannot be normalised'
          : undefined)
    this.keys =
      http && this.path !== undefined
        ? new IndexKeys(
            this.path,
            peer && peer.names && mode === 'istio' ? [...new Set([peer.spiffeId, ...peer.names])] : this.peers,
            http.method,
          )
        : undefined
  }

  get sourceIp(): readonly number[] | undefined {
    return addressOf(this.request.sourceIp)
  }

  get remoteIp(): readonly number[] | undefined {
    return addressOf(this.request.remoteIp ?? this.request.sourceIp)
  }

  get destinationIp(): readonly number[] | undefined {
    return addressOf(this.request.destinationIp)
  }

  get claims(): Claims | undefined {
    const { token } = this.request
    return token && (this.#claims ??= cutAtSpaces(token.claims, this.#tokens))
  }
}

const nobody: readonly string[] = []
const addressOf = (text: string | undefined): readonly number[] | undefined => (text === undefined ? undefined : parseAddress(text))

/** True if a rule matches. */
export function ruleMatches(rule: CompiledRule, seen: SeenRequest): boolean {
  if (rule.requirePeer && seen.peers.length === 0) return false
  if (rule.needsHttp && seen.mode === 'istio' && rule.action === 'ALLOW' && !seen.request.http) return false
  return (
    oneTermHolds(rule.sources, rule.action, seen) &&
    oneTermHolds(rule.operations, rule.action, seen) &&
    everyClauseHolds(rule.conditions, rule.action, seen) &&
    (!rule.cel || celHolds(rule.cel.tree, celFactsOf(seen), rule.action !== 'ALLOW'))
  )
}

/** What a condition in CEL can ask about. */
export function celFactsOf({ request, peers, path }: SeenRequest): CelFacts {
  const { http } = request
  const texts = {
    'request.method': http?.method,
    'request.url_path': path,
    'connection.requested_server_name': request.sni === '' ? undefined : request.sni,
    'connection.uri_san_peer_certificate': peers[0],
  }
  return {
    text: (attribute) => texts[attribute],
    header: (name) => http && (http.headers.get(name) ?? []),
    port: request.destinationPort,
    mtls: peers.length > 0,
  }
}

function oneTermHolds(terms: 'any' | readonly (readonly Clause[])[], action: PolicyAction, seen: SeenRequest): boolean {
  if (terms === 'any') return true
  for (const term of terms) if (everyClauseHolds(term, action, seen)) return true
  return false
}

function everyClauseHolds(clauses: readonly Clause[], action: PolicyAction, seen: SeenRequest): boolean {
  for (const clause of clauses) if (!clauseHolds(clause, action, seen)) return false
  return true
}

/**
 * True if one clause of a rule holds. What is not known is decided on the refusing side:
 * a clause about it fails in an ALLOW rule and holds in every other, negated or not (authorization.md 2; authorization.md 1.7 for HTTP on plain connections).
 */
export function clauseHolds(clause: Clause, action: PolicyAction, seen: SeenRequest): boolean {
  const unknown = action !== 'ALLOW'
  switch (clause.on) {
    case 'peer':
      return peerHolds(clause, action, seen)
    case 'source.ip':
      return addressHolds(clause, seen.sourceIp, unknown)
    case 'remote.ip':
      return addressHolds(clause, seen.remoteIp, unknown)
    case 'destination.ip':
      return addressHolds(clause, seen.destinationIp, unknown)
    case 'destination.port': {
      const port = seen.request.destinationPort
      return port === undefined ? unknown : clause.anyOf.includes(port) !== clause.not
    }
    case 'connection.sni': {
      // Without a name Envoy compares the empty text.
      const sni = seen.request.sni ?? (seen.mode === 'istio' ? '' : undefined)
      return sni === undefined ? unknown : clause.anyOf.some((match) => notEmptyMatches(match, sni)) !== clause.not
    }
    case 'method': {
      const http = seen.request.http
      return http === undefined ? unknown : clause.anyOf.some((match) => stringMatches(match, http.method)) !== clause.not
    }
    case 'host':
      return hostHolds(clause, seen, unknown)
    case 'path':
      return pathHolds(clause, seen, unknown)
    case 'header':
      return headerHolds(clause, action, seen)
    case 'request.auth.principal':
    case 'claim':
      return tokenHolds(clause, action, seen)
    case 'filter-metadata':
      return filterMetadataHolds(clause, action, seen)
    case 'attested':
    case 'caller':
    case 'entry.spiffeId':
    case 'entry.parentId':
    case 'entry.x509Ttl':
    case 'entry.admin':
    case 'entry.downstream':
    case 'agent.id':
    case 'trustDomain':
      throw new Error(`bug: \`${clause.on}\` in a rule for a workload`)
    default:
      throw new Error(`bug: clause ${JSON.stringify(clause satisfies never)}`)
  }
}

function decideWith(compiled: CompiledPolicies, seen: SeenRequest, find: Find): Decision {
  const decision = verdict(compiled, seen, find)
  if (compiled.audit.length === 0 || decision.reason === 'malformed-request') return decision
  const audited = compiled.audit.filter((rule) => ruleMatches(rule, seen)).map(named)
  return audited.length === 0 ? decision : { ...decision, audited }
}

function verdict(compiled: CompiledPolicies, seen: SeenRequest, find: Find): Decision {
  const { request } = seen
  if (seen.malformed !== undefined) return refusal('malformed-request', [seen.malformed])
  if (!request.peer && mtlsAt(compiled.mtls, request.destinationPort) === 'STRICT') return refusal('plaintext-refused')
  if (request.token && request.http && compiled.tokens.length > 0 && !tokenTaken(request.token.claims, compiled.tokens))
    return refusal('token-refused')
  const refused = compiled.custom.length > 0 ? refusedByProvider(compiled, seen) : undefined
  if (refused) return refused
  const denying = find(compiled.deny, compiled.index.deny, seen)
  if (denying !== -1) return decidedBy(compiled.deny[denying]!)
  const allowing = find(compiled.allow, compiled.index.allow, seen)
  if (allowing !== -1) return decidedBy(compiled.allow[allowing]!)
  if (compiled.allowSelected) return refusal('no-rule-matched')
  if (compiled.mode === 'istio') return { allowed: true, reason: 'open', decidedBy: [], errors: [] }
  return refusal('no-policy')
}

/** Every provider that a rule asks must allow. Where rules name several, Istio asks none of them and refuses what they match (authorization.md 1.8). */
function refusedByProvider({ custom, mode }: CompiledPolicies, seen: SeenRequest): Decision | undefined {
  const asking = custom.filter((rule) => ruleMatches(rule, seen))
  const severalProviders = mode === 'istio' && new Set(custom.map(({ provider }) => provider)).size > 1
  const answers = seen.request.providers ?? {}
  for (const rule of asking) {
    const answer = Object.hasOwn(answers, rule.provider!) ? answers[rule.provider!] : undefined
    const refused = { allowed: false, decidedBy: [named(rule)] }
    if (severalProviders)
      return { ...refused, reason: 'provider-denied', errors: ['CUSTOM policies of one workload name several providers'] }
    if (answer === 'denied') return { ...refused, reason: 'provider-denied', errors: [] }
    if (answer !== 'allowed')
      return { ...refused, reason: 'provider-silent', errors: [`the provider \`${rule.provider}\` has not answered`] }
  }
  return undefined
}

/** Strict: typed, and an unauthenticated peer never satisfies a negation in ALLOW, always in DENY. Istio: NOT(nothing) is true. */
function peerHolds(clause: PeerClause, action: PolicyAction, seen: SeenRequest): boolean {
  if (seen.peers.length === 0) return clause.not && (action !== 'ALLOW' || seen.mode === 'istio')
  const holds = clause.anyOf.some((match) => seen.peers.some((name) => peerMatches(match, name, seen)))
  return holds !== clause.not
}

function peerMatches(match: PeerMatch, name: string, { mode, request }: SeenRequest): boolean {
  switch (match.kind) {
    case 'any':
      return true
    case 'id':
    case 'template':
      return idMatches(match, request.peer!.spiffeId)
    case 'below':
      return name.startsWith(match.prefix)
    case 'ending':
      return pathOf(request.peer!.spiffeId).endsWith(match.suffix)
    case 'namespace':
      return mode === 'strict'
        ? canonicalAccount(name, (namespace) => globMatches(match.glob, namespace))
        : globMatches(`*/ns/${match.glob}/*`, name)
    case 'trust-domain':
      return trustDomainHolds(match.glob, mode === 'strict' ? request.peer!.spiffeId : name)
    case 'service-account':
      return mode === 'strict'
        ? canonicalAccount(name, (namespace, account) => namespace === match.namespace && account === match.name)
        : istioAccountMatches(match.namespace, match.name, name)
    case 'principal':
      return istioPrincipalMatches(match.match, name)
    default:
      throw new Error(`bug: peer match ${JSON.stringify(match satisfies never)}`)
  }
}

function trustDomainHolds(glob: string, name: string): boolean {
  if (!name.startsWith(scheme)) return false
  const end = name.indexOf('/', scheme.length)
  return glob === '*' || (end !== -1 && globMatches(glob, name.slice(scheme.length, end)))
}

/** `/ns/<namespace>/sa/<account>` and nothing else. */
function canonicalAccount(id: string, test: (namespace: string, account: string) => boolean): boolean {
  const segments = id.split('/')
  return segments.length === 7 && segments[3] === 'ns' && segments[5] === 'sa' && test(segments[4]!, segments[6]!)
}

/** authorization.md 1.3: `*` has no `spiffe://` put before it. */
function istioPrincipalMatches(match: StringMatch, name: string): boolean {
  switch (match.kind) {
    case 'present':
      return name !== ''
    case 'suffix':
      return name.startsWith(scheme) && name.slice(scheme.length).endsWith(match.value)
    case 'prefix':
      return name.startsWith(scheme + match.value)
    case 'exact':
      return name === scheme + match.value
    default:
      throw new Error(`bug: principal ${JSON.stringify(match satisfies never)}`)
  }
}

/** `spiffe://.+/ns/<namespace>/(.+/|)sa/<account>(/.+)?` (authorization.md 1.3). */
function istioAccountMatches(namespace: string, account: string, name: string): boolean {
  const inNamespace = `/ns/${namespace}/`
  const isAccount = `sa/${account}`
  if (!name.startsWith(scheme)) return false
  for (let at = name.indexOf(inNamespace, scheme.length + 1); at !== -1; at = name.indexOf(inNamespace, at + 1)) {
    const rest = name.slice(at + inNamespace.length)
    for (let found = rest.indexOf(isAccount); found !== -1; found = rest.indexOf(isAccount, found + 1)) {
      const after = rest.slice(found + isAccount.length)
      const begins = found === 0 || (found > 1 && rest[found - 1] === '/')
      if (begins && (after === '' || (after.startsWith('/') && after.length > 1))) return true
    }
  }
  return false
}

function addressHolds(clause: AddressClause, address: readonly number[] | undefined, unknown: boolean): boolean {
  return address === undefined ? unknown : clause.anyOf.some((block) => blockHolds(block, address)) !== clause.not
}

/** Strict: a pattern without a port is compared with the host alone. Istio: with what was sent (authorization.md 1.8). */
function hostHolds(clause: HostClause, { host, mode }: SeenRequest, unknown: boolean): boolean {
  if (!host) return unknown
  const compared = (match: StringMatch) => (mode === 'strict' && !namesPort(match) ? host.bare : host.whole)
  return clause.anyOf.some((match) => stringMatches(match, compared(match))) !== clause.not
}

/** True if a host pattern says something about the port. A strict pattern that does is compared with host and port as sent. */
export function namesPort(match: StringMatch): boolean {
  return match.kind !== 'present' && match.value.replace(/\[[^\]]*\]?/, '').includes(':')
}

function pathHolds(clause: PathClause, { path, mode }: SeenRequest, unknown: boolean): boolean {
  if (path === undefined) return unknown
  const holds = clause.anyOf.some((match) =>
    match.kind === 'template' ? templateMatches(match, path, mode === 'istio') : notEmptyMatches(match, path),
  )
  return holds !== clause.not
}

/**
 * A header may be there several times. Strict: ALLOW needs every value to agree, DENY one of them; what is not there has no value that could match,
 * so it satisfies a negation. Istio: one value is enough, and a negation is the opposite.
 * Several that a proxy cannot tell apart are on the refusing side.
 */
function headerHolds(clause: HeaderClause, action: PolicyAction, seen: SeenRequest): boolean {
  const { http } = seen.request
  if (!http) return action !== 'ALLOW'
  const values = headerNamed(clause.name, http, seen)
  const matches = (value: string) => clause.anyOf.some((match) => stringMatches(match, value))
  if (seen.mode === 'istio') return values.some(matches) !== clause.not
  if (values.length === 0) return clause.not
  if (wantsOneValue(clause, action)) return (values.length === 1 && matches(values[0]!) && !mayBeSeveral(clause, values[0]!)) !== clause.not
  return action === 'ALLOW' ? values.every((value) => matches(value) !== clause.not) : values.some((value) => matches(value) !== clause.not)
}

/** Whether each value of a header must match in strict mode, where a proxy sees but one value, with commas. */
export const wantsOneValue = ({ name, anyOf, not }: HeaderClause, action: PolicyAction): boolean =>
  not === (action !== 'ALLOW') && isJoinedByEnvoy(name) && !anyOf.some(({ kind }) => kind === 'present')

/** A value with a comma may be two, unless all of it was named. */
const mayBeSeveral = (clause: HeaderClause, value: string): boolean => asksForParts(clause) && value.includes(',')
/** Whether a clause names parts of values, so that a comma within one may stand between two. */
export const asksForParts = ({ anyOf }: HeaderClause): boolean => anyOf.some(({ kind }) => kind !== 'exact')

/** Without a token: as without a peer. One value of a claim is enough, in both modes; a claim that is not there has no value. */
function tokenHolds(clause: RequestPrincipalClause | ClaimClause, action: PolicyAction, { request, claims, mode }: SeenRequest): boolean {
  if (!request.http) return action !== 'ALLOW'
  if (!claims) return clause.not && (action !== 'ALLOW' || mode === 'istio')
  if (clause.on === 'claim') {
    const value = claimAt(claims, clause.path)
    const values: readonly unknown[] = Array.isArray(value) ? value : [value]
    return values.some((one) => typeof one === 'string' && clause.anyOf.some((match) => notEmptyMatches(match, one))) !== clause.not
  }
  const [issuer, subject] = [claimAt(claims, ['iss']), claimAt(claims, ['sub'])]
  const named = (match: StringMatch, text: unknown) => typeof text === 'string' && notEmptyMatches(match, text)
  return clause.anyOf.some((match) => named(match.issuer, issuer) && named(match.subject, subject)) !== clause.not
}

/** What another filter did not say is not known. */
function filterMetadataHolds(clause: FilterMetadataClause, action: PolicyAction, { request, mode }: SeenRequest): boolean {
  const value = claimAt(request.filterMetadata ?? {}, [clause.filter, clause.key])
  if (value === undefined && mode === 'strict') return action !== 'ALLOW'
  const found = ({ inList, match }: (typeof clause.anyOf)[number]) =>
    (inList ? (Array.isArray(value) ? value : []) : [value]).some((one) => typeof one === 'string' && notEmptyMatches(match, one))
  return clause.anyOf.some(found) !== clause.not
}

/** own keys alone. */
function claimAt(claims: Claims, path: readonly string[]): unknown {
  return path.reduce<unknown>((value, key) => (isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined), claims)
}

const isObject = (value: unknown): value is Claims => typeof value === 'object' && value !== null && !Array.isArray(value)

/** authorization.md 1.3: a list that is written as words becomes one, before anything is compared. */
export function cutAtSpaces(claims: Claims, tokens: CompiledPolicies['tokens']): Claims {
  const own = tokens.filter(({ issuer }) => issuer === claims['iss']).flatMap(({ spaceDelimitedClaims }) => spaceDelimitedClaims)
  const cut = ['scope', 'permission', ...own].flatMap((name): [string, readonly string[]][] => {
    const value = claimAt(claims, [name])
    return typeof value === 'string' ? [[name, value.split(' ').filter((word) => word !== '')]] : []
  })
  return cut.length === 0 ? claims : { ...claims, ...Object.fromEntries(cut) }
}

function tokenTaken(claims: Claims, tokens: CompiledPolicies['tokens']): boolean {
  const value = claimAt(claims, ['aud'])
  const audiences: readonly unknown[] = Array.isArray(value) ? value : [value]
  return tokens.some(
    (token) =>
      token.issuer === claimAt(claims, ['iss']) && (token.audiences.length === 0 || token.audiences.some((one) => audiences.includes(one))),
  )
}

/** Envoy finds pseudo headers, and `host`, among the headers. Strict mode has no such keys. */
function headerNamed(name: string, http: NonNullable<PolicyRequest['http']>, seen: SeenRequest): readonly string[] {
  if (seen.mode === 'istio') {
    if (name === ':authority' || name === 'host') return [http.host]
    if (name === ':method') return [http.method]
    if (name === ':path') return [`${seen.path ?? ''}${/\?.*/s.exec(http.path)?.[0] ?? ''}`]
  }
  const values = http.headers.get(name) ?? []
  if (values.length < 2) return values
  if (seen.mode === 'strict') return name === 'authorization' ? leftByEnvoy(values) : values
  return isJoinedByEnvoy(name) ? [leftByEnvoy(values).join(',')] : values
}

/** Paths and server names: `*` wants a text that is not empty (authorization.md 1.3). */
function notEmptyMatches(match: StringMatch, text: string): boolean {
  return match.kind === 'present' ? text !== '' : stringMatches(match, text)
}

/** one path has one spelling. Undefined where it has none. */
function strictPath(sent: string): string | undefined {
  if (isPlainPath(sent)) return sent
  const normal = normalizePath(sent, 'decode-and-merge-slashes')
  return normal !== undefined && isCanonicalPath(normal) ? foldPath(normal) : undefined
}

/** one host has one spelling. Undefined where it has none. */
function strictHost(sent: string): SeenHost | undefined {
  return recall(strictHosts, sent, () => {
    const parts = hostAndPort.exec(sent.toLowerCase())
    if (!parts) return undefined
    const bare = parts[1]!.replace(/\.$/, '')
    return { bare, whole: `${bare}${parts[2] ?? ''}` }
  })
}

function istioHost(sent: string): SeenHost {
  return recall(istioHosts, sent, () => ({ whole: sent.toLowerCase(), bare: sent.toLowerCase() }))
}

/** A workload is called by few names, again and again. */
const strictHosts = new Map<string, SeenHost | undefined>()
const istioHosts = new Map<string, SeenHost>()

function recall<T>(known: Map<string, T>, name: string, read: () => T): T {
  const found = known.get(name)
  if (found !== undefined) return found
  const made = read()
  if (known.size >= maxRecalled) known.clear()
  if (name.length <= maxName) known.set(name, made)
  return made
}

/** refused before any rule is read. */
function strictRefusal(
  compiled: Pick<CompiledPolicies, 'knownMethods' | 'comparesPaths'>,
  http: NonNullable<PolicyRequest['http']>,
  path: string | undefined,
  host: SeenHost | undefined,
): string | undefined {
  if (!host) return 'the host cannot be read'
  if (path === undefined && compiled.comparesPaths) return 'the path can be read in more than one way'
  if (!compiled.knownMethods.includes(http.method)) return 'the method is not one that HTTP registers, and no rule names it'
  if (leftByEnvoy(http.headers.get('authorization') ?? []).length > 1) return 'there is more than one `authorization` header'
  return undefined
}

function decidedBy(rule: CompiledRule): Decision {
  const allowed = rule.action === 'ALLOW'
  return { allowed, reason: allowed ? 'allowed' : 'denied', decidedBy: [named(rule)], errors: [] }
}

const named = ({ id, policy, rule }: CompiledRule): DecidingRule => ({ id, policy, rule })

function refusal(reason: DecisionReason, errors: readonly string[] = []): Decision {
  return { allowed: false, reason, decidedBy: [], errors }
}

const scheme = 'spiffe://'
/** The hosts that strict mode takes, as the source of a full match in RE2: RFC 3986 section 3.2.2, registered names without escapes. */
export const hostPattern = '(?i:\\[[0-9a-f:.]+\\]|[a-z0-9._-]*[a-z0-9_-]\\.?)(?::[0-9]+)?'
const hostAndPort = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]*[a-z0-9_-]\.?)(:[0-9]+)?$/
const maxRecalled = 256
/** RFC 1035 section 2.3.4, with a port. */
const maxName = 261
