import { describe, expect, test } from 'vitest'
import type { IssuedX509Svid } from '../../src/ca/certificate-authority.ts'
import { memory } from '../../src/ca/keys/memory.ts'
import type { KeyManager } from '../../src/ca/key-manager.ts'
import { parseRecord } from '../../src/ca/journal.ts'
import type { UpstreamAuthority } from '../../src/ca/upstream-authority.ts'
import { keyIdentifierOf } from '../../src/ca/x509-authority.ts'
import { days, hours, minutes } from '../../src/kernel/duration.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { parseCertificateRequest, proven, type ProvenKey } from '../../src/x509/certificate-request.ts'
import { FakeJournal } from '../fakes/journal.ts'
import { TestCa } from '../support/test-ca.ts'
import { never, openTestAuthority, pass, provenKey, testWorld, whileFresh, workload, type TestAuthority } from './support.ts'

const key: ProvenKey = await provenKey()
const by = { caller: 'local uid 0' }
const issue = ({ ca }: TestAuthority): Promise<IssuedX509Svid> =>
  ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key, context: {} }, never)
const isTrusted = ({ ca, world }: TestAuthority, svid: IssuedX509Svid): boolean => {
  try {
    verifyX509Svid(svid.chain, bundleSet([ca.bundle.current]), world.clock.now())
    return true
  } catch {
    return false
  }
}
const tainted = ({ ca }: TestAuthority) =>
  ca.bundle.current.x509Authorities.filter((one) => one.tainted).map(({ certificate }) => keyIdentifierOf(certificate))

describe('an operator who is too early', () => {
  test.each(['x509', 'jwt', 'wit'] as const)(
    'cannot activate, taint or revoke a %s authority out of turn, and is told the next step',
    async (kind) => {
      await using opened = await openTestAuthority({ witSvid: true })
      const { authorities } = opened.ca
      const { active } = authorities.state(kind)
      await expect(authorities.activate(kind, 'x', by)).rejects.toMatchObject({
        reason: 'authority.none-prepared',
        message: expect.stringContaining('prepare one first') as string,
      })
      await expect(authorities.taint(kind, active!.id, by)).rejects.toMatchObject({
        reason: 'authority.not-old',
        message: expect.stringContaining('is active: prepare and activate another first') as string,
      })
      const prepared = await authorities.prepare(kind, by, never)
      await expect(authorities.activate(kind, active!.id, by)).rejects.toMatchObject({
        reason: 'authority.not-prepared',
        message: expect.stringContaining(prepared.id) as string,
      })
      await expect(authorities.taint(kind, prepared.id, by)).rejects.toMatchObject({ reason: 'authority.not-old' })
      await authorities.activate(kind, prepared.id, by)
      await expect(authorities.revoke(kind, active!.id, by, never)).rejects.toMatchObject({ reason: 'authority.not-tainted' })
      await authorities.taint(kind, active!.id, by)
      await expect(authorities.taint(kind, active!.id, by)).rejects.toMatchObject({ reason: 'authority.already-tainted' })
      await expect(authorities.taint(kind, 'nobody', by)).rejects.toMatchObject({
        reason: 'authority.not-old',
        message: expect.stringContaining(active!.id) as string,
      })
    },
  )

  test('cannot distrust a root where there is none above', async () => {
    await using opened = await openTestAuthority()
    await expect(opened.ca.authorities.taintRoot('00', by)).rejects.toMatchObject({ reason: 'authority.no-upstream' })
    await expect(opened.ca.authorities.revokeRoot('00', by)).rejects.toMatchObject({ reason: 'authority.no-upstream' })
  })

  test('cannot fill the bundle: after eight rotations the old ones have to go first', async () => {
    await using opened = await openTestAuthority()
    const { authorities } = opened.ca
    for (let round = 0; round < 8; round++) await authorities.activate('jwt', (await authorities.prepare('jwt', by, never)).id, by)
    await expect(authorities.prepare('jwt', by, never)).rejects.toMatchObject({ reason: 'authority.too-many' })
    expect(opened.ca.bundle.current.jwtAuthorities).toHaveLength(9)
  })
})

describe('a forced rotation', () => {
  test('C-28 announces, changes over, taints and ends the trust, each step in the bundle, the trail and the journal', async () => {
    const journal = new FakeJournal()
    await using opened = await openTestAuthority({ journal })
    const { authorities } = opened.ca
    const before = await issue(opened)
    const first = authorities.state('x509').active!
    const sequences = [opened.ca.bundle.current.sequence]
    const prepared = await authorities.prepare('x509', by, never)
    expect(opened.ca.bundle.current.x509Authorities).toHaveLength(2)
    expect((await issue(opened)).chain[0]!.authorityKeyId).toEqual(before.chain[0]!.authorityKeyId)
    sequences.push(opened.ca.bundle.current.sequence)

    await authorities.activate('x509', prepared.id, by)
    const after = await issue(opened)
    expect(after.chain[0]!.authorityKeyId).not.toEqual(before.chain[0]!.authorityKeyId)
    expect([isTrusted(opened, before), isTrusted(opened, after), tainted(opened)]).toEqual([true, true, []])
    expect(authorities.state('x509')).toMatchObject({ active: { id: prepared.id }, old: { id: first.id } })

    await authorities.taint('x509', first.id, by)
    expect([isTrusted(opened, before), tainted(opened)]).toEqual([true, [first.id]])
    sequences.push(opened.ca.bundle.current.sequence)

    await authorities.revoke('x509', first.id, by, never)
    expect([isTrusted(opened, before), isTrusted(opened, after), tainted(opened)]).toEqual([false, true, []])
    sequences.push(opened.ca.bundle.current.sequence)
    expect(new Set(sequences).size).toBe(4)
    expect(sequences).toEqual(sequences.toSorted((a, b) => Number(a - b)))

    const events = opened.audit.map((line) => (JSON.parse(line) as { event: { what: string; fields: Record<string, string> } }).event)
    for (const what of ['authority.prepared', 'authority.published', 'authority.activated', 'authority.tainted', 'authority.revoked'])
      expect(
        events.filter((event) => event.what === what && event.fields['caller'] === by.caller),
        what,
      ).toHaveLength(1)
  })

  test('replaces an authority that was announced and has not signed', async () => {
    await using opened = await openTestAuthority()
    const { authorities } = opened.ca
    const one = await authorities.prepare('x509', by, never)
    const other = await authorities.prepare('x509', by, never)
    expect(other.id).not.toBe(one.id)
    expect(opened.ca.bundle.current.x509Authorities).toHaveLength(2)
    await expect(authorities.activate('x509', one.id, by)).rejects.toMatchObject({ reason: 'authority.not-prepared' })
  })

  test('R-38 Q-26 a revoked authority stays away over a restart, and its key is destroyed at once', async () => {
    const world = testWorld()
    const [keys, journal] = [await memory.open({}, world), new FakeJournal()]
    const opened = await openTestAuthority({ world, keys, journal })
    const { authorities } = opened.ca
    const backup = (await journal.read('server'))!.record
    const keyId = parseRecord(backup).x509.active!.keyId
    const first = authorities.state('x509').active!
    await authorities.activate('x509', (await authorities.prepare('x509', by, never)).id, by)
    await authorities.taint('x509', first.id, by)
    await authorities.revoke('x509', first.id, by, never)
    const bundle = opened.ca.bundle.current
    await opened[Symbol.asyncDispose]()
    expect(await keys.find(keyId, never)).toBeUndefined()
    {
      await using again = await openTestAuthority({ world, keys, journal })
      expect(again.ca.bundle.current.x509Authorities.map(({ certificate }) => certificate.serial)).toEqual(
        bundle.x509Authorities.map(({ certificate }) => certificate.serial),
      )
    }
    const restored = new FakeJournal()
    await restored.write('server', backup, 0n)
    await using old = await openTestAuthority({ world, keys, journal: restored })
    expect((await issue(old)).chain[0]!.authorityKeyId && old.ca.authorities.state('x509').active!.id).not.toBe(first.id)
  })

  test('goes on by itself after a forced preparation that nobody follows up', async () => {
    await using opened = await openTestAuthority({ profile: { ca: { lifetime: hours(10) } } })
    const prepared = await opened.ca.authorities.prepare('x509', by, never)
    await whileFresh(opened.ca, async () => {
      for (let minute = 0; minute < 502; minute++) await pass(opened.world, minutes(1))
    })
    expect(opened.ca.authorities.state('x509').active!.id).toBe(prepared.id)
  })
})

describe('C-22 a key that is no longer needed', () => {
  const forgetOne = async (keys: KeyManager, journal: FakeJournal) => {
    const opened = await openTestAuthority({ keys, journal, world: testWorld() })
    const replaced = parseRecord((await journal.read('server'))!.record).jwt.active!.keyId
    const { authorities } = opened.ca
    await authorities.activate('jwt', (await authorities.prepare('jwt', by, never)).id, by)
    return { opened, replaced }
  }

  test('is destroyed fourteen days after the last mention of it, and announced in the log before', async () => {
    const journal = new FakeJournal()
    const keys = await memory.open({}, testWorld())
    const { opened, replaced } = await forgetOne(keys, journal)
    await whileFresh(opened.ca, async () => {
      for (let hour = 0; hour < 26; hour++) await pass(opened.world, hours(1))
      expect(opened.ca.bundle.current.jwtAuthorities.length, 'the old one is forgotten').toBeLessThanOrEqual(3)
      expect(opened.world.log.lines.some((line) => line.includes('it will be destroyed') && line.includes(replaced))).toBe(true)
      for (let day = 0; day < 13; day++) await pass(opened.world, days(1))
      expect(await keys.find(replaced, never)).toBeDefined()
      for (let hour = 0; hour < 26; hour++) await pass(opened.world, hours(1))
      expect(await keys.find(replaced, never)).toBeUndefined()
    })
    expect(opened.audit.some((line) => line.includes('key.destroyed') && line.includes(replaced))).toBe(true)
    await opened[Symbol.asyncDispose]()
  })

  test('stays if the journal of another server names it', async () => {
    const journal = new FakeJournal()
    const keys = await memory.open({}, testWorld())
    const { opened, replaced } = await forgetOne(keys, journal)
    await journal.write('other', JSON.stringify({ keyId: replaced }), 0n)
    await whileFresh(opened.ca, async () => {
      for (let day = 0; day < 20; day++) await pass(opened.world, days(1))
    })
    expect(await keys.find(replaced, never)).toBeDefined()
    expect(opened.world.log.lines.some((line) => line.includes("another server's journal names the key"))).toBe(true)
    await opened[Symbol.asyncDispose]()
  })
})

describe('a root above us', () => {
  /** An upstream whose root can be exchanged. */
  async function upstream(): Promise<UpstreamAuthority & { root: TestCa }> {
    const at = testWorld().clock.now()
    return {
      root: await TestCa.create({ at, lifetime: days(30), name: 'one' }),
      async mint(this: { root: TestCa }, { csr, lifetime }) {
        const { spki } = await proven(parseCertificateRequest(await csr()))
        const { certificate } = await this.root.intermediate({ name: 'ours', spki, notAfter: at + lifetime })
        return { chain: [certificate], roots: [this.root.certificate], warnings: [] }
      },
      async [Symbol.asyncDispose]() {},
    }
  }

  test('is left by preparing under another, activating, tainting and revoking, and nothing is accepted under it again', async () => {
    const above = await upstream()
    await using opened = await openTestAuthority({ upstream: above })
    const { authorities } = opened.ca
    const before = await issue(opened)
    const { id, upstreamId: first } = authorities.state('x509').active!
    const old = above.root
    expect(first).toBe(keyIdentifierOf(old.certificate))
    await expect(authorities.taintRoot(first!, by)).rejects.toMatchObject({ reason: 'authority.root-in-use' })
    await expect(authorities.taintRoot('00', by)).rejects.toMatchObject({ reason: 'authority.unknown-root' })

    above.root = await TestCa.create({ at: opened.world.clock.now(), lifetime: days(30), name: 'two' })
    await authorities.activate('x509', (await authorities.prepare('x509', by, never)).id, by)
    await expect(authorities.taint('x509', id, by)).rejects.toMatchObject({ reason: 'authority.under-upstream' })
    await expect(authorities.revokeRoot(first!, by)).rejects.toMatchObject({ reason: 'authority.not-tainted' })
    await authorities.taintRoot(first!, by)
    expect([tainted(opened), isTrusted(opened, before)]).toEqual([[first], true])
    await authorities.revokeRoot(first!, by)
    expect([tainted(opened), isTrusted(opened, before), isTrusted(opened, await issue(opened))]).toEqual([[], false, true])

    above.root = old
    await expect(authorities.prepare('x509', by, never)).rejects.toMatchObject({ reason: 'upstream.distrusted-root' })
    expect(isTrusted(opened, await issue(opened))).toBe(true)
  })
})

test('two operators at once are served one after the other', async () => {
  await using opened = await openTestAuthority()
  const { authorities } = opened.ca
  const made = await Promise.all([
    authorities.prepare('jwt', by, never),
    authorities.prepare('jwt', by, never),
    authorities.prepare('x509', by, never),
  ])
  expect(authorities.state('jwt').prepared!.id).toBe(made[1].id)
  expect(opened.ca.bundle.current.jwtAuthorities).toHaveLength(2)
  await whileFresh(opened.ca, () => pass(opened.world, minutes(1)))
})
