import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { connect as connectH2, type ClientHttp2Session } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { milliseconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { clientOf, connectUnix } from '../../src/rpc/client.ts'
import { PolicyAdministration, PolicyDistribution } from '../../src/rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { type Call, mount, type Mounted } from '../../src/rpc/handler.ts'
import { type Limits, type Listener, listenUnix, type UnixListening } from '../../src/rpc/listen.ts'
import { keptLog, temporaryFolder } from './carriers.ts'

let folder: ReturnType<typeof temporaryFolder>
beforeEach(() => {
  folder = temporaryFolder()
})
afterEach(() => folder[Symbol.dispose]())

const at = (name: string) => join(folder.path, name)

describe('a Unix socket', () => {
  describe('is refused where', () => {
    test('its path is longer than the system takes', async () => {
      const path = at('x'.repeat(108 - at('').length))
      await expect(listen({ path })).rejects.toMatchObject({
        reason: 'listen.socket-path-too-long',
        message: expect.stringContaining('at most 107') as string,
      })
    })

    test('somebody else listens', async () => {
      await using _first = await listen({ path: at('s') })
      await expect(listen({ path: at('s') })).rejects.toMatchObject({ category: 'already_exists', reason: 'listen.socket-in-use' })
    })

    test('a file is in the way', async () => {
      writeFileSync(at('s'), 'precious')
      await expect(listen({ path: at('s') })).rejects.toMatchObject({ reason: 'listen.not-a-socket' })
      expect((await stat(at('s'))).size).toBe(8)
    })

    test('its directory does not exist', async () => {
      await expect(listen({ path: at('none/s') })).rejects.toMatchObject({ reason: 'listen.no-directory' })
    })
  })

  test('takes the place of one that nobody listens on any more', async () => {
    await leaveStaleSocket(at('s'))
    await using _listener = await listen({ path: at('s') })
    expect(await whoami(at('s'))).toBe('nobody')
  })

  test('takes the longest path that the system takes', async () => {
    const path = at('x'.repeat(107 - at('').length - 1))
    expect(Buffer.byteLength(path)).toBe(107)
    await using _listener = await listen({ path })
    expect(await whoami(path)).toBe('nobody')
  })

  test('has the mode that was asked for, and is gone when the listener is closed', async () => {
    const listener = await listen({ path: at('s'), mode: 0o620 })
    expect((await stat(at('s'))).mode & 0o777).toBe(0o620)
    await listener[Symbol.asyncDispose]()
    await listener[Symbol.asyncDispose]()
    await expect(stat(at('s'))).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test('is closed when its signal aborts', async () => {
    const stop = new AbortController()
    await using listener = await listen({ path: at('s'), signal: stop.signal })
    stop.abort()
    await listener[Symbol.asyncDispose]()
    await expect(stat(at('s'))).rejects.toMatchObject({ code: 'ENOENT' })
  })
})

describe('a connection', () => {
  test('is closed unread where nobody can say who it is', async () => {
    const log = keptLog()
    const peerOf = () => {
      throw new Failure('unauthenticated', 'test.unknown', { public: 'unknown' })
    }
    await using _listener = await listen({ path: at('s'), peerOf, log })
    await expect(whoami(at('s'))).rejects.toMatchObject({ category: 'unavailable' })
    expect(log.lines[0]).toMatchObject({ level: 'warn', message: 'a connection was refused' })
  })

  test('keeps its own peer, with 200 callers at once', async () => {
    let count = 0
    await using _listener = await listen({ path: at('s'), peerOf: () => `peer ${count++}` })
    const channels = Array.from({ length: 200 }, () => connectUnix(at('s')))
    const first = await Promise.all(channels.map((channel) => nameOn(channel)))
    const second = await Promise.all(channels.map((channel) => nameOn(channel)))
    expect(new Set(first).size).toBe(200)
    expect(second).toEqual(first)
    await Promise.all(channels.map((channel) => channel[Symbol.asyncDispose]()))
  })

  test('does not believe what a caller says about itself', async () => {
    await using _listener = await listen({ path: at('s') })
    const metadata = { 'x-forwarded-for': 'connection 1', forwarded: 'for=root' }
    await using channel = connectUnix(at('s'))
    expect((await clientOf(PolicyAdministration, channel).listPolicies({}, { metadata })).version).toBe('nobody')
  })

  test('disposes of its peer when it ends', async () => {
    const disposed = Promise.withResolvers<void>()
    const peerOf = () => ({ name: 'workload', [Symbol.dispose]: () => disposed.resolve() })
    await using _listener = await listenUnix({
      ...usual(at('s')),
      peerOf,
      services: [naming<{ name: string }>(({ name }) => name)],
    })
    expect(await whoami(at('s'))).toBe('workload')
    await disposed.promise
  })

  test('is dropped where there are as many as there may be', async () => {
    await using _listener = await listen({ path: at('s'), limits: { connections: 2 } })
    await using first = connectUnix(at('s'))
    await using second = connectUnix(at('s'))
    await Promise.all([nameOn(first), nameOn(second)])
    await expect(whoami(at('s'))).rejects.toMatchObject({ category: 'unavailable' })
    await first[Symbol.asyncDispose]()
    await expect.poll(() => whoami(at('s')).catch(() => 'refused')).toBe('nobody')
  })

  test('holds as many calls as it may, and no more', async () => {
    let open = 0
    let most = 0
    const service = mount<typeof PolicyDistribution, string>(PolicyDistribution, {
      async *watchPolicies(_request, { signal }) {
        most = Math.max(most, ++open)
        yield { version: '1' }
        await new Promise((resolve) => signal.addEventListener('abort', resolve))
        open--
      },
    })
    await using _listener = await listen({ path: at('s'), services: [service], limits: { streamsPerConnection: 3 } })
    await using channel = connectUnix(at('s'))
    await nameOn(channel).catch(() => {})
    const streams = Array.from({ length: 10 }, () => clientOf(PolicyDistribution, channel).watchPolicies({}))
    for (const stream of streams) {
      await stream.next()
      await stream.return()
    }
    expect(most).toBeLessThanOrEqual(3)
  })

  test('R-26 may cancel as many calls as its listener allows, and is closed for one that cancels more', async () => {
    const service = mount<typeof PolicyDistribution, string>(PolicyDistribution, {
      async *watchPolicies() {
        yield { version: '1' }
        yield { version: '2' }
      },
    })
    const cancelled = async (limits: Partial<Limits>): Promise<number> => {
      await using _listener = await listen({ path: at('s'), services: [service], limits })
      await using channel = connectUnix(at('s'))
      for (let count = 0; count < 1500; count++) {
        for await (const _set of clientOf(PolicyDistribution, channel).watchPolicies({})) break
      }
      return 1500
    }
    expect(await cancelled({})).toBe(1500)
    await expect(cancelled({ cancelsAtOnce: 100, cancelsPerSecond: 1 })).rejects.toMatchObject({ category: expect.any(String) as string })
  })

  test('ends by itself when nothing is called on it', async () => {
    const ended = Promise.withResolvers<void>()
    const peerOf = () => ({ [Symbol.dispose]: () => ended.resolve() })
    await using _listener = await listenUnix({
      ...usual(at('s')),
      peerOf,
      services: [naming<object>(() => 'x')],
      limits: { idle: milliseconds(50) },
    })
    const socket = connect(at('s')).on('error', () => {})
    socket.resume()
    await ended.promise
    socket.destroy()
  })

  test('is told to go when it is old, and its caller goes on with a new one', async () => {
    let count = 0
    await using _listener = await listen({
      path: at('s'),
      peerOf: () => `peer ${count++}`,
      limits: { connectionAge: milliseconds(50), grace: milliseconds(50) },
    })
    await using channel = connectUnix(at('s'))
    expect(await nameOn(channel)).toBe('peer 0')
    await expect.poll(() => nameOn(channel)).not.toBe('peer 0')
  })
})

describe('a message', () => {
  test('R-27 that is larger than allowed is refused at its length, before it arrived', async () => {
    await using _listener = await listen({ path: at('s'), limits: { messageBytes: 1000 } })
    const refused = await rawCall(at('s'), Buffer.from([0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3]))
    expect(refused).toBe('8')
  })

  test('R-27 that grows beyond the limit when decompressed is refused', async () => {
    const { gzipSync } = await import('node:zlib')
    await using _listener = await listen({ path: at('s'), limits: { messageBytes: 100_000 } })
    const bomb = gzipSync(Buffer.alloc(50_000_000))
    const head = Buffer.from([1, 0, 0, 0, 0])
    head.writeUInt32BE(bomb.length, 1)
    expect(await rawCall(at('s'), Buffer.concat([head, bomb]), { 'grpc-encoding': 'gzip' })).toBe('8')
  })

  test('of the largest size passes, and a larger one does not', async () => {
    await using _listener = await listen({ path: at('s'), limits: { messageBytes: 100_000 } })
    await using channel = connectUnix(at('s'))
    const { applyPolicies } = clientOf(PolicyAdministration, channel)
    await applyPolicies({ documents: [{ text: 'x'.repeat(99_000) }] })
    await expect(applyPolicies({ documents: [{ text: 'x'.repeat(101_000) }] })).rejects.toMatchObject({ reason: 'rpc.resource-exhausted' })
  })

  test('R-26 headers larger than allowed end the connection of the one who sends them, and nobody else’s', async () => {
    await using _listener = await listen({ path: at('s') })
    await using other = connectUnix(at('s'))
    await nameOn(other)
    const headers = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`x-${index}`, randomBytes(2000).toString('hex')]))
    expect(await rawCall(at('s'), Buffer.from([0, 0, 0, 0, 0]), headers)).toBe('ended')
    expect(await nameOn(other)).toBe('nobody')
  })
})

describe('closing', () => {
  test('lets a call that is being answered end', async () => {
    const asked = Promise.withResolvers<void>()
    const answer = Promise.withResolvers<object>()
    const service = mount<typeof PolicyAdministration, string>(PolicyAdministration, {
      applyPolicies: () => (asked.resolve(), answer.promise),
      listPolicies: async () => ({}),
    })
    const listener = await listen({ path: at('s'), services: [service] })
    await using channel = connectUnix(at('s'))
    const call = clientOf(PolicyAdministration, channel).applyPolicies({})
    await asked.promise
    const closed = listener[Symbol.asyncDispose]()
    await expect(whoami(at('s'))).rejects.toMatchObject({ category: 'unavailable' })
    answer.resolve({ version: 'in time' })
    expect((await call).version).toBe('in time')
    await closed
  })

  test('ends what has not ended within its grace', async () => {
    const asked = Promise.withResolvers<Call<string>>()
    const service = mount<typeof PolicyAdministration, string>(PolicyAdministration, {
      applyPolicies: (_request, call) => (asked.resolve(call), new Promise<never>(() => {})),
      listPolicies: async () => ({}),
    })
    const listener = await listen({ path: at('s'), services: [service], limits: { grace: milliseconds(50) } })
    await using channel = connectUnix(at('s'))
    const failure = clientOf(PolicyAdministration, channel)
      .applyPolicies({})
      .catch((error: unknown) => error)
    const { signal } = await asked.promise
    await listener[Symbol.asyncDispose]()
    expect(await failure).toMatchObject({ category: 'unavailable' })
    expect(signal.aborted).toBe(true)
  })
})

function usual(path: string) {
  return { path, mode: 0o600, log: silentLog }
}

function listen(wanted: Partial<UnixListening<string>> & { path: string }): Promise<Listener> {
  return listenUnix<string>({ ...usual(wanted.path), services: [naming<string>((peer) => peer)], peerOf: () => 'nobody', ...wanted })
}

/** A service that answers who it believes is calling. */
function naming<Peer>(name: (peer: Peer) => string): Mounted<Peer> {
  return mount<typeof PolicyAdministration, Peer>(PolicyAdministration, {
    applyPolicies: async (_request, { peer }) => ({ version: name(peer) }),
    listPolicies: async (_request, { peer }) => ({ version: name(peer) }),
  })
}

async function nameOn(channel: ReturnType<typeof connectUnix>): Promise<string> {
  return (await clientOf(PolicyAdministration, channel).listPolicies({})).version
}

async function whoami(path: string): Promise<string> {
  await using channel = connectUnix(path)
  return await nameOn(channel)
}

/** A socket file whose process is gone. */
async function leaveStaleSocket(path: string): Promise<void> {
  const { spawnSync } = await import('node:child_process')
  const program = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', program])
  expect((await stat(path)).isSocket()).toBe(true)
}

/** The grpc-status of a call whose body is these bytes, or `ended` if the connection was. */
function rawCall(path: string, body: Buffer, headers: Record<string, string> = {}): Promise<string> {
  return new Promise((resolve) => {
    const session: ClientHttp2Session = connectH2('http://localhost', {
      createConnection: (): Socket => connect(path),
      maxSendHeaderBlockLength: 10_000_000,
    })
    const finish = (status: string) => {
      session.destroy()
      resolve(status)
    }
    session.on('error', () => finish('ended')).on('close', () => finish('ended'))
    const stream = session.request({
      ':method': 'POST',
      ':path': '/vidimus.api.policy.v1.PolicyAdministration/ListPolicies',
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    })
    stream.on('error', () => finish('ended'))
    stream.on('response', (response) => typeof response['grpc-status'] === 'string' && finish(response['grpc-status']))
    stream.on('trailers', (trailers) => finish(String(trailers['grpc-status'])))
    stream.resume()
    stream.write(body)
  })
}
