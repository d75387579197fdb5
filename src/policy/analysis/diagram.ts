/**
 * Multi-valued decision diagrams: Boolean functions over levels, each of which has a number of classes. Two functions that are equal are the same node,
 * so that equality and emptiness are read off, and every operation remembers what it did (authorization.md 5.4, step 2).
 */
import type { Budget } from './budget.ts'

/** A function of a diagram. Equal numbers are equal functions. */
export type Node = number
export const never: Node = 0
export const always: Node = 1

/** Classes of some levels, ascending by level: all assignments that choose one of the classes at each. A level that is not there is free. */
export type Cube = readonly { readonly level: number; readonly classes: readonly number[] }[]

export class Diagram {
  /** How many classes each level has. */
  readonly sizes: readonly number[]
  readonly #budget: Budget
  readonly #level: number[] = [Infinity, Infinity]
  /** The child of most classes; of equals the one with the lowest number. */
  readonly #usual: Node[] = [never, always]
  /** Class and child of all others, ascending by class, in pairs. */
  readonly #others: Int32Array[] = [new Int32Array(), new Int32Array()]
  readonly #nextAlike: number[] = [-1, -1]
  readonly #byHash = new Map<number, Node>()
  readonly #done = { and: new Map<number, Node>(), without: new Map<number, Node>() }
  readonly #negated = new Map<Node, Node>([
    [never, always],
    [always, never],
  ])
  readonly #unions = new Map<string, Node>()

  constructor(sizes: readonly number[], budget: Budget) {
    this.sizes = sizes
    this.#budget = budget
  }

  /** How many nodes were made. */
  get nodes(): number {
    return this.#level.length
  }

  /** `inside` at these classes of a level, `outside` at the others. */
  choose(level: number, classes: readonly number[], inside: Node = always, outside: Node = never): Node {
    return this.#node(
      level,
      outside,
      [...new Set(classes)].sort((a, b) => a - b).flatMap((one) => [one, inside]),
    )
  }

  /** The child of one class of the level; the node itself where it does not look at that level. */
  at(node: Node, level: number, chosen: number): Node {
    return this.#level[node] === level ? this.#child(node, chosen) : node
  }

  /** The level that a node looks at; Infinity for `never` and `always`. */
  levelOf(node: Node): number {
    return this.#level[node]!
  }

  and(a: Node, b: Node): Node {
    if (a === never || b === never) return never
    if (a === always || a === b) return b
    if (b === always) return a
    return this.#apply('and', Math.min(a, b), Math.max(a, b))
  }

  /** Where `a` holds and `b` does not. */
  without(a: Node, b: Node): Node {
    if (a === never || b === always || a === b) return never
    if (b === never) return a
    if (a === always) return this.not(b)
    return this.#apply('without', a, b)
  }

  not(node: Node): Node {
    const known = this.#negated.get(node)
    if (known !== undefined) return known
    const others = [...this.#others[node]!]
    for (let at = 1; at < others.length; at += 2) others[at] = this.not(others[at]!)
    const negated = this.#node(this.#level[node]!, this.not(this.#usual[node]!), others)
    this.#negated.set(node, negated)
    this.#negated.set(negated, node)
    return negated
  }

  or(a: Node, b: Node): Node {
    return this.union([a, b])
  }

  /** Where any of them holds. All at once: what many rules make of one class is looked at together. */
  union(nodes: Iterable<Node>): Node {
    const all = new Set(nodes)
    all.delete(never)
    if (all.has(always)) return always
    if (all.size <= 1) return all.size === 0 ? never : [...all][0]!
    const list = [...all].sort((a, b) => a - b)
    const key = list.join()
    const known = this.#unions.get(key)
    if (known !== undefined) return known
    const union = this.#unionOf(list)
    this.#unions.set(key, union)
    return union
  }

  /** Where all of them hold. */
  intersection(nodes: Iterable<Node>): Node {
    let all = always
    for (const node of nodes) all = this.and(all, node)
    return all
  }

  /** The node with one class of a level chosen. */
  restrict(node: Node, level: number, chosen: number): Node {
    return this.#mapped(node, level, (below) => this.#child(below, chosen))
  }

  /** Where some class of the level makes it hold. */
  exists(node: Node, level: number): Node {
    return this.#mapped(node, level, (below) => this.union(this.#children(below)))
  }

  /** Where every class of the level makes it hold. */
  forEvery(node: Node, level: number): Node {
    return this.not(this.exists(this.not(node), level))
  }

  /** True if this assignment, one class a level, makes it hold. */
  holds(node: Node, assignment: readonly number[]): boolean {
    let at = node
    while (at > always) at = this.#child(at, assignment[this.#level[at]!]!)
    return at === always
  }

  /** How many assignments make it hold, as far as a number can say. */
  cells(node: Node): number {
    const known = new Map<Node, number>()
    const below = (from: number, to: number) => this.sizes.slice(from, to).reduce((product, size) => product * size, 1)
    const depth = (of: Node) => Math.min(this.#level[of]!, this.sizes.length)
    const count = (of: Node): number => {
      if (of === never) return 0
      if (of === always) return 1
      const before = known.get(of)
      if (before !== undefined) return before
      let sum = 0
      for (const { child, classes } of this.branches(of)) sum += classes.length * count(child) * below(depth(of) + 1, depth(child))
      known.set(of, sum)
      return sum
    }
    return count(node) * below(0, depth(node))
  }

  /** The children of a node, each with the classes that lead there. */
  branches(node: Node): { readonly child: Node; readonly classes: readonly number[] }[] {
    const others = this.#others[node]!
    const byChild = new Map<Node, number[]>()
    for (let chosen = 0, at = 0; chosen < this.sizes[this.#level[node]!]!; chosen++) {
      const isOther = others[at] === chosen
      const child = isOther ? others[at + 1]! : this.#usual[node]!
      if (isOther) at += 2
      const classes = byChild.get(child)
      if (classes) classes.push(chosen)
      else byChild.set(child, [chosen])
    }
    return [...byChild].map(([child, classes]) => ({ child, classes }))
  }

  /** Disjoint cubes that together are the function, lazily. */
  *cubes(node: Node): Iterable<Cube> {
    if (node === never) return
    if (node === always) {
      yield []
      return
    }
    const level = this.#level[node]!
    for (const { child, classes } of this.branches(node)) {
      for (const cube of this.cubes(child)) yield [{ level, classes }, ...cube]
    }
  }

  /** The function that a cube is. */
  ofCube(cube: Cube): Node {
    return cube.toReversed().reduce((below, { level, classes }) => this.choose(level, classes, below), always)
  }

  /**
   * The assignment nearest to the given one at which the function holds: the fewest weight of levels that differ. Undefined where it never holds.
   * `weights` by level; what is not to change has weight Infinity.
   */
  nearest(node: Node, assignment: readonly number[], weights: readonly number[]): readonly number[] | undefined {
    const known = new Map<Node, { readonly cost: number; readonly level?: number; readonly chosen?: number; readonly next?: Node }>()
    const best = (of: Node): { readonly cost: number; readonly chosen?: number; readonly next?: Node } => {
      if (of === never) return { cost: Infinity }
      if (of === always) return { cost: 0 }
      const before = known.get(of)
      if (before) return before
      const level = this.#level[of]!
      let found: { cost: number; chosen?: number; next?: Node } = { cost: Infinity }
      for (const { child, classes } of this.branches(of)) {
        const stays = classes.includes(assignment[level]!)
        const cost = best(child).cost + (stays ? 0 : weights[level]!)
        if (cost < found.cost) found = { cost, chosen: stays ? assignment[level]! : classes[0]!, next: child }
      }
      known.set(of, found)
      return found
    }
    if (best(node).cost === Infinity) return undefined
    const result = [...assignment]
    for (let at = node; at > always;) {
      const { chosen, next } = best(at)
      result[this.#level[at]!] = chosen!
      at = next!
    }
    return result
  }

  #apply(operation: 'and' | 'without', a: Node, b: Node): Node {
    const done = this.#done[operation]
    const key = a * maxNodes + b
    const known = done.get(key)
    if (known !== undefined) return known
    const level = Math.min(this.#level[a]!, this.#level[b]!)
    const [first, second] = [this.#seenFrom(a, level), this.#seenFrom(b, level)]
    const work = (x: Node, y: Node) => (operation === 'and' ? this.and(x, y) : this.without(x, y))
    const others: number[] = []
    for (let i = 0, j = 0; i < first.others.length || j < second.others.length;) {
      const [x, y] = [first.others[i] ?? Infinity, second.others[j] ?? Infinity]
      others.push(Math.min(x, y), work(x <= y ? first.others[i + 1]! : first.usual, y <= x ? second.others[j + 1]! : second.usual))
      if (x <= y) i += 2
      if (y <= x) j += 2
    }
    this.#budget.step(others.length + 1)
    const result = this.#node(level, work(first.usual, second.usual), others)
    done.set(key, result)
    return result
  }

  #unionOf(nodes: readonly Node[]): Node {
    const level = Math.min(...nodes.map((node) => this.#level[node]!))
    const usual = new Set<Node>()
    const mentioned = new Map<number, Node[]>()
    // Those whose usual child is not `never` count at every class that they do not mention.
    const everywhere: { readonly others: Int32Array; readonly usual: Node }[] = []
    for (const node of nodes) {
      const seen = this.#seenFrom(node, level)
      usual.add(seen.usual)
      if (seen.usual !== never) everywhere.push(seen)
      for (let at = 0; at < seen.others.length; at += 2) {
        const children = mentioned.get(seen.others[at]!)
        if (children) children.push(seen.others[at + 1]!)
        else mentioned.set(seen.others[at]!, [seen.others[at + 1]!])
      }
    }
    this.#budget.step(nodes.length)
    const others: number[] = []
    const next = everywhere.map(() => 0)
    for (const chosen of [...mentioned.keys()].sort((a, b) => a - b)) {
      const children = mentioned.get(chosen)!
      for (const [index, one] of everywhere.entries()) {
        while (one.others[next[index]!]! < chosen) next[index]! += 2
        if (one.others[next[index]!] !== chosen) children.push(one.usual)
      }
      this.#budget.step(children.length)
      others.push(chosen, this.union(children))
    }
    return this.#node(level, mentioned.size === this.sizes[level] ? others[1]! : this.union(usual), others)
  }

  /** Applies `change` to every node of a level. */
  #mapped(node: Node, level: number, change: (node: Node) => Node): Node {
    const known = new Map<Node, Node>()
    const map = (of: Node): Node => {
      if (this.#level[of]! > level) return of
      if (this.#level[of] === level) return change(of)
      const before = known.get(of)
      if (before !== undefined) return before
      const others = [...this.#others[of]!]
      for (let at = 1; at < others.length; at += 2) others[at] = map(others[at]!)
      this.#budget.step(others.length + 1)
      const mapped = this.#node(this.#level[of]!, map(this.#usual[of]!), others)
      known.set(of, mapped)
      return mapped
    }
    return map(node)
  }

  #seenFrom(node: Node, level: number): { readonly usual: Node; readonly others: Int32Array } {
    return this.#level[node] === level ? { usual: this.#usual[node]!, others: this.#others[node]! } : { usual: node, others: none }
  }

  #child(node: Node, chosen: number): Node {
    const others = this.#others[node]!
    let low = 0
    let high = others.length / 2 - 1
    while (low <= high) {
      const middle = (low + high) >> 1
      const found = others[middle * 2]!
      if (found === chosen) return others[middle * 2 + 1]!
      if (found < chosen) low = middle + 1
      else high = middle - 1
    }
    return this.#usual[node]!
  }

  #children(node: Node): Set<Node> {
    const others = this.#others[node]!
    const children = new Set<Node>()
    for (let at = 1; at < others.length; at += 2) children.add(others[at]!)
    if (others.length / 2 < this.sizes[this.#level[node]!]!) children.add(this.#usual[node]!)
    return children
  }

  /** The one node with these children: `usual` at every class that `others`, ascending pairs of class and child, does not name. */
  #node(level: number, usual: Node, others: readonly number[]): Node {
    const size = this.sizes[level]!
    const counts = new Map<Node, number>([[usual, size - others.length / 2]])
    for (let at = 1; at < others.length; at += 2) counts.set(others[at]!, (counts.get(others[at]!) ?? 0) + 1)
    let most = usual
    for (const [child, count] of counts) {
      const ahead = count - counts.get(most)!
      if (ahead > 0 || (ahead === 0 && child < most)) most = child
    }
    if (counts.get(most) === size) return most
    return this.#only(level, most, most === usual ? withoutChild(others, usual) : this.#inverted(size, usual, others, most))
  }

  /** The pairs when `most` becomes the usual child: the classes that were not named are named now. */
  #inverted(size: number, usual: Node, others: readonly number[], most: Node): Int32Array {
    const pairs: number[] = []
    for (let chosen = 0, at = 0; chosen < size; chosen++) {
      const isOther = others[at] === chosen
      const child = isOther ? others[at + 1]! : usual
      if (isOther) at += 2
      if (child !== most) pairs.push(chosen, child)
    }
    this.#budget.step(size)
    return Int32Array.from(pairs)
  }

  #only(level: number, usual: Node, others: Int32Array): Node {
    let hash = (level * 31 + usual) | 0
    for (const part of others) hash = (Math.imul(hash, 0x01000193) ^ part) | 0
    const first = this.#byHash.get(hash) ?? -1
    for (let node = first; node !== -1; node = this.#nextAlike[node]!) {
      if (this.#level[node] === level && this.#usual[node] === usual && equal(this.#others[node]!, others)) return node
    }
    this.#budget.node()
    this.#budget.step(others.length + 1)
    const node = this.#level.length
    if (node >= maxNodes) throw new Error('bug: more nodes than can be numbered')
    this.#level.push(level)
    this.#usual.push(usual)
    this.#others.push(others)
    this.#nextAlike.push(first)
    this.#byHash.set(hash, node)
    return node
  }
}

function withoutChild(pairs: readonly number[], child: Node): Int32Array {
  const kept: number[] = []
  for (let at = 0; at < pairs.length; at += 2) if (pairs[at + 1] !== child) kept.push(pairs[at]!, pairs[at + 1]!)
  return Int32Array.from(kept)
}

function equal(a: Int32Array, b: Int32Array): boolean {
  if (a.length !== b.length) return false
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false
  return true
}

const none = new Int32Array()
/** Two numbers of nodes make one key. */
const maxNodes = 2 ** 26
