/**
 * Regular languages of texts, as far as analysis needs them: many patterns are read at once by one deterministic automaton, which sorts all texts of a
 * domain into classes, each with its shortest text (authorization.md 5.4, step 1). Union, product, complement and emptiness are questions about those classes.
 */
import type { Budget } from './budget.ts'

/** Code units from `low` to `high`, both included; ranges ascend and do not touch. */
export type CharSet = readonly (readonly [low: number, high: number])[]

/** A regular language. */
export type Regular =
  | { readonly kind: 'set'; readonly set: CharSet }
  | { readonly kind: 'sequence'; readonly parts: readonly Regular[] }
  | { readonly kind: 'choice'; readonly options: readonly Regular[] }
  | { readonly kind: 'star'; readonly of: Regular }

/** Exactly this text. */
export const literal = (text: string): Regular => sequence(...[...Array(text.length).keys()].map((at) => charAt(text, at)))
/** This text in any case of its ASCII letters. */
export const caseless = (text: string): Regular =>
  sequence(
    ...[...Array(text.length).keys()].map((at) => {
      const [lower, upper] = [text[at]!.toLowerCase(), text[at]!.toUpperCase()]
      return asciiLetter.test(text[at]!) ? choiceOfChars(lower + upper) : charAt(text, at)
    }),
  )
export const sequence = (...parts: readonly Regular[]): Regular => ({ kind: 'sequence', parts })
export const choice = (...options: readonly Regular[]): Regular => ({ kind: 'choice', options })
export const star = (of: Regular): Regular => ({ kind: 'star', of })
export const plus = (of: Regular): Regular => sequence(of, star(of))
export const optional = (of: Regular): Regular => choice(of, sequence())
/** Any of these characters. */
const choiceOfChars = (characters: string): Regular => ({
  kind: 'set',
  set: normalized([...characters].map((one) => [one.charCodeAt(0), one.charCodeAt(0)])),
})
export const anyCharacter: Regular = { kind: 'set', set: [[0, 0xffff]] }
export const anyText: Regular = star(anyCharacter)

/**
 * Reads the syntax that RE2 and JavaScript share: characters, escapes of punctuation, `.` as any character, classes, groups `(?:…)`, `|`, `*`, `+`, `?`.
 * Always a match of the whole text. For constants of ours and for the expressions of conditions.
 * @throws Error for anything else
 */
export function regular(source: string): Regular {
  let at = 0
  const whole = alternatives()
  if (at < source.length) throw unsupported()
  return whole

  function alternatives(): Regular {
    const options = [sequenceHere()]
    while (source[at] === '|') {
      at++
      options.push(sequenceHere())
    }
    return options.length === 1 ? options[0]! : choice(...options)
  }
  function sequenceHere(): Regular {
    const parts: Regular[] = []
    while (at < source.length && source[at] !== '|' && source[at] !== ')') parts.push(repeated(atom()))
    return parts.length === 1 ? parts[0]! : sequence(...parts)
  }
  function repeated(of: Regular): Regular {
    const sign = source[at]
    if (sign !== '*' && sign !== '+' && sign !== '?') return of
    at++
    return sign === '*' ? star(of) : sign === '+' ? plus(of) : optional(of)
  }
  function atom(): Regular {
    const character = source[at++]!
    if (character === '(') {
      if (source.startsWith('?:', at)) at += 2
      else if (source[at] === '?') throw unsupported()
      const inside = alternatives()
      if (source[at++] !== ')') throw unsupported()
      return inside
    }
    if (character === '[') return { kind: 'set', set: characterClass() }
    if (character === '.') return anyCharacter
    if (character === '\\') return choiceOfChars(escaped())
    if ('*+?{}^$'.includes(character)) throw unsupported()
    return choiceOfChars(character)
  }
  function characterClass(): CharSet {
    const negated = source[at] === '^'
    if (negated) at++
    const ranges: [number, number][] = []
    while (source[at] !== ']') {
      if (at >= source.length) throw unsupported()
      const low = classCharacter()
      const isRange = source[at] === '-' && source[at + 1] !== ']' && at + 1 < source.length
      if (isRange) at++
      const high = isRange ? classCharacter() : low
      ranges.push([low, high])
    }
    at++
    return negated ? complementOf(normalized(ranges)) : normalized(ranges)
  }
  function classCharacter(): number {
    const character = source[at++]!
    return (character === '\\' ? escaped() : character).charCodeAt(0)
  }
  function escaped(): string {
    const character = source[at++]
    if (character === undefined || /[A-Za-z0-9]/.test(character)) throw unsupported()
    return character
  }
  function unsupported(): Error {
    return new Error(`\`${source.slice(0, 80)}\` is not an expression that analysis reads`)
  }
}

/** A class of texts: exactly those that the same patterns match. */
export interface TextClass {
  /** Numbers of the patterns, ascending. */
  readonly matched: readonly number[]
  /** The shortest of its texts; of equals the one of plainer characters. */
  readonly witness: string
}

/**
 * Sorts the texts of a domain into classes by the patterns that match them. Every class that has a text is there, and no other.
 * @throws BudgetExhausted
 */
export function classesOf(domain: Domain, patterns: readonly Regular[], budget: Budget): TextClass[] {
  const automaton = new Automaton(patterns, domain)
  const inDomain = statesOf(domain)
  const symbolInDomain = automaton.alphabet.shown.map((character) => inDomain.alphabet.symbolOf(character.charCodeAt(0)))
  const found = new Map<string, TextClass>()
  const seen = new Map<number, number>()
  const parents: { readonly from: number; readonly symbol: number }[] = []
  const states: { readonly domain: number; readonly joint: number }[] = []
  const reach = (inDomainState: number, joint: number, from: number, symbol: number) => {
    const key = inDomainState * maxStates + joint
    if (seen.has(key)) return
    budget.node()
    seen.set(key, states.length)
    states.push({ domain: inDomainState, joint })
    parents.push({ from, symbol })
  }
  const textOf = (state: number): string => {
    const symbols: string[] = []
    for (let at = state; parents[at]!.from !== -1; at = parents[at]!.from) symbols.push(automaton.alphabet.shown[parents[at]!.symbol]!)
    return symbols.toReversed().join('')
  }
  if (inDomain.next.length > 0) reach(0, automaton.start, -1, -1)
  for (let at = 0; at < states.length; at++) {
    const { domain: here, joint } = states[at]!
    if (inDomain.accepts[here]) {
      const matched = automaton.matchedAt(joint)
      const key = matched.join()
      if (!found.has(key)) found.set(key, { matched, witness: textOf(at) })
    }
    const domainNext = inDomain.next[here]!
    const jointNext = automaton.next(joint, budget)
    budget.step(automaton.alphabet.size)
    let last = -1
    for (const symbol of automaton.alphabet.order) {
      const to = domainNext[symbolInDomain[symbol]!]!
      if (to === -1) continue
      // Neighbours in the order of the alphabet often lead to the same place.
      const key = to * maxStates + jointNext[symbol]!
      if (key !== last) reach(to, jointNext[symbol]!, at, symbol)
      last = key
    }
  }
  return [...found.values()]
}

/** The patterns of the list that match a text, ascending; undefined where the text is not of the domain. */
export function matchedBy(domain: Domain, patterns: readonly Regular[]): (text: string) => readonly number[] | undefined {
  const automaton = new Automaton([...patterns, ...domain.must, ...domain.mustNot], { must: [], mustNot: [] })
  const first = patterns.length
  const firstNot = first + domain.must.length
  return (text) => {
    const matched = automaton.matchedOf(text)
    const outside = matched.filter((one) => one >= first)
    const isInside = outside.length === domain.must.length && outside.every((one) => one < firstNot)
    return isInside ? matched.filter((one) => one < first) : undefined
  }
}

/** The texts that match all of `must` and none of `mustNot`. */
export interface Domain {
  readonly must: readonly Regular[]
  readonly mustNot: readonly Regular[]
}

/** Symbols: sets of characters that no pattern tells apart. */
class Alphabet {
  readonly size: number
  /** The plainest character of each symbol. */
  readonly shown: readonly string[]
  /** All symbols, those with plainer characters first. */
  readonly order: readonly number[]
  readonly #starts: readonly number[]
  readonly #symbolOf: readonly number[]
  readonly #bySet = new Map<string, readonly number[]>()

  constructor(sets: Iterable<CharSet>) {
    const distinct = new Map<string, CharSet>()
    for (const set of sets) distinct.set(keyOf(set), set)
    const starts = [...new Set([0, ...[...distinct.values()].flatMap((set) => set.flatMap(([low, high]) => [low, high + 1]))])]
      .filter((start) => start <= 0xffff)
      .sort((a, b) => a - b)
    const signatures = new Map<string, number>()
    this.#starts = starts
    const members = starts.map((): string[] => [])
    for (const [key, set] of distinct) {
      for (const [low, high] of set) {
        for (let index = indexIn(starts, low); index < starts.length && starts[index]! <= high; index++) members[index]!.push(key)
      }
    }
    this.#symbolOf = members.map((keys) => {
      const signature = keys.join('|')
      const symbol = signatures.get(signature) ?? signatures.size
      signatures.set(signature, symbol)
      return symbol
    })
    this.size = signatures.size
    const shown: string[] = []
    for (const [index, start] of starts.entries()) {
      const end = starts[index + 1] ?? 0x10000
      const symbol = this.#symbolOf[index]!
      const plainest = plainestBetween(start, end - 1)
      if (shown[symbol] === undefined || plainness(plainest) < plainness(shown[symbol])) shown[symbol] = plainest
    }
    this.shown = shown
    this.order = [...shown.keys()].sort((a, b) => plainness(shown[a]!) - plainness(shown[b]!))
  }

  /** The symbols of a set. */
  symbols(set: CharSet): readonly number[] {
    const key = keyOf(set)
    const known = this.#bySet.get(key)
    if (known) return known
    const symbols = new Set<number>()
    for (const [low, high] of set) {
      for (let index = indexIn(this.#starts, low); index < this.#starts.length && this.#starts[index]! <= high; index++)
        symbols.add(this.#symbolOf[index]!)
    }
    const list = [...symbols]
    this.#bySet.set(key, list)
    return list
  }

  symbolOf(code: number): number {
    return this.#symbolOf[indexIn(this.#starts, code)]!
  }
}

/** Many patterns as one nondeterministic automaton whose common beginnings are shared, and its deterministic states, made when they are asked for. */
class Automaton {
  readonly alphabet: Alphabet
  readonly start: number
  readonly #edges: readonly (readonly { readonly symbols: readonly number[]; readonly to: number }[])[]
  readonly #empty: readonly (readonly number[])[]
  readonly #accepts: ReadonlyMap<number, readonly number[]>
  readonly #sets: (readonly number[])[] = []
  readonly #known = new Map<string, number>()
  readonly #next: (Int32Array | undefined)[] = []
  readonly #matched: (readonly number[] | undefined)[] = []

  constructor(patterns: readonly Regular[], domain: Domain) {
    const net = new Net()
    const accepts = new Map<number, number[]>()
    for (const [number, pattern] of patterns.entries()) {
      const end = net.add(0, pattern)
      const before = accepts.get(end)
      if (before) before.push(number)
      else accepts.set(end, [number])
    }
    this.alphabet = new Alphabet(setsOf([...patterns, ...domain.must, ...domain.mustNot]))
    this.#edges = net.edges.map((edges) => edges.map(({ set, to }) => ({ symbols: this.alphabet.symbols(set), to })))
    this.#empty = net.empty
    this.#accepts = accepts
    this.start = this.#stateOf([0])
  }

  /** Where each symbol leads from a deterministic state. */
  next(state: number, budget?: Budget): Int32Array {
    const known = this.#next[state]
    if (known) return known
    const targets: number[][] = Array.from({ length: this.alphabet.size }, () => [])
    let work = this.alphabet.size
    for (const position of this.#sets[state]!) {
      for (const { symbols, to } of this.#edges[position]!) {
        work += symbols.length
        for (const symbol of symbols) targets[symbol]!.push(to)
      }
    }
    budget?.step(work)
    const next = Int32Array.from(targets, (positions) => this.#stateOf(positions))
    this.#next[state] = next
    return next
  }

  /** The patterns that match a text which ends in this state. */
  matchedAt(state: number): readonly number[] {
    this.#matched[state] ??= this.#sets[state]!.flatMap((position) => this.#accepts.get(position) ?? []).sort((a, b) => a - b)
    return this.#matched[state]
  }

  matchedOf(text: string): readonly number[] {
    let state = this.start
    for (let at = 0; at < text.length; at++) state = this.next(state)[this.alphabet.symbolOf(text.charCodeAt(at))]!
    return this.matchedAt(state)
  }

  #stateOf(positions: readonly number[]): number {
    if (positions.length === 0) return this.#numbered('', [])
    const closed = new Set<number>()
    const open = [...positions]
    for (let position = open.pop(); position !== undefined; position = open.pop()) {
      if (closed.has(position)) continue
      closed.add(position)
      open.push(...this.#empty[position]!)
    }
    const kept = [...closed].filter((position) => this.#edges[position]!.length > 0 || this.#accepts.has(position)).sort((a, b) => a - b)
    return this.#numbered(kept.join(), kept)
  }

  #numbered(key: string, positions: readonly number[]): number {
    const known = this.#known.get(key)
    if (known !== undefined) return known
    const state = this.#sets.length
    this.#known.set(key, state)
    this.#sets.push(positions)
    return state
  }
}

/** The nondeterministic automaton while it is built. State 0 is where all patterns begin. */
class Net {
  readonly edges: { readonly set: CharSet; readonly to: number }[][] = [[]]
  readonly empty: number[][] = [[]]
  /** What is shared: from a state by a set, or into a loop over a set. Only what every pattern through here has in common. */
  readonly #shared = new Map<string, number>()

  /** Adds a pattern that begins at a state; the state where it ends. */
  add(from: number, pattern: Regular): number {
    switch (pattern.kind) {
      case 'set':
        return this.#shareable(`${from}>${keyOf(pattern.set)}`, (to) => this.edges[from]!.push({ set: pattern.set, to }))
      case 'sequence':
        return pattern.parts.reduce((at, part) => this.add(at, part), from)
      case 'choice': {
        const ends = pattern.options.map((option) => this.add(this.#fork(from), option))
        const join = this.#state()
        for (const end of ends) this.empty[end]!.push(join)
        return join
      }
      case 'star': {
        const { of } = pattern
        if (of.kind === 'set') {
          return this.#shareable(`${from}*${keyOf(of.set)}`, (loop) => {
            this.empty[from]!.push(loop)
            this.edges[loop]!.push({ set: of.set, to: loop })
          })
        }
        const loop = this.#fork(from)
        this.empty[this.add(loop, of)]!.push(loop)
        return loop
      }
      default:
        throw new Error(`bug: regular ${JSON.stringify(pattern satisfies never)}`)
    }
  }

  /** A state of its own: what is added here is shared with nobody. */
  #fork(from: number): number {
    const to = this.#state()
    this.empty[from]!.push(to)
    return to
  }

  #shareable(key: string, make: (to: number) => void): number {
    const known = this.#shared.get(key)
    if (known !== undefined) return known
    const to = this.#state()
    this.#shared.set(key, to)
    make(to)
    return to
  }

  #state(): number {
    this.edges.push([])
    this.empty.push([])
    return this.edges.length - 1
  }
}

/** A domain as a deterministic automaton over an alphabet of its own; it begins in state 0. */
interface DomainStates {
  readonly alphabet: Alphabet
  /** By state and symbol; -1 where no text of the domain goes on. */
  readonly next: readonly Int32Array[]
  readonly accepts: readonly boolean[]
}

/** Domains are few and constant: each is made once. */
const madeDomains = new WeakMap<Domain, DomainStates>()

function statesOf(domain: Domain): DomainStates {
  const made = madeDomains.get(domain) ?? makeDomain(domain)
  madeDomains.set(domain, made)
  return made
}

function makeDomain({ must, mustNot }: Domain): DomainStates {
  const automaton = new Automaton([...must, ...mustNot], { must: [], mustNot: [] })
  const numbers = [automaton.start]
  const known = new Map([[automaton.start, 0]])
  const next: Int32Array[] = []
  for (let at = 0; at < numbers.length; at++) {
    next.push(
      automaton.next(numbers[at]!).map((to) => {
        if (!known.has(to)) {
          known.set(to, numbers.length)
          numbers.push(to)
        }
        return known.get(to)!
      }),
    )
  }
  const accepts = numbers.map((state) => {
    const matched = automaton.matchedAt(state)
    return matched.length === must.length && matched.every((one) => one < must.length)
  })
  const live = backwards(next, accepts)
  return {
    alphabet: automaton.alphabet,
    accepts,
    next: live[0] ? next.map((row) => row.map((to) => (live[to] ? to : -1))) : [],
  }
}

/** The states from which one that accepts can be reached. */
function backwards(next: readonly Int32Array[], accepts: readonly boolean[]): boolean[] {
  const before: number[][] = next.map(() => [])
  for (const [from, row] of next.entries()) for (const to of new Set(row)) before[to]!.push(from)
  const live = [...accepts]
  const open = [...accepts.keys()].filter((state) => accepts[state])
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    for (const from of before[state]!) {
      if (live[from]) continue
      live[from] = true
      open.push(from)
    }
  }
  return live
}

function* setsOf(patterns: readonly Regular[]): Iterable<CharSet> {
  for (const pattern of patterns) {
    if (pattern.kind === 'set') yield pattern.set
    else if (pattern.kind === 'star') yield* setsOf([pattern.of])
    else yield* setsOf(pattern.kind === 'sequence' ? pattern.parts : pattern.options)
  }
}

function charAt(text: string, at: number): Regular {
  const code = text.charCodeAt(at)
  return { kind: 'set', set: [[code, code]] }
}

function normalized(ranges: readonly (readonly [number, number])[]): CharSet {
  const merged: [number, number][] = []
  for (const [low, high] of ranges.toSorted((a, b) => a[0] - b[0])) {
    const last = merged.at(-1)
    if (last && low <= last[1] + 1) last[1] = Math.max(last[1], high)
    else merged.push([low, high])
  }
  return merged
}

function complementOf(set: CharSet): CharSet {
  const ranges: [number, number][] = []
  let low = 0
  for (const [start, end] of set) {
    if (start > low) ranges.push([low, start - 1])
    low = end + 1
  }
  if (low <= 0xffff) ranges.push([low, 0xffff])
  return ranges
}

const keyOf = (set: CharSet): string => set.map(([low, high]) => (low === high ? low : `${low}-${high}`)).join()

/** The interval that holds a character. */
function indexIn(starts: readonly number[], code: number): number {
  let low = 0
  let high = starts.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (starts[middle]! <= code) low = middle
    else high = middle - 1
  }
  return low
}

function plainestBetween(low: number, high: number): string {
  for (const character of plainCharacters) {
    const code = character.charCodeAt(0)
    if (code >= low && code <= high) return character
  }
  return String.fromCharCode(low)
}

function plainness(character: string): number {
  const at = plainCharacters.indexOf(character)
  return at === -1 ? plainCharacters.length + character.charCodeAt(0) : at
}

/** What a person would write first. */
const plainCharacters = 'xabcdefghijklmnopqrstuvwyz0123456789XABCDEFGHIJKLMNOPQRSTUVWYZ-_./:'
const asciiLetter = /^[A-Za-z]$/
/** States of the product are numbered in one number. */
const maxStates = 2 ** 26
