/** The documents that rules judge, read as far as they can be: what cannot be read is the business of the rule that says how it is written. */
import { fromBase64url, fromUtf8, sameBytes } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import type { JsonObject } from '../spiffe/json.ts'
import { type Certificate, signedBy } from '../x509/certificate.ts'

export type Json = Readonly<Record<string, unknown>>

/** A certificate that signed one below it. */
export interface Signing {
  readonly certificate: Certificate
  /** Trust domain of the leaf at the end, as its SPIFFE ID has it. */
  readonly trustDomain: string
  /** Whether it signed the leaf itself. */
  readonly direct: boolean
}

/** A leaf with everything that is to vouch for it, at a moment. */
export interface Chain {
  readonly leaf: Certificate
  readonly intermediates: readonly Certificate[]
  readonly roots: readonly Certificate[]
  readonly at: Instant
}

/** A token as it was handed out. */
export interface Token {
  readonly text: string
  /** Undefined where the text is no compact JWS with JSON in it. */
  readonly header: Json | undefined
  readonly claims: Json | undefined
  /** When it was handed out, or is looked at. */
  readonly at: Instant
  /** The audiences that were asked for; undefined if nobody asked. */
  readonly audience: readonly string[] | undefined
}

/** A document in JSON; integers that a number cannot hold are bigint. */
export interface JsonDocument {
  readonly value: JsonObject
}

interface Documents {
  /** A SPIFFE ID. */
  readonly id: string
  readonly leaf: Certificate
  readonly signing: Signing
  readonly chain: Chain
  readonly jwt: Token
  readonly wit: Token
  /** A SPIFFE bundle document. */
  readonly bundle: JsonDocument
  /** A SPIFFE bundle map. */
  readonly map: JsonDocument
  /** The JWK set of one trust domain as the Workload API hands it out, keys for JWT-SVIDs alone. */
  readonly keySet: JsonDocument
}
export type DocumentKind = keyof Documents
export type DocumentOf<Kind extends DocumentKind> = Documents[Kind]

/** Reads a token as far as it can be read. */
export function readToken(text: string, at: Instant, audience?: readonly string[]): Token {
  const parts = text.split('.')
  const compact = parts.length === 3 && parts.every((part) => /^[A-Za-z0-9_-]+$/.test(part))
  const [header, claims] = compact ? [jsonIn(parts[0]!), jsonIn(parts[1]!)] : []
  return { text, header: claims && header, claims: header && claims, at, audience }
}

/** Every certificate that had a part in signing the leaf, the leaf's own signer first. Nothing about them is checked but their signatures. */
export function signingsOf({ leaf, intermediates, roots }: Chain): Signing[] {
  const trustDomain = trustDomainIn(leaf.subjectAltName?.uris[0] ?? '')
  const found: Signing[] = []
  let child = leaf
  while (found.length < maxSignings) {
    const known = [...roots, ...intermediates]
    const certificate = known.find((each) => sameBytes(each.subject.raw, child.issuer.raw) && signedBy(child, each))
    if (!certificate || found.some((each) => sameBytes(each.certificate.raw, certificate.raw))) break
    found.push({ certificate, trustDomain, direct: child === leaf })
    if (roots.includes(certificate)) break
    child = certificate
  }
  return found
}

/** What stands where a SPIFFE ID has its trust domain. */
export const trustDomainIn = (id: string): string => /^[^:/]*:\/\/([^/?#]*)/.exec(id)?.[1] ?? ''

export const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)

/** The members of a JWK set or bundle document; none where there is no list of them. */
export function keysIn({ value }: JsonDocument): readonly Json[] {
  const keys = value['keys']
  return Array.isArray(keys) ? keys.filter(isObject) : []
}

function jsonIn(part: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(fromUtf8(fromBase64url(part)))
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

const maxSignings = 8
