/** How a set is read, as plain texts: for the wire and for manifests. */
import { Failure } from '../kernel/failure.ts'
import type { LanguageOptions } from './language.ts'

/** Each an empty text, or absent, where the language's default holds. */
export interface OptionTexts {
  readonly mode?: string | undefined
  readonly rootNamespace?: string | undefined
  readonly pathNormalization?: string | undefined
}

/** @throws Failure `policy.unknown-option` */
export function parseLanguageOptions({ mode = '', rootNamespace = '', pathNormalization = '' }: OptionTexts): LanguageOptions {
  return {
    ...(mode !== '' && { mode: oneOf('mode', modes, mode) }),
    ...(rootNamespace !== '' && { rootNamespace }),
    ...(pathNormalization !== '' && { pathNormalization: oneOf('path normalization', normalizations, pathNormalization) }),
  }
}

function oneOf<T extends string>(what: string, known: readonly T[], found: string): T {
  const value = known.find((one) => one === found)
  if (value !== undefined) return value
  throw new Failure('invalid_argument', 'policy.unknown-option', {
    public: `unknown ${what} \`${found.slice(0, 60)}\`: expected one of ${known.map((one) => `\`${one}\``).join(', ')}`,
  })
}

const modes = ['strict', 'istio'] as const
const normalizations = ['none', 'base', 'merge-slashes', 'decode-and-merge-slashes'] as const
