import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openThreads, type Threads } from '../../src/kernel/threads.ts'
import { seconds } from '../../src/kernel/duration.ts'

const module = new URL('./answering-thread.ts', import.meta.url)
let threads: Threads<string, string>
beforeEach(async () => {
  threads = await openThreads(module, { most: 2, patience: seconds(2) })
})
afterEach(() => threads[Symbol.asyncDispose]())

describe('threads', () => {
  test('a refusal comes back as what it was, and hinders nobody beside it', async () => {
    const [refused, answered] = await Promise.allSettled([threads.ask('refuse'), threads.ask('a')])
    expect(refused).toMatchObject({
      reason: { category: 'permission_denied', reason: 'test.refused', message: 'no', internal: { because: 'it says so' } },
    })
    expect(answered).toEqual({ status: 'fulfilled', value: 'A' })
  })

  test('what is thrown by mistake tells the asker nothing', async () => {
    await expect(threads.ask('throw')).rejects.toMatchObject({ category: 'internal', message: 'internal error' })
  })

  test('a thread that dies is told to those who asked it, and another takes its place', async () => {
    await threads.ask('a')
    await threads.ask('b')
    await expect(threads.ask('die')).rejects.toMatchObject({ reason: 'threads.ended' })
    await expect(threads.ask('die')).rejects.toMatchObject({ reason: 'threads.ended' })
    expect(await threads.ask('c')).toBe('C')
  })

  test('a thread that hangs is ended after a while', async () => {
    await expect(threads.ask('hang')).rejects.toMatchObject({ reason: 'threads.ended' })
    expect(await threads.ask('c')).toBe('C')
  })

  test('a thread that hangs after others were answered is ended too', async () => {
    expect(await threads.ask('a')).toBe('A')
    await expect(threads.ask('hang')).rejects.toMatchObject({ reason: 'threads.ended' })
  }, 20_000)

  test('another one comes when there is more to do than one can', async () => {
    const before = await threads.ask('which')
    await Promise.all(Array.from({ length: 2000 }, () => threads.ask('which')))
    await expect
      .poll(async () => (await Promise.all(Array.from({ length: 200 }, () => threads.ask('which')))).some((one) => one !== before))
      .toBe(true)
  })

  test('a flood is refused, and what was accepted is answered', async () => {
    const outcomes = await Promise.allSettled(Array.from({ length: 9000 }, (_, index) => threads.ask(`n${index}`)))
    const answered = outcomes.filter(({ status }) => status === 'fulfilled')
    expect(answered.length).toBeGreaterThanOrEqual(8192)
    expect(outcomes.at(-1)).toMatchObject({ reason: { reason: 'threads.busy' } })
    expect(outcomes[100]).toEqual({ status: 'fulfilled', value: 'N100' })
  })

  test('after the end nothing is answered', async () => {
    await threads[Symbol.asyncDispose]()
    await expect(threads.ask('a')).rejects.toMatchObject({ reason: 'threads.gone' })
  })

  test('a module that does not work is found out at once', async () => {
    await expect(openThreads(new URL('./no-such-file.ts', import.meta.url), { most: 1 })).rejects.toMatchObject({
      reason: 'threads.ended',
    })
  })
})
