import { appendFile, mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { utf8 } from '../../src/kernel/bytes.ts'
import { systemFiles } from '../../src/kernel/files.ts'

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
