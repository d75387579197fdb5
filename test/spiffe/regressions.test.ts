import { createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { base64url, utf8 } from '../../src/kernel/bytes.ts'
import { minutes } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { parseBundleDocument, parseKeySet } from '../../src/spiffe/bundle-document.ts'
import { parseBundleMap } from '../../src/spiffe/bundle-map.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { jwtSvidFlaws, makeJwtSvid, verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { verifyWitSvid, witSvidFlaws } from '../../src/spiffe/wit-svid.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { parseCertificate, parseCertificates } from '../../src/x509/certificate.ts'
import { parseCertificateRequest } from '../../src/x509/certificate-request.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { joseSignature, signerOf } from '../../src/x509/signature.ts'
import { TestCa } from '../support/test-ca.ts'

const at = 1_767_225_600_000
const trustDomain = parseTrustDomain('example.org')

test('R-5 no authority vouches for another trust domain, whatever the two are called', async () => {
  const names = ['a', 'a.b', 'b.a', 'a-b', 'a.', '.a', 'aa', 'a_b', '10.0.0.1', '__proto__', 'constructor']
  const authorities = await Promise.all(
    names.map(async (name) => {
      const ca = await TestCa.create({ at, trustDomain: name, name: 'the same name' })
      const signer = signerOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
      const bundle = {
        trustDomain: parseTrustDomain(name),
        x509Authorities: [{ certificate: ca.certificate, tainted: false }],
        jwtAuthorities: [{ keyId: 'k', publicKey: signer.publicKey, tainted: false }],
        witAuthorities: [],
        sequence: 1n,
      }
      return { name, ca, signer, bundle }
    }),
  )
  const bundles = bundleSet(authorities.map(({ bundle }) => bundle))
  const one = fc.constantFrom(...authorities)
  await fc.assert(
    fc.asyncProperty(one, one, async (signing, named) => {
      const spiffeId = parseSpiffeId(`spiffe://${named.name}/w`)
      const { certificate } = await signing.ca.leaf({ uris: [spiffeId] })
      const token = await makeJwtSvid(signing.signer, 'k', {
        spiffeId,
        audience: ['a'],
        issuedAt: at,
        expiresAt: at + minutes(5),
        jti: 'j',
      })
      const accepted = [
        await holds(() => verifyX509Svid([certificate], bundles, at)),
        await holds(() => verifyJwtSvid(token, bundles, 'a', at)),
      ]
      expect(accepted).toEqual([signing === named, signing === named])
    }),
    { numRuns: 60 },
  )
})

test('J-5, W-3 ES512 is verified with a P-521 key, and no other algorithm is', async () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-521' })
  const publicKey = new Uint8Array(createPublicKey(privateKey).export({ type: 'spki', format: 'der' }))
  const bundles = bundleSet([
    { trustDomain, x509Authorities: [], jwtAuthorities: [{ keyId: 'k', publicKey, tainted: false }], witAuthorities: [], sequence: 1n },
  ])
  const token = (alg: string) => {
    const parts = [
      { alg, kid: 'k' },
      { sub: 'spiffe://example.org/w', aud: 'a', exp: at / 1000 + 60 },
    ]
    const signed = parts.map((part) => base64url(utf8(JSON.stringify(part)))).join('.')
    return `${signed}.${base64url(sign('sha512', utf8(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' }))}`
  }
  await expect(verifyJwtSvid(token('ES512'), bundles, 'a', at)).resolves.toMatchObject({ spiffeId: 'spiffe://example.org/w' })
  await expect(verifyJwtSvid(token('ES256'), bundles, 'a', at)).rejects.toMatchObject({ reason: 'jwt-svid.signature' })
})

test('J-6, R-17 a token without kid is tried with eight keys and no more', async () => {
  const signers = Array.from({ length: 9 }, () => signerOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey))
  const jwtAuthorities = signers.map(({ publicKey }, index) => ({ keyId: `${index}`, publicKey, tainted: false }))
  const bundles = bundleSet([{ trustDomain, x509Authorities: [], jwtAuthorities, witAuthorities: [], sequence: 1n }])
  const token = async (index: number) => {
    const parts = [{ alg: 'ES256' }, { sub: 'spiffe://example.org/w', aud: 'a', exp: at / 1000 + 60 }]
    const signed = parts.map((part) => base64url(utf8(JSON.stringify(part)))).join('.')
    return `${signed}.${base64url(joseSignature('ec-p256', await signers[index]!.sign(utf8(signed))))}`
  }
  await expect(verifyJwtSvid(await token(7), bundles, 'a', at)).resolves.toBeTruthy()
  await expect(verifyJwtSvid(await token(8), bundles, 'a', at)).rejects.toMatchObject({ reason: 'jwt-svid.signature' })
})

test('R-17 one token is not written in two ways', async () => {
  const signer = signerOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  const jwtAuthorities = [{ keyId: 'k', publicKey: signer.publicKey, tainted: false }]
  const bundles = bundleSet([{ trustDomain, x509Authorities: [], jwtAuthorities, witAuthorities: [], sequence: 1n }])
  const content = { spiffeId: parseSpiffeId('spiffe://example.org/w'), audience: ['a'], issuedAt: at, expiresAt: at + minutes(5), jti: 'j' }
  const token = await makeJwtSvid(signer, 'k', content)
  // 64 octets leave four bits of the last character without meaning.
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const other = token.slice(0, -1) + alphabet[alphabet.indexOf(token.at(-1)!) + 1]
  expect(Buffer.from(other.split('.')[2]!, 'base64url')).toEqual(Buffer.from(token.split('.')[2]!, 'base64url'))
  await expect(verifyJwtSvid(other, bundles, 'a', at)).rejects.toMatchObject({ reason: 'jwt-svid.malformed' })
  await expect(verifyJwtSvid(`${token}=`, bundles, 'a', at)).rejects.toMatchObject({ reason: 'jwt-svid.malformed' })
})

describe('R-28 a megabyte made to hurt costs less than 50 ms', () => {
  const megabyte = 1 << 20
  const fill = (unit: string) => unit.repeat(Math.ceil(megabyte / unit.length)).slice(0, megabyte)
  const ecKeys = (() => {
    const jwk = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' })
    return `{"keys":[${Array.from({ length: 1000 }, (_, index) => JSON.stringify({ ...jwk, use: 'jwt-svid', kid: `${index}` })).join()}]}`
  })()
  const hostile: readonly [what: string, text: string][] = [
    ['nothing but zeros', fill('\0')],
    ['open brackets', fill('[')],
    ['open brackets in an object', `{"keys":${fill('[')}`],
    ['open objects', fill('{"a":')],
    ['a text that never ends', `{"keys":"${fill('a')}`],
    ['backslashes', `{"keys":"${fill('\\')}`],
    ['escaped quotes', `{"keys":"${fill('\\"')}`],
    ['a number of a million digits', `{"keys":[],"spiffe_sequence":${fill('9')}}`],
    ['white space', `{${fill(' ')}}`],
    ['many names', `{${Array.from({ length: 60_000 }, (_, index) => `"${index}":0`).join()}}`],
    ['many keys', ecKeys],
    ['an RSA key of eight million bits', `{"keys":[{"kty":"RSA","use":"jwt-svid","kid":"a","e":"AQAB","n":"${fill('_')}"}]}`],
    ['a certificate of a megabyte', `{"keys":[{"kty":"RSA","use":"x509-svid","x5c":["${fill('MIIB')}"]}]}`],
    ['dots', fill('.')],
    ['a token of a megabyte', `${fill('e')}.${fill('e')}.${fill('e')}`],
    ['slashes', `spiffe://a${fill('/a')}`],
    ['dashes', fill('-----BEGIN ')],
    ['lines of dashes', fill('-----\n')],
    ['blocks of nothing', fill('-----BEGIN A-----\n-----END A-----\n')],
    ['one block', `-----BEGIN A-----\n${fill('A\n')}`],
    ['nested sequences', fill('\x30\x80')],
    ['long lengths', fill('\x30\x83\x0f\xff\xff')],
    ['empty sequences', `\x30\x83\x10\x00\x00${fill('\x30\x00')}`],
  ]
  const readers: readonly ((text: string) => unknown)[] = [
    (text) => parseBundleDocument(trustDomain, text),
    parseBundleMap,
    (text) => parseKeySet('jwt-svid', text),
    parseSpiffeId,
    (text) => parsePem(text),
    (text) => jwtSvidFlaws(text, { at }),
    (text) => witSvidFlaws(text, at),
    (text) => parseCertificate(Buffer.from(text, 'latin1')),
    (text) => parseCertificates(Buffer.from(text, 'latin1')),
    (text) => parseCertificateRequest(Buffer.from(text, 'latin1')),
  ]
  test.each(hostile)('%s', (_, text) => {
    for (const read of readers) {
      // The machine's other guests slow single runs: the quickest of three tells what it costs.
      const costs = [0, 1, 2].map(() => {
        const began = process.cpuUsage()
        try {
          read(text)
        } catch (error) {
          expect(error).toBeInstanceOf(Failure)
        }
        const { user, system } = process.cpuUsage(began)
        return (user + system) / 1000
      })
      expect(Math.min(...costs), String(read)).toBeLessThan(50)
    }
  })
})

test('R-17 tokens are refused at every size', async () => {
  const bundles = bundleSet([])
  for (const text of ['', '.', '..', '...', '....', 'a'.repeat(8193)]) {
    await expect(verifyJwtSvid(text, bundles, 'a', at)).rejects.toBeInstanceOf(Failure)
    await expect(verifyWitSvid(text, bundles, at)).rejects.toBeInstanceOf(Failure)
  }
})

async function holds(verify: () => unknown): Promise<boolean> {
  try {
    await verify()
    return true
  } catch (error) {
    expect(error).toBeInstanceOf(Failure)
    return false
  }
}
