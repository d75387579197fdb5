/** What a request has, one dimension each: which values policies tell apart, and where statements about them hold. */
import { always, type Diagram, never, type Node } from './diagram.ts'
import type { ValueClass } from './partition.ts'

/** Things that policies compare with, each once. `Compared` is a language of texts, a block of addresses or a range of numbers. */
export class Atoms<Compared> {
  readonly compared: Compared[] = []
  /** As policies write them; empty for what no policy says. */
  readonly texts: string[] = []
  readonly #numbers = new Map<string, number>()

  /** The number of an atom; `make` is asked when it is new. */
  number(key: string, text: string, make: () => Compared): number {
    const known = this.#numbers.get(key)
    if (known !== undefined) return known
    const number = this.texts.length
    this.#numbers.set(key, number)
    this.texts.push(text)
    this.compared.push(make())
    return number
  }
}

/** A part of requests with its levels in a diagram. */
export interface Dimension {
  readonly name: string
  /** The first of its levels. */
  readonly level: number
  /** How many classes each of its levels has. */
  readonly sizes: readonly number[]
  /** By atom, how it is written. */
  readonly texts: readonly string[]
  /** Of a value: the classes of its level. Of a list: the kinds of values, a level each. */
  readonly classes: readonly (ValueClass<unknown> | 'absent')[]
  /** Several values can be there at once: each level says whether a value of its class is there. */
  readonly isList: boolean
}

/** One value, or nothing: then the first class is that there is none. */
export class Scalar<Value> implements Dimension {
  readonly isList = false
  readonly name: string
  readonly level: number
  readonly texts: readonly string[]
  readonly classes: readonly (ValueClass<Value> | 'absent')[]
  readonly #members: readonly (readonly number[])[]
  readonly #byMatched: ReadonlyMap<string, number>

  constructor(name: string, level: number, texts: readonly string[], classes: readonly ValueClass<Value>[], mayBeAbsent: boolean) {
    this.name = name
    this.level = level
    this.texts = texts
    this.classes = mayBeAbsent ? ['absent', ...classes] : classes
    this.#members = membersOf(texts.length, this.classes)
    this.#byMatched = byMatched(this.classes)
  }

  get sizes(): readonly number[] {
    return [this.classes.length]
  }

  /** Where one of the atoms holds, or none of them does; `ifAbsent` decides where there is no value. */
  where(diagram: Diagram, atoms: readonly number[], { not, ifAbsent }: { readonly not: boolean; readonly ifAbsent: boolean }): Node {
    const matched = new Set(atoms.flatMap((atom) => this.#members[atom]!))
    if (this.classes[0] === 'absent' && ifAbsent !== not) matched.add(0)
    return diagram.choose(this.level, [...matched], not ? never : always, not ? always : never)
  }

  /** Where there is a value. */
  there(diagram: Diagram): Node {
    return this.classes[0] === 'absent' ? diagram.choose(this.level, [0], never, always) : always
  }

  /** The class of a value by the atoms that hold for it; -1 where there is none like it. */
  classOf(matched: readonly number[]): number {
    return this.#byMatched.get(matched.join()) ?? -1
  }
}

/** Any number of values, none included. All combinations are possible, so the levels are independent. */
export class List implements Dimension {
  readonly isList = true
  readonly name: string
  readonly level: number
  readonly texts: readonly string[]
  readonly classes: readonly ValueClass<string>[]
  /** The last level, where it matters: whether a value is there twice. */
  readonly repeatable: boolean
  readonly #members: readonly (readonly number[])[]
  readonly #byMatched: ReadonlyMap<string, number>

  constructor(name: string, level: number, texts: readonly string[], classes: readonly ValueClass<string>[], repeatable = false) {
    this.name = name
    this.level = level
    this.texts = texts
    this.classes = classes
    this.repeatable = repeatable
    this.#members = membersOf(texts.length, classes)
    this.#byMatched = byMatched(classes)
  }

  get sizes(): readonly number[] {
    return [...this.classes.map(() => 2), ...(this.repeatable ? [2] : [])]
  }

  classOf(matched: readonly number[]): number {
    return this.#byMatched.get(matched.join()) ?? -1
  }

  /** Where a value is there for which one of the atoms holds. */
  some(diagram: Diagram, atoms: readonly number[]): Node {
    return this.#someOf(diagram, this.#matching(atoms))
  }

  /** Where a value is there for which none of the atoms holds. */
  someOther(diagram: Diagram, atoms: readonly number[]): Node {
    const matching = new Set(this.#matching(atoms))
    return this.#someOf(diagram, [...this.classes.keys()].filter((one) => !matching.has(one))) // prettier-ignore
  }

  /** Where there is any value. */
  there(diagram: Diagram): Node {
    return this.#someOf(diagram, [...this.classes.keys()])
  }

  /** Where there is exactly one value. */
  once(diagram: Diagram): Node {
    let one = this.repeatable ? diagram.choose(this.level + this.classes.length, [0]) : always
    let nothing: Node = never
    // From the last level up: what is left to come when one value was there already, and when none was.
    for (const kind of [...this.classes.keys()].toReversed()) {
      nothing = diagram.choose(this.level + kind, [1], one, nothing)
      one = diagram.choose(this.level + kind, [0], one)
    }
    return nothing
  }

  #matching(atoms: readonly number[]): number[] {
    return [...new Set(atoms.flatMap((atom) => this.#members[atom]!))].sort((a, b) => a - b)
  }

  #someOf(diagram: Diagram, kinds: readonly number[]): Node {
    return kinds.reduceRight((below, one) => diagram.choose(this.level + one, [1], always, below), never)
  }
}

/** By atom, the classes it holds for. */
function membersOf(atoms: number, classes: readonly (ValueClass<unknown> | 'absent')[]): readonly (readonly number[])[] {
  const members: number[][] = Array.from({ length: atoms }, () => [])
  for (const [index, one] of classes.entries()) if (one !== 'absent') for (const atom of one.matched) members[atom]!.push(index)
  return members
}

function byMatched(classes: readonly (ValueClass<unknown> | 'absent')[]): ReadonlyMap<string, number> {
  return new Map(classes.flatMap((one, index) => (one === 'absent' ? [] : [[one.matched.join(), index] as const])))
}
