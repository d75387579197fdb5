/**
 * What strict mode knows of paths (`policy/normalize.ts`), in full matches that fit into a proxy:
 * Envoy takes expressions of at most 100 instructions unless its `re2.max_program_size.error_level` is raised.
 */
import { quoted } from './regex.ts'

/** Matches what is canonical as long as {@link neverCanonical} does not match: nothing is escaped, and nothing else is unusual. Most paths. */
export const plainPath = String.raw`/[A-Za-z0-9\-._~!$&'()*+,:@=\[\]/]*`

/** Empty segments and dot segments. */
export const neverCanonical = String.raw`.*//.*|.*/\.\.?(?:/.*)?`

/**
 * Of the paths that are not plain, those that can be read in more than one way match one of these: characters that ought to be escaped,
 * escapes that are broken, not needed, or of delimiters, escapes of escapes, and what is not UTF-8 (RFC 3629 section 4).
 */
export const ambiguousPaths: readonly string[] = (() => {
  const tail = '%[89ABab].'
  const noTail = '(?:|%|[^%].*|%[^89ABab].*)'
  return [
    String.raw`[^/].*|.*[^A-Za-z0-9\-._~!$&'()*+,:@=\[\]/%].*`,
    '.*%(?:[^2-9A-Fa-f].*|2[^0-24-9A-Ca-c].*|3[^ACDEacde].*|[46][^0].*|5[^BDEbde].*|7[^BCDbcd].*|[89A-Fa-f][^0-9A-Fa-f].*|.)?',
    '.*%(?:25[0-9A-Fa-f][0-9A-Fa-f]|[Cc][01]|[Ff][5-9A-Fa-f]|[Ee]0%[89]|[Ee][Dd]%[ABab]|[Ff]0%8|[Ff]4%[9ABab]).*',
    `.*%(?:[CcDd].|[Ee].(?:${tail})?|[Ff].(?:${tail}(?:${tail})?)?)${noTail}`,
    `(?:.{1,2}|.*[^%]..|.*%[2-7].)${tail}.*`,
    `.*%(?:[CcDd].|[Ee].${tail}|[Ff].${tail}${tail})${tail}${tail}.*`,
  ]
})()

/** A folded literal in every spelling that folds to it. */
export function spellings(folded: string): string {
  return folded
    .split(/(%[0-9A-F]{2}|.)/s)
    .map((part) => {
      if (part.length === 3 && part.startsWith('%')) return escape(part.slice(1))
      return isFolded(part) ? `(?:${quoted(part)}|${escape(part.charCodeAt(0).toString(16))})` : quoted(part)
    })
    .join('')
}

/** True if a folded literal has one spelling only. */
export const hasOneSpelling = (folded: string): boolean => !/[%!$&'()*+,:=@[\]]/.test(folded)

/** The characters that `foldPath` writes without their escapes. */
const isFolded = (character: string): boolean => character !== '' && "!$&'()*+,:=@[]".includes(character)

const escape = (digits: string): string => `%${[...digits].map((digit) => (/[A-Fa-f]/.test(digit) ? `[${digit.toUpperCase()}${digit.toLowerCase()}]` : digit)).join('')}`
