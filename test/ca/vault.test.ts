import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { openTrail, type AuditTrail } from '../../src/audit/trail.ts'
import { authorityRequest } from '../../src/ca/issuance.ts'
import { checked, type MintRequest } from '../../src/ca/upstream-authority.ts'
import { memory } from '../../src/ca/keys/memory.ts'
import { vault } from '../../src/ca/upstream/vault.ts'
import { caMetrics } from '../../src/ca/metrics.ts'
import { healthOf } from '../../src/ca/vault/health.ts'
import { openVaultSession } from '../../src/ca/vault/session.ts'
import { vaultSettings } from '../../src/ca/vault/settings.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { Failure, tellChain } from '../../src/kernel/failure.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { generateKeyPair } from '../../src/x509/key-type.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { signerOf, type Signer } from '../../src/x509/signature.ts'
import { parseCertificateRequest } from '../../src/x509/certificate-request.ts'
import { z } from 'zod'
import { FakeClock } from '../fakes/clock.ts'
import { TestCa } from '../support/test-ca.ts'
import { FakeVault, pem, refusing, type Misbehaviour } from './fake-vault.ts'
import { FakeJournal } from '../fakes/journal.ts'
import { never, openTestAuthority, provenKey, testWorld, trustDomain, workload, type TestWorld } from './support.ts'

// Before node-vault is loaded: it would then write what it sends to standard error, the token among it (V-15).
process.env['DEBUG'] = '*'
process.env['VAULT_TOKEN'] = 'a-token-of-the-environment'
process.env['VAULT_NAMESPACE'] = 'a-namespace-of-the-environment'
process.env['VAULT_PREFIX'] = '/a-prefix-of-the-environment'
process.env['VAULT_SKIP_VERIFY'] = 'true'
process.env['HTTP_PROXY'] = process.env['http_proxy'] = 'http://127.0.0.1:1'

const clock = new FakeClock()
let server: FakeVault
let key: Signer

beforeAll(async () => {
  server = await FakeVault.open(clock.now())
  key = signerOf((await generateKeyPair('ec-p256')).privateKey)
})
afterAll(async () => {
  for (const name of ['DEBUG', 'VAULT_TOKEN', 'VAULT_NAMESPACE', 'VAULT_PREFIX', 'VAULT_SKIP_VERIFY', 'HTTP_PROXY', 'http_proxy'])
    delete process.env[name]
  await server[Symbol.asyncDispose]()
})
afterEach(() => {
  server.asked.length = 0
  server.misbehaves = []
  server.wishes = {}
  server.tells = plainly
  server.issuer = undefined
  server.besideIssuer = []
  server.lacks = []
  server.besides.length = 0
})

let plainly: FakeVault['tells']
beforeAll(() => {
  plainly = server.tells
})

const request = (changes: Partial<MintRequest> = {}): MintRequest => ({
  trustDomain,
  publicKey: key.publicKey,
  lifetime: hours(24),
  leastLifetime: hours(2),
  pathLength: 0,
  csr: () => authorityRequest({ key, trustDomain, serial: Uint8Array.of(0x41, 1) }),
  certify: () => Promise.reject(new Error('bug: not asked for')),
  ...changes,
})

async function open(settings: object = {}, world: TestWorld = testWorld({ clock }), audit?: AuditTrail) {
  const config = vault.config.parse({ address: server.address, auth: { method: 'token', token: { env: server.token } }, ...settings })
  return checked(await vault.open(config, world), { ...world, ...(audit && { audit }) })
}

/** Mints, and moves the clock whenever the driver waits for its next try. What is refused must have left its reason, a metric and an event. */
async function mint(
  changes: Partial<MintRequest> = {},
  settings: object = {},
  world: TestWorld = testWorld({ clock: new FakeClock(clock.now()) }),
) {
  const recorded: string[] = []
  const sink = { append: async (lines: readonly string[]) => void recorded.push(...lines), async [Symbol.asyncDispose]() {} }
  await using audit = await openTrail(sink, world)
  await using upstream = await open(settings, world, audit)
  return await moving(world.clock, upstream.mint(request(changes), never)).catch((error: unknown) => {
    // Whatever is refused is so with a reason code, a metric and an event.
    const { reason } = Failure.from(error)
    expect(world.meter.of(caMetrics.mintRefusals, { reason })).toBe(1)
    expect(
      recorded.filter((line) => line.includes(`"what":"upstream.refused","outcome":"refused","fields":{"reason":"${reason}"}`)),
    ).toHaveLength(1)
    throw error
  })
}

/** Moves the clock on while somebody waits for a next try, and not while they wait for an answer. */
async function moving<T>(time: FakeClock, work: Promise<T>): Promise<T> {
  let done = false
  work.finally(() => (done = true)).catch(() => {})
  for (let turns = 0; !done; turns++) {
    if (turns > 20) await time.advance(seconds(1))
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  return work
}

describe('what is configured', () => {
  const good = { address: 'https://vault.example.test:8200', auth: { method: 'token', token: { env: 'T' } } }

  test.for([
    ['V-1 a mount with an empty segment', { mount: 'pki//int' }],
    ['V-1 a mount that climbs', { mount: 'pki/../sys' }],
    ['V-1 a mount that ends with a slash', { mount: 'pki/' }],
    ['V-1 a mount that begins with a slash', { mount: '/pki' }],
    ['V-1 a mount with an encoded slash', { mount: 'pki%2fint' }],
    ['V-1 an issuer of two segments', { issuer: 'a/b' }],
    ['V-1 an issuer that climbs', { issuer: '..' }],
    ['an address without a scheme', { address: 'vault.example.test' }],
    ['an address with a path', { address: 'https://vault.example.test/v1' }],
    ['an address with a password', { address: 'https://a:b@vault.example.test' }],
    ['a token sent in clear over the network', { address: 'http://vault.example.test:8200' }],
    ['a token written into the configuration', { auth: { method: 'token', token: 'hvs.x' } }],
    ['V-13 a call without an end', { timeout: '2h' }],
    ['an unknown key', { tls_skip_verify: true }],
  ] as const)('%s is refused', ([, changes]) => {
    expect(vault.config.safeParse({ ...good, ...changes }).success).toBe(false)
  })

  test('the example of the documentation is accepted', () => {
    expect(vault.config.safeParse(vault.example).success).toBe(true)
    expect(vault.config.safeParse({ ...good, mount: 'teams/a/pki_int', issuer: '0b9f1c2e-aaaa-bbbb-cccc-0123456789ab' }).success).toBe(true)
  })

  test('V-18 switching off the verification of the server is an alarm', async () => {
    const world = testWorld({ clock })
    await using _ = await open({ dangerouslySkipTlsVerification: true }, world)
    expect(world.log.lines.slice(0, 1)).toEqual([expect.stringMatching(/^error the certificate of the vault is not verified/)])
  })
})

describe('what is asked', () => {
  test('the default issuer of the mount, with our request and nothing that the vault would add', async () => {
    await mint()
    expect(server.asked).toHaveLength(1)
    const { method, path, headers, body } = server.asked[0]!
    expect([method, path]).toEqual(['POST', '/v1/pki/root/sign-intermediate'])
    expect(headers).toMatchObject({ 'x-vault-token': server.token })
    expect(headers).not.toHaveProperty('x-vault-namespace')
    expect(body).toMatchObject({ use_csr_values: true, common_name: '', exclude_cn_from_sans: true, ttl: '86400s', max_path_length: 0 })
  })

  test('V-3, V-16 a named issuer in a namespace', async () => {
    await mint({}, { mount: 'teams/pki', issuer: 'vidimus', namespace: 'team-a' })
    expect(server.asked[0]).toMatchObject({
      path: '/v1/teams/pki/issuer/vidimus/sign-intermediate',
      headers: { 'x-vault-namespace': 'team-a' },
    })
  })
})

describe('what is answered', () => {
  test('V-7 the chain ends below the root, and the root is announced', async () => {
    const minted = await mint()
    expect(minted.chain).toHaveLength(1)
    expect(minted.roots.map(pem)).toEqual([pem(server.root.certificate)])
    expect(minted.complaints).toEqual([])
  })

  test.for<readonly [string, FakeVault['tells']]>([
    [
      'before Vault 1.11: only issuers in the chain',
      ({ own, root }) => ({ data: { certificate: pem(own), issuing_ca: pem(root), ca_chain: [pem(root)] } }),
    ],
    ['without a chain', ({ own, root }) => ({ data: { certificate: pem(own), issuing_ca: pem(root) } })],
    ['with a chain that is null', ({ own, root }) => ({ data: { certificate: pem(own), issuing_ca: pem(root), ca_chain: null } })],
    [
      'the root first, everything twice',
      ({ own, root }) => ({ data: { certificate: pem(own), issuing_ca: pem(root), ca_chain: [pem(root), pem(own), pem(root), pem(own)] } }),
    ],
    ['several certificates in one text', ({ own, root }) => ({ data: { certificate: pem(own), ca_chain: [`${pem(own)}\n${pem(root)}`] } })],
    [
      'fields that nobody knows',
      ({ own, root }) => ({ data: { certificate: pem(own), issuing_ca: pem(root), news: { a: 1 } }, lease_id: '', auth: null }),
    ],
  ])('V-5 %s: the same authority', async ([, tells]) => {
    server.tells = tells
    const minted = await mint()
    expect(minted.chain).toHaveLength(1)
    expect(minted.roots.map(pem)).toEqual([pem(server.root.certificate)])
  })

  test('V-5 certificates of strangers are dropped', async () => {
    const stranger = await TestCa.create({ at: clock.now(), name: 'stranger' })
    server.tells = ({ own, root }) => ({
      data: { certificate: pem(own), issuing_ca: pem(root), ca_chain: [pem(stranger.certificate), pem(own), pem(root)] },
    })
    expect((await mint()).roots.map(pem)).toEqual([pem(server.root.certificate)])
  })

  test('V-19 the remarks of the vault are kept, on one line each', async () => {
    server.tells = (signed) => plainly({ ...signed, warnings: ['one\nline', ...Array.from({ length: 20 }, () => 'x'.repeat(5000))] })
    const { warnings } = await mint()
    expect(warnings[0]).toBe('one line')
    expect(warnings).toHaveLength(8)
    expect(warnings[1]).toHaveLength(300)
  })

  test.for<readonly [string, FakeVault['wishes'], string]>([
    ['that is no CA', { ca: false, keyUsage: ['digitalSignature'] }, 'upstream.not-a-ca'],
    ['that may not sign certificates', { keyUsage: ['digitalSignature'] }, 'upstream.not-a-ca'],
    ['for another trust domain', { uris: ['spiffe://other.test'] }, 'upstream.wrong-name'],
    ['for a workload', { uris: ['spiffe://example.org/workload'] }, 'upstream.wrong-name'],
    ['without a URI name', { uris: [], dnsNames: ['example.org'] }, 'upstream.wrong-name'],
    ['with a DNS name besides', { dnsNames: ['example.org'] }, 'upstream.wrong-name'],
    ['that has ended', { notAfter: new FakeClock().now() - seconds(10) }, 'upstream.no-path'],
    ['that is not valid yet', { notBefore: new FakeClock().now() + minutes(10) }, 'upstream.no-path'],
  ])('V-6 a certificate %s is refused', async ([, wishes, reason]) => {
    server.wishes = wishes
    await expect(mint()).rejects.toMatchObject({ reason })
  })

  test('V-6 a certificate for another key is refused', async () => {
    server.wishes = { spki: signerOf((await generateKeyPair('ec-p256')).privateKey).publicKey }
    await expect(mint()).rejects.toMatchObject({ reason: 'upstream.wrong-key' })
  })

  test('V-6 a path length that leaves no room is refused', async () => {
    await expect(mint({ pathLength: 0, trustDomain: parseTrustDomain('example.org') })).resolves.toBeDefined()
    server.wishes = { ca: { pathLength: 0 } }
    await expect(mint({ pathLength: 1 })).rejects.toMatchObject({ reason: 'upstream.path-length' })
  })

  test('V-4 a lifetime that was capped is told and counted; one that is too short is refused', async () => {
    server.wishes = { notAfter: clock.now() + hours(3) }
    const world = testWorld({ clock: new FakeClock(clock.now()) })
    expect((await mint({}, {}, world)).complaints).toEqual([
      'the upstream capped the lifetime of our CA: asked for 1d, got 3h999ms; the upstream limits how long we may live: raise its limit',
    ])
    expect(world.log.lines.join()).toContain('"reason":"upstream.ttl-capped"')
    expect(world.meter.of(caMetrics.ttlCapped, { cause: 'limit' })).toBe(1)
    server.tells = (signed) => plainly({ ...signed, warnings: ['TTL of "24h" is longer than permitted maxTTL'] })
    expect((await mint()).complaints[0]).toContain('; it says: TTL of "24h" is longer than permitted maxTTL')
    server.wishes = { notAfter: clock.now() + hours(2) - seconds(2) }
    await expect(mint()).rejects.toMatchObject({ reason: 'upstream.lifetime-too-short' })
  })

  test('V-4 a certificate that outlives its root counts as long as the root', async () => {
    const old = await TestCa.create({ at: clock.now(), name: 'old root', lifetime: hours(5) })
    const signing = vi.spyOn(server.root, 'leaf').mockImplementation((wishes) => old.leaf(wishes))
    server.tells = ({ own }) => plainly({ own, root: old.certificate })
    server.issuer = old.certificate
    const minted = await mint().finally(() => signing.mockRestore())
    expect(minted.until).toBe(clock.now() + hours(5) + 999)
    expect(minted.complaints).toEqual([expect.stringContaining('`CN=old root` above us ends then: renew it')])
  })

  test.for<readonly [string, FakeVault['tells']]>([
    ['nothing', () => ({})],
    ['a text', () => 'hello' as unknown as object],
    ['no certificate', () => ({ data: { issuing_ca: 'x' } })],
    ['a certificate that is none', () => ({ data: { certificate: 'x', issuing_ca: 'y' } })],
    ['a number for a chain', ({ own }) => ({ data: { certificate: pem(own), ca_chain: 7 } })],
    [
      'a private key',
      ({ own, root }) => ({ data: { certificate: pem(own), issuing_ca: pem(root).replaceAll('CERTIFICATE', 'PRIVATE KEY') } }),
    ],
  ])('V-19 an answer with %s is refused', async ([, tells]) => {
    server.tells = tells
    await expect(mint()).rejects.toMatchObject({ reason: 'upstream.malformed-answer' })
  })

  test('V-5 an answer without a root is refused with what to do', async () => {
    server.tells = ({ own }) => ({ data: { certificate: pem(own), ca_chain: [pem(own)] } })
    await expect(mint()).rejects.toMatchObject({ reason: 'upstream.no-root' })
  })

  test('V-5 a root that did not sign is refused', async () => {
    const stranger = await TestCa.create({ at: clock.now(), name: 'vault root' })
    server.tells = ({ own }) => ({ data: { certificate: pem(own), issuing_ca: pem(stranger.certificate) } })
    await expect(mint()).rejects.toMatchObject({ reason: 'upstream.no-path' })
  })

  test('V-19 an endless answer is cut off', async () => {
    const endless: Misbehaviour = (response) => {
      const more = (): void => {
        while (!response.destroyed && response.write('x'.repeat(65_536)));
        if (!response.destroyed) response.once('drain', more)
      }
      more()
    }
    server.misbehaves = [endless]
    await expect(mint()).rejects.toMatchObject({ reason: 'vault.answer-too-long' })
  })

  test('V-19 an answer that nests without end is no answer', async () => {
    server.misbehaves = [(response) => response.end(`${'{"data":'.repeat(40)}1${'}'.repeat(40)}`)]
    await expect(mint()).rejects.toMatchObject({ reason: 'upstream.malformed-answer' })
  })
})

describe('V-9 what passes is waited for, what is refused is not', () => {
  test.for([
    ['400', refusing(400, 'the CSR is bad'), 'vault.bad-request'],
    ['403', refusing(403, 'permission denied'), 'vault.permission-denied'],
    ['404', refusing(404, 'no handler'), 'vault.not-found'],
  ] as const)('%s is not tried again', async ([, bad, reason]) => {
    server.misbehaves = [bad]
    await expect(mint()).rejects.toMatchObject({ reason })
    expect(server.asked).toHaveLength(1)
  })

  test('a redirection is not followed, for the token would go with it', async () => {
    server.misbehaves = [refusing(307, '', { location: `${server.address}/v1/elsewhere` })]
    await expect(mint()).rejects.toMatchObject({ reason: 'vault.redirected' })
    expect(server.asked).toHaveLength(1)
  })

  test.for([
    ['429', refusing(429, 'too many requests', { 'retry-after': '1' })],
    ['500', refusing(500, 'internal')],
    ['502 of a proxy', (response) => ((response.statusCode = 502), response.end('<html>'))],
    ['503, sealed', refusing(503, 'Vault is sealed')],
    ['473, standby', refusing(473, 'standby')],
    ['a connection that is cut', (response) => response.destroy()],
  ] as readonly (readonly [string, Misbehaviour])[])('%s is tried again, and then all is well', async ([, bad]) => {
    server.misbehaves = [bad, bad]
    await expect(mint()).resolves.toBeDefined()
    expect(server.asked).toHaveLength(3)
  })

  test('a vault that stays sealed is given up for now', async () => {
    server.misbehaves = Array.from({ length: 10 }, () => refusing(503, 'Vault is sealed'))
    await expect(mint()).rejects.toMatchObject({
      reason: 'vault.sealed',
      message: expect.stringContaining('(status 503: Vault is sealed)') as string,
    })
    expect(server.asked).toHaveLength(4)
  })

  test('`Retry-After` is honoured', async () => {
    server.misbehaves = [refusing(429, 'too many requests', { 'retry-after': '7' })]
    const world = testWorld({ clock: new FakeClock(clock.now()) })
    await mint({}, {}, world)
    expect(world.clock.now() - clock.now()).toBeGreaterThanOrEqual(seconds(7))
  })

  test('V-13 a vault that does not answer is not waited for', async () => {
    server.misbehaves = Array.from({ length: 4 }, () => () => {})
    await expect(mint({}, { timeout: '1s' })).rejects.toMatchObject({ reason: 'vault.timeout' })
  }, 15_000)

  test('V-13 whoever waits may stop waiting', async () => {
    server.misbehaves = [() => {}]
    const upstream = await open()
    const stop = new AbortController()
    const minted = upstream.mint(request(), stop.signal)
    while (server.asked.length === 0) await new Promise((resolve) => setImmediate(resolve))
    stop.abort()
    await expect(minted).rejects.toMatchObject({ name: 'AbortError' })
  })

  test('a port where nobody listens', async () => {
    await expect(mint({}, { address: 'http://127.0.0.1:1' })).rejects.toMatchObject({
      reason: 'vault.unreachable',
      message: expect.stringContaining('ECONNREFUSED') as string,
    })
  })
})

describe('whom we talk to', () => {
  test('a server that nobody vouches for is not told the token, whatever the environment says; one that our file vouches for is', async () => {
    const authority = await TestCa.create({ at: systemClock.now(), name: 'tls root' })
    const { certificate, keyPem } = await authority.leaf({ dnsNames: ['localhost'] })
    await using secure = await FakeVault.open(clock.now(), { cert: pem(certificate), key: keyPem })
    await expect(mint({}, { address: secure.address, auth: { method: 'token', token: { env: secure.token } } })).rejects.toMatchObject({
      reason: 'vault.unreachable',
    })
    expect(secure.asked).toEqual([])

    const folder = await mkdtemp(join(tmpdir(), 'vidimus-'))
    const caFile = join(folder, 'ca.pem')
    await writeFile(caFile, pem(authority.certificate))
    await expect(mint({}, { address: secure.address, caFile })).resolves.toBeDefined()
    await rm(folder, { recursive: true })
    await expect(mint({}, { address: secure.address, caFile })).rejects.toMatchObject({ reason: 'vault.file-missing' })
    await expect(mint({}, { address: secure.address, dangerouslySkipTlsVerification: true })).resolves.toBeDefined()
  })
})

describe('C-32 the key exchange with a vault', () => {
  let folder: string
  let identity: { cert: string; key: string }
  let caFile: string
  beforeAll(async () => {
    const authority = await TestCa.create({ at: systemClock.now(), name: 'tls root' })
    const { certificate, keyPem } = await authority.leaf({ dnsNames: ['localhost'] })
    identity = { cert: pem(certificate), key: keyPem }
    folder = await mkdtemp(join(tmpdir(), 'vidimus-'))
    caFile = join(folder, 'ca.pem')
    await writeFile(caFile, pem(authority.certificate))
  })
  afterAll(() => rm(folder, { recursive: true }))
  const strict = () => ({ ...testWorld({ clock: new FakeClock(clock.now()) }), requirePostQuantum: true })

  test('is refused before a token is sent where it must be a post-quantum one, and the vault has none', async () => {
    await using old = await FakeVault.open(clock.now(), { ...identity, ecdhCurve: 'X25519:P-256' })
    await expect(mint({}, { address: old.address, caFile }, strict())).rejects.toMatchObject({
      reason: 'vault.unreachable',
      message: expect.stringContaining('`tls.requirePostQuantum` asks it for X25519MLKEM768') as string,
    })
    expect([...old.asked, ...old.besides]).toEqual([])
  })

  test('is a post-quantum one where the vault has it, another one elsewhere, and is told in the log once for many connections', async () => {
    const exchanges = [
      ['X25519MLKEM768:X25519', strict(), 'X25519MLKEM768'],
      ['X25519MLKEM768:X25519', testWorld({ clock: new FakeClock(clock.now()) }), 'X25519MLKEM768'],
      ['X25519', testWorld({ clock: new FakeClock(clock.now()) }), 'X25519'],
    ] as const
    for (const [ecdhCurve, world, group] of exchanges) {
      await using secure = await FakeVault.open(clock.now(), { ...identity, ecdhCurve })
      await mint({}, { address: secure.address, caFile }, world)
      const told = world.log.lines.filter((line) => line.includes('connected to the vault'))
      expect(told).toEqual([`info connected to the vault {"protocol":"TLSv1.3","keyExchange":"${group}"}`])
    }
  })
})

test('V-15 neither the token nor the request is ever told: not in logs, not in errors, not on standard error', async () => {
  const told: string[] = []
  const spies = [process.stderr, process.stdout].map((stream) =>
    vi.spyOn(stream, 'write').mockImplementation((chunk) => (told.push(String(chunk)), true)),
  )
  const world = testWorld({ clock: new FakeClock(clock.now()) })
  const repeats: Misbehaviour = refusing(400, `bad request with token ${server.token}`)
  try {
    for (const bad of [
      [],
      [repeats],
      [refusing(403, server.token)],
      [refusing(503, 'sealed'), repeats],
      [(response: Parameters<Misbehaviour>[0]) => response.destroy(), repeats],
    ]) {
      server.misbehaves = bad
      const outcome = await mint({}, {}, world).then(
        () => '',
        (error: unknown) => `${tellChain(error)} ${inspect(error, { depth: 10, showHidden: true })} ${JSON.stringify(error)}`,
      )
      told.push(outcome)
    }
  } finally {
    for (const spy of spies) spy.mockRestore()
  }
  const all = [...told, ...world.log.lines].join('\n')
  expect(all).toContain('bad request with token [secret]')
  expect(all).not.toContain(server.token)
  expect(all).not.toContain('BEGIN CERTIFICATE REQUEST')
})

describe('who signs', () => {
  test('V-5 of two roots that the certificate leads to, and that were never announced, none is believed; the one that was announced is', async () => {
    const other = await TestCa.create({ at: clock.now(), name: 'vault root' })
    // One key, two self-signed certificates: as after a root was made anew.
    const twin = other.withCertificate((await selfSignedTwin(server.root, clock.now())).certificate)
    server.tells = ({ own, root }) => ({ data: { certificate: pem(own), ca_chain: [pem(root), pem(twin.certificate)] } })
    const minted = await mint()
    expect(minted.roots.map(pem)).toEqual([pem(server.root.certificate)])

    server.issuer = other.certificate
    server.besideIssuer = [other.certificate]
    await expect(mint()).rejects.toMatchObject({ reason: 'upstream.two-roots' })
  })

  test('V-3 an issuer that nobody named is an alarm, and is refused if its root was never announced', async () => {
    const stranger = await TestCa.create({ at: clock.now(), name: 'stranger' })
    const world = testWorld({ clock: new FakeClock(clock.now()) })
    await using upstream = await open({ issuer: 'vidimus' }, world)
    await moving(world.clock, upstream.mint(request(), never))
    const signing = vi.spyOn(server.root, 'leaf').mockImplementation((wishes) => stranger.leaf(wishes))
    server.tells = ({ own }) => plainly({ own, root: stranger.certificate })
    await expect(moving(world.clock, upstream.mint(request(), never)).finally(() => signing.mockRestore())).rejects.toMatchObject({
      reason: 'upstream.other-issuer',
    })
    expect(world.log.lines.join()).toContain('"reason":"upstream.other-issuer"')
    server.tells = plainly
    await expect(moving(world.clock, upstream.mint(request(), never))).resolves.toBeDefined()
  })

  test('V-3, V-7 an issuer that the operator changed is announced within five minutes, and signs without an alarm', async () => {
    const next = await TestCa.create({ at: clock.now(), name: 'next root', lifetime: hours(1000) })
    const world = testWorld({ clock: new FakeClock(clock.now()) })
    await using upstream = await open({ issuer: 'vidimus' }, world)
    await moving(world.clock, upstream.mint(request(), never))
    server.issuer = next.certificate
    server.besideIssuer = [next.certificate]
    await world.clock.advance(minutes(5))
    await expect.poll(() => upstream.roots?.current.map(pem)).toEqual([pem(next.certificate)])
    const signing = vi.spyOn(server.root, 'leaf').mockImplementation((wishes) => next.leaf(wishes))
    server.tells = ({ own }) => plainly({ own, root: next.certificate })
    const minted = await moving(world.clock, upstream.mint(request(), never)).finally(() => signing.mockRestore())
    expect(minted.roots.map(pem)).toEqual([pem(next.certificate)])
    expect(world.log.lines.filter((line) => line.startsWith('error'))).toEqual([])
  })
})

test('V-2 a right that the policy lacks is complained of within the hour, with the line to add, until it is there', async () => {
  const world = testWorld({ clock: new FakeClock(clock.now()) })
  const driver = await vault.open(
    vault.config.parse({ address: server.address, auth: { method: 'token', token: { env: server.token } } }),
    world,
  )
  server.lacks = ['pki/root/sign-intermediate']
  await world.clock.advance(hours(1))
  await expect
    .poll(() => driver.complaints?.())
    .toEqual(['the policy of our token at the vault lacks path "pki/root/sign-intermediate" { capabilities = ["update"] }'])
  server.lacks = []
  await world.clock.advance(minutes(1))
  await expect.poll(() => driver.complaints?.()).toEqual([])
  await driver[Symbol.asyncDispose]()
})

test('V-20 a certificate that was signed and never stored is asked for again, for the same key: both are good, and one is used', async () => {
  const world = testWorld({ clock: new FakeClock(clock.now()) })
  const config = vault.config.parse({ address: server.address, auth: { method: 'token', token: { env: server.token } } })
  await using upstream = await vault.open(config, world)
  const journal = new FakeJournal()
  const keys = await memory.open({}, world)
  const write = journal.write.bind(journal)
  // The intent is stored; what the vault signed is not, as if the power went.
  const cut = vi.spyOn(journal, 'write').mockImplementation(async (id, record, revision) => {
    if (record.includes('"stage":"made"')) throw new Error('the power went')
    await write(id, record, revision)
  })
  await expect(moving(world.clock, openTestAuthority({ world, upstream, journal, keys }))).rejects.toThrow('the power went')
  cut.mockRestore()
  await using opened = await moving(world.clock, openTestAuthority({ world, upstream, journal, keys }))
  const asked = server.asked.map(
    ({ body }) => parseCertificateRequest(parsePem(String(body['csr']), { label: 'CERTIFICATE REQUEST' })[0]!.der).spki,
  )
  expect(asked).toHaveLength(2)
  expect(asked[1]).toEqual(asked[0])
  const svid = await opened.ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key: await provenKey(), context: {} }, never)
  expect(svid.chain[1]?.spki).toEqual(asked[0])
})

test.for([
  [200, 'active', true],
  [429, 'standby', true],
  [472, 'disaster recovery secondary', false],
  [473, 'performance standby', true],
  [501, 'not initialised', false],
  [503, 'sealed', false],
] as const)('V-10 a vault whose health has the status %i is %s', async ([status, state, serves]) => {
  await using fake = await FakeVault.open(clock.now())
  fake.health = status
  const world = testWorld({ clock: new FakeClock(clock.now()) })
  const settings = z
    .strictObject(vaultSettings)
    .parse({ address: fake.address, namespace: 'team', auth: { method: 'token', token: { env: fake.token } } })
  await using session = openVaultSession(settings, world, 'pki')
  expect(await healthOf(session, never)).toEqual({ state, serves })
  expect(fake.besides.find(({ path }) => path === '/v1/sys/health')?.headers).not.toHaveProperty('x-vault-namespace')
})

/** Another self-signed certificate for the key of this CA. */
async function selfSignedTwin(ca: TestCa, at: number): Promise<TestCa> {
  const { subject, spki } = ca.certificate
  const twin = await ca.leaf({
    subject: subject.attributes,
    spki,
    uris: ca.certificate.subjectAltName?.uris ?? [],
    ca: {},
    keyUsage: ['keyCertSign', 'cRLSign'],
    extKeyUsage: [],
    notAfter: at + hours(500),
  })
  return ca.withCertificate(twin.certificate)
}
