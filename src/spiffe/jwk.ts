/** Public keys as JSON Web Keys: RFC 7517 section 4, RFC 7518 section 6. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { Failure } from '../kernel/failure.ts'
import { importPublicKey, importStrangersKey } from '../x509/signature.ts'
import type { JsonObject } from './json.ts'

/** The members that say which key it is, `kty` and its parameters. @throws Failure `x509.*` */
export function formatJwk(spki: Uint8Array): Readonly<Record<string, string>> {
  return { ...importPublicKey(spki).export({ format: 'jwk' }) } as Record<string, string>
}

/** Whether a key is of a type, and on a curve, that tokens may be signed with; others are to be passed over (B-5, B-8). */
export function isKnownKey({ kty, crv }: JsonObject): boolean {
  return kty === 'RSA' || (kty === 'EC' && curves.has(crv))
}

/**
 * Reads a public key, whatever else its members say; its type and size are checked as those of any other key. What would be a private key is refused.
 * @throws Failure `jwk.private`, `jwk.malformed`, `x509.unsupported-key`, `x509.weak-key`
 */
export function readJwk(jwk: JsonObject): { readonly key: KeyObject; readonly spki: Uint8Array } {
  if (privateMembers.some((name) => jwk[name] !== undefined)) throw refused('private', 'a JSON Web Key holds a private key')
  const spki = new Uint8Array(opened(jwk).export({ format: 'der', type: 'spki' }))
  return { key: importStrangersKey(spki), spki }
}

function opened(jwk: JsonObject): KeyObject {
  try {
    return createPublicKey({ key: { ...jwk }, format: 'jwk' })
  } catch (cause) {
    throw refused('malformed', 'a JSON Web Key cannot be read', cause)
  }
}

function refused(what: string, text: string, cause?: unknown): Failure {
  return new Failure('invalid_argument', `jwk.${what}`, { public: text, ...(cause === undefined ? {} : { cause }) })
}

/** RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1. */
const privateMembers = ['d', 'k', 'p', 'q']
/** RFC 7518 section 6.2.1.1. */
const curves: ReadonlySet<unknown> = new Set(['P-256', 'P-384', 'P-521'])
