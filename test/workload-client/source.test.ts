import { generateKeyPairSync } from 'node:crypto'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { describe, expect, test, vi } from 'vitest'
import { seconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { makeWitSvid } from '../../src/spiffe/wit-svid.ts'
import { signerOf } from '../../src/x509/signature.ts'
import { openWorkloadApiClient } from '../../src/workload-client/client.ts'
import { endpointOf } from '../../src/workload-client/endpoint.ts'
import { openJwtSource, openX509Source, type SourceOptions } from '../../src/workload-client/source.ts'
import { FakeClock } from '../fakes/clock.ts'
import { TestCa } from '../support/test-ca.ts'
import { bundleOf, FakeAgent, keyOf, noIdentityIssued, svidOf } from './fake-agent.ts'

const web = 'spiffe://example.org/web'

/** A fake agent, a CA that it believes, and a clock. */
async function stage() {
  const clock = new FakeClock()
  const agent = await FakeAgent.start()
  const ca = await TestCa.create({ at: clock.now() })
  const foreign = await TestCa.create({ at: clock.now(), trustDomain: 'other.test' })
  const leaf = () => ca.leaf({ uris: [web] })
  return {
    clock,
    agent,
    ca,
    foreign,
    leaf,
    async good() {
      agent.x509.set({ svids: [svidOf(ca, await leaf())] })
    },
    open: (options: SourceOptions = {}) => openX509Source({ address: agent.address, clock, ...options }),
    /** Lets the source try again, as often as it takes. */
    async retries(times: number) {
      for (let tried = 0; tried < times; tried++) {
        await vi.waitFor(() => expect(clock.sleepers).toBe(1))
        await clock.advance(seconds(5))
      }
    },
    [Symbol.asyncDispose]: () => agent[Symbol.asyncDispose](),
  }
}

type Stage = Awaited<ReturnType<typeof stage>>

describe('an answer that cannot be believed is discarded', () => {
  test.each<[string, (at: Stage) => Promise<Parameters<FakeAgent['x509']['set']>[0]>]>([
    ['API-12 without an identity', async () => ({ svids: [] })],
    [
      'with the key of another certificate',
      async ({ ca, leaf }) => ({ svids: [svidOf(ca, await leaf(), { x509SvidKey: keyOf((await leaf()).keyPem) })] }),
    ],
    ['with a key that is none', async ({ ca, leaf }) => ({ svids: [svidOf(ca, await leaf(), { x509SvidKey: Uint8Array.of(1, 2, 3) })] })],
    [
      'with a certificate that is none',
      async ({ ca, leaf }) => ({ svids: [svidOf(ca, await leaf(), { x509Svid: Uint8Array.of(48, 0) })] }),
    ],
    [
      'for another identity than it says',
      async ({ ca, leaf }) => ({ svids: [svidOf(ca, await leaf(), { spiffeId: 'spiffe://example.org/db' })] }),
    ],
    ['for something that is no SPIFFE ID', async ({ ca, leaf }) => ({ svids: [svidOf(ca, await leaf(), { spiffeId: 'web' })] })],
    ['API-11 without a bundle', async ({ ca, leaf }) => ({ svids: [svidOf(ca, await leaf(), { bundle: new Uint8Array() })] })],
    [
      'with the bundle of somebody else',
      async ({ ca, foreign, leaf }) => ({ svids: [svidOf(ca, await leaf(), { bundle: bundleOf(foreign) })] }),
    ],
    [
      'ID-24 signed by the authority of another trust domain',
      async ({ ca, foreign }) => ({
        svids: [svidOf(ca, await foreign.leaf({ uris: [web] }))],
        federatedBundles: { 'spiffe://other.test': bundleOf(foreign) },
      }),
    ],
    ['that has expired', async ({ ca, clock }) => ({ svids: [svidOf(ca, await ca.leaf({ uris: [web], notAfter: clock.now() - 1000 }))] })],
    ['X-22 whose leaf is a CA', async ({ ca }) => ({ svids: [svidOf(ca, await ca.leaf({ uris: [web], ca: {} }))] })],
  ])('%s', async (_what, answer) => {
    await using at = await stage()
    at.agent.x509.set(await answer(at))
    await using client = openWorkloadApiClient(endpointOf(at.agent.address), at.clock)
    const { signal } = new AbortController()
    await expect(client.watchX509(signal)[Symbol.asyncIterator]().next()).rejects.toMatchObject({
      reason: 'workload-client.malformed-answer',
      category: 'unavailable',
    })
  })

  test('API-10 and a good one is taken when it comes, even after several bad ones', async () => {
    await using at = await stage()
    at.agent.x509.set({ svids: [svidOf(at.ca, await at.leaf(), { spiffeId: 'web' })] })
    const opening = at.open()
    await at.retries(2)
    await at.good()
    await at.retries(1)
    await using source = await opening
    expect(source.identity().spiffeId).toBe(web)
  })

  test('API-10 while what was good before stays in use', async () => {
    await using at = await stage()
    await at.good()
    await using source = await at.open()
    const before = source.identity()
    at.agent.x509.set({ svids: [svidOf(at.ca, await at.leaf(), { bundle: new Uint8Array() })] })
    await at.retries(2)
    expect(source.identity()).toBe(before)
  })
})

describe('what the agent says can never work is not tried again', () => {
  test.each([
    ['EP-12 InvalidArgument', 'invalid_argument', 'rpc.invalid-argument'],
    ['EP-15 Unimplemented', 'unimplemented', 'rpc.unimplemented'],
  ] as const)('%s', async (_what, category, reason) => {
    await using at = await stage()
    at.agent.x509.set(new Failure(category, 'fake.never', { public: 'never' }))
    await expect(at.open()).rejects.toMatchObject({ reason })
    expect(at.agent.opened.x509).toBe(1)
    expect(at.clock.sleepers).toBe(0)
  })
})

describe('a workload without identity', () => {
  test('EP-14 is told so, with what the operator may do about it, when the time is over', async () => {
    await using at = await stage()
    await expect(at.open({ timeout: 100 })).rejects.toMatchObject({
      reason: 'workload-client.no-identity',
      message: expect.stringMatching(/no identity issued.*vidimus explain workload --pid/) as string,
    })
  })

  test('EP-14 gets one as soon as there is an entry', async () => {
    await using at = await stage()
    const opening = at.open()
    await at.retries(1)
    await at.good()
    await at.retries(1)
    await using source = await opening
    expect(source.identity().spiffeId).toBe(web)
  })

  test('is told when there is no agent at all', async () => {
    await using at = await stage()
    await at.agent.vanish()
    await expect(at.open({ timeout: 100 })).rejects.toMatchObject({
      reason: 'workload-client.no-identity',
      cause: { reason: 'rpc.unavailable' },
    })
  })
})

describe('what changes', () => {
  test('API-15 an identity that the agent withdraws is not used any longer, and used again when it comes back', async () => {
    await using at = await stage()
    await at.good()
    await using source = await at.open()
    at.agent.x509.set(noIdentityIssued)
    await vi.waitFor(() => expect(source.context.current).toBeUndefined())
    expect(() => source.identity()).toThrow(expect.objectContaining({ reason: 'workload-client.no-identity' }))
    await at.good()
    await at.retries(1)
    await vi.waitFor(() => expect(source.identity().spiffeId).toBe(web))
  })

  test('API-3 EP-13 an agent that goes away leaves the identity, and its successor rotates it', async () => {
    await using at = await stage()
    await at.good()
    await using source = await at.open()
    const before = source.identity()
    await at.agent.vanish()
    await at.retries(3)
    expect(source.identity()).toBe(before)
    await at.agent.appear()
    await at.good()
    // The channel has waits of its own between connections.
    await vi.waitFor(
      async () => {
        await at.clock.advance(seconds(5))
        expect(source.identity()).not.toBe(before)
      },
      { timeout: 10_000, interval: 50 },
    )
    expect(source.identity().spiffeId).toBe(web)
  })

  test('API-7 a bundle that is no longer sent is no longer believed', async () => {
    await using at = await stage()
    const other = parseTrustDomain('other.test')
    const svid = svidOf(at.ca, await at.leaf())
    at.agent.x509.set({ svids: [svid], federatedBundles: { 'spiffe://other.test': bundleOf(at.foreign) } })
    await using source = await at.open()
    expect(source.context.current?.bundles.find(other)).toBeDefined()
    at.agent.x509.set({ svids: [svid] })
    await vi.waitFor(() => expect(source.context.current?.bundles.find(other)).toBeUndefined())
  })

  test('API-4 a rotation replaces certificate and key together', async () => {
    await using at = await stage()
    await at.good()
    await using source = await at.open()
    const before = source.identity()
    await at.good()
    await vi.waitFor(() => expect(source.identity()).not.toBe(before))
    expect(source.identity().privateKey.equals(before.privateKey)).toBe(false)
  })
})

describe('several identities', () => {
  test('API-26 the first is the default, API-14 and of two with one hint the first counts', async () => {
    await using at = await stage()
    const ids = ['/a', '/b', '/c', '/d'].map((path) => `spiffe://example.org${path}`)
    const hints = ['', 'main', 'main', '']
    const svids = await Promise.all(ids.map(async (id, index) => svidOf(at.ca, await at.ca.leaf({ uris: [id] }), { hint: hints[index]! })))
    at.agent.x509.set({ svids })
    await using source = await at.open()
    expect(source.identity().spiffeId).toBe('spiffe://example.org/a')
    expect(source.context.current?.identities.map(({ spiffeId, hint }) => `${spiffeId} ${hint}`.trim())).toEqual([
      'spiffe://example.org/a',
      'spiffe://example.org/b main',
      'spiffe://example.org/d',
    ])
  })
})

describe('JWT-SVIDs', () => {
  const audience = ['db']

  test.each([
    ['the agent denies them', noIdentityIssued, 'rpc.permission-denied'],
    ['API-18 the agent sends none', { svids: [] }, 'workload-client.no-identity'],
    ['the identity is none', { svids: [{ spiffeId: 'web', svid: 'x.y.z' }] }, 'workload-client.malformed-answer'],
  ] as const)('are refused when %s', async (_what, answer, reason) => {
    await using at = await stage()
    at.agent.jwt = answer as FakeAgent['jwt']
    await using source = openJwtSource({ address: at.agent.address, clock: at.clock })
    await expect(source.fetch(audience)).rejects.toMatchObject({ reason })
  })

  test('a token that the agent does not find valid is refused with its words', async () => {
    await using at = await stage()
    at.agent.validated = new Failure('invalid_argument', 'jwt-svid.expired', { public: 'the token has expired' })
    await using source = openJwtSource({ address: at.agent.address, clock: at.clock })
    await expect(source.validate('db', 'x.y.z')).rejects.toMatchObject({ reason: 'rpc.invalid-argument', message: 'the token has expired' })
  })

  test('API-26 the first is fetched, and claims come back with the identity', async () => {
    await using at = await stage()
    at.agent.jwt = {
      svids: [
        { spiffeId: web, svid: 'x.y.z' },
        { spiffeId: 'spiffe://example.org/db', svid: 'u.v.w' },
      ],
    }
    at.agent.validated = { spiffeId: web, claims: { sub: web, aud: ['db'] } }
    await using source = openJwtSource({ address: at.agent.address, clock: at.clock })
    expect(await source.fetch(audience)).toEqual({ spiffeId: parseSpiffeId(web), token: 'x.y.z', hint: '' })
    expect(await source.validate('db', 'x.y.z')).toEqual({ spiffeId: web, claims: { sub: web, aud: ['db'] } })
  })
})

describe('WIT-SVIDs', () => {
  /** A token as an agent would send it, and what makes it wrong. */
  async function answer(at: Stage, changes: object = {}) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const signer = signerOf(privateKey)
    const issuedAt = at.clock.now()
    const content = { spiffeId: parseSpiffeId(web), proofKey: signer.publicKey, issuedAt, expiresAt: issuedAt + seconds(60), jti: 'j' }
    const witSvid = await makeWitSvid(signer, 'wit-1', content)
    return { spiffeId: web, witSvid, witSvidKey: JSON.stringify(privateKey.export({ format: 'jwk' })), hint: 'main', ...changes }
  }
  const watch = (at: Stage) => openWorkloadApiClient(endpointOf(at.agent.address), at.clock)
  const firstOf = async (at: Stage) => {
    await using client = watch(at)
    for await (const svids of client.watchWit(undefined, new AbortController().signal)) return svids
    return []
  }

  test.each<[string, (at: Stage) => Promise<object>]>([
    ['API-24 there is none', async () => ({ svids: [] })],
    ['the identity is another', async (at) => ({ svids: [await answer(at, { spiffeId: 'spiffe://example.org/db' })] })],
    ['the key is another', async (at) => ({ svids: [await answer(at, { witSvidKey: (await answer(at)).witSvidKey })] })],
    ['the key is none', async (at) => ({ svids: [await answer(at, { witSvidKey: '{}' })] })],
    ['W-23 the token is of another kind', async (at) => ({ svids: [await answer(at, { witSvid: 'x.y.z' })] })],
  ])('API-10 are discarded where %s', async (_what, wrong) => {
    await using at = await stage()
    at.agent.wit.set(await wrong(at))
    await expect(firstOf(at)).rejects.toMatchObject({ reason: 'workload-client.malformed-answer' })
  })

  test('API-23 are not to be had from an agent that does not serve them, which says so', async () => {
    await using at = await stage()
    at.agent.wit.set(new Failure('unimplemented', 'workload-api.no-wit', { public: 'WIT-SVIDs are not served here' }))
    await expect(firstOf(at)).rejects.toMatchObject({ reason: 'rpc.unimplemented' })
  })

  test('come with the key that they are bound to; API-14 API-27 of two with one hint the first counts, and a hint that is too long is none', async () => {
    await using at = await stage()
    const [one, two, long] = [await answer(at), await answer(at), await answer(at, { hint: 'x'.repeat(1025) })]
    at.agent.wit.set({ svids: [one, two, long] })
    expect(await firstOf(at)).toEqual([
      { spiffeId: web, token: one.witSvid, hint: 'main', privateKeyJwk: one.witSvidKey },
      { spiffeId: web, token: long.witSvid, hint: '', privateKeyJwk: long.witSvidKey },
    ])
  })
})

test('EP-2 EP-10 a Workload API at a TCP address is spoken to without TLS', async () => {
  await using at = await stage()
  await at.good()
  const path = at.agent.address.replace('unix://', '')
  const sockets = new Set<Socket>()
  const proxy = createServer((near) => {
    const far = connect(path)
    for (const socket of [near, far]) sockets.add(socket.on('error', () => {}))
    near.pipe(far).pipe(near)
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  const { port } = proxy.address() as AddressInfo
  {
    await using source = await openX509Source({ address: `tcp://127.0.0.1:${port}`, clock: at.clock })
    expect(source.identity().spiffeId).toBe(web)
  }
  for (const socket of sockets) socket.destroy()
  await new Promise((resolve) => proxy.close(resolve))
})
