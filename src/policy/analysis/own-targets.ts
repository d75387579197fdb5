/**
 * What a change means for calls of our own API and for nodes that want to be admitted: policies with a `target`, compared exactly.
 * Their rules are boxes over a few dimensions, as those for workloads are; what decides them is `server-api.ts` and `onboarding.ts`.
 */
import type { Instant } from '../../kernel/clock.ts'
import { days, hours, milliseconds } from '../../kernel/duration.ts'
import { Failure } from '../../kernel/failure.ts'
import { selector } from '../../spiffe/selector.ts'
import type { CompiledPolicies } from '../compile.ts'
import type { CompiledRule } from '../compiled-rule.ts'
import type { Decision } from '../decision.ts'
import { formatMatch } from '../explain.ts'
import { decideOnboarding, onboardingPolicy } from '../onboarding.ts'
import type { Clause, PolicyAction, PolicySet } from '../policy-set.ts'
import type { OnboardingRequest, ServerApiAttributes, ServerApiCaller, ServerApiRequest } from '../request.ts'
import { decideServerApi, serverApiPolicy } from '../server-api.ts'
import { BudgetExhausted, Budget, type AnalysisLimits } from './budget.ts'
import { always, type Cube, Diagram, never, type Node } from './diagram.ts'
import { merge, placesOfDeciding, type Region } from './difference.ts'
import { Atoms, List, Scalar } from './dimension.ts'
import { spiffeIds } from './domains.ts'
import { type NumberRange, partitionNumbers, partitionTexts, type ValueClass } from './partition.ts'
import { pathPattern, peerPattern, stringPattern } from './patterns.ts'
import { anyText, type Domain, literal, type Regular, regular, sequence } from './regular.ts'
import type { Unknown } from './answer.ts'
import { type Constraint, partWords, wordsOf } from './words.ts'

/** What changes for one target. */
export type TargetDifference = ServerApiDifference | OnboardingDifference
export type ServerApiDifference = Changes<ServerApiRequest> & { readonly target: 'serverApi' }
export type OnboardingDifference = Changes<OnboardingRequest> & { readonly target: 'onboarding' }

interface Changes<Request> {
  readonly newlyAllowed: readonly Region<Request>[]
  readonly newlyDenied: readonly Region<Request>[]
  readonly more: { readonly newlyAllowed: number; readonly newlyDenied: number }
  readonly unknown: readonly Unknown[]
}

export interface TargetOptions {
  readonly at: Instant
  readonly most: number
  readonly limits?: AnalysisLimits | undefined
}

/** The targets about which either set says something, each compared; every witness was decided by both sets. */
export function compareTargets(before: PolicySet, after: PolicySet, options: TargetOptions): readonly TargetDifference[] {
  const both = [before, after] as const
  const concerns = (target: 'serverApi' | 'onboarding') => both.some(({ policies }) => policies.some((one) => one.target === target))
  return [
    ...(concerns('serverApi')
      ? [
          {
            target: 'serverApi' as const,
            ...changes(both.map(serverApiPolicy), makeCalls, decideServerApi, 'calls of the server', options),
          },
        ]
      : []),
    ...(concerns('onboarding')
      ? [{ target: 'onboarding' as const, ...changes(both.map(onboardingPolicy), makeNodes, decideOnboarding, 'nodes', options) }]
      : []),
  ]
}

/** Printed with every comparison of targets. */
export const targetAssumptions: readonly string[] = [
  'a call of the server, or a node, may come with anything that policies of their targets ask about, or without it',
  'a server decides by these policies of its own API alone: those that it comes with are compared where they are among them',
]

/** A part of what is asked, and how a value of its class is put into a request. */
interface Part {
  readonly dimension: Scalar<unknown> | List
  /** A witness is told with a value here, where it may have one. */
  readonly isTelling?: true
}

/** Everything that can be asked, as far as the rules tell it apart. */
interface Asked<Request> {
  readonly parts: readonly Part[]
  clause(diagram: Diagram, clause: Clause, action: PolicyAction): Node
  request(point: readonly number[]): Request
}

type Make<Request> = (rules: readonly CompiledRule[], budget: Budget) => Asked<Request>
type Decide<Request> = (compiled: CompiledPolicies, request: Request, at: Instant) => Decision

function changes<Request>(
  compiled: readonly CompiledPolicies[],
  make: Make<Request>,
  decide: Decide<Request>,
  what: string,
  { at, most, limits }: TargetOptions,
): Changes<Request> {
  const alive = (rule: CompiledRule) => rule.expires === undefined || at < rule.expires
  const [was, is] = compiled.map(({ deny, allow }) => ({ deny: deny.filter(alive), allow: allow.filter(alive) }))
  try {
    const budget = new Budget(limits)
    const asked = make(
      [was!, is!].flatMap(({ deny, allow }) => [...deny, ...allow]),
      budget,
    )
    const diagram = new Diagram(
      asked.parts.flatMap(({ dimension }) => dimension.sizes),
      budget,
    )
    const rule = ({ action, sources, operations, conditions }: CompiledRule): Node => {
      const all = (clauses: readonly Clause[]) => diagram.intersection(clauses.map((one) => asked.clause(diagram, one, action)))
      const some = (terms: 'any' | readonly (readonly Clause[])[]) => (terms === 'any' ? always : diagram.union(terms.map(all)))
      return diagram.intersection([some(sources), some(operations), all(conditions)])
    }
    const allowed = ({ deny, allow }: typeof was & object) => diagram.without(diagram.union(allow.map(rule)), diagram.union(deny.map(rule)))
    const [old, next] = [allowed(was!), allowed(is!)]

    const regionOf = (cube: Cube, expected: boolean): Region<Request> => {
      const request = asked.request(tellingPoint(asked, diagram, cube))
      const decisions = compiled.map((one) => decide(one, request, at))
      const [decidedBefore, decidedAfter] = [decisions[0]!, decisions[1]!]
      if (decidedBefore.allowed === decidedAfter.allowed || decidedAfter.allowed !== expected)
        throw new Failure('internal', 'policy.analysis-disagrees', {
          public: `the analysis and the decision disagree about ${what}: neither is to be trusted with these policies`,
          internal: { request },
        })
      const constraints = constraintsOf(asked, cube)
      const places = [...placesOfDeciding(compiled[1]!, decidedAfter), ...placesOfDeciding(compiled[0]!, decidedBefore)]
      const witness = { request, before: decidedBefore, after: decidedAfter, replayed: true, places }
      return { constraints, words: wordsOf(constraints), witness, dependsOn: [] }
    }
    const regions = (node: Node, expected: boolean) => {
      const cubes: Cube[] = []
      for (const cube of diagram.cubes(node)) if (cubes.push(cube) >= maxCubes) break
      const merged = merge({ diagram }, cubes).sort((a, b) => a.length - b.length)
      return { regions: merged.slice(0, most).map((cube) => regionOf(cube, expected)), more: Math.max(0, merged.length - most) }
    }
    const [added, removed] = [regions(diagram.without(next, old), true), regions(diagram.without(old, next), false)]
    return {
      newlyAllowed: added.regions,
      newlyDenied: removed.regions,
      more: { newlyAllowed: added.more, newlyDenied: removed.more },
      unknown: [],
    }
  } catch (error) {
    if (!(error instanceof BudgetExhausted)) throw error
    const unknown = [{ reason: 'budget' as const, what: `which ${what} are decided differently` }]
    return { newlyAllowed: [], newlyDenied: [], more: { newlyAllowed: 0, newlyDenied: 0 }, unknown }
  }
}

function constraintsOf({ parts }: Pick<Asked<unknown>, 'parts'>, cube: Cube): Constraint[] {
  const at = new Map(cube.map(({ level, classes }) => [level, classes]))
  return parts.flatMap(({ dimension }) => {
    const words = partWords(dimension, at)
    return words === undefined ? [] : [{ about: dimension.name, words }]
  })
}

/** The point of a cube that a reader would think of first: what policies name where it tells something, nothing where nothing need be. */
function tellingPoint({ parts }: Pick<Asked<unknown>, 'parts'>, diagram: Diagram, cube: Cube): readonly number[] {
  const at = new Map(cube.map(({ level, classes }) => [level, classes]))
  const point = diagram.sizes.map((_, level) => at.get(level)?.[0] ?? 0)
  for (const { dimension, isTelling } of parts) {
    if (!isTelling) continue
    const open = at.get(dimension.level) ?? [...dimension.classes.keys()]
    const isNamed = (one: number) => {
      const found = dimension.classes[one]!
      return found !== 'absent' && found.matched.length > 0
    }
    point[dimension.level] = open.find(isNamed) ?? open[0]!
  }
  return point
}

const clausesOf = ({ sources, operations, conditions }: CompiledRule): Clause[] => [
  ...(sources === 'any' ? [] : sources.flat()),
  ...(operations === 'any' ? [] : operations.flat()),
  ...conditions,
]

/** The atoms of some clauses: `number` is that of a match. */
class Compared<Value> {
  readonly atoms = new Atoms<Value>()
  readonly #make: (match: Clause['anyOf'][number]) => Value

  constructor(make: (match: Clause['anyOf'][number]) => Value) {
    this.#make = make
  }

  numbers(clause: Clause): number[] {
    return clause.anyOf.map((match) => this.atoms.number(formatMatch(match), formatMatch(match), () => this.#make(match)))
  }
}

// Calls of our own API.

/** As whom calls are decided: by what was shown, and an identity can be two things at once. `anyone` is every caller. */
const callers: readonly (ServerApiCaller | readonly ServerApiCaller[])[] = [
  'anyone', 'local', 'admin', 'agent', 'downstream', ['admin', 'downstream'],
] // prettier-ignore
const callerNames = ['local', 'admin', 'agent', 'downstream'] as const

function makeCalls(rules: readonly CompiledRule[], budget: Budget): Asked<ServerApiRequest> {
  const texts = {
    path: new Compared((match) => pathPattern(match as Parameters<typeof pathPattern>[0], 'strict')),
    'entry.spiffeId': new Compared(idPattern),
    'entry.parentId': new Compared(idPattern),
    'agent.id': new Compared(idPattern),
    trustDomain: new Compared((match) => literal(match as string)),
  }
  const ttls = new Compared((match) => ttlRange(match as TtlMatch))
  for (const clause of rules.flatMap(clausesOf)) {
    if (clause.on in texts) texts[clause.on as keyof typeof texts].numbers(clause)
    if (clause.on === 'entry.x509Ttl') ttls.numbers(clause)
  }
  let level = 0
  const scalar = <Value>(name: string, words: readonly string[], classes: readonly ValueClass<Value>[], mayBeAbsent = true) => {
    const made = new Scalar(name, level, words, classes, mayBeAbsent)
    level += made.sizes.length
    return made
  }
  const text = (name: string, key: keyof typeof texts, domain: Domain, mayBeAbsent = true) =>
    scalar(name, texts[key].atoms.texts, partitionTexts(domain, texts[key].atoms.compared, budget), mayBeAbsent)
  const flag = (name: string) => scalar(name, ['true', 'false'], [true, false].map((witness, index) => ({ matched: [index], witness }))) // prettier-ignore
  const calledBy = callers.map((witness) => ({ matched: [...callerNames.keys()].filter((one) => [witness].flat().includes(callerNames[one]!)), witness })) // prettier-ignore
  const caller = scalar('caller', callerNames, calledBy, false)
  const method = text('method', 'path', methods, false)
  const attributes = {
    'entry.spiffeId': text('entry.spiffeId', 'entry.spiffeId', spiffeIds),
    'entry.parentId': text('entry.parentId', 'entry.parentId', spiffeIds),
    'entry.x509Ttl': scalar('entry.x509Ttl', ttls.atoms.texts, partitionNumbers(anyTtl, ttls.atoms.compared, [hours(1)])),
    'entry.admin': flag('entry.admin'),
    'entry.downstream': flag('entry.downstream'),
    'agent.id': text('agent.id', 'agent.id', spiffeIds),
    trustDomain: text('trustDomain', 'trustDomain', trustDomains),
  }
  const valueAt = <Value>({ classes, level: at }: Scalar<Value>, point: readonly number[]): Value | undefined => {
    const found = classes[point[at]!]!
    return found === 'absent' ? undefined : found.witness
  }

  return {
    parts: [
      { dimension: caller, isTelling: true },
      { dimension: method, isTelling: true },
      ...Object.values(attributes).map((dimension) => ({ dimension })),
    ],
    clause(diagram, clause, action) {
      // What is not known fails in an ALLOW rule and holds in a DENY rule, negated or not.
      const given = { not: clause.not, ifAbsent: action === 'DENY' }
      switch (clause.on) {
        case 'caller':
          if (clause.anyOf.includes('anyone')) return clause.not ? never : always
          return caller.where(diagram, clause.anyOf.map((one) => callerNames.findIndex((name) => name === one)), given) // prettier-ignore
        case 'path':
          return method.where(diagram, texts.path.numbers(clause), given)
        case 'entry.admin':
        case 'entry.downstream':
          return attributes[clause.on].where(diagram, clause.anyOf.map((one) => (one === 'true' ? 0 : 1)), given) // prettier-ignore
        case 'entry.x509Ttl':
          return attributes[clause.on].where(diagram, ttls.numbers(clause), given)
        case 'entry.spiffeId':
        case 'entry.parentId':
        case 'agent.id':
        case 'trustDomain':
          return attributes[clause.on].where(diagram, texts[clause.on].numbers(clause), given)
        default:
          throw new Error(`bug: \`${clause.on}\` in a rule of the server API`)
      }
    },
    request(point) {
      const known = Object.entries(attributes).map(([key, dimension]) => [key, valueAt<unknown>(dimension, point)] as const)
      return {
        caller: valueAt(caller, point)!,
        method: valueAt(method, point)!,
        attributes: Object.fromEntries(known.filter(([, value]) => value !== undefined)) as ServerApiAttributes,
      }
    },
  }
}

type TtlMatch = Extract<Clause, { on: 'entry.x509Ttl' }>['anyOf'][number]

function ttlRange({ comparison, duration }: TtlMatch): NumberRange {
  if (comparison === 'equal') return { from: duration, to: duration }
  return comparison === 'at-most' ? { from: anyTtl.from, to: duration } : { from: duration, to: anyTtl.to }
}

function idPattern(match: Clause['anyOf'][number]): Regular {
  return peerPattern(match as Parameters<typeof peerPattern>[0], 'strict')
}

/** The gRPC specification: a service's full name and a method's. */
const methods: Domain = { must: [regular('/[A-Za-z0-9_.]+/[A-Za-z0-9_]+')], mustNot: [] }
/** SPIFFE-ID section 2.1. */
const trustDomains: Domain = { must: [regular('[a-z0-9._-]+')], mustNot: [] }
/** As far as durations go. */
const anyTtl: NumberRange = { from: milliseconds(0), to: days(36_525) }

// Nodes.

/** Selectors of a type stand in one list, since one may answer for several names: `subject:cn:a` is `cn:a` of `subject` and `a` of `subject:cn`. */
function makeNodes(rules: readonly CompiledRule[], budget: Budget): Asked<OnboardingRequest> {
  const clauses = rules.flatMap(clausesOf).filter((clause) => clause.on === 'attested')
  const types = [...new Set(clauses.map(({ type }) => type))].sort()
  const compared = new Map(types.map((type) => [type, new Atoms<Regular>()]))
  const there = ({ type, selector: name }: AttestedClause) =>
    compared.get(type)!.number(`${name}:`, '', () => sequence(literal(`${name}:`), anyText))
  const values = ({ type, selector: name, anyOf }: AttestedClause) =>
    anyOf.map((match) => {
      const text = `${name}:${formatMatch(match)}`
      return compared
        .get(type)!
        .number(`= ${JSON.stringify([name, match])}`, text, () => sequence(literal(`${name}:`), stringPattern(match, { empty: true })))
    })
  for (const clause of clauses) {
    there(clause)
    values(clause)
  }
  const evidence = new Scalar(
    'evidence',
    0,
    types,
    [...types.map((witness, index) => ({ matched: [index], witness })), { matched: [], witness: 'another' }],
    false,
  )
  let level = evidence.sizes.length
  const lists = new Map(
    types.map((type) => {
      const { texts, compared: patterns } = compared.get(type)!
      const made = new List(`selector of ${type}`, level, texts, partitionTexts(selectorValues, patterns, budget))
      level += made.sizes.length
      return [type, made]
    }),
  )
  return {
    parts: [{ dimension: evidence, isTelling: true }, ...[...lists.values()].map((dimension) => ({ dimension }))],
    clause(diagram, clause, action) {
      if (clause.on !== 'attested') throw new Error(`bug: \`${clause.on}\` in a rule of onboarding`)
      // What was not proved by such evidence satisfies negations alone, and those in a DENY rule alone.
      const otherwise = clause.not && action !== 'ALLOW' ? always : never
      const list = lists.get(clause.type)!
      const [proved, some] = [list.some(diagram, [there(clause)]), list.some(diagram, values(clause))]
      const holds = clause.not ? diagram.or(diagram.without(proved, some), otherwise === always ? diagram.not(proved) : never) : some
      return diagram.choose(evidence.level, [types.indexOf(clause.type)], holds, otherwise)
    },
    request(point) {
      const type = (evidence.classes[point[evidence.level]!] as ValueClass<string>).witness
      const list = lists.get(type)
      const proved = list?.classes.filter((_, index) => point[list.level + index] === 1) ?? []
      return { type, selectors: proved.map(({ witness }) => selector(type, witness)) }
    },
  }
}

type AttestedClause = Extract<Clause, { on: 'attested' }>
/** What attestors say is printed. */
const selectorValues: Domain = { must: [regular('[ -~]+')], mustNot: [] }
const maxCubes = 600
