import { accessSync, constants, realpathSync } from 'node:fs'
import { basename, join } from 'node:path'
import { repository } from './source.ts'
import { peers, type PeerName } from './table.ts'

export interface FoundPeer {
  /** The program to start. */
  readonly path: string
}

export interface MissingPeer {
  readonly missing: string
  /** The command that provides it. */
  readonly command: string
}

/** Where `npm run peers` put the program of a peer, or why it is not there. Looks at the disk, starts nothing. */
export function peer(name: PeerName): FoundPeer | MissingPeer {
  const { folder, program, version } = peers[name]
  const command = `npm run peers -- ${name}`
  const link = linkOf(name)
  try {
    const target = realpathSync(link)
    if (basename(target) !== folder) return { missing: `\`.peers/${name}\` holds \`${basename(target)}\`, expected \`${folder}\``, command }
    accessSync(join(target, program), constants.X_OK)
    return { path: join(link, program) }
  } catch {
    return { missing: `${name} ${version} is not in \`.peers\``, command }
  }
}

/** The link in this checkout that points at a peer's folder in the cache. */
export function linkOf(name: PeerName): string {
  return join(repository, '.peers', name)
}
