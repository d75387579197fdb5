import { beforeAll, describe, expect, test } from 'vitest'
import { base64url, utf8 } from '../../src/kernel/bytes.ts'
import { minutes, seconds } from '../../src/kernel/duration.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import type { TrustBundle } from '../../src/spiffe/bundle.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { makeJwtSvid, verifyJwtSvid, type JwtSvidContent } from '../../src/spiffe/jwt-svid.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { generateKeyPair, type KeyType } from '../../src/x509/key-type.ts'
import { joseSignature, signerOf, type Signer } from '../../src/x509/signature.ts'
import { TestCa } from '../support/test-ca.ts'

const at = 1_767_225_600_000
const content: JwtSvidContent = {
  spiffeId: parseSpiffeId('spiffe://example.org/web'),
  audience: ['orders'],
  issuedAt: at,
  expiresAt: at + minutes(5),
  jti: 'one',
}
let signer: Signer
let bundle: TrustBundle

beforeAll(async () => {
  signer = signerOf((await generateKeyPair('ec-p256')).privateKey)
  const ca = await TestCa.create({ at })
  bundle = {
    trustDomain: parseTrustDomain('example.org'),
    x509Authorities: [{ certificate: ca.certificate, tainted: false }],
    jwtAuthorities: [{ keyId: 'k1', publicKey: signer.publicKey, tainted: false }],
    witAuthorities: [],
    sequence: 2n ** 60n,
    refreshHint: minutes(5),
  }
})

const verify = (token: string, audience = 'orders', moment = at) => verifyJwtSvid(token, bundleSet([bundle]), audience, moment)
const part = (value: unknown) => base64url(utf8(typeof value === 'string' ? value : JSON.stringify(value)))

/** A token with any header and any claims, truly signed. */
async function forged(header: object, claims: object): Promise<string> {
  const signed = `${part({ alg: 'ES256', kid: 'k1', ...header })}.${part({ sub: content.spiffeId, aud: ['orders'], exp: at / 1000 + 300, ...claims })}`
  return `${signed}.${base64url(joseSignature(signer.keyType, await signer.sign(utf8(signed))))}`
}

const badHeaders: readonly [rule: string, header: object, reason: string][] = [
  ['J-5', { alg: 'none' }, 'jwt-svid.algorithm'],
  ['J-5', { alg: 'HS256' }, 'jwt-svid.algorithm'],
  ['J-5', { alg: 'EdDSA' }, 'jwt-svid.algorithm'],
  ['R-17', { alg: 'ES384' }, 'jwt-svid.signature'],
  ['J-4', { crit: ['exp'] }, 'jwt-svid.header'],
  ['J-4', { jku: 'https://evil.test' }, 'jwt-svid.header'],
  ['J-4', { jwk: {} }, 'jwt-svid.header'],
  ['J-4', { x5u: 'https://evil.test' }, 'jwt-svid.header'],
  ['R-17', { b64: false }, 'jwt-svid.header'],
  ['J-7', { typ: 'at+jwt' }, 'jwt-svid.type'],
  ['W-23', { typ: 'wit+jwt' }, 'jwt-svid.type'],
  ['R-17', { kid: 'k2' }, 'jwt-svid.unknown-key'],
]
const badClaims: readonly [rule: string, claims: object, reason: string][] = [
  ['J-8', { sub: 'web' }, 'jwt-svid.subject'],
  ['J-8', { sub: undefined }, 'jwt-svid.subject'],
  ['J-8', { sub: 'spiffe://example.org' }, 'jwt-svid.subject'],
  ['API-22', { sub: 'spiffe://other.org/web' }, 'jwt-svid.unknown-trust-domain'],
  ['J-9', { aud: [] }, 'jwt-svid.no-audience'],
  ['J-9', { aud: undefined }, 'jwt-svid.no-audience'],
  ['J-9', { aud: ['payments'] }, 'jwt-svid.wrong-audience'],
  ['J-11', { exp: undefined }, 'jwt-svid.no-expiry'],
  ['J-11', { exp: 'tomorrow' }, 'jwt-svid.no-expiry'],
  ['J-12', { exp: at / 1000 }, 'jwt-svid.expired'],
  ['J-12', { nbf: at / 1000 + 120 }, 'jwt-svid.not-yet-valid'],
]

describe('JWT-SVIDs', () => {
  test.each(badHeaders)('%s refuses the header %j', async (_rule, header, reason) => {
    await expect(verify(await forged(header, {}))).rejects.toMatchObject({ reason })
  })

  test.each(badClaims)('%s refuses the claims %j', async (_rule, claims, reason) => {
    await expect(verify(await forged({}, claims))).rejects.toMatchObject({ reason })
  })

  test.each(['', 'a', 'a.b', 'a.b.c.d', 'a.b.c.d.e', '..', '!.!.!', `${'a'.repeat(9000)}.b.c`, '{"payload":"x"}'])(
    'J-1, J-3, R-17 refuses `%s`',
    async (token) => {
      await expect(verify(token)).rejects.toMatchObject({
        reason: expect.stringMatching(/^jwt-svid\.(malformed|encrypted|too-long)$/) as string,
      })
    },
  )

  test('refuses a token whose signature or payload was changed', async () => {
    const token = await makeJwtSvid(signer, 'k1', content)
    const [header, , signature] = token.split('.') as [string, string, string]
    await expect(
      verify(`${header}.${part({ sub: 'spiffe://example.org/admin', aud: ['orders'], exp: at })}.${signature}`),
    ).rejects.toMatchObject({ reason: 'jwt-svid.signature' })
    await expect(verify(`${token.slice(0, -4)}AAAA`)).rejects.toMatchObject({ reason: 'jwt-svid.signature' })
  })

  test('J-9 makes no token without an audience', async () => {
    await expect(makeJwtSvid(signer, 'k1', { ...content, audience: [] })).rejects.toMatchObject({ reason: 'jwt-svid.no-audience' })
  })

  test('J-6 accepts a token without kid by trying the keys of its trust domain', async () => {
    await expect(verify(await forged({ kid: undefined }, {}))).resolves.toMatchObject({ spiffeId: content.spiffeId })
  })

  test('J-12 accepts an audience that is a text, and the last moment before expiry', async () => {
    const { claims } = await verify(await forged({}, { aud: 'orders' }), 'orders', at + minutes(5) - 1)
    expect(claims['aud']).toEqual(['orders'])
    await expect(verify(await forged({}, {}), 'orders', at + minutes(5) + seconds(1))).rejects.toMatchObject({ reason: 'jwt-svid.expired' })
  })

  test.each<KeyType>(['ec-p256', 'ec-p384', 'rsa-2048'])('J-5 a token made with a key of type %s is verified', async (keyType) => {
    const other = signerOf((await generateKeyPair(keyType)).privateKey)
    const bundles = bundleSet([{ ...bundle, jwtAuthorities: [{ keyId: 'o', publicKey: other.publicKey, tainted: false }] }])
    await expect(verifyJwtSvid(await makeJwtSvid(other, 'o', content), bundles, 'orders', at)).resolves.toMatchObject({
      audience: ['orders'],
    })
  })
})
