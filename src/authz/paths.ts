/** What strict mode knows of paths (`policy/normalize.ts`), in full matches for a proxy. */
import { quoted } from './regex.ts'

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

const escape = (digits: string): string =>
  `%${[...digits].map((digit) => (/[A-Fa-f]/.test(digit) ? `[${digit.toUpperCase()}${digit.toLowerCase()}]` : digit)).join('')}`
