import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The top of this repository. */
export const repository = join(import.meta.dirname, '..', '..')

/** Where the source of a peer that we wrote ourselves is. */
export function sourceFolder(name: string): string {
  return join(repository, 'test', 'peers', name)
}

/** Changes whenever a file in the folder does. */
export function fingerprint(folder: string): string {
  const hash = createHash('sha256')
  for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.isFile())
      hash
        .update(`${entry.name}\0`)
        .update(readFileSync(join(folder, entry.name)))
        .update('\0')
  }
  return hash.digest('hex').slice(0, 12)
}
