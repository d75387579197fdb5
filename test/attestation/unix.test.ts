import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { copyFileSync, mkdtempSync, readFileSync, readlinkSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Peer } from '../../src/attestation/peer.ts'
import { openPeerCredentials } from '../../src/attestation/peer/linux.ts'
import { unix, type UnixConfig } from '../../src/attestation/workload/unix.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { formatSelector } from '../../src/spiffe/selector.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'

const signal = new AbortController().signal
const world = {
  clock: new FakeClock(),
  random: seededRandom(1),
  files: systemFiles,
  log: silentLog,
  meter: silentMeter,
  secrets: { read: () => Promise.reject(new Error('bug: unix needs no secret')) },
}
const sleep = realpathSync('/bin/sleep')
let folder: string
let children: ChildProcess[]
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vu-'))
  children = []
})
afterEach(async () => {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
  }
  rmSync(folder, { recursive: true })
})

/** Starts a program and waits until it is the one that runs. */
async function run(command: string, args: readonly string[], becomes = command): Promise<number> {
  const child = spawn(command, args, { stdio: 'ignore' })
  children.push(child)
  await once(child, 'spawn')
  while (child.exitCode === null && readlinkSync(`/proc/${child.pid}/exe`) !== becomes)
    await new Promise((resolve) => setImmediate(resolve))
  return child.pid!
}

async function attest(who: number | Peer, config: Partial<UnixConfig> = {}): Promise<string[]> {
  await using attestor = await unix.open(unix.config.parse(config), world)
  const own = typeof who === 'number' ? (await openPeerCredentials()).ofPid(who) : undefined
  try {
    return (await attestor.attest(own ?? (who as Peer), signal)).map(formatSelector)
  } finally {
    own?.[Symbol.dispose]()
  }
}
const claimed = (change: Partial<Peer>): Peer => ({
  pid: process.pid,
  uid: process.geteuid!(),
  gid: process.getegid!(),
  stillThere: () => true,
  [Symbol.dispose]() {},
  ...change,
})
const only = (kind: string, selectors: readonly string[]) => selectors.filter((one) => one.startsWith(`unix:${kind}:`))

describe('the unix attestor refuses', () => {
  test('a process that changed its user or group after it connected', async () => {
    await expect(attest(claimed({ uid: 4711 }))).rejects.toMatchObject({ reason: 'workload.changed-user' })
    await expect(attest(claimed({ gid: 4711 }))).rejects.toMatchObject({ reason: 'workload.changed-user' })
  })
  test('A-18 a process that is not there any more', async () => {
    await expect(attest(claimed({ stillThere: () => false }))).rejects.toMatchObject({ reason: 'workload.gone' })
    await expect(attest(claimed({ pid: 2 ** 22, stillThere: () => false }))).rejects.toMatchObject({ reason: 'workload.gone' })
  })
  test('unknown configuration', () => expect(unix.config.safeParse({ discoverworkloadpath: true }).success).toBe(false))
})

describe('the program', () => {
  test('is known by its path and, when asked for, by its hash', async () => {
    const program = join(folder, 'payments')
    copyFileSync(sleep, program)
    const selectors = await attest(await run(program, ['60']), { hash: true })
    expect(only('path', selectors)).toEqual([`unix:path:${program}`])
    expect(only('sha256', selectors)).toEqual([`unix:sha256:${createHash('sha256').update(readFileSync(program)).digest('hex')}`])
  })

  test('A-24 that was replaced on disk is hashed as it runs, and has lost its path', async () => {
    const program = join(folder, 'payments')
    copyFileSync(sleep, program)
    const pid = await run(program, ['60'])
    writeFileSync(join(folder, 'new'), 'another program')
    renameSync(join(folder, 'new'), program)
    const selectors = await attest(pid, { hash: true })
    expect(only('path', selectors)).toEqual([])
    expect(only('sha256', selectors)).toEqual([`unix:sha256:${createHash('sha256').update(readFileSync(sleep)).digest('hex')}`])
  })

  test('has no path when a process shows one that exists only in a file system of its own', async ({ skip }) => {
    const [trusted, mine] = [join(folder, 'trusted'), join(folder, 'mine')]
    copyFileSync('/bin/true', trusted)
    copyFileSync(sleep, mine)
    const probe = spawn('unshare', ['-m', 'true'], { stdio: 'ignore' })
    const [code] = await Promise.race([once(probe, 'exit'), once(probe, 'error')])
    if (code !== 0) return skip('this user may not make a mount namespace')
    const pid = await run('unshare', ['-m', 'sh', '-c', `mount --bind ${mine} ${trusted} && exec ${trusted} 60`], trusted)
    const selectors = await attest(pid)
    expect(only('path', selectors)).toEqual([])
    expect(only('uid', selectors)).toHaveLength(1)
  })

  test('has no hash above the size limit, and none unless asked for', async () => {
    const pid = await run(sleep, ['60'])
    expect(only('sha256', await attest(pid, { hash: true, hashSizeLimitBytes: 10 }))).toEqual([])
    expect(only('sha256', await attest(pid))).toEqual([])
    expect(only('path', await attest(pid, { discoverWorkloadPath: false }))).toEqual([])
  })
})

test('user and groups come by number and by name', async () => {
  const selectors = await attest(process.pid)
  expect(selectors).toContain(`unix:uid:${process.geteuid!()}`)
  expect(selectors).toContain(`unix:gid:${process.getegid!()}`)
  // Node adds the effective group to the supplementary ones.
  for (const gid of process.getgroups!().filter((one) => one !== process.getegid!()))
    expect(selectors).toContain(`unix:supplementary_gid:${gid}`)
  if (process.geteuid!() === 0) expect(selectors).toEqual(expect.arrayContaining(['unix:user:root', 'unix:group:root']))
})
