import { DatabaseSync } from 'node:sqlite'
import { z } from 'zod'
import { sqliteDialect } from './sqlite-dialect.ts'
import { store } from './store.ts'
import { openTables } from './tables.ts'

/** Keeps everything in this process, and loses it with the process: for tests and trials. */
export const memory = store({
  kind: 'memory',
  config: z.strictObject({}),
  example: {},
  open: () => openTables(sqliteDialect(() => new DatabaseSync(':memory:', { enableForeignKeyConstraints: true }))),
})
