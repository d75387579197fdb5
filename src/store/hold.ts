/** A data directory belongs to one process at a time: two that write there would undo each other's work. */
import { closeSync, constants, openSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Failure } from '../kernel/failure.ts'

/**
 * Holds a directory until it is disposed, or until the process ends, however it ends: the lock is the kernel's, on a file that stays.
 * SQLite is how Node locks a file.
 * @throws Failure `directory.in-use`
 */
export function holdDirectory(directory: string): Disposable {
  const path = join(directory, 'lock')
  closeSync(openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600))
  const lock = new DatabaseSync(path)
  try {
    lock.exec('BEGIN EXCLUSIVE')
  } catch (cause) {
    lock.close()
    throw new Failure('failed_precondition', 'directory.in-use', {
      public: `the data directory \`${directory}\` is in use by another process: stop it, or choose another \`dataDirectory\``,
      cause,
    })
  }
  return { [Symbol.dispose]: () => lock.close() }
}
