import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Log, LogFields } from '../../src/kernel/log.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import { type Channel, connectTls, connectUnix } from '../../src/rpc/client.ts'
import type { Treatment } from '../../src/rpc/dispatch.ts'
import type { Mounted } from '../../src/rpc/handler.ts'
import { connectInMemory } from '../../src/rpc/in-memory.ts'
import { type Limits, listenTls, listenUnix } from '../../src/rpc/listen.ts'
import type { TlsIdentity } from '../../src/rpc/tls-material.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { type Issued, TestCa } from '../support/test-ca.ts'

export interface Wanted extends Omit<Treatment<string>, 'log'> {
  readonly services: readonly Mounted<string>[]
  readonly log: Log
  readonly limits?: Partial<Limits>
}

/** A channel to services, and everything that stands behind it. Its peer is called `caller`. */
export interface Carried extends AsyncDisposable {
  readonly channel: Channel
  /** Closes the serving side and leaves the channel. */
  stopServing(): Promise<void>
}

export const carriers: Readonly<Record<string, (wanted: Wanted) => Promise<Carried>>> = {
  async 'unix socket'(wanted) {
    const folder = temporaryFolder()
    const path = join(folder.path, 's')
    const listener = await listenUnix({ ...wanted, path, mode: 0o600, peerOf: () => 'caller' })
    return carried(connectUnix(path), listener, folder)
  },

  async tls(wanted) {
    const identity = new WatchedValue(pemOf(await (await testCa()).leaf()))
    const listener = await listenTls({ ...wanted, host: '127.0.0.1', port: 0, identity, peerOf: () => 'caller' })
    return carried(connectTls({ host: '127.0.0.1', port: listener.port, verify: () => {} }), listener)
  },

  async memory(wanted) {
    const channel = connectInMemory({ ...wanted, peer: 'caller' })
    const close = async () => channel[Symbol.asyncDispose]()
    return { channel, stopServing: close, [Symbol.asyncDispose]: close }
  },
}

/** A folder with a path short enough for a socket. */
export function temporaryFolder(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), 'v-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

/** Keeps every line, for tests that ask what operators were told. */
export function keptLog(): Log & { readonly lines: { level: string; message: string; fields: LogFields | undefined }[] } {
  const lines: { level: string; message: string; fields: LogFields | undefined }[] = []
  const at = (level: string) => (message: string, fields?: LogFields) => void lines.push({ level, message, fields })
  const log = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error'), with: () => log, lines }
  return log
}

export function pemOf({ certificate, keyPem }: Issued, ...intermediates: TestCa[]): TlsIdentity {
  const ders = [certificate, ...intermediates.map((ca) => ca.certificate)].map(({ raw }) => raw)
  return { cert: ders.map((der) => formatPem('CERTIFICATE', der)).join(''), key: keyPem }
}

let shared: Promise<TestCa> | undefined
export function testCa(): Promise<TestCa> {
  shared ??= TestCa.create({ at: Date.now() })
  return shared
}

function carried(channel: Channel, listener: AsyncDisposable, folder?: Disposable): Carried {
  const stopServing = async () => {
    await listener[Symbol.asyncDispose]()
  }
  return {
    channel,
    stopServing,
    async [Symbol.asyncDispose]() {
      await channel[Symbol.asyncDispose]()
      await stopServing()
      folder?.[Symbol.dispose]()
    },
  }
}
