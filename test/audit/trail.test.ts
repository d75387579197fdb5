import { createHash } from 'node:crypto'
import { appendFile, mkdtemp, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { auditMetrics } from '../../src/audit/metrics.ts'
import { administered } from '../../src/audit/event.ts'
import { file } from '../../src/audit/sinks/file.ts'
import { openTrail, type AuditSink, type AuditTrail } from '../../src/audit/trail.ts'
import { verifyTrail } from '../../src/audit/verify.ts'
import { formatInstant } from '../../src/kernel/clock.ts'
import { days, hours } from '../../src/kernel/duration.ts'
import { systemFiles, type Files } from '../../src/kernel/files.ts'
import { KeptLog, testWorld } from '../ca/support.ts'
import { vidimus } from '../cli/rig.ts'
import { FakeClock } from '../fakes/clock.ts'
import { FakeFiles } from '../fakes/files.ts'
import { TestMeter } from '../support/counted.ts'

let directory: string
let clock: FakeClock
let log: KeptLog
let meter: TestMeter
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vidimus-audit-'))
  clock = new FakeClock()
  log = new KeptLog()
  meter = new TestMeter()
})
afterEach(() => rm(directory, { recursive: true }))

const event = (subject: string) => administered({ what: 'entry.created', subject, caller: 'local' })
const path = () => join(directory, 'audit.log')
const settings = () => ({ path: path(), maxMebibytes: 1, maxAge: days(1) })
const testWorldWith = (files: Files) => ({ ...testWorld({ clock }), files })
const open = async (files: Files = systemFiles): Promise<AuditTrail> =>
  openTrail(await file.open(settings(), testWorldWith(files)), { clock, log, meter })
const lines = async () => (await readFile(path(), 'utf8')).split('\n').filter((line) => line !== '')
const failing: AuditSink = { append: () => Promise.reject(new Error('disk full')), [Symbol.asyncDispose]: () => Promise.resolve() }

describe('the audit trail', () => {
  test('R-37 an event that cannot be written is refused to whoever wanted it, and counted', async () => {
    await using trail = await openTrail(failing, { clock, log, meter })
    await expect(trail.append(event('a'))).rejects.toMatchObject({ reason: 'audit.sink-failed' })
    await expect(trail.append(event('b'))).rejects.toMatchObject({ reason: 'audit.sink-failed' })
    expect(trail.complaints()).toEqual(['nothing can be issued: the audit trail cannot be written: disk full'])
    expect(log.lines.filter((line) => line.startsWith('error'))).toHaveLength(1)
    expect(meter.of(auditMetrics.failures, {})).toBe(2)
    expect(meter.of(auditMetrics.events, { event: 'entry.created' })).toBe(2)
  })

  test('R-37 whoever dares may go on without a record, and hears of it', async () => {
    await using trail = await openTrail(failing, { clock, log, meter, dangerouslyGoOnWithout: true })
    await trail.append(event('a'))
    expect(trail.complaints()).toEqual(['what happens is not recorded: the audit trail cannot be written: disk full'])
    expect(log.lines[0]).toMatch(/^warn certificates are issued even where/)
  })

  test('R-37 a disk that is well again is found to be without anybody being refused, and the trail says since when it was not', async () => {
    const files = new FakeFiles()
    await using trail = await open(files)
    await trail.retry()
    files.fault = 'ENOSPC'
    await expect(trail.append(event('a'))).rejects.toMatchObject({ reason: 'audit.sink-failed' })
    await trail.retry()
    expect(trail.complaints()).toHaveLength(1)
    files.fault = undefined
    await trail.retry()
    expect(trail.complaints()).toEqual([])
    const kept = Buffer.from(files.contents.get(path())!).toString('utf8').trimEnd().split('\n')
    expect(kept.map((line) => (JSON.parse(line) as { event: object }).event)).toEqual([
      expect.objectContaining({ what: 'audit.resumed', fields: { since: formatInstant(clock.now()) } }),
    ])
  })

  test.for(['ENOSPC', 'EIO', 'EROFS'] as const)('R-37 a disk that says %s for a while leaves a whole trail', async (fault) => {
    const files = new FakeFiles()
    await using trail = await open(files)
    await trail.append(event('a'))
    files.fault = fault
    await expect(trail.append(event('b'))).rejects.toMatchObject({ reason: 'audit.sink-failed' })
    files.fault = undefined
    await trail.append(event('c'))
    expect(trail.complaints()).toEqual([])
    const kept = Buffer.from(files.contents.get(path())!).toString('utf8').trimEnd().split('\n')
    expect(verifyTrail(kept)).toMatchObject({ whole: true, lines: 2 })
  })

  test('a changed, dropped or reordered line is found', async () => {
    {
      await using trail = await open()
      for (const subject of ['a', 'b', 'c', 'd']) await trail.append(event(subject))
    }
    const [a, b, c, d] = (await lines()) as [string, string, string, string]
    expect(verifyTrail([a, b, c, d])).toMatchObject({ whole: true, lines: 4 })
    expect(verifyTrail([a, b.replace('"b"', '"x"'), c, d])).toMatchObject({ whole: false, line: 2 })
    expect(verifyTrail([a, c, d])).toMatchObject({ whole: false, line: 2 })
    expect(verifyTrail([a, c, b, d])).toMatchObject({ whole: false, line: 2 })
    expect(verifyTrail([a, 'noise'])).toMatchObject({ whole: false, line: 2 })
  })

  test('a tail that a power cut tore is cut off, reported, and the chain goes on', async () => {
    {
      await using trail = await open()
      await trail.append(event('a'))
    }
    const torn = '{"event":{"at":"20Ã'
    await appendFile(path(), Buffer.from(torn, 'utf8').subarray(0, -1))
    {
      await using trail = await open()
      await trail.append(event('b'))
    }
    expect(verifyTrail(await lines())).toMatchObject({ whole: true, lines: 3 })
    const sha256 = createHash('sha256').update(Buffer.from(torn, 'utf8').subarray(0, -1)).digest('hex')
    expect((await lines())[1]).toContain(`"what":"audit.repaired","outcome":"done","fields":{"bytes":19,"sha256":"${sha256}"}`)
    expect(log.lines).toHaveLength(1)
  })

  test('a trail that ends with something else is not gone on with', async () => {
    await writeFile(path(), 'noise\n')
    await expect(open()).rejects.toMatchObject({ reason: 'audit.not-a-record' })
  })

  test('events of one moment share a write and keep their order', async () => {
    const batches: (readonly string[])[] = []
    const sink: AuditSink = { append: async (batch) => void batches.push(batch), [Symbol.asyncDispose]: () => Promise.resolve() }
    await using trail = await openTrail(sink, { clock, log, meter })
    await Promise.all(Array.from({ length: 100 }, (_, index) => trail.append(event(String(index)))))
    expect(batches.length).toBeLessThan(5)
    expect(verifyTrail(batches.flat())).toMatchObject({ whole: true, lines: 100 })
    expect(batches.flat().map((line) => /"subject":"(\d+)"/.exec(line)?.[1])).toEqual(
      Array.from({ length: 100 }, (_, index) => String(index)),
    )
  })
})

describe('a trail of several files', () => {
  /** Three files of two lines each. */
  async function threeFiles(): Promise<void> {
    await using trail = await open()
    for (const subject of ['a', 'b', 'c', 'd', 'e', 'f']) {
      await trail.append(event(subject))
      await clock.advance(hours(13))
    }
  }
  const verify = (...more: string[]) => vidimus(['audit', 'verify', path(), '--output', 'json', ...more])
  const change = async (name: string, how: (lines: string[]) => string[]) => {
    const kept = (await readFile(join(directory, name), 'utf8')).trimEnd().split('\n')
    await writeFile(
      join(directory, name),
      how(kept)
        .map((line) => `${line}\n`)
        .join(''),
    )
  }

  test('is begun when one is old or large, and the chain goes on, also over a restart', async () => {
    await threeFiles()
    expect(await readdir(directory)).toEqual(['audit-00000001.log', 'audit-00000002.log', 'audit.log'])
    await rename(path(), join(directory, 'audit-00000003.log'))
    {
      await using trail = await open()
      const large = 'x'.repeat(900)
      await Promise.all(Array.from({ length: 1300 }, () => trail.append(event(large))))
    }
    expect(await readdir(directory)).toHaveLength(5)
    const { code, json } = await verify()
    expect(json()).toMatchObject({ whole: true, files: 5, lines: 1306 })
    expect(code).toBe(0)
    expect((await stat(path())).mode & 0o777).toBe(0o600)
  })

  test('a flipped bit anywhere is found, with file and line', async () => {
    await threeFiles()
    const name = join(directory, 'audit-00000002.log')
    const good = await readFile(name)
    const second = good.indexOf('\n') + 1
    for (let at = 0; at < good.length; at += 7) {
      const bad = Buffer.from(good)
      bad[at]! ^= 1 << (at % 8)
      await writeFile(name, bad)
      const { code, json } = await verify()
      expect(code).toBe(1)
      expect(json()).toMatchObject({ whole: false, file: 'audit-00000002.log', line: at < second ? 1 : 2 })
    }
  })

  test.for([
    ['a line that was dropped', (kept: string[]) => kept.slice(1), { file: 'audit-00000002.log', line: 1 }],
    ['a last line that was dropped', (kept: string[]) => kept.slice(0, 1), { file: 'audit.log', line: 1 }],
    ['lines in another order', (kept: string[]) => kept.toReversed(), { file: 'audit-00000002.log', line: 1 }],
    ['a line twice', (kept: string[]) => [kept[0]!, ...kept], { file: 'audit-00000002.log', line: 2 }],
    ['an empty line', (kept: string[]) => [...kept, ''], { file: 'audit-00000002.log', line: 3 }],
  ] as const)('%s is found', async ([, how, where]) => {
    await threeFiles()
    await change('audit-00000002.log', how)
    expect((await verify()).json()).toMatchObject({ whole: false, ...where })
  })

  test('a file that is missing is found by its name, at the beginning and in between', async () => {
    await threeFiles()
    await rename(join(directory, 'audit-00000002.log'), join(directory, 'kept'))
    await rename(path(), join(directory, 'audit-00000003.log'))
    expect((await verify()).json()).toEqual({ whole: false, file: 'audit-00000002.log', line: 0, problem: 'it is missing' })
    await rename(join(directory, 'kept'), join(directory, 'audit-00000002.log'))
    const archived = (await readFile(join(directory, 'audit-00000001.log'), 'utf8')).trimEnd().split('\n').at(-1)!
    await rm(join(directory, 'audit-00000001.log'))
    expect((await verify()).json()).toMatchObject({ whole: false, file: 'audit-00000002.log', line: 0 })
    const hash = /"hash":"([0-9a-f]{64})"\}$/.exec(archived)![1]!
    expect((await verify('--from', hash)).json()).toMatchObject({ whole: true, files: 2, lines: 4 })
  })

  test('what was cut off at the end is found by a hash that was noted before', async () => {
    await threeFiles()
    const { last } = (await verify()).json() as { last: string }
    await rm(path())
    expect((await verify()).json()).toMatchObject({ whole: true, files: 2 })
    expect((await verify('--seen', last)).json()).toMatchObject({ whole: false, line: 0 })
  })

  test('a tail that is torn is told', async () => {
    await threeFiles()
    await appendFile(path(), '{"event"')
    expect((await verify()).json()).toMatchObject({ whole: false, file: 'audit.log', line: 3 })
  })

  test('people are told in a sentence; a path without a trail is a mistake', async () => {
    await threeFiles()
    expect((await vidimus(['audit', 'verify', directory])).out).toMatch(
      /^the trail is whole: 6 lines in 3 files\nlast hash: [0-9a-f]{64}\n$/,
    )
    expect((await vidimus(['audit', 'verify', join(directory, 'none', 'audit.log')])).code).toBe(2)
    expect((await vidimus(['audit', 'verify', path(), '--seen', 'abc'])).code).toBe(2)
  })
})
