import { beforeAll, describe, expect, test } from 'vitest'
import { createPrivateKey } from 'node:crypto'
import { base64url, utf8 } from '../../src/kernel/bytes.ts'
import { minutes, seconds } from '../../src/kernel/duration.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { formatBundleDocument, formatWitKeySet, parseBundleDocument, sameAuthorities } from '../../src/spiffe/bundle-document.ts'
import type { TrustBundle } from '../../src/spiffe/bundle.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { makeJwtSvid, verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import {
  makeWitProof,
  makeWitSvid,
  verifyWitPresentation,
  verifyWitSvid,
  type WitProofContent,
  type WitSvidContent,
} from '../../src/spiffe/wit-svid.ts'
import { generateKeyPair, type KeyType } from '../../src/x509/key-type.ts'
import { joseSignature, signerOf, type Signer } from '../../src/x509/signature.ts'

const at = 1_767_225_600_000
const audience = 'https://orders.example.org/api'
let authority: Signer
let workload: Signer
let stranger: Signer
let bundle: TrustBundle
let content: WitSvidContent
let token: string

beforeAll(async () => {
  const keys = await Promise.all([generateKeyPair('ec-p256'), generateKeyPair('ec-p256'), generateKeyPair('ec-p256')])
  ;[authority, workload, stranger] = keys.map(({ privateKey }) => signerOf(privateKey)) as [Signer, Signer, Signer]
  bundle = {
    trustDomain: parseTrustDomain('example.org'),
    x509Authorities: [],
    jwtAuthorities: [{ keyId: 'j1', publicKey: authority.publicKey, tainted: false }],
    witAuthorities: [{ keyId: 'w1', publicKey: authority.publicKey, tainted: false }],
    sequence: 1n,
  }
  content = {
    spiffeId: parseSpiffeId('spiffe://example.org/web'),
    proofKey: workload.publicKey,
    issuedAt: at,
    expiresAt: at + minutes(60),
    jti: 'one',
  }
  token = await makeWitSvid(authority, 'w1', content)
})

const part = (value: unknown) => base64url(utf8(JSON.stringify(value)))
const decoded = (text: string, index: number) => JSON.parse(Buffer.from(text.split('.')[index]!, 'base64url').toString()) as object

async function signed(signer: Signer, header: object, claims: object): Promise<string> {
  const text = `${part(header)}.${part(claims)}`
  return `${text}.${base64url(joseSignature(signer.keyType, await signer.sign(utf8(text))))}`
}

/** The good token with some of its headers and claims changed, truly signed. */
const forged = (header: object, claims: object) =>
  signed(authority, { ...decoded(token, 0), ...header }, { ...decoded(token, 1), ...claims })

const proofContent = (): WitProofContent => ({ token, audience, expiresAt: at + seconds(30), jti: 'proof' })
const forgedProof = async (header: object, claims: object, signer = workload) => {
  const good = await makeWitProof(workload, proofContent())
  return signed(signer, { ...decoded(good, 0), ...header }, { ...decoded(good, 1), ...claims })
}

const verify = (text: string, moment = at) => verifyWitSvid(text, bundleSet([bundle]), moment)
const present = (proof: string, text = token, moment = at) =>
  verifyWitPresentation({ token: text, proof }, bundleSet([bundle]), { audience, at: moment })
const jwk = (change: object) => ({ cnf: { jwk: { ...(decoded(token, 1) as { cnf: { jwk: object } }).cnf.jwk, ...change } } })

describe('WIT-SVIDs', () => {
  const refusals: readonly [rule: string, header: object, claims: () => object, reason: string][] = [
    ['W-1 no kid', { kid: undefined }, () => ({}), 'wit-svid.key-id'],
    ['W-1 a kid in other case', { kid: 'W1' }, () => ({}), 'wit-svid.unknown-key'],
    ['W-2 no typ', { typ: undefined }, () => ({}), 'wit-svid.type'],
    ['W-2 the typ of a JWT-SVID', { typ: 'JWT' }, () => ({}), 'wit-svid.type'],
    ['W-2 a typ in other case', { typ: 'WIT+JWT' }, () => ({}), 'wit-svid.type'],
    ['W-3 no algorithm', { alg: 'none' }, () => ({}), 'wit-svid.algorithm'],
    ['W-3 a shared secret', { alg: 'HS256' }, () => ({}), 'wit-svid.algorithm'],
    ['W-3 EdDSA', { alg: 'EdDSA' }, () => ({}), 'wit-svid.algorithm'],
    ['W-3 an algorithm that is not the key’s', { alg: 'ES384' }, () => ({}), 'wit-svid.signature'],
    ['W-4 a critical header', { crit: ['x'], x: 1 }, () => ({}), 'wit-svid.critical'],
    ['W-5 no subject', {}, () => ({ sub: undefined }), 'wit-svid.subject'],
    ['W-5 a subject that is no SPIFFE ID', {}, () => ({ sub: 'web' }), 'wit-svid.subject'],
    ['W-5 a subject that is a trust domain', {}, () => ({ sub: 'spiffe://example.org' }), 'wit-svid.subject'],
    ['ID-24 a subject of another trust domain', {}, () => ({ sub: 'spiffe://other.org/web' }), 'wit-svid.unknown-trust-domain'],
    ['W-6 no key', {}, () => ({ cnf: undefined }), 'wit-svid.proof-key'],
    ['W-6 a key that is only named', {}, () => ({ cnf: { kid: 'x' } }), 'wit-svid.proof-key'],
    ['W-6 a key that is no object', {}, () => ({ cnf: { jwk: 'x' } }), 'wit-svid.proof-key'],
    ['W-6 a key off its curve', {}, () => jwk({ y: 'AAAA' }), 'wit-svid.proof-key'],
    ['W-6 a private key', {}, () => jwk({ d: 'AAAA' }), 'wit-svid.proof-key'],
    ['W-7 a key without algorithm', {}, () => jwk({ alg: undefined }), 'wit-svid.proof-key'],
    ['W-7 a key for EdDSA', {}, () => jwk({ alg: 'EdDSA' }), 'wit-svid.proof-key'],
    ['W-7 an algorithm that is not the key’s', {}, () => jwk({ alg: 'RS256' }), 'wit-svid.proof-key'],
    ['W-9 no expiry', {}, () => ({ exp: undefined }), 'wit-svid.no-expiry'],
    ['W-9 an expiry that is a text', {}, () => ({ exp: `${at}` }), 'wit-svid.no-expiry'],
    ['W-9 a token that expires now', {}, () => ({ exp: at / 1000 }), 'wit-svid.expired'],
    ['W-10 a token from the future', {}, () => ({ nbf: at / 1000 + 120 }), 'wit-svid.not-yet-valid'],
    ['W-13 an audience', {}, () => ({ aud: ['orders'] }), 'wit-svid.audience'],
  ]
  test.each(refusals)('%s is refused', async (_, header, claims, reason) => {
    await expect(verify(await forged(header, claims()))).rejects.toMatchObject({ reason })
  })

  test('R-17 what is not a signed token is refused', async () => {
    await expect(verify('')).rejects.toMatchObject({ reason: 'wit-svid.malformed' })
    await expect(verify(`${token}.a.b`)).rejects.toMatchObject({ reason: 'wit-svid.encrypted' })
    await expect(verify(`${token}${'a'.repeat(8192)}`)).rejects.toMatchObject({ reason: 'wit-svid.too-long' })
    await expect(verify(JSON.stringify({ payload: token }))).rejects.toMatchObject({ reason: 'wit-svid.malformed' })
  })

  test('ID-24 a token that another key signed is refused', async () => {
    await expect(verify(await makeWitSvid(stranger, 'w1', content))).rejects.toMatchObject({ reason: 'wit-svid.signature' })
  })

  test('W-20 the keys for JWT-SVIDs sign no WIT-SVID, even when they are the same', async () => {
    await expect(verify(await makeWitSvid(authority, 'j1', content))).rejects.toMatchObject({ reason: 'wit-svid.unknown-key' })
  })

  test('W-4, W-11, W-14 unknown headers and claims, and a token issued tomorrow, are accepted', async () => {
    const odd = await forged({ color: 'red' }, { color: 'red', iat: at / 1000 + 86_400, nbf: at / 1000 })
    await expect(verify(odd)).resolves.toMatchObject({ spiffeId: content.spiffeId })
  })

  test('W-15 a token carries alg, typ, kid, sub, exp, and a key with its algorithm, and no audience', () => {
    expect(decoded(token, 0)).toEqual({ alg: 'ES256', typ: 'wit+jwt', kid: 'w1' })
    expect(decoded(token, 1)).toEqual({
      sub: 'spiffe://example.org/web',
      exp: at / 1000 + 3600,
      iat: at / 1000,
      jti: 'one',
      cnf: { jwk: { kty: 'EC', crv: 'P-256', alg: 'ES256', x: expect.any(String), y: expect.any(String) } },
    })
  })

  test('W-7 no token is made for an algorithm that is not the key’s', async () => {
    const wrong = makeWitSvid(authority, 'w1', { ...content, proofAlgorithm: 'ES384' })
    await expect(wrong).rejects.toMatchObject({ reason: 'wit-svid.proof-key' })
  })

  test.each<[KeyType, string]>([
    ['ec-p384', 'ES384'],
    ['rsa-2048', 'RS256'],
  ])('a token may be bound to a key of type %s, whose proofs use %s', async (keyType, alg) => {
    const holder = signerOf((await generateKeyPair(keyType)).privateKey)
    const bound = await makeWitSvid(authority, 'w1', { ...content, proofKey: holder.publicKey })
    expect((await verify(bound)).proofAlgorithm).toBe(alg)
    const proof = await makeWitProof(holder, { ...proofContent(), token: bound })
    await expect(present(proof, bound)).resolves.toMatchObject({ spiffeId: content.spiffeId })
  })
})

describe('proof of possession', () => {
  const refusals: readonly [rule: string, header: object, claims: object, reason: string][] = [
    ['W-18 another type', { typ: 'JWT' }, {}, 'wit-proof.type'],
    ['W-18 another algorithm than the token names', { alg: 'ES384' }, {}, 'wit-proof.algorithm'],
    ['W-18 a critical header', { crit: ['x'], x: 1 }, {}, 'wit-proof.critical'],
    ['W-21 no expiry', {}, { exp: undefined }, 'wit-proof.no-expiry'],
    ['W-21 an expiry now', {}, { exp: at / 1000 }, 'wit-proof.expired'],
    ['W-21 an expiry too far ahead', {}, { exp: at / 1000 + 301 }, 'wit-proof.too-lasting'],
    ['W-21 a proof from the future', {}, { nbf: at / 1000 + 120 }, 'wit-proof.not-yet-valid'],
    ['W-17 a proof for another token', {}, { wth: 'AAAA' }, 'wit-proof.other-token'],
    ['W-17 a proof without token', {}, { wth: undefined }, 'wit-proof.other-token'],
    ['W-17 a proof for somebody else', {}, { aud: 'https://evil.test' }, 'wit-proof.wrong-audience'],
    ['W-17 a proof without audience', {}, { aud: undefined }, 'wit-proof.wrong-audience'],
    ['W-18 a proof without jti', {}, { jti: undefined }, 'wit-proof.no-jti'],
  ]
  test.each(refusals)('%s is refused', async (_, header, claims, reason) => {
    await expect(present(await forgedProof(header, claims))).rejects.toMatchObject({ reason })
  })

  test('W-16 a proof with a key that the token is not bound to is refused', async () => {
    await expect(present(await forgedProof({}, {}, stranger))).rejects.toMatchObject({ reason: 'wit-proof.signature' })
    await expect(present('')).rejects.toMatchObject({ reason: 'wit-proof.malformed' })
    await expect(present(token)).rejects.toMatchObject({ reason: 'wit-proof.type' })
  })

  test('W-16 a good proof does not save a token that is no good', async () => {
    const proof = await makeWitProof(workload, proofContent())
    await expect(present(proof, token, at + minutes(60))).rejects.toMatchObject({ reason: 'wit-svid.expired' })
  })

  test('W-18 a presented token with its proof says who it is', async () => {
    const verified = await present(await makeWitProof(workload, proofContent()))
    expect(verified).toMatchObject({ spiffeId: content.spiffeId, proof: { jti: 'proof', expiresAt: at + seconds(30) } })
  })

  test('W-21 the last moment of the longest proof is accepted', async () => {
    await expect(present(await forgedProof({}, { exp: at / 1000 + 300 }))).resolves.toBeDefined()
    const shorter = verifyWitPresentation({ token, proof: await forgedProof({}, {}) }, bundleSet([bundle]), {
      audience,
      at,
      longestProof: seconds(10),
    })
    await expect(shorter).rejects.toMatchObject({ reason: 'wit-proof.too-lasting' })
  })
})

describe('W-23', () => {
  test('a WIT-SVID is no JWT-SVID, with whatever audience', async () => {
    const bundles = bundleSet([{ ...bundle, jwtAuthorities: [{ ...bundle.witAuthorities[0]! }] }])
    await expect(verifyJwtSvid(token, bundles, 'orders', at)).rejects.toMatchObject({ reason: 'jwt-svid.type' })
    await expect(verifyJwtSvid(await forged({}, { aud: ['orders'] }), bundles, 'orders', at)).rejects.toMatchObject({
      reason: 'jwt-svid.type',
    })
  })

  test('a JWT-SVID is no WIT-SVID', async () => {
    const bundles = bundleSet([{ ...bundle, witAuthorities: [{ ...bundle.jwtAuthorities[0]! }] }])
    const jwt = await makeJwtSvid(authority, 'j1', { ...content, audience: ['orders'] })
    await expect(verifyWitSvid(jwt, bundles, at)).rejects.toMatchObject({ reason: 'wit-svid.type' })
  })
})

describe('WIT authorities in bundles', () => {
  test('W-19 a document in which two keys share a kid is refused, whatever they are for', () => {
    const text = formatBundleDocument(bundle).replace('"w1"', '"j1"')
    expect(() => parseBundleDocument(bundle.trustDomain, text)).toThrow(expect.objectContaining({ reason: 'bundle.key-id-twice' }))
  })

  test('W-19 they are written with use and kid, and read back', () => {
    const read = parseBundleDocument(bundle.trustDomain, formatBundleDocument(bundle))
    expect(sameAuthorities(read, bundle)).toBe(true)
    expect(sameAuthorities(read, { ...bundle, witAuthorities: [] })).toBe(false)
    expect(sameAuthorities(read, { ...bundle, witAuthorities: bundle.jwtAuthorities, jwtAuthorities: bundle.witAuthorities })).toBe(false)
  })

  test('API-25 the key set for WIT-SVIDs holds no other keys, each with its kid', () => {
    expect(JSON.parse(formatWitKeySet(bundle))).toEqual({ keys: [expect.objectContaining({ kid: 'w1', kty: 'EC' })] })
  })
})

test('a private key in a document is refused', async () => {
  const { privateKey } = await generateKeyPair('ec-p256')
  const whole = createPrivateKey(privateKey.export({ format: 'pem', type: 'pkcs8' })).export({ format: 'jwk' })
  const text = JSON.stringify({ keys: [{ use: 'wit-svid', kid: 'x', ...whole }] })
  expect(() => parseBundleDocument(bundle.trustDomain, text)).toThrow(expect.objectContaining({ reason: 'bundle.key' }))
})
