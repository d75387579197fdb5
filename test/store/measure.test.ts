import { expect, test } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { measured } from '../../src/store/measure.ts'
import { memory } from '../../src/store/memory.ts'
import { storeMetrics } from '../../src/store/metrics.ts'
import { testWorld } from '../ca/support.ts'
import { entry } from './sample.ts'

test('a store that fails is counted; a refusal of what was asked is not a failure of the store', async () => {
  const world = testWorld()
  const store = await memory.open({}, world)
  const broken = { ...store.nodes, find: () => Promise.reject(new Error('disk I/O error')) }
  await using counted = measured({ ...store, nodes: broken, [Symbol.asyncDispose]: () => store[Symbol.asyncDispose]() }, world.meter)
  const made = entry({ id: 'one' })
  await counted.entries.create(made)
  expect((await counted.entries.find('one'))?.spiffeId).toBe(made.spiffeId)
  await expect(counted.entries.update({ ...made, revision: 9n }, 7n)).rejects.toBeInstanceOf(Failure)
  expect(world.meter.of(storeMetrics.failures, { reason: 'store.failed' })).toBe(0)
  await expect(counted.nodes.find(made.parentId)).rejects.toThrow('disk I/O error')
  expect(world.meter.of(storeMetrics.failures, { reason: 'store.failed' })).toBe(1)
})
