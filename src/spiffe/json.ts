/** JSON from the wire, read strictly: RFC 8259, with the limits of R-28 and no name twice (B-11, RFC 7515 section 4). */
import { Failure } from '../kernel/failure.ts'

export type JsonValue = string | number | bigint | boolean | null | readonly JsonValue[] | JsonObject

/** Has no prototype, so that `__proto__` and `constructor` are names like any other (R-31). */
export interface JsonObject {
  readonly [name: string]: JsonValue | undefined
}

export interface JsonLimits {
  readonly maxLength: number
  /** Gives integers that a number cannot hold exactly as bigint; they are rounded otherwise, as everywhere in this language. */
  readonly bigIntegers?: boolean
}

/**
 * Reads a text that is one JSON object. Time grows with its length only.
 * @throws Failure `json.too-long`, `json.malformed`, `json.not-an-object`, `json.too-deep`, `json.too-many-members`, `json.duplicate-name`
 */
export function parseJsonObject(text: string, limits: JsonLimits): JsonObject {
  if (text.length > limits.maxLength) throw refused('too-long', `it has ${text.length} characters: at most ${limits.maxLength}`)
  const value = new Reading(text, limits.bigIntegers ?? false).whole()
  if (!isJsonObject(value)) throw refused('not-an-object', 'it is not an object')
  return value
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Writes a value with two spaces a level, integers of any size among it; members that are undefined are left out. */
export function formatJson(value: JsonValue, margin = ''): string {
  if (typeof value === 'bigint') return String(value)
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const inner = `${margin}  `
  if (isJsonList(value))
    return between(
      '[]',
      margin,
      value.map((each) => formatJson(each, inner)),
    )
  const members = Object.entries(value).filter((member): member is [string, JsonValue] => member[1] !== undefined)
  return between(
    '{}',
    margin,
    members.map(([name, each]) => `${JSON.stringify(name)}: ${formatJson(each, inner)}`),
  )
}

function between(brackets: '[]' | '{}', margin: string, parts: readonly string[]): string {
  return parts.length === 0 ? brackets : `${brackets[0]}\n${margin}  ${parts.join(`,\n${margin}  `)}\n${margin}${brackets[1]}`
}

export function isJsonList(value: unknown): value is readonly JsonValue[] {
  return Array.isArray(value)
}

/** One pass over one text. */
class Reading {
  readonly #text: string
  readonly #bigIntegers: boolean
  #at = 0

  constructor(text: string, bigIntegers: boolean) {
    this.#text = text
    this.#bigIntegers = bigIntegers
  }

  whole(): JsonValue {
    const value = this.#value(this.#next(), 0)
    if (!Number.isNaN(this.#next())) throw this.#malformed('something follows its end')
    return value
  }

  #value(code: number, depth: number): JsonValue {
    switch (code) {
      case quote:
        return this.#string()
      case openBrace:
        return this.#object(depth + 1)
      case openBracket:
        return this.#list(depth + 1)
      case 0x74:
        return this.#word('true', true)
      case 0x66:
        return this.#word('false', false)
      case 0x6e:
        return this.#word('null', null)
      default:
        return this.#number()
    }
  }

  #object(depth: number): JsonObject {
    if (depth > maxDepth) throw this.#refused('too-deep', `values are nested deeper than ${maxDepth}`)
    this.#at++
    const object: Record<string, JsonValue> = Object.create(null) as Record<string, JsonValue>
    if (this.#next() === closeBrace) return this.#closed(object)
    for (let count = 1; ; count++) {
      if (this.#next() !== quote) throw this.#malformed('a name is missing')
      const name = this.#string()
      if (count > maxMembers) throw this.#refused('too-many-members', `an object has more than ${maxMembers} members`)
      if (name in object) throw this.#refused('duplicate-name', `\`${name.slice(0, 80)}\` occurs twice`)
      if (this.#next() !== colon) throw this.#malformed('a colon is missing')
      this.#at++
      object[name] = this.#value(this.#next(), depth)
      if (this.#separator(closeBrace)) return object
    }
  }

  #list(depth: number): JsonValue[] {
    if (depth > maxDepth) throw this.#refused('too-deep', `values are nested deeper than ${maxDepth}`)
    this.#at++
    const list: JsonValue[] = []
    if (this.#next() === closeBracket) return this.#closed(list)
    for (;;) {
      if (list.length >= maxMembers) throw this.#refused('too-many-members', `a list has more than ${maxMembers} members`)
      list.push(this.#value(this.#next(), depth))
      if (this.#separator(closeBracket)) return list
    }
  }

  #closed<T>(value: T): T {
    this.#at++
    return value
  }

  /** Steps over a comma, or over the end: then true. */
  #separator(end: number): boolean {
    const code = this.#next()
    if (code !== comma && code !== end) throw this.#malformed('a comma is missing')
    this.#at++
    return code === end
  }

  /** The next code unit that is no white space, not stepped over; NaN at the end of the text. */
  #next(): number {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at)
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return code
      this.#at++
    }
  }

  #string(): string {
    const start = this.#at + 1
    let end = this.#text.indexOf('"', start)
    while (end !== -1 && this.#isEscaped(end, start)) end = this.#text.indexOf('"', end + 1)
    if (end === -1) throw this.#malformed('a text does not end')
    this.#at = end + 1
    const content = this.#text.slice(start, end)
    if (!special.test(content)) return content
    return this.#unescaped(content)
  }

  /** Whether an odd number of backslashes stands before. */
  #isEscaped(at: number, start: number): boolean {
    let first = at
    while (first > start && this.#text.charCodeAt(first - 1) === backslash) first--
    return (at - first) % 2 === 1
  }

  #word<T>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) throw this.#malformed('it holds something else than values')
    this.#at += word.length
    return value
  }

  #number(): number | bigint {
    numeral.lastIndex = this.#at
    const digits = numeral.exec(this.#text)?.[0]
    if (digits === undefined) throw this.#malformed('it holds something else than values')
    this.#at += digits.length
    if (digits.length > maxDigits) throw this.#malformed('a number has too many digits')
    const value = Number(digits)
    if (!Number.isFinite(value)) throw this.#malformed('a number is too large')
    return this.#bigIntegers && !Number.isSafeInteger(value) && integer.test(digits) ? BigInt(digits) : value
  }

  /** A text with escapes, or with what must be escaped; the language's own reader knows them all. Half a surrogate pair is no text. */
  #unescaped(content: string): string {
    let text: unknown
    try {
      text = JSON.parse(`"${content}"`)
    } catch (cause) {
      throw this.#malformed('a text is not written as it must be', cause)
    }
    if (typeof text !== 'string' || !text.isWellFormed()) throw this.#malformed('a text is not Unicode')
    return text
  }

  #malformed(why: string, cause?: unknown): Failure {
    return this.#refused('malformed', why, cause)
  }

  /** Says how far the reading came, as editors count: lines and columns from one. */
  #refused(what: string, why: string, cause?: unknown): Failure {
    const read = this.#text.slice(0, this.#at)
    return refused(what, `${why} (line ${read.split('\n').length}, column ${read.length - read.lastIndexOf('\n')})`, cause)
  }
}

function refused(what: string, why: string, cause?: unknown): Failure {
  return new Failure('invalid_argument', `json.${what}`, {
    public: `${what === 'malformed' ? 'not valid JSON' : 'JSON that is not accepted'}: ${why}`,
    ...(cause === undefined ? {} : { cause }),
  })
}

const quote = 0x22
const comma = 0x2c
const colon = 0x3a
const openBracket = 0x5b
const backslash = 0x5c
const closeBracket = 0x5d
const openBrace = 0x7b
const closeBrace = 0x7d
/** A backslash, what may not stand in a text unescaped, and halves of surrogate pairs. */
const special = /[\\\u0000-\u001f\ud800-\udfff]/
const numeral = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y
const integer = /^-?[0-9]+$/
/** R-28. Also bounds what names chosen to collide could cost (R-31). */
const maxDepth = 32
const maxMembers = 1000
const maxDigits = 64
