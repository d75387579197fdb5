/** Kysely on `node:sqlite`: one connection, used by one transaction or one statement at a time. */
import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite'
import {
  CompiledQuery,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type QueryResult,
} from 'kysely'
import { Failure } from '../kernel/failure.ts'

/** @param open called once, when the first query comes; what it returns is closed with the Kysely that uses it */
export function sqliteDialect(open: () => DatabaseSync): Dialect {
  return {
    createAdapter: () => new SqliteAdapter(),
    createDriver: () => new SqliteDriver(open),
    createIntrospector: (db) => new SqliteIntrospector(db),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  }
}

class SqliteDriver implements Driver {
  readonly #open: () => DatabaseSync
  #database: DatabaseSync | undefined
  #connection: SqliteConnection | undefined
  #free: Promise<void> = Promise.resolve()
  #release: () => void = () => {}

  constructor(open: () => DatabaseSync) {
    this.#open = open
  }

  async init(): Promise<void> {
    this.#database = this.#open()
    this.#connection = new SqliteConnection(this.#database)
  }

  /** Waits for its turn: a second statement never lands in somebody else's transaction. */
  async acquireConnection(): Promise<DatabaseConnection> {
    const before = this.#free
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#free = before.then(() => promise)
    await before
    this.#release = resolve
    if (!this.#connection) throw new Error('bug: a query came before the database was opened')
    return this.#connection
  }

  async releaseConnection(): Promise<void> {
    this.#release()
  }

  /** Takes the write lock at once: a transaction that began by reading could not be made to wait for it. */
  beginTransaction = (connection: DatabaseConnection): Promise<void> => run(connection, 'begin immediate')
  commitTransaction = (connection: DatabaseConnection): Promise<void> => run(connection, 'commit')
  /** A full or failing disk made SQLite do it already: https://www.sqlite.org/lang_transaction.html#response_to_errors_within_a_transaction */
  rollbackTransaction = async (connection: DatabaseConnection): Promise<void> => {
    if (this.#database?.isTransaction) await run(connection, 'rollback')
  }
  savepoint = (connection: DatabaseConnection, name: string): Promise<void> => run(connection, `savepoint "${name}"`)
  rollbackToSavepoint = (connection: DatabaseConnection, name: string): Promise<void> => run(connection, `rollback to "${name}"`)
  releaseSavepoint = (connection: DatabaseConnection, name: string): Promise<void> => run(connection, `release "${name}"`)

  async destroy(): Promise<void> {
    this.#database?.close()
    this.#database = undefined
  }
}

class SqliteConnection implements DatabaseConnection {
  readonly #database: DatabaseSync
  /** Statements by their text, the least recently used first. */
  readonly #prepared = new Map<string, Prepared>()

  constructor(database: DatabaseSync) {
    this.#database = database
  }

  async executeQuery<Row>(query: CompiledQuery): Promise<QueryResult<Row>> {
    try {
      return this.#run<Row>(query)
    } catch (error) {
      throw told(error, this.#database.location())
    }
  }

  #run<Row>(query: CompiledQuery): QueryResult<Row> {
    const { statement, returnsRows } = this.#prepare(query.sql)
    const parameters = query.parameters as readonly SQLInputValue[]
    if (returnsRows) return { rows: statement.all(...parameters) as Row[] }
    const { changes, lastInsertRowid } = statement.run(...parameters)
    return { rows: [], numAffectedRows: BigInt(changes), insertId: BigInt(lastInsertRowid) }
  }

  // eslint-disable-next-line require-yield
  async *streamQuery<Row>(): AsyncIterableIterator<QueryResult<Row>> {
    throw new Error('bug: rows are read in pages, not streamed')
  }

  #prepare(sql: string): Prepared {
    const known = this.#prepared.get(sql)
    if (known) this.#prepared.delete(sql)
    else if (this.#prepared.size >= maxPrepared) this.#prepared.delete(this.#prepared.keys().next().value!)
    const prepared = known ?? prepare(this.#database, sql)
    this.#prepared.set(sql, prepared)
    return prepared
  }
}

interface Prepared {
  readonly statement: StatementSync
  readonly returnsRows: boolean
}

function prepare(database: DatabaseSync, sql: string): Prepared {
  const statement = database.prepare(sql)
  return { statement, returnsRows: statement.columns().length > 0 }
}

/** A disk that is full or a file that is locked may be better soon; what breaks a rule of the tables is a mistake of ours. */
function told(error: unknown, path: string | null): unknown {
  const code = error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : undefined
  if (code !== undefined && damaged.has(code)) {
    return new Failure('failed_precondition', 'store.damaged', {
      public: `the store \`${path ?? 'in memory'}\` is damaged: stop the server and restore a backup; what can still be read, \`sqlite3 FILE .recover\` shows`,
      cause: error,
    })
  }
  if (code === undefined || ourMistakes.has(code)) return error
  return new Failure('unavailable', 'store.failed', { public: 'the store does not work at the moment', cause: error })
}

async function run(connection: DatabaseConnection, sql: string): Promise<void> {
  await connection.executeQuery(CompiledQuery.raw(sql))
}

const maxPrepared = 200
/** SQLITE_CORRUPT and SQLITE_NOTADB. */
const damaged: ReadonlySet<number> = new Set([11, 26])
/** SQLITE_ERROR, SQLITE_CONSTRAINT, SQLITE_MISMATCH, SQLITE_MISUSE and SQLITE_RANGE of https://www.sqlite.org/rescode.html */
const ourMistakes: ReadonlySet<number> = new Set([1, 19, 20, 21, 25])
