/** Classes and cubes in the words of the policies that made them (authorization.md 5.4, step 4). */
import type { Cube } from './diagram.ts'
import type { Dimension } from './dimension.ts'
import { http, protocolLevel, type Space } from './space.ts'

/** What a cube says about one thing. What it does not say is free. */
export interface Constraint {
  /** `peer`, `path`, `header x-reason`: as in {@link Place.key}. */
  readonly about: string
  /** A sentence part: ``path `/orders/*`, but not `/orders/admin` `` */
  readonly words: string
}

/** What a cube says, the most telling first; empty for everything. */
export function constraintsOf(space: Space, cube: Cube): Constraint[] {
  const at = new Map(cube.map(({ level, classes }) => [level, classes]))
  const protocol = at.get(protocolLevel)
  const constraints: Constraint[] = []
  if (protocol?.length === 1) {
    constraints.push({ about: 'protocol', words: protocol[0] === http ? 'HTTP' : 'a connection that is not HTTP' })
  }
  for (const { key, dimension } of space.places) {
    const words = partWords(dimension, at)
    if (words !== undefined) constraints.push({ about: key, words })
  }
  const says = constraints.filter(({ about }) => about !== 'protocol')
  // Whatever names a path or a method is HTTP: saying so as well is noise.
  const isPlainly = says.some(({ about }) => space.placeOf(about)?.http)
  return isPlainly && protocol?.[0] === http ? says : constraints
}

/** What classes at the levels of one dimension say; nothing where they say nothing. */
export const partWords = (dimension: Dimension, at: ReadonlyMap<number, readonly number[]>): string | undefined =>
  dimension.isList ? listWords(dimension, at) : scalarWords(dimension, at.get(dimension.level))

/** One line of words for a cube. */
export const wordsOf = (constraints: readonly Constraint[]): string =>
  constraints.length === 0 ? 'everything' : constraints.map(({ words }) => words).join(', ')

function scalarWords(dimension: Dimension, classes: readonly number[] | undefined): string | undefined {
  if (!classes || classes.length === dimension.classes.length) return undefined
  const { name } = dimension
  const isAbsent = dimension.classes[0] === 'absent'
  const nothing = name === 'path' ? 'a path that can be read in more than one way' : `no ${name === 'peer' ? 'verified peer' : name}`
  const there = classes.filter((one) => !(isAbsent && one === 0))
  const mayBeAbsent = there.length < classes.length
  if (there.length === 0) return nothing
  const everyValue = there.length === dimension.classes.length - (isAbsent ? 1 : 0)
  const values = everyValue ? `any ${name === 'peer' ? 'verified peer' : name}` : `${name} ${valueWords(dimension, there)}`
  return mayBeAbsent ? `${nothing}, or ${values}` : values
}

/** Some of the values that there can be: as few of the policies' own patterns as say it, or else all but some. */
export function valueWords(dimension: Dimension, classes: readonly number[]): string {
  const isOther = (one: number) => dimension.classes[one] !== 'absent' && matchedAt(dimension, one).length === 0
  const all = [...dimension.classes.keys()].filter((one) => dimension.classes[one] !== 'absent')
  const inside = new Set(classes)
  const outside = all.filter((one) => !inside.has(one))
  const positive = classes.some(isOther) ? undefined : termsFor(dimension, inside)
  const negative = outside.some(isOther) ? undefined : termsFor(dimension, new Set(outside))
  if (negative && (!positive || negative.length < positive.length)) return `other than ${joined(negative, 'and')}`
  return positive
    ? joined(positive, 'or')
    : joined(
        classes.map((one) => likeWords(dimension, one)),
        'or',
      )
}

/** Patterns that cover exactly these classes, each perhaps without some others. Undefined where none is known. */
function termsFor(dimension: Dimension, wanted: ReadonlySet<number>): string[] | undefined {
  const members = new Map<number, number[]>()
  for (const [index, one] of dimension.classes.entries()) {
    if (one === 'absent') continue
    for (const atom of one.matched) {
      if (dimension.texts[atom] === '') continue
      const before = members.get(atom)
      if (before) before.push(index)
      else members.set(atom, [index])
    }
  }
  const left = new Set(wanted)
  const terms: string[] = []
  const text = (atom: number) => `\`${dimension.texts[atom]!}\``
  const take = (
    atoms: readonly (readonly [atom: number, classes: readonly number[]])[],
    except: (classes: readonly number[]) => string | undefined,
  ) => {
    for (const [atom, classes] of atoms) {
      if (left.size === 0) return
      if (!classes.some((one) => left.has(one))) continue
      const exception = except(classes)
      if (exception === undefined) continue
      terms.push(`${text(atom)}${exception}`)
      for (const one of classes) left.delete(one)
    }
  }
  const touching = [...members].filter(([, classes]) => classes.some((one) => wanted.has(one))).sort((a, b) => b[1].length - a[1].length)
  take(
    touching.filter(([, classes]) => classes.every((one) => wanted.has(one))),
    () => '',
  )
  take(touching, (classes) => {
    const unwanted = new Set(classes.filter((one) => !wanted.has(one)))
    const exceptions: string[] = []
    for (const [atom, others] of [...members].sort((a, b) => b[1].length - a[1].length)) {
      if (unwanted.size === 0) break
      if (!others.some((one) => unwanted.has(one)) || others.some((one) => wanted.has(one) && classes.includes(one))) continue
      exceptions.push(text(atom))
      for (const one of others) unwanted.delete(one)
    }
    return unwanted.size > 0 || exceptions.length > maxExceptions ? undefined : ` (but not ${joined(exceptions, 'or')})`
  })
  return left.size === 0 ? terms : [...terms, ...[...left].map((one) => likeWords(dimension, one))]
}

/** A class that has no words but all of its patterns: by those, and by its witness. */
function likeWords(dimension: Dimension, index: number): string {
  const one = dimension.classes[index]!
  const witness = one === 'absent' ? '' : String(one.witness)
  const matched = matchedAt(dimension, index).map((atom) => `\`${dimension.texts[atom]!}\``)
  return matched.length === 0 ? `such as \`${witness}\`` : `${joined(matched, 'and')} at once, such as \`${witness}\``
}

function matchedAt(dimension: Dimension, index: number): readonly number[] {
  const one = dimension.classes[index]!
  return one === 'absent' ? [] : one.matched.filter((atom) => dimension.texts[atom]! !== '')
}

/** Values that must be there, and values that must not. */
function listWords(dimension: Dimension, at: ReadonlyMap<number, readonly number[]>): string | undefined {
  const said = dimension.classes.map((_, index) => at.get(dimension.level + index))
  if (said.every((one) => one === undefined || one.length === 2)) return undefined
  const there = [...said.keys()].filter((index) => said[index]?.length === 1 && said[index][0] === 1)
  const missing = [...said.keys()].filter((index) => said[index]?.length === 1 && said[index][0] === 0)
  const { name } = dimension
  if (missing.length === dimension.classes.length) return `no ${name}`
  const others = missing.length > 0 && missing.length + there.length === dimension.classes.length
  const has =
    there.length === 0
      ? []
      : [
          `${name} with ${joined(
            there.map((one) => valueWords(dimension, [one])),
            'and',
          )}`,
        ]
  const hasNot = missing.length === 0 ? [] : others ? ['no other value'] : [`no ${name} with a value ${valueWords(dimension, missing)}`]
  return [...has, ...hasNot].join(' and ')
}

/** `a`, `b` or `c`, and how many more. */
export function joined(words: readonly string[], last: 'and' | 'or'): string {
  const shown = words.length > maxWords + 1 ? [...words.slice(0, maxWords), `${words.length - maxWords} more`] : words
  return shown.length < 2
    ? shown.join('')
    : `${shown.slice(0, -1).join(', ')} ${words.length > shown.length ? 'and' : last} ${shown.at(-1)!}`
}

const maxWords = 6
const maxExceptions = 6
