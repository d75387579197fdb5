/**
 * A path as the proxy will see it: Istio's `meshConfig.pathNormalization` as Envoy carries it out (authorization.md 1.8),
 * and the one spelling of a path that strict mode believes.
 */

/** Istio's modes, from nothing to everything. Strict sets use the last. */
export const pathNormalizations = ['none', 'base', 'merge-slashes', 'decode-and-merge-slashes'] as const
export type PathNormalization = (typeof pathNormalizations)[number]

/**
 * The path without query and fragment, normalised. Undefined where the proxy answers 400 and forwards nothing:
 * a path that does not begin with a slash, raw control characters or non-ASCII, `%00`.
 */
export function normalizePath(path: string, mode: PathNormalization): string | undefined {
  const bare = withoutQuery(path)
  if (!bare.startsWith('/') || path.length > maxPathLength || !visibleAscii.test(bare)) return undefined
  switch (mode) {
    case 'none':
      return bare
    case 'base':
      return base(bare)
    case 'merge-slashes':
      return mergeSlashes(base(bare))
    case 'decode-and-merge-slashes':
      return mergeSlashes(base(decodeSlashes(bare)))
    default:
      throw new Error(`bug: path normalization ${String(mode satisfies never)}`)
  }
}

/** True for most paths there are: already normal in every mode, canonical and folded. */
export const isPlainPath = (path: string): boolean => path.length <= maxPathLength && plainPath.test(path)

/**
 * True if a normalised path can be read in one way only: every escape is whole, valid UTF-8 and needed; no parameter (`;`), no escaped delimiter,
 * no escape that decodes into another, no control character, no empty or dot segment. Whatever else a server behind makes of it, strict mode does not guess.
 */
export function isCanonicalPath(path: string): boolean {
  return must.every((pattern) => pattern.test(path)) && !mustNot.some((pattern) => pattern.test(path))
}

/**
 * A canonical path with the last freedom of spelling taken away: escapes in upper case, and characters that need no escape in a path
 * (`@`, `:`, `+` and so on) without theirs.
 */
export function foldPath(path: string): string {
  if (!path.includes('%')) return path
  return path.replace(/%[0-9A-Fa-f]{2}/g, (escape) => {
    const character = String.fromCharCode(parseInt(escape.slice(1), 16))
    return unneededEscapes.includes(character) ? character : escape.toUpperCase()
  })
}

function withoutQuery(path: string): string {
  const end = path.search(/[?#]/)
  return end === -1 ? path : path.slice(0, end)
}

/** Envoy's UNESCAPE_AND_FORWARD: one pass, so `%252F` stays as it is. */
function decodeSlashes(path: string): string {
  return path.includes('%') ? path.replace(/%2f/gi, '/').replace(/%5c/gi, '\\') : path
}

/** Envoy's `normalize_path`: parameters of literal dot segments dropped, `\` is `/`, dot segments resolved, unreserved characters unescaped. */
function base(path: string): string | undefined {
  if (plain.test(path)) return path
  const withoutDotParameters = path
    .split('/')
    .map((segment) => (segment.startsWith('.;') ? '.' : segment.startsWith('..;') ? '..' : segment))
    .join('/')
  const kept: string[] = []
  const segments = withoutDotParameters.slice(1).split(/[/\\]/)
  for (const [index, segment] of segments.entries()) {
    const dots = segment.replace(/%2e/gi, '.')
    const last = index === segments.length - 1
    if (dots === '.' || dots === '..') {
      if (dots === '..') kept.pop()
      if (last) kept.push('')
      continue
    }
    const text = canonicalSegment(segment)
    if (text === undefined) return undefined
    kept.push(text)
  }
  return `/${kept.join('/')}`
}

/** Unescapes what needs no escape and escapes what does. An escape that would come into being by that is broken with `%25`. */
function canonicalSegment(segment: string): string | undefined {
  let out = ''
  let strayPercent = -3
  for (let at = 0; at < segment.length; at++) {
    const character = segment[at]!
    if (character !== '%') {
      out += mustBeEscaped.includes(character) ? `%${character.charCodeAt(0).toString(16).toUpperCase()}` : character
      continue
    }
    const digits = segment.slice(at + 1, at + 3)
    if (!twoHexDigits.test(digits)) {
      strayPercent = out.length
      out += '%'
      continue
    }
    if (digits === '00') return undefined
    at += 2
    const decoded = String.fromCharCode(parseInt(digits, 16))
    if (!unreserved.test(decoded)) {
      out += `%${digits}`
      continue
    }
    out += decoded
    const looksLike = out.length - strayPercent === 2 ? out.slice(strayPercent + 1) + (segment[at + 1] ?? '') : out.slice(strayPercent + 1)
    if (strayPercent >= 0 && looksLike.length === 2 && twoHexDigits.test(looksLike)) {
      out = `${out.slice(0, strayPercent)}%25${out.slice(strayPercent + 1)}`
      strayPercent = -3
    }
  }
  return out
}

/** Envoy's `merge_slashes`, which leaves a path of nothing but slashes as two. */
function mergeSlashes(path: string | undefined): string | undefined {
  if (path === undefined || !path.includes('//')) return path
  const segments = path.split('/').filter((segment) => segment !== '')
  return `/${segments.join('/')}${path.endsWith('/') ? '/' : ''}`
}

/** Envoy's default limit of all headers of a request is 60 KiB. */
const maxPathLength = 65_536
const visibleAscii = /^[\x21-\x7e]*$/
/** Nothing to do: no escape, no character to escape, and no segment that begins with a dot. */
const plain = /^(?!.*\/\.)[A-Za-z0-9\-._~!$&'()*+,;:@=/[\]]*$/
const plainPath = /^\/(?:[A-Za-z0-9_-][A-Za-z0-9._-]*(?:\/|$))*$/
const twoHexDigits = /^[0-9A-Fa-f]{2}$/
/** RFC 3986 section 2.3. */
const unreserved = /^[A-Za-z0-9\-._~]$/
const mustBeEscaped = '"<>^`{|}'
/** RFC 3986 section 3.3: what a segment may hold as it is, without `;`. */
const unneededEscapes = "!$&'()*+,:=@[]"

/**
 * {@link isCanonicalPath} in the syntax that RE2 and JavaScript share, so that a proxy can be told the same: a canonical path matches all of
 * `must` and none of `mustNot`, each as a whole. In pieces, because Envoy refuses an expression of more than 100 instructions.
 */
export const canonicalPath: { readonly must: readonly string[]; readonly mustNot: readonly string[] } = {
  must: [
    // RFC 3986 section 3.3 without `;`, no empty segment.
    "/(?:[A-Za-z0-9._~!$&'()*+,:@=%\\[\\]-]+/)*[A-Za-z0-9._~!$&'()*+,:@=%\\[\\]-]*",
    // Every escape is whole, and what is not ASCII has the shape of UTF-8 (RFC 3629 section 3).
    '(?:[!-$&-~]|%(?:[0-7]|(?:[CDcd]|[Ee][0-9A-Fa-f]%[89ABab]|[Ff][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]%[89ABab])[0-9A-Fa-f]%[89ABab])[0-9A-Fa-f])*',
  ],
  mustNot: [
    '[!-~]*/\\.\\.?(?:/[!-~]*)?',
    // Control characters, `#`, `/`, `;`, `?`, `\`, the unreserved characters, and `%` before two hex digits.
    '[!-~]*%(?:[01]|2(?:[3D-Fd-f]|5[0-9A-Fa-f][0-9A-Fa-f])|3[0-9BFbf]|4[1-9A-Fa-f]|5[0-9ACFacf]|6[1-9A-Fa-f]|7[0-9AEFaef])[!-~]*',
    // RFC 3629 section 4: overlong forms, surrogates, what is beyond U+10FFFF.
    '[!-~]*%(?:[Cc][01]|[Ee](?:0%[89]|[Dd]%[ABab])|[Ff](?:0%8|4%[9ABab]|[5-9A-Fa-f]))[!-~]*',
  ],
}
const must = canonicalPath.must.map((pattern) => new RegExp(`^(?:${pattern})$`))
const mustNot = canonicalPath.mustNot.map((pattern) => new RegExp(`^(?:${pattern})$`))
