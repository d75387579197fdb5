/** Typed comparisons: exact, prefix, suffix, present, templates of whole segments, blocks of addresses. No regular expression is built from what a policy says. */

/** How a text is compared. `present` is `*`: there at all and, where the field says so, not empty. */
export type StringMatch =
  | { readonly kind: 'exact'; readonly value: string }
  | { readonly kind: 'prefix'; readonly value: string }
  | { readonly kind: 'suffix'; readonly value: string }
  | { readonly kind: 'present' }

/**
 * A text cut at its slashes, in which `{*}` stands for one whole segment and `{**}`, last, for whatever is left (also nothing).
 * `/orders/{*}` has the parts `['', 'orders', one]`.
 */
export interface Template {
  readonly kind: 'template'
  /** As it was written, `/orders/{*}`. */
  readonly text: string
  readonly parts: readonly TemplatePart[]
}
export type TemplatePart = { readonly kind: 'literal'; readonly text: string } | { readonly kind: 'one' } | { readonly kind: 'rest' }

export type PathMatch = StringMatch | Template

/** A block of addresses, its bytes masked: 4 of them for IPv4, 16 for IPv6. */
export interface AddressBlock {
  /** As it was written, `10.0.0.0/8`. */
  readonly text: string
  readonly bytes: readonly number[]
  readonly bits: number
}

/** Istio's reading of a value: `*`, `*suffix`, `prefix*` or exactly this. A star anywhere else is a star. */
export function parseStringMatch(text: string): StringMatch {
  if (text === '*') return { kind: 'present' }
  if (text.startsWith('*')) return { kind: 'suffix', value: text.slice(1) }
  if (text.endsWith('*')) return { kind: 'prefix', value: text.slice(0, -1) }
  return { kind: 'exact', value: text }
}

/** A {@link StringMatch} as it was written. */
export function formatStringMatch(match: StringMatch): string {
  switch (match.kind) {
    case 'exact':
      return match.value
    case 'prefix':
      return `${match.value}*`
    case 'suffix':
      return `*${match.value}`
    case 'present':
      return '*'
    default:
      throw new Error(`bug: string match ${JSON.stringify(match satisfies never)}`)
  }
}

/** Compares a text that is there. `present` is satisfied by any, also by an empty one. */
export function stringMatches(match: StringMatch, text: string): boolean {
  switch (match.kind) {
    case 'exact':
      return text === match.value
    case 'prefix':
      return text.startsWith(match.value)
    case 'suffix':
      return text.endsWith(match.value)
    case 'present':
      return true
    default:
      throw new Error(`bug: string match ${JSON.stringify(match satisfies never)}`)
  }
}

/** True if a text is meant as a template. */
export const isTemplate = (text: string): boolean => text.includes('{') || text.includes('}')

/**
 * Reads a template, or says what is wrong with it: operators stand for whole segments, `{**}` is the last of them
 * (literal segments may follow), nothing else is in braces.
 */
export function parseTemplate(text: string): Template | { readonly wrong: string } {
  if (text.length > maxTemplate) return { wrong: `a template has at most ${maxTemplate} characters, this one ${text.length}` }
  const parts: TemplatePart[] = []
  for (const segment of text.split('/')) {
    const after = parts.some((part) => part.kind === 'rest')
    if (segment === '{*}' || segment === '{**}') {
      if (after) return { wrong: '`{**}` must be the last operator' }
      parts.push({ kind: segment === '{*}' ? 'one' : 'rest' })
    } else if (/[{}*]/.test(segment)) {
      return { wrong: `\`${segment}\` is not a segment of a template: \`{*}\` and \`{**}\` stand for whole segments` }
    } else {
      parts.push({ kind: 'literal', text: segment })
    }
  }
  return { kind: 'template', text, parts }
}

/**
 * Compares a text with a template. `{*}` is one segment that is not empty, `{**}` any text, also none, slashes included.
 * With `envoyCharacters` both hold only the characters that Envoy's URI templates know (authorization.md 1.5).
 */
export function templateMatches(template: Template, text: string, envoyCharacters = false): boolean {
  const { parts } = template
  let at = 0
  for (let index = 0; index < parts.length; index++) {
    const part = parts[index]!
    if (part.kind === 'rest') {
      const literals = parts.slice(index + 1).map((one) => (one.kind === 'literal' ? `/${one.text}` : ''))
      const end = text.length - literals.join('').length
      return at <= end && text.endsWith(literals.join('')) && (!envoyCharacters || envoyRest.test(text.slice(at, end)))
    }
    const last = index === parts.length - 1
    if (part.kind === 'literal') {
      const end = at + part.text.length
      if (!text.startsWith(part.text, at)) return false
      if (last) return end === text.length
      if (text[end] !== '/') return false
      at = end + 1
      continue
    }
    const slash = text.indexOf('/', at)
    const end = slash === -1 ? text.length : slash
    if (end === at || (envoyCharacters && !envoySegment.test(text.slice(at, end)))) return false
    if (last) return slash === -1
    if (slash === -1) return false
    at = slash + 1
  }
  return false
}

/** The text that everything a template matches begins with. */
export function literalPrefix(template: Template): string {
  const first = template.parts.findIndex((part) => part.kind !== 'literal')
  const texts = (first === -1 ? template.parts : template.parts.slice(0, first)).map((part) => (part.kind === 'literal' ? part.text : ''))
  return first === -1 ? texts.join('/') : texts.map((text) => `${text}/`).join('')
}

/** Compares with `*` as any text; slashes are crossed. */
export function globMatches(glob: string, text: string): boolean {
  const pieces = glob.split('*')
  const first = pieces[0]!
  const last = pieces.at(-1)!
  if (pieces.length === 1) return text === glob
  if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last)) return false
  const end = text.length - last.length
  let at = first.length
  for (const piece of pieces.slice(1, -1)) {
    const found = text.indexOf(piece, at)
    if (found === -1 || found + piece.length > end) return false
    at = found + piece.length
  }
  return true
}

/** Reads an address or a block, `10.0.0.0/8`, `2001:db8::/32`, or says what is wrong with it. */
export function parseAddressBlock(text: string): AddressBlock | { readonly wrong: string } {
  const slash = text.indexOf('/')
  const bytes = parseAddress(slash === -1 ? text : text.slice(0, slash))
  if (!bytes) return { wrong: 'expected an IP address or a block, for example `10.0.0.0/8` or `2001:db8::/32`' }
  const mapped = bytes.length === 4 && text.includes(':') ? mappedBits : 0
  const longest = bytes.length * 8 + mapped
  const length = slash === -1 ? String(longest) : text.slice(slash + 1)
  if (!/^(?:0|[1-9]\d{0,2})$/.test(length) || Number(length) > longest || Number(length) < mapped) {
    return { wrong: `expected a prefix length from ${mapped} to ${longest}` }
  }
  const bits = Number(length) - mapped
  return { text, bits, bytes: bytes.map((byte, index) => byte & maskByte(bits, index)) }
}

/** True if an address is in a block. An IPv4 address inside an IPv6 one (`::ffff:10.0.0.1`) is the IPv4 address. */
export function blockHolds(block: AddressBlock, address: readonly number[]): boolean {
  if (block.bytes.length !== address.length) return false
  return block.bytes.every((byte, index) => byte === (address[index]! & maskByte(block.bits, index)))
}

/** The bytes of an address as text, or undefined. */
export function parseAddress(text: string): readonly number[] | undefined {
  const bytes = text.includes(':') ? parseIpv6(text) : parseIpv4(text)
  return bytes?.length === 16 && bytes.slice(0, 12).every((byte, index) => byte === (index < 10 ? 0 : 255)) ? bytes.slice(12) : bytes
}

function parseIpv4(text: string): number[] | undefined {
  const parts = text.split('.')
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)) return undefined
  return parts.map(Number)
}

function parseIpv6(text: string): number[] | undefined {
  const halves = text.split('::')
  if (halves.length > 2 || text.length > maxAddress) return undefined
  const [head, rest] = halves.map((half, index) => groups(half, index === halves.length - 1))
  if (!head || (halves.length === 2 && !rest)) return undefined
  const missing = 16 - head.length - (rest?.length ?? 0)
  if (halves.length === 1 ? missing !== 0 : missing < 2) return undefined
  return [...head, ...Array.from({ length: missing }, () => 0), ...(rest ?? [])]
}

function groups(text: string, mayEndInIpv4: boolean): number[] | undefined {
  if (text === '') return []
  const bytes: number[] = []
  const parts = text.split(':')
  for (const [index, part] of parts.entries()) {
    const ipv4 = mayEndInIpv4 && index === parts.length - 1 && part.includes('.') ? parseIpv4(part) : undefined
    if (ipv4) bytes.push(...ipv4)
    else if (/^[0-9A-Fa-f]{1,4}$/.test(part)) bytes.push(parseInt(part, 16) >> 8, parseInt(part, 16) & 0xff)
    else return undefined
  }
  return bytes
}

/** The bits of the byte at `index` that a prefix of `bits` bits covers. */
function maskByte(bits: number, index: number): number {
  const covered = Math.min(8, Math.max(0, bits - index * 8))
  return (0xff << (8 - covered)) & 0xff
}

/** authorization.md 1.5. */
const maxTemplate = 256
const envoySegment = /^[a-zA-Z0-9\-._~%!$&'()+,;:@=]+$/
const envoyRest = /^[a-zA-Z0-9\-._~%!$&'()+,;:@=/]*$/
/** RFC 4291 section 2.5.5.2: what comes before an IPv4 address inside an IPv6 one. */
const mappedBits = 96
/** RFC 4291 section 2.2, with an IPv4 tail. */
const maxAddress = 45
