/** Claims that an entry adds to its tokens: JWT-SVID section 3, WIT-SVID section 3, RFC 7519 section 4. */
import { utf8 } from '../kernel/bytes.ts'
import { Failure } from '../kernel/failure.ts'
import { isJsonList, isJsonObject, parseJsonObject, type JsonObject, type JsonValue } from './json.ts'

export type Claim = string | number | boolean | null | readonly Claim[] | { readonly [name: string]: Claim }

/** None of them says what a token itself says. Only {@link readClaims} makes one from outside. */
export type AddedClaims = Readonly<Record<string, Claim>>

/**
 * Claims as somebody wrote them, a JSON object; undefined where there are none. No name occurs twice in an object, and every number is one
 * that readers agree on.
 * @throws Failure `json.*`, `claims.reserved`, `claims.name`, `claims.number`, `claims.too-deep`, `claims.too-many`, `claims.too-long`
 */
export function readClaims(text: string): AddedClaims | undefined {
  const written = parseJsonObject(text, { maxLength: 4 * maxBytes, bigIntegers: true })
  const names = Object.keys(written)
  for (const name of names) demandName(name)
  const values = demandValue(written, 1)
  if (values > maxValues) throw refused('too-many', `there are ${values} values in the claims: at most ${maxValues}`)
  // One writing for what means the same; this is what is stored, and what a token carries.
  const claims = JSON.stringify(written)
  const length = utf8(claims).length
  if (length > maxBytes) throw refused('too-long', `the claims take ${length} bytes: at most ${maxBytes}`)
  return names.length === 0 ? undefined : (JSON.parse(claims) as AddedClaims)
}

/** @throws Failure `claims.reserved`, `claims.name` */
export function demandName(name: string): void {
  if (reserved.has(name)) {
    throw refused('reserved', `the claim \`${name}\` is reserved: a token says it itself, or would mean something else with it`)
  }
  if (!namePattern.test(name)) {
    throw refused('name', `\`${name.slice(0, 80)}\` is not a name for a claim: expected 1 to 128 printable ASCII characters without spaces`)
  }
}

/** How many values there are in it. */
function demandValue(value: JsonValue, depth: number): number {
  if (typeof value === 'bigint')
    throw refused('number', `the number \`${value}\` is too large to be read alike everywhere: write it as a text`)
  if (!isJsonList(value) && !isJsonObject(value)) return 1
  if (depth > maxDepth) throw refused('too-deep', `claims are nested deeper than ${maxDepth}`)
  const inner = isJsonList(value) ? value : membersOf(value)
  return inner.reduce<number>((count, one) => count + demandValue(one, depth + 1), 1)
}

function membersOf(object: JsonObject): JsonValue[] {
  if (Object.hasOwn(object, '__proto__')) throw refused('name', '`__proto__` is not a name that may stand in a claim')
  return Object.values(object).filter((one) => one !== undefined)
}

function refused(what: string, text: string): Failure {
  return new Failure('invalid_argument', `claims.${what}`, { public: text })
}

/**
 * What a token says itself (RFC 7519 section 4.1), which key it is bound to (RFC 7800 section 3.1), who acts for whom (RFC 8693 sections 4.1
 * and 4.4), what belongs to a header (RFC 7515 section 4.1), and what makes another kind of token of it.
 */
const reserved: ReadonlySet<string> = new Set([
  ...['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti', 'cnf', 'act', 'may_act'],
  ...['alg', 'kid', 'typ', 'cty', 'crit', 'jku', 'jwk', 'x5u', 'x5c', 'x5t', 'x5t#S256'],
  ...['wth', 'tth', 'ath', 'nonce', 'events', 'txn', '_sd', '_sd_alg'],
])
const namePattern = /^[!-~]{1,128}$/
/** Tokens travel in headers, of which servers take eight KiB and less. */
const maxBytes = 2048
const maxDepth = 5
const maxValues = 128
