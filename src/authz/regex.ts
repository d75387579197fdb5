/** RE2 full-match expressions made of quoted literals and fixed pieces, for what Envoy's plain matchers cannot say. */
import type { StringMatch, TemplatePart } from '../policy/matching.ts'

/** A literal, so that no character of it means anything. */
export const quoted = (literal: string): string => literal.replaceAll(/[\\.+*?()|[\]{}^$]/g, String.raw`\$&`)

/** A literal in which every `*` stands for `inside`. */
export const globbed = (literal: string, inside: string): string => literal.split('*').map(quoted).join(inside)

/** A text cut at its slashes: `{*}` is one whole segment, `{**}` any text. */
export function templated(parts: readonly TemplatePart[], literal: (text: string) => string = quoted): string {
  const told = { literal: (part: TemplatePart) => literal(part.kind === 'literal' ? part.text : ''), one: () => '[^/]+', rest: () => '.*' }
  return parts.map((part) => told[part.kind](part)).join('/')
}

/**
 * Every text that none of `matches` matches. Envoy can say "some value matches", and with this also "every value matches".
 * @returns undefined where one expression cannot say it: prefixes beside suffixes, or characters outside of printable ASCII
 */
export function noneOf(matches: readonly StringMatch[]): string | undefined {
  const kinds = new Set(matches.map(({ kind }) => kind))
  const texts = matches.map((match) => (match.kind === 'present' ? '' : match.value))
  if (kinds.has('present') || (kinds.has('prefix') && kinds.has('suffix')) || !texts.every((text) => printable.test(text))) return undefined
  const backwards = kinds.has('suffix')
  const root: Node = { children: new Map(), ends: false, opens: false }
  for (const [index, match] of matches.entries()) {
    let node = root
    for (const character of backwards ? [...texts[index]!].toReversed() : texts[index]!) {
      const next: Node = node.children.get(character) ?? { children: new Map(), ends: false, opens: false }
      node.children.set(character, next)
      node = next
    }
    if (match.kind === 'exact') node.ends = true
    else node.opens = true
  }
  return outside(root, backwards)
}

/** A tree of the characters of several texts, from their beginning or from their end. */
interface Node {
  readonly children: Map<string, Node>
  /** One of the texts is complete here, and nothing may follow. */
  ends: boolean
  /** One of the texts is complete here, whatever follows. */
  opens: boolean
}

/** What may stand from this node on without completing any of the texts: nothing more, another character and anything, or on along the tree. */
function outside(node: Node, backwards: boolean): string | undefined {
  if (node.opens) return undefined
  const others = node.children.size === 0 ? '.' : `[^${[...node.children.keys()].map(inClass).join('')}]`
  const ways = [backwards ? `.*${others}` : `${others}.*`]
  for (const [character, next] of node.children) {
    const rest = outside(next, backwards)
    if (rest !== undefined) ways.push(backwards ? `${rest}${quoted(character)}` : `${quoted(character)}${rest}`)
  }
  return `(?:${ways.join('|')})${node.ends ? '' : '?'}`
}

const inClass = (character: string): string => (/[\\\]^-]/.test(character) ? `\\${character}` : character)

const printable = /^[\u0020-\u007e]*$/
