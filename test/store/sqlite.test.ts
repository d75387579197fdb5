import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import { Kysely, sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/kernel/clock.ts'
import type { World } from '../../src/kernel/driver.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { systemRandom } from '../../src/kernel/random.ts'
import { up as registry } from '../../src/store/migrations/0001-registry.ts'
import { up as policyReleases } from '../../src/store/migrations/0002-policy-releases.ts'
import { up as issuances } from '../../src/store/migrations/0003-issuances.ts'
import { sqliteDialect } from '../../src/store/sqlite-dialect.ts'
import { sqlite } from '../../src/store/sqlite.ts'
import { entry, node, outcomes } from './sample.ts'

const world: World = {
  clock: systemClock,
  random: systemRandom,
  files: systemFiles,
  log: silentLog,
  meter: silentMeter,
  secrets: { read: () => Promise.reject(new Error('bug: a store needs no secret')) },
}

describe('a store in an SQLite file', () => {
  let folder: string
  let path: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'v-sqlite-'))
    path = join(folder, 'store.sqlite')
  })
  afterEach(() => rm(folder, { recursive: true }))

  test('R-40 refuses a file that others can read', async () => {
    await writeFile(path, '')
    await chmod(path, 0o644)
    await expect(sqlite.open({ path }, world)).rejects.toMatchObject({ reason: 'store.loose-permissions' })
  })

  test('R-40 refuses a directory that others can enter', async () => {
    await chmod(folder, 0o755)
    await expect(sqlite.open({ path }, world)).rejects.toMatchObject({ reason: 'directory.loose-permissions' })
  })

  test('refuses a file that is no database', async () => {
    await writeFile(path, 'this is a shopping list, which is not a database at all, however long it gets', { mode: 0o600 })
    await expect(sqlite.open({ path }, world)).rejects.toMatchObject({ reason: 'store.unreadable' })
  })

  test('Q-25 refuses a file that a newer program has changed, and leaves it as it is', async () => {
    await using _ = await sqlite.open({ path }, world)
    const raw = new DatabaseSync(path)
    raw.exec('update schema_version set version = 99')
    await expect(sqlite.open({ path }, world)).rejects.toMatchObject({ reason: 'store.schema-too-new' })
    expect(raw.prepare('select version from schema_version').get()).toEqual({ version: 99 })
    raw.close()
  })

  test('Q-5 goes on with a file of before, and with the certificate of an agent that waits in it', async () => {
    {
      await using old = new Kysely<unknown>({ dialect: sqliteDialect(() => new DatabaseSync(path)) })
      for (const up of [registry, policyReleases, issuances]) await up(old)
      await sql`create table schema_version (version integer not null)`.execute(old)
      await sql`insert into schema_version values (3)`.execute(old)
      await sql`insert into nodes values (${node().id}, 'join_token', 'aa01', 9, 'bb', 11, '[]', 0, 0, '')`.execute(old)
      await chmod(path, 0o600)
    }
    await using store = await sqlite.open({ path }, world)
    expect(await store.nodes.find(node().id)).toEqual(node({ expiresAt: 9, pending: [{ serial: 'bb', expiresAt: 11 }] }))
  })

  test('Q-25 goes on with the entries of before, which add nothing', async () => {
    {
      await using store = await sqlite.open({ path }, world)
      await store.entries.create(entry())
    }
    const raw = new DatabaseSync(path)
    raw.exec('alter table entries drop column subject; alter table entries drop column claims; update schema_version set version = 4')
    raw.close()
    await using store = await sqlite.open({ path }, world)
    expect(await store.entries.find('entry-1')).toEqual(entry())
    const more = entry({ subject: { organization: 'Team A' }, claims: { tier: 'gold' }, revision: 1n })
    await store.entries.update(more, 0n)
    expect(await store.entries.find('entry-1')).toEqual(more)
  })

  test('R-40 only its owner can read the file and what SQLite keeps beside it', async () => {
    await using store = await sqlite.open({ path }, world)
    await store.entries.create(entry())
    for (const file of [path, `${path}-wal`, `${path}-shm`]) expect((await stat(file)).mode & 0o777, file).toBe(0o600)
  })

  test('Q-18 a file that cannot be written fails the write, is told to be worth another try, and the next write goes on', async () => {
    await using store = await sqlite.open({ path }, { ...world })
    const raw = new DatabaseSync(path)
    raw.exec('begin immediate')
    const refused = expect(store.entries.create(entry())).rejects.toMatchObject({ category: 'unavailable', reason: 'store.failed' })
    await refused
    raw.exec('rollback')
    raw.close()
    expect(await store.entries.create(entry())).toMatchObject({ created: true })
  }, 15_000)

  test('an acknowledged write is there after the store is opened again', async () => {
    {
      await using store = await sqlite.open({ path }, world)
      await store.entries.create(entry())
    }
    await using again = await sqlite.open({ path }, world)
    expect(await again.entries.find('entry-1')).toEqual(entry())
  })

  test('closing waits for the writes that were asked for', async () => {
    const store = await sqlite.open({ path }, world)
    const writes = Array.from({ length: 20 }, (_, i) => store.entries.create(entry({ id: `e${i}`, selectors: [`x:${i}`] })))
    await store[Symbol.asyncDispose]()
    expect((await outcomes(writes)).errors).toEqual([])
    await using again = await sqlite.open({ path }, world)
    expect(await again.entries.count({})).toBe(20)
  })

  test('Q-5 after kill -9 in the middle of writing every acknowledged write is there, and nothing is broken', async () => {
    for (let round = 0; round < 3; round++) {
      const writer = spawn(process.execPath, [fileURLToPath(import.meta.resolve('./endless-writer.ts')), path, `round${round}`], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const acknowledged: string[] = []
      for await (const line of createInterface({ input: writer.stdout })) {
        acknowledged.push(line)
        if (acknowledged.length === 40 + round * 7) writer.kill('SIGKILL')
      }
      if (writer.exitCode === null && writer.signalCode === null) await once(writer, 'exit')
      expect(writer.signalCode).toBe('SIGKILL')

      await using store = await sqlite.open({ path }, world)
      for (const id of acknowledged) expect(await store.entries.find(id), id).toBeDefined()
      const all = await store.entries.changes(0n)
      expect(await store.entries.count({})).toBe(all.changed.length)
      for (const one of all.changed) expect(await store.entries.count({ selectors: { selectors: one.selectors, match: 'exact' } })).toBe(1)
      expect(new DatabaseSync(path, { readOnly: true }).prepare('pragma integrity_check').get()).toEqual({ integrity_check: 'ok' })
    }
  }, 30_000)
})
