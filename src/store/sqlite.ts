import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { z } from 'zod'
import { Failure } from '../kernel/failure.ts'
import { sqliteDialect } from './sqlite-dialect.ts'
import { store } from './store.ts'
import { openTables } from './tables.ts'

/** Keeps everything in one SQLite file, for one server. A write that was acknowledged survives a power cut. */
export const sqlite = store({
  kind: 'sqlite',
  config: z.strictObject({ path: z.string().min(1) }),
  example: { path: '/var/lib/vidimus/server/store.sqlite' },
  async open({ path }, { files }) {
    await files.privateDirectory(dirname(path))
    keepPrivate(path)
    return openTables(sqliteDialect(() => openFile(path)))
  },
})

/** Makes the file, or checks it, before SQLite does: only its owner may read it. SQLite gives its side files the same mode. */
function keepPrivate(path: string): void {
  const descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  try {
    const mode = fstatSync(descriptor).mode & 0o777
    if ((mode & 0o077) === 0) return
    throw new Failure('failed_precondition', 'store.loose-permissions', {
      public: `\`${path}\` can be read by others (mode ${mode.toString(8).padStart(4, '0')}): expected 0600; run \`chmod 600 ${path}\``,
    })
  } finally {
    closeSync(descriptor)
  }
}

function openFile(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: busyTimeoutMs })
  try {
    database.exec('pragma journal_mode = wal')
    // FULL: in WAL mode NORMAL may lose the last commits in a power cut.
    database.exec('pragma synchronous = full')
    return database
  } catch (cause) {
    database.close()
    throw new Failure('failed_precondition', 'store.unreadable', {
      public: `\`${path}\` cannot be used as a store: expected an SQLite database that no other server has locked; if it is damaged, restore a backup`,
      cause,
    })
  }
}

/** Nobody but a backup or a person should ever hold the lock; while we wait for it nothing else runs. */
const busyTimeoutMs = 1000
