import { appendFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { utf8 } from '../../src/kernel/bytes.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { type Fault, FaultyDisk } from '../fakes/faulty-disk.ts'

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vidimus-files-'))
})
afterEach(() => rm(directory, { recursive: true }))
const path = () => join(directory, 'a.log')

describe('a file that is appended to', () => {
  test('R-40 is its owner’s alone, and is opened through no link', async () => {
    await using file = await systemFiles.appendTo(path())
    await file.append(utf8('a\n'))
    expect((await stat(path())).mode & 0o777).toBe(0o600)
  })

  test('goes on where it ended, or where it is told to', async () => {
    {
      await using file = await systemFiles.appendTo(path())
      await file.append(utf8('one\n'))
      expect(file.size).toBe(4)
    }
    await appendFile(path(), 'torn')
    {
      await using file = await systemFiles.appendTo(path(), { keep: 4 })
      expect(file.size).toBe(4)
      await file.append(utf8('two\n'))
      expect(file.size).toBe(8)
    }
    expect(await readFile(path(), 'utf8')).toBe('one\ntwo\n')
  })

  test('the list of a directory is sorted, and empty where there is none', async () => {
    for (const name of ['b', 'a']) await systemFiles.writeAtomically(join(directory, name), utf8(name))
    expect(await systemFiles.list(directory)).toEqual(['a', 'b'])
    expect(await systemFiles.list(join(directory, 'none'))).toEqual([])
    await systemFiles.rename(join(directory, 'a'), join(directory, 'c'))
    expect(await systemFiles.list(directory)).toEqual(['b', 'c'])
  })
})

const everything: Fault = { code: 'EIO' }
const open: readonly Fault[] = [
  { code: 'EROFS', on: ['open'] },
  { code: 'ENOSPC', on: ['open'] },
]
const write: readonly Fault[] = [
  { code: 'ENOSPC', on: ['write'] },
  { code: 'ENOSPC', on: ['write'], arrives: 'half' },
  { code: 'EIO', on: ['write'], arrives: 'all' },
]
const sync: Fault = { code: 'EIO', on: ['sync'] }
const named = (faults: readonly Fault[]): (readonly [string, Fault])[] =>
  faults.map((fault) => {
    const part = fault.arrives === undefined ? '' : ` when ${fault.arrives} of it arrived`
    return [`${fault.code} to ${fault.on?.join() ?? 'everything'}${part}`, fault]
  })

describe('a disk that says', () => {
  test.each(named([...open, ...write, sync, { code: 'EIO', on: ['rename'] }, everything]))(
    '%s leaves a file that is replaced as it was, and nothing unfinished; the next try succeeds (Q-18)',
    async (_, fault) => {
      const disk = new FaultyDisk()
      await disk.files.writeAtomically(path(), utf8('before'))
      disk.fault = fault
      const failure = { category: 'unavailable', reason: 'file.not-written', message: `\`${path()}\` cannot be written` }
      await expect(disk.files.writeAtomically(path(), utf8('after'))).rejects.toMatchObject({ ...failure, cause: { code: fault.code } })
      expect(await readFile(path(), 'utf8')).toBe('before')
      disk.fault = undefined
      await disk.files.privateDirectory(directory)
      expect(await readdir(directory)).toEqual(['a.log'])
      await disk.files.writeAtomically(path(), utf8('after'))
      expect(await readFile(path(), 'utf8')).toBe('after')
      expect(disk.sins).toEqual([])
    },
  )

  test.each(named([...write, everything]))(
    '%s keeps nothing of what could not be appended, and goes on where it ended (Q-18)',
    async (_, fault) => {
      const disk = new FaultyDisk()
      await using file = await disk.files.appendTo(path())
      await file.append(utf8('one\n'))
      disk.fault = fault
      for (let tries = 0; tries < 3; tries++) {
        await expect(file.append(utf8('lost\n'))).rejects.toMatchObject({ reason: 'file.not-written', cause: { code: fault.code } })
        expect(file.size).toBe(4)
      }
      disk.fault = undefined
      await file.append(utf8('two\n'))
      expect(await readFile(path(), 'utf8')).toBe('one\ntwo\n')
      expect(disk.sins).toEqual([])
    },
  )

  test.each(named([...open, sync]))(
    '%s leaves no file whose name may be lost in a power cut: the next try makes it anew (Q-18)',
    async (_, fault) => {
      const disk = new FaultyDisk()
      disk.fault = fault
      await expect(disk.files.appendTo(path())).rejects.toMatchObject({ reason: 'file.not-written' })
      expect(await readdir(directory)).toEqual([])
      disk.fault = undefined
      await using file = await disk.files.appendTo(path())
      await file.append(utf8('one\n'))
      expect(await readFile(path(), 'utf8')).toBe('one\n')
    },
  )
})

describe('a disk that fails', () => {
  test('Q-18 while a replaced file’s name is synced: it holds the new content, whole, and whoever wrote it hears that it may be lost', async () => {
    const disk = new FaultyDisk()
    await disk.files.writeAtomically(path(), utf8('before'))
    disk.fault = { code: 'EIO', on: ['sync'], nth: 2 }
    await expect(disk.files.writeAtomically(path(), utf8('after'))).rejects.toMatchObject({ reason: 'file.not-written' })
    expect(await readFile(path(), 'utf8')).toBe('after')
  })

  test('Q-18 under everything, tidying up included: what was half appended goes before the next is', async () => {
    const disk = new FaultyDisk()
    await using file = await disk.files.appendTo(path())
    await file.append(utf8('one\n'))
    disk.fault = { code: 'EIO', on: ['write', 'truncate'], arrives: 'half' }
    await expect(file.append(utf8('lost\n'))).rejects.toMatchObject({ reason: 'file.not-written' })
    expect(await readFile(path(), 'utf8')).toBe('one\nlo')
    disk.fault = undefined
    await file.append(utf8('two\n'))
    expect(await readFile(path(), 'utf8')).toBe('one\ntwo\n')
  })

  test('Q-18 for a moment, with short counts: what was taken in parts is whole', async () => {
    const disk = new FaultyDisk()
    await using file = await disk.files.appendTo(path())
    disk.fault = { code: 'ENOSPC', on: ['write'], arrives: 'half', nth: 1 }
    await file.append(utf8('whole\n'))
    expect(disk.hasFailed).toBe(true)
    expect(await readFile(path(), 'utf8')).toBe('whole\n')
  })

  test('Q-18 under what is read: said with the place, and never taken for a file that is missing', async () => {
    const disk = new FaultyDisk()
    await disk.files.writeAtomically(path(), utf8('content'))
    disk.fault = { code: 'EIO', on: ['read'] }
    const failure = { category: 'unavailable', reason: 'file.not-read', message: `\`${path()}\` cannot be read`, cause: { code: 'EIO' } }
    await expect(disk.files.read(path())).rejects.toMatchObject(failure)
    await expect(disk.files.readTail(path(), 4)).rejects.toMatchObject(failure)
  })

  test('R-40 an unfinished file of somebody who was killed is removed when its directory is opened, and nothing else is', async () => {
    for (const name of ['.key.pem.123.1.tmp', 'notes.tmp', '.hidden']) await writeFile(join(directory, name), 'x')
    await systemFiles.privateDirectory(directory)
    expect((await readdir(directory)).toSorted()).toEqual(['.hidden', 'notes.tmp'])
  })
})
