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
