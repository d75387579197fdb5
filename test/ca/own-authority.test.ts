import { describe, expect, test } from 'vitest'
import type { KeyManager } from '../../src/ca/key-manager.ts'
import { memory } from '../../src/ca/keys/memory.ts'
import { caMetrics } from '../../src/ca/metrics.ts'
import { checkToken } from '../../src/ca/workbench.ts'
import type { X509SvidRequest } from '../../src/ca/certificate-authority.ts'
import { selfSigned } from '../../src/ca/upstream/self-signed.ts'
import { verifyTrail } from '../../src/audit/verify.ts'
import { auditMetrics } from '../../src/audit/metrics.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import type { ProvenKey } from '../../src/x509/certificate-request.ts'
import { FakeIntents } from '../fakes/intents.ts'
import { never, openTestAuthority, provenKey, testWorld, workload } from './support.ts'

const ask = (key: ProvenKey, changes: Partial<X509SvidRequest> = {}): X509SvidRequest => ({
  kind: 'workload',
  spiffeId: workload,
  key,
  context: { entry: 'entry-1' },
  ...changes,
})

describe('an X509-SVID is refused', () => {
  test.for([
    ['of another trust domain', { spiffeId: parseSpiffeId('spiffe://other.test/a') }, 'ca.foreign-trust-domain'],
    ['of the trust domain itself', { spiffeId: parseSpiffeId('spiffe://example.org') }, 'ca.no-path'],
    ['that is to live longer than the profile allows', { lifetime: hours(24) + 1 }, 'ca.lifetime-too-long'],
    ['that is to live for no time', { lifetime: 1 }, 'ca.lifetime-too-short'],
    ['with a DNS name that is none', { dnsNames: ['*.example.org'] }, 'ca.dns-name'],
  ] as const)('%s, and the refusal is recorded and counted', async ([, changes, reason]) => {
    await using opened = await openTestAuthority()
    await expect(opened.ca.issueX509Svid(ask(await provenKey(), changes), never)).rejects.toMatchObject({ reason })
    expect(opened.audit.at(-1)).toContain(`"reason":"${reason}"`)
    expect(opened.world.meter.of(auditMetrics.refusals, { event: 'svid.refused', reason })).toBe(1)
    expect(opened.world.meter.of(caMetrics.issuing, { kind: 'workload', outcome: 'refused' })).toBe(1)
    expect(opened.world.meter.of(caMetrics.issuing, { kind: 'workload', outcome: 'done' })).toBe(0)
  })

  test('C-12 for a key that is one of our authorities', async () => {
    await using opened = await openTestAuthority()
    const key = await provenKey()
    const [authority] = opened.ca.bundle.current.x509Authorities
    const [jwt] = opened.ca.bundle.current.jwtAuthorities
    for (const spki of [authority!.certificate.spki, jwt!.publicKey]) {
      await expect(opened.ca.issueX509Svid(ask({ ...key, spki }), never)).rejects.toMatchObject({ reason: 'ca.authority-key' })
    }
  })

  test('C-12 for a key that is certified for another identity, where the profile says so', async () => {
    await using opened = await openTestAuthority({ profile: { oneKeyOneIdentity: true } })
    const { ca, world } = opened
    const [key, other] = [await provenKey(), parseSpiffeId('spiffe://example.org/other')]
    await ca.issueX509Svid(ask(key), never)
    await expect(ca.issueX509Svid(ask(key, { spiffeId: other }), never)).rejects.toMatchObject({ reason: 'ca.key-reused' })
    await ca.issueX509Svid(ask(key), never)
    await world.clock.advance(hours(1))
    await ca.issueX509Svid(ask(key, { spiffeId: other }), never)
  })

  test('of an entry that is about to end', async () => {
    await using opened = await openTestAuthority()
    const { ca, world } = opened
    const until = world.clock.now() + seconds(1)
    await expect(ca.issueX509Svid(ask(await provenKey(), { until }), never)).rejects.toMatchObject({ reason: 'ca.entry-expired' })
    const token = { spiffeId: workload, audience: ['a'], until: world.clock.now(), context: {} }
    await expect(ca.issueJwtSvid(token, never)).rejects.toMatchObject({ reason: 'ca.entry-expired' })
  })

  test('C-10 when its intent cannot be written', async () => {
    let full = false
    const intents = new FakeIntents({
      onIntent: () => {
        if (full) throw new Failure('unavailable', 'intents.not-written', { public: 'nothing can be issued' })
      },
    })
    await using opened = await openTestAuthority({ intents })
    full = true
    await expect(opened.ca.issueX509Svid(ask(await provenKey()), never)).rejects.toMatchObject({ reason: 'intents.not-written' })
    const token = { spiffeId: workload, audience: ['a'], context: {} }
    await expect(opened.ca.issueJwtSvid(token, never)).rejects.toMatchObject({ reason: 'intents.not-written' })
    expect(opened.audit.at(-1)).toContain('"reason":"intents.not-written"')
    full = false
    await opened.ca.issueX509Svid(ask(await provenKey()), never)
  })

  test('R-37 when it cannot be recorded', async () => {
    let full = false
    await using opened = await openTestAuthority({
      onAudit: (line) => {
        if (full && line.includes('x509-svid.issued')) throw new Error('the disk is full')
      },
    })
    full = true
    await expect(opened.ca.issueX509Svid(ask(await provenKey()), never)).rejects.toMatchObject({ reason: 'audit.sink-failed' })
  })

  test('when the authority has ended and nobody kept it fresh', async () => {
    await using opened = await openTestAuthority()
    await opened.world.clock.advance(hours(24) + 1)
    await expect(opened.ca.issueX509Svid(ask(await provenKey()), never)).rejects.toMatchObject({ reason: 'ca.ending' })
    expect(opened.ca.complaints()).toEqual(['there is no X.509 authority', 'there is no JWT authority'])
  })
})

describe('an X509-SVID', () => {
  test('C-2 that its authority cuts short is counted; one that ends with its entry is not', async () => {
    await using opened = await openTestAuthority()
    const { ca, world } = opened
    const key = await provenKey()
    await ca.issueX509Svid(ask(key), never)
    await world.clock.advance(hours(23) + minutes(30))
    await ca.issueX509Svid(ask(key, { until: world.clock.now() + minutes(10) }), never)
    expect(world.meter.of(caMetrics.truncated, { kind: 'workload' })).toBe(0)
    const { notAfter } = await ca.issueX509Svid(ask(key), never)
    expect(notAfter - world.clock.now()).toBeLessThanOrEqual(minutes(30))
    expect(world.meter.of(caMetrics.truncated, { kind: 'workload' })).toBe(1)
  })

  test('is accepted by whoever has the bundle, and is in the trail with what it was issued for', async () => {
    await using opened = await openTestAuthority()
    const { ca, world, audit } = opened
    const svid = await ca.issueX509Svid(ask(await provenKey(), { dnsNames: ['a.example.org'] }), never)
    expect(verifyX509Svid(svid.chain, bundleSet([ca.bundle.current]), world.clock.now()).spiffeId).toBe(workload)
    expect(svid).toMatchObject({ spiffeId: workload, notAfter: world.clock.now() + hours(1) - seconds(1), serial: svid.chain[0]!.serial })
    expect(svid.chain).toHaveLength(1)
    const line = JSON.parse(audit.at(-1)!) as { event: object }
    expect(line.event).toMatchObject({ what: 'x509-svid.issued', fields: { spiffeId: workload, serial: svid.serial, entry: 'entry-1' } })
    expect(verifyTrail(audit)).toMatchObject({ whole: true })
  })

  test('lives as its kind does when nothing is asked', async () => {
    await using opened = await openTestAuthority({ profile: { svid: { x509: minutes(10), agent: minutes(20), server: minutes(30) } } })
    const { ca, world } = opened
    const lifetimes = []
    for (const kind of ['workload', 'agent', 'server'] as const) {
      lifetimes.push((await ca.issueX509Svid(ask(await provenKey(), { kind }), never)).notAfter + seconds(1) - world.clock.now())
    }
    expect(lifetimes).toEqual([minutes(10), minutes(20), minutes(30)])
  })
})

describe('a JWT-SVID', () => {
  test.for([
    ['without an audience', { audience: [] }, 'ca.audience'],
    ['with an empty audience', { audience: [''] }, 'ca.audience'],
    ['with more audiences than anybody has', { audience: Array.from({ length: 33 }, (_, index) => `a${index}`) }, 'ca.audience'],
    ['of another trust domain', { spiffeId: parseSpiffeId('spiffe://other.test/a') }, 'ca.foreign-trust-domain'],
    ['that is to live longer than the profile allows', { lifetime: hours(1) + 1 }, 'ca.lifetime-too-long'],
  ] as const)('is refused %s', async ([, changes, reason]) => {
    await using opened = await openTestAuthority()
    await expect(opened.ca.issueJwtSvid({ spiffeId: workload, audience: ['a'], context: {}, ...changes }, never)).rejects.toMatchObject({
      reason,
    })
  })

  test('C-14 is accepted by whoever has the bundle, has an identifier of its own, and names its key by thumbprint', async () => {
    await using opened = await openTestAuthority()
    const { ca, world } = opened
    const issue = () => ca.issueJwtSvid({ spiffeId: workload, audience: ['a', 'b'], context: {} }, never)
    const first = await issue()
    const verified = await verifyJwtSvid(first.token, bundleSet([ca.bundle.current]), 'b', world.clock.now())
    expect(verified).toMatchObject({ spiffeId: workload, audience: ['a', 'b'], expiresAt: world.clock.now() + minutes(5) })
    expect(verified.claims['jti']).not.toBe(
      (await verifyJwtSvid((await issue()).token, bundleSet([ca.bundle.current]), 'a', world.clock.now())).claims['jti'],
    )
    expect(ca.bundle.current.jwtAuthorities[0]!.keyId).toMatch(/^[A-Za-z0-9_-]{32}$/)
    expect(Object.keys(verified.claims).sort()).toEqual(['aud', 'exp', 'iat', 'jti', 'sub'])
  })

  test('C-14 never outlives its key', async () => {
    await using opened = await openTestAuthority()
    const { ca, world } = opened
    await world.clock.advance(hours(24) - minutes(2))
    const { expiresAt } = await ca.issueJwtSvid({ spiffeId: workload, audience: ['a'], context: {} }, never)
    expect(expiresAt).toBe(ca.bundle.current.jwtAuthorities[0]!.expiresAt)
  })
})

describe('opening', () => {
  test('C-10 what an earlier run left in doubt is in the trail', async () => {
    const doubt = { kind: 'x509', name: '41ff', hash: '00', id: workload, entry: 'e-1', revision: '3', until: 0 } as const
    await using opened = await openTestAuthority({ intents: new FakeIntents({ unresolved: [doubt] }) })
    expect(opened.audit[0]).toContain('"what":"issuance.unresolved","outcome":"refused","fields":{"kind":"x509","name":"41ff"')
  })

  test('without an upstream a new server does not open, and says why', async () => {
    const away = {
      mint: () => Promise.reject(new Failure('unavailable', 'upstream.unreachable', { public: 'the vault cannot be reached' })),
      async [Symbol.asyncDispose]() {},
    }
    await expect(openTestAuthority({ upstream: away })).rejects.toMatchObject({ reason: 'upstream.unreachable' })
  })

  test('an upstream is not believed', async () => {
    const world = testWorld()
    const honest = await selfSigned.open({}, world)
    await expect(
      openTestAuthority({ world, upstream: { ...honest, mint: async () => ({ chain: [], roots: [], warnings: [] }) } }),
    ).rejects.toMatchObject({
      reason: 'upstream.empty-chain',
    })
    expect(world.meter.of(caMetrics.mintRefusals, { reason: 'upstream.empty-chain' })).toBe(1)
  })
})

describe('C-9 C-21 a token leaves only if it says what was ordered under a signature that holds', () => {
  const lying = (how: (signature: Uint8Array) => Uint8Array): Promise<KeyManager> =>
    memory.open({}, testWorld()).then((keys) => ({
      ...keys,
      async create(id, type, signal) {
        const key = await keys.create(id, type, signal)
        const isToken = (message: Uint8Array) => message[0] === 'e'.charCodeAt(0)
        return { ...key, sign: async (message, stop) => (isToken(message) ? how(await key.sign(message, stop)) : key.sign(message, stop)) }
      },
    }))

  test.for([
    ['with one flipped bit', (signature: Uint8Array) => signature.map((byte, index) => (index === 20 ? byte ^ 1 : byte))],
    ['of another message', () => new Uint8Array(Buffer.from('3006020101020101', 'hex'))],
  ] as const)('a signature %s', async ([, how]) => {
    await using opened = await openTestAuthority({ keys: await lying(how) })
    await expect(opened.ca.issueJwtSvid({ spiffeId: workload, audience: ['a'], context: {} }, never)).rejects.toMatchObject({
      reason: 'issuance.bad-token',
    })
    expect([...opened.intents.outcomes.values()].at(-1)).toBe('withheld')
  })

  test('a token that says something else', () => {
    const signer = { keyType: 'ec-p256', publicKey: new Uint8Array() } as const
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const token = `${part({ alg: 'ES256' })}.${part({ sub: 'a', admin: true })}.AAAA`
    const check = (changes: object) => () => checkToken({ token, header: { alg: 'ES256' }, claims: { sub: 'a' }, signer, ...changes })
    expect(check({})).toThrow(expect.objectContaining({ reason: 'issuance.bad-token' }))
    expect(check({ header: { alg: 'none' }, claims: { sub: 'a', admin: true } })).toThrow(
      expect.objectContaining({ reason: 'issuance.bad-token' }),
    )
    expect(check({ token: `${token}.e30` })).toThrow(expect.objectContaining({ reason: 'issuance.bad-token' }))
  })
})
