/** What policies compare with, as regular languages: the same texts as in `evaluate.ts`, said once more so that all of them can be reasoned about. */
import type { PathMatch, StringMatch, Template } from '../matching.ts'
import type { PeerMatch, PolicyMode } from '../policy-set.ts'
import type { CelComparison } from '../cel.ts'
import { namesPort } from '../evaluate.ts'
import {
  anyCharacter,
  anyText,
  caseless,
  choice,
  literal,
  optional,
  plus,
  regular,
  sequence,
  star,
  type CharSet,
  type Regular,
} from './regular.ts'

/** A text of these characters as {@link StringMatch} compares it. `empty` says whether `*` is satisfied by an empty text. */
export function stringPattern(
  match: StringMatch,
  { empty, write = literal, character = anyCharacter }: { empty: boolean; write?: (text: string) => Regular; character?: Regular },
): Regular {
  switch (match.kind) {
    case 'exact':
      return write(match.value)
    case 'prefix':
      return sequence(write(match.value), star(character))
    case 'suffix':
      return sequence(star(character), write(match.value))
    case 'present':
      return empty ? star(character) : plus(character)
    default:
      throw new Error(`bug: string match ${JSON.stringify(match satisfies never)}`)
  }
}

export function pathPattern(match: PathMatch, mode: PolicyMode): Regular {
  return match.kind === 'template' ? templatePattern(match, mode === 'istio') : stringPattern(match, { empty: false })
}

/** The same where a query may follow. */
export const pathAndQueryPattern = (match: PathMatch, query: Regular): Regular =>
  sequence(match.kind === 'template' ? templatePattern(match, true) : stringPattern(match, { empty: false, character: notQuery }), query)

/** Strict: without a port in the pattern the port does not matter. Istio: as sent, in any case. */
export function hostPattern(match: StringMatch, mode: PolicyMode): Regular {
  if (mode === 'istio') return stringPattern(match, { empty: true, write: caseless })
  const pattern = stringPattern(match, { empty: true })
  return namesPort(match) ? pattern : sequence(pattern, port)
}

/** {@link templateMatches} */
function templatePattern(template: Template, envoyCharacters: boolean): Regular {
  const segment = envoyCharacters ? envoySegment : notSlash
  const rest = envoyCharacters ? envoyRest : anyCharacter
  return sequence(
    ...template.parts.flatMap((part, index) => [
      ...(index === 0 ? [] : [slash]),
      part.kind === 'literal' ? literal(part.text) : part.kind === 'one' ? plus(segment) : star(rest),
    ]),
  )
}

export function peerPattern(match: PeerMatch, mode: PolicyMode): Regular {
  const strict = mode === 'strict'
  switch (match.kind) {
    case 'any':
      return anyText
    case 'id':
      return literal(match.id)
    case 'template':
      return templatePattern(match, false)
    case 'below':
      return sequence(literal(match.prefix), anyText)
    case 'ending':
      return sequence(scheme, plus(notSlash), anyText, literal(match.suffix))
    case 'namespace':
      return strict
        ? sequence(scheme, plus(notSlash), literal('/ns/'), globPattern(match.glob, notSlash), literal('/sa/'), plus(notSlash))
        : sequence(anyText, literal('/ns/'), globPattern(match.glob, anyCharacter), slash, anyText)
    case 'trust-domain':
      return match.glob === '*' ? sequence(scheme, anyText) : sequence(scheme, globPattern(match.glob, notSlash), slash, anyText)
    case 'service-account': {
      const { namespace, name } = match
      return strict
        ? sequence(scheme, plus(notSlash), literal(`/ns/${namespace}/sa/${name}`))
        : sequence(
            scheme,
            plus(anyCharacter),
            literal(`/ns/${namespace}/`),
            optional(sequence(plus(anyCharacter), slash)),
            literal(`sa/${name}`),
            optional(sequence(slash, plus(anyCharacter))),
          )
    }
    case 'principal':
      return match.match.kind === 'present' ? plus(anyCharacter) : sequence(scheme, stringPattern(match.match, { empty: true }))
    default:
      throw new Error(`bug: peer match ${JSON.stringify(match satisfies never)}`)
  }
}

/** The texts that a comparison in CEL admits; undefined where it is an expression of RE2 that analysis does not read. */
export function celPattern(comparison: CelComparison): Regular | undefined {
  switch (comparison.is) {
    case 'one-of':
      return choice(...comparison.values.map(literal))
    case 'prefix':
      return sequence(literal(comparison.value), anyText)
    case 'suffix':
      return sequence(anyText, literal(comparison.value))
    case 'contains':
      return sequence(anyText, literal(comparison.value), anyText)
    case 'matches':
      return foundAnywhere(comparison.value)
    case 'between':
    case 'present':
    case 'true':
      throw new Error(`bug: \`${comparison.is}\` of a text`)
    default:
      throw new Error(`bug: comparison ${JSON.stringify(comparison satisfies never)}`)
  }
}

/** `^` and `$` are read where they stand at the ends; RE2's `.` is any character but a line break, which no header or ID holds. */
function foundAnywhere(source: string): Regular | undefined {
  const begins = source.startsWith('^')
  const ends = /(?:^|[^\\])\$$/.test(source)
  const inner = source.slice(begins ? 1 : 0, ends ? -1 : undefined)
  // An anchor belongs to the first or last alternative alone.
  if ((begins || ends) && inner.includes('|')) return undefined
  try {
    return sequence(...(begins ? [] : [anyText]), regular(inner), ...(ends ? [] : [anyText]))
  } catch {
    return undefined
  }
}

/** `*` is any text of these characters. */
function globPattern(glob: string, star_: Regular): Regular {
  return sequence(...glob.split('*').flatMap((piece, index) => (index === 0 ? [literal(piece)] : [star(star_), literal(piece)])))
}

/** Any of several. */
export const anyOf = (patterns: readonly Regular[]): Regular => (patterns.length === 1 ? patterns[0]! : choice(...patterns))

const slash = literal('/')
const scheme = literal('spiffe://')
const port = optional(sequence(literal(':'), plus(regular('[0-9]'))))
const besidesSlash: CharSet = [
  [0, 0x2e],
  [0x30, 0xffff],
]
const notSlash: Regular = { kind: 'set', set: besidesSlash }
const notQuery = regular('[^?]')
/** authorization.md 1.5. */
const envoySegment = regular("[a-zA-Z0-9._~%!$&'()+,;:@=-]")
const envoyRest = regular("[a-zA-Z0-9._~%!$&'()+,;:@=/-]")
