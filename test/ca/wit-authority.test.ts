import { describe, expect, test } from 'vitest'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { verifyWitSvid } from '../../src/spiffe/wit-svid.ts'
import { memory } from '../../src/ca/keys/memory.ts'
import { FakeJournal } from '../fakes/journal.ts'
import { never, openTestAuthority, pass, provenKey, testWorld, whileFresh, workload, type TestAuthority } from './support.ts'

const { spki: proofKey } = await provenKey()
const issue = ({ ca }: TestAuthority, more: object = {}) =>
  ca.issueWitSvid({ spiffeId: workload, proofKey, context: { caller: 'test' }, ...more }, never)

describe('a CA without WIT-SVIDs', () => {
  test('issues none, and announces no key for them', async () => {
    await using opened = await openTestAuthority()
    await expect(issue(opened)).rejects.toMatchObject({ category: 'unimplemented', reason: 'ca.wit-off' })
    expect(opened.ca.bundle.current.witAuthorities).toEqual([])
    expect(() => opened.ca.authorities.state('wit')).toThrow('`experimental.witSvid: true`')
  })

  test('lets the keys run out that it had while they were on, and trusts them until they end', async () => {
    const world = testWorld()
    const [keys, journal] = [await memory.open({}, world), new FakeJournal()]
    const before = await openTestAuthority({ world, keys, journal, witSvid: true })
    const { token } = await issue(before)
    await before[Symbol.asyncDispose]()
    await using after = await openTestAuthority({ world, keys, journal })
    expect((await verifyWitSvid(token, bundleSet([after.ca.bundle.current]), world.clock.now())).spiffeId).toBe(workload)
    await whileFresh(after.ca, async () => {
      for (let hour = 0; hour < 26; hour++) await pass(world, hours(1))
    })
    expect(after.ca.bundle.current.witAuthorities).toEqual([])
    expect(after.ca.complaints()).toEqual([])
  })
})

describe('a CA with WIT-SVIDs', () => {
  test.each([
    ['an identity of somebody else', { spiffeId: parseSpiffeId('spiffe://other.org/web') }, 'ca.foreign-trust-domain'],
    ['a trust domain', { spiffeId: parseSpiffeId('spiffe://example.org') }, 'ca.no-path'],
    ['a life of two hours', { lifetime: hours(2) }, 'ca.lifetime-too-long'],
    ['a life of half a second', { lifetime: seconds(0.5) }, 'ca.lifetime-too-short'],
    ['proofs without a signature', { proofAlgorithm: 'none' }, 'ca.proof-key'],
    ['a key that is none', { proofKey: Uint8Array.of(1, 2, 3) }, 'ca.proof-key'],
  ])('refuses %s, and the trail says so', async (_, more, reason) => {
    await using opened = await openTestAuthority({ witSvid: true })
    await expect(issue(opened, more)).rejects.toMatchObject({ reason })
    expect(opened.audit.at(-1)).toContain(reason)
  })

  test('R-37 hands nothing out that the trail does not know', async () => {
    let isFull = false
    await using opened = await openTestAuthority({
      witSvid: true,
      onAudit: () => {
        if (isFull) throw new Error('the disk is full')
      },
    })
    isFull = true
    await expect(issue(opened)).rejects.toMatchObject({ reason: expect.stringMatching(/^audit\./) as string })
  })

  test('W-15 C-21 binds the token to the key, for a life in whole seconds that its authority outlives', async () => {
    await using opened = await openTestAuthority({
      witSvid: true,
      profile: { ca: { lifetime: minutes(10) }, svid: { jwtLongest: hours(1), x509: minutes(1) } },
    })
    const { token, issuedAt, expiresAt } = await issue(opened, { lifetime: hours(1), proofAlgorithm: 'ES256' })
    const verified = await verifyWitSvid(token, bundleSet([opened.ca.bundle.current]), opened.world.clock.now())
    expect(verified.claims).toMatchObject({ sub: workload, cnf: { jwk: { kty: 'EC', alg: 'ES256' } } })
    expect(verified.claims['aud']).toBeUndefined()
    expect([issuedAt % 1000, expiresAt % 1000]).toEqual([0, 0])
    expect(expiresAt).toBeLessThanOrEqual(opened.ca.bundle.current.witAuthorities[0]!.expiresAt!)
  })

  test('rotates its key without a gap: who knows the bundle of five seconds ago accepts what is signed now', async () => {
    const profile = { ca: { lifetime: minutes(1) }, svid: { x509: seconds(20), jwt: seconds(10) } }
    await using opened = await openTestAuthority({ witSvid: true, profile, refreshHint: seconds(5) })
    const { ca, world } = opened
    const bundles = [ca.bundle.current]
    const signers = new Set<string | undefined>()
    await whileFresh(ca, async () => {
      for (let second = 0; second < 150; second++) {
        await pass(world, seconds(1))
        bundles.push(ca.bundle.current)
        const { token } = await issue(opened)
        const known = bundles[Math.max(0, bundles.length - 6)]!
        expect((await verifyWitSvid(token, bundleSet([known]), world.clock.now())).spiffeId).toBe(workload)
        signers.add(token.split('.')[0])
      }
    })
    expect(signers.size).toBeGreaterThan(2)
    expect(ca.bundle.current.witAuthorities.length).toBeLessThanOrEqual(5)
  })
})
