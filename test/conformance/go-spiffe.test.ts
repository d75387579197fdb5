/** go-spiffe judges the same documents as we do: one answer, except where a rule says otherwise. */
import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { spelled } from '../../src/conformance/vectors/spiffe-ids.ts'
import { asJsonSerialization, encrypted, signedWithEd25519, signedWithPublicKey, unsigned } from '../../src/conformance/vectors/tokens.ts'
import { readToken } from '../../src/conformance/documents.ts'
import { failedWith } from '../../src/kernel/failure.ts'
import { hours, minutes } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { formatBundleDocument, formatJwtKeySet, formatWitKeySet, parseBundleDocument } from '../../src/spiffe/bundle-document.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import type { TrustBundle } from '../../src/spiffe/bundle.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { verifyWitSvid } from '../../src/spiffe/wit-svid.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { encodeDer } from '../../src/x509/der-writer.ts'
import { writeSubjectAltName } from '../../src/x509/extension.ts'
import { oid } from '../../src/x509/oid.ts'
import { repository } from '../../tools/peers/source.ts'
import { askGo, type GoQuestion } from '../support/go-judge.ts'
import { describeWithPeer } from '../support/peers.ts'
import { TestCa, type Wishes, withFlippedBit, withTrailingByte, withWrongSignature } from '../support/test-ca.ts'

const at = Date.now()
const trustDomain = parseTrustDomain('example.org')
const id = 'spiffe://example.org/web'

type Verdict = 'accepted' | 'refused'
interface Case {
  /** With the rule that decides. */
  readonly what: string
  readonly question: () => GoQuestion | Promise<GoQuestion>
}

let root: TestCa
let stranger: TestCa
let bundle: TrustBundle
const jwtKey = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const strangersKey = generateKeyPairSync('ec', { namedCurve: 'P-256' })

beforeAll(async () => {
  root = await TestCa.create({ at, name: 'root' })
  stranger = await TestCa.create({ at, name: 'root' })
  bundle = {
    trustDomain,
    x509Authorities: [{ certificate: root.certificate, tainted: false }],
    jwtAuthorities: [{ keyId: 'jwt-1', publicKey: spkiOf(jwtKey.privateKey), tainted: false }],
    witAuthorities: [{ keyId: 'wit-1', publicKey: spkiOf(jwtKey.privateKey), tainted: false }],
    sequence: 2n ** 60n,
    refreshHint: minutes(5),
  }
})

const spkiOf = (key: KeyObject) => new Uint8Array(createPublicKey(key).export({ type: 'spki', format: 'der' }))
const inSeconds = (seconds: number) => Math.floor(at / 1000) + seconds

function x509(...chain: readonly Uint8Array[]): GoQuestion {
  return { kind: 'x509', trustDomain, chain, roots: [root.certificate.raw] }
}
const leaf = (what: string, wishes: Wishes): Case => ({
  what,
  question: async () => x509((await root.leaf({ uris: [id], ...wishes })).certificate.raw),
})
const under = (what: string, wishes: Wishes, below: Wishes = {}): Case => ({
  what,
  question: async () => {
    const intermediate = await root.intermediate(wishes)
    return x509((await intermediate.leaf({ uris: [id], ...below })).certificate.raw, intermediate.certificate.raw)
  },
})

const jwtOf = (text: string): GoQuestion => ({ kind: 'jwt', trustDomain, text, audience: 'db', document: formatJwtKeySet(bundle) })
const tokenOf = (header: object, claims: object, key = jwtKey.privateKey): string => {
  const parts = [
    { alg: 'ES256', kid: 'jwt-1', typ: 'JWT', ...header },
    { sub: id, aud: ['db'], exp: inSeconds(300), ...claims },
  ]
  const signed = parts.map((one) => Buffer.from(JSON.stringify(one)).toString('base64url')).join('.')
  return `${signed}.${sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}
const token = (what: string, header: object, claims: object, key?: KeyObject): Case => ({
  what,
  question: () => jwtOf(tokenOf(header, claims, key)),
})
const real = () => readToken(tokenOf({}, {}), at)
const jwk = () => ({ ...createPublicKey(jwtKey.privateKey).export({ format: 'jwk' }), kid: 'jwt-1' })

const witToken = (what: string, header: object, claims: object, key?: KeyObject): Case => ({
  what,
  question: () => {
    const cnf = { jwk: { ...strangersKey.publicKey.export({ format: 'jwk' }), alg: 'ES256' } }
    const text = tokenOf({ kid: 'wit-1', typ: 'wit+jwt', ...header }, { aud: undefined, cnf, ...claims }, key)
    return { kind: 'wit', trustDomain, text, document: formatWitKeySet(bundle) }
  },
})

interface BundleJson {
  readonly keys: readonly Record<string, unknown>[]
}
const bundled = (what: string, change: (document: BundleJson) => object | string): Case => ({
  what,
  question: () => {
    const changed = change(JSON.parse(formatBundleDocument(bundle)) as BundleJson)
    return { kind: 'bundle', trustDomain, document: typeof changed === 'string' ? changed : JSON.stringify(changed) }
  },
})
const keys = (use: string, change: (key: Record<string, unknown>) => object) => (document: BundleJson) => ({
  ...document,
  keys: document.keys.map((key) => (key['use'] === use ? change(key) : key)),
})

const good: readonly Case[] = [
  leaf('X-3 a leaf with DNS names', { dnsNames: ['web.example.org'] }),
  ...(['ec-p384', 'rsa-2048'] as const).map((keyType) => leaf(`X-17 a leaf with a key of type ${keyType}`, { keyType })),
  leaf('X-19 a leaf without extended key usage', { extKeyUsage: [] }),
  under('X-6 a leaf under an intermediate', {}),
  under('X-6 a leaf under an intermediate that is no SVID', { uris: [] }),
  under('X-14 a leaf whose trust domain its authority may certify', {
    nameConstraints: { critical: true, permittedUris: ['example.org'] },
  }),
  token('J-9 a token for several', {}, { aud: ['db', 'mail'] }),
  token('J-12 a token whose audience is a text', {}, { aud: 'db' }),
  token('J-7 a token without type', { typ: undefined }, {}),
  token('J-7 a token of type JOSE', { typ: 'JOSE' }, {}),
  witToken('W-15 a WIT-SVID', {}, {}),
  witToken('W-14 a WIT-SVID with a claim that nobody knows', {}, { role: 'admin' }),
  bundled('B-1 a bundle document', (document) => document),
  bundled('B-4 a bundle without keys in its list', (document) => ({ ...document, keys: [] })),
  bundled(
    'B-9 a bundle with a key for another use',
    keys('jwt-svid', (key) => ({ ...key, use: 'sig' })),
  ),
  bundled(
    'B-9 a bundle with a key without use',
    keys('jwt-svid', ({ use: _use, ...key }) => key),
  ),
  bundled('B-2 a bundle without sequence and hint', ({ keys }) => ({ keys })),
]

const bad: readonly Case[] = [
  leaf('X-1 a leaf without URI names', { uris: [], dnsNames: ['web.example.org'] }),
  leaf('X-2 a leaf with two', { uris: [id, 'spiffe://example.org/other'] }),
  leaf('X-2 a leaf with two, one of them no SPIFFE ID', { uris: [id, 'https://example.org'] }),
  leaf('X-12 a leaf that is a CA', { ca: {} }),
  leaf('X-18 a leaf that may sign certificates', { keyUsage: ['digitalSignature', 'keyCertSign'] }),
  leaf('X-18 a leaf that may sign revocation lists', { keyUsage: ['digitalSignature', 'cRLSign'] }),
  leaf('X-24 a leaf of another scheme', { uris: ['https://example.org/web'] }),
  leaf('ID-8 a leaf of a trust domain in capitals', { uris: ['spiffe://EXAMPLE.org/web'] }),
  leaf('ID-13 a leaf with a dot segment', { uris: ['spiffe://example.org/a/../web'] }),
  leaf('ID-14 a leaf with a slash at its end', { uris: [`${id}/`] }),
  leaf('ID-7 a leaf with a port', { uris: ['spiffe://example.org:443/web'] }),
  leaf('ID-3 a leaf with a query', { uris: [`${id}?a=b`] }),
  leaf('API-11 a leaf of another trust domain', { uris: ['spiffe://other.example/web'] }),
  leaf('X-21 a leaf that has expired', { notBefore: at - hours(2), notAfter: at - hours(1) }),
  leaf('X-21 a leaf that is not valid yet', { notBefore: at + hours(1), notAfter: at + hours(2) }),
  leaf('X-21 a leaf with a critical extension that nobody knows', {
    extra: [{ oid: '1.2.3.4', critical: true, value: Uint8Array.of(5, 0) }],
  }),
  under('X-11 a leaf under a certificate that is no CA', { ca: false }),
  under('X-16 a leaf under a CA that may not sign', { keyUsage: ['cRLSign'] }),
  under('X-21 a leaf under a CA that has expired', { notBefore: at - hours(2), notAfter: at - hours(1) }),
  under('X-14 a leaf whose trust domain its authority may not certify', {
    nameConstraints: { critical: true, permittedUris: ['other.example'] },
  }),
  {
    what: 'ID-24 a leaf of an authority that nobody trusts',
    question: async () => x509((await stranger.leaf({ uris: [id] })).certificate.raw),
  },
  {
    what: 'ID-24 a leaf that somebody else signed',
    question: async () => x509((await withWrongSignature((await root.leaf({ uris: [id] })).certificate)).raw),
  },
  {
    what: 'X-21 a leaf whose signature was changed',
    question: async () => x509(flippedAtEnd((await root.leaf({ uris: [id] })).certificate.raw)),
  },
  {
    what: 'X-21 a leaf with a byte behind it',
    question: async () => x509(withTrailingByte((await root.leaf({ uris: [id] })).certificate.raw)),
  },
  {
    what: 'X-13 a leaf under more CAs than one of them allows',
    question: async () => {
      const first = await root.intermediate({ ca: { pathLength: 0 }, name: 'first' })
      const next = await first.intermediate({ name: 'next' })
      return x509((await next.leaf({ uris: [id] })).certificate.raw, next.certificate.raw, first.certificate.raw)
    },
  },

  token('J-4 a token with a critical header', { crit: ['exp'] }, {}),
  token('J-5 a token that says another algorithm of its key', { alg: 'ES384' }, {}),
  token('J-7 a token of another type', { typ: 'at+jwt' }, {}),
  token('W-23 a WIT-SVID', { typ: 'wit+jwt' }, {}),
  token('J-8 a token about nobody', {}, { sub: undefined }),
  token('J-8 a token about somebody without SPIFFE ID', {}, { sub: 'web' }),
  token('J-9 a token for somebody else', {}, { aud: ['mail'] }),
  token('J-9 a token for nobody', {}, { aud: [] }),
  token('J-9 a token without audience', {}, { aud: undefined }),
  token('J-11 a token without expiry', {}, { exp: undefined }),
  token('J-12 a token that expired two minutes ago', {}, { exp: inSeconds(-120) }),
  token('J-12 a token that is not valid yet', {}, { nbf: inSeconds(300) }),
  token('API-22 a token of another trust domain', {}, { sub: 'spiffe://other.example/web' }),
  token('J-17 a token of a key that nobody announced', { kid: 'jwt-2' }, {}),
  token('ID-24 a token that a stranger signed', {}, {}, strangersKey.privateKey),
  { what: 'J-5 an unsigned token', question: () => jwtOf(unsigned(real())) },
  { what: 'J-5 a token that is signed with the public key as a secret', question: () => jwtOf(signedWithPublicKey(real(), jwk())[0]!) },
  { what: 'J-5 a token of Ed25519', question: () => jwtOf(signedWithEd25519(real().claims ?? {})) },
  { what: 'J-1 a token in JSON', question: () => jwtOf(asJsonSerialization(real())[1]!) },
  { what: 'J-3 an encrypted token', question: () => jwtOf(encrypted(real())) },
  { what: 'J-2 what is no token', question: () => jwtOf('x.y.z') },

  witToken('W-1 a WIT-SVID without key id', { kid: undefined }, {}),
  witToken('W-2 a JWT-SVID as a WIT-SVID', { typ: 'JWT' }, {}),
  witToken('W-3 a WIT-SVID of another algorithm', { alg: 'HS256' }, {}),
  witToken('W-4 a WIT-SVID with a critical header', { crit: ['exp'] }, {}),
  witToken('W-5 a WIT-SVID about somebody without SPIFFE ID', {}, { sub: 'web' }),
  witToken('W-6 a WIT-SVID that is bound to no key', {}, { cnf: undefined }),
  witToken('W-6 a WIT-SVID that is bound to the name of a key', {}, { cnf: { kid: 'a' } }),
  witToken('W-7 a WIT-SVID whose key names no algorithm', {}, { cnf: { jwk: strangersKey.publicKey.export({ format: 'jwk' }) } }),
  witToken('W-9 a WIT-SVID without expiry', {}, { exp: undefined }),
  witToken('W-9 a WIT-SVID that expired two minutes ago', {}, { exp: inSeconds(-120) }),
  witToken('W-10 a WIT-SVID that is not valid yet', {}, { nbf: inSeconds(300) }),
  witToken('W-13 a WIT-SVID with an audience', {}, { aud: ['db'] }),
  witToken('W-20 a WIT-SVID of a key that nobody announced for them', { kid: 'jwt-1' }, {}),
  witToken('ID-24 a WIT-SVID that a stranger signed', {}, {}, strangersKey.privateKey),
  bundled('B-1 a bundle that is no JSON', () => 'keys'),
  bundled('B-4 a bundle without `keys`', ({ keys: _keys, ...rest }) => rest),
  bundled('B-2 a bundle whose sequence is no number', (document) => ({ ...document, spiffe_sequence: 'one' })),
  bundled(
    'J-16 a bundle with a JWT authority without key id',
    keys('jwt-svid', ({ kid: _kid, ...key }) => key),
  ),
]

/** Where the two differ: what each says, and the rule that decides. The same table is in docs/conformance.md. */
const differences: readonly (Case & { readonly ours: Verdict; readonly theirs: Verdict })[] = (
  [
    [leaf('X-25 a leaf whose ID has no path', { uris: ['spiffe://example.org'] }), 'refused'],
    [
      leaf('X-5 a leaf without subject whose names are not critical', {
        uris: [],
        extra: [{ oid: oid.subjectAltName, critical: false, value: encodeDer(writeSubjectAltName({ uris: [id], dnsNames: [] })) }],
      }),
      'refused',
    ],
    [leaf('X-15 a leaf without key usage', { keyUsage: [] }), 'refused'],
    [leaf('X-17 a leaf that may not make digital signatures', { keyUsage: ['keyAgreement'] }), 'refused'],
    [leaf('X-20 a leaf for servers alone', { extKeyUsage: ['serverAuth'] }), 'refused'],
    [token('J-4 a token that names a place to find its key', { jku: 'https://keys.example' }, {}), 'refused'],
    [token('J-8 a token about a trust domain', {}, { sub: 'spiffe://example.org' }), 'refused'],
    [token('J-12 a token that expired half a minute ago', {}, { exp: inSeconds(-30) }), 'refused'],
    [token('J-6 a token without key id', { kid: undefined }, {}), 'accepted'],
    [
      bundled(
        'X-30 a bundle with an X.509 authority without certificate',
        keys('x509-svid', ({ x5c: _x5c, ...key }) => key),
      ),
      'accepted',
    ],
    [
      bundled(
        'X-31 a bundle with an X.509 authority with two certificates',
        keys('x509-svid', (key) => ({ ...key, x5c: [key['x5c'], key['x5c']].flat() })),
      ),
      'accepted',
    ],
    [bundled('B-11 a bundle in which a name stands twice', (document) => JSON.stringify(document).replace('{', '{"keys":[],')), 'refused'],
  ] as const
).map(([one, ours]) => ({ ...one, ours, theirs: ours === 'refused' ? 'accepted' : 'refused' }))

describeWithPeer('go-spiffe', 'go-spiffe and we', (found) => {
  async function verdictsOn(one: Case): Promise<{ ours: Verdict; theirs: Verdict }> {
    const question = await one.question()
    const [answer] = askGo(found, [question])
    return { ours: await ourVerdict(question), theirs: 'refused' in answer! ? 'refused' : 'accepted' }
  }

  describe('refuse', () => {
    test.each(bad)('$what', async (one) => {
      expect(await verdictsOn(one)).toEqual({ ours: 'refused', theirs: 'refused' })
    })
  })

  describe('accept', () => {
    test.each(good)('T-2 $what', async (one) => {
      expect(await verdictsOn(one)).toEqual({ ours: 'accepted', theirs: 'accepted' })
    })
  })

  describe('differ, because a rule says so, over', () => {
    test.each(differences)('$what', async (one) => {
      expect(await verdictsOn(one)).toEqual({ ours: one.ours, theirs: one.theirs })
    })

    test('nothing that is not listed in docs/conformance.md', () => {
      const rows = readFileSync(join(repository, 'docs/conformance.md'), 'utf8').matchAll(
        /^\| ([A-Z]+-\d+) \| (.+?) \| (\w+) \| (\w+) \|/gm,
      )
      const listed = [...rows].map(([, rule, what, ours, theirs]) => `${rule} ${what}: ${ours}, ${theirs}`)
      expect(listed).toEqual(differences.map(({ what, ours, theirs }) => `${what}: ${ours}, ${theirs}`))
    })
  })

  test('T-1 T-3 read every SPIFFE ID alike: each byte in each place, and each way to spell one otherwise', () => {
    const bytes = Array.from({ length: 0x100 }, (_, byte) => String.fromCharCode(byte))
    const texts = [
      ...bytes.flatMap((one) => [`spiffe://exa${one}mple.org/web`, `spiffe://example.org/w${one}eb`, `spiffe://example.org/${one}`]),
      ...Object.values(spelled).flatMap((variants) => variants(id)),
      ...[
        '',
        'spiffe',
        'spiffe:',
        'spiffe:/',
        'spiffe://a',
        'spiffe://1.2.3.4/a',
        'spiffe://[::1]/a',
        'spiffe://a/b/..c',
        'spiffe://a/...',
      ],
      `spiffe://${'a'.repeat(255)}/b`,
      `spiffe://example.org/${'a'.repeat(2048 - 'spiffe://example.org/'.length)}`,
    ]
    const answers = askGo(
      found,
      texts.map((text) => ({ kind: 'id', text })),
    )
    const differing = texts.filter((text, index) => (accepts(() => parseSpiffeId(text)) ? text : undefined) !== answers[index]!['id'])
    expect(differing).toEqual([])
  })
})

async function ourVerdict(question: GoQuestion): Promise<Verdict> {
  try {
    await judgedByUs(question)
    return 'accepted'
  } catch (error) {
    if (error instanceof Failure && !failedWith(error, 'unexpected')) return 'refused'
    throw error
  }
}

async function judgedByUs(question: GoQuestion): Promise<void> {
  const bundles = bundleSet([bundle])
  if (question.kind === 'x509') verifyX509Svid(question.chain.map(parseCertificate), bundles, at)
  if (question.kind === 'jwt') await verifyJwtSvid(question.text, bundles, question.audience, at)
  if (question.kind === 'wit') await verifyWitSvid(question.text, bundles, at)
  if (question.kind === 'bundle') parseBundleDocument(trustDomain, question.document)
}

function accepts(parse: () => unknown): boolean {
  try {
    parse()
    return true
  } catch (error) {
    if (error instanceof Failure) return false
    throw error
  }
}

const flippedAtEnd = (der: Uint8Array) => withFlippedBit(der, (der.length - 2) * 8)
