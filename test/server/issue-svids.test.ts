import { generateKeyPairSync, sign as signWith, type KeyObject } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { auditMetrics } from '../../src/audit/metrics.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { minutes, seconds } from '../../src/kernel/duration.ts'
import { issueJwtSvid } from '../../src/server/issue-jwt-svid.ts'
import { issueWitSvids, mintWitSvid } from '../../src/server/issue-wit-svid.ts'
import { issueX509Svids } from '../../src/server/issue-x509-svid.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { verifyWitSvid } from '../../src/spiffe/wit-svid.ts'
import { createCertificateRequest } from '../../src/x509/certificate-request.ts'
import { entry } from '../store/sample.ts'
import { forgedCsr, never, newKey, openRig, operator, type JoinedAgent, type Rig } from './rig.ts'

let rig: Rig
let agent: JoinedAgent
beforeEach(async () => {
  rig = await openRig()
  agent = await rig.join()
})
afterEach(() => rig[Symbol.asyncDispose]())

describe('certificates for workloads', () => {
  const sign = (...wishes: { entryId: string; csr: Uint8Array }[]) => issueX509Svids(rig.server, agent.node, wishes, never)
  const reasons = (outcomes: Awaited<ReturnType<typeof sign>>) => outcomes.map((one) => (one instanceof Failure ? one.reason : 'issued'))

  test('more than 500 at once are refused as a whole', async () => {
    const wishes = Array.from({ length: 501 }, () => ({ entryId: 'x', csr: new Uint8Array() }))
    await expect(sign(...wishes)).rejects.toMatchObject({ reason: 'server.batch-too-large' })
  })

  test('R-22 an entry of another agent and one that does not exist are refused in the same words', async () => {
    await rig.store.entries.create(entry({ id: 'theirs', parentId: 'spiffe://example.org/spire/agent/join_token/other' }))
    const csr = await newKey().csr()
    const [theirs, nowhere] = (await sign({ entryId: 'theirs', csr }, { entryId: 'nowhere', csr })) as Failure[]
    expect(theirs).toMatchObject({ category: 'not_found', message: 'entry not found or not authorized' })
    expect([nowhere?.category, nowhere?.reason, nowhere?.message]).toEqual([theirs?.category, theirs?.reason, theirs?.message])
  })

  test('an entry that was removed or has expired is not served any more', async () => {
    await rig.give(agent, { id: 'gone' })
    await rig.give(agent, { id: 'old', selectors: ['x:1'], expiresAt: rig.clock.now() + seconds(10) })
    const csr = await newKey().csr()
    expect(reasons(await sign({ entryId: 'gone', csr }, { entryId: 'old', csr }))).toEqual(['issued', 'issued'])
    await rig.store.entries.remove('gone')
    await rig.clock.advance(seconds(10))
    expect(reasons(await sign({ entryId: 'gone', csr }, { entryId: 'old', csr }))).toEqual(['server.not-entitled', 'server.not-entitled'])
  })

  const requestOf = ({ privateKey, publicKey }: { privateKey: KeyObject; publicKey: KeyObject }): Promise<Uint8Array> =>
    createCertificateRequest({
      signer: {
        keyType: publicKey.asymmetricKeyType === 'rsa' ? 'rsa-2048' : 'ec-p256',
        publicKey: publicKey.export({ type: 'spki', format: 'der' }),
        sign: async (message) => signWith(publicKey.asymmetricKeyType === 'ed25519' ? null : 'sha256', message, privateKey),
      },
    })
  const bad: readonly (readonly [string, string, () => Promise<Uint8Array>])[] = [
    ['of nothing', 'der.truncated', async () => new Uint8Array()],
    ['of noise', 'der.truncated', async () => Buffer.from('junk')],
    ['of 64 KiB and more', 'der.too-long', async () => new Uint8Array(64 * 1024 + 1)],
    ['that another key signed', 'x509.request-signature', forgedCsr],
    ['with an RSA key of 1024 bits', 'x509.weak-key', () => requestOf(generateKeyPairSync('rsa', { modulusLength: 1024 }))],
    [
      'with an RSA key and the exponent 3',
      'x509.weak-key',
      () => requestOf(generateKeyPairSync('rsa', { modulusLength: 2048, publicExponent: 3 })),
    ],
    ['with a P-224 key', 'x509.unsupported-key', () => requestOf(generateKeyPairSync('ec', { namedCurve: 'P-224' }))],
    ['with an Ed25519 key', 'x509.unsupported-key', () => requestOf(generateKeyPairSync('ed25519'))],
  ]
  test.for(bad)('R-4 a request %s is refused, recorded and counted, and its reason is `%s`', async ([, reason, csr]) => {
    await rig.give(agent, { id: 'web' })
    expect(reasons(await sign({ entryId: 'web', csr: await csr() }))).toEqual([reason])
    expect(rig.audited().at(-1)).toBe('svid.refused')
    expect(rig.meter.of(auditMetrics.refusals, { event: 'svid.refused', reason })).toBe(1)
    expect(reasons(await sign({ entryId: 'web', csr: await newKey().csr() }))).toEqual(['issued'])
  })

  test('what an agent may not have is recorded', async () => {
    await sign({ entryId: 'nowhere', csr: await newKey().csr() })
    expect(rig.audited().at(-1)).toBe('svid.refused')
  })

  test('a certificate ends with its entry', async () => {
    await rig.give(agent, { id: 'ending', expiresAt: rig.clock.now() + minutes(10) })
    const [outcome] = await sign({ entryId: 'ending', csr: await newKey().csr() })
    expect((outcome as { svid: { notAfter: number } }).svid.notAfter).toBe(rig.clock.now() + minutes(10) - seconds(1))
  })

  test('a bad request spoils its own answer only, and the answers keep their order', async () => {
    await rig.give(agent, { id: 'web' })
    const outcomes = await sign(
      { entryId: 'web', csr: await newKey().csr() },
      { entryId: 'nowhere', csr: await newKey().csr() },
      { entryId: 'web', csr: await forgedCsr() },
      { entryId: 'web', csr: Buffer.from('junk') },
      { entryId: 'web', csr: await newKey().csr() },
    )
    expect(reasons(outcomes)).toEqual([
      'issued',
      'server.not-entitled',
      'x509.request-signature',
      expect.stringMatching(/^der\./),
      'issued',
    ])
  })

  test('R-3 carry what the entry says and the key of the request, nothing else of it', async () => {
    await rig.give(agent, { id: 'web', dnsNames: ['web.example.org'], x509SvidTtl: minutes(7), hint: 'h' })
    const key = newKey()
    const [outcome] = await sign({
      entryId: 'web',
      csr: await key.csr({ uris: ['spiffe://example.org/admin'], dnsNames: ['evil.example'] }),
    })
    if (!outcome || outcome instanceof Failure) throw new Error('refused')
    const leaf = outcome.svid.chain[0]!
    expect(leaf.subjectAltName).toMatchObject({ uris: ['spiffe://example.org/web'], dnsNames: ['web.example.org'] })
    expect(Buffer.from(leaf.spki).equals(key.spki)).toBe(true)
    // RFC 5280 counts the last second in.
    expect(leaf.notAfter - rig.clock.now()).toBe(minutes(7) - seconds(1))
    expect(outcome.entry.hint).toBe('h')
  })

  test('carry the subject that the entry adds', async () => {
    await rig.give(agent, { id: 'web', subject: { organizationalUnit: 'Storage' } })
    const [outcome] = await sign({ entryId: 'web', csr: await newKey().csr() })
    if (!outcome || outcome instanceof Failure) throw new Error('refused')
    expect(outcome.svid.chain[0]!.subject.text).toBe('OU=Storage,O=Vidimus')
  })

  test('R-37 are not handed out when the audit trail cannot be written', async () => {
    await rig.give(agent, { id: 'web' })
    rig.breakAudit()
    const [outcome] = await sign({ entryId: 'web', csr: await newKey().csr() })
    expect(outcome).toBeInstanceOf(Failure)
  })
})

describe('tokens for workloads', () => {
  const sign = (entryId: string, audience: string[]) => issueJwtSvid(rig.server, agent.node, entryId, audience, never)

  test.each([
    ['no audience', [], 'server.no-audience'],
    ['an empty audience', [''], 'server.bad-audience'],
    ['33 audiences', Array.from({ length: 33 }, (_, i) => `a${i}`), 'server.bad-audience'],
    ['an audience of 2049 characters', ['a'.repeat(2049)], 'server.bad-audience'],
  ])('are refused for %s', async (_, audience, reason) => {
    await rig.give(agent, { id: 'web' })
    await expect(sign('web', audience)).rejects.toMatchObject({ reason })
  })

  test('are refused for an entry that is not the agents', async () => {
    await expect(sign('nowhere', ['a'])).rejects.toMatchObject({ reason: 'server.not-entitled' })
  })

  test('carry the identity of the entry, its lifetime and its claims', async () => {
    await rig.give(agent, { id: 'web', jwtSvidTtl: minutes(3), claims: { tier: 'gold' } })
    const { svid } = await sign('web', ['orders', 'payments'])
    const claims = JSON.parse(Buffer.from(svid.token.split('.')[1]!, 'base64url').toString()) as Record<string, unknown>
    expect(claims).toMatchObject({ sub: 'spiffe://example.org/web', aud: ['orders', 'payments'], tier: 'gold' })
    expect(svid.expiresAt - svid.issuedAt).toBe(minutes(3))
  })
})

describe('WIT-SVIDs', () => {
  const spki = newKey().spki
  const mint = { spiffeId: parseSpiffeId('spiffe://example.org/job'), lifetime: minutes(1), publicKey: spki }

  test('are refused as a whole where they are off', async () => {
    await rig.give(agent, { id: 'web' })
    const off = { category: 'unimplemented', reason: 'ca.wit-off' }
    await expect(issueWitSvids(rig.server, agent.node, [{ entryId: 'web', publicKey: spki }], never)).rejects.toMatchObject(off)
    await expect(issueWitSvids(rig.server, agent.node, [], never)).rejects.toMatchObject(off)
    await expect(mintWitSvid(rig.server, mint, operator, never)).rejects.toMatchObject(off)
  })

  describe('where they are on', () => {
    beforeEach(async () => {
      await rig[Symbol.asyncDispose]()
      rig = await openRig({ witSvid: true })
      agent = await rig.join()
    })

    test('more than 500 at once are refused as a whole', async () => {
      const wishes = Array.from({ length: 501 }, () => ({ entryId: 'x', publicKey: spki }))
      await expect(issueWitSvids(rig.server, agent.node, wishes, never)).rejects.toMatchObject({ reason: 'server.batch-too-large' })
    })

    test("one is refused by itself: for an entry of somebody else, a key that is none, and an algorithm that is none or not the key's", async () => {
      await rig.give(agent, { id: 'web', jwtSvidTtl: minutes(2), hint: 'h' })
      const outcomes = await issueWitSvids(
        rig.server,
        agent.node,
        [
          { entryId: 'nowhere', publicKey: spki },
          { entryId: 'web', publicKey: Buffer.from('junk') },
          { entryId: 'web', publicKey: spki, signingAlgorithm: 'none' },
          { entryId: 'web', publicKey: spki, signingAlgorithm: 'RS256' },
          { entryId: 'web', publicKey: spki, signingAlgorithm: 'ES256' },
        ],
        never,
      )
      expect(outcomes.map((one) => (one instanceof Failure ? one.reason : one.svid.spiffeId))).toEqual([
        'server.not-entitled',
        'ca.proof-key',
        'ca.proof-key',
        'ca.proof-key',
        'spiffe://example.org/web',
      ])
    })

    test('C-12 are not bound to a key of the CA', async () => {
      const [root] = rig.server.ca.bundle.current.x509Authorities
      const wish = { ...mint, publicKey: root!.certificate.spki }
      await expect(mintWitSvid(rig.server, wish, operator, never)).rejects.toMatchObject({ reason: 'ca.authority-key' })
    })

    test('W-19 are signed by a key that is announced for them alone, and live as an entry says', async () => {
      await rig.give(agent, { id: 'web', jwtSvidTtl: minutes(2), claims: { tier: 'gold' } })
      const [outcome] = await issueWitSvids(rig.server, agent.node, [{ entryId: 'web', publicKey: spki }], never)
      if (!outcome || outcome instanceof Failure) throw new Error('refused')
      const bundle = rig.server.ca.bundle.current
      const verified = await verifyWitSvid(outcome.svid.token, bundleSet([bundle]), rig.clock.now())
      expect(verified).toMatchObject({
        spiffeId: 'spiffe://example.org/web',
        expiresAt: rig.clock.now() + minutes(2),
        claims: { tier: 'gold' },
      })
      expect(bundle.witAuthorities.map(({ keyId }) => keyId)).not.toEqual(bundle.jwtAuthorities.map(({ keyId }) => keyId))
      expect(rig.audited()).toContain('wit-svid.issued')
    })

    test('an operator mints one that no entry provides for', async () => {
      const { token } = await mintWitSvid(rig.server, mint, operator, never)
      const verified = await verifyWitSvid(token, bundleSet([rig.server.ca.bundle.current]), rig.clock.now())
      expect(verified.spiffeId).toBe('spiffe://example.org/job')
    })
  })
})
