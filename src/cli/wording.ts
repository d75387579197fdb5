/** What is wrong with a value that somebody wrote, in words: for flags and for configuration files alike. */
import type { z } from 'zod'

/** An error map for zod: half a sentence for {@link problem}. Schemas that say something themselves keep their words. */
export const wording: z.core.$ZodErrorMap = (issue) => {
  if (issue.input === undefined && (issue.code === 'invalid_type' || issue.code === 'invalid_union')) return 'is missing'
  if (issue.code === 'invalid_type') return expected(kinds[issue.expected] ?? issue.expected, issue.input)
  if (issue.code === 'invalid_value')
    return issue.input === undefined ? `is missing: expected ${oneOf(issue.values)}` : expected(oneOf(issue.values), issue.input)
  if (issue.code === 'too_small') return tooSmall(issue)
  if (issue.code === 'too_big')
    return `expected at most ${issue.maximum}${units[issue.origin] ?? ''}, found ${found(issue.origin, issue.input)}`
  if (issue.code === 'unrecognized_keys') return `${issue.keys.length === 1 ? 'unknown key' : 'unknown keys'} ${listed(issue.keys)}`
  return undefined
}

/** What is wrong, with the name of the flag or key that it is about. */
export const problem = (name: string, what: string): string =>
  name === '' ? what : `\`${name}\`${what.startsWith('is ') ? '' : ':'} ${what}`

/** A list of words for a sentence. */
export const listed = (words: readonly string[]): string => words.map((word) => `\`${word}\``).join(', ')

function tooSmall({
  minimum,
  origin,
  input,
}: {
  readonly minimum: number | bigint
  readonly origin: string
  readonly input?: unknown
}): string {
  if (origin !== 'number' && origin !== 'int' && Number(minimum) === 1) return 'is empty'
  return `expected at least ${minimum}${units[origin] ?? ''}, found ${found(origin, input)}`
}

/** What was expected, and what was found. */
export const expected = (what: string, input: unknown): string => `expected ${what}, found ${told(input)}`

function oneOf(values: readonly unknown[]): string {
  const words = listed(values.map(String))
  return values.length === 1 ? words : `one of ${words}`
}

/** Numbers as they are, of everything else how much there is. */
function found(origin: string, input: unknown): string {
  if (typeof input === 'string' || Array.isArray(input)) return `${input.length}${units[origin] ?? ''}`
  return told(input)
}

function told(input: unknown): string {
  if (input === null) return 'nothing'
  if (Array.isArray(input)) return 'a list'
  if (typeof input === 'object') return 'a group of settings'
  return `\`${JSON.stringify(input).replace(/^"|"$/g, '').slice(0, 80)}\``
}

const kinds: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: '`true` or `false`',
  array: 'a list',
  object: 'a group of settings',
}

const units: Readonly<Record<string, string>> = { string: ' characters', array: ' values' }
