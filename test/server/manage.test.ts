import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { days, minutes, seconds } from '../../src/kernel/duration.ts'
import { createEntry, deleteEntry, listEntries, updateEntry } from '../../src/server/manage-entries.ts'
import { deleteNode, listNodes, noteStatus } from '../../src/server/manage-nodes.ts'
import { createJoinToken } from '../../src/server/manage-tokens.ts'
import { maxPage } from '../../src/server/paging.ts'
import { pruneOnce } from '../../src/server/prune.ts'
import { entitledEntries } from '../../src/server/entitled-entries.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { entry, node } from '../store/sample.ts'
import { openRig, operator, type Rig } from './rig.ts'

let rig: Rig
beforeEach(async () => {
  rig = await openRig()
})
afterEach(() => rig[Symbol.asyncDispose]())

const draft = (fields: Parameters<typeof entry>[0] = {}) => {
  const { id: _, ...rest } = entry(fields)
  return rest
}

describe('entries', () => {
  test('a draft that breaks an invariant is not stored', async () => {
    await expect(createEntry(rig.server, { ...draft(), selectors: [] }, operator)).rejects.toMatchObject({ reason: 'entry.no-selectors' })
    expect(await rig.store.entries.count({})).toBe(0)
  })

  test('a change that breaks an invariant changes nothing', async () => {
    const { entry: made } = await createEntry(rig.server, draft(), operator)
    await expect(updateEntry(rig.server, made.id, (one) => ({ ...one, hint: 'x'.repeat(1025) }), operator)).rejects.toMatchObject({
      reason: 'entry.hint-too-long',
    })
    expect(await rig.store.entries.find(made.id)).toEqual(made)
  })

  test('C-8 what no SVID would be issued with is refused while somebody reads why', async () => {
    const refusals = [
      [{ subject: { country: 'DE' } }, 'ca.subject-not-allowed'],
      [{ claims: { role: 'admin' } }, 'ca.claim-not-allowed'],
      [{ subject: { commonName: 'bank' } }, 'entry.common-name'],
    ] as const
    const { entry: made } = await createEntry(rig.server, draft(), operator)
    for (const [fields, reason] of refusals) {
      await expect(createEntry(rig.server, draft({ ...fields, selectors: ['x:1'] }), operator)).rejects.toMatchObject({ reason })
      await expect(updateEntry(rig.server, made.id, (one) => ({ ...one, ...fields }), operator)).rejects.toMatchObject({ reason })
    }
    expect(await rig.store.entries.list({}, { limit: 9 })).toEqual({ items: [made] })
  })

  test('what is not there cannot be changed or deleted', async () => {
    await expect(updateEntry(rig.server, 'x', (one) => one, operator)).rejects.toMatchObject({ reason: 'entry.not-found' })
    await expect(deleteEntry(rig.server, 'x', operator)).rejects.toMatchObject({ reason: 'entry.not-found' })
  })

  test('the registry decides id, revision and time', async () => {
    const { entry: made } = await createEntry(rig.server, { ...entry({ id: 'own', revision: 9n, createdAt: 1 }) }, operator)
    expect(made).toMatchObject({ id: 'own', revision: 0n, createdAt: rig.clock.now() })
    const changed = await updateEntry(
      rig.server,
      'own',
      (one) => ({ ...one, id: 'other', revision: 7n, createdAt: 2, hint: 'h' }),
      operator,
    )
    expect(changed).toMatchObject({ id: 'own', revision: 1n, createdAt: made.createdAt, hint: 'h' })
    const { entry: other } = await createEntry(rig.server, draft({ spiffeId: 'spiffe://example.org/b' }), operator)
    expect(other.id).toMatch(/^[0-9a-f]{8}-/)
  })

  test('of five changes at the same time none is lost', async () => {
    const { entry: made } = await createEntry(rig.server, draft(), operator)
    await Promise.all(
      Array.from({ length: 5 }, () => updateEntry(rig.server, made.id, (one) => ({ ...one, hint: `${one.hint}x` }), operator)),
    )
    expect(await rig.store.entries.find(made.id)).toMatchObject({ hint: 'xxxxx', revision: 5n })
  })

  test('every change is in the trail', async () => {
    const { entry: made } = await createEntry(rig.server, draft(), operator)
    await createEntry(rig.server, draft(), operator)
    await updateEntry(rig.server, made.id, (one) => one, operator)
    await deleteEntry(rig.server, made.id, operator)
    expect(rig.audited().filter((what) => what.startsWith('entry.'))).toEqual(['entry.created', 'entry.updated', 'entry.deleted'])
  })

  test('an entry that expired leaves the store', async () => {
    await rig.store.entries.create(entry({ expiresAt: rig.clock.now() + seconds(1) }))
    await pruneOnce(rig.server)
    expect(await rig.store.entries.count({})).toBe(1)
    await rig.clock.advance(seconds(2))
    await pruneOnce(rig.server)
    expect(await rig.store.entries.count({})).toBe(0)
  })
})

describe('pages', () => {
  const list = (size: number, token = '', filter = {}, caller = operator) => listEntries(rig.server, filter, { size, token }, caller)
  beforeEach(async () => {
    await Promise.all(
      Array.from({ length: maxPage + 2 }, (_, i) =>
        rig.store.entries.create(entry({ id: `e${String(i).padStart(4, '0')}`, selectors: [`x:${i}`] })),
      ),
    )
  })

  test('R-32 a size below zero, a token that was not given out, and one for another question are refused', async () => {
    const { nextToken } = await list(10)
    await expect(list(-1)).rejects.toMatchObject({ reason: 'paging.bad-size' })
    for (const bad of ['x', '%%%', `${nextToken}x`.slice(3), 'A'.repeat(9000)])
      await expect(list(10, bad)).rejects.toMatchObject({ reason: 'paging.bad-token' })
    await expect(list(10, nextToken, { hint: 'h' })).rejects.toMatchObject({ reason: 'paging.bad-token' })
    await expect(list(10, nextToken, {}, { kind: 'local', uid: 7, pid: 1, gid: 0 })).rejects.toMatchObject({ reason: 'paging.bad-token' })
  })

  test('R-11 a filter by an empty list is refused', async () => {
    await expect(list(10, '', { selectors: { selectors: [], match: 'any' } })).rejects.toMatchObject({ reason: 'entry.empty-filter' })
    await expect(list(10, '', { federatesWith: { trustDomains: [], match: 'any' } })).rejects.toMatchObject({
      reason: 'entry.empty-filter',
    })
    await expect(
      listNodes(rig.server, { selectors: { selectors: [], match: 'any' } }, { size: 1, token: '' }, operator),
    ).rejects.toMatchObject({ reason: 'node.empty-filter' })
  })

  test.each([0, maxPage, maxPage + 1, 2 ** 31 - 1])('R-32 no page is longer than the longest, also when %i are asked for', async (size) => {
    const first = await list(size)
    expect(first.entries).toHaveLength(maxPage)
    const second = await list(size, first.nextToken)
    expect(second.entries.map(({ id }) => id)).toEqual(['e0500', 'e0501'])
    expect(second.nextToken).toBe('')
  })
})

describe('nodes', () => {
  test('what is not there cannot be deleted', async () => {
    await expect(deleteNode(rig.server, node().id, operator)).rejects.toMatchObject({ reason: 'node.not-found' })
  })

  test('deleting a node deletes the alias of its token, and nothing else below it', async () => {
    const { agent } = await createJoinToken(
      rig.server,
      { ttl: minutes(1), token: 'abc', agentId: parseSpiffeId('spiffe://example.org/host') },
      operator,
    )
    await rig.store.nodes.put(node({ id: agent }))
    await rig.store.entries.create(entry({ id: 'web', parentId: agent }))
    await deleteNode(rig.server, agent, operator)
    expect((await rig.store.entries.list({}, { limit: 9 })).items.map(({ id }) => id)).toEqual(['web'])
  })

  test('an agent tells its version, at most 128 characters of it', async () => {
    await rig.store.nodes.put(node())
    await noteStatus(rig.server, node(), { agentVersion: 'v'.repeat(200) })
    expect((await rig.store.nodes.find(node().id))?.agentVersion).toBe('v'.repeat(128))
  })
})

describe('join tokens', () => {
  test.each([0, seconds(0.5), days(31), Number.NaN])('a lifetime of %d ms is refused', async (ttl) => {
    await expect(createJoinToken(rig.server, { ttl }, operator)).rejects.toMatchObject({ reason: 'join-token.bad-ttl' })
  })

  test('R-2 a token that cannot be part of an identity is refused when it is made, not when it is used', async () => {
    await expect(createJoinToken(rig.server, { ttl: minutes(1), token: 'a/b' }, operator)).rejects.toMatchObject({
      reason: 'join-token.malformed',
    })
  })

  test('an alias that no workload could have makes no token', async () => {
    const agentId = parseSpiffeId('spiffe://example.org/spire/agent/x')
    await expect(createJoinToken(rig.server, { ttl: minutes(1), token: 'abc', agentId }, operator)).rejects.toMatchObject({
      reason: 'entry.reserved-spiffe-id',
    })
    await expect(createJoinToken(rig.server, { ttl: minutes(1), token: 'abc' }, operator)).resolves.toBeDefined()
  })

  test('R-36 neither the store nor the trail nor a printed value has the token', async () => {
    const { token } = await createJoinToken(rig.server, { ttl: minutes(1), token: 'very-secret' }, operator)
    expect(`${String(token)} ${JSON.stringify(token)} ${rig.audited().join()}`).not.toContain('very-secret')
    expect(await rig.store.tokens.consume('very-secret')).toBeUndefined()
  })

  test('entries below the alias are for the node that joined with the token', async () => {
    const agentId = parseSpiffeId('spiffe://example.org/host')
    const { agent } = await createJoinToken(rig.server, { ttl: minutes(1), agentId }, operator)
    await rig.store.entries.create(entry({ id: 'web', parentId: agentId }))
    const ids = (await entitledEntries(rig.server, node({ id: agent }))).map(({ spiffeId }) => spiffeId)
    expect(ids.sort()).toEqual(['spiffe://example.org/host', 'spiffe://example.org/web'])
  })
})
