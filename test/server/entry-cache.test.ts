import { expect, test } from 'vitest'
import type { EntryChanges } from '../../src/registry/entry.ts'
import { EntryCache } from '../../src/server/entry-cache.ts'
import { entry } from '../store/sample.ts'
import { here } from './rig.ts'

const changes = (version: bigint, ...changed: EntryChanges['changed']): EntryChanges => ({
  version,
  whole: version === 1n,
  changed,
  removed: [],
})

test('R-46 a look that begins after a write was acknowledged sees it, also while another look is under way', async () => {
  const asked: { since: bigint; answer: (value: EntryChanges) => void }[] = []
  const cache = new EntryCache({ changes: (since) => new Promise((answer) => asked.push({ since, answer })) }, here)
  const first = cache.current()
  await Promise.resolve()
  const second = cache.current()
  asked[0]!.answer(changes(1n, entry({ id: 'a' })))
  await first
  await new Promise(setImmediate)
  expect(asked.map(({ since }) => since)).toEqual([0n, 1n])
  asked[1]!.answer(changes(2n, entry({ id: 'b' })))
  expect((await second).find('b')).toBeDefined()
})

test('many who look at once ask the store once or twice', async () => {
  let asked = 0
  const cache = new EntryCache({ changes: async () => changes(BigInt(++asked)) }, here)
  await Promise.all(Array.from({ length: 100 }, () => cache.current()))
  expect(asked).toBeLessThanOrEqual(2)
})

test('a store that failed once is asked again', async () => {
  let asked = 0
  const cache = new EntryCache(
    { changes: async () => (++asked === 1 ? Promise.reject(new Error('away')) : changes(1n, entry({ id: 'a' }))) },
    here,
  )
  await expect(cache.current()).rejects.toThrow('away')
  expect((await cache.current()).find('a')).toBeDefined()
})
