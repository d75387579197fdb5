import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { joinToken } from '../../src/attestation/node/join-token.ts'
import type { NodeProver } from '../../src/attestation/node-attestor.ts'
import type { UpstreamServer } from '../../src/agent/upstream-server.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { minutes } from '../../src/kernel/duration.ts'
import { Secret, silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { listenTls, listenUnix, type Listener } from '../../src/rpc/listen.ts'
import { adminClient, connectAdmin, connectServer, verifyServer } from '../../src/server-api/client.ts'
import { detailsFor } from '../../src/server-api/messages.ts'
import { privateServerApi, serverApi } from '../../src/server-api/services.ts'
import { remotePeer } from '../../src/server/caller.ts'
import { WatchedHealth } from '../../src/server/health.ts'
import { banNode } from '../../src/server/manage-nodes.ts'
import { createJoinToken } from '../../src/server/manage-tokens.ts'
import { OwnIdentity } from '../../src/server/own-identity.ts'
import { sameAuthorities } from '../../src/spiffe/bundle-document.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import type { TrustBundle } from '../../src/spiffe/bundle.ts'
import { seededRandom } from '../fakes/random.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { entry } from '../store/sample.ts'
import { TestCa } from '../support/test-ca.ts'
import { never, newKey, openRig, operator, type Rig } from '../server/rig.ts'
import { channelAs, local } from './rig.ts'

let rig: Rig
let listener: Listener
let upstream: UpstreamServer
beforeEach(async () => {
  rig = await openRig({ witSvid: true })
  const { identity } = await OwnIdentity.open(rig.server, never)
  listener = await listenTls({
    log: silentLog,
    host: '127.0.0.1',
    port: 0,
    identity,
    services: serverApi(rig.server),
    detailsOf: detailsFor,
    peerOf: ({ chain, remoteAddress }) => remotePeer(rig.server, chain, remoteAddress),
  })
  upstream = connectServer({ host: '127.0.0.1', port: listener.port }, { clock: rig.clock, log: silentLog, meter: silentMeter })
})
afterEach(async () => {
  await upstream[Symbol.asyncDispose]()
  await listener[Symbol.asyncDispose]()
  await rig[Symbol.asyncDispose]()
})

const bundle = (): TrustBundle => rig.server.ca.bundle.current
async function prover(token: string): Promise<NodeProver> {
  const secrets = { read: async () => new Secret(token) }
  return joinToken.openProver(
    { token: { env: 'T' } },
    { clock: rig.clock, random: seededRandom('x'), files: systemFiles, log: silentLog, meter: silentMeter, secrets },
  )
}
async function joined(): Promise<{ id: ReturnType<typeof parseSpiffeId>; privateKeyPem: string }> {
  const { token } = await createJoinToken(rig.server, { ttl: minutes(1) }, operator)
  const key = newKey()
  const { svid } = await upstream.attest(await prover(token.reveal()), await key.csr(), bundle(), never)
  upstream.use({ spiffeId: svid.spiffeId, chain: svid.chain, privateKeyPem: key.privateKeyPem }, bundle())
  return { id: svid.spiffeId, privateKeyPem: key.privateKeyPem }
}

describe('the server must prove itself', () => {
  test('an agent shows its token to nobody whose certificate is not under its bundle', async () => {
    const foreign = await TestCa.create({ at: rig.clock.now() })
    const wrong: TrustBundle = { ...bundle(), x509Authorities: [{ certificate: foreign.certificate, tainted: false }] }
    const { token } = await createJoinToken(rig.server, { ttl: minutes(1) }, operator)
    await expect(upstream.attest(await prover(token.reveal()), await newKey().csr(), wrong, never)).rejects.toMatchObject({
      category: 'unavailable',
    })
    await expect(upstream.attest(await prover(token.reveal()), await newKey().csr(), bundle(), never)).resolves.toBeDefined()
  })

  test('a workload of the same trust domain is not the server', async () => {
    const ca = await TestCa.create({ at: rig.clock.now() })
    const trusting: TrustBundle = { ...bundle(), x509Authorities: [{ certificate: ca.certificate, tainted: false }] }
    const judge = async (uri: string) => verifyServer([(await ca.leaf({ uris: [uri] })).certificate.raw], trusting, rig.clock.now())
    await expect(judge('spiffe://example.org/web')).rejects.toMatchObject({ reason: 'server.not-the-server' })
    await expect(judge('spiffe://example.org/spire/server/x')).rejects.toMatchObject({ reason: 'server.not-the-server' })
    await expect(judge('spiffe://example.org/spire/server')).resolves.toBeUndefined()
  })
})

describe('an agent', () => {
  test('is told that its token is not accepted', async () => {
    await expect(upstream.attest(await prover('nope'), await newKey().csr(), bundle(), never)).rejects.toMatchObject({
      category: 'permission_denied',
    })
  })

  test('is told that it is banned, by the reason that makes it stop', async () => {
    const { id } = await joined()
    await banNode(rig.server, id, operator)
    await expect(upstream.entries(never)).rejects.toMatchObject({ reason: 'server.agent-banned' })
    await expect(upstream.postStatus({ agentVersion: '1', bundleSequence: 0n }, never)).rejects.toMatchObject({
      reason: 'server.agent-banned',
    })
  })

  test('finds nobody where no server listens, and may try again', async () => {
    await using lost = connectServer({ host: '127.0.0.1', port: 1 }, { clock: rig.clock, log: silentLog, meter: silentMeter })
    await expect(lost.attest(await prover('x'), await newKey().csr(), bundle(), AbortSignal.timeout(3000))).rejects.toMatchObject({
      category: expect.stringMatching(/unavailable|deadline/) as string,
    })
  })

  test('joins, syncs, has SVIDs signed, renews and goes on with the new certificate', async () => {
    const { id } = await joined()
    await rig.store.entries.create(entry({ id: 'web', parentId: id }))
    expect(await upstream.entries(never)).toEqual([entry({ id: 'web', parentId: id })])
    const received = await upstream.bundle(never)
    expect(sameAuthorities(received, bundle()) && received.sequence === bundle().sequence).toBe(true)

    const csr = await newKey().csr()
    const [good, bad] = await upstream.signX509(
      [
        { entryId: 'web', csr },
        { entryId: 'nowhere', csr },
      ],
      never,
    )
    expect(good).toMatchObject({ spiffeId: 'spiffe://example.org/web' })
    expect(bad).toBeInstanceOf(Failure)
    expect(bad).toMatchObject({ category: 'not_found' })
    const [wit, stranger] = await upstream.signWit(
      [
        { entryId: 'web', publicKey: newKey().spki },
        { entryId: 'nowhere', publicKey: newKey().spki },
      ],
      never,
    )
    expect(wit).toMatchObject({ spiffeId: 'spiffe://example.org/web', expiresAt: expect.any(Number) as number })
    expect(stranger).toMatchObject({ category: 'not_found' })
    const token = await upstream.signJwt('web', ['a'], never)
    expect([token.spiffeId, token.expiresAt - token.issuedAt]).toEqual(['spiffe://example.org/web', minutes(5)])

    const key = newKey()
    const renewed = await upstream.renew(await key.csr(), never)
    upstream.use({ spiffeId: id, chain: renewed.chain, privateKeyPem: key.privateKeyPem }, bundle())
    await upstream.postStatus({ agentVersion: '9.9', bundleSequence: 1n }, never)
    expect(await rig.store.nodes.find(id)).toMatchObject({ serial: renewed.chain[0]!.serial, agentVersion: '9.9' })
  })

  test('syncs 1,203 entries in pages, and later only what changed', async () => {
    const { id } = await joined()
    await Promise.all(
      Array.from({ length: 1203 }, (_, i) => rig.store.entries.create(entry({ id: `e${i}`, parentId: id, selectors: [`x:${i}`] }))),
    )
    const first = await upstream.entries(never)
    expect(new Set(first.map((one) => one.id)).size).toBe(1203)
    await rig.store.entries.update(entry({ id: 'e7', parentId: id, selectors: ['x:7'], hint: 'new', revision: 1n }), 0n)
    await rig.store.entries.remove('e8')
    const second = await upstream.entries(never)
    expect(second).toHaveLength(1202)
    expect(second.find((one) => one.id === 'e7')?.hint).toBe('new')
    // The same object: it was not sent again.
    expect(second.find((one) => one.id === 'e9')).toBe(first.find((one) => one.id === 'e9'))
  })

  test('is told of the policies in force, at once and after each change', async () => {
    await joined()
    const ending = new AbortController()
    const policies = upstream.policies(ending.signal)[Symbol.asyncIterator]()
    expect((await policies.next()).value).toMatchObject({ documents: [] })
    await using admin = adminClient(channelAs(local, rig.server))
    const text = 'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: a, namespace: b }\nspec: {}\n'
    const applied = await admin.policies.apply({ documents: [{ name: 'a.yaml', text }] }, never)
    expect((await policies.next()).value).toMatchObject({ version: applied.version, documents: [{ name: 'a.yaml', text }] })
    ending.abort()
    expect((await policies.next()).done).toBe(true)
  })
})

describe('an operator', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'v-api-'))
  })
  afterEach(() => rm(folder, { recursive: true }))

  test('reads which policy is wrong, and where, and nothing changed', async () => {
    await using admin = adminClient(channelAs(local, rig.server))
    const before = await admin.policies.list(never)
    const apply = admin.policies.apply(
      {
        documents: [
          {
            name: 'bad.yaml',
            text: 'apiVersion: vidimus.dev/v1\nkind: AuthorizationPolicy\nmetadata: { name: a }\nspec:\n  actoin: ALLOW\n',
          },
        ],
      },
      never,
    )
    await expect(apply).rejects.toMatchObject({ reason: 'policy.invalid', message: expect.stringContaining('bad.yaml:5') as string })
    expect(await admin.policies.list(never)).toEqual(before)
  })

  test('works on the private socket', async () => {
    const identity = await OwnIdentity.open(rig.server, never)
    const health = await WatchedHealth.open({ ...rig.server, identity })
    const path = join(folder, 's')
    await using _ = await listenUnix({
      log: silentLog,
      path,
      mode: 0o600,
      services: privateServerApi(rig.server, health.state),
      detailsOf: detailsFor,
      peerOf: () => local,
    })
    await using admin = connectAdmin(path)
    expect(await admin.isHealthy(never)).toBe(true)

    const { id: _id, ...draft } = entry()
    const [made, again] = await admin.entries.create([draft, draft], never)
    expect(made).toMatchObject({ created: true, entry: { spiffeId: 'spiffe://example.org/web' } })
    expect(again).toMatchObject({ created: false })
    if (!made || made instanceof Failure) throw new Error('refused')
    expect(await admin.entries.find(made.entry.id, never)).toEqual({ ...made.entry })
    expect(await admin.entries.list({ hint: '' }, never)).toHaveLength(1)
    const [changed] = await admin.entries.update([{ ...made.entry, hint: 'h' }], never)
    expect(changed).toMatchObject({ hint: 'h', revision: 1n })
    const additions = { subject: { organization: 'Team A' }, claims: { tier: 'gold' } }
    expect(await admin.entries.update([{ ...made.entry, ...additions }], never)).toMatchObject([{ ...additions, revision: 2n }])
    expect(await admin.entries.find(made.entry.id, never)).toMatchObject(additions)
    expect(await admin.entries.list({}, never)).toMatchObject([additions])
    expect(await admin.entries.remove([made.entry.id, 'nowhere'], never)).toEqual([
      undefined,
      expect.objectContaining({ category: 'not_found' }),
    ])
    await expect(admin.entries.find('nowhere', never)).rejects.toMatchObject({ reason: 'entry.not-found' })

    const { token } = await admin.tokens.create({ ttl: minutes(1), agentId: parseSpiffeId('spiffe://example.org/host') }, never)
    const agent = parseSpiffeId(`spiffe://example.org/spire/agent/join_token/${token.reveal()}`)
    await upstream.attest(await prover(token.reveal()), await newKey().csr(), await admin.bundle.find(never), never)
    expect(await admin.agents.list(never)).toMatchObject([{ id: agent, banned: false, attestationType: 'join_token' }])
    await admin.agents.ban(agent, never)
    expect(await admin.agents.find(agent, never)).toMatchObject({ banned: true, serialNumber: '' })
    await admin.agents.evict(agent, never)
    expect(await admin.agents.list(never)).toEqual([])
  })
})
