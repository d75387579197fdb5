/** What Linux says about a process under `/proc`, and about users in its account files: text in, values out (proc(5), passwd(5)). */
import { Failure } from '../kernel/failure.ts'

/** The user and groups that a process acts as. */
export interface ProcessOwner {
  readonly uid: number
  readonly gid: number
  readonly supplementaryGids: readonly number[]
}

export interface ProcessStart {
  /** One letter: `R`, `S`, `Z` … */
  readonly state: string
  /** Clock ticks after boot; with the pid it names one process. Text, because it can exceed what a number holds exactly. */
  readonly startTime: string
}

/**
 * Reads `/proc/<pid>/stat`. The name of the program is free text that may hold spaces and parentheses,
 * so fields are counted from the last `)` (A-18: a program called `a) R 1 (` must not choose its own start time).
 * @throws Failure `proc.malformed`
 */
export function parseStat(text: string): ProcessStart {
  const fields = text
    .slice(text.lastIndexOf(')') + 1)
    .trim()
    .split(' ')
  const state = fields[0]
  const startTime = fields[startTimeField - firstFieldAfterName]
  if (!text.includes(')') || !state || !startTime || !decimal.test(startTime)) throw malformed('stat')
  return { state, startTime }
}

/**
 * Reads the effective user, the effective group and the supplementary groups from `/proc/<pid>/status`.
 * @throws Failure `proc.malformed`, `proc.too-many-groups`
 */
export function parseStatus(text: string): ProcessOwner {
  const lines = text.split('\n')
  const numbers = (key: string): number[] => {
    const line = lines.find((one) => one.startsWith(`${key}:`))
    if (line === undefined) throw malformed('status')
    const values = line
      .slice(key.length + 1)
      .split(/\s+/)
      .filter((one) => one !== '')
    if (!values.every((one) => decimal.test(one))) throw malformed('status')
    return values.map(Number)
  }
  const [uids, gids, supplementaryGids] = [numbers('Uid'), numbers('Gid'), numbers('Groups')]
  if (uids.length !== idsOnALine || gids.length !== idsOnALine) throw malformed('status')
  if (supplementaryGids.length > maxGroups) {
    throw new Failure('unavailable', 'proc.too-many-groups', {
      public: `the process is in ${supplementaryGids.length} groups: at most ${maxGroups} are read`,
    })
  }
  return { uid: uids[effective]!, gid: gids[effective]!, supplementaryGids }
}

/**
 * Names by number from `/etc/passwd` or `/etc/group`, which agree in their first three fields. The first line for a number wins,
 * as in the C library; lines that do not parse, and names that could be mistaken for something else, are passed over.
 * @throws Failure `accounts.too-large`
 */
export function parseAccounts(text: string): ReadonlyMap<number, string> {
  if (text.length > maxAccountsLength) {
    throw new Failure('unavailable', 'accounts.too-large', {
      public: `an account file holds ${text.length} characters: at most ${maxAccountsLength} are read`,
    })
  }
  const names = new Map<number, string>()
  for (const line of text.split('\n')) {
    const [name, , number] = line.split(':')
    if (!name || !accountName.test(name) || !number || !decimal.test(number)) continue
    if (!names.has(Number(number))) names.set(Number(number), name)
  }
  return names
}

function malformed(file: string): Failure {
  return new Failure('unavailable', 'proc.malformed', { public: `\`/proc/<pid>/${file}\` does not have the expected form` })
}

const decimal = /^\d{1,20}$/
/** proc_pid_stat(5): field (22) starttime; the first field after the name is (3) state. */
const startTimeField = 22
const firstFieldAfterName = 3
/** proc_pid_status(5): real, effective, saved set and file system ids, in this order. */
const idsOnALine = 4
const effective = 1
/** limits.h: NGROUPS_MAX. */
const maxGroups = 65_536
const maxAccountsLength = 4 * 1024 * 1024
/** useradd(8) allows less; directory services add `@`, `\`, `.` and capitals. Never a colon, a space or a control character. */
const accountName = /^[\w.@\\+$-]{1,256}$/
