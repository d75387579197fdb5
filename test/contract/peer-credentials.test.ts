import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import type { PeerCredentials } from '../../src/attestation/peer-credentials.ts'
import { openPeerCredentials } from '../../src/attestation/peer/linux.ts'

/** What every way of asking "who connected" keeps. */
const implementations: readonly (readonly [string, () => Promise<PeerCredentials>])[] = [
  ['linux', () => openPeerCredentials()],
  ['linux without pidfd', () => openPeerCredentials({ pidfd: false })],
]

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

async function connected(): Promise<{ child: ChildProcess; socket: net.Socket }> {
  const folder = mkdtempSync(join(tmpdir(), 'vc-'))
  cleanups.push(() => rmSync(folder, { recursive: true }))
  const server = net.createServer().listen(join(folder, 's'))
  cleanups.push(() => new Promise((resolve) => server.close(resolve)))
  await once(server, 'listening')
  const script = `require('net').connect(process.argv[1]).on('error', () => {}).resume(); process.stdin.resume()`
  const child = spawn(process.execPath, ['-e', script, join(folder, 's')], { stdio: ['pipe', 'ignore', 'inherit'] })
  cleanups.push(() => child.kill('SIGKILL'))
  const [socket] = (await once(server, 'connection')) as [net.Socket]
  cleanups.push(() => socket.on('error', () => {}).destroy())
  return { child, socket }
}

describe.each(implementations)('peer credentials: %s', (_name, open) => {
  test('names the process that connected, not the one that asks', async () => {
    const { child, socket } = await connected()
    using peer = (await open()).of(socket)
    expect(peer.pid).toBe(child.pid)
    expect(peer.stillThere()).toBe(true)
  })
  test('A-18 notices the end of that process', async () => {
    const { child, socket } = await connected()
    using peer = (await open()).of(socket)
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
    expect(peer.stillThere()).toBe(false)
  })
  test('refuses a closed socket', async () => {
    const { socket } = await connected()
    socket.destroy()
    await once(socket, 'close')
    const credentials = await open()
    expect(() => credentials.of(socket)).toThrow(expect.objectContaining({ reason: 'peer.unknown' }))
  })
  test('gives the same answer to whoever asks by number', async () => {
    const { child, socket } = await connected()
    const credentials = await open()
    using byConnection = credentials.of(socket)
    using byNumber = credentials.ofPid(child.pid!)
    const who = ({ pid, uid, gid }: typeof byNumber) => ({ pid, uid, gid })
    expect(who(byNumber)).toEqual(who(byConnection))
  })
})
