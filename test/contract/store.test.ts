import type { PolicyRelease } from '../../src/registry/policy-documents.ts'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { IssuanceRecord } from '../../src/ca/intents.ts'
import type { World } from '../../src/kernel/driver.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import type { EntryFilter, ListMatch } from '../../src/registry/entry.ts'
import { activated, renewed } from '../../src/registry/node.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { memory } from '../../src/store/memory.ts'
import { sqlite } from '../../src/store/sqlite.ts'
import type { Store } from '../../src/store/store.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'
import { entry, node, outcomes } from '../store/sample.ts'

const world: World = {
  clock: new FakeClock(),
  random: seededRandom('store'),
  files: systemFiles,
  log: silentLog,
  meter: silentMeter,
  secrets: { read: () => Promise.reject(new Error('bug: a store needs no secret')) },
}

const drivers = [
  { kind: memory.kind, open: () => memory.open({}, world) },
  { kind: sqlite.kind, open: (folder: string) => sqlite.open({ path: join(folder, 'data', 'store.sqlite') }, world) },
]

describe.each(drivers)('a store of kind $kind', ({ open }) => {
  let folder: string
  let store: Store
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'v-store-'))
    store = await open(folder)
  })
  afterEach(async () => {
    await store[Symbol.asyncDispose]()
    await rm(folder, { recursive: true })
  })

  describe('entries', () => {
    test('refuses an id that another entry has', async () => {
      await store.entries.create(entry())
      await expect(store.entries.create(entry({ spiffeId: 'spiffe://example.org/other' }))).rejects.toMatchObject({
        reason: 'entry.id-taken',
      })
    })

    test('refuses an update of an entry that is not there', async () => {
      await expect(store.entries.update(entry(), 0n)).rejects.toMatchObject({ reason: 'entry.not-found' })
    })

    test('refuses an update that somebody else overtook, and keeps what they wrote', async () => {
      await store.entries.create(entry())
      await store.entries.update(entry({ hint: 'first', revision: 1n }), 0n)
      await expect(store.entries.update(entry({ hint: 'second', revision: 1n }), 0n)).rejects.toMatchObject({
        reason: 'entry.changed-meanwhile',
      })
      expect(await store.entries.find('entry-1')).toMatchObject({ hint: 'first', revision: 1n })
    })

    test('refuses an update that makes two entries similar', async () => {
      await store.entries.create(entry())
      await store.entries.create(entry({ id: 'entry-2', selectors: ['unix:uid:2'] }))
      await expect(store.entries.update(entry({ id: 'entry-2', revision: 1n }), 0n)).rejects.toMatchObject({
        reason: 'entry.similar-exists',
      })
    })

    test('gives back the entry that is there instead of a similar one', async () => {
      await store.entries.create(entry({ selectors: ['unix:uid:1', 'unix:gid:2'] }))
      const again = await store.entries.create(entry({ id: 'entry-2', selectors: ['unix:gid:2', 'unix:uid:1'], hint: 'new' }))
      expect(again).toMatchObject({ created: false, entry: { id: 'entry-1', hint: '' } })
      expect(await store.entries.create(entry({ id: 'entry-3', selectors: ['unix:uid:1'] }))).toMatchObject({ created: true })
    })

    test('of a hundred similar entries at once stores one', async () => {
      const { values } = await outcomes(Array.from({ length: 100 }, (_, i) => store.entries.create(entry({ id: `entry-${i}` }))))
      expect(values.filter(({ created }) => created)).toHaveLength(1)
      expect(await store.entries.count({})).toBe(1)
    })

    test('a write that fails undoes itself and nothing of those that wait with it', async () => {
      const { values, errors } = await outcomes([
        store.entries.create(entry({ id: 'a', selectors: ['x:1'] })),
        store.entries.create(entry({ id: 'a', selectors: ['x:2'] })),
        store.entries.create(entry({ id: 'b', selectors: ['x:3'] })),
      ])
      expect([values.length, errors.length]).toEqual([2, 1])
      expect((await store.entries.list({}, { limit: 10 })).items.map(({ id }) => id)).toEqual(['a', 'b'])
    })

    test('keeps every field as it was', async () => {
      const full = entry({
        selectors: ['unix:uid:1', 'k8s:pod-label:app:web'],
        federatesWith: ['other.example', 'third.example'],
        x509SvidTtl: 1000,
        jwtSvidTtl: 2000,
        admin: true,
        downstream: true,
        storeSvid: true,
        expiresAt: 1_800_000_000_000,
        dnsNames: ['b.example.org', 'a.example.org'],
        subject: { country: 'DE', organizationalUnit: 'ünïcode' },
        claims: { tier: 'gold', groups: ['a', { b: null }], __proto: 1.5 },
        hint: 'ünïcode \u0000 hint',
        disableX509SvidPrefetch: true,
        jwtSvidIncludeJti: true,
        revision: 7n,
      })
      await store.entries.create(full)
      expect(await store.entries.find('entry-1')).toEqual(full)
      const plain = entry({ revision: 8n })
      await store.entries.update(plain, 7n)
      expect(await store.entries.find('entry-1')).toEqual(plain)
      expect(await store.entries.count({ federatesWith: { trustDomains: [parseTrustDomain('other.example')], match: 'any' } })).toBe(0)
    })

    test('pages through all of them in order of id, each once', async () => {
      for (const i of [5, 3, 1, 4, 2]) await store.entries.create(entry({ id: `entry-${i}`, selectors: [`x:${i}`] }))
      const seen: string[] = []
      let after: string | undefined
      do {
        const page = await store.entries.list({}, { limit: 2, ...(after === undefined ? {} : { after }) })
        seen.push(...page.items.map(({ id }) => id))
        after = page.next
      } while (after !== undefined)
      expect(seen).toEqual(['entry-1', 'entry-2', 'entry-3', 'entry-4', 'entry-5'])
    })

    test.each<[ListMatch, string[], string[]]>([
      ['exact', ['x:1', 'x:2'], ['both']],
      ['subset', ['x:1', 'x:2'], ['both', 'one']],
      ['superset', ['x:1'], ['both', 'one', 'three']],
      ['superset', ['x:1', 'x:2'], ['both', 'three']],
      ['any', ['x:3', 'x:9'], ['three']],
      ['any', [], []],
      ['subset', [], []],
    ])('finds entries whose selectors are %s of %s', async (match, wanted, found) => {
      await store.entries.create(entry({ id: 'one', selectors: ['x:1'] }))
      await store.entries.create(entry({ id: 'both', selectors: ['x:1', 'x:2'] }))
      await store.entries.create(entry({ id: 'three', selectors: ['x:1', 'x:2', 'x:3'] }))
      const filter: EntryFilter = { selectors: { selectors: wanted.map(parseSelector), match } }
      expect((await store.entries.list(filter, { limit: 10 })).items.map(({ id }) => id)).toEqual(found)
      expect(await store.entries.count(filter)).toBe(found.length)
    })

    test('finds by the other fields, all of them together', async () => {
      await store.entries.create(entry({ id: 'a', hint: 'h', downstream: true, federatesWith: ['f.example'] }))
      await store.entries.create(entry({ id: 'b', spiffeId: 'spiffe://example.org/b', parentId: 'spiffe://example.org/p' }))
      const find = async (filter: EntryFilter) => (await store.entries.list(filter, { limit: 10 })).items.map(({ id }) => id)
      expect(await find({ spiffeId: parseSpiffeId('spiffe://example.org/b') })).toEqual(['b'])
      expect(await find({ parentId: parseSpiffeId('spiffe://example.org/node') })).toEqual(['a'])
      expect(await find({ hint: 'h' })).toEqual(['a'])
      expect(await find({ downstream: false })).toEqual(['b'])
      expect(await find({ federatesWith: { trustDomains: [parseTrustDomain('f.example')], match: 'exact' } })).toEqual(['a'])
      expect(await find({ hint: 'h', downstream: false })).toEqual([])
    })

    test('tells what changed since somebody last looked', async () => {
      await store.entries.create(entry({ id: 'a', selectors: ['x:1'] }))
      await store.entries.create(entry({ id: 'b', selectors: ['x:2'] }))
      const all = await store.entries.changes(0n)
      expect([all.whole, all.changed.map(({ id }) => id).sort(), all.removed]).toEqual([true, ['a', 'b'], []])
      expect(await store.entries.changes(all.version)).toEqual({ version: all.version, whole: false, changed: [], removed: [] })

      await store.entries.update(entry({ id: 'a', selectors: ['x:9'], revision: 1n }), 0n)
      await store.entries.remove('b')
      const later = await store.entries.changes(all.version)
      expect([later.whole, later.changed.map(({ id }) => id), later.removed]).toEqual([false, ['a'], ['b']])

      await store.entries.create(entry({ id: 'b', selectors: ['x:2'] }))
      const last = await store.entries.changes(all.version)
      expect([last.changed.map(({ id }) => id).sort(), last.removed]).toEqual([['a', 'b'], []])
    })

    test('gives everything to somebody who saw a later state than there is', async () => {
      await store.entries.create(entry())
      expect(await store.entries.changes(99n)).toMatchObject({ whole: true, changed: [{ id: 'entry-1' }] })
    })

    test('removes those that expired, and tells which', async () => {
      await store.entries.create(entry({ id: 'a', selectors: ['x:1'], expiresAt: 10 }))
      await store.entries.create(entry({ id: 'b', selectors: ['x:2'], expiresAt: 11 }))
      await store.entries.create(entry({ id: 'c', selectors: ['x:3'] }))
      const before = await store.entries.changes(0n)
      expect(await store.entries.prune(11)).toEqual(['a'])
      expect((await store.entries.changes(before.version)).removed).toEqual(['a'])
    })
  })

  describe('nodes', () => {
    test('says nothing about a node that is not there, and changes none', async () => {
      expect(await store.nodes.find(node().id)).toBeUndefined()
      expect(await store.nodes.change(node().id, (found) => ({ ...found, banned: true }))).toBeUndefined()
      expect(await store.nodes.remove(node().id)).toBeUndefined()
    })

    test('keeps every field as it was, also certificates that wait, that were replaced and that were copied', async () => {
      const full = node({
        selectors: ['x509pop:ca:1'],
        canReattest: true,
        banned: true,
        agentVersion: '1.2',
        pending: [{ serial: 'bb', expiresAt: 5 }],
        superseded: [{ serial: 'cc', expiresAt: 4, since: 3, by: { serial: 'aa01', address: '192.0.2.1' } }],
        frozen: { at: 4, superseded: { serial: 'cc', address: '192.0.2.2' }, successor: { serial: 'aa01', address: '192.0.2.1' } },
      })
      await store.nodes.put(full)
      expect(await store.nodes.find(full.id)).toEqual(full)
      await store.nodes.put(node())
      expect(await store.nodes.find(full.id)).toEqual(node())
    })

    test('changes a node in one step, however many try', async () => {
      await store.nodes.put(node({ agentVersion: '' }))
      await Promise.all(
        Array.from({ length: 50 }, () => store.nodes.change(node().id, (found) => ({ ...found, agentVersion: `${found.agentVersion}x` }))),
      )
      expect((await store.nodes.find(node().id))?.agentVersion).toBe('x'.repeat(50))
    })

    test('Q-5 keeps both certificates until the new one is used', async () => {
      await store.nodes.put(node())
      await store.nodes.change(node().id, (found) => renewed(found, { serial: 'bb', expiresAt: 9 }))
      expect(await store.nodes.find(node().id)).toMatchObject({ serial: 'aa01', pending: [{ serial: 'bb', expiresAt: 9 }] })
      await store.nodes.change(node().id, (found) => activated(found, { serial: 'bb', address: '192.0.2.1' }, 3))
      const after = await store.nodes.find(node().id)
      expect([after?.serial, after?.expiresAt, after?.pending]).toEqual(['bb', 9, []])
      expect(after?.superseded).toMatchObject([{ serial: 'aa01', since: 3, by: { serial: 'bb' } }])
    })

    test('finds by type, ban, freeze, re-attestation, expiry and selectors', async () => {
      const [a, b] = ['spiffe://example.org/spire/agent/x/a', 'spiffe://example.org/spire/agent/x/b']
      const frozen = { at: 1, superseded: { serial: 'cc', address: 'x' }, successor: { serial: 'aa01', address: 'y' } }
      await store.nodes.put(node({ id: a, selectors: ['n:1'], expiresAt: 5 }))
      await store.nodes.put(node({ id: b, attestationType: 'x509pop', banned: true, canReattest: true, expiresAt: 9, frozen }))
      const find = async (filter: Parameters<Store['nodes']['list']>[0]) =>
        (await store.nodes.list(filter, { limit: 9 })).items.map(({ id }) => id)
      expect(await find({ attestationType: 'x509pop' })).toEqual([b])
      expect(await find({ banned: false })).toEqual([a])
      expect(await find({ frozen: true })).toEqual([b])
      expect(await find({ frozen: false })).toEqual([a])
      expect(await find({ canReattest: true })).toEqual([b])
      expect(await find({ expiresBefore: 9 })).toEqual([a])
      expect(await find({ selectors: { selectors: [parseSelector('n:1')], match: 'exact' } })).toEqual([a])
      expect(await store.nodes.count({})).toBe(2)
      expect(await store.nodes.list({}, { limit: 1 })).toMatchObject({ items: [{ id: a }], next: a })
      expect(await store.nodes.list({}, { limit: 1, after: a })).toMatchObject({ items: [{ id: b }] })
    })
  })

  describe('join tokens', () => {
    test('A-13 R-19 of a hundred who use one token at once exactly one gets it', async () => {
      await store.tokens.create({ digest: 'd', expiresAt: 7 })
      const given = await Promise.all(Array.from({ length: 100 }, () => store.tokens.consume('d')))
      expect(given.filter((token) => token !== undefined)).toEqual([{ digest: 'd', expiresAt: 7 }])
      expect(await store.tokens.consume('d')).toBeUndefined()
    })

    test('refuses a token that exists', async () => {
      await store.tokens.create({ digest: 'd', expiresAt: 7 })
      await expect(store.tokens.create({ digest: 'd', expiresAt: 8 })).rejects.toMatchObject({ reason: 'join-token.exists' })
    })

    test('removes those that expired', async () => {
      await store.tokens.create({ digest: 'a', expiresAt: 7 })
      await store.tokens.create({ digest: 'b', expiresAt: 8 })
      expect(await store.tokens.prune(8)).toBe(1)
      expect(await store.tokens.consume('b')).toBeDefined()
    })
  })

  describe("the CA's journal", () => {
    test('refuses a record from somebody who has not seen the last one', async () => {
      await store.journal.write('s', 'one', 0n)
      await expect(store.journal.write('s', 'two', 0n)).rejects.toMatchObject({ reason: 'journal.changed-meanwhile' })
      await expect(store.journal.write('s', 'two', 2n)).rejects.toMatchObject({ reason: 'journal.changed-meanwhile' })
      expect(await store.journal.read('s')).toEqual({ record: 'one', revision: 1n })
    })

    test('keeps one record for each server', async () => {
      expect(await store.journal.read('s')).toBeUndefined()
      await store.journal.write('s', 'one', 0n)
      await store.journal.write('t', 'other', 0n)
      await store.journal.write('s', 'two', 1n)
      expect(await store.journal.read('s')).toEqual({ record: 'two', revision: 2n })
      expect(await store.journal.read('t')).toEqual({ record: 'other', revision: 1n })
    })
  })

  describe('what was issued', () => {
    const issued = (name: string, changes: Partial<IssuanceRecord> = {}): IssuanceRecord => ({
      kind: 'x509',
      name,
      hash: `hash of ${name}`,
      id: 'spiffe://example.org/a',
      entry: 'e-1',
      revision: '3',
      until: 1000,
      outcome: 'issued',
      ...changes,
    })

    test('C-1 a serial number that is there for other bytes is told; putting the same again is nothing', async () => {
      expect(await store.issuances.put([issued('a'), issued('b')])).toEqual([])
      expect(await store.issuances.put([issued('a'), issued('c')])).toEqual([])
      expect(await store.issuances.put([issued('b', { hash: 'of something else' }), issued('d')])).toEqual(['b'])
      expect(await store.issuances.put([issued('a', { kind: 'jwt', hash: 'a token' })])).toEqual([])
      expect(await store.issuances.put([])).toEqual([])
    })

    test('is forgotten when it has expired', async () => {
      await store.issuances.put([issued('a'), issued('b', { until: 2000 })])
      await store.issuances.prune(1500)
      const other = { hash: 'of something else' }
      expect(await store.issuances.put([issued('a', other), issued('b', other)])).toEqual(['b'])
    })
  })

  describe('policies', () => {
    const release = (n: number): PolicyRelease => ({
      version: `v${n}`,
      documents: [{ name: 'a.yaml', text: `${n}` }],
      options: n % 2 === 0 ? {} : { mode: 'istio' },
      ...(n % 3 === 0 ? {} : { signature: `s${n}` }),
      appliedAt: n,
      appliedBy: 'somebody',
    })

    test('refuses a set that was made without having seen the last one', async () => {
      await expect(store.policies.apply(release(1), 1)).rejects.toMatchObject({ reason: 'policy.changed-meanwhile' })
      await store.policies.apply(release(1), 0)
      await expect(store.policies.apply(release(2), 0)).rejects.toMatchObject({ reason: 'policy.changed-meanwhile' })
      expect((await store.policies.current())?.version).toBe('v1')
    })

    test('has none before the first are applied', async () => {
      expect(await store.policies.current()).toBeUndefined()
    })

    test('keeps one candidate beside the set in force, until it is taken away', async () => {
      const candidate = {
        version: 'c',
        documents: [{ name: 'a', text: 'b' }],
        options: { mode: 'istio' as const },
        startedAt: 7,
        startedBy: 'x',
      }
      expect(await store.policies.candidate()).toBeUndefined()
      await store.policies.setCandidate({ ...candidate, version: 'before' })
      await store.policies.setCandidate(candidate)
      expect(await store.policies.candidate()).toEqual(candidate)
      await store.policies.setCandidate(undefined)
      expect(await store.policies.candidate()).toBeUndefined()
    })

    test('the last that were applied are in force, the newest hundred are kept', async () => {
      for (let i = 1; i <= 103; i++) await store.policies.apply(release(i), i - 1)
      expect(await store.policies.current()).toEqual({ ...release(103), serial: 103 })
      const history = await store.policies.history(500)
      expect([history.length, history[0]?.version, history.at(-1)?.version]).toEqual([100, 'v103', 'v4'])
      expect(await store.policies.history(2)).toHaveLength(2)
      expect(await store.policies.find(4)).toEqual({ ...release(4), serial: 4 })
      expect(await store.policies.find(3)).toBeUndefined()
    })
  })
})
