/**
 * The language of policies: YAML of `security.istio.io/v1` and `vidimus.dev/v1` in, {@link Policy} out (authorization.md 1.2 to 1.8, authorization.md 2).
 * What a policy is made of stands here, its fields in `fields.ts`. Whatever is not understood is an error with its place; nothing is skipped.
 */
import { parseInstant, type Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { readPeerAuthentication, readRequestAuthentication } from './authentication.ts'
import { readRule, refuseOurKeys } from './fields.ts'
import type { PathNormalization } from './normalize.ts'
import type {
  PeerAuthentication,
  Policy,
  PolicyAction,
  PolicyDocument,
  PolicyMode,
  PolicySet,
  PolicyTarget,
  RequestAuthentication,
  Rule,
  Selection,
} from './policy-set.ts'
import { policySet } from './policy-set.ts'
import {
  dnsLabel,
  dnsSubdomain,
  istioVersion,
  limits,
  listOf,
  mapOf,
  oneOf,
  ourVersion,
  readIdMatch,
  readMoment,
  readSelector,
  readTargetRefs,
  readValues,
  textAt,
  textOf,
  type PolicyReading,
  type Reading,
} from './reading.ts'
import { Problems, readYaml, refuseUnknownKeys, suggestion, tell, type MapTree, type Problem, type Tree } from './yaml-tree.ts'

export interface LanguageOptions {
  /** `strict` by default. */
  readonly mode?: PolicyMode
  /** The namespace whose policies apply everywhere: `istio-system` by default. */
  readonly rootNamespace?: string
  /** What the proxies do to paths. Strict mode has `decode-and-merge-slashes` only; istio mode has `base` by default, as Istio. */
  readonly pathNormalization?: PathNormalization
  /** Other names of a workload's own trust domain (authorization.md 1.8). */
  readonly trustDomainAliases?: readonly TrustDomain[]
}

/**
 * What was read before, for who reads one set after the other: reading YAML is most of the work, and of the next set most documents are the same.
 * It holds as many characters as four of the largest sets that a server takes; the oldest goes first.
 */
export class ReadBefore {
  readonly #documents = new Map<string, FoundInDocument>()
  #characters = 0

  /** What a document holds in which nothing was wrong. */
  find(key: string): FoundInDocument | undefined {
    const found = this.#documents.get(key)
    if (!found) return undefined
    this.#documents.delete(key)
    this.#documents.set(key, found)
    return found
  }

  keep(key: string, found: FoundInDocument): void {
    this.#documents.set(key, found)
    this.#characters += key.length
    for (const oldest of this.#documents.keys()) {
      if (this.#characters <= maxRememberedCharacters) return
      this.#documents.delete(oldest)
      this.#characters -= oldest.length
    }
  }
}

/**
 * Reads and checks policies together.
 * @param before what need not be read again: of the same documents comes the same set
 * @throws Failure `policy.invalid`; `internal.problems` is a list of {@link Problem}
 */
export function parsePolicySet(documents: readonly PolicyDocument[], options: LanguageOptions = {}, before?: ReadBefore): PolicySet {
  const { set, problems } = checkPolicies(documents, options, before)
  if (set) return set
  const told = problems.slice(0, shownProblems).map(tellProblem)
  const more = problems.length > shownProblems ? [`and ${problems.length - shownProblems} more`] : []
  throw new Failure('invalid_argument', 'policy.invalid', { public: [...told, ...more].join('; '), internal: { problems } })
}

/** Reads and checks policies together: a set, or everything that is wrong with every document, in order. */
export function checkPolicies(
  documents: readonly PolicyDocument[],
  options: LanguageOptions = {},
  before?: ReadBefore,
): { readonly set?: PolicySet; readonly problems: readonly Problem[] } {
  const mode = options.mode ?? 'strict'
  const pathNormalization = options.pathNormalization ?? (mode === 'strict' ? 'decode-and-merge-slashes' : 'base')
  const rootNamespace = options.rootNamespace ?? 'istio-system'
  const problems = new Problems()
  const whole = { path: '', place: { document: documents[0]?.name ?? '', line: 1, column: 1 } }
  if (mode === 'strict' && pathNormalization !== 'decode-and-merge-slashes') {
    problems.add(whole, `strict mode needs the path normalization \`decode-and-merge-slashes\`, found \`${pathNormalization}\``)
  }
  if (documents.length > limits.documents) problems.add(whole, `at most ${limits.documents} documents, found ${documents.length}`)

  const found = nothingFound()
  const kept: PolicyDocument[] = []
  for (const document of documents.slice(0, limits.documents)) {
    const inDocument = readDocument(document, { problems, mode, rootNamespace }, before)
    if (inDocument === 'tests') continue
    kept.push(document)
    found.policies.push(...inDocument.policies)
    found.peerAuthentications.push(...inDocument.peerAuthentications)
    found.requestAuthentications.push(...inDocument.requestAuthentications)
  }
  const count = found.policies.length + found.peerAuthentications.length + found.requestAuthentications.length
  if (count > limits.policies) problems.add(whole, `at most ${limits.policies} policies, found ${count}`)
  refuseTwins(found, problems)
  if (problems.all.length > 0) return { problems: problems.all }
  const trustDomainAliases = options.trustDomainAliases ?? []
  return { set: policySet({ mode, rootNamespace, pathNormalization, trustDomainAliases, ...found, documents: kept }), problems: [] }
}

/** What the documents hold. */
interface Found {
  readonly policies: Policy[]
  readonly peerAuthentications: PeerAuthentication[]
  readonly requestAuthentications: RequestAuthentication[]
}

type FoundInDocument = Found | 'tests'
const nothingFound = (): Found => ({ policies: [], peerAuthentications: [], requestAuthentications: [] })

function readDocument(document: PolicyDocument, reading: Reading, before: ReadBefore | undefined): FoundInDocument {
  const key = `${reading.mode} ${reading.rootNamespace}\n${document.name}\n${document.text}`
  const known = before?.find(key)
  if (known) return known
  const trees = readYaml(document, reading.problems)
  const found = trees.length > 0 && trees.every(isPolicyTest) ? 'tests' : nothingFound()
  if (found !== 'tests') for (const tree of trees) if (!isPolicyTest(tree)) readKind(tree, reading, found)
  if (reading.problems.all.length === 0) before?.keep(key, found)
  return found
}

/** A problem on one line: `orders.yaml:7:12: spec.rules[0].to[0].operation.paths[1]: expected …`. */
export function tellProblem(problem: Problem): string {
  const where = `${problem.document}:${problem.line}:${problem.column}`
  return problem.path === '' ? `${where}: ${problem.message}` : `${where}: ${problem.path}: ${problem.message}`
}

/** True for the kind that `test-file.ts` reads: no policy, and allowed to stand beside them. */
export function isPolicyTest(tree: MapTree): boolean {
  return textAt(tree, 'apiVersion') === ourVersion && textAt(tree, 'kind') === 'PolicyTest'
}

function readKind(tree: MapTree, reading: Reading, found: Found): void {
  const { problems } = reading
  refuseUnknownKeys(tree, ['apiVersion', 'kind', 'metadata', 'spec', 'status'], problems)
  const apiVersion = oneOf(tree, 'apiVersion', [istioVersion, ourVersion] as const, problems)
  const kind = textOf(tree, 'kind', problems)
  const kinds = apiVersion === ourVersion ? ['AuthorizationPolicy'] : ['AuthorizationPolicy', 'PeerAuthentication', 'RequestAuthentication']
  if (kind && !kinds.includes(kind.text)) return problems.add(kind, `unknown kind ${tell(kind)}${suggestion(kind.text, kinds)}`)
  const spec = mapOf(tree, 'spec', problems)
  if (!apiVersion || !kind || !spec) return
  if (kind.text === 'AuthorizationPolicy') {
    const policy = readPolicy(tree, spec, apiVersion, reading)
    if (policy) found.policies.push(policy)
    return
  }
  const { name, namespace, createdAt } = readMetadata(tree, 'workload', problems)
  if (namespace === '')
    problems.add(tree.entries.get('metadata') ?? tree, 'expected `metadata.namespace`, to say which workloads it is for')
  if (name === undefined || namespace === '') return
  const named = { name, namespace, ...(createdAt === undefined ? {} : { createdAt }) }
  if (kind.text === 'PeerAuthentication') found.peerAuthentications.push(readPeerAuthentication(tree, spec, named, reading))
  else found.requestAuthentications.push(readRequestAuthentication(tree, spec, named, reading))
}

function readPolicy(tree: MapTree, spec: MapTree, apiVersion: Policy['apiVersion'], reading: Reading): Policy | undefined {
  const { problems } = reading
  const ours = apiVersion === ourVersion
  if (!ours) refuseOurKeys(spec, ourSpecKeys, problems)
  refuseUnknownKeys(spec, ours ? [...istioSpecKeys, ...ourSpecKeys] : istioSpecKeys, problems, ourSpecKeys)
  const target = ours && spec.entries.has('target') ? readTarget(spec, problems) : 'workload'
  const action = spec.entries.has('action') ? readAction(spec, target, problems) : 'ALLOW'
  const { name, namespace, dryRun } = readMetadata(tree, target ?? 'workload', problems)
  const provider = readProvider(spec, action, problems)
  if (dryRun && (action === 'AUDIT' || action === 'CUSTOM') && reading.mode === 'strict') {
    problems.add(dryRun, `\`istio.io/dry-run\` is for ALLOW and DENY: nothing reports what \`${action}\` would have done`)
  }
  const requirePeer = readRequirePeer(spec, { ours, target, action }, problems)
  const expires = spec.entries.has('expires') ? readExpires(spec, problems) : undefined
  const selection = readSelection(
    spec,
    tree,
    { ours, target: target ?? 'workload', namespace, rootNamespace: reading.rootNamespace },
    problems,
  )
  const rules = readRules(spec, action ?? 'ALLOW', { ...reading, ours, target: target ?? 'workload', namespace })
  if (!target || !action || name === undefined || !selection) return undefined
  return {
    apiVersion,
    namespace,
    name,
    action,
    ...(provider === undefined ? {} : { provider }),
    target,
    dryRun: dryRun !== undefined,
    selection,
    requirePeer,
    ...(expires === undefined ? {} : { expires }),
    rules,
    place: tree.place,
  }
}

interface Metadata {
  readonly name?: string
  readonly namespace: string
  readonly createdAt?: Instant
  /** Where it says so. */
  readonly dryRun?: Tree
}

function readMetadata(tree: MapTree, target: PolicyTarget, problems: Problems): Metadata {
  const metadata = mapOf(tree, 'metadata', problems)
  if (!metadata) return { namespace: '' }
  refuseUnknownKeys(metadata, metadataKeys, problems)
  const dryRun = readDryRun(metadata, problems)
  const name = textOf(metadata, 'name', problems)
  if (name && (name.text.length > limits.name || !dnsSubdomain.test(name.text))) {
    problems.add(name, `expected a name of lower-case letters, digits, \`-\` and \`.\`, found ${tell(name)}`)
  }
  const namespace = metadata.entries.has('namespace') ? textOf(metadata, 'namespace', problems) : undefined
  if (namespace && target !== 'workload') problems.add(namespace, `a policy of ${told[target]} has no namespace`)
  if (namespace && !dnsLabel.test(namespace.text)) {
    problems.add(namespace, `expected a namespace of at most 63 lower-case letters, digits and \`-\`, found ${tell(namespace)}`)
  }
  const created = textAt(metadata, 'creationTimestamp')
  const createdAt = created === undefined ? undefined : parseInstant(created)
  return {
    ...(name ? { name: name.text } : {}),
    namespace: namespace?.text ?? '',
    ...(createdAt === undefined ? {} : { createdAt }),
    ...(dryRun && { dryRun }),
  }
}

/** The annotation, if it says yes the way Go's `strconv.ParseBool` reads it. */
function readDryRun(metadata: MapTree, problems: Problems): Tree | undefined {
  const annotations = metadata.entries.get('annotations')
  const dryRun = annotations?.kind === 'map' ? annotations.entries.get('istio.io/dry-run') : undefined
  if (!dryRun) return undefined
  if (dryRun.kind === 'text' && /^(?:1|t|T|TRUE|true|True)$/.test(dryRun.text)) return dryRun
  if (dryRun.kind !== 'text' || !/^(?:0|f|F|FALSE|false|False)$/.test(dryRun.text))
    problems.add(dryRun, `expected \`"true"\` or \`"false"\`, found ${tell(dryRun)}`)
  return undefined
}

function readTarget(spec: MapTree, problems: Problems): PolicyTarget | undefined {
  return oneOf(spec, 'target', ['serverApi', 'onboarding'] as const, problems)
}

function readAction(spec: MapTree, target: PolicyTarget | undefined, problems: Problems): PolicyAction | undefined {
  const choices: readonly PolicyAction[] = target === 'workload' ? ['ALLOW', 'DENY', 'AUDIT', 'CUSTOM'] : ['ALLOW', 'DENY']
  return oneOf(spec, 'action', choices, problems)
}

/** `provider` belongs to CUSTOM, and CUSTOM to a provider. */
function readProvider(spec: MapTree, action: PolicyAction | undefined, problems: Problems): string | undefined {
  const provider = spec.entries.get('provider')
  if (action !== 'CUSTOM') return provider && problems.add(provider, '`provider` belongs to the action `CUSTOM`')
  if (!provider) return problems.add(spec, 'a CUSTOM policy needs `provider`, to say who is asked')
  if (provider.kind !== 'map') return problems.add(provider, `expected a map with \`name\`, found ${tell(provider)}`)
  refuseUnknownKeys(provider, ['name'], problems)
  const name = textOf(provider, 'name', problems)
  if (name?.text === '') problems.add(name, 'expected the name of a provider, found an empty text')
  return name?.text
}

function readRequirePeer(
  spec: MapTree,
  { ours, target, action }: { ours: boolean; target: PolicyTarget | undefined; action: PolicyAction | undefined },
  problems: Problems,
): boolean {
  const given = spec.entries.get('requirePeer')
  if (!given) return ours && target === 'workload' && action === 'ALLOW'
  if (target === 'serverApi') problems.add(given, '`requirePeer` is for workloads: the server API has `callers`')
  if (target === 'onboarding') problems.add(given, '`requirePeer` is for workloads: a node that asks to be admitted has no identity')
  if (action !== undefined && action !== 'ALLOW')
    problems.add(given, '`requirePeer` is for ALLOW policies: another rule that must not match a request without a peer names its peers')
  if (given.kind !== 'boolean') problems.add(given, `expected \`true\` or \`false\`, found ${tell(given)}`)
  return given.kind === 'boolean' && given.text === 'true'
}

function readExpires(spec: MapTree, problems: Problems): Instant | undefined {
  const expires = textOf(spec, 'expires', problems)
  if (!expires) return undefined
  const at = readMoment(expires.text)
  if (at === undefined)
    problems.add(expires, `expected a date or a moment, \`2030-12-31\` or \`2030-12-31T18:00:00Z\`, found ${tell(expires)}`)
  return at
}

function readSelection(
  spec: MapTree,
  policy: MapTree,
  { ours, target, namespace, rootNamespace }: { ours: boolean; target: PolicyTarget; namespace: string; rootNamespace: string },
  problems: Problems,
): Selection | undefined {
  const selector = spec.entries.get('selector')
  const identities = spec.entries.get('identities')
  if (target !== 'workload') {
    for (const one of [selector, identities, spec.entries.get('targetRefs')])
      if (one) problems.add(one, `a policy of ${told[target]} selects no workloads`)
    return { matchLabels: [] }
  }
  if (namespace === '' && !(ours && identities)) {
    const expected = ours ? '`metadata.namespace` or `spec.identities`' : '`metadata.namespace`'
    problems.add(policy.entries.get('metadata') ?? policy, `expected ${expected}, to say which workloads it is for`)
    return undefined
  }
  const patterns = identities && ours ? readValues(identities, problems, (text, at) => readIdMatch(text, at, problems)) : undefined
  const targetRefs = readTargetRefs(spec, { problems, namespace, rootNamespace })
  return {
    ...(namespace === '' || namespace === rootNamespace ? {} : { namespace }),
    matchLabels: selector ? readSelector(selector, problems) : [],
    ...(patterns ? { identities: patterns } : {}),
    ...(targetRefs ? { targetRefs } : {}),
  }
}

function readRules(spec: MapTree, action: PolicyAction, reading: PolicyReading): Rule[] {
  const { problems } = reading
  const rules = spec.entries.get('rules')
  if ((action === 'DENY' || action === 'CUSTOM') && (!rules || (rules.kind === 'list' && rules.items.length === 0))) {
    problems.add(rules ?? spec, `a ${action} policy without rules matches nothing: expected at least one rule`)
  }
  if (!rules) return []
  const list = listOf(rules, limits.rules, problems)
  const read = list?.items.flatMap((rule) => readRule(rule, reading) ?? []) ?? []
  if (action === 'CUSTOM') for (const rule of read) refuseIdentities(rule, problems)
  return read
}

/** A provider is asked before identities and tokens are looked at (authorization.md 1.8). */
function refuseIdentities({ from, when }: Rule, problems: Problems): void {
  for (const clause of [...(from === 'any' ? [] : from.flat()), ...when]) {
    if (!['peer', 'request.auth.principal', 'claim'].includes(clause.on)) continue
    problems.add(
      { path: '', place: clause.place },
      `\`${clause.field}\`: a CUSTOM policy cannot say who is calling, its provider decides that`,
    )
  }
}

/** Two policies of one name would report the same rule ids. */
function refuseTwins({ policies, peerAuthentications, requestAuthentications }: Found, problems: Problems): void {
  const seen = new Map<string, Policy | PeerAuthentication | RequestAuthentication>()
  const all = [
    ...policies.map((policy) => [policy.target, policy] as const),
    ...peerAuthentications.map((one) => ['PeerAuthentication', one] as const),
    ...requestAuthentications.map((one) => ['RequestAuthentication', one] as const),
  ]
  for (const [kind, policy] of all) {
    const key = `${kind} ${policy.namespace}/${policy.name}`
    const first = seen.get(key)
    if (first) {
      problems.add(
        { path: 'metadata.name', place: policy.place },
        `\`${policy.name}\` is there already: ${first.place.document}:${first.place.line}`,
      )
    } else seen.set(key, policy)
  }
}

const told = { serverApi: 'the server API', onboarding: 'onboarding' } as const
const istioSpecKeys = ['selector', 'targetRefs', 'targetRef', 'action', 'provider', 'rules'] as const
/** authorization.md 2. */
const ourSpecKeys = ['identities', 'requirePeer', 'expires', 'target'] as const
/** What a Kubernetes API server adds to an object is accepted, so that its output can be read as it is. */
export const metadataKeys = [
  'name', 'namespace', 'labels', 'annotations', 'uid', 'resourceVersion', 'generation', 'creationTimestamp', 'managedFields', 'ownerReferences', 'finalizers',
] // prettier-ignore

const shownProblems = 20
/** A server takes sets of at most 1 MiB. */
const maxRememberedCharacters = 4 * 1024 * 1024
