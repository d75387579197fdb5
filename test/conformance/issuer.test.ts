import 'reflect-metadata'
import { createPublicKey, verify as verifySignature, type webcrypto, X509Certificate } from 'node:crypto'
import { Crypto } from '@peculiar/webcrypto'
import * as x509 from '@peculiar/x509'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type AgentProgram, eventually, idOf, Installation, runVidimus, type ServerProgram } from '../support/programs.ts'
import { bytesOf, field, isMessage, joined, type Message, messagesOf, textOf, Wire, type WireCall } from '../../src/conformance/wire.ts'

x509.cryptoProvider.set(new Crypto())

let installation: Installation
let server: ServerProgram
let agent: AgentProgram
/** Of the bundle. */
let root: x509.X509Certificate
let leaf: x509.X509Certificate
let token: string
let document: BundleDocument

interface BundleDocument {
  readonly spiffe_sequence: number
  readonly spiffe_refresh_hint: number
  readonly keys: readonly (webcrypto.JsonWebKey & { readonly use?: string; readonly kid?: string; readonly x5c?: readonly string[] })[]
}

const web = idOf('/web')
const me = `unix:uid:${process.getuid!()}`

beforeAll(async () => {
  installation = await Installation.open()
  server = await installation.server()
  agent = await installation.agent(server, { syncInterval: '200ms' })
  await server.entries(await agent.spiffeId(), { spiffeId: web, selectors: [me], dnsNames: ['web.example.org'] })
  await using wire = new Wire({ path: agent.socket })
  await eventually('the agent served the entry', async () => isMessage(await wire.call('/SpiffeWorkloadAPI/FetchX509SVID').next(soon())))
  const [svid] = messagesOf(await messageOf(wire.call('/SpiffeWorkloadAPI/FetchX509SVID')), 1)
  leaf = new x509.X509Certificate(Buffer.from(bytesOf(svid!, 2)))
  root = new x509.X509Certificate(Buffer.from(bytesOf(svid!, 4)))
  const [jwt] = messagesOf(await messageOf(wire.call('/SpiffeWorkloadAPI/FetchJWTSVID', field(1, 'db'))), 1)
  token = textOf(jwt!, 2)
  document = JSON.parse(await runVidimus('bundle', 'show', '--format', 'spiffe', '--server-socket', server.adminSocket)) as BundleDocument
}, 90_000)

afterAll(() => installation[Symbol.asyncDispose](), 60_000)

const uris = (certificate: x509.X509Certificate) =>
  certificate.getExtension(x509.SubjectAlternativeNameExtension)!.names.items.filter(({ type }) => type === 'url')
const keyUsage = (certificate: x509.X509Certificate) => certificate.getExtension(x509.KeyUsagesExtension)!
const { digitalSignature, keyCertSign, cRLSign } = x509.KeyUsageFlags
const decoded = (part: number) => JSON.parse(Buffer.from(token.split('.')[part]!, 'base64url').toString()) as Record<string, unknown>

describe('an X509-SVID of a workload', () => {
  test('X-1 X-24 X-4 X-25 names one SPIFFE ID, with a path, and no other URI', () => {
    expect(uris(leaf).map(({ value }) => value)).toEqual([web])
  })

  test('X-3 names the DNS names of its entry besides', () => {
    const names = leaf.getExtension(x509.SubjectAlternativeNameExtension)!.names.items
    expect(names.filter(({ type }) => type === 'dns').map(({ value }) => value)).toEqual(['web.example.org'])
  })

  test('X-5 has a critical subject alternative name when it has no subject', () => {
    const { critical } = leaf.getExtension(x509.SubjectAlternativeNameExtension)!
    expect(critical || leaf.subject !== '').toBe(true)
  })

  test('X-12 X-22 is no CA', () => {
    expect(leaf.getExtension(x509.BasicConstraintsExtension)?.ca ?? false).toBe(false)
  })

  test('X-15 X-17 X-18 X-23 has a critical key usage: it signs data, and neither certificates nor revocation lists', () => {
    const { critical, usages } = keyUsage(leaf)
    expect(critical).toBe(true)
    expect(usages & digitalSignature).toBeTruthy()
    expect(usages & (keyCertSign | cRLSign)).toBe(0)
  })

  test('X-19 X-20 is for servers and for clients', () => {
    const usages = leaf.getExtension(x509.ExtendedKeyUsageExtension)!.usages
    expect(usages).toEqual(expect.arrayContaining([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]))
  })

  test('X-21 ID-24 is signed by the authority of its trust domain, within its lifetime', async () => {
    expect(await leaf.verify({ publicKey: root.publicKey })).toBe(true)
    expect(leaf.issuer).toBe(root.subject)
    expect(leaf.notAfter.getTime()).toBeLessThanOrEqual(root.notAfter.getTime())
  })

  test('ID-17 is at most 2048 bytes of SPIFFE ID, and lives an hour', () => {
    expect(Buffer.byteLength(uris(leaf)[0]!.value)).toBeLessThanOrEqual(2048)
    expect(leaf.notAfter.getTime() - Date.now()).toBeLessThanOrEqual(3_600_000)
  })
})

describe('the signing certificate', () => {
  test('X-6 X-7 X-8 ID-20 ID-21 is an SVID of the trust domain, without a path', () => {
    expect(uris(root).map(({ value }) => value)).toEqual(['spiffe://example.org'])
  })

  test('X-11 X-15 X-16 is a CA that signs certificates, and says so critically', () => {
    expect(root.getExtension(x509.BasicConstraintsExtension)).toMatchObject({ ca: true, critical: true })
    expect(keyUsage(root).critical).toBe(true)
    expect(keyUsage(root).usages & keyCertSign).toBeTruthy()
  })

  test('X-10 is not for authentication', () => {
    expect(root.getExtension(x509.ExtendedKeyUsageExtension)).toBeNull()
    expect(keyUsage(root).usages & digitalSignature).toBe(0)
  })
})

describe('the bundle document', () => {
  const keysFor = (use: string) => document.keys.filter((key) => key.use === use)

  test('B-2 B-3 B-4 has a sequence, a refresh hint in seconds, and keys', () => {
    expect(document.spiffe_sequence).toBeGreaterThan(0)
    expect(document.spiffe_refresh_hint).toBe(300)
    expect(Number.isInteger(document.spiffe_sequence) && document.keys.length >= 2).toBe(true)
  })

  test('B-7 B-9 every key says what it is for, and nothing that is not defined', () => {
    for (const key of document.keys) {
      expect(['x509-svid', 'jwt-svid']).toContain(key.use)
      for (const name of Object.keys(key)) expect(['kty', 'use', 'kid', 'alg', 'crv', 'x', 'y', 'n', 'e', 'x5c']).toContain(name)
    }
  })

  test('X-26 X-27 X-28 X-29 X.509 authorities are one self-signed certificate each, without a key id', () => {
    for (const key of keysFor('x509-svid')) {
      expect(key).not.toHaveProperty('kid')
      expect(key.x5c).toHaveLength(1)
      const certificate = new X509Certificate(Buffer.from(key.x5c![0]!, 'base64'))
      expect(certificate.verify(certificate.publicKey)).toBe(true)
      expect(certificate.publicKey.equals(createPublicKey({ key, format: 'jwk' }))).toBe(true)
    }
    expect(keysFor('x509-svid').map((key) => key.x5c?.[0])).toEqual([Buffer.from(root.rawData).toString('base64')])
  })

  test('J-15 J-16 JWT authorities have a key id, each its own, and no private part', () => {
    const kids = keysFor('jwt-svid').map(({ kid }) => kid)
    expect(kids.every((kid) => typeof kid === 'string' && kid !== '')).toBe(true)
    expect(new Set(kids).size).toBe(kids.length)
    for (const key of document.keys) expect(key).not.toHaveProperty('d')
  })
})

describe('a JWT-SVID', () => {
  test('J-1 J-2 J-3 is a compact JWS', () => {
    expect(token).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/)
  })

  test('J-4 J-5 J-7 has alg, kid and typ in its header, and nothing else', () => {
    expect(Object.keys(decoded(0)).toSorted()).toEqual(['alg', 'kid', 'typ'])
    expect(['RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512']).toContain(decoded(0)['alg'])
    expect(decoded(0)['typ']).toBe('JWT')
  })

  test('J-8 J-9 J-11 says who, for whom and until when', () => {
    const { sub, aud, exp } = decoded(1)
    expect(sub).toBe(web)
    expect([aud].flat()).toEqual(['db'])
    const left = (exp as number) - Date.now() / 1000
    expect(left).toBeGreaterThan(0)
    expect(left).toBeLessThanOrEqual(300)
  })

  test('ID-22 is signed by a key of the bundle', () => {
    const key = document.keys.find(({ kid, use }) => use === 'jwt-svid' && kid === decoded(0)['kid'])!
    const [header, claims, signature] = token.split('.')
    const publicKey = createPublicKey({ key, format: 'jwk' })
    const signed = Buffer.from(`${header}.${claims}`)
    expect(verifySignature('sha256', signed, { key: publicKey, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature!, 'base64url'))).toBe(
      true,
    )
  })
})

describe('an entry whose SPIFFE ID is', () => {
  const selector = joined(field(1, 'unix'), field(2, 'uid:1'))
  /** The status code of BatchCreateEntry's only result. */
  async function creating(domain: string, path: string): Promise<number> {
    await using wire = new Wire({ path: server.adminSocket })
    const id = (td: string, rest: string) => joined(field(1, td), field(2, rest))
    const entry = joined(field(2, id(domain, path)), field(3, id('example.org', '/node')), field(4, selector))
    const answer = await messageOf(wire.call('/spire.api.server.entry.v1.Entry/BatchCreateEntry', field(1, entry), {}))
    const [result] = messagesOf(answer, 1)
    return Number(messagesOf(result!, 1)[0]?.get(1)?.[0] ?? 0n)
  }

  test.each([
    ['ID-2 without a trust domain', '', '/a'],
    ['ID-24 of another trust domain', 'other.test', '/a'],
    ['ID-8 ID-19 in capitals', 'EXAMPLE.org', '/a'],
    ['ID-7 with a port', 'example.org:443', '/a'],
    ['ID-6 with a user', 'me@example.org', '/a'],
    ['ID-10 percent-encoded in the trust domain', 'example%2eorg', '/a'],
    ['ID-3 with a query', 'example.org', '/a?b'],
    ['ID-4 with a fragment', 'example.org', '/a#b'],
    ['ID-12 percent-encoded in the path', 'example.org', '/a%2fb'],
    ['ID-13 with an empty segment', 'example.org', '/a//b'],
    ['ID-13 with a dot segment', 'example.org', '/a/./b'],
    ['ID-13 with two dots', 'example.org', '/a/../b'],
    ['ID-14 with a slash at its end', 'example.org', '/a/'],
    ['ID-15 with a letter that is not allowed', 'example.org', '/ä'],
    ['ID-15 with a zero byte', 'example.org', '/a\0b'],
    ['X-4 without a path', 'example.org', ''],
    ['ID-17 longer than 2048 bytes', 'example.org', `/${'a'.repeat(2048)}`],
  ])('%s is refused', async (_what, domain, path) => {
    expect(await creating(domain, path)).toBe(3)
  })

  test('ID-16 2048 bytes long is accepted, and ID-15 with every letter that is allowed', async () => {
    const longest = `/${'a'.repeat(2048 - 'spiffe://example.org/'.length)}`
    expect(await creating('example.org', longest)).toBe(0)
    expect(await creating('example.org', '/azAZ09.-_/...')).toBe(0)
  })
})

const soon = () => AbortSignal.timeout(10_000)

async function messageOf(call: WireCall): Promise<Message> {
  const next = await call.next(soon())
  if (isMessage(next)) return next
  throw new Error(`the call ended: ${JSON.stringify(next)}`)
}
