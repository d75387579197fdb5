import { beforeEach, describe, expect, test } from 'vitest'
import { caMetrics } from '../../src/ca/metrics.ts'
import { openIntents, type Intent, type Intents, type IssuanceRecord } from '../../src/ca/intents.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { fromUtf8, utf8 } from '../../src/kernel/bytes.ts'
import { FakeClock } from '../fakes/clock.ts'
import { FakeFiles } from '../fakes/files.ts'
import { TestMeter } from '../support/counted.ts'
import { KeptLog } from './support.ts'

let clock: FakeClock
let files: FakeFiles
let log: KeptLog
let meter: TestMeter
/** What the store holds, by name. */
let stored: Map<string, IssuanceRecord>
let isAway: boolean

beforeEach(() => {
  clock = new FakeClock()
  files = new FakeFiles()
  log = new KeptLog()
  meter = new TestMeter()
  stored = new Map()
  isAway = false
})

const records = {
  async put(more: readonly IssuanceRecord[]) {
    if (isAway) throw new Error('the database is away')
    const clashes = more.filter(({ name, hash }) => (stored.get(name)?.hash ?? hash) !== hash).map(({ name }) => name)
    for (const record of more) if (!stored.has(record.name)) stored.set(record.name, record)
    return clashes
  },
  async prune() {},
}
const open = (maxBytes?: number): Promise<Intents> =>
  openIntents({ clock, files, log, meter, directory, records, ...(maxBytes === undefined ? {} : { maxBytes }) })
const intent = (name: string): Intent => ({
  kind: 'x509',
  name,
  hash: `hash of ${name}`,
  id: 'spiffe://example.org/a',
  entry: 'e-1',
  revision: '3',
  until: clock.now() + hours(1),
})
const directory = '/data/intents'
const onDisk = () => [...files.contents.values()].map(fromUtf8).join('')
/** Lets the copying go on for a while. */
async function whileCopying(intents: Intents, deed: () => Promise<void>): Promise<void> {
  const stop = new AbortController()
  const copying = intents.keepCopied(stop.signal)
  try {
    await deed()
  } finally {
    stop.abort()
    await copying
  }
}
const pass = async (steps: number) => {
  for (let step = 0; step < steps; step++) await clock.advance(seconds(1))
}

describe('C-10 nothing is signed', () => {
  test.for(['ENOSPC', 'EIO', 'EROFS'] as const)('while the disk says %s; that is an alarm, and it ends by itself', async (fault) => {
    await using intents = await open()
    await intents.intend(intent('a'))
    files.fault = fault
    await expect(intents.intend(intent('b'))).rejects.toMatchObject({ reason: 'intents.not-written', category: 'unavailable' })
    await expect(intents.intend(intent('c'))).rejects.toMatchObject({ reason: 'intents.not-written' })
    expect(intents.complaints()[0]).toMatch(new RegExp(`^nothing can be issued: the intents cannot be written: ${fault}`))
    expect(log.lines.filter((line) => line.startsWith('error'))).toHaveLength(1)
    files.fault = undefined
    await whileCopying(intents, () => pass(2))
    expect(intents.complaints()).toEqual([])
    await intents.intend(intent('d'))
    expect(onDisk()).not.toContain('"b"')
    expect(meter.of(caMetrics.intentFailures, {})).toBeGreaterThanOrEqual(2)
    expect(meter.of(caMetrics.intents, { outcome: 'intended' })).toBe(2)
  })

  test('when too much waits for a store that is away, until it is back', async () => {
    isAway = true
    await using intents = await open(1000)
    let issued = 0
    await whileCopying(intents, async () => {
      await expect(
        (async () => {
          for (; issued < 20; issued++) {
            const one = intent(`s${issued}`)
            await intents.intend(one)
            intents.settle(one, 'issued')
          }
        })(),
      ).rejects.toMatchObject({ reason: 'intents.full' })
      expect(issued).toBeGreaterThan(2)
      expect(intents.complaints()).toEqual(['nothing can be issued: what was issued cannot be copied to the store'])
      isAway = false
      await pass(15)
      await intents.intend(intent('last'))
    })
    expect(stored.size).toBe(issued)
    expect(log.lines.filter((line) => line.includes('not copied'))).toHaveLength(0)
  })

  test('when too many wait for the disk', async () => {
    await using intents = await open()
    const outcomes = await Promise.allSettled(Array.from({ length: 8300 }, (_, index) => intents.intend(intent(`n${index}`))))
    const refused = outcomes.filter((one) => one.status === 'rejected')
    expect(refused.length).toBeGreaterThan(0)
    expect(refused[0]!.reason).toMatchObject({ reason: 'intents.too-many' })
  })
})

describe('C-10 an intent', () => {
  test('is on the disk when it is accepted; many share a write', async () => {
    await using intents = await open()
    await Promise.all(Array.from({ length: 500 }, (_, index) => intents.intend(intent(`n${index}`))))
    const lines = onDisk().trim().split('\n')
    expect(lines.map((line) => (JSON.parse(line) as { intent: Intent }).intent.name)).toEqual(
      Array.from({ length: 500 }, (_, index) => `n${index}`),
    )
  })

  test('shares its write with as many others while outcomes are written too, and a write has an end', async () => {
    const writes: { intents: number; lines: number }[] = []
    const appendTo = files.appendTo.bind(files)
    files.appendTo = async (path, options) => {
      const file = await appendTo(path, options)
      const append = (content: Uint8Array) => {
        const lines = fromUtf8(content).trim().split('\n')
        writes.push({ lines: lines.length, intents: lines.filter((line) => line.startsWith('{"intent"')).length })
        return file.append(content)
      }
      return Object.defineProperty({ ...file, append }, 'size', { get: () => file.size })
    }
    await using intents = await open()
    const first = Array.from({ length: 640 }, (_, index) => intent(`a${index}`))
    await Promise.all(first.map((one) => intents.intend(one)))
    writes.length = 0
    const second = first.map((one, index) => {
      intents.settle(one, 'issued')
      return intents.intend(intent(`b${index}`))
    })
    await Promise.all(second)
    expect(writes.map((write) => write.intents)).toEqual(Array.from({ length: 20 }, () => 32))
    writes.length = 0
    for (let index = 0; index < 640; index++) intents.settle(intent(`b${index}`), 'issued')
    await intents.intend(intent('last'))
    expect(Math.max(...writes.map(({ lines }) => lines))).toBe(128)
  })

  test('is copied to the store with what became of it, and its file is removed then', async () => {
    await using intents = await open()
    const [a, b] = [intent('a'), intent('b')]
    await intents.intend(a)
    await intents.intend(b)
    intents.settle(a, 'issued')
    await whileCopying(intents, async () => {
      await pass(15)
      expect(stored.size).toBe(0)
      intents.settle(b, 'withheld')
      await pass(15)
    })
    expect(stored).toEqual(
      new Map([
        ['a', { ...a, outcome: 'issued' }],
        ['b', { ...b, outcome: 'withheld' }],
      ]),
    )
    expect(onDisk()).not.toContain('"a"')
  })

  test('waits while the store is away, and nobody is hindered', async () => {
    isAway = true
    await using intents = await open()
    await whileCopying(intents, async () => {
      for (let index = 0; index < 3; index++) {
        const one = intent(`n${index}`)
        await intents.intend(one)
        intents.settle(one, 'issued')
        await pass(12)
      }
      expect(intents.complaints()).toEqual([])
      expect(log.lines.filter((line) => line.startsWith('warn'))).toHaveLength(1)
      isAway = false
      await pass(15)
    })
    expect([...stored.keys()].sort()).toEqual(['n0', 'n1', 'n2'])
  })

  test('is copied in haste where files have piled up, so that issuing for hours fills no disk', async () => {
    await using intents = await open()
    isAway = true
    const [piled, each] = [9, 320]
    await whileCopying(intents, async () => {
      for (let file = 0; file < piled; file++) {
        const names = Array.from({ length: each }, (_, index) => `${file}-${index}`)
        await Promise.all(names.map((name) => intents.intend(intent(name))))
        for (const name of names) intents.settle(intent(name), 'issued')
        await pass(11)
      }
      expect(files.contents.size).toBeGreaterThanOrEqual(piled)
      isAway = false
      while (stored.size === 0) await clock.advance(1)
      // With the pauses of quiet times these would be enough for a third.
      for (let step = 0; step < 300; step++) await clock.advance(1)
      expect(stored.size).toBeGreaterThan((piled * each) / 2)
    })
  })

  test('that expired while the store was away is dropped', async () => {
    isAway = true
    await using intents = await open()
    const one = intent('a')
    await intents.intend(one)
    intents.settle(one, 'issued')
    await whileCopying(intents, async () => {
      await pass(15)
      await clock.advance(hours(1) + minutes(1))
      await pass(2)
    })
    expect(onDisk()).not.toContain('"a"')
  })

  test('C-1 a serial number that the store knows for other bytes is an alarm', async () => {
    stored.set('a', { ...intent('a'), hash: 'of something else', outcome: 'issued' })
    await using intents = await open()
    const one = intent('a')
    await intents.intend(one)
    intents.settle(one, 'issued')
    await whileCopying(intents, () => pass(15))
    expect(log.lines.join('\n')).toContain('"reason":"intents.name-twice","names":"a"')
  })
})

describe('C-10 after a restart', () => {
  test('what was issued, what was withheld and what nobody knows are told apart', async () => {
    {
      await using intents = await open()
      const [a, b, c] = [intent('a'), intent('b'), intent('c')]
      for (const one of [a, b, c]) await intents.intend(one)
      intents.settle(a, 'issued')
      intents.settle(b, 'withheld')
    }
    await using intents = await open()
    expect(intents.unresolved.map(({ name }) => name)).toEqual(['c'])
    await whileCopying(intents, () => pass(15))
    expect([...stored.values()].map(({ name, outcome }) => [name, outcome])).toEqual([
      ['a', 'issued'],
      ['b', 'withheld'],
      ['c', 'unknown'],
    ])
    await using again = await open()
    expect(again.unresolved).toEqual([])
    for (const outcome of ['issued', 'withheld', 'unknown'] as const) expect(meter.of(caMetrics.intents, { outcome })).toBe(1)
  })

  test('an outcome in a later file than its intent counts', async () => {
    {
      await using intents = await open()
      const one = intent('a')
      await intents.intend(one)
      await whileCopying(intents, () => pass(15))
      intents.settle(one, 'issued')
    }
    await using intents = await open()
    expect(intents.unresolved).toEqual([])
    await whileCopying(intents, () => pass(15))
    expect(stored.get('a')?.outcome).toBe('issued')
  })

  test('a line that a power cut tore was never signed for; other damage is told', async () => {
    {
      await using intents = await open()
      await intents.intend(intent('a'))
    }
    const [path, content] = [...files.contents][0]!
    files.contents.set(path, utf8(`${fromUtf8(content)}{"intent":{"kind":"x509","na`))
    files.contents.set(`${directory}/00000002.log`, utf8('noise\n'))
    files.contents.set(`${directory}/a stranger`, utf8('noise\n'))
    await using intents = await open()
    expect(intents.unresolved.map(({ name }) => name)).toEqual(['a'])
    expect(log.lines.filter((line) => line.startsWith('error'))).toHaveLength(1)
    expect(log.lines[0]).toContain('00000002.log')
  })
})
