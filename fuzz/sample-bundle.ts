import { generateKeyPairSync } from 'node:crypto'
import { minutes } from '../src/kernel/duration.ts'
import type { TrustBundle } from '../src/spiffe/bundle.ts'
import { parseTrustDomain } from '../src/spiffe/trust-domain.ts'
import { signerOf } from '../src/x509/signature.ts'
import { TestCa } from '../test/support/test-ca.ts'

/** A bundle with one authority of each kind, and an RSA key among them. */
export async function sampleBundle(): Promise<TrustBundle> {
  const ca = await TestCa.create({ at: 1_767_225_600_000 })
  const ec = signerOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  const rsa = signerOf(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey)
  return {
    trustDomain: parseTrustDomain('example.org'),
    x509Authorities: [{ certificate: ca.certificate, tainted: false }],
    jwtAuthorities: [
      { keyId: 'a', publicKey: ec.publicKey, tainted: false },
      { keyId: 'b', publicKey: rsa.publicKey, tainted: false },
    ],
    witAuthorities: [{ keyId: 'c', publicKey: ec.publicKey, tainted: false }],
    sequence: 2n ** 63n,
    refreshHint: minutes(5),
  }
}

/** Words of JSON and of key sets. */
export const jsonWords = [
  '{',
  '}',
  '[',
  ']',
  ':',
  ',',
  '"',
  '\\',
  '\\u0000',
  '\\ud800',
  'null',
  'true',
  '1e999',
  '18446744073709551616',
  '-1',
  '"__proto__"',
  '"constructor"',
  '"keys"',
  '"kid"',
  '"kty"',
  '"use"',
  '"x5c"',
  '"spiffe_sequence"',
  '"spiffe_refresh_hint"',
  '"trust_domains"',
  '"EC"',
  '"RSA"',
  '"OKP"',
  '"d"',
  '"jwt-svid"',
  '"wit-svid"',
  '"x509-svid"',
  '"P-521"',
]
