/** What can be there at all: the texts of each dimension, as the evaluator compares them. */
import type { PathNormalization } from '../normalize.ts'
import type { PolicyMode } from '../policy-set.ts'
import { anyText, optional, regular, sequence, star, type Domain, type Regular } from './regular.ts'

/** SPIFFE-ID sections 2 to 2.2: what `parseSpiffeId` takes, its limits of length aside. */
export const spiffeIds: Domain = {
  must: [regular('spiffe://[a-z0-9._-]+(?:/[a-zA-Z0-9._-]+)*')],
  mustNot: [regular('spiffe://[a-z0-9._-]+/(?:.*/)?\\.\\.?(?:/.*)?')],
}

/** Paths after normalisation, in strict mode canonical and folded: no other path is ever compared, so none may be a witness. */
export const paths = (mode: PolicyMode, normalization: PathNormalization): Domain =>
  mode === 'strict' ? strictPaths : pathsAfter[normalization]

/** Paths and what may follow them in the pseudo header `:path`, which istio mode alone knows. */
export const pathsAndQueries = (normalization: PathNormalization): Domain => queriesAfter[normalization]

/** Hosts: strict as read (lower case, no trailing dot), istio as sent. */
export const hosts: Readonly<Record<PolicyMode, Domain>> = {
  strict: { must: [regular('(?:\\[[0-9a-f:.]+\\]|[a-z0-9._-]*[a-z0-9_-])(?::[0-9]+)?')], mustNot: [] },
  istio: { must: [regular('[!-~]+')], mustNot: [] },
}

/** RFC 9110 section 9.1: a token. */
export const methods: Domain = { must: [regular("[!#$%&'*+.^_`|~0-9A-Za-z-]+")], mustNot: [] }

export const serverNames: Domain = { must: [regular('[!-~]+')], mustNot: [] }

/** RFC 9110 section 5.5: no white space at either end. */
const visible: Regular = { kind: 'set', set: [[0x21, 0x7e], [0x80, 0xff]] } // prettier-ignore
const inside: Regular = { kind: 'set', set: [[0x09, 0x09], [0x20, 0x7e], [0x80, 0xff]] } // prettier-ignore
export const headerValues: Domain = { must: [optional(sequence(visible, optional(sequence(star(inside), visible))))], mustNot: [] }

export const anyTexts: Domain = { must: [anyText], mustNot: [] }
export const someTexts: Domain = { must: [regular('.+')], mustNot: [] }

/** What may follow a path in the pseudo header `:path`. */
export const query: Regular = regular('(?:\\?[!-~]*)?')

/** RFC 3986 section 2.3: what no path escapes after normalisation. */
const unreservedEscape = '%(?:2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])'
const basePaths = [regular('/[!$-;=@-\\[\\]_a-z~]*')]
/** No path has a `?`: what follows one is the query. */
const any = '[^?]*'
const neverAfterBase = [regular(`${any}/\\.\\.?(?:/${any})?`), regular(`${any}%00${any}`), regular(`${any}${unreservedEscape}${any}`)]
/** A path of nothing but slashes stays as two. */
const neverAfterMerge = [regular(`${any}//[^?]+`), regular(`[^?]+//${any}`)]
const pathsAfter: Readonly<Record<PathNormalization, Domain>> = {
  none: { must: [regular('/[!-"$->@-~]*')], mustNot: [] },
  base: { must: basePaths, mustNot: neverAfterBase },
  'merge-slashes': { must: basePaths, mustNot: [...neverAfterBase, ...neverAfterMerge] },
  'decode-and-merge-slashes': {
    must: basePaths,
    mustNot: [...neverAfterBase, ...neverAfterMerge, regular(`${any}%(?:2[Ff]|5[Cc])${any}`)],
  },
}
/** A trailing byte of UTF-8, and the characters of more than one byte (RFC 3629 section 4), escaped. */
const tail = '%[89AB][0-9A-F]'
const wideEscapes = [
  `%(?:C[2-9A-F]|D[0-9A-F])${tail}`,
  `%E0%[AB][0-9A-F]${tail}`,
  `%E[1-9A-CEF]${tail}${tail}`,
  `%ED%[89][0-9A-F]${tail}`,
  `%F0%[9AB][0-9A-F]${tail}${tail}`,
  `%F[1-3]${tail}${tail}${tail}`,
  `%F4%8[0-9A-F]${tail}${tail}`,
].join('|')
/** What `isCanonicalPath` takes and `foldPath` leaves alone: RFC 3986 section 3.3 without `;`, and only the escapes that a path needs, in upper case. */
const strictCharacter = `(?:[A-Za-z0-9._~!$&'()*+,:@=\\[\\]-]|%(?:2[025]|3[CE]|5E|60|7[BCD])|${wideEscapes})`
const strictPaths: Domain = {
  must: [regular(`/(?:${strictCharacter}+/)*${strictCharacter}*`)],
  mustNot: [regular('.*/\\.\\.?(?:/.*)?'), regular('.*%25[0-9A-Fa-f][0-9A-Fa-f].*')],
}
const followedByQuery = ({ must, mustNot }: Domain): Domain => ({
  must: must.map((one) => sequence(one, query)),
  mustNot: mustNot.map((one) => sequence(one, query)),
})
const queriesAfter: Readonly<Record<PathNormalization, Domain>> = {
  none: followedByQuery(pathsAfter.none),
  base: followedByQuery(pathsAfter.base),
  'merge-slashes': followedByQuery(pathsAfter['merge-slashes']),
  'decode-and-merge-slashes': followedByQuery(pathsAfter['decode-and-merge-slashes']),
}
