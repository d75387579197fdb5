/** How a set is read, as plain texts: for the wire and for manifests. */
import { Failure } from '../kernel/failure.ts'
import { parseTrustDomain, type TrustDomain } from '../spiffe/trust-domain.ts'
import type { LanguageOptions } from './language.ts'

/** Each an empty text, or absent, where the language's default holds. */
export interface OptionTexts {
  readonly mode?: string | undefined
  readonly rootNamespace?: string | undefined
  readonly pathNormalization?: string | undefined
  readonly trustDomainAliases?: readonly string[] | undefined
}

/** @throws Failure `policy.unknown-option`, `policy.too-many-aliases`, `trust-domain.*` */
export function parseLanguageOptions({
  mode = '',
  rootNamespace = '',
  pathNormalization = '',
  trustDomainAliases = [],
}: OptionTexts): LanguageOptions {
  return {
    ...(mode !== '' && { mode: oneOf('mode', modes, mode) }),
    ...(rootNamespace !== '' && { rootNamespace }),
    ...(pathNormalization !== '' && { pathNormalization: oneOf('path normalization', normalizations, pathNormalization) }),
    ...(trustDomainAliases.length > 0 && { trustDomainAliases: aliases(trustDomainAliases) }),
  }
}

/** The texts that {@link parseLanguageOptions} reads. */
export function formatLanguageOptions({ trustDomainAliases, ...options }: LanguageOptions) {
  return { ...options, ...(trustDomainAliases && { trustDomainAliases: [...trustDomainAliases] as string[] }) }
}

function aliases(names: readonly string[]): readonly TrustDomain[] {
  if (names.length <= maxAliases) return names.map(parseTrustDomain)
  throw new Failure('invalid_argument', 'policy.too-many-aliases', {
    public: `there are ${names.length} aliases of the trust domain: at most ${maxAliases}`,
  })
}

function oneOf<T extends string>(what: string, known: readonly T[], found: string): T {
  const value = known.find((one) => one === found)
  if (value !== undefined) return value
  throw new Failure('invalid_argument', 'policy.unknown-option', {
    public: `unknown ${what} \`${found.slice(0, 60)}\`: expected one of ${known.map((one) => `\`${one}\``).join(', ')}`,
  })
}

const maxAliases = 100
const modes = ['strict', 'istio'] as const
const normalizations = ['none', 'base', 'merge-slashes', 'decode-and-merge-slashes'] as const
