import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { NodeVerifier, ProvenNode } from '../../src/attestation/node-attestor.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { attestAgent } from '../../src/server/attest-agent.ts'
import { banNode, deleteNode, releaseNode } from '../../src/server/manage-nodes.ts'
import { createJoinToken } from '../../src/server/manage-tokens.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { outcomes } from '../store/sample.ts'
import { forgedCsr, never, newKey, noChallenge, openRig, operator, type Rig } from './rig.ts'

let rig: Rig
beforeEach(async () => {
  rig = await openRig()
})
afterEach(() => rig[Symbol.asyncDispose]())

const attest = async (
  payload: string,
  csr?: Uint8Array,
  type = 'join_token',
  ask: (challenge: Uint8Array) => Promise<Uint8Array> = noChallenge,
) => attestAgent(rig.server, { type, payload: Buffer.from(payload), csr: csr ?? (await newKey().csr()) }, ask, '192.0.2.1', never)
const token = async (ttl = minutes(1)) => (await createJoinToken(rig.server, { ttl }, operator)).token.reveal()

describe('a node that joins with a token', () => {
  test('is refused with a token that nobody made, and the refusal is in the trail', async () => {
    await expect(attest('made-up')).rejects.toMatchObject({ reason: 'join-token.not-accepted', category: 'permission_denied' })
    expect(rig.audited()).toContain('node.refused')
  })

  test('is refused with a token that has expired, to the second', async () => {
    const late = await token(seconds(10))
    await rig.clock.advance(seconds(10))
    await expect(attest(late)).rejects.toMatchObject({ reason: 'join-token.not-accepted' })
  })

  test('A-13 R-19 of a hundred who show the same token exactly one is admitted', async () => {
    const shared = await token()
    const { values, errors } = await outcomes(Array.from({ length: 100 }, () => attest(shared)))
    expect([values.length, errors.length]).toEqual([1, 99])
    expect(await rig.store.nodes.count({})).toBe(1)
  })

  test('R-4 is refused with a request that its key did not sign, and may use the token again', async () => {
    const good = await token()
    await expect(attest(good, await forgedCsr())).rejects.toMatchObject({ reason: 'x509.request-signature' })
    await expect(attest(good, Buffer.from('no request'))).rejects.toMatchObject({ category: 'invalid_argument' })
    await expect(attest(good)).resolves.toBeDefined()
  })

  test('R-3 gets the identity of its token whatever its request says', async () => {
    const csr = await newKey().csr({ uris: ['spiffe://example.org/spire/server'], dnsNames: ['evil.example'] })
    const { svid, reattestable } = await attest(await token(), csr)
    expect(svid.spiffeId).toMatch(/^spiffe:\/\/example\.org\/spire\/agent\/join_token\/[0-9a-f-]{36}$/)
    expect(svid.chain[0]?.subjectAltName).toMatchObject({ uris: [svid.spiffeId], dnsNames: [] })
    expect(reattestable).toBe(false)
    expect(await rig.store.nodes.find(svid.spiffeId)).toMatchObject({
      serial: svid.serial,
      expiresAt: svid.notAfter,
      banned: false,
      attestationType: 'join_token',
    })
    expect(rig.audited()).toContain('node.attested')
  })

  test('R-37 is not admitted when the audit trail cannot be written', async () => {
    const good = await token()
    rig.breakAudit()
    await expect(attest(good)).rejects.toMatchObject({ reason: 'audit.sink-failed' })
    expect(await rig.store.nodes.count({})).toBe(0)
  })

  test('C-29 a frozen node stays out, whatever its evidence, until it is released', async () => {
    const { node } = await rig.join('abc')
    const seen = { serial: 'ff', address: '192.0.2.7' }
    await rig.store.nodes.change(node.id, (found) => ({ ...found, frozen: { at: 1, superseded: seen, successor: seen } }))
    await createJoinToken(rig.server, { ttl: minutes(1), token: 'abc' }, operator)
    await expect(attest('abc')).rejects.toMatchObject({ reason: 'server.agent-cloned' })
    await releaseNode(rig.server, node.id, operator)
    await createJoinToken(rig.server, { ttl: minutes(1), token: 'abc' }, operator)
    const { svid } = await attest('abc')
    expect(await rig.store.nodes.find(node.id)).toMatchObject({ serial: svid.serial, superseded: [] })
  })

  test('a banned node stays out until it is deleted', async () => {
    const { node } = await rig.join('abc')
    await banNode(rig.server, node.id, operator)
    await createJoinToken(rig.server, { ttl: minutes(1), token: 'abc' }, operator)
    await expect(attest('abc')).rejects.toMatchObject({ reason: 'server.agent-banned' })
    expect(await rig.store.nodes.find(node.id)).toMatchObject({ banned: true, serial: '' })
    await deleteNode(rig.server, node.id, operator)
    await createJoinToken(rig.server, { ttl: minutes(1), token: 'abc' }, operator)
    await expect(attest('abc')).resolves.toBeDefined()
  })
})

describe('the conversation', () => {
  const proving = (verify: NodeVerifier['verify']): NodeVerifier => ({ verify, async [Symbol.asyncDispose]() {} })
  const node: ProvenNode = { id: parseSpiffeId('spiffe://example.org/spire/agent/join_token/x'), selectors: [], canReattest: false }

  test('evidence of a type that is not configured is refused before anybody looks at it', async () => {
    await expect(attest('x', undefined, 'tpm')).rejects.toMatchObject({ reason: 'attest.unknown-type' })
    await expect(attest('x', undefined, '../x')).rejects.toMatchObject({ reason: 'handshake.bad-type' })
  })

  test('evidence that is no admission by itself is refused without a policy that admits, and admitted with one', async () => {
    const selectors = ['x509pop:subject:cn:web-1', 'x509pop:ca:fingerprint:ab'].map(parseSelector)
    const id = parseSpiffeId('spiffe://example.org/spire/agent/x509pop/web-1')
    rig.verifiers.set(
      'x509pop',
      proving(async () => ({ id, selectors, canReattest: true })),
    )
    const onboarding = (name: string, spec: object) => ({
      name,
      text: JSON.stringify({
        apiVersion: 'vidimus.dev/v1',
        kind: 'AuthorizationPolicy',
        metadata: { name },
        spec: { target: 'onboarding', ...spec },
      }),
    })
    const byName = (value: string) => ({ rules: [{ when: [{ key: 'attested.x509pop.subject:cn', values: [value] }] }] })
    const apply = async (...documents: { name: string; text: string }[]) => {
      const { policies, clock } = rig.server
      await policies.putInForce(await policies.check({ documents, options: {} }, clock.now()), { at: clock.now(), by: 'test' })
    }
    await expect(attest('x', undefined, 'x509pop')).rejects.toMatchObject({ reason: 'attest.not-admitted' })
    await apply(onboarding('db', byName('db-*')))
    await expect(attest('x', undefined, 'x509pop')).rejects.toMatchObject({ reason: 'attest.not-admitted' })
    await apply(onboarding('web', byName('web-*')), onboarding('not-1', { action: 'DENY', ...byName('web-1') }))
    await expect(attest('x', undefined, 'x509pop')).rejects.toMatchObject({ reason: 'attest.not-admitted' })
    await apply(onboarding('web', byName('web-*')))
    await expect(attest('x', undefined, 'x509pop')).resolves.toMatchObject({ svid: { spiffeId: id } })
  })

  test.each([
    'spiffe://other.org/spire/agent/join_token/x',
    'spiffe://example.org/spire/server',
    'spiffe://example.org/spire/agent/other/x',
    'spiffe://example.org/web',
  ])('R-2 a verifier that says the node is %s is not believed', async (id) => {
    rig.verifiers.set(
      'join_token',
      proving(async () => ({ ...node, id: parseSpiffeId(id) })),
    )
    await expect(attest('x')).rejects.toMatchObject({ reason: 'attest.bad-verdict', message: 'internal error' })
  })

  test('ends after four challenges', async () => {
    rig.verifiers.set(
      'join_token',
      proving(async (_payload, ask) => {
        for (;;) await ask(Buffer.from('again'))
      }),
    )
    let asked = 0
    const ask = async () => Buffer.from(`answer ${++asked}`)
    await expect(attest('x', undefined, undefined, ask)).rejects.toMatchObject({ reason: 'handshake.too-many-challenges' })
    expect(asked).toBe(4)
  })

  test('ends when the answer takes too long', async () => {
    rig.verifiers.set(
      'join_token',
      proving(async (_payload, ask) => ask(Buffer.from('?')).then(() => node)),
    )
    const slow = async () => {
      await rig.clock.advance(hours(1))
      return Buffer.from('!')
    }
    await expect(attest('x', undefined, undefined, slow)).rejects.toMatchObject({ reason: 'handshake.too-late' })
  })

  test('carries challenges and answers, and records the selectors that were proven', async () => {
    rig.verifiers.set(
      'join_token',
      proving(async (payload, ask) => {
        expect(Buffer.from(payload).toString()).toBe('evidence')
        expect(Buffer.from(await ask(Buffer.from('2 + 2'))).toString()).toBe('4')
        return { ...node, selectors: ['n:2', 'n:1', 'n:2'].map(parseSelector), canReattest: true }
      }),
    )
    const { svid, reattestable } = await attest('evidence', undefined, undefined, async (challenge) => {
      expect(Buffer.from(challenge).toString()).toBe('2 + 2')
      return Buffer.from('4')
    })
    expect(reattestable).toBe(true)
    expect((await rig.store.nodes.find(svid.spiffeId))?.selectors).toEqual(['n:1', 'n:2'].map(parseSelector))
  })
})
