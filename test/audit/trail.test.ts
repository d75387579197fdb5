import { mkdtemp, readFile, rm, appendFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { administered } from '../../src/audit/event.ts'
import { file } from '../../src/audit/sinks/file.ts'
import { openTrail, verifyTrail, type AuditSink } from '../../src/audit/trail.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import type { World } from '../../src/kernel/driver.ts'
import { systemFiles } from '../../src/kernel/files.ts'

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vidimus-audit-'))
})
afterEach(() => rm(directory, { recursive: true }))

const world = { files: systemFiles } as World
const event = (subject: string) => administered({ what: 'entry.created', subject, caller: 'local' })
const path = () => join(directory, 'audit.log')
const open = async () => openTrail(await file.open({ path: path() }, world), { clock: systemClock })
const lines = async () => (await readFile(path(), 'utf8')).split('\n').filter((line) => line !== '')

describe('the audit trail', () => {
  test('R-37 an event that cannot be written is refused to whoever wanted it', async () => {
    const sink: AuditSink = { append: () => Promise.reject(new Error('disk full')), [Symbol.asyncDispose]: () => Promise.resolve() }
    await using trail = await openTrail(sink, { clock: systemClock })
    await expect(trail.append(event('a'))).rejects.toMatchObject({ reason: 'audit.sink-failed' })
  })

  test('a changed, dropped or reordered line is found', async () => {
    {
      await using trail = await open()
      for (const subject of ['a', 'b', 'c', 'd']) await trail.append(event(subject))
    }
    const [a, b, c, d] = (await lines()) as [string, string, string, string]
    expect(verifyTrail([a, b, c, d])).toEqual({ whole: true, lines: 4 })
    expect(verifyTrail([a, b.replace('"b"', '"x"'), c, d])).toMatchObject({ whole: false, line: 2 })
    expect(verifyTrail([a, c, d])).toMatchObject({ whole: false, line: 2 })
    expect(verifyTrail([a, c, b, d])).toMatchObject({ whole: false, line: 2 })
    expect(verifyTrail([a, 'noise'])).toMatchObject({ whole: false, line: 2 })
  })

  test('goes on where it ended, also after a line that a power cut tore', async () => {
    {
      await using trail = await open()
      await trail.append(event('a'))
    }
    await appendFile(path(), '{"event":{"at":"20')
    {
      await using trail = await open()
      await trail.append(event('b'))
    }
    const whole = (await lines()).filter((line) => line.endsWith('"}'))
    expect(verifyTrail(whole)).toEqual({ whole: true, lines: 2 })
  })

  test('events of one moment share a write and keep their order', async () => {
    const batches: (readonly string[])[] = []
    const sink: AuditSink = { append: async (batch) => void batches.push(batch), [Symbol.asyncDispose]: () => Promise.resolve() }
    await using trail = await openTrail(sink, { clock: systemClock })
    await Promise.all(Array.from({ length: 100 }, (_, index) => trail.append(event(String(index)))))
    expect(batches.length).toBeLessThan(5)
    expect(verifyTrail(batches.flat())).toEqual({ whole: true, lines: 100 })
    expect(batches.flat().map((line) => /"subject":"(\d+)"/.exec(line)?.[1])).toEqual(
      Array.from({ length: 100 }, (_, index) => String(index)),
    )
  })
})
