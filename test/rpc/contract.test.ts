import { create, toBinary } from '@bufbuild/protobuf'
import { anyPack, anyUnpack } from '@bufbuild/protobuf/wkt'
import { describe, expect, test } from 'vitest'
import { milliseconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { Secret } from '../../src/kernel/log.ts'
import { clientOf, type Channel } from '../../src/rpc/client.ts'
import { Entry, SyncAuthorizedEntriesRequestSchema } from '../../src/rpc/gen/spire/api/server/entry/v1/entry_pb.ts'
import { PermissionDeniedDetails_Reason as Reason, PermissionDeniedDetailsSchema } from '../../src/rpc/gen/spire/api/types/types_pb.ts'
import { PolicyAdministration, PolicyDistribution, PolicySetSchema } from '../../src/rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { type Call, encode, Encoded, type Handlers, mount, type Mounted, type Wrap } from '../../src/rpc/handler.ts'
import { detailsOf } from '../../src/rpc/status.ts'
import { carriers, keptLog, type Wanted } from './carriers.ts'

type Admin = Handlers<typeof PolicyAdministration, string>
type Watch = Handlers<typeof PolicyDistribution, string>['watchPolicies']
type Sync = Handlers<typeof Entry, string>['syncAuthorizedEntries']

describe.each(Object.entries(carriers))('a call over %s', (_name, open) => {
  const serving = (services: Mounted<string>[], more: Partial<Wanted> = {}) => open({ services, log: keptLog(), ...more })

  describe('refuses', () => {
    test('with the category, the public text and nothing else of a Failure', async () => {
      const log = keptLog()
      const refusal = new Failure('permission_denied', 'workload.no-identity', {
        public: 'no identity issued',
        internal: { selectors: ['unix:uid:1000'] },
      })
      await using carried = await serving([applying(() => Promise.reject(refusal))], { log })
      const failure = await failureOf(apply(carried.channel))
      expect(failure).toMatchObject({ category: 'permission_denied', reason: 'rpc.permission-denied', message: 'no identity issued' })
      expect(JSON.stringify(failure.internal)).not.toMatch(/selectors|workload/)
      expect(log.lines).toMatchObject([
        { level: 'info', fields: { reason: 'workload.no-identity', about: { selectors: ['unix:uid:1000'] } } },
      ])
    })

    test('with `internal error` where a handler broke, and tells the log why', async () => {
      const log = keptLog()
      const broken = new Error('cannot read /var/lib/secret', { cause: new Error('disk on fire') })
      await using carried = await serving([applying(() => Promise.reject(broken))], { log })
      expect(await failureOf(apply(carried.channel))).toMatchObject({ category: 'internal', message: 'internal error' })
      expect(log.lines).toMatchObject([{ level: 'error', fields: { error: 'internal error: cannot read /var/lib/secret: disk on fire' } }])
    })

    test('without telling the log a secret', async () => {
      const log = keptLog()
      const failure = new Failure('unauthenticated', 'token.unknown', {
        public: 'unknown token',
        internal: { token: new Secret('s3cret'), raw: Buffer.from('s3cret') },
      })
      await using carried = await serving([applying(() => Promise.reject(failure))], { log })
      await failureOf(apply(carried.channel))
      expect(JSON.stringify(log.lines)).not.toContain('s3cret')
    })

    test('with a text that cannot be percent-encoded, or is longer than a header may be', async () => {
      const text = `\`${String.fromCharCode(0xd800)}\` ${'x'.repeat(100_000)}`
      await using carried = await serving([applying(() => Promise.reject(new Failure('invalid_argument', 'x.y', { public: text })))])
      expect(await failureOf(apply(carried.channel))).toMatchObject({ category: 'invalid_argument', reason: 'rpc.invalid-argument' })
    })

    test('a request that is no message', async () => {
      await using carried = await serving([applying(async () => ({}))])
      const call = carried.channel.start(PolicyAdministration.method.applyPolicies, {})
      await call.send(Uint8Array.of(0x0a, 0xff))
      call.end()
      expect(await failureOf(call.responses.next())).toMatchObject({
        category: 'invalid_argument',
        message: expect.stringContaining('ApplyPoliciesRequest') as string,
      })
    })

    test('R-27 a request that nests deeper than 100 messages', async () => {
      await using carried = await serving([applying(async () => ({}))])
      const call = carried.channel.start(PolicyAdministration.method.listPolicies, {})
      let nested: Uint8Array = Uint8Array.of()
      for (let depth = 0; depth < 400; depth++) nested = Buffer.concat([Uint8Array.of(0x0b), nested, Uint8Array.of(0x0c)])
      await call.send(nested)
      call.end()
      expect(await failureOf(call.responses.next())).toMatchObject({ category: 'invalid_argument' })
    })

    test('when the wrap refuses, and runs no handler', async () => {
      let ran = false
      const wrap: Wrap<string> = async (call) => {
        throw new Failure('unauthenticated', 'test.refused', { public: `${call.peer} may not call \`${call.method}\`` })
      }
      await using carried = await serving([applying(async () => ((ran = true), {}))], { wrap })
      expect(await failureOf(apply(carried.channel))).toMatchObject({
        category: 'unauthenticated',
        message: 'caller may not call `/vidimus.api.policy.v1.PolicyAdministration/ApplyPolicies`',
      })
      expect(ran).toBe(false)
    })

    test('a method that nobody serves', async () => {
      await using carried = await serving([applying(async () => ({}))])
      const failure = await failureOf(take(clientOf(PolicyDistribution, carried.channel).watchPolicies({}), 1))
      expect(failure).toMatchObject({ category: 'unimplemented' })
    })

    test('when the caller waits no longer', async () => {
      const seen = Promise.withResolvers<Call<string>>()
      await using carried = await serving([applying((_request, call) => (seen.resolve(call), untilAborted(call.signal)))])
      const failure = await failureOf(clientOf(PolicyAdministration, carried.channel).applyPolicies({}, { timeout: milliseconds(50) }))
      expect(failure.category).toBe('deadline_exceeded')
      await untilAborted((await seen.promise).signal)
    })

    test('what a stream fails with after it began', async () => {
      const watch: Watch = async function* () {
        yield { version: '1' }
        throw new Failure('unavailable', 'policy.gone', { public: 'no policies any more' })
      }
      await using carried = await serving([watching(watch)])
      const stream = clientOf(PolicyDistribution, carried.channel).watchPolicies({})
      expect((await stream.next()).value).toMatchObject({ version: '1' })
      expect(await failureOf(stream.next())).toMatchObject({ category: 'unavailable', internal: { text: 'no policies any more' } })
    })
  })

  test('carries details with a refusal', async () => {
    const details = [anyPack(PermissionDeniedDetailsSchema, create(PermissionDeniedDetailsSchema, { reason: Reason.AGENT_BANNED }))]
    const banned = new Failure('permission_denied', 'agent.banned', { public: 'the agent is banned' })
    await using carried = await serving([applying(() => Promise.reject(banned))], {
      detailsOf: (failure) => (failure === banned ? details : []),
    })
    const [detail] = detailsOf(await failureOf(apply(carried.channel)))
    expect(anyUnpack(detail!, PermissionDeniedDetailsSchema)).toMatchObject({ reason: Reason.AGENT_BANNED })
  })

  test('ends for the handler when the caller cancels', async () => {
    const seen = Promise.withResolvers<Call<string>>()
    await using carried = await serving([applying((_request, call) => (seen.resolve(call), untilAborted(call.signal)))])
    const stop = new AbortController()
    const answer = failureOf(clientOf(PolicyAdministration, carried.channel).applyPolicies({}, { signal: stop.signal }))
    const { signal } = await seen.promise
    stop.abort()
    expect(await answer).toMatchObject({ category: 'cancelled' })
    await untilAborted(signal)
  })

  test('ends a stream when the caller stops reading, and runs what the generator has to clean up', async () => {
    const cleaned = Promise.withResolvers<void>()
    const watch: Watch = async function* (_request, { signal }) {
      try {
        yield { version: '1' }
        await untilAborted(signal)
      } finally {
        cleaned.resolve()
      }
    }
    await using carried = await serving([watching(watch)])
    for await (const set of clientOf(PolicyDistribution, carried.channel).watchPolicies({})) {
      expect(set.version).toBe('1')
      break
    }
    await cleaned.promise
  })

  test('makes nothing that a slow reader has not room for', async () => {
    let made = 0
    const watch: Watch = async function* () {
      for (; made < 1000; made++) yield { version: 'x'.repeat(64 * 1024) }
    }
    await using carried = await serving([watching(watch)])
    const stream = clientOf(PolicyDistribution, carried.channel).watchPolicies({})
    await stream.next()
    await settled(() => made)
    expect(made).toBeLessThan(60)
    for (let read = 0; read < 200; read++) await stream.next()
    expect(made).toBeGreaterThan(200)
    await stream.return()
  })

  test('tells its streams that the other side is closing', async () => {
    const watch: Watch = async function* (_request, { signal }) {
      yield { version: '1' }
      await untilAborted(signal)
    }
    await using carried = await serving([watching(watch)])
    const stream = clientOf(PolicyDistribution, carried.channel).watchPolicies({})
    await stream.next()
    const end = failureOf(stream.next())
    await carried.stopServing()
    expect(['unavailable', 'cancelled']).toContain((await end).category)
  })

  test('has both sides speak as they like, until one ends', async () => {
    const sync: Sync = async function* (requests) {
      for await (const { ids } of requests) yield { entries: ids.map((id) => ({ id })) }
      yield { more: true }
    }
    await using carried = await serving([syncing(sync)])
    const call = clientOf(Entry, carried.channel).syncAuthorizedEntries()
    await call.send({ ids: ['a'] })
    expect((await call.responses.next()).value).toMatchObject({ entries: [{ id: 'a' }] })
    await call.send({ ids: ['b', 'c'] })
    expect((await call.responses.next()).value).toMatchObject({ entries: [{ id: 'b' }, { id: 'c' }] })
    call.end()
    expect((await call.responses.next()).value).toMatchObject({ more: true })
    expect((await call.responses.next()).done).toBe(true)
  })

  test('lets a handler answer and leave before the caller has ended', async () => {
    const sync: Sync = async function* (requests) {
      for await (const request of requests) {
        yield { entries: request.ids.map((id) => ({ id })) }
        return
      }
    }
    await using carried = await serving([syncing(sync)])
    const call = clientOf(Entry, carried.channel).syncAuthorizedEntries()
    await call.send({ ids: ['a'] })
    expect(await take(call.responses, 2)).toMatchObject([{ entries: [{ id: 'a' }] }])
  })

  test('reads no more requests than a handler asks for', async () => {
    const go = Promise.withResolvers<void>()
    const sync: Sync = async function* (requests) {
      await go.promise
      let count = 0n
      for await (const { ids } of requests) count += BigInt(ids.length)
      yield { entryRevisions: [{ id: 'count', revisionNumber: count }] }
    }
    await using carried = await serving([syncing(sync)])
    const call = carried.channel.start(Entry.method.syncAuthorizedEntries, {})
    const request = toBinary(
      SyncAuthorizedEntriesRequestSchema,
      create(SyncAuthorizedEntriesRequestSchema, { ids: ['x'.repeat(256 * 1024)] }),
    )
    let sent = 0
    const sending = (async () => {
      for (; sent < 100; sent++) await call.send(request)
      call.end()
    })()
    await settled(() => sent)
    expect(sent).toBeLessThan(100)
    go.resolve()
    await sending
    expect((await call.responses.next()).done).toBe(false)
    await call.responses.return()
  })

  test('shows the handler who calls what, with which metadata, and until when', async () => {
    let seen: Call<string> | undefined
    let request: string | undefined
    const wrap: Wrap<string> = async (call, next) => {
      request = call.request?.$typeName
      await next()
    }
    await using carried = await serving([applying(async (_request, call) => ((seen = call), { version: '7' }))], { wrap })
    const options = { metadata: { 'workload.spiffe.io': 'true' } }
    expect(await clientOf(PolicyAdministration, carried.channel).applyPolicies({}, options)).toMatchObject({ version: '7' })
    expect(seen).toMatchObject({ peer: 'caller', method: '/vidimus.api.policy.v1.PolicyAdministration/ApplyPolicies' })
    expect(seen?.metadata.get('workload.spiffe.io')).toEqual(['true'])
    expect(request).toBe('vidimus.api.policy.v1.ApplyPoliciesRequest')
  })

  test('sends what was serialised before as it stands', async () => {
    const once = encode(PolicySetSchema, { version: 'once' })
    expect(once).toBeInstanceOf(Encoded)
    const watch: Watch = async function* () {
      yield once
      yield once
    }
    await using carried = await serving([applying(async () => once), watching(watch)])
    expect(await apply(carried.channel)).toMatchObject({ version: 'once' })
    expect(await take(clientOf(PolicyDistribution, carried.channel).watchPolicies({}), 5)).toMatchObject([
      { version: 'once' },
      { version: 'once' },
    ])
  })
})

function applying(applyPolicies: Admin['applyPolicies']): Mounted<string> {
  return mount<typeof PolicyAdministration, string>(PolicyAdministration, { applyPolicies, listPolicies: async () => ({}) })
}

function watching(watchPolicies: Watch): Mounted<string> {
  return mount<typeof PolicyDistribution, string>(PolicyDistribution, { watchPolicies })
}

function syncing(syncAuthorizedEntries: Sync): Mounted<string> {
  const unused = () => Promise.reject(new Error('not called'))
  return mount<typeof Entry, string>(Entry, {
    countEntries: unused,
    listEntries: unused,
    getEntry: unused,
    batchCreateEntry: unused,
    batchUpdateEntry: unused,
    batchDeleteEntry: unused,
    getAuthorizedEntries: unused,
    syncAuthorizedEntries,
  })
}

const apply = (channel: Channel) => clientOf(PolicyAdministration, channel).applyPolicies({})

async function failureOf(promise: Promise<unknown>): Promise<Failure> {
  const value = await promise.then(
    (answer) => new Error(`answered ${JSON.stringify(answer)}`),
    (error: unknown) => error,
  )
  if (value instanceof Failure) return value
  throw value
}

async function take<T>(stream: AsyncIterable<T>, count: number): Promise<T[]> {
  const taken: T[] = []
  for await (const item of stream) if (taken.push(item) === count) break
  return taken
}

function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason as Error)
    else signal.addEventListener('abort', () => reject(signal.reason as Error))
  }).catch(() => undefined) as Promise<never>
}

/** Returns when a number has stopped moving for some turns of the event loop. */
async function settled(value: () => number): Promise<void> {
  for (let before = -1, same = 0; same < 50;) {
    same = value() === before ? same + 1 : 0
    before = value()
    await new Promise((resolve) => setImmediate(resolve))
  }
}
