import { describe, expect, test } from 'vitest'
import { auditMetrics } from '../../src/audit/metrics.ts'
import { caMetrics } from '../../src/ca/metrics.ts'
import type { IssuedJwtSvid, IssuedX509Svid } from '../../src/ca/certificate-authority.ts'
import { parseRecord } from '../../src/ca/journal.ts'
import type { KeyManager } from '../../src/ca/key-manager.ts'
import { memory } from '../../src/ca/keys/memory.ts'
import type { KeyTypes, ProfileAsWritten } from '../../src/ca/profile.ts'
import type { MintedAuthority, UpstreamAuthority } from '../../src/ca/upstream-authority.ts'
import { selfSigned } from '../../src/ca/upstream/self-signed.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import type { TrustBundle } from '../../src/spiffe/bundle.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import type { Certificate } from '../../src/x509/certificate.ts'
import type { ProvenKey } from '../../src/x509/certificate-request.ts'
import { oid } from '../../src/x509/oid.ts'
import { FakeJournal } from '../fakes/journal.ts'
import { TestCa } from '../support/test-ca.ts'
import {
  never,
  openTestAuthority,
  pass,
  provenKey,
  testWorld,
  whileFresh,
  workload,
  type CaWishes,
  type TestAuthority,
  type TestWorld,
} from './support.ts'

const key: ProvenKey = await provenKey()
const short: ProfileAsWritten = { ca: { lifetime: minutes(1) }, svid: { x509: seconds(20), jwt: seconds(10) } }

const issueX509 = ({ ca }: TestAuthority): Promise<IssuedX509Svid> =>
  ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key, context: {} }, never)
const issueJwt = ({ ca }: TestAuthority): Promise<IssuedJwtSvid> =>
  ca.issueJwtSvid({ spiffeId: workload, audience: ['a'], context: {} }, never)
const verify = (svid: IssuedX509Svid, bundle: TrustBundle, at: number) => verifyX509Svid(svid.chain, bundleSet([bundle]), at).spiffeId
const roots = (bundle: TrustBundle): string[] => bundle.x509Authorities.map(({ certificate }) => certificate.serial)
const contentOf = (bundle: TrustBundle): string => [...roots(bundle), ...bundle.jwtAuthorities.map(({ keyId }) => keyId)].join()

interface Faltering extends UpstreamAuthority {
  isAway: boolean
  asked: number
}

const stranger = (): Promise<TestCa> => TestCa.create({ at: testWorld().clock.now(), name: 'stranger' })

/** An upstream that can be away. */
async function faltering(world: TestWorld): Promise<Faltering> {
  const real = await selfSigned.open({}, world)
  const upstream: Faltering = {
    ...real,
    isAway: false,
    asked: 0,
    mint(request, signal) {
      upstream.asked++
      if (!upstream.isAway) return real.mint(request, signal)
      return Promise.reject(new Failure('unavailable', 'upstream.unreachable', { public: 'the vault cannot be reached' }))
    },
  }
  return upstream
}

describe('authorities rotate', () => {
  test('a CA of one minute runs for five: who knows the bundle of five seconds ago accepts what is signed now, until it ends', async () => {
    await using opened = await openTestAuthority({ profile: short, refreshHint: seconds(5) })
    const { ca, world } = opened
    const bundles: TrustBundle[] = []
    const held: IssuedX509Svid[] = []
    const signers = new Set<string>()
    await whileFresh(ca, async () => {
      for (let second = 0; second < 300; second++) {
        await pass(world, seconds(1))
        const now = world.clock.now()
        bundles.push(ca.bundle.current)
        const known = bundles[Math.max(0, second - 5)]!
        const svid = await issueX509(opened)
        const jwt = await issueJwt(opened)
        expect(verify(svid, known, now)).toBe(workload)
        expect((await verifyJwtSvid(jwt.token, bundleSet([known]), 'a', now)).spiffeId).toBe(workload)
        expect(svid.notAfter + seconds(1) - now).toBeGreaterThanOrEqual(seconds(9))
        expect(jwt.expiresAt - now).toBeGreaterThanOrEqual(seconds(8))
        held.push(svid)
        for (const one of held.slice(-21)) if (one.notAfter >= now) expect(verify(one, ca.bundle.current, now)).toBe(workload)
        signers.add(svid.chain[0]!.issuer.text)
      }
    })
    expect(signers.size).toBeGreaterThan(5)
    expect(ca.bundle.current.x509Authorities.length).toBeLessThanOrEqual(5)
    expect(ca.complaints()).toEqual([])
    const sequences = bundles.map(({ sequence }) => sequence)
    expect(sequences).toEqual(sequences.toSorted((a, b) => Number(a - b)))
    for (const [place, one] of bundles.entries()) {
      const before = bundles[place - 1] ?? one
      expect(one.sequence === before.sequence).toBe(contentOf(one) === contentOf(before))
    }
  }, 60_000)

  test('the next authority is announced at half life and signs from five sixths on', async () => {
    await using opened = await openTestAuthority()
    const { ca, world } = opened
    const [first] = roots(ca.bundle.current)
    await whileFresh(ca, async () => {
      await pass(world, hours(12) - minutes(2))
      expect(roots(ca.bundle.current)).toEqual([first])
      await pass(world, minutes(3))
      const [, second] = roots(ca.bundle.current)
      expect(second).toBeDefined()
      await pass(world, hours(20) - minutes(2) - (hours(12) + minutes(1)))
      const early = await issueX509(opened)
      await pass(world, minutes(3))
      const late = await issueX509(opened)
      expect(early.chain[0]!.issuer.text).toContain(`SERIALNUMBER=${first}`)
      expect(late.chain[0]!.issuer.text).toContain(`SERIALNUMBER=${second}`)
      expect(verify(early, ca.bundle.current, world.clock.now())).toBe(workload)
    })
  })

  test('an upstream that is away is asked again and again, complained of, and forgiven', async () => {
    const world = testWorld()
    const upstream = await faltering(world)
    await using opened = await openTestAuthority({ world, upstream })
    const { ca } = opened
    upstream.isAway = true
    await whileFresh(ca, async () => {
      await pass(world, hours(12) + 1)
      for (let minute = 0; minute < 60; minute++) await pass(world, minutes(1))
      expect(ca.complaints()).toEqual([
        expect.stringMatching(/^the X.509 authority ends in 1[01]h.* and could not be kept fresh: the vault cannot be reached$/),
      ])
      expect(upstream.asked).toBeGreaterThan(50)
      expect(upstream.asked).toBeLessThan(1000)
      expect((await issueX509(opened)).notAfter).toBeGreaterThan(world.clock.now())
      upstream.isAway = false
      await pass(world, minutes(2))
      expect(ca.complaints()).toEqual([])
      expect(roots(ca.bundle.current)).toHaveLength(2)
    })
  })

  test.for<readonly [string, string, (good: MintedAuthority) => MintedAuthority | Promise<MintedAuthority>]>([
    ['V-5 without a chain', 'upstream.empty-chain', () => ({ chain: [], roots: [], warnings: [] })],
    ['V-5 without a root', 'upstream.empty-chain', (good) => ({ ...good, roots: [] })],
    ['V-5 with a root that did not sign', 'upstream.no-path', async (good) => ({ ...good, roots: [(await stranger()).certificate] })],
    ['V-6 for the key of somebody else', 'upstream.wrong-key', async (good) => ({ ...good, chain: [(await stranger()).certificate] })],
    [
      'V-6 with more certificates than anybody needs',
      'upstream.too-many-certificates',
      (good) => ({ ...good, chain: Array.from({ length: 17 }, () => good.chain[0]!) }),
    ],
  ])(
    'an upstream that answers %s is refused with `%s`, an event and a metric, and the CA in use goes on signing',
    async ([, reason, spoil]) => {
      const world = testWorld()
      const real = await selfSigned.open({}, world)
      let isGood = true
      const upstream: UpstreamAuthority = {
        ...real,
        mint: async (request, signal) => (isGood ? real.mint(request, signal) : spoil(await real.mint(request, signal))),
      }
      await using opened = await openTestAuthority({
        world,
        upstream,
        profile: { ca: { lifetime: hours(1) }, svid: { x509: minutes(10) } },
      })
      isGood = false
      await whileFresh(opened.ca, async () => {
        for (let minute = 0; minute < 40; minute++) await pass(world, minutes(1))
      })
      const recorded = opened.audit.filter((line) =>
        line.includes(`"what":"upstream.refused","outcome":"refused","fields":{"reason":"${reason}"}`),
      )
      expect(recorded.length).toBeGreaterThan(0)
      expect(world.meter.of(caMetrics.mintRefusals, { reason })).toBe(recorded.length)
      expect(world.meter.of(auditMetrics.refusals, { event: 'upstream.refused', reason })).toBe(recorded.length)
      expect(world.meter.of(caMetrics.rotationFailures, { kind: 'x509', reason })).toBe(recorded.length)
      expect((await issueX509(opened)).notAfter).toBeGreaterThan(world.clock.now())
    },
  )

  test('V-10 an upstream that is away until the end: one alarm at 60, 80 and 90 % of each life, in log, trail, complaints and metric, and no crash', async () => {
    const world = testWorld()
    const upstream = await faltering(world)
    await using opened = await openTestAuthority({ world, upstream })
    const { ca, audit } = opened
    const recorded = () => audit.filter((line) => line.includes('authority.ending')).map((line) => Number(/"percent":(\d+)/.exec(line)![1]))
    const level = () => world.meter.of(caMetrics.alarm, { kind: 'x509' })
    const logged = () => world.log.lines.filter((line) => line.includes('ca.authority-ending'))
    const passHours = async (count: number) => {
      for (let minute = 0; minute < 60 * count; minute += 2) await pass(world, minutes(2))
    }
    await whileFresh(ca, async () => {
      await passHours(11)
      expect(recorded()).toEqual([])
      expect(level()).toBe(0)
      upstream.isAway = true
      await passHours(4)
      expect(ca.complaints()).toEqual([
        expect.stringMatching(/^alarm at 60 % of its life: the X.509 authority ends in .* and could not be kept fresh: the vault/),
      ])
      expect(level()).toBe(0.6)
      await passHours(8)
      expect(recorded()).toEqual([60, 80, 90])
      expect(level()).toBe(0.9)
      expect(logged()).toHaveLength(3)
      expect((await issueX509(opened)).notAfter).toBeGreaterThan(world.clock.now())
      upstream.isAway = false
      await passHours(1)
      expect(ca.complaints()).toEqual([])
      upstream.isAway = true
      await passHours(26)
      expect(recorded()).toEqual([60, 80, 90, 60, 80, 90])
      expect(ca.complaints()).toEqual(['there is no X.509 authority: the vault cannot be reached'])
    })
  })
})

test('C-35 other types of keys are taken up by the next rotation, without a restart, and what the old ones signed stays good', async () => {
  let keyTypes: KeyTypes = { keyType: 'ec-p256', jwtKeyType: 'ec-p256' }
  const profile = { ca: { lifetime: hours(1) }, svid: { x509: minutes(10) } }
  await using opened = await openTestAuthority({ profile, keyTypes: () => keyTypes })
  const { ca, world } = opened
  const key = await provenKey()
  const order = { kind: 'workload', spiffeId: workload, key, context: {} } as const
  const algorithmOf = (token: string) => (JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()) as { alg: string }).alg
  const types = new Set<string>()
  await whileFresh(ca, async () => {
    for (let passed = 0; passed < 30; passed++) {
      const before = await ca.issueX509Svid(order, never)
      const { token } = await ca.issueJwtSvid({ spiffeId: workload, audience: ['a'], context: {} }, never)
      types.add(`${before.chain[0]!.signatureAlgorithm.oid} ${algorithmOf(token)}`)
      if (passed === 4) keyTypes = { keyType: 'ec-p384', jwtKeyType: 'rsa-2048' }
      await pass(world, minutes(4))
      const bundles = bundleSet([ca.bundle.current])
      expect(verifyX509Svid(before.chain, bundles, world.clock.now()).spiffeId).toBe(workload)
      expect((await verifyJwtSvid(token, bundles, 'a', world.clock.now())).spiffeId).toBe(workload)
    }
  })
  expect([...types].at(0)).toBe(`${oid.ecdsaWithSHA256} ES256`)
  expect([...types].at(-1)).toBe(`${oid.ecdsaWithSHA384} RS256`)
  expect(ca.complaints()).toEqual([])
})

describe('a server starts again', () => {
  test('with the same authorities, and a sequence that goes on', async () => {
    const world = testWorld()
    const keys = await memory.open({}, world)
    const journal = new FakeJournal()
    const before = await openTestAuthority({ world, keys, journal })
    const svid = await issueX509(before)
    const { sequence } = before.ca.bundle.current
    await before[Symbol.asyncDispose]()

    const written = journal.writes
    await using after = await openTestAuthority({ world, keys, journal })
    expect(journal.writes).toBe(written)
    expect(after.ca.bundle.current.sequence).toBe(sequence)
    expect(verify(svid, after.ca.bundle.current, world.clock.now())).toBe(workload)
    expect((await issueX509(after)).chain[0]!.issuer.text).toBe(svid.chain[0]!.issuer.text)
  })

  test('without its keys: other authorities sign, and what the lost ones signed stays valid', async () => {
    const world = testWorld()
    const journal = new FakeJournal()
    const before = await openTestAuthority({ world, journal })
    const svid = await issueX509(before)
    const { sequence } = before.ca.bundle.current

    await using after = await openTestAuthority({ world, journal })
    const again = await issueX509(after)
    expect(again.chain[0]!.issuer.text).not.toBe(svid.chain[0]!.issuer.text)
    for (const one of [svid, again]) expect(verify(one, after.ca.bundle.current, world.clock.now())).toBe(workload)
    expect(after.ca.bundle.current.sequence).toBeGreaterThan(sequence)
    expect(after.audit.join()).toContain('authority.retired')
    expect(world.log.lines.join()).toContain('the key of an authority is gone')
  })

  test('with another key under the name of its own: it is not used', async () => {
    const world = testWorld()
    const journal = new FakeJournal()
    const keys = await memory.open({}, world)
    const before = await openTestAuthority({ world, journal, keys })
    const svid = await issueX509(before)
    const { active } = parseRecord((await journal.read('server'))!.record).x509
    await keys.create(active!.keyId, 'ec-p256', never)
    await using after = await openTestAuthority({ world, journal, keys })
    expect((await issueX509(after)).chain[0]!.issuer.text).not.toBe(svid.chain[0]!.issuer.text)
  })

  test('not at all while its keys cannot be read: that is not the same as gone', async () => {
    const world = testWorld()
    const journal = new FakeJournal()
    const keys = await memory.open({}, world)
    await openTestAuthority({ world, journal, keys })
    const { record } = (await journal.read('server'))!
    const away: KeyManager = {
      ...keys,
      find: () => Promise.reject(new Failure('unavailable', 'keys.away', { public: 'the key manager is away' })),
    }
    await expect(openTestAuthority({ world, journal, keys: away })).rejects.toMatchObject({ reason: 'keys.away' })
    expect((await journal.read('server'))!.record).toBe(record)
  })

  test('not with a journal that is damaged', async () => {
    const journal = new FakeJournal()
    await journal.write('server', '{"version":2}', 0n)
    await expect(openTestAuthority({ journal })).rejects.toMatchObject({ reason: 'journal.unreadable' })
  })

  test('long after everything ended: it begins anew', async () => {
    const world = testWorld()
    const journal = new FakeJournal()
    const keys = await memory.open({}, world)
    const before = await openTestAuthority({ world, journal, keys })
    const { sequence } = before.ca.bundle.current
    await world.clock.advance(hours(24 * 30))
    await using after = await openTestAuthority({ world, journal, keys })
    expect(verify(await issueX509(after), after.ca.bundle.current, world.clock.now())).toBe(workload)
    expect(after.ca.bundle.current.x509Authorities).toHaveLength(1)
    expect(after.ca.bundle.current.sequence).toBeGreaterThan(sequence)
  })
})

test('two servers under one name are found out, and the second one changes nothing of the first', async () => {
  const world = testWorld()
  const journal = new FakeJournal()
  const keys = await memory.open({}, world)
  await using first = await openTestAuthority({ world, journal, keys })
  await using second = await openTestAuthority({ world, journal, keys })
  await whileFresh(first.ca, () => pass(world, hours(13)))
  const stored = (await journal.read('server'))!.record
  await whileFresh(second.ca, () => pass(world, minutes(5)))
  expect(second.ca.complaints().join()).toContain('another server writes the journal')
  expect(first.ca.complaints()).toEqual([])
  expect((await journal.read('server'))!.record).toBe(stored)
})

/** A machine whose power goes at the nth thing that it does outside of itself: just before it, or just after. */
class Machine {
  readonly #last: number
  done = 0
  off = false

  constructor(last: number) {
    this.#last = last
  }

  async does<T>(deed: () => Promise<T>): Promise<T> {
    this.#step()
    const result = await deed()
    this.#step()
    return result
  }

  #step(): void {
    if (this.off || ++this.done > this.#last) {
      this.off = true
      throw new Error('the power is off')
    }
  }
}

describe('Q-5 the power goes', () => {
  const whole = 1_000_000

  /** One life of a CA of a minute, over a rotation and a half, up to the power cut; then it starts again. */
  async function livesTwice(last: number): Promise<number> {
    const world = testWorld()
    const journal = new FakeJournal()
    const keys = await memory.open({}, world)
    const machine = new Machine(last)
    const issued: IssuedX509Svid[] = []
    const bundles: TrustBundle[] = []
    const upstream = await selfSigned.open({}, world)
    const made: string[] = []
    const wired: CaWishes = {
      world,
      profile: short,
      refreshHint: seconds(2),
      journal: {
        read: (id) => machine.does(() => journal.read(id)),
        write: (...record) => machine.does(() => journal.write(...record)),
        others: (id) => machine.does(() => journal.others(id)),
      },
      keys: {
        ...keys,
        create: (id, ...others) => machine.does(() => keys.create(id, ...others)).finally(() => made.push(id)),
        find: (...what) => machine.does(() => keys.find(...what)),
        remove: (...what) => machine.does(() => keys.remove(...what)),
      },
      upstream: { ...upstream, mint: (...request) => machine.does(() => upstream.mint(...request)) },
    }
    const first = await openTestAuthority(wired).catch(() => undefined)
    if (first) {
      bundles.push(first.ca.bundle.current)
      await whileFresh(first.ca, async () => {
        // What hangs on the machine is gone at once; the process itself lives for a moment longer, and must use nothing that was not written.
        for (let waited = 0, dying = 0; waited < 27 && dying < 2; waited++, dying += machine.off ? 1 : 0) {
          await pass(world, seconds(5))
          issued.push(await issueX509(first))
          bundles.push(first.ca.bundle.current)
        }
      })
    }

    await using second = await openTestAuthority({ world, profile: short, refreshHint: seconds(2), journal, keys })
    const now = world.clock.now()
    const { x509, jwt, spent } = parseRecord((await journal.read('server'))!.record)
    expect(x509.active).toBeDefined()
    expect(jwt.active).toBeDefined()
    // What was signed is still trusted, and so is what is signed now.
    for (const svid of [...issued, await issueX509(second)])
      if (svid.notAfter >= now) expect(verify(svid, second.ca.bundle.current, now)).toBe(workload)
    // Whoever got a bundle before never sees the same sequence with other content.
    const same = bundles.find(({ sequence }) => sequence === second.ca.bundle.current.sequence)
    if (same) expect(contentOf(same)).toEqual(contentOf(second.ca.bundle.current))
    expect(second.ca.bundle.current.sequence).toBeGreaterThanOrEqual(bundles.at(-1)?.sequence ?? 0n)
    // No key is left behind that nobody remembers.
    const remembered = [x509, jwt]
      .flatMap(({ active, next, old }) => [active, ...old, next && (next.stage === 'intended' ? next : next.authority)])
      .map((one) => one?.keyId)
      .concat(spent.map(({ keyId }) => keyId))
    for (const id of made) if (await keys.find(id, never)) expect(remembered).toContain(id)
    return machine.done
  }

  test('at any moment, and no authority is lost, none is twice, and no key is left behind', async () => {
    const moments = await livesTwice(whole)
    expect(moments).toBeGreaterThan(60)
    for (let last = 0; last < moments; last++) await livesTwice(last)
  }, 120_000)
})

describe('V-7 what the upstream announces', () => {
  test('is in the bundle at once, before anything below it is made; it stays there across a restart, and goes when something else is announced', async () => {
    const world = testWorld()
    const honest = await selfSigned.open({}, world)
    const announced = new WatchedValue<readonly Certificate[]>([])
    const upstream: UpstreamAuthority = { ...honest, roots: announced }
    const [first, second] = [
      await TestCa.create({ at: world.clock.now(), name: 'first' }),
      await TestCa.create({ at: world.clock.now(), name: 'second' }),
    ]
    await using opened = await openTestAuthority({ world, upstream })
    const { ca, journal, keys } = opened
    const before = roots(ca.bundle.current)
    await whileFresh(ca, async () => {
      announced.set([first.certificate])
      await expect.poll(() => roots(ca.bundle.current)).toEqual([...before, first.certificate.serial])
    })
    const { sequence } = ca.bundle.current
    const mute: UpstreamAuthority = { ...honest, roots: new WatchedValue<readonly Certificate[]>([]) }
    await using again = await openTestAuthority({ world, upstream: mute, journal, keys })
    await whileFresh(again.ca, () => pass(world, seconds(1)))
    expect(again.ca.bundle.current).toMatchObject({ sequence })
    expect(roots(again.ca.bundle.current)).toEqual([...before, first.certificate.serial])
    announced.set([second.certificate])
    await using last = await openTestAuthority({ world, upstream, journal, keys })
    await whileFresh(last.ca, () => expect.poll(() => roots(last.ca.bundle.current)).toEqual([...before, second.certificate.serial]))
    expect(last.audit.join()).toContain('authority.root-announced')
  })
})
