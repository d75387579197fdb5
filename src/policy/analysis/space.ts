/** All requests that some policies can tell apart: rules as functions over dimensions, and requests as points (authorization.md 5.4, setting). */
import { parseSpiffeId } from '../../spiffe/id.ts'
import type { CelTest, CelTree } from '../cel.ts'
import type { CompiledPolicies } from '../compile.ts'
import type { CompiledRule } from '../compiled-rule.ts'
import { asksForParts, clauseHolds, wantsOneValue, see, type SeenRequest } from '../evaluate.ts'
import type { Clause, PolicyMode } from '../policy-set.ts'
import type { PolicyRequest } from '../request.ts'
import type { Budget } from './budget.ts'
import { always, Diagram, never, type Node } from './diagram.ts'
import { type List, Scalar } from './dimension.ts'
import { claimKey, type Draft, filterKey, keyOfClause, keyOfTest, type Place, placesOf, type Vocabulary, vocabularyOf } from './places.ts'

type Action = CompiledRule['action']
export const protocolLevel = 0
export const http = 0
const plain = 1

export class Space {
  readonly mode: PolicyMode
  readonly diagram: Diagram
  readonly places: readonly Place[]
  readonly #compared: readonly CompiledPolicies[]
  readonly #words: Vocabulary
  readonly #byKey: ReadonlyMap<string, Place>
  readonly #rules = new Map<CompiledRule, Node>()

  /**
   * The space of all requests that any of these policies tell apart. Requests that all of them refuse before they read a rule are no part of it.
   * @throws BudgetExhausted
   */
  constructor(compared: readonly CompiledPolicies[], budget: Budget) {
    this.mode = compared[0]!.mode
    this.#compared = compared
    this.#words = vocabularyOf(compared)
    this.places = placesOf(compared, this.#words, protocolLevel + 1, budget)
    this.#byKey = new Map(this.places.map((place) => [place.key, place]))
    this.diagram = new Diagram([2, ...this.places.flatMap(({ dimension }) => dimension.sizes)], budget)
  }

  /** Where a rule matches. */
  rule(rule: CompiledRule): Node {
    const known = this.#rules.get(rule)
    if (known !== undefined) return known
    const meaning = this.diagram.choose(protocolLevel, [http], this.#ruleOver(rule, http), this.#ruleOver(rule, plain))
    this.#rules.set(rule, meaning)
    return meaning
  }

  /** Where a clause of a rule holds in HTTP requests. */
  clause(clause: Clause, action: Action): Node {
    return this.#clauseOver(clause, action, http)
  }

  /** A request with what differs between two assignments changed, and all else as it was. */
  changed(request: PolicyRequest, from: readonly number[], to: readonly number[]): PolicyRequest {
    const usual = this.request(to)
    const isHttp = to[protocolLevel] === http
    const { sourceIp, remoteIp, destinationIp, destinationPort, sni } = request
    const draft: Draft = {
      ...Object.fromEntries(
        Object.entries({ sourceIp, remoteIp, destinationIp, destinationPort, sni }).filter(([, value]) => value !== undefined),
      ),
      ...(request.peer && { peer: request.peer.spiffeId }),
      method: request.http?.method ?? usual.http?.method ?? '',
      path: request.http?.path ?? usual.http?.path ?? '',
      host: request.http?.host ?? usual.http?.host ?? '',
      headers: new Map([...(request.http?.headers ?? [])].map(([name, values]) => [name, [...values]])),
      hasToken: request.token !== undefined,
      claims: structuredClone({ ...request.token?.claims }),
      providers: { ...request.providers },
    }
    const differing = new Set(this.differing(from, to))
    // A connection has nothing of HTTP that could stay as it was.
    const becomesHttp = from[protocolLevel] !== to[protocolLevel]
    for (const place of this.places) {
      if (!differing.has(place) && !(becomesHttp && place.http)) continue
      if (place.http && !isHttp) continue
      place.clear?.(draft)
      putAll(place, to, draft)
    }
    // What was the physical peer's address stays the client's.
    const source = this.#byKey.get('source.ip')
    if (source && differing.has(source) && remoteIp === undefined && sourceIp !== undefined) draft.remoteIp ??= sourceIp
    return requestOf(draft, isHttp)
  }

  /** The places at which two assignments differ. */
  differing(from: readonly number[], to: readonly number[]): readonly Place[] {
    return this.places.filter(({ dimension: { level, sizes } }) => sizes.some((_, index) => from[level + index] !== to[level + index]))
  }

  /** Where policies allow a request, in the part of the space that is asked about. */
  allowed(compiled: CompiledPolicies, within: Node = always): Node {
    const { diagram } = this
    const rules = (list: readonly CompiledRule[]) => diagram.union(list.map((rule) => diagram.and(within, this.rule(rule))))
    const denied = diagram.union([rules(compiled.deny), this.#refusedBefore(compiled), this.#refusedByProviders(compiled)])
    const isOpen = compiled.mode === 'istio' && !compiled.allowSelected
    return diagram.without(isOpen ? within : rules(compiled.allow), denied)
  }

  /** A request at an assignment of one class to each level. */
  request(assignment: readonly number[]): PolicyRequest {
    const isHttp = assignment[protocolLevel] === http
    const draft: Draft = {
      sourceIp: typicalIp,
      destinationPort: 8080,
      method: 'GET',
      path: '/',
      host: 'host.example',
      headers: new Map(),
      hasToken: false,
      claims: {},
      providers: {},
    }
    for (const place of this.places) if (isHttp || !place.http) putAll(place, assignment, draft)
    return requestOf(draft, isHttp)
  }

  /** Where a request stands. Undefined for a request outside of the space: one that all refuse before a rule is read, or that holds what no request holds. */
  assignmentOf(request: PolicyRequest): readonly number[] | undefined {
    if (this.#compared.every((policies) => see(policies, request).malformed !== undefined)) return undefined
    const assignment = this.diagram.sizes.map(() => 0)
    assignment[protocolLevel] = request.http ? http : plain
    for (const { dimension, classesIn, http: onlyHttp } of this.places) {
      if (onlyHttp && !request.http) continue
      const classes = classesIn(request)
      if (classes === undefined || classes.includes(-1)) return undefined
      if (!dimension.isList) assignment[dimension.level] = classes[0]!
      else {
        for (const one of classes) assignment[dimension.level + one] = 1
        const isRepeated = new Set(classes).size < classes.length
        if (isRepeated && (dimension as List).repeatable) assignment[dimension.level + dimension.classes.length] = 1
      }
    }
    return assignment
  }

  placeOf(key: string): Place | undefined {
    return this.#byKey.get(key)
  }

  #ruleOver(rule: CompiledRule, protocol: number): Node {
    const { diagram } = this
    if (protocol === plain && rule.needsHttp && this.mode === 'istio' && rule.action === 'ALLOW') return never
    const all = (clauses: readonly Clause[]) =>
      diagram.intersection(clauses.map((clause) => this.#clauseOver(clause, rule.action, protocol)))
    const oneOf = (terms: 'any' | readonly (readonly Clause[])[]) => (terms === 'any' ? always : diagram.union(terms.map(all)))
    return diagram.intersection([
      rule.requirePeer ? this.#scalar('peer').there(diagram) : always,
      oneOf(rule.sources),
      oneOf(rule.operations),
      all(rule.conditions),
      rule.cel ? this.#celOver(rule.cel.tree, rule.action, protocol) : always,
    ])
  }

  #clauseOver(clause: Clause, action: Action, protocol: number): Node {
    const { diagram } = this
    const isPlain = protocol === plain
    if (clause.on === 'filter-metadata') return this.#filterOver(clause, action)
    if (isPlain && (clause.on === 'request.auth.principal' || this.#byKey.get(keyOfClause(clause, this.mode))!.http))
      return constant(clauseHolds(clause, action, nothingSeen(this.mode)))
    if (clause.on === 'request.auth.principal' || clause.on === 'claim') {
      const token = this.#scalar('token')
      return diagram.choose(token.level, [0], constant(clauseHolds(clause, action, nothingKnown(this.mode))), this.#tokenOver(clause))
    }
    const { dimension } = this.#byKey.get(keyOfClause(clause, this.mode))!
    const atoms = this.#words.atomsOf(clause)
    if (clause.on === 'header' && this.mode === 'strict' && wantsOneValue(clause, action))
      return this.#oneValueOver(dimension, atoms, clause)
    if (dimension instanceof Scalar) {
      return dimension.where(diagram, atoms, { not: clause.not, ifAbsent: clauseHolds(clause, action, nothingKnown(this.mode)) })
    }
    return this.#headerOver(dimension as List, atoms, clause.not, action)
  }

  /** strict, ALLOW needs every value to agree and others one of them; istio, one value is enough, and a negation is the opposite. */
  #headerOver(list: List, atoms: readonly number[], not: boolean, action: Action): Node {
    const { diagram } = this
    const some = list.some(diagram, atoms)
    if (this.mode === 'istio' || (action === 'ALLOW' && not)) return not ? diagram.not(some) : some
    const someOther = list.someOther(diagram, atoms)
    if (action === 'ALLOW') return diagram.without(list.there(diagram), someOther)
    return not ? diagram.or(someOther, diagram.not(list.there(diagram))) : some
  }

  /** A header of which a proxy sees but one value: that one must match, and be one. */
  #oneValueOver(dimension: Place['dimension'], atoms: readonly number[], clause: Clause & { on: 'header' }): Node {
    const { diagram } = this
    const having = (some: readonly number[]) =>
      dimension instanceof Scalar
        ? dimension.where(diagram, some, { not: false, ifAbsent: false })
        : (dimension as List).some(diagram, some)
    const alone = dimension instanceof Scalar ? having(atoms) : diagram.and((dimension as List).once(diagram), having(atoms))
    const matching = asksForParts(clause) ? diagram.without(alone, having([this.#words.commaAtom(keyOfClause(clause, this.mode))])) : alone
    return clause.not ? diagram.not(matching) : matching
  }

  /** With a token. One value of a claim is enough. */
  #tokenOver(clause: Clause & { on: 'request.auth.principal' | 'claim' }): Node {
    const { diagram } = this
    const one = (key: string, atom: number) => this.#scalar(key).where(diagram, [atom], { not: false, ifAbsent: false })
    const holds =
      clause.on === 'request.auth.principal'
        ? diagram.union(
            clause.anyOf.map((match) => {
              const { issuer, subject } = this.#words.principalAtoms(match)
              return diagram.and(one(claimKey(['iss']), issuer), one(claimKey(['sub']), subject))
            }),
          )
        : this.#claimIs(clause.path, this.#words.atomsOf(clause))
    return clause.not ? diagram.not(holds) : holds
  }

  #claimIs(path: readonly string[], atoms: readonly number[]): Node {
    const { dimension } = this.#byKey.get(claimKey(path))!
    if (dimension instanceof Scalar) return dimension.where(this.diagram, atoms, { not: false, ifAbsent: false })
    return (dimension as List).some(this.diagram, atoms)
  }

  #filterOver(clause: Clause & { on: 'filter-metadata' }, action: Action): Node {
    const { diagram } = this
    const levels = clause.anyOf.map((_, index) => this.#scalar(filterKey(clause, index)).level)
    const some = diagram.union(levels.map((level) => diagram.choose(level, [2])))
    const known = clause.not ? diagram.not(some) : some
    if (this.mode === 'istio') return known
    const unknown = diagram.union(levels.map((level) => diagram.choose(level, [0])))
    return action === 'ALLOW' ? diagram.without(known, unknown) : diagram.or(known, unknown)
  }

  #celOver(tree: CelTree, action: Action, protocol: number): Node {
    if (tree.kind === 'test') return this.#testOver(tree, action !== 'ALLOW', protocol)
    const parts = tree.of.map((one) => this.#celOver(one, action, protocol))
    return tree.kind === 'all' ? this.diagram.intersection(parts) : this.diagram.union(parts)
  }

  /** `unknown` is what a test is where its attribute is not there, negated or not. */
  #testOver(test: CelTest, unknown: boolean, protocol: number): Node {
    const { diagram } = this
    const { not, attribute, comparison } = test
    const key = keyOfTest(test)
    const place = this.#byKey.get(key)!
    if (protocol === plain && attribute.on.startsWith('request.')) return constant(unknown)
    const { dimension } = place
    if (place.opaque) {
      const truth = diagram.choose(dimension.level, not ? [1] : [2])
      return unknown ? diagram.or(truth, diagram.choose(dimension.level, [0])) : truth
    }
    if (attribute.on === 'connection.mtls') {
      const there = this.#scalar('peer').there(diagram)
      return not ? diagram.not(there) : there
    }
    if (comparison.is === 'present') {
      const there = (dimension as List | Scalar<unknown>).there(diagram)
      return not ? diagram.not(there) : there
    }
    const atom = this.#words.atomOfTest(test)!
    if (attribute.on !== 'request.headers') return (dimension as Scalar<unknown>).where(diagram, [atom], { not, ifAbsent: unknown })
    return this.#headerTest(dimension, atom, this.#words.commaAtom(key), { not, unknown })
  }

  /** A header that is there once, without a comma, is compared; any other is not known. */
  #headerTest(dimension: Place['dimension'], atom: number, comma: number, { not, unknown }: { not: boolean; unknown: boolean }): Node {
    const { diagram } = this
    const readable =
      dimension instanceof Scalar
        ? dimension.where(diagram, [comma], { not: true, ifAbsent: false })
        : diagram.without((dimension as List).once(diagram), (dimension as List).some(diagram, [comma]))
    const holds =
      dimension instanceof Scalar
        ? dimension.where(diagram, [atom], { not: false, ifAbsent: false })
        : (dimension as List).some(diagram, [atom])
    const known = not ? diagram.without(readable, holds) : diagram.and(readable, holds)
    return unknown ? diagram.or(known, diagram.not(readable)) : known
  }

  #scalar(key: string): Scalar<unknown> {
    const place = this.#byKey.get(key)
    if (!(place?.dimension instanceof Scalar)) throw new Error(`bug: no dimension for \`${key}\``)
    return place.dimension
  }

  /** What is refused for want of mTLS, for its token, or because it can be read in more than one way. */
  #refusedBefore(compiled: CompiledPolicies): Node {
    return this.diagram.union([this.#plaintextRefused(compiled), this.#tokenRefused(compiled), this.#malformed(compiled)])
  }

  #plaintextRefused({ mtls }: CompiledPolicies): Node {
    const { diagram } = this
    const port = this.#byKey.get('destination.port')?.dimension
    const strict = mtls.mode === 'STRICT'
    const exceptions = [...mtls.ports].filter(([, mode]) => (mode === 'STRICT') !== strict).map(([number]) => number)
    if (!strict && exceptions.length === 0) return never
    const classes =
      port?.classes.flatMap((one, index) => (one !== 'absent' && exceptions.includes(one.witness as number) ? [index] : [])) ?? []
    const refusing = port ? diagram.choose(port.level, classes, constant(!strict), constant(strict)) : constant(strict)
    return diagram.without(refusing, this.#scalar('peer').there(diagram))
  }

  #tokenRefused({ tokens }: CompiledPolicies): Node {
    if (tokens.length === 0) return never
    const { diagram } = this
    const is = (name: string, text: string) =>
      this.#claimIs([name], [this.#words.textAtom(claimKey([name]), JSON.stringify({ kind: 'exact', value: text }), text, unreachable)])
    const taken = tokens.map(({ issuer, audiences }) =>
      diagram.and(is('iss', issuer), audiences.length === 0 ? always : diagram.union(audiences.map((audience) => is('aud', audience)))),
    )
    const refused = diagram.without(this.#scalar('token').there(diagram), diagram.union(taken))
    return diagram.choose(protocolLevel, [http], refused)
  }

  /** What these policies refuse before a rule is read, and others that are compared do not. */
  #malformed(compiled: CompiledPolicies): Node {
    if (this.mode === 'istio') return never
    const { diagram } = this
    const refused: Node[] = []
    const method = this.#byKey.get('method')?.dimension
    if (method) {
      const known = (one: (typeof method.classes)[number]) => one === 'absent' || compiled.knownMethods.includes(one.witness as string)
      refused.push(diagram.choose(method.level, [...method.classes.keys()].filter((index) => !known(method.classes[index]!)))) // prettier-ignore
    }
    const path = this.#byKey.get('path')?.dimension
    if (path?.classes[0] === 'absent' && compiled.comparesPaths) refused.push(diagram.choose(path.level, [0]))
    return diagram.choose(protocolLevel, [http], diagram.union(refused))
  }

  #refusedByProviders({ custom, mode }: CompiledPolicies): Node {
    const { diagram } = this
    const severalProviders = mode === 'istio' && new Set(custom.map(({ provider }) => provider)).size > 1
    return diagram.union(
      custom.map((rule) =>
        severalProviders
          ? this.rule(rule)
          : diagram.and(this.rule(rule), diagram.choose(this.#scalar(`provider ${rule.provider!}`).level, [1])),
      ),
    )
  }
}

function requestOf(
  { peer, method, path, host, headers, hasToken, claims, providers, ...connection }: Draft,
  isHttp: boolean,
): PolicyRequest {
  return {
    ...Object.fromEntries(Object.entries(connection).filter(([, value]) => value !== undefined)),
    ...(peer === undefined ? {} : { peer: { spiffeId: parseSpiffeId(peer) } }),
    ...(isHttp ? { http: { method, path, host, headers } } : {}),
    ...(isHttp && hasToken ? { token: { claims } } : {}),
    ...(Object.keys(providers).length > 0 ? { providers } : {}),
  }
}

function putAll({ dimension, put }: Place, assignment: readonly number[], draft: Draft): void {
  const { classes, level, isList } = dimension
  if (!isList) {
    const one = classes[assignment[level]!]!
    put(draft, one === 'absent' ? undefined : one.witness)
    return
  }
  const there = (classes as List['classes']).filter((_, index) => assignment[level + index] === 1)
  for (const { witness } of there) put(draft, witness)
  const { repeatable } = dimension as List
  if (repeatable && there[0] && assignment[level + classes.length] === 1) put(draft, there[0].witness)
}

const constant = (truth: boolean): Node => (truth ? always : never)

/** A connection that is not HTTP, of which nothing is known. */
const nothingSeen = (mode: PolicyMode): SeenRequest => ({ mode, request: {}, peers: [] })
/** An HTTP request of which nothing else is known. */
const nothingKnown = (mode: PolicyMode): SeenRequest => ({
  mode,
  request: { http: { method: '', path: '', host: '', headers: new Map() } },
  peers: [],
})

/** Every atom was read before the places were made. */
function unreachable(): never {
  throw new Error('bug: an atom that no rule said')
}
/** RFC 5737: an address for documentation, where no policy asks for one. */
const typicalIp = '203.0.113.7'
