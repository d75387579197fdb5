import { createPrivateKey, type KeyObject } from 'node:crypto'
import { generateKeyPair } from '../x509/key-type.ts'
import { formatPem } from '../x509/pem.ts'
import { type Signer, signerOf } from '../x509/signature.ts'

/** The key of an SVID: made here, and going no further than to the process whose identity it proves. */
export interface SvidKey {
  readonly signer: Signer
  /** PKCS#8, unencrypted. */
  readonly privateKeyDer: Uint8Array
  readonly privateKeyPem: string
}

/** A new P-256 key. */
export async function makeSvidKey(): Promise<SvidKey> {
  return svidKey((await generateKeyPair('ec-p256')).privateKey)
}

/** The key that a WIT-SVID is bound to: whoever holds it proves to be the token's owner. */
export interface ProofKey {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** A JSON Web Key with its algorithm (RFC 7517 section 4.4). */
  readonly privateKeyJwk: string
}

/** A new P-256 key, in the forms that a WIT-SVID takes. */
export async function makeProofKey(): Promise<ProofKey> {
  const { privateKey } = await generateKeyPair('ec-p256')
  const jwk = { ...privateKey.export({ format: 'jwk' }), alg: 'ES256' }
  return { publicKey: signerOf(privateKey).publicKey, privateKeyJwk: JSON.stringify(jwk) }
}

/** The key in a PKCS#8 PEM text. Throws if there is none. */
export function readSvidKey(pem: string): SvidKey {
  return svidKey(createPrivateKey(pem))
}

function svidKey(privateKey: KeyObject): SvidKey {
  const privateKeyDer = privateKey.export({ type: 'pkcs8', format: 'der' })
  return { signer: signerOf(privateKey), privateKeyDer, privateKeyPem: formatPem('PRIVATE KEY', privateKeyDer) }
}
