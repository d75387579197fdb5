import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { beforeAll, describe, expect, test } from 'vitest'
import { minutes, seconds } from '../../src/kernel/duration.ts'
import {
  bundleDocumentFlaws,
  formatBundleDocument,
  formatBundlePem,
  formatJwtKeySet,
  parseBundle,
  parseBundleDocument,
  parseKeySet,
  sameAuthorities,
} from '../../src/spiffe/bundle-document.ts'
import { formatBundleMap, parseBundleMap } from '../../src/spiffe/bundle-map.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { refreshInterval, type TrustBundle } from '../../src/spiffe/bundle.ts'
import { brokenRules } from '../../src/spiffe/rules.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { TestCa } from '../support/test-ca.ts'

const at = 1_767_225_600_000
const trustDomain = parseTrustDomain('example.org')
let ca: TestCa
let bundle: TrustBundle
let jwk: Record<string, string>
let entry: Record<string, unknown>

beforeAll(async () => {
  ca = await TestCa.create({ at })
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey
  jwk = key.export({ format: 'jwk' }) as Record<string, string>
  const publicKey = new Uint8Array(key.export({ format: 'der', type: 'spki' }))
  bundle = {
    trustDomain,
    x509Authorities: [{ certificate: ca.certificate, tainted: false }],
    jwtAuthorities: [{ keyId: 'k1', publicKey, tainted: false }],
    witAuthorities: [{ keyId: 'w1', publicKey, tainted: false }],
    sequence: 2n ** 60n,
    refreshHint: minutes(5),
  }
  entry = (JSON.parse(formatBundleDocument(bundle)) as { keys: Record<string, unknown>[] }).keys[0]!
})

const read = (text: string) => parseBundleDocument(trustDomain, text)
const readKeys = (...keys: unknown[]) => read(JSON.stringify({ keys }))
const refusedAs = (reason: string) => expect.objectContaining({ reason: `bundle.${reason}` }) as Error

describe('bundle documents', () => {
  const refused: readonly [rule: string, text: string, reason: string][] = [
    ['B-1', '{nonsense', 'malformed'],
    ['B-1', '[]', 'malformed'],
    ['B-2', '{"keys":[],"spiffe_sequence":"1"}', 'sequence'],
    ['B-2', '{"keys":[],"spiffe_sequence":1.5}', 'sequence'],
    ['B-2', '{"keys":[],"spiffe_sequence":-1}', 'sequence'],
    ['B-2', '{"keys":[],"spiffe_sequence":-18446744073709551615}', 'sequence'],
    ['B-2', '{"keys":[],"spiffe_sequence":18446744073709551616}', 'sequence'],
    ['B-3', '{"keys":[],"spiffe_refresh_hint":"300"}', 'refresh-hint'],
    ['B-3', '{"keys":[],"spiffe_refresh_hint":0.5}', 'refresh-hint'],
    ['B-3', '{"keys":[],"spiffe_refresh_hint":-1}', 'refresh-hint'],
    ['B-4', '{}', 'no-keys'],
    ['B-4', '{"keys":{}}', 'no-keys'],
    ['B-4', '{"keys":null}', 'no-keys'],
    ['B-11', '{"keys":[],"keys":[]}', 'malformed'],
    ['B-11', '{"keys":[{"kty":"EC","use":"x","use":"jwt-svid"}]}', 'malformed'],
    ['R-28', `{"keys":${'['.repeat(33)}${']'.repeat(33)}}`, 'malformed'],
    ['J-16', '{"keys":[{"kty":"EC","crv":"P-256","use":"jwt-svid"}]}', 'no-key-id'],
    ['J-16', '{"keys":[{"kty":"EC","crv":"P-256","use":"jwt-svid","kid":""}]}', 'no-key-id'],
    ['J-16', '{"keys":[{"kty":"EC","crv":"P-256","use":"jwt-svid","kid":7}]}', 'no-key-id'],
    ['B-1', '{"keys":[{"kty":"EC","crv":"P-256","use":"jwt-svid","kid":"a","x":"AAAA","y":"AAAA"}]}', 'key'],
    ['B-1', '{"keys":[{"kty":"RSA","use":"jwt-svid","kid":"a"}]}', 'key'],
    ['X-28', '{"keys":[{"kty":"EC","use":"x509-svid","x5c":["not base64"]}]}', 'certificate'],
    ['X-28', '{"keys":[{"kty":"EC","use":"x509-svid","x5c":["AAAA"]}]}', 'certificate'],
  ]
  test.each(refused)('%s refuses %s', (rule, text, reason) => {
    let refusal: unknown
    try {
      read(text)
    } catch (error) {
      refusal = error
    }
    expect(refusal).toEqual(refusedAs(reason))
    expect(brokenRules(refusal)).toContain(rule)
  })

  test('R-28 refuses more than 128 keys for tokens', () => {
    const keys = Array.from({ length: 129 }, (_, index) => ({ ...jwk, use: 'jwt-svid', kid: `${index}` }))
    expect(() => readKeys(...keys)).toThrow(refusedAs('too-many-keys'))
    expect(readKeys(...keys.slice(1)).jwtAuthorities).toHaveLength(128)
  })

  test('B-2 keeps a sequence of 64 bits, and none is zero', () => {
    for (const sequence of [9_007_199_254_740_993n, 2n ** 64n - 1n, 7n, 0n]) {
      expect(read(formatBundleDocument({ ...bundle, sequence })).sequence).toBe(sequence)
    }
    expect(readKeys().sequence).toBe(0n)
    expect(read('{"a":{"spiffe_sequence":5},"keys":[],"b":"\\"spiffe_sequence\\": 6","spiffe_sequence":7}').sequence).toBe(7n)
  })

  test('B-3 a refresh hint is in seconds, zero hints at nothing, and no hint lasts longer than a year', () => {
    expect(read('{"keys":[],"spiffe_refresh_hint":300}').refreshHint).toBe(seconds(300))
    expect(read('{"keys":[],"spiffe_refresh_hint":0}')).not.toHaveProperty('refreshHint')
    expect(read('{"keys":[],"spiffe_refresh_hint":18446744073709551615}').refreshHint).toBe(seconds(365 * 24 * 60 * 60))
  })

  test('B-14 is read anew after five minutes where it hints at nothing', () => {
    expect(refreshInterval({})).toBe(minutes(5))
    expect(refreshInterval({ refreshHint: minutes(1) })).toBe(minutes(1))
    expect(refreshInterval({ refreshHint: 1 })).toBe(seconds(10))
  })

  test('B-1, B-7 needs no other parameters, and passes over those it meets', () => {
    expect(read('{"keys":[],"color":"red"}').x509Authorities).toEqual([])
    expect(readKeys({ ...entry, color: 'red' }).x509Authorities).toHaveLength(1)
  })

  test('B-5, B-8, B-9 passes over keys of an unknown type, use or curve, however the use is spelled', () => {
    const passed = readKeys(
      { kty: 'OKP', use: 'jwt-svid' },
      { kty: 'EC', crv: 'secp256k1', use: 'jwt-svid' },
      { kty: 'EC', use: 'new' },
      { kty: 'EC' },
      { use: 'x509-svid', x5c: entry['x5c'] },
      { ...entry, use: 'X509-SVID' },
      { ...entry, kty: 'ec' },
      { ...entry, kty: 'new' },
      null,
      'text',
    )
    expect(passed).toMatchObject({ x509Authorities: [], jwtAuthorities: [], witAuthorities: [] })
  })

  test('R-4 passes over a key for tokens that is too weak, and keeps the good one beside it', () => {
    const weak = createPublicKey(generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey).export({ format: 'jwk' })
    const keys = [weak, jwk].map((key, index) => ({ ...key, use: 'jwt-svid', kid: `${index}` }))
    expect(readKeys(...keys).jwtAuthorities.map(({ keyId }) => keyId)).toEqual(['1'])
  })

  test('B-6, X-32 an empty bundle trusts nobody', async () => {
    const empty = readKeys()
    const { certificate } = await ca.leaf()
    expect(() => verifyX509Svid([certificate], bundleSet([empty]), at)).toThrow(
      expect.objectContaining({ reason: 'x509-svid.unknown-trust-domain' }),
    )
    expect(() => parseBundle(trustDomain, '{"keys":[]}')).toThrow(refusedAs('empty'))
  })

  test('X-30, X-31 passes over an entry without certificate, and takes only the first of several', async () => {
    const other = (await ca.leaf()).certificate
    const first = (entry['x5c'] as string[])[0]!
    const { x509Authorities } = readKeys(
      { ...entry, x5c: undefined },
      { ...entry, x5c: [] },
      { ...entry, x5c: first },
      { ...entry, x5c: [''] },
      { ...entry, x5c: [first, Buffer.from(other.raw).toString('base64')] },
    )
    expect(x509Authorities.map(({ certificate }) => certificate.serial)).toEqual([ca.certificate.serial])
  })

  test('X-26, X-27, X-28, J-15, J-16, W-19 writes use, kid and x5c as the specifications say', () => {
    const { keys } = JSON.parse(formatBundleDocument(bundle)) as { keys: Record<string, unknown>[] }
    expect(keys[0]).toEqual({
      use: 'x509-svid',
      kty: 'EC',
      crv: 'P-256',
      x: expect.any(String),
      y: expect.any(String),
      x5c: [expect.any(String)],
    })
    expect(keys[1]).toEqual({ ...jwk, use: 'jwt-svid', kid: 'k1' })
    expect(keys[2]).toEqual({ ...jwk, use: 'wit-svid', kid: 'w1' })
  })

  test('what is written is read back', () => {
    const again = parseBundle(trustDomain, formatBundleDocument(bundle))
    expect(sameAuthorities(again, bundle)).toBe(true)
    expect(again.sequence).toBe(bundle.sequence)
    expect(sameAuthorities(parseBundle(trustDomain, formatBundlePem(bundle)), bundle)).toBe(false)
  })

  test('API-19 the key set for JWT-SVIDs holds no other keys, and is read back with or without their use', () => {
    const { keys } = JSON.parse(formatJwtKeySet(bundle)) as { keys: Record<string, unknown>[] }
    expect(keys).toEqual([{ ...jwk, kid: 'k1' }])
    const names = (text: string) => parseKeySet('jwt-svid', text).map(({ keyId }) => keyId)
    expect(names(formatJwtKeySet(bundle))).toEqual(['k1'])
    expect(names(formatBundleDocument(bundle))).toEqual(['k1'])
  })
})

describe('whoever publishes a bundle hears what is wrong with it', () => {
  const rules = (text: string) => bundleDocumentFlaws(trustDomain, text).map((flaw) => brokenRules(flaw)[0])

  test('though readers pass over it', async () => {
    const leaf = (await ca.leaf()).certificate
    const leafEntry = {
      ...createPublicKey({ key: leaf.spki, format: 'der', type: 'spki' } as never).export({ format: 'jwk' }),
      use: 'x509-svid',
    }
    const x5c = [Buffer.from(leaf.raw).toString('base64')]
    expect(rules(JSON.stringify({ keys: [{ ...entry, kid: 'a' }] }))).toContain('X-27')
    expect(rules(JSON.stringify({ keys: [{ ...entry, x5c: [...(entry['x5c'] as string[]), 'x'] }] }))).toContain('X-28')
    expect(rules(JSON.stringify({ keys: [{ ...entry, x: 'AAAA' }] }))).toContain('X-28')
    expect(rules(JSON.stringify({ keys: [{ ...leafEntry, x5c }] }))).toEqual(['X-29', 'X-11', 'X-16', 'X-7'])
    expect(rules('{"keys":[{}]}')).toEqual(['B-8', 'B-9'])
    expect(rules('{"keys":[],"keys":[]}')).toEqual(['B-1'])
  })
})

describe('bundle maps', () => {
  const other = parseTrustDomain('other.org')

  test.each([
    ['B-10', '{}', 'bundle.no-trust-domains'],
    ['B-10', '{"trust_domains":[]}', 'bundle.no-trust-domains'],
    ['B-10', '{"trust_domains":{"Other.org":{"keys":[]}}}', 'trust-domain.bad-character'],
    ['B-11', '{"trust_domains":{"a":{"keys":[]},"a":{"keys":[]}}}', 'bundle.malformed'],
    ['B-11', '{"trust_domains":{"a":{"keys":[]},"\\u0061":{"keys":[]}}}', 'bundle.malformed'],
    ['B-13', '{"trust_domains":{"a":{"keys":[]},"b":{}}}', 'bundle.no-keys'],
    ['B-13', '{"trust_domains":{"a":{"keys":[]},"b":7}}', 'bundle.malformed'],
    ['R-31', '{"trust_domains":{"__proto__":{"keys":[{"kty":"EC","crv":"P-256","use":"jwt-svid"}]}}}', 'bundle.no-key-id'],
  ])('%s refuses %s, all of it', (_, text, reason) => {
    expect(() => parseBundleMap(text)).toThrow(expect.objectContaining({ reason }))
  })

  test('B-10 may be empty', () => {
    expect([...parseBundleMap('{"trust_domains":{}}').all()]).toEqual([])
  })

  test('B-12 carries no refresh hints, and those that it meets change nothing', () => {
    const text = formatBundleMap(bundleSet([bundle, { ...bundle, trustDomain: other, x509Authorities: [] }]))
    expect(text).not.toContain('spiffe_refresh_hint')
    const set = parseBundleMap(text.replaceAll('"spiffe_sequence"', '"spiffe_refresh_hint": 1, "spiffe_sequence"'))
    expect(set.find(trustDomain)).not.toHaveProperty('refreshHint')
    const { refreshHint: _, ...withoutHint } = bundle
    expect(sameAuthorities(set.find(trustDomain)!, withoutHint)).toBe(true)
    expect(set.find(other)?.x509Authorities).toEqual([])
    expect(set.find(trustDomain)?.sequence).toBe(bundle.sequence)
  })

  test('R-5 each bundle vouches for its own trust domain only', async () => {
    const set = parseBundleMap(
      formatBundleMap(
        bundleSet([
          { ...bundle, trustDomain: other },
          { ...bundle, x509Authorities: [] },
        ]),
      ),
    )
    const { certificate } = await ca.leaf()
    expect(() => verifyX509Svid([certificate], set, at)).toThrow(expect.objectContaining({ reason: 'x509-svid.unknown-trust-domain' }))
  })
})
