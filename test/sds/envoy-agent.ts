/** A local agent on a real socket, for a real Envoy, and a client to speak mutual TLS with it. */
import { mkdtemp, rm } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import tls from 'node:tls'
import type { HeldIdentity } from '../../src/agent/identities.ts'
import type { Peer } from '../../src/attestation/peer.ts'
import { silentLog } from '../../src/kernel/log.ts'
import type { Mounted } from '../../src/rpc/handler.ts'
import { listenUnix } from '../../src/rpc/listen.ts'
import { formatPem } from '../../src/x509/pem.ts'
import type { LocalAgent, LocalWorkload } from './local-agent.ts'

export interface AgentSocket extends AsyncDisposable {
  readonly path: string
}

/** Serves on a socket of its own; whoever connects is taken for `caller`, as if the kernel had said so. */
export async function serveAgent(caller: LocalWorkload, services: readonly Mounted<Peer>[]): Promise<AgentSocket> {
  const folder = await mkdtemp(path.join(tmpdir(), 'vd-'))
  const listener = await listenUnix<Peer>({
    path: path.join(folder, 'a.sock'),
    mode: 0o600,
    peerOf: () => caller.peer,
    services,
    log: silentLog,
    limits: { grace: 500 },
  })
  return {
    path: listener.address,
    async [Symbol.asyncDispose]() {
      await listener[Symbol.asyncDispose]()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

export interface RawAnswer {
  /** 0 if the connection ended without one. */
  readonly status: number
  /** Of the certificate that the proxy showed. */
  readonly serial: string
}

/** Sends exactly these lines over mutual TLS on a new connection, and reads the status. Throws when there is no connection to be had. */
export async function sendOverTls(
  local: LocalAgent,
  client: HeldIdentity | undefined,
  port: number,
  lines: readonly string[],
  servername?: string,
): Promise<RawAnswer> {
  const socket = tls.connect({
    host: '127.0.0.1',
    port,
    ca: formatPem('CERTIFICATE', local.ca.certificate.raw),
    ...(client && { cert: client.chainPem, key: client.privateKeyPem }),
    ...(servername !== undefined && { servername }),
    checkServerIdentity: () => undefined,
    ALPNProtocols: ['http/1.1'],
  })
  return await ask(socket, 'secureConnect', lines, () => socket.getPeerX509Certificate()?.serialNumber ?? '')
}

/** The same without TLS. */
export async function sendInPlain(port: number, lines: readonly string[]): Promise<RawAnswer> {
  return await ask(net.connect(port, '127.0.0.1'), 'connect', lines, () => '')
}

async function ask(socket: net.Socket, connected: string, lines: readonly string[], serialOf: () => string): Promise<RawAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<RawAnswer>()
  let serial = ''
  let text = ''
  socket.once(connected, () => {
    serial = serialOf()
    socket.write(head(lines), 'latin1')
  })
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
    if (text.includes('\r\n')) socket.destroy()
  })
  socket.setTimeout(10_000, () => socket.destroy(new Error('the proxy did not answer within 10 s')))
  socket.once('error', reject)
  socket.once('close', () => resolve({ status: statusIn(text), serial }))
  return await promise
}

/** A request as it goes over the wire: lines and nothing else. */
const head = (lines: readonly string[]): string => [...lines, '', ''].join('\r\n')

/** The status in the first line of an answer; 0 if there is none. */
const statusIn = (text: string): number => Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0)

/** Asks until `holds` or 10 seconds have passed. Returns the milliseconds it took. */
export async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<number> {
  const began = performance.now()
  while (!(await holds())) {
    if (performance.now() - began > 10_000) throw new Error(`waited 10 s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  return performance.now() - began
}
