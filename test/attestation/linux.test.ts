import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Peer } from '../../src/attestation/peer.ts'
import { openPeerCredentials } from '../../src/attestation/peer/linux.ts'
import type { PeerCredentials } from '../../src/attestation/peer-credentials.ts'

/** Connects and stays until its standard input ends. */
const caller = `const s = require('net').connect(process.argv[1]); s.on('error', () => {}); process.stdin.resume().on('end', () => process.exit())`

async function accept(credentials: PeerCredentials) {
  const folder = mkdtempSync(join(tmpdir(), 'vp-'))
  const path = join(folder, 's')
  const server = net.createServer().listen(path)
  await once(server, 'listening')
  const children: ChildProcess[] = []
  const sockets: net.Socket[] = []
  const peers: Peer[] = []
  return {
    async connect() {
      const child = spawn(process.execPath, ['-e', caller, path], { stdio: ['pipe', 'ignore', 'inherit'] })
      children.push(child)
      const [socket] = (await once(server, 'connection')) as [net.Socket]
      sockets.push(socket.on('error', () => {}))
      const peer = credentials.of(socket)
      peers.push(peer)
      return { child, peer, socket }
    },
    async [Symbol.asyncDispose]() {
      for (const peer of peers) peer[Symbol.dispose]()
      for (const socket of sockets) socket.destroy()
      await Promise.all(children.filter((one) => one.exitCode === null && one.signalCode === null).map(end))
      await new Promise((resolve) => server.close(resolve))
      rmSync(folder, { recursive: true })
    },
  }
}

async function end(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
}

const openDescriptors = () => readdirSync('/proc/self/fd').length

describe.each([
  ['a process file descriptor', true],
  ['the start time', false],
])('told apart by %s', (_what, pidfd) => {
  test('the kernel says which of several callers is which', async () => {
    await using door = await accept(await openPeerCredentials({ pidfd }))
    const callers = [await door.connect(), await door.connect(), await door.connect()]
    for (const { child, peer } of callers) {
      expect(peer).toMatchObject({ pid: child.pid, uid: process.getuid!(), gid: process.getgid!() })
      expect(peer.stillThere()).toBe(true)
    }
  })

  test('A-18 a caller that ended is not there any more', async () => {
    await using door = await accept(await openPeerCredentials({ pidfd }))
    const { child, peer } = await door.connect()
    await end(child)
    expect(peer.stillThere()).toBe(false)
  })

  test('A-18 another process with the number of one that ended is not mistaken for it', async ({ skip }) => {
    await using door = await accept(await openPeerCredentials({ pidfd }))
    const { child, peer } = await door.connect()
    await end(child)
    const successor = await spawnWithPid(child.pid!)
    if (!successor) return skip('this user may not choose the number of the next process (needs root and a writable ns_last_pid)')
    expect(peer.stillThere()).toBe(false)
    await end(successor)
  })

  test('a disposed peer is nobody, and leaves no descriptor open', async () => {
    await using door = await accept(await openPeerCredentials({ pidfd }))
    const { peer } = await door.connect()
    const before = openDescriptors()
    peer[Symbol.dispose]()
    peer[Symbol.dispose]()
    expect(peer.stillThere()).toBe(false)
    expect(openDescriptors()).toBe(before - (pidfd ? 1 : 0))
  })

  test('an operator asks about a process by its number', async () => {
    const credentials = await openPeerCredentials({ pidfd })
    using peer = credentials.ofPid(process.pid)
    expect(peer).toMatchObject({ pid: process.pid, uid: process.geteuid!(), gid: process.getegid!() })
    expect(peer.stillThere()).toBe(true)
    for (const nobody of [0, -1, 1.5, Number.NaN, 2 ** 22, 2 ** 40]) {
      expect(() => credentials.ofPid(nobody)).toThrow(expect.objectContaining({ reason: 'peer.no-such-process' }))
    }
  })
})

test('A-18 a signal to the agent does not make a caller look gone', async () => {
  using peer = (await openPeerCredentials()).ofPid(process.pid)
  const ignore = () => {}
  process.on('SIGUSR2', ignore)
  const storm = spawn('/bin/sh', ['-c', `for n in $(seq 20000); do kill -USR2 ${process.pid}; done`], { stdio: 'ignore' })
  const over = once(storm, 'exit')
  await once(storm, 'spawn')
  let gone = 0
  for (const until = performance.now() + 700; performance.now() < until;) {
    for (let asked = 0; asked < 1000; asked++) if (!peer.stillThere()) gone++
    // Node has a pipe of 64 KiB for signals: one that finds it full is lost, and that may be the one about the end of the storm.
    await new Promise((resolve) => setImmediate(resolve))
  }
  await over
  process.off('SIGUSR2', ignore)
  expect(gone).toBe(0)
}, 20_000)

test('refuses a socket that the kernel knows no caller of', async () => {
  const credentials = await openPeerCredentials()
  const socket = new net.Socket()
  expect(() => credentials.of(socket)).toThrow(expect.objectContaining({ category: 'unauthenticated', reason: 'peer.unknown' }))
})

test('refuses a caller over TCP', async () => {
  const credentials = await openPeerCredentials()
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1')
  const [socket] = (await once(server, 'connection')) as [net.Socket]
  expect(() => credentials.of(socket)).toThrow(expect.objectContaining({ reason: 'peer.unknown' }))
  client.destroy()
  socket.destroy()
  await new Promise((resolve) => server.close(resolve))
})

/** A new process with this number, or undefined where the kernel does not let us choose. */
async function spawnWithPid(pid: number): Promise<ChildProcess | undefined> {
  for (let tries = 0; tries < 50; tries++) {
    try {
      writeFileSync('/proc/sys/kernel/ns_last_pid', String(pid - 1))
    } catch {
      return undefined
    }
    const child = spawn('/bin/sleep', ['60'], { stdio: 'ignore' })
    await once(child, 'spawn')
    if (child.pid === pid) return child
    await end(child)
  }
  return undefined
}
