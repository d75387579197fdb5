import { create } from '@bufbuild/protobuf'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { clientOf, type Client } from '../../src/rpc/client.ts'
import { Entry, type SyncAuthorizedEntriesResponse } from '../../src/rpc/gen/spire/api/server/entry/v1/entry_pb.ts'
import { EntryMaskSchema } from '../../src/rpc/gen/spire/api/types/types_pb.ts'
import { toEntry } from '../../src/server-api/messages.ts'
import { openRig, type JoinedAgent, type Rig } from '../server/rig.ts'
import { entry } from '../store/sample.ts'
import { channelAs, local } from './rig.ts'

let rig: Rig
let agent: JoinedAgent
let asOperator: Client<typeof Entry>
let asAgent: Client<typeof Entry>
beforeEach(async () => {
  rig = await openRig()
  agent = await rig.join()
  asOperator = clientOf(Entry, channelAs(local, rig.server))
  asAgent = clientOf(Entry, channelAs(agent.peer(), rig.server))
})
afterEach(() => rig[Symbol.asyncDispose]())

const pad = (i: number): string => `e${String(i).padStart(4, '0')}`
const giveMany = (count: number) =>
  Promise.all(Array.from({ length: count }, (_, i) => rig.give(agent, { id: pad(i), selectors: [`x:${i}`] })))

describe('SyncAuthorizedEntries', () => {
  test('refuses ids on the first request', async () => {
    const sync = asAgent.syncAuthorizedEntries()
    await sync.send({ ids: ['x'] })
    await expect(sync.responses.next()).rejects.toMatchObject({ category: 'invalid_argument' })
  })

  test('refuses a mask without the revision number', async () => {
    const sync = asAgent.syncAuthorizedEntries()
    await sync.send({ outputMask: { spiffeId: true } })
    await expect(sync.responses.next()).rejects.toMatchObject({ category: 'invalid_argument', message: 'revision number cannot be masked' })
  })

  test('refuses a mask on a later request', async () => {
    await giveMany(501)
    const sync = asAgent.syncAuthorizedEntries()
    await sync.send({})
    await sync.responses.next()
    await sync.responses.next()
    await sync.send({ outputMask: { revisionNumber: true } })
    await expect(sync.responses.next()).rejects.toMatchObject({ category: 'invalid_argument' })
  })

  test.each([0, 1, 500])('sends %i entries in one answer, with the fields of the mask', async (count) => {
    await giveMany(count)
    const sync = asAgent.syncAuthorizedEntries()
    await sync.send({ outputMask: { revisionNumber: true, selectors: true } })
    sync.end()
    const answers: SyncAuthorizedEntriesResponse[] = await Array.fromAsync(sync.responses)
    expect(answers).toHaveLength(1)
    expect(answers[0]).toMatchObject({ entryRevisions: [], more: false })
    expect(answers[0]!.entries.map(({ id }) => id)).toEqual(Array.from({ length: count }, (_, i) => pad(i)))
    if (count === 0) return
    expect(answers[0]!.entries[0]).toMatchObject({ selectors: [{ type: 'x', value: '0' }] })
    expect(answers[0]!.entries[0]?.spiffeId).toBeUndefined()
  })

  test('above 500 sends every revision first, in pages, and then the entries that are asked for, in pages', async () => {
    await giveMany(1203)
    const sync = asAgent.syncAuthorizedEntries()
    await sync.send({})
    const seen: string[] = []
    for (const [size, more] of [
      [500, true],
      [500, true],
      [203, false],
    ] as const) {
      const { value } = await sync.responses.next()
      expect([value!.entryRevisions.length, value!.entries.length, value!.more]).toEqual([size, 0, more])
      seen.push(...value!.entryRevisions.map(({ id }) => id))
    }
    expect(seen).toEqual(Array.from({ length: 1203 }, (_, i) => pad(i)))

    await sync.send({ ids: seen.slice(0, 501) })
    const pages = [(await sync.responses.next()).value!, (await sync.responses.next()).value!]
    expect(pages.map(({ entries, entryRevisions, more }) => [entries.length, entryRevisions.length, more])).toEqual([
      [500, 0, true],
      [1, 0, false],
    ])

    await sync.send({ ids: ['e0007', 'not-mine', 'e0007'] })
    const { value: last } = await sync.responses.next()
    expect([last!.entries.map(({ id }) => id), last!.more]).toEqual([['e0007'], false])

    await sync.send({ ids: ['not-mine'] })
    expect((await sync.responses.next()).value).toMatchObject({ entries: [], entryRevisions: [], more: false })
    sync.end()
    expect((await sync.responses.next()).done).toBe(true)
  })

  test('an agent that leaves without a word is no failure', async () => {
    const sync = asAgent.syncAuthorizedEntries()
    sync.end()
    expect(await sync.responses.next()).toMatchObject({ done: true })
  })

  test('shows nothing of other agents, and GetAuthorizedEntries shows the same', async () => {
    await rig.store.entries.create(entry({ id: 'theirs', parentId: 'spiffe://example.org/elsewhere' }))
    await rig.give(agent, { id: 'mine', selectors: ['x:1'] })
    expect((await asAgent.getAuthorizedEntries({})).entries.map(({ id }) => id)).toEqual(['mine'])
  })
})

describe('entries for operators', () => {
  const message = (fields: Parameters<typeof entry>[0] = {}) => toEntry(entry(fields))

  test('a bad entry spoils its own answer only; answers keep their order and always have a status', async () => {
    const { results } = await asOperator.batchCreateEntry({
      entries: [
        message({ id: 'a' }),
        { id: 'b' },
        message({ id: 'c' }),
        { ...message({ id: 'd' }), selectors: [] },
        message({ id: 'a', spiffeId: 'spiffe://example.org/x' }),
      ],
    })
    expect(results.map(({ status }) => status?.code)).toEqual([0, 3, 6, 3, 6])
    expect(results[1]?.status?.message).toBe('field `spiffe_id` is missing')
    expect(results[2]).toMatchObject({ status: { message: 'similar entry already exists' }, entry: { id: 'a' } })
    expect(results[4]?.entry).toBeUndefined()
  })

  test('spire-controller-manager finds out which fields are supported', async () => {
    const probe = message({
      id: '',
      spiffeId: 'spiffe://example.org/spire-controller-manager/unsupported-fields-test',
      parentId: 'spiffe://example.org/spire-controller-manager/unsupported-fields-test',
      selectors: ['a:1'],
      x509SvidTtl: 60_000,
      jwtSvidTtl: 60_000,
      hint: 'hint',
      storeSvid: true,
    })
    for (const code of [0, 6]) {
      const { results } = await asOperator.batchCreateEntry({ entries: [probe] })
      expect(results[0]).toMatchObject({ status: { code }, entry: { jwtSvidTtl: 60, hint: 'hint', storeSvid: true } })
      if (code === 6) {
        const removed = await asOperator.batchDeleteEntry({ ids: [results[0]!.entry!.id, 'nowhere'] })
        expect(removed.results.map(({ status, id }) => [status?.code, id])).toEqual([
          [0, results[0]!.entry!.id],
          [5, 'nowhere'],
        ])
      }
    }
  })

  test('an update changes what its mask names, and answers with what its mask names', async () => {
    await asOperator.batchCreateEntry({ entries: [message({ id: 'a', hint: 'before', admin: true })] })
    const { results } = await asOperator.batchUpdateEntry({
      entries: [{ ...message({ id: 'a', hint: 'after' }), admin: false }, { ...message({ id: 'nowhere' }) }],
      inputMask: { hint: true },
      outputMask: { hint: true, admin: true, revisionNumber: true },
    })
    expect(results[0]).toMatchObject({ status: { code: 0 }, entry: { id: 'a', hint: 'after', admin: true, revisionNumber: 1n } })
    expect(results[0]?.entry?.spiffeId).toBeUndefined()
    expect(results[1]?.status?.code).toBe(5)
  })

  test('pages and counts by filter', async () => {
    await giveMany(5)
    const filter = { byParentId: { trustDomain: 'example.org', path: agent.node.id.slice('spiffe://example.org'.length) } }
    const first = await asOperator.listEntries({ filter, pageSize: 3, outputMask: create(EntryMaskSchema, {}) })
    expect(first.entries.map((one) => [one.id, one.spiffeId])).toEqual([
      ['e0000', undefined],
      ['e0001', undefined],
      ['e0002', undefined],
    ])
    const second = await asOperator.listEntries({ filter, pageSize: 3, pageToken: first.nextPageToken })
    expect([second.entries.map(({ id }) => id), second.nextPageToken]).toEqual([['e0003', 'e0004'], ''])
    expect((await asOperator.countEntries({ filter })).count).toBe(5)
    expect((await asOperator.getEntry({ id: 'e0003' })).id).toBe('e0003')
    await expect(asOperator.getEntry({ id: 'nowhere' })).rejects.toMatchObject({ category: 'not_found' })
  })
})
