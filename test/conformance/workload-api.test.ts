import { createPrivateKey, generateKeyPairSync, sign, X509Certificate } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { RegistrationEntry } from '../../src/registry/entry.ts'
import { type AgentProgram, eventually, idOf, Installation, type ServerProgram } from '../support/programs.ts'
import { bytesOf, field, mapOf, type Message, messagesOf, structOf, textOf, Wire } from './wire.ts'

const service = '/SpiffeWorkloadAPI'
const fetchX509 = `${service}/FetchX509SVID`
const fetchX509Bundles = `${service}/FetchX509Bundles`
const fetchJwt = `${service}/FetchJWTSVID`
const fetchJwtBundles = `${service}/FetchJWTBundles`
const validateJwt = `${service}/ValidateJWTSVID`
const [invalidArgument, permissionDenied, unimplemented] = [3, 7, 12]
const me = `unix:uid:${process.getuid!()}`

let installation: Installation
let server: ServerProgram
let agent: AgentProgram
let wire: Wire

beforeAll(async () => {
  installation = await Installation.open()
  server = await installation.server()
  agent = await installation.agent(server, { syncInterval: '200ms' })
  wire = new Wire(agent.socket)
}, 60_000)

afterAll(async () => {
  await wire[Symbol.asyncDispose]()
  await installation[Symbol.asyncDispose]()
}, 60_000)

const methods: readonly (readonly [method: string, request: Buffer])[] = [
  [fetchX509, Buffer.alloc(0)],
  [fetchX509Bundles, Buffer.alloc(0)],
  [fetchJwt, field(1, 'db')],
  [fetchJwtBundles, Buffer.alloc(0)],
  [validateJwt, Buffer.concat([field(1, 'db'), field(2, 'x.y.z')])],
]

describe('the endpoint', () => {
  test('EP-3 is a Unix socket that every user may open', async () => {
    const socket = await stat(agent.socket)
    expect(socket.isSocket()).toBe(true)
    expect(socket.mode & 0o777).toBe(0o666)
  })

  describe.each(methods)('EP-4 EP-5 %s', (method, request) => {
    test.each<[string, Record<string, string | string[]>]>([
      ['without the header', {}],
      ['with `True`', { 'workload.spiffe.io': 'True' }],
      ['with `TRUE`', { 'workload.spiffe.io': 'TRUE' }],
      ['with `1`', { 'workload.spiffe.io': '1' }],
      ['with nothing in it', { 'workload.spiffe.io': '' }],
      ['with `false`', { 'workload.spiffe.io': 'false' }],
      ['with the value twice', { 'workload.spiffe.io': ['true', 'true'] }],
      ['with the value twice in one', { 'workload.spiffe.io': 'true, true' }],
      ['with another header', { 'broker.spiffe.io': 'true' }],
    ])('is an invalid argument %s', async (_what, headers) => {
      expect(await wire.call(method, request, headers).ended()).toMatchObject({ status: invalidArgument })
    })
  })

  test.each([
    ['API-23 FetchWITSVID', `${service}/FetchWITSVID`],
    ['API-23 FetchWITBundles', `${service}/FetchWITBundles`],
    ['a method that there is not', `${service}/Surprise`],
    ['a service that there is not', '/spiffe.broker.API/FetchX509SVID'],
  ])('EP-15 %s is unimplemented', async (_what, method) => {
    expect(await wire.call(method).ended()).toMatchObject({ status: unimplemented })
  })
})

describe('a workload without identity', () => {
  test.each(methods)('EP-14 API-15 %s is denied, and the refusal says no more than that', async (method, request) => {
    expect(await wire.call(method, request).ended()).toEqual({ status: permissionDenied, text: 'no identity issued' })
  })
})

describe('a workload with identities', () => {
  const ids = ['/one', '/two', '/three', '/four'].map(idOf)
  let entries: readonly RegistrationEntry[]
  const svids = async (): Promise<Message[]> => {
    const call = wire.call(fetchX509)
    const message = await call.message()
    call.cancel()
    return messagesOf(message, 1)
  }
  const x509Bundle = async () => {
    const call = wire.call(fetchX509Bundles)
    const bundles = mapOf(await call.message(), 2)
    call.cancel()
    return bundles
  }
  const tokens = async (...fields: readonly Buffer[]) => messagesOf(await wire.call(fetchJwt, Buffer.concat(fields)).message(), 1)
  const validated = (audience: string, token: string) => wire.call(validateJwt, Buffer.concat([field(1, audience), field(2, token)]))

  beforeAll(async () => {
    const parent = await agent.spiffeId()
    const [one, ...rest] = ids.map((spiffeId, index) => ({ spiffeId, selectors: [me], hint: ['', 'main', 'main', 'other'][index]! }))
    const first = await server.entries(parent, one!)
    // The wire tells agents the second in which an entry was made: of two in one second, none is the older.
    await eventually('the next second began', () => Math.floor(Date.now() / 1000) > Math.floor(first[0]!.createdAt / 1000))
    entries = [...first, ...(await server.entries(parent, ...rest))]
    await eventually('the agent served every identity', async () => {
      const next = await wire.call(fetchX509).next()
      return next instanceof Map && messagesOf(next, 1).length === ids.length
    })
  }, 30_000)

  test('API-5 the first answer comes at once', async () => {
    const call = wire.call(fetchX509)
    await call.message(1000)
    call.cancel()
  })

  test('API-12 every field is there', async () => {
    for (const svid of await svids()) {
      expect(textOf(svid, 1)).toMatch(/^spiffe:\/\/example\.org\/./)
      for (const number of [2, 3, 4]) expect(bytesOf(svid, number).length).toBeGreaterThan(0)
    }
  })

  test('API-13 the chain is concatenated DER, leaf first; the key is plain PKCS #8 and the leaf’s', async () => {
    for (const svid of await svids()) {
      const [leaf, ...issuers] = certificatesIn(bytesOf(svid, 2))
      expect(leaf!.subjectAltName).toBe(`URI:${textOf(svid, 1)}`)
      expect(leaf!.checkPrivateKey(createPrivateKey({ key: bytesOf(svid, 3), format: 'der', type: 'pkcs8' }))).toBe(true)
      const roots = certificatesIn(bytesOf(svid, 4))
      expect([...issuers, ...roots].some((issuer) => leaf!.verify(issuer.publicKey))).toBe(true)
    }
  })

  test('API-14 no hint is given twice', async () => {
    const told = (await svids()).map((svid) => `${textOf(svid, 1)} ${textOf(svid, 5)}`.trim())
    const hints = told.flatMap((text) => text.split(' ')[1] ?? [])
    expect(hints.toSorted()).toEqual(['main', 'other'])
    const jwtHints = (await tokens(field(1, 'db'))).map((svid) => textOf(svid, 3)).filter((hint) => hint !== '')
    expect(jwtHints.toSorted()).toEqual(['main', 'other'])
  })

  test('API-26 the default identity is the one that was registered first, whenever one asks', async () => {
    for (let asked = 0; asked < 3; asked++) expect(textOf((await svids())[0]!, 1)).toBe(ids[0])
    expect(textOf((await tokens(field(1, 'db')))[0]!, 1)).toBe(ids[0])
  })

  test('API-17 X.509 bundles hold that of our own trust domain, the one that verifies our SVIDs', async () => {
    const bundles = await x509Bundle()
    expect([...bundles.keys()]).toEqual(['spiffe://example.org'])
    expect(bundles.get('spiffe://example.org')).toEqual(bytesOf((await svids())[0]!, 4))
  })

  test('API-19 JWT bundles are JWK sets of our own trust domain, with keys for tokens only', async () => {
    const call = wire.call(fetchJwtBundles)
    const bundles = mapOf(await call.message(), 1)
    call.cancel()
    expect([...bundles.keys()]).toEqual(['spiffe://example.org'])
    const { keys } = JSON.parse(bundles.get('spiffe://example.org')!.toString()) as { keys: Record<string, unknown>[] }
    expect(keys.length).toBeGreaterThan(0)
    for (const key of keys) {
      expect(key).toMatchObject({ kid: expect.any(String) as string, kty: expect.any(String) as string })
      expect([undefined, 'jwt-svid']).toContain(key['use'])
      expect(key).not.toHaveProperty('x5c')
    }
  })

  describe('API-9 an argument that must be there', () => {
    test.each([
      ['no audience', fetchJwt, Buffer.alloc(0)],
      ['an empty audience', fetchJwt, field(1, '')],
      ['a SPIFFE ID that is none', fetchJwt, Buffer.concat([field(1, 'db'), field(2, 'https://example.org/one')])],
      ['a token without an audience', validateJwt, field(2, 'x.y.z')],
      ['an audience without a token', validateJwt, field(1, 'db')],
    ])('%s', async (_what, method, request) => {
      expect(await wire.call(method, request).ended()).toMatchObject({ status: invalidArgument })
    })
  })

  test('API-18 tokens come for every identity, with the audience that was asked for', async () => {
    const found = await tokens(field(1, 'db'), field(1, 'mail'))
    expect(found.map((svid) => textOf(svid, 1))).toEqual((await svids()).map((svid) => textOf(svid, 1)))
    for (const svid of found) expect(claimsOf(textOf(svid, 2))).toMatchObject({ sub: textOf(svid, 1), aud: ['db', 'mail'] })
  })

  test('API-18 a token comes for the identity that was asked for, and for no other', async () => {
    const found = await tokens(field(1, 'db'), field(2, ids[1]!))
    expect(found.map((svid) => textOf(svid, 1))).toEqual([ids[1]])
    for (const other of [idOf('/admin'), 'spiffe://other.test/one']) {
      expect(await wire.call(fetchJwt, Buffer.concat([field(1, 'db'), field(2, other)])).ended()).toMatchObject({
        status: permissionDenied,
      })
    }
  })

  describe('API-20 validation', () => {
    test('tells identity and claims of a good token', async () => {
      const token = textOf((await tokens(field(1, 'db')))[0]!, 2)
      const answer = await validated('db', token).message()
      expect(textOf(answer, 1)).toBe(ids[0])
      expect([...structOf(decodeField(answer, 2)).keys()]).toEqual(expect.arrayContaining(['sub', 'aud', 'exp']))
    })

    test.each<[string, (token: string) => string]>([
      ['J-9 another audience', (token) => token],
      ['a changed signature', (token) => `${token.slice(0, -4)}${token.endsWith('AAAA') ? 'BBBB' : 'AAAA'}`],
      ['changed claims', (token) => withClaims(token, { sub: idOf('/admin') })],
      ['J-5 no algorithm', (token) => withHeader(token, { alg: 'none' })],
      ['J-5 an algorithm for shared secrets', (token) => withHeader(token, { alg: 'HS256' })],
      ['API-22 another trust domain', () => forged('spiffe://other.test/one')],
      ['a key that nobody published', () => forged(idOf('/one'))],
      ['something that is no token', () => 'x.y.z'],
      ['J-1 the JSON serialization', (token) => JSON.stringify({ payload: token.split('.')[1], signatures: [] })],
    ])('refuses %s', async (what, change) => {
      const token = textOf((await tokens(field(1, 'db')))[0]!, 2)
      const audience = what.startsWith('J-9') ? 'mail' : 'db'
      expect(await validated(audience, change(token)).ended()).toMatchObject({ status: invalidArgument })
    })
  })

  test('API-4 T-4 each message tells everything, and a stream whose last identity is gone ends with PermissionDenied', async () => {
    const [stream, bundles] = [wire.call(fetchX509), wire.call(fetchX509Bundles)]
    const before = messagesOf(await stream.message(), 1).map((svid) => textOf(svid, 1))
    await bundles.message()
    const [added] = await server.entries(await agent.spiffeId(), { spiffeId: idOf('/five'), selectors: [me] })
    const after = messagesOf(await stream.message(), 1).map((svid) => textOf(svid, 1))
    expect(after.toSorted()).toEqual([...before, idOf('/five')].toSorted())
    await server.removeEntries([added!.id])
    expect(messagesOf(await stream.message(), 1).map((svid) => textOf(svid, 1))).toEqual(before)
    await server.removeEntries(entries.map(({ id }) => id))
    expect(await stream.ended()).toEqual({ status: permissionDenied, text: 'no identity issued' })
    expect(await bundles.ended()).toMatchObject({ status: permissionDenied })
    expect(await wire.call(fetchJwt, field(1, 'db')).ended()).toMatchObject({ status: permissionDenied })
  }, 20_000)
})

/** DER certificates that follow one another. */
function certificatesIn(der: Buffer): X509Certificate[] {
  const found: X509Certificate[] = []
  for (let at = 0; at < der.length;) {
    // A certificate is a SEQUENCE whose length takes two octets: 30 82 hh ll.
    expect(der.readUInt16BE(at)).toBe(0x3082)
    const length = 4 + der.readUInt16BE(at + 2)
    found.push(new X509Certificate(der.subarray(at, at + length)))
    at += length
  }
  return found
}

const decodeField = (message: Message, number: number): Message => messagesOf(message, number)[0]!
const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
const claimsOf = (token: string): Record<string, unknown> =>
  JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as Record<string, unknown>

function withClaims(token: string, changes: object): string {
  const [header, , signature] = token.split('.')
  return [header, part({ ...claimsOf(token), ...changes }), signature].join('.')
}

function withHeader(token: string, changes: object): string {
  const [header, claims] = token.split('.')
  const read = JSON.parse(Buffer.from(header!, 'base64url').toString()) as object
  return [part({ ...read, ...changes }), claims, ''].join('.')
}

/** A well-formed token, signed by a key of our own making. */
function forged(sub: string): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const signed = `${part({ alg: 'ES256', kid: 'mine', typ: 'JWT' })}.${part({ sub, aud: ['db'], exp: Math.floor(Date.now() / 1000) + 300 })}`
  return `${signed}.${sign('sha256', Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}
