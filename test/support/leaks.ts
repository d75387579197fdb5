import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll } from 'vitest'

// Loaded before every test file: what the file opened must be closed when its last hook has run, or the file fails.

/** The resources that keep a process alive, as Node names them. Timers and sockets that are `unref`ed do not count. */
const watched: Readonly<Record<string, string>> = {
  TCPSocketWrap: 'TCP connection',
  TCPServerWrap: 'TCP server',
  PipeWrap: 'Unix socket or pipe',
  TLSWrap: 'TLS connection',
  UDPWrap: 'UDP socket',
  ProcessWrap: 'child process',
  FSEventWrap: 'file watcher',
  MessagePort: 'worker port',
  Timeout: 'timer',
}

// Node opens the standard input when anybody, be it a library, imports `node:process`: it is the process's own and never closed.
void process.stdin
const before = counted()

afterAll(async () => {
  // Closing takes a few turns of the event loop: streams end, processes are reaped.
  for (let turn = 0; turn < maxTurns && leftOpen().length > 0; turn++) await sleep(turnMs)
  const open = leftOpen()
  if (open.length > 0) throw new Error(`left open by this file: ${open.join(', ')}`)
})

/** What is open now beyond what was when the file began, in words. */
function leftOpen(): string[] {
  return [...counted()]
    .map(([kind, count]) => [kind, count - (before.get(kind) ?? 0)] as const)
    .filter(([, count]) => count > 0)
    .map(([kind, count]) => `${count} × ${watched[kind] ?? kind}`)
}

function counted(): Map<string, number> {
  const counts = new Map<string, number>()
  for (const kind of process.getActiveResourcesInfo()) {
    if (kind in watched) counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  return counts
}

const turnMs = 20
const maxTurns = 50
