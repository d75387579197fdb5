import { readFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { collect } from '../../src/spiffe/flaws.ts'
import { jwtSvidFlaws } from '../../src/spiffe/jwt-svid.ts'
import { brokenRules, rulesOf } from '../../src/spiffe/rules.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { witSvidFlaws } from '../../src/spiffe/wit-svid.ts'
import { signingCertificateFlaws, x509SvidFlaws } from '../../src/spiffe/x509-svid.ts'
import { base64url, utf8 } from '../../src/kernel/bytes.ts'
import { TestCa, type Wishes } from '../support/test-ca.ts'

const source = (path: string) => readFile(new URL(`../../${path}`, import.meta.url), 'utf8')
const at = 1_767_225_600_000
const reasons = (flaws: readonly Failure[]) => flaws.map(({ reason }) => reason)
const token = (header: object, claims: object) =>
  `${[header, claims].map((each) => base64url(utf8(JSON.stringify(each)))).join('.')}.${base64url(utf8('signature'))}`

describe('the table of rules', () => {
  const files: readonly [file: string, call: RegExp, prefixes: readonly string[]][] = [
    ['src/spiffe/id.ts', /(?:refused\(|what: )'([a-z-]+)'/g, ['spiffe-id']],
    ['src/spiffe/trust-domain.ts', /refused\(\s*'([a-z-]+)'/g, ['trust-domain']],
    ['src/spiffe/x509-svid.ts', /(?:refused\(|'x509-svid\.)'?([a-z-]+)'/g, ['x509-svid']],
    ['src/spiffe/jwt-svid.ts', /refused\(\s*'([a-z-]+)'/g, ['jwt-svid']],
    ['src/spiffe/jws.ts', /refused\(\s*kind,\s*'([a-z-]+)'/g, ['jwt-svid', 'wit-svid', 'wit-proof']],
    ['src/spiffe/wit-svid.ts', /refused\('wit-svid', '([a-z-]+)'/g, ['wit-svid']],
    ['src/spiffe/wit-svid.ts', /refused\('wit-proof', '([a-z-]+)'/g, ['wit-proof']],
    ['src/spiffe/bundle-document.ts', /refused\(\s*'([a-z-]+)'/g, ['bundle']],
    ['src/spiffe/json.ts', /refused\(\s*'([a-z-]+)'/g, ['json']],
    ['src/x509/chain.ts', /refusal\(\s*'([a-z-]+)'/g, ['chain']],
    ['src/x509/der-reader.ts', /refusal\(\s*'([a-z-]+)'/g, ['der']],
  ]
  test.each(files)('knows the rules behind every refusal of %s', async (file, call, prefixes) => {
    const codes = [...(await source(file)).matchAll(call)].map(([, code]) => code!)
    expect(codes.length).toBeGreaterThan(2)
    for (const prefix of prefixes) for (const code of codes) expect(rulesOf(`${prefix}.${code}`), `${prefix}.${code}`).not.toEqual([])
  })

  test('names only rules that are written down', async () => {
    const known = new Set(
      (await Promise.all(['spiffe', 'regressions'].map((name) => source(`docs/rules/${name}.md`)))).join('\n').match(/\b[A-Z]+-\d+\b/g),
    )
    const named = (await source('src/spiffe/rules.ts')).match(/'[A-Z]+-\d+'/g)!
    expect(named.filter((rule) => !known.has(rule.slice(1, -1)))).toEqual([])
  })

  test('names the rules of what caused a refusal too, each once', () => {
    const cause = new Failure('invalid_argument', 'spiffe-id.scheme', { public: 'x' })
    const refusal = new Failure('unauthenticated', 'jwt-svid.subject', { public: 'x', cause })
    expect(brokenRules(refusal)).toEqual(['J-8', 'ID-1', 'X-24'])
    expect(brokenRules(new Failure('internal', 'unexpected', { public: 'x' }))).toEqual([])
    expect(brokenRules('text')).toEqual([])
  })
})

describe('whoever inspects hears of every flaw', () => {
  test('of a leaf', async () => {
    const ca = await TestCa.create({ at })
    const wishes: Wishes = { ca: {}, keyUsage: ['keyCertSign'], extKeyUsage: ['serverAuth'], uris: ['spiffe://example.org'] }
    expect(reasons(collect(x509SvidFlaws((await ca.leaf(wishes)).certificate)))).toEqual([
      'x509-svid.not-a-leaf',
      'x509-svid.may-sign',
      'x509-svid.may-not-authenticate',
      'x509-svid.extended-key-usage',
      'x509-svid.no-path',
    ])
    expect(collect(x509SvidFlaws((await ca.leaf()).certificate))).toEqual([])
  })

  test('of a signing certificate', async () => {
    const ca = await TestCa.create({ at })
    expect(reasons(collect(signingCertificateFlaws((await ca.leaf()).certificate, parseTrustDomain('other.org'))))).toEqual([
      'x509-svid.authority-not-a-ca',
      'x509-svid.authority-may-not-sign',
      'x509-svid.authority-path',
      'x509-svid.authority-trust-domain',
    ])
    const nameless = await ca.leaf({ ca: {}, keyUsage: ['keyCertSign'], uris: [], dnsNames: ['a.test'] })
    expect(reasons(collect(signingCertificateFlaws(nameless.certificate)))).toEqual(['x509-svid.authority-uri-count'])
    const good = await ca.leaf({ ca: {}, keyUsage: ['keyCertSign'], uris: ['spiffe://example.org'] })
    expect(collect(signingCertificateFlaws(good.certificate, parseTrustDomain('example.org')))).toEqual([])
  })

  test('of a JWT-SVID', () => {
    const bad = token({ alg: 'none', typ: 'at+jwt', kid: 7, jku: 'x' }, { nbf: at / 1000 + 999, aud: 'a', sub: 'x' })
    expect(reasons(jwtSvidFlaws(bad, { at, audience: 'b' }))).toEqual([
      'jwt-svid.algorithm',
      'jwt-svid.header',
      'jwt-svid.type',
      'jwt-svid.key-id',
      'jwt-svid.subject',
      'jwt-svid.no-expiry',
      'jwt-svid.not-yet-valid',
      'jwt-svid.wrong-audience',
    ])
    expect(reasons(jwtSvidFlaws('a.b', { at }))).toEqual(['jwt-svid.malformed'])
  })

  test('of a WIT-SVID', () => {
    const bad = token({ alg: 'none', typ: 'JWT', crit: ['a'] }, { sub: 'spiffe://example.org', exp: 1, aud: 'x' })
    expect(reasons(witSvidFlaws(bad, at))).toEqual([
      'wit-svid.algorithm',
      'wit-svid.type',
      'wit-svid.critical',
      'wit-svid.key-id',
      'wit-svid.expired',
      'wit-svid.subject',
      'wit-svid.audience',
      'wit-svid.proof-key',
    ])
  })
})
