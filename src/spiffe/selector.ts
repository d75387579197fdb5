import { Failure } from '../kernel/failure.ts'

/** What an attestor saw, or what an entry asks for: `unix:uid:1000` has type `unix` and value `uid:1000`. */
export interface Selector {
  readonly type: string
  readonly value: string
}

/**
 * Reads `type:value`. The type ends at the first colon.
 * @throws Failure `selector.malformed`
 */
export function parseSelector(text: string): Selector {
  const colon = text.indexOf(':')
  if (colon === -1) throw malformed(text)
  return selector(text.slice(0, colon), text.slice(colon + 1))
}

/**
 * A selector from its parts: the type has no colon, and neither is empty.
 * @throws Failure `selector.malformed`
 */
export function selector(type: string, value: string): Selector {
  if (type === '' || value === '' || type.includes(':') || type.length > maxType || value.length > maxValue) {
    throw malformed(`${type}:${value}`)
  }
  return { type, value }
}

function malformed(text: string): Failure {
  return new Failure('invalid_argument', 'selector.malformed', {
    public: `\`${text.slice(0, 120)}\` is not a selector: expected \`type:value\`, for example \`unix:uid:1000\``,
  })
}

export const formatSelector = (one: Selector): string => `${one.type}:${one.value}`

/** For logs and explanations: a variable of a process's environment often is a secret, so its name alone is told. */
export const tellSelector = (one: Selector): string => formatSelector(one).replace(environment, '$1[secret]')

/** Those of `wanted` that `seen` lacks. */
export function missingSelectors(wanted: readonly Selector[], seen: readonly Selector[]): Selector[] {
  const have = new Set(seen.map(formatSelector))
  return wanted.filter((one) => !have.has(formatSelector(one)))
}

/** True if everything wanted was seen. Nothing wanted is satisfied by nobody: an empty list allows nothing. */
export function satisfies(seen: readonly Selector[], wanted: readonly Selector[]): boolean {
  return wanted.length > 0 && missingSelectors(wanted, seen).length === 0
}

/** Sorted, each once. */
export function uniqueSelectors(list: readonly Selector[]): Selector[] {
  const byText = new Map(list.map((one) => [formatSelector(one), one]))
  return [...byText.keys()].sort().map((text) => byText.get(text)!)
}

/** `docker:env:NAME=value`, as SPIRE's attestor writes it. */
const environment = /^([^:]+:env:[^=]*=).*$/s
const maxType = 255
const maxValue = 4096
