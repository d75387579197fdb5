import { describe, expect, test } from 'vitest'
import { fuzz } from '../../fuzz/engine.ts'
import { targets } from '../../fuzz/targets.ts'
import { bytes, type Target } from '../../fuzz/target.ts'
import { Failure } from '../../src/kernel/failure.ts'

const ration = { seed: 20_260_101, runs: 3000, seconds: 20 }

describe('R-28, R-42 nothing but a Failure is thrown, and every promise holds, whatever is read', () => {
  test.each(targets)('$about', { timeout: 30_000 }, async (target) => {
    const { runs, finding } = await fuzz(target, ration)
    expect(finding === undefined ? undefined : Buffer.from(finding.input).toString('base64')).toBeUndefined()
    expect(runs).toBeGreaterThan(500)
  })
})

test('a finding is found: an error that is no Failure, with its input', async () => {
  const careless: Target = {
    name: 'careless',
    about: '',
    words: ['!'],
    seeds: async () => [bytes('a')],
    feed(input) {
      if (input.length === 0) throw new Failure('invalid_argument', 'a.empty', { public: 'empty' })
      if (input.length > 9 && input.includes(0x21)) throw new TypeError('bug')
    },
  }
  const { finding } = await fuzz(careless, ration)
  expect(finding?.thrown).toBeInstanceOf(TypeError)
  expect([...finding!.input]).toContain(0x21)
})

test('the same seed makes the same inputs', async () => {
  const fed: string[] = []
  const target: Target = {
    name: '',
    about: '',
    words: ['x'],
    seeds: async () => [bytes('abc')],
    feed: (input) => void fed.push(Buffer.from(input).toString('hex')),
  }
  await fuzz(target, { ...ration, runs: 200 })
  const first = fed.splice(0)
  await fuzz(target, { ...ration, runs: 200 })
  expect(fed).toEqual(first)
})
