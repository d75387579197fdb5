import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { hours } from '../../src/kernel/duration.ts'
import { type Certificate, parseCertificate } from '../../src/x509/certificate.ts'
import { buildChain } from '../../src/x509/chain.ts'
import * as der from '../../src/x509/der-writer.ts'
import { oid } from '../../src/x509/oid.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { type Issued, TestCa, type Wishes, withWrongSignature } from '../support/test-ca.ts'

const at = Date.UTC(2026, 0, 1)
let root: TestCa
let middle: TestCa
let leaf: Issued

beforeAll(async () => {
  root = await TestCa.create({ at })
  middle = await root.intermediate()
  leaf = await middle.leaf()
})

const refusedFor = (what: string) => expect.objectContaining({ name: 'Failure', reason: `chain.${what}` })
const chainOf = (
  subject: Certificate,
  intermediates: readonly (TestCa | Certificate)[] = [middle],
  roots: readonly (TestCa | Certificate)[] = [root],
  when = at,
) => buildChain({ leaf: subject, intermediates: intermediates.map(certificateOf), roots: roots.map(certificateOf), at: when })
const certificateOf = (each: TestCa | Certificate) => (each instanceof TestCa ? each.certificate : each)

describe('nobody trusted signed it', () => {
  test('no roots, no chain', () => {
    expect(() => chainOf(leaf.certificate, [middle], [])).toThrow(refusedFor('no-path'))
  })

  test('a root of the same name with another key', async () => {
    expect(() => chainOf(leaf.certificate, [middle], [twinOf])).toThrow(refusedFor('no-path'))
  })
  let twinOf: TestCa
  beforeAll(async () => {
    twinOf = await TestCa.create({ at })
  })

  test('the intermediate that signed it is missing', () => {
    expect(() => chainOf(leaf.certificate, [])).toThrow(refusedFor('no-path'))
  })

  test('the signature is another key’s', async () => {
    const forged = await withWrongSignature(leaf.certificate)
    expect(() => chainOf(forged)).toThrow(refusedFor('no-path'))
  })

  test('a leaf that is its own root: an anchor vouches for others', () => {
    expect(() => chainOf(root.certificate, [], [root])).toThrow(refusedFor('no-path'))
    expect(() => chainOf(leaf.certificate, [], [leaf.certificate])).toThrow(refusedFor('no-path'))
  })

  test('two CAs that sign each other and nobody else', async () => {
    const [a, b] = await Promise.all([TestCa.create({ at, name: 'a' }), TestCa.create({ at, name: 'b' })])
    const aByB = (await b.leaf(caAs('a', a))).certificate
    const bByA = (await a.leaf(caAs('b', b))).certificate
    const { certificate } = await a.leaf()
    expect(() => chainOf(certificate, [aByB, bByA])).toThrow(refusedFor('no-path'))
  })
})

describe('X-21 outside of its time', () => {
  const second = 1000
  test('a leaf is valid from its first second to the end of its last', () => {
    const { notBefore, notAfter } = leaf.certificate
    expect(() => chainOf(leaf.certificate, [middle], [root], notBefore - 1)).toThrow(refusedFor('not-yet-valid'))
    expect(chainOf(leaf.certificate, [middle], [root], notBefore)).toHaveLength(3)
    expect(chainOf(leaf.certificate, [middle], [root], notAfter + second - 1)).toHaveLength(3)
    expect(() => chainOf(leaf.certificate, [middle], [root], notAfter + second)).toThrow(refusedFor('expired'))
  })

  test('an expired intermediate, an expired root', async () => {
    const shortMiddle = await root.intermediate({ notAfter: at + second })
    const { certificate } = await shortMiddle.leaf({ notAfter: at + hours(1) })
    expect(() => chainOf(certificate, [shortMiddle], [root], at + hours(0.5))).toThrow(refusedFor('expired'))

    const shortRoot = await TestCa.create({ at, lifetime: second })
    const underIt = await shortRoot.leaf({ notAfter: at + hours(1) })
    expect(() => chainOf(underIt.certificate, [], [shortRoot], at + hours(0.5))).toThrow(refusedFor('expired'))
  })

  test('an intermediate that is not yet valid', async () => {
    const early = await root.intermediate({ notBefore: at + hours(2) })
    const { certificate } = await early.leaf()
    expect(() => chainOf(certificate, [early])).toThrow(refusedFor('not-yet-valid'))
  })

  test('a moment that is not a number', () => {
    expect(() => chainOf(leaf.certificate, [middle], [root], Number.NaN)).toThrow(refusedFor('not-yet-valid'))
  })
})

describe('R-13 only a CA makes certificates', () => {
  const asIssuer = async (wishes: Wishes) => {
    const issuer = await root.intermediate(wishes)
    return { issuer, certificate: (await issuer.leaf()).certificate }
  }

  test('a leaf that signed a leaf', async () => {
    const { issuer, certificate } = await asIssuer({ ca: false, keyUsage: ['digitalSignature'] })
    expect(() => chainOf(certificate, [issuer])).toThrow(refusedFor('not-a-ca'))
  })

  test('a leaf that may sign certificates and is no CA', async () => {
    const { issuer, certificate } = await asIssuer({ ca: false })
    expect(() => chainOf(certificate, [issuer])).toThrow(refusedFor('not-a-ca'))
  })

  test('an intermediate without basic constraints', async () => {
    const { issuer, certificate } = await asIssuer({ without: [oid.basicConstraints] })
    expect(() => chainOf(certificate, [issuer])).toThrow(refusedFor('not-a-ca'))
  })

  test('a root that is no CA', async () => {
    const { issuer, certificate } = await asIssuer({ ca: false, keyUsage: ['digitalSignature'] })
    expect(() => chainOf(certificate, [], [issuer])).toThrow(refusedFor('not-a-ca'))
  })

  test('a CA that may only sign revocation lists', async () => {
    const { issuer, certificate } = await asIssuer({ keyUsage: ['cRLSign'] })
    expect(() => chainOf(certificate, [issuer])).toThrow(refusedFor('may-not-sign'))
    expect(() => chainOf(certificate, [], [issuer])).toThrow(refusedFor('may-not-sign'))
  })

  test('an intermediate that does not say what it may; a root need not', async () => {
    const { issuer, certificate } = await asIssuer({ keyUsage: [] })
    expect(() => chainOf(certificate, [issuer])).toThrow(refusedFor('may-not-sign'))
    expect(chainOf(certificate, [], [issuer])).toHaveLength(2)
  })
})

describe('X-13 no more CAs below than allowed', () => {
  test('a path length of 0 allows leaves only', async () => {
    const deeper = await middle.intermediate({ name: 'deeper' })
    const { certificate } = await deeper.leaf()
    expect(() => chainOf(certificate, [middle, deeper])).toThrow(refusedFor('path-too-long'))
  })

  test('the root’s own path length counts', async () => {
    const strict = await root.intermediate({ name: 'strict root', ca: { pathLength: 1 } })
    const first = await strict.intermediate({ name: 'first', ca: {} })
    const second = await first.intermediate({ name: 'second', ca: {} })
    expect(chainOf((await first.leaf()).certificate, [first], [strict])).toHaveLength(3)
    const { certificate } = await second.leaf()
    expect(() => chainOf(certificate, [first, second], [strict])).toThrow(refusedFor('path-too-long'))
  })

  test('a CA that renews its own key does not count (RFC 5280 section 6.1.4 (l))', async () => {
    const renewed = await middle.intermediate({ name: 'test intermediate' })
    const { certificate } = await renewed.leaf()
    expect(chainOf(certificate, [middle, renewed])).toHaveLength(4)
  })

  test('CAs without a name are not each other’s renewals', async () => {
    const nameless = await root.intermediate({ subject: [] })
    const below = await nameless.intermediate({ subject: [] })
    const { certificate } = await below.leaf()
    expect(() => chainOf(certificate, [nameless, below])).toThrow(refusedFor('path-too-long'))
  })
})

describe('R-29 a bounded search', () => {
  test('sixteen intermediates are too many', () => {
    const many = Array<Certificate>(16).fill(middle.certificate)
    expect(() => chainOf(leaf.certificate, many)).toThrow(refusedFor('too-many-certificates'))
    expect(chainOf(leaf.certificate, many.slice(1))).toHaveLength(3)
  })

  test('a chain of eight is built, one of nine is not', async () => {
    const line: TestCa[] = []
    for (let last = root, depth = 1; depth <= 7; depth++) line.push((last = await last.intermediate({ name: `ca ${depth}`, ca: {} })))
    const [eight, nine] = await Promise.all([line[5]!.leaf(), line[6]!.leaf()])
    expect(chainOf(eight.certificate, line)).toHaveLength(8)
    expect(() => chainOf(nine.certificate, line)).toThrow(refusedFor('too-many-certificates'))
  })

  test('forty roots of one name, none of which signed', async () => {
    const twins = await Promise.all(Array.from({ length: 40 }, () => TestCa.create({ at })))
    const { certificate } = await root.leaf()
    expect(() => chainOf(certificate, [], twins)).toThrow(refusedFor('too-many-certificates'))
    expect(chainOf(certificate, [], [...twins, root])).toHaveLength(2)
  })
})

describe('R-44 name constraints', () => {
  const under = async (nameConstraints: Wishes['nameConstraints'], wishes: Wishes) => {
    const constrained = await root.intermediate({ nameConstraints })
    const { certificate } = await constrained.leaf(wishes)
    return () => chainOf(certificate, [constrained])
  }
  type Row = readonly [string, Omit<NonNullable<Wishes['nameConstraints']>, 'critical'>, Wishes]

  const refusals: readonly Row[] = [
    ['a URI of another host', { permittedUris: ['example.org'] }, { uris: ['spiffe://example.com/a'] }],
    ['a URI of a host below the permitted one', { permittedUris: ['example.org'] }, { uris: ['spiffe://a.example.org/a'] }],
    [
      'a URI of the domain itself where hosts below are permitted',
      { permittedUris: ['.example.org'] },
      { uris: ['spiffe://example.org/a'] },
    ],
    ['a host that ends like the permitted one', { permittedUris: ['.example.org'] }, { uris: ['spiffe://notexample.org/a'] }],
    ['a user at the permitted host', { permittedUris: ['example.org'] }, { uris: ['spiffe://me@example.org/a'] }],
    ['the permitted host as user name', { permittedUris: ['example.org'] }, { uris: ['spiffe://example.org@example.com/a'] }],
    ['the permitted host in the path', { permittedUris: ['example.org'] }, { uris: ['spiffe://example.com/example.org'] }],
    ['a URI without a host', { permittedUris: ['example.org'] }, { uris: ['urn:example.org'] }],
    ['a URI with an address for a host', { excludedUris: ['example.com'] }, { uris: ['spiffe://127.0.0.1/a'] }],
    ['one bad URI among good ones', { permittedUris: ['example.org'] }, { uris: ['spiffe://example.org/a', 'spiffe://example.com/a'] }],
    ['an excluded host', { excludedUris: ['example.org'] }, {}],
    ['an excluded host in capitals', { excludedUris: ['example.org'] }, { uris: ['spiffe://EXAMPLE.org/a'] }],
    ['a host that is both permitted and excluded', { permittedUris: ['example.org'], excludedUris: ['example.org'] }, {}],
    ['a DNS name outside', { permittedDns: ['a.test'] }, { dnsNames: ['b.test'] }],
    ['a DNS name that ends like the permitted one', { permittedDns: ['a.test'] }, { dnsNames: ['ba.test'] }],
    ['an excluded DNS name', { excludedDns: ['a.test'] }, { dnsNames: ['x.A.test'] }],
    ['every DNS name', { excludedDns: [''] }, { dnsNames: ['a.test'] }],
    ['a wildcard that covers an excluded name', { excludedDns: ['secret.a.test'] }, { dnsNames: ['*.a.test'] }],
  ]
  test.each(refusals)('refused: %s', async (_, constraints, wishes) => {
    expect(await under({ critical: true, ...constraints }, wishes)).toThrow(refusedFor('name-constraint'))
    expect(await under({ critical: false, ...constraints }, wishes)).toThrow(refusedFor('name-constraint'))
  })

  const acceptances: readonly Row[] = [
    ['the permitted host', { permittedUris: ['example.org'] }, {}],
    ['one of two permitted hosts', { permittedUris: ['example.com', 'Example.Org'] }, {}],
    ['a host below a permitted domain', { permittedUris: ['.example.org'] }, { uris: ['spiffe://a.example.org/a'] }],
    ['a permitted DNS name and one below it', { permittedDns: ['a.test'] }, { dnsNames: ['a.test', 'x.a.test'] }],
    ['names of a type that is not constrained', { permittedDns: ['a.test'] }, { uris: ['urn:anything'] }],
  ]
  test.each(acceptances)('accepted: %s', async (_, constraints, wishes) => {
    expect((await under({ critical: true, ...constraints }, wishes))()).toHaveLength(3)
  })

  test('they reach through the CAs below', async () => {
    const top = await root.intermediate({ name: 'top', ca: {}, nameConstraints: { critical: true, permittedUris: ['example.org'] } })
    const below = await top.intermediate({ name: 'below' })
    const { certificate } = await below.leaf({ uris: ['spiffe://example.com/a'] })
    expect(() => chainOf(certificate, [top, below])).toThrow(refusedFor('name-constraint'))
  })

  test('they hold for the names of the CAs below as well', async () => {
    const top = await root.intermediate({ name: 'top', ca: {}, nameConstraints: { critical: true, permittedUris: ['example.org'] } })
    const below = await top.intermediate({ name: 'below', uris: ['spiffe://example.com'] })
    const { certificate } = await below.leaf({ uris: ['spiffe://example.org/a'] })
    expect(() => chainOf(certificate, [top, below])).toThrow(refusedFor('name-constraint'))
  })

  test('a constraint that is not evaluated refuses the names it is about', async () => {
    const onAddresses = der.encodeDer(
      der.sequence(der.tagged(0, der.sequence(der.taggedPrimitive(7, Uint8Array.of(10, 0, 0, 0, 255, 0, 0, 0))))),
    )
    const constrained = await root.intermediate({ extra: [{ oid: oid.nameConstraints, critical: true, value: onAddresses }] })
    const address = der.encodeDer(der.sequence(der.taggedPrimitive(7, Uint8Array.of(10, 0, 0, 1))))
    const withAddress = await constrained.leaf({ uris: [], extra: [{ oid: oid.subjectAltName, critical: true, value: address }] })
    expect(() => chainOf(withAddress.certificate, [constrained])).toThrow(refusedFor('name-constraint'))
    expect(chainOf((await constrained.leaf()).certificate, [constrained])).toHaveLength(3)
  })
})

describe('critical extensions that nobody here understands', () => {
  const extra = [{ oid: '1.2.3.4', critical: true, value: der.encodeDer(der.nullValue) }]
  test('in the leaf', async () => {
    const { certificate } = await middle.leaf({ extra })
    expect(() => chainOf(certificate)).toThrow(refusedFor('unknown-critical'))
  })

  test('in an issuer, for example constraints on policies', async () => {
    const strange = await root.intermediate({ extra: [{ ...extra[0]!, oid: '2.5.29.36' }] })
    const { certificate } = await strange.leaf()
    expect(() => chainOf(certificate, [strange])).toThrow(refusedFor('unknown-critical'))
  })
})

describe('a path is found', () => {
  test('from leaf to root, whatever the order and whatever else is there', async () => {
    const [other, twin] = await Promise.all([TestCa.create({ at, name: 'other' }), TestCa.create({ at })])
    const deeper = await root
      .intermediate({ name: 'first', ca: {} })
      .then((first) => first.intermediate({ name: 'second' }).then((second) => ({ first, second })))
    const { certificate } = await deeper.second.leaf()
    const chain = chainOf(certificate, [deeper.first, other, twin, middle, deeper.second], [other, twin, root])
    expect(chain).toEqual([certificate, deeper.second.certificate, deeper.first.certificate, root.certificate])
  })

  test('where one of several certificates of an issuer has expired', async () => {
    const expired = (await root.leaf({ ...caAs('test intermediate', middle), notBefore: at - hours(2), notAfter: at - hours(1) }))
      .certificate
    expect(chainOf(leaf.certificate, [expired, middle])).toEqual([leaf.certificate, middle.certificate, root.certificate])
    expect(() => chainOf(leaf.certificate, [expired])).toThrow(refusedFor('expired'))
  })

  test('to a root that is not self-signed, trusted by its bytes', () => {
    expect(chainOf(leaf.certificate, [], [middle])).toEqual([leaf.certificate, middle.certificate])
    expect(chainOf(leaf.certificate, [middle], [middle, root])).toEqual([leaf.certificate, middle.certificate])
  })

  test('to a root that comes among the intermediates as well', () => {
    expect(chainOf(leaf.certificate, [root, middle])).toHaveLength(3)
  })

  test('over a CA that two roots have certified', async () => {
    const newRoot = await TestCa.create({ at, name: 'new root' })
    const crossed = (await newRoot.leaf({ ...caAs('test intermediate', middle), ca: { pathLength: 0 } })).certificate
    expect(chainOf(leaf.certificate, [middle, crossed], [newRoot])).toEqual([leaf.certificate, crossed, newRoot.certificate])
  })

  test('between keys of different types', async () => {
    const rsa = await TestCa.create({ at, keyType: 'rsa-2048' })
    const p384 = await rsa.intermediate({ keyType: 'ec-p384' })
    const { certificate } = await p384.leaf()
    expect(chainOf(certificate, [p384], [rsa])).toHaveLength(3)
  })
})

describe('several ways up', () => {
  const crossed = (by: TestCa, name: string, ca: TestCa, wishes: Wishes = {}) =>
    by.leaf({ ...caAs(name, ca), notAfter: at + hours(2), ...wishes }).then(({ certificate }) => certificate)

  test('three roots of one name: the one that signed is found, with key identifiers and without', async () => {
    const twins = [await TestCa.create({ at }), await TestCa.create({ at }), root]
    expect(chainOf(leaf.certificate, [middle], twins).at(-1)).toBe(root.certificate)
    const { certificate } = await root.leaf({ without: [oid.authorityKeyIdentifier] })
    expect(chainOf(certificate, [], twins)).toEqual([certificate, root.certificate])
  })

  test('a root that was renewed with its key: the certificate that is still valid', async () => {
    const old = (await root.leaf({ ...caAs('test root', root), notBefore: at - hours(9), notAfter: at - hours(8) })).certificate
    expect(chainOf(leaf.certificate, [middle], [old, root]).at(-1)).toBe(root.certificate)
    expect(() => chainOf(leaf.certificate, [middle], [old])).toThrow(refusedFor('expired'))
  })

  test.each<[string, Wishes, string]>([
    ['R-44 may not certify the name', { nameConstraints: { critical: true, excludedUris: ['example.org'] } }, 'name-constraint'],
    ['X-13 allows no CA below', { ca: { pathLength: 0 } }, 'path-too-long'],
    ['R-13 may not sign certificates', { keyUsage: ['cRLSign'] }, 'may-not-sign'],
    ['X-21 has expired', { notBefore: at - hours(2), notAfter: at - hours(1) }, 'expired'],
  ])('where the first %s, the second is taken', async (_, flaw, reason) => {
    const policyCa = await root.intermediate({ name: 'policy', ca: {} })
    const below = await policyCa.intermediate({ name: 'below' })
    const { certificate } = await below.leaf()
    const bad = await crossed(root, 'policy', policyCa, flaw)
    expect(chainOf(certificate, [bad, below, policyCa])).toEqual([certificate, below.certificate, policyCa.certificate, root.certificate])
    expect(() => chainOf(certificate, [bad, below])).toThrow(refusedFor(reason))
  })

  test('over two bridges: CAs that certified each other, one of which a root knows', async () => {
    const [a, b, anchor] = await Promise.all(['a', 'b', 'anchor'].map((name) => TestCa.create({ at, name })))
    const mesh = [await crossed(a!, 'b', b!), await crossed(b!, 'a', a!), await crossed(anchor!, 'b', b!)]
    const { certificate } = await a!.leaf()
    expect(chainOf(certificate, mesh, [anchor!])).toEqual([certificate, mesh[1], mesh[2], anchor!.certificate])
  })

  test('R-29 a mesh of CAs of one name in which everybody signed everybody ends after few signatures, and soon', async () => {
    const mesh = await Promise.all(Array.from({ length: 4 }, () => TestCa.create({ at, name: 'mesh' })))
    const pairs = mesh.flatMap((by) => mesh.filter((ca) => ca !== by).map((ca) => ({ by, ca })))
    const certificates = await Promise.all(pairs.map(({ by, ca }) => crossed(by, 'mesh', ca)))
    const { certificate } = await mesh[0]!.leaf()
    const before = process.cpuUsage()
    expect(() => chainOf(certificate, certificates)).toThrow(refusedFor('too-many-certificates'))
    const { user, system } = process.cpuUsage(before)
    expect((user + system) / 1000).toBeLessThan(50)
    const entry = await crossed(root, 'mesh', mesh[3]!)
    expect(chainOf(certificate, [...certificates, entry]).at(-1)).toBe(root.certificate)
  })
})

const openssl = spawnSync('openssl', ['version'])
const noOpenssl = openssl.status === 0 ? '' : ' (skipped: needs the program `openssl`)'

describe.skipIf(noOpenssl !== '')(`openssl verify says the same${noOpenssl}`, () => {
  const cases: readonly [string, boolean, () => Promise<{ chain: TestCa; wishes?: Wishes }>][] = [
    ['a good chain', true, async () => ({ chain: await root.intermediate() })],
    ['an issuer that is no CA', false, async () => ({ chain: await root.intermediate({ ca: false }) })],
    ['an issuer that may not sign', false, async () => ({ chain: await root.intermediate({ keyUsage: ['cRLSign'] }) })],
    ['an expired issuer', false, async () => ({ chain: await root.intermediate({ notAfter: at - 1000 }) })],
    [
      'an unknown critical extension',
      false,
      async () => ({ chain: await root.intermediate({ extra: [{ oid: '1.2.3.4', critical: true, value: Uint8Array.of(5, 0) }] }) }),
    ],
    [
      'a permitted URI',
      true,
      async () => ({ chain: await root.intermediate({ nameConstraints: { critical: true, permittedUris: ['example.org'] } }) }),
    ],
    [
      'a URI that is not permitted',
      false,
      async () => ({ chain: await root.intermediate({ nameConstraints: { critical: true, permittedUris: ['example.com'] } }) }),
    ],
    [
      'a URI below the permitted host',
      false,
      async () => ({ chain: await root.intermediate({ nameConstraints: { critical: true, permittedUris: ['org'] } }) }),
    ],
    [
      'an excluded DNS name',
      false,
      async () => ({
        chain: await root.intermediate({ nameConstraints: { critical: true, excludedDns: ['a.test'] } }),
        wishes: { dnsNames: ['x.a.test'] },
      }),
    ],
  ]
  test.each(cases)('of %s', async (_, good, make) => {
    const { chain, wishes } = await make()
    const { certificate } = await chain.leaf({ notAfter: at + hours(1), ...wishes })
    expect(verifiedByOpenssl(certificate, [chain.certificate], [root.certificate])).toBe(good)
    expect(accepted(() => chainOf(certificate, [chain]))).toBe(good)
  })
})

function accepted(deed: () => unknown): boolean {
  try {
    deed()
    return true
  } catch {
    return false
  }
}

function verifiedByOpenssl(subject: Certificate, intermediates: readonly Certificate[], roots: readonly Certificate[]): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'chain-'))
  const file = (name: string, list: readonly Certificate[]) => {
    const path = join(folder, name)
    writeFileSync(path, list.map(({ raw }) => formatPem('CERTIFICATE', raw)).join(''))
    return path
  }
  try {
    const args = [
      'verify',
      '-attime',
      `${at / 1000}`,
      '-CAfile',
      file('roots', roots),
      '-untrusted',
      file('middle', intermediates),
      file('leaf', [subject]),
    ]
    return spawnSync('openssl', args, { timeout: 20_000 }).status === 0
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** What makes a certificate for the key of `ca` under the name `name`. */
function caAs(name: string, ca: TestCa): Wishes {
  return {
    ca: {},
    subject: [{ oid: oid.commonName, value: name }],
    spki: ca.signer.publicKey,
    keyUsage: ['keyCertSign', 'cRLSign'],
    extKeyUsage: [],
    uris: ['spiffe://example.org'],
  }
}

test('a certificate read from bytes is as good as the one that was made', () => {
  expect(
    chainOf(parseCertificate(leaf.certificate.raw), [parseCertificate(middle.certificate.raw)], [parseCertificate(root.certificate.raw)]),
  ).toHaveLength(3)
})
