/** JSON that tells which names stand twice: the language's own parser keeps the last and says nothing (B-11). */
import { Failure } from '../kernel/failure.ts'
import type { JsonDocument } from './documents.ts'

/** @throws Failure `conformance.malformed` for what is no JSON, or nested deeper than 32 */
export function readJson(text: string): JsonDocument {
  try {
    const value: unknown = JSON.parse(text)
    return { value, text, repeated: repeatedIn(text) }
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw new Failure('invalid_argument', 'conformance.malformed', { public: 'it is not JSON', cause })
  }
}

/** Names that stand twice in one object of a text that is known to be JSON. */
function repeatedIn(text: string): string[] {
  const repeated: string[] = []
  const open: (Set<string> | undefined)[] = []
  for (const [token] of text.matchAll(tokens)) {
    if (token === '{' || token === '[') {
      if (open.push(token === '{' ? new Set() : undefined) > maxDepth)
        throw new Failure('invalid_argument', 'conformance.malformed', { public: `it is nested deeper than ${maxDepth}` })
    } else if (token === '}' || token === ']') open.pop()
    else if (token.endsWith(':')) {
      const name = JSON.parse(token.slice(0, -1).trimEnd()) as string
      const names = open.at(-1)
      if (names?.has(name)) repeated.push(name)
      names?.add(name)
    }
  }
  return repeated
}

/** Brackets, texts, and names: a text before a colon. */
const tokens = /[{}[\]]|"(?:[^"\\]|\\.)*"(?:\s*:)?/g
const maxDepth = 32
