import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { formatInstant } from '../../src/kernel/clock.ts'
import { hours, minutes } from '../../src/kernel/duration.ts'
import { formatBundleDocument, formatBundlePem, formatJwtKeySet } from '../../src/spiffe/bundle-document.ts'
import type { TrustBundle } from '../../src/spiffe/bundle.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { makeJwtSvid } from '../../src/spiffe/jwt-svid.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { makeWitSvid } from '../../src/spiffe/wit-svid.ts'
import { createCertificateRequest } from '../../src/x509/certificate-request.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { FakeClock } from '../fakes/clock.ts'
import { signerFromKey, TestCa, type Wishes, withFlippedBit, withWrongSignature } from '../support/test-ca.ts'
import { vidimus } from './rig.ts'

const at = new FakeClock().now()
const id = parseSpiffeId('spiffe://example.org/web')
const directory = mkdtempSync(join(tmpdir(), 'vi-'))
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const signer = signerFromKey(privateKey)
let ca: TestCa
let bundle: TrustBundle

beforeAll(async () => {
  ca = await TestCa.create({ at })
  bundle = {
    trustDomain: parseTrustDomain('example.org'),
    x509Authorities: [{ certificate: ca.certificate, tainted: false }],
    jwtAuthorities: [{ keyId: 'jwt-1', publicKey: signer.publicKey, tainted: false }],
    witAuthorities: [{ keyId: 'wit-1', publicKey: signer.publicKey, tainted: false }],
    sequence: 2n ** 60n,
    refreshHint: minutes(5),
  }
})

afterAll(() => rmSync(directory, { recursive: true }))

let files = 0
function written(content: string | Uint8Array): string {
  const path = join(directory, `${++files}`)
  writeFileSync(path, content)
  return path
}

interface Told {
  readonly kind: string
  readonly title: string
  readonly facts: Readonly<Record<string, string>>
  readonly flaws: readonly { readonly rule: string; readonly expected: string; readonly found: string }[]
}

async function inspected(content: string | Uint8Array, ...args: readonly string[]) {
  const outcome = await vidimus(['inspect', written(content), '--output', 'json', ...args])
  expect(outcome.thrown).toBeUndefined()
  const { documents } = outcome.json() as { documents: readonly Told[] }
  return {
    ...outcome,
    documents,
    kinds: documents.map(({ kind }) => kind),
    rules: documents.flatMap(({ flaws }) => flaws.map(({ rule }) => rule)),
  }
}

const pemOf = (raw: Uint8Array) => formatPem('CERTIFICATE', raw)
const leaf = async (wishes: Wishes = {}) => (await ca.leaf({ uris: [id], ...wishes })).certificate
const content = { spiffeId: id, audience: ['orders'], issuedAt: at, expiresAt: at + minutes(5), jti: 'one' }
const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
const jwt = (header: object, claims: object) =>
  `${part({ alg: 'ES256', kid: 'jwt-1', typ: 'JWT', ...header })}.${part({ sub: id, aud: ['orders'], exp: at / 1000 + 300, ...claims })}.AAAA`
const wit = (header: object, claims: object) => {
  const cnf = { jwk: { ...createPublicKey(privateKey).export({ format: 'jwk' }), alg: 'ES256' } }
  return `${part({ alg: 'ES256', kid: 'wit-1', typ: 'wit+jwt', ...header })}.${part({ sub: id, exp: at / 1000 + 300, cnf, ...claims })}.AAAA`
}

describe('inspect refuses', () => {
  test.each([
    ['what is no document', 'hello', [], 'usage.not-recognised'],
    ['an empty input', '', [], 'usage.not-recognised'],
    ['JSON that is none of the documents', '{"a": 1}', [], 'usage.not-recognised'],
    ['JSON that cannot be read', '{"keys": [}', [], 'usage.not-recognised'],
    ['bytes that are neither text nor DER', Buffer.from([0xff, 0xfe]), [], 'usage.not-recognised'],
    ['a form that there is not', 'x', ['--as', 'svid'], 'usage.wrong'],
    ['a moment that is none', 'x', ['--at', 'yesterday'], 'usage.wrong'],
  ] as const)('%s, with exit code 2', async (_what, input, args, reason) => {
    expect(await vidimus(['inspect', written(input), ...args])).toMatchObject({ code: 2, out: '', thrown: { reason } })
  })

  test('a file that there is not, and a trust bundle that is none, with exit code 2', async () => {
    expect(await vidimus(['inspect', join(directory, 'nothing')])).toMatchObject({ code: 2, thrown: { reason: 'usage.no-file' } })
    const args = ['inspect', written(pemOf((await leaf()).raw)), '--trust-bundle', written('no bundle')]
    expect(await vidimus(args)).toMatchObject({ code: 2, thrown: { reason: 'usage.trust-bundle' } })
  })
})

describe('inspect names the rule that a certificate breaks', () => {
  const flawed: readonly [rule: string, wishes: Wishes][] = [
    ['X-1', { uris: [id, 'spiffe://example.org/other'] }],
    ['X-4', { uris: ['spiffe://example.org'] }],
    ['X-12', { ca: {} }],
    ['X-15', { keyUsage: [] }],
    ['X-17', { keyUsage: ['keyEncipherment'] }],
    ['X-18', { keyUsage: ['digitalSignature', 'cRLSign'] }],
    ['X-19', { extKeyUsage: [] }],
    ['X-20', { extKeyUsage: ['serverAuth'] }],
    ['X-21', { notAfter: at - 1000 }],
    ['ID-1', { uris: ['https://example.org/web'] }],
    ['ID-8', { uris: ['spiffe://EXAMPLE.org/web'] }],
    ['ID-13', { uris: ['spiffe://example.org/a/../web'] }],
  ]
  test.each(flawed)('%s', async (rule, wishes) => {
    const { code, rules } = await inspected(pemOf((await leaf(wishes)).raw))
    expect({ code, rules }).toEqual({ code: 1, rules: [rule] })
  })

  test('ID-24 one that nobody of the trust bundle signed', async () => {
    const stray = await withWrongSignature(await leaf())
    const { rules } = await inspected(pemOf(stray.raw), '--trust-bundle', written(formatBundlePem(bundle)))
    expect(rules).toEqual(['ID-24'])
  })

  test('X-21 one that is no DER', async () => {
    expect((await inspected(withFlippedBit((await leaf()).raw, 60))).rules).toEqual(['X-21'])
    expect((await inspected('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')).code).toBe(1)
  })

  test('X-7 X-16 of signing certificates in a chain', async () => {
    const odd = await ca.intermediate({ uris: ['spiffe://example.org/ca'], keyUsage: ['cRLSign'] })
    const { certificate } = await odd.leaf({ uris: [id] })
    expect((await inspected(pemOf(certificate.raw) + pemOf(odd.certificate.raw))).rules).toEqual(['X-7', 'X-16'])
  })
})

describe('inspect tells of a good certificate', () => {
  test('who it is, how long, and who signed it; with a trust bundle of whatever form, that it was verified', async () => {
    const { raw } = await leaf({ dnsNames: ['web.example.org'] })
    const bundles = [
      formatBundlePem(bundle),
      formatBundleDocument(bundle),
      JSON.stringify({ trust_domains: { 'example.org': JSON.parse(formatBundleDocument(bundle)) as object } }),
    ]
    for (const text of bundles) {
      for (const input of [raw, pemOf(raw)]) {
        const { code, documents } = await inspected(input, '--trust-bundle', written(text))
        expect(code).toBe(0)
        expect(documents).toMatchObject([
          {
            kind: 'x509-svid',
            facts: {
              'spiffe id': id,
              issuer: 'CN=test root',
              'dns names': 'web.example.org',
              key: 'ec-p256',
              verified: expect.any(String) as string,
            },
          },
        ])
      }
    }
  })

  test('the whole chain, and each signing certificate', async () => {
    const intermediate = await ca.intermediate()
    const { certificate } = await intermediate.leaf({ uris: [id] })
    const { code, kinds } = await inspected([certificate, intermediate.certificate].map(({ raw }) => pemOf(raw)).join(''))
    expect({ code, kinds }).toEqual({ code: 0, kinds: ['x509-svid', 'signing-certificate'] })
    expect((await inspected(pemOf(ca.certificate.raw))).kinds).toEqual(['signing-certificate'])
  })

  test('at another moment', async () => {
    const { raw } = await leaf()
    expect((await inspected(raw, '--at', formatInstant(at + hours(2)))).rules).toEqual(['X-21'])
    expect((await inspected(raw, '--at', formatInstant(at))).rules).toEqual([])
  })

  test('in words, with the rule that is broken as a sentence', async () => {
    const { out } = await vidimus(['inspect', written(pemOf((await leaf({ ca: {} })).raw))])
    expect(out).toMatch(/^an X509-SVID of spiffe:\/\/example\.org\/web\n {2}spiffe id: /)
    expect(out).toContain('breaks X-12 (must): a leaf is no CA\n  expected cA false, found cA true\n')
    expect(out).toMatch(/\n1 rule broken\n$/)
  })
})

describe('inspect never shows a private key', () => {
  test('in PEM beside its certificate', async () => {
    const { certificate, keyPem } = await ca.leaf({ uris: [id] })
    const { out, kinds, code } = await inspected(pemOf(certificate.raw) + keyPem)
    expect({ kinds, code }).toEqual({ kinds: ['x509-svid', 'private-key'], code: 0 })
    expect(out).not.toContain(keyPem.split('\n')[1])
  })

  test('B-7 in a key set, where it breaks a rule', async () => {
    const jwk = { ...privateKey.export({ format: 'jwk' }), kid: 'a' }
    const { out, rules } = await inspected(JSON.stringify({ keys: [jwk] }))
    expect(rules).toEqual(['B-7'])
    expect(out).not.toContain(jwk.d)
  })
})

describe('inspect judges a certificate request', () => {
  test('a good one, in PEM and DER', async () => {
    const der = await createCertificateRequest({ signer, uris: [id], dnsNames: ['web.example.org'] })
    for (const input of [der, formatPem('CERTIFICATE REQUEST', der)]) {
      expect(await inspected(input)).toMatchObject({
        code: 0,
        documents: [{ kind: 'certificate-request', facts: { 'uri names': id, key: 'ec-p256' } }],
      })
    }
  })

  test('X-1 ID-14 with several names, one of them no SPIFFE ID', async () => {
    const der = await createCertificateRequest({ signer, uris: [id, `${id}/`] })
    expect((await inspected(der)).rules).toEqual(['ID-14', 'X-1'])
  })

  test('R-4 whose signature is not its own key’s', async () => {
    const der = await createCertificateRequest({ signer, uris: [id] })
    const { rules, code } = await inspected(withFlippedBit(der, (der.length - 2) * 8))
    expect({ rules, code }).toEqual({ rules: ['R-4'], code: 1 })
  })
})

describe('inspect names the rule that a JWT-SVID breaks', () => {
  const flawed: readonly [rule: string, token: () => string][] = [
    ['J-4', () => jwt({ jku: 'https://keys.example' }, {})],
    ['J-5', () => jwt({ alg: 'none' }, {})],
    ['J-5', () => jwt({ alg: 'HS256' }, {})],
    ['J-7', () => jwt({ typ: 'at+jwt' }, {})],
    ['J-8', () => jwt({}, { sub: 'alice' })],
    ['J-9', () => jwt({}, { aud: undefined })],
    ['J-11', () => jwt({}, { exp: undefined })],
    ['J-12', () => jwt({}, { exp: at / 1000 - 1 })],
    ['J-12', () => jwt({}, { exp: 'tomorrow' })],
    ['ID-14', () => jwt({}, { sub: 'spiffe://example.org/' })],
  ]
  test.each(flawed)('%s', async (rule, token) => {
    expect(await inspected(token())).toMatchObject({ code: 1, kinds: ['jwt-svid'], rules: [rule] })
  })

  test('J-1 J-3 one that is in JSON, or encrypted', async () => {
    expect((await inspected(JSON.stringify({ payload: 'e30', signatures: [] }))).rules).toContain('J-1')
    expect((await inspected(`${part({ alg: 'RSA-OAEP', enc: 'A256GCM' })}.AA.AA.AA.AA`)).rules).toContain('J-3')
  })

  test('J-9 one for another audience, and ID-24 one that no key of the bundle signed', async () => {
    expect((await inspected(jwt({}, {}), '--audience', 'payments')).rules).toEqual(['J-9'])
    expect((await inspected(jwt({}, {}), '--trust-bundle', written(formatBundleDocument(bundle)))).rules).toEqual(['ID-24'])
  })

  test('none of a good one, and tells it without the token itself', async () => {
    const token = await makeJwtSvid(signer, 'jwt-1', content)
    for (const text of [formatBundleDocument(bundle), formatJwtKeySet(bundle)]) {
      const { code, out, documents } = await inspected(`${token}\n`, '--trust-bundle', written(text), '--audience', 'orders')
      expect(code).toBe(0)
      expect(documents).toMatchObject([{ kind: 'jwt-svid', facts: { subject: id, audience: 'orders', verified: 'by the key jwt-1' } }])
      expect(out).not.toContain(token.split('.')[2])
    }
  })
})

describe('inspect names the rule that a WIT-SVID breaks', () => {
  const flawed: readonly [rule: string, token: () => string][] = [
    ['W-1', () => wit({ kid: undefined }, {})],
    ['W-3', () => wit({ alg: 'EdDSA' }, {})],
    ['W-4', () => wit({ jku: 'https://keys.example' }, {})],
    ['W-5', () => wit({}, { sub: 'alice' })],
    ['W-6', () => wit({}, { cnf: {} })],
    ['W-7', () => wit({}, { cnf: { jwk: { kty: 'EC' } } })],
    ['W-9', () => wit({}, { exp: at / 1000 - 1 })],
    ['W-10', () => wit({}, { nbf: at / 1000 + 120 })],
    ['W-12', () => wit({}, { iss: 'https://issuer.example' })],
    ['W-13', () => wit({}, { aud: ['db'] })],
  ]
  test.each(flawed)('%s', async (rule, token) => {
    expect(await inspected(token())).toMatchObject({ code: 1, kinds: ['wit-svid'], rules: [rule] })
  })

  test('W-2 a JWT-SVID that is said to be one', async () => {
    expect((await inspected(jwt({}, {}), '--as', 'wit-svid')).rules).toContain('W-2')
  })

  test('none of a good one', async () => {
    const token = await makeWitSvid(signer, 'wit-1', { ...content, proofKey: signer.publicKey })
    const outcome = await inspected(token, '--trust-bundle', written(formatBundleDocument(bundle)))
    expect(outcome).toMatchObject({ code: 0, documents: [{ kind: 'wit-svid', facts: { subject: id, verified: 'by the key wit-1' } }] })
  })
})

describe('inspect names the rule that a bundle breaks', () => {
  interface Document {
    readonly keys: Record<string, unknown>[]
    [name: string]: unknown
  }
  const changed = (change: (document: Document) => object) => JSON.stringify(change(JSON.parse(formatBundleDocument(bundle)) as Document))
  const keyFor = (use: string, change: object) => (document: Document) => ({
    ...document,
    keys: document.keys.map((key) => (key['use'] === use ? { ...key, ...change } : key)),
  })
  const flawed: readonly [rule: string, text: () => string][] = [
    ['B-1', () => changed((document) => ({ ...document, keys: 'none' }))],
    ['B-2', () => changed((document) => ({ ...document, spiffe_sequence: undefined }))],
    ['B-2', () => changed((document) => ({ ...document, spiffe_sequence: 'one' }))],
    ['B-3', () => changed((document) => ({ ...document, spiffe_refresh_hint: 1.5 }))],
    ['B-4', () => changed((document) => ({ ...document, keys: undefined }))],
    ['B-7', () => changed(keyFor('jwt-svid', { owner: 'us' }))],
    ['B-8', () => changed(keyFor('jwt-svid', { kty: undefined }))],
    ['B-9', () => changed(keyFor('jwt-svid', { use: undefined }))],
    ['X-26', () => changed(keyFor('x509-svid', { use: 'sig' }))],
    ['X-27', () => changed(keyFor('x509-svid', { kid: 'a' }))],
    ['X-28', () => changed(keyFor('x509-svid', { x5c: [] }))],
    ['J-16', () => changed(keyFor('jwt-svid', { kid: undefined }))],
    ['W-19', () => changed(keyFor('wit-svid', { kid: 'jwt-1' }))],
    ['B-11', () => formatBundleDocument(bundle).replace('{', '{"spiffe_refresh_hint": 1, ')],
  ]
  test.each(flawed)('%s', async (rule, text) => {
    const { code, rules, kinds } = await inspected(text())
    expect({ code, rules, kind: kinds[0] }).toEqual({ code: 1, rules: [rule], kind: 'bundle' })
  })

  test('X-29 whose authority is not self-signed', async () => {
    const intermediate = await ca.intermediate()
    const text = formatBundleDocument({ ...bundle, x509Authorities: [{ certificate: intermediate.certificate, tainted: false }] })
    expect((await inspected(text)).rules).toEqual(['X-29'])
  })

  test('none of a good one, and tells its keys and authorities', async () => {
    const { code, documents } = await inspected(formatBundleDocument(bundle))
    expect(code).toBe(0)
    expect(documents).toMatchObject([
      { kind: 'bundle', facts: { sequence: `${2n ** 60n}`, 'refresh hint': '300 s', 'keys for jwt-svid': '1: jwt-1' } },
      { kind: 'signing-certificate', title: 'a signing certificate of spiffe://example.org' },
    ])
  })

  test('B-10 B-11 B-12 of a bundle map', async () => {
    const inside = JSON.parse(formatBundleDocument(bundle)) as Document
    const without = { ...inside, spiffe_refresh_hint: undefined }
    const map = (domains: object) => JSON.stringify({ trust_domains: domains })
    expect(await inspected(map({ 'example.org': without }))).toMatchObject({
      code: 0,
      kinds: ['bundle-map', 'bundle', 'signing-certificate'],
    })
    expect((await inspected(map({ 'EXAMPLE.org': without }))).rules).toEqual(['B-10'])
    expect((await inspected('{"trust_domains": []}')).rules).toEqual(['B-10'])
    expect((await inspected(map({ 'example.org': inside }))).rules).toEqual(['B-12'])
    const twice = `{"trust_domains": {"a.example": {"keys": []}, "a.example": {"keys": []}}}`
    expect((await inspected(twice)).rules).toContain('B-11')
  })

  test('J-16 of a key set of the Workload API', async () => {
    expect(await inspected(formatJwtKeySet(bundle))).toMatchObject({ code: 0, kinds: ['key-set'] })
    expect((await inspected(formatJwtKeySet(bundle).replace('"kid":"jwt-1",', ''))).rules).toEqual(['J-16'])
  })
})

test('inspect tells a SPIFFE ID', async () => {
  expect(await inspected(`${id}\n`)).toMatchObject({ code: 0, kinds: ['spiffe-id'] })
  expect((await inspected('spiffe://example.org/a//b?c')).rules).toEqual(['ID-3', 'ID-13'])
})
