/** Workload selectors that any UNIX process has: who it runs as, and which program it is. Values are those of SPIRE's `unix` attestor. */
import { createHash } from 'node:crypto'
import { readFileSync, readlinkSync, statSync } from 'node:fs'
import { open, readFile, stat } from 'node:fs/promises'
import { z } from 'zod'
import { Failure } from '../../kernel/failure.ts'
import { isMissing } from '../../kernel/files.ts'
import type { Log } from '../../kernel/log.ts'
import { type Selector, selector } from '../../spiffe/selector.ts'
import type { Peer } from '../peer.ts'
import { parseAccounts, parseStatus, type ProcessOwner } from '../proc.ts'
import { workloadAttestor } from '../workload-attestor.ts'

const config = z.strictObject({
  /** Adds `unix:path`. */
  discoverWorkloadPath: z.boolean().default(true),
  /** Adds `unix:sha256`: the whole program is read once for each version of it. */
  hash: z.boolean().default(false),
  /** Programs above this are given no hash. */
  hashSizeLimitBytes: z
    .int()
    .positive()
    .default(512 * 1024 * 1024),
})
export type UnixConfig = z.infer<typeof config>

/** Attests by user, group and program of the calling process. */
export const unix = workloadAttestor<UnixConfig>({
  kind: 'unix',
  config,
  example: { discoverWorkloadPath: true, hash: true },

  async open(options, { log }) {
    const users = accountNames('/etc/passwd')
    const groups = accountNames('/etc/group')
    const programs = programReader(options, log)
    return {
      async attest(peer, signal) {
        const owner = ownerOf(peer)
        const [userNames, groupNames, program] = await Promise.all([users(), groups(), programs(peer, signal)])
        checkStillThere(peer)
        return [...ownerSelectors(owner, userNames, groupNames), ...program]
      },
      async [Symbol.asyncDispose]() {},
    }
  },
})

type Names = ReadonlyMap<number, string>

function ownerSelectors(owner: ProcessOwner, users: Names, groups: Names): Selector[] {
  const named = (kind: string, name: string | undefined) => (name === undefined ? [] : [unixSelector(kind, name)])
  return [
    unixSelector('uid', owner.uid),
    ...named('user', users.get(owner.uid)),
    unixSelector('gid', owner.gid),
    ...named('group', groups.get(owner.gid)),
    ...owner.supplementaryGids.flatMap((gid) => [unixSelector('supplementary_gid', gid), ...named('supplementary_group', groups.get(gid))]),
  ]
}

/**
 * User and groups as the kernel wrote them down at connect. A process that has changed them since, by running a set-user-id program
 * say, is not the one that connected: it gets nothing, or a caller could hand its open connection to a more trusted program's identity.
 */
function ownerOf(peer: Peer): ProcessOwner {
  let now: ProcessOwner
  try {
    now = parseStatus(readFileSync(`/proc/${peer.pid}/status`, 'latin1'))
  } catch (error) {
    checkStillThere(peer)
    throw Failure.from(error, 'workload.unreadable')
  }
  if (now.uid === peer.uid && now.gid === peer.gid) return now
  throw new Failure('permission_denied', 'workload.changed-user', {
    public: 'the calling process changed its user or group after it connected',
    internal: { pid: peer.pid, connectedAs: `${peer.uid}:${peer.gid}`, now: `${now.uid}:${now.gid}` },
  })
}

/** Selectors of the program that a process runs. What this agent may not look at is left out, with a line in the log. */
function programReader(options: UnixConfig, log: Log): (peer: Peer, signal: AbortSignal) => Promise<Selector[]> {
  const hashes = new Map<string, string>()

  return async (peer, signal) => {
    const found: Selector[] = []
    const wanted = [
      ['path', options.discoverWorkloadPath, () => pathOfProgram(peer)],
      ['sha256', options.hash, () => hashOfProgram(peer, options.hashSizeLimitBytes, hashes, signal)],
    ] as const
    for (const [kind, isWanted, read] of wanted) {
      if (!isWanted) continue
      try {
        const value = await read()
        if (value !== undefined) found.push(unixSelector(kind, value))
      } catch (error) {
        if (signal.aborted) throw signal.reason
        log.warn('a selector of a workload cannot be read', { selector: `unix:${kind}`, pid: peer.pid, reason: codeOf(error) })
      }
    }
    return found
  }
}

/**
 * The path of the running program, provided that this path, as the agent sees it, leads to that very file. A process can make itself
 * a file system of its own in which `/usr/bin/payments` is what it likes; such a path says nothing and is left out.
 */
async function pathOfProgram(peer: Peer): Promise<string | undefined> {
  const link = `/proc/${peer.pid}/exe`
  const path = readlinkSync(link)
  // Not on this thread: the file may lie on a file system that answers when it likes, or never.
  const [running, seen] = await Promise.all([stat(link, { bigint: true }), stat(path, { bigint: true }).catch(absent)])
  return seen && running.dev === seen.dev && running.ino === seen.ino ? path : undefined
}

/** SHA-256 of the opened program, so that what is hashed is what runs, whatever its path leads to by now. */
async function hashOfProgram(peer: Peer, limit: number, known: Map<string, string>, signal: AbortSignal): Promise<string | undefined> {
  await using file = await open(`/proc/${peer.pid}/exe`, 'r')
  const info = await file.stat({ bigint: true })
  if (!info.isFile() || info.size > limit) return undefined
  // A file that is being run cannot be written to, and ctime changes with every write before that.
  const key = [info.dev, info.ino, info.size, info.mtimeNs, info.ctimeNs].join(':')
  let digest = known.get(key)
  if (digest === undefined) {
    const hash = createHash('sha256')
    for await (const chunk of file.createReadStream({ autoClose: false, end: limit, signal })) hash.update(chunk as Buffer)
    digest = hash.digest('hex')
    if (known.size >= maxHashes) known.delete(known.keys().next().value!)
    known.set(key, digest)
  }
  return digest
}

/** Names from an account file, read again when it changes. A machine without the file has no names. */
function accountNames(path: string): () => Promise<Names> {
  let version = ''
  let names: Names = new Map()
  return async () => {
    const info = statSync(path, { bigint: true, throwIfNoEntry: false })
    const seen = info ? [info.ino, info.size, info.mtimeNs, info.ctimeNs].join(':') : ''
    if (seen !== version) {
      names = info && info.size <= maxAccountsBytes ? parseAccounts(await readFile(path, 'utf8')) : new Map()
      version = seen
    }
    return names
  }
}

function checkStillThere(peer: Peer): void {
  if (peer.stillThere()) return
  throw new Failure('unavailable', 'workload.gone', { public: 'the calling process has ended', internal: { pid: peer.pid } })
}

const unixSelector = (kind: string, value: string | number): Selector => selector('unix', `${kind}:${value}`)

function absent(error: unknown): undefined {
  if (isMissing(error) || codeOf(error) === 'ENOTDIR' || codeOf(error) === 'EACCES') return undefined
  throw error
}

const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : 'unknown')

const maxHashes = 256
const maxAccountsBytes = 4 * 1024 * 1024
