/** Tokens that no validator may accept, each made by one small function; and the signature of those that it must. */
import { constants, createHmac, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto'
import { base64url, fromBase64url, utf8 } from '../../kernel/bytes.ts'
import type { Json, Token } from '../documents.ts'

/** JWT-SVID section 2.1: the algorithms there are. */
export const algorithms: ReadonlySet<string> = new Set(['RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512'])

/** Whether a key of a JWK set signed a token: by the algorithm of the header, where it is one of the nine and fits the key. */
export function signatureHolds({ text, header }: Token, jwk: Json): boolean {
  const algorithm = header?.['alg']
  if (typeof algorithm !== 'string' || !algorithms.has(algorithm)) return false
  if (header?.['kid'] !== undefined && jwk['kid'] !== undefined && jwk['kid'] !== header['kid']) return false
  const at = text.lastIndexOf('.')
  try {
    const key = createPublicKey({ key: jwk, format: 'jwk' })
    if (key.asymmetricKeyType !== (algorithm.startsWith('ES') ? 'ec' : 'rsa')) return false
    const how = { key, ...(algorithm.startsWith('ES') && { dsaEncoding: 'ieee-p1363' as const }), ...(algorithm.startsWith('PS') && pss) }
    return verify(`sha${algorithm.slice(2)}`, utf8(text.slice(0, at)), how, fromBase64url(text.slice(at + 1)))
  } catch {
    return false
  }
}

/** A good token of somebody else: every rule kept but that its signer is known. `header` is laid over. */
export function signedByStranger(claims: Json, header: Json = {}): string {
  const { privateKey } = strangersKey()
  return es256({ alg: 'ES256', kid: 'strangers-key', typ: 'JWT', ...header }, claims, privateKey)
}

/** The stranger's key rides along in the header, for those who take it from there. */
export function withKeyInHeader(claims: Json): string {
  const { privateKey, publicKey } = strangersKey()
  return es256({ alg: 'ES256', typ: 'JWT', jwk: publicKey.export({ format: 'jwk' }) }, claims, privateKey)
}

/** The claims of a real token, unsigned. */
export const unsigned = ({ claims, header }: Token): string => `${part({ ...header, alg: 'none' })}.${part(claims ?? {})}.`

/** The claims of a real token under a shared secret: the public key, as those who confuse the kinds of key take it. */
export function signedWithPublicKey({ claims, header }: Token, jwk: Json): string[] {
  const key = createPublicKey({ key: jwk, format: 'jwk' })
  const secrets = [key.export({ type: 'spki', format: 'pem' }), key.export({ type: 'spki', format: 'der' })]
  const signed = `${part({ ...header, alg: 'HS256' })}.${part(claims ?? {})}`
  return secrets.map((secret) => `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`)
}

/** Ed25519 is none of the nine. */
export function signedWithEd25519(claims: Json): string {
  const { privateKey } = generateKeyPairSync('ed25519')
  const signed = `${part({ alg: 'EdDSA', kid: 'strangers-key', typ: 'JWT' })}.${part(claims)}`
  return `${signed}.${base64url(sign(null, utf8(signed), privateKey))}`
}

/** A real token, otherwise written: flattened, and with a list of signatures. */
export function asJsonSerialization({ text }: Token): string[] {
  const [head = '', payload = '', signature = ''] = text.split('.')
  return [
    JSON.stringify({ protected: head, payload, signature }),
    JSON.stringify({ payload, signatures: [{ protected: head, signature }] }),
  ]
}

/** A real token with a header that nothing protects: only the JSON serialization has a place for one. */
export function withUnprotectedHeader({ text }: Token): string {
  const [head = '', payload = '', signature = ''] = text.split('.')
  return JSON.stringify({ protected: head, header: { kid: 'other' }, payload, signature })
}

/** Five parts, as an encrypted token has; the third holds the claims for those who decode whatever comes. */
export const encrypted = ({ claims }: Token): string =>
  `${part({ alg: 'RSA-OAEP', enc: 'A256GCM', typ: 'JWT' })}..${part(claims ?? {})}.AAAA.AAAA`

/** A real token about somebody else. */
export function about({ text, claims }: Token, sub: string): string {
  const [head = '', , signature = ''] = text.split('.')
  return `${head}.${part({ ...claims, sub })}.${signature}`
}

/** A real token whose signature is another's. */
export function withOtherSignature({ text }: Token): string {
  const at = text.lastIndexOf('.') + 1
  const bytes = Uint8Array.from(fromBase64url(text.slice(at)))
  bytes[0] = (bytes[0] ?? 0) ^ 0x80
  return text.slice(0, at) + base64url(bytes)
}

function es256(header: Json, claims: Json, privateKey: KeyObject): string {
  const signed = `${part(header)}.${part(claims)}`
  return `${signed}.${base64url(sign('sha256', utf8(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' }))}`
}

const strangersKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const part = (value: Json): string => base64url(utf8(JSON.stringify(value)))
/** RSA_PSS of RFC 7518 section 3.5: the salt is as long as the hash. */
const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
