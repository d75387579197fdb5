/** SPIFFE IDs that are none, made of one that is: each the way some parser would repair it. */

/** Another spelling of an ID. */
export type Variant = string

export const spelled = {
  otherScheme: (id: string): Variant[] => [`http${rest(id)}`, rest(id).slice(3)],
  withoutTrustDomain: (id: string): Variant[] => [`spiffe://${pathOf(id)}`, `spiffe:${pathOf(id)}`],
  withoutHost: (): Variant[] => ['spiffe://'],
  withQuery: (id: string): Variant[] => [`${id}?`, `${id}?a=b`],
  withFragment: (id: string): Variant[] => [`${id}#`, `${id}#a`],
  withUser: (id: string): Variant[] => [id.replace('://', '://@'), id.replace('://', '://me@')],
  withPort: (id: string): Variant[] => [`spiffe://${hostOf(id)}:${pathOf(id)}`, `spiffe://${hostOf(id)}:443${pathOf(id)}`],
  withCapitalHost: (id: string): Variant[] => [`spiffe://${hostOf(id).toUpperCase()}${pathOf(id)}`],
  withLookAlikeHost: (id: string): Variant[] => [`spiffe://${fullWidth(hostOf(id))}${pathOf(id)}`],
  withEncodedHost: (id: string): Variant[] => [`spiffe://${percentEncoded(hostOf(id))}${pathOf(id)}`],
  withEncodedPath: (id: string): Variant[] => [`spiffe://${hostOf(id)}/${percentEncoded(pathOf(id).slice(1))}`],
  withDotSegments: (id: string): Variant[] => ['//', '/./', '/x/../'].map((dots) => `spiffe://${hostOf(id)}${dots}${pathOf(id).slice(1)}`),
  withTrailingSlash: (id: string): Variant[] => [`${id}/`],
  withOtherCharacters: (id: string): Variant[] => [`${id} `, `${id}\0`, `spiffe://${hostOf(id)}/${fullWidth(pathOf(id).slice(1))}`],
  withCapitals: (id: string): Variant[] => [
    `SPIFFE${rest(id)}`,
    // A path without letters has no capitals.
    ...[`spiffe://${hostOf(id)}${otherCase(pathOf(id))}`].filter((other) => other !== id),
  ],
} as const satisfies Record<string, (id: string) => Variant[]>

/** IDs that are well formed and that nobody here holds. */
export const stranger = {
  named: 'spiffe://other.example/workload',
  dotted: 'spiffe://192.0.2.1/workload',
  /** 2048 bytes in the trust domain of `id`. */
  longest: (id: string): string => `spiffe://${hostOf(id)}/`.padEnd(2048, 'a'),
  /** In the trust domain of `id`. */
  neighbour: (id: string): string => `spiffe://${hostOf(id)}/nobody-holds-this/vidimus-conformance`,
} as const

const rest = (id: string): string => id.slice('spiffe'.length)
const hostOf = (id: string): string => /^spiffe:\/\/([^/]*)/.exec(id)?.[1] ?? ''
const pathOf = (id: string): string => id.slice('spiffe://'.length + hostOf(id).length)

/** The first character as `%65`. */
const percentEncoded = (text: string): string => `%${text.charCodeAt(0).toString(16)}${text.slice(1)}`

/** The first letter or digit as the look-alike that Unicode's compatibility forms fold back. */
const fullWidth = (text: string): string => text.replace(/[a-zA-Z0-9]/, (one) => String.fromCodePoint((one.codePointAt(0) ?? 0) + 0xfee0))

const otherCase = (text: string): string => (text === text.toUpperCase() ? text.toLowerCase() : text.toUpperCase())
