import { describe, expect, test } from 'vitest'
import { minutes } from '../../src/kernel/duration.ts'
import { Failure, failedWith } from '../../src/kernel/failure.ts'
import { type Log, silentLog } from '../../src/kernel/log.ts'
import { xdsMetrics } from '../../src/xds/metrics.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import type { Resources } from '../../src/xds/resources.ts'
import {
  type DiscoveryRequest,
  type DiscoveryResponse,
  fetchOnce,
  serveStream,
  type StreamOptions,
  type StreamState,
} from '../../src/xds/stream.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'
import { TestMeter } from '../support/counted.ts'

describe('refuses', () => {
  test('a request for another type of resource', async () => {
    await using proxy = connect()
    proxy.send({ typeUrl: 'type.googleapis.com/envoy.config.cluster.v3.Cluster' })
    await expect(proxy.response()).rejects.toSatisfy((error) => failedWith(error, 'xds.wrong-type'))
  })

  test('more requests than any proxy has reason to send', async () => {
    await using proxy = connect()
    for (let sent = 0; sent < 10_002; sent++) proxy.send({ resourceNames: ['nowhere'] })
    await expect(proxy.response()).rejects.toSatisfy((error) => failedWith(error, 'xds.too-many-requests'))
  })

  test('to go on when the resources end with a failure, and says which', async () => {
    await using proxy = connect()
    proxy.send({ resourceNames: ['a'] })
    await proxy.response()
    const answer = proxy.response()
    proxy.resources.close(new Failure('permission_denied', 'workload.no-identity', { public: 'no identity issued' }))
    await expect(answer).rejects.toSatisfy((error) => failedWith(error, 'workload.no-identity'))
  })
})

describe('ends', () => {
  test('when its requests end', async () => {
    await using proxy = connect()
    proxy.send({ resourceNames: ['a'] })
    await proxy.response()
    proxy.hangUp()
    expect(await proxy.ended()).toBe(true)
  })

  test('when it is told to, also before the first request, and leaves nobody waiting', async () => {
    await using proxy = connect()
    const answer = proxy.ended()
    proxy.stop()
    expect(await answer).toBe(true)
    expect(proxy.clock.sleepers).toBe(0)
  })
})

describe('serves', () => {
  test('what changed, and only that, with the type and a nonce of its own for each response', async () => {
    await using proxy = connect()
    proxy.send({ resourceNames: ['a', 'b'] })
    const first = await proxy.response()
    proxy.send({ resourceNames: ['a', 'b'], responseNonce: first.nonce })
    proxy.resources.set(held({ a: 'one', b: 'changed' }))
    const second = await proxy.response()
    expect(contents(first)).toEqual(['one', 'two'])
    expect(contents(second)).toEqual(['changed'])
    expect(second.typeUrl).toBe(typeUrl)
    expect(second.resources[0]?.typeUrl).toBe(typeUrl)
    expect(second.nonce).not.toBe(first.nonce)
    expect(second.versionInfo).not.toBe(first.versionInfo)
  })

  test('everything once more on the heartbeat, for a watcher that never asked', async () => {
    await using proxy = connect()
    proxy.send({ resourceNames: ['a'] })
    await proxy.response()
    const again = proxy.response()
    await proxy.clock.advance(minutes(5))
    expect(contents(await again)).toEqual(['one'])
  })

  test('resources chosen by what the first request says of its node', async () => {
    const nodes: string[] = []
    await using proxy = connect({ onNode: (id) => nodes.push(id) })
    proxy.send({ resourceNames: ['a'], node: { id: 'envoy-1' } })
    await proxy.response()
    proxy.send({ resourceNames: ['a', 'b'] })
    await proxy.response()
    expect(nodes).toEqual(['envoy-1'])
  })
})

describe('a proxy that refuses what it was sent', () => {
  test('shows in the log and in the state of the stream, with its own words, until it accepts something', async () => {
    await using proxy = connect()
    proxy.send({ resourceNames: ['a'], node: { id: 'envoy-1' } })
    const first = await proxy.response()
    proxy.send({ resourceNames: ['a'], responseNonce: first.nonce, errorDetail: { message: 'Failed to load private key' } })
    await proxy.understood()
    expect(proxy.state()).toMatchObject({ node: 'envoy-1', names: ['a'], rejection: 'Failed to load private key', acceptedVersion: '' })
    expect(proxy.warnings).toContainEqual(
      expect.objectContaining({ reason: 'xds.rejected', rejection: 'Failed to load private key', node: 'envoy-1' }),
    )

    proxy.resources.set(held({ a: 'better' }))
    const second = await proxy.response()
    proxy.send({ resourceNames: ['a'], responseNonce: second.nonce })
    await proxy.understood()
    expect(proxy.state()).toMatchObject({ acceptedVersion: second.versionInfo })
    expect(proxy.state()).not.toHaveProperty('rejection')
    expect(proxy.meter.of(xdsMetrics.rejections, { type: typeUrl })).toBe(1)
    expect(proxy.meter.of(xdsMetrics.responses, { type: typeUrl })).toBe(2)
  })

  test('asks for what it has no right to: that is logged, and the rest is served', async () => {
    await using proxy = connect()
    proxy.send({ resourceNames: ['a', 'secret-of-others'] })
    expect(contents(await proxy.response())).toEqual(['one'])
    expect(proxy.warnings).toContainEqual(expect.objectContaining({ reason: 'xds.no-such-resource', names: ['secret-of-others'] }))
  })
})

test('one request without a stream gets what is there', () => {
  const response = fetchOnce(
    { ...emptyRequest, resourceNames: ['b', 'nowhere'] },
    { typeUrl, log: silentLog, resources: held({ a: 'one', b: 'two' }) },
  )
  expect(contents(response)).toEqual(['two'])
})

const typeUrl = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret'
const emptyRequest: DiscoveryRequest = { resourceNames: [], typeUrl, responseNonce: '' }
const held = (content: Readonly<Record<string, string>>): Resources =>
  new Map(Object.entries(content).map(([name, text]) => [name, { version: text, value: Buffer.from(text) }]))
const contents = (response: DiscoveryResponse): string[] => response.resources.map(({ value }) => Buffer.from(value).toString())

/** A proxy on one stream. */
function connect(options: { onNode?(id: string): void } = {}) {
  const queue: DiscoveryRequest[] = []
  const stopping = new AbortController()
  const resources = new WatchedValue(held({ a: 'one', b: 'two' }))
  const clock = new FakeClock()
  const warnings: unknown[] = []
  const meter = new TestMeter()
  let wake = () => {}
  let hungUp = false
  let state: StreamState | undefined
  let pending: Promise<IteratorResult<DiscoveryResponse, void>> | undefined

  async function* requests() {
    while (!hungUp) {
      const request = queue.shift()
      if (request) yield request
      else await new Promise<void>((resolve) => (wake = resolve))
    }
  }
  const settings: StreamOptions = {
    typeUrl,
    resources(node) {
      options.onNode?.(node.id)
      return resources
    },
    clock,
    random: seededRandom(1),
    log: recording(warnings),
    meter,
    report: (next) => (state = next),
  }
  const stream = serveStream(requests(), settings, stopping.signal)
  return {
    clock,
    resources,
    warnings,
    meter,
    state: () => state,
    send(request: Partial<DiscoveryRequest>) {
      queue.push({ ...emptyRequest, ...request })
      wake()
    },
    hangUp() {
      hungUp = true
      wake()
    },
    stop: () => stopping.abort(),
    async response(): Promise<DiscoveryResponse> {
      pending ??= stream.next()
      const result = await pending.finally(() => (pending = undefined))
      if (result.done) throw new Error('the stream ended')
      return result.value
    },
    ended: async () => (await stream.next()).done,
    /** Until what was sent has been read. */
    async understood(): Promise<void> {
      pending ??= stream.next()
      await clock.advance(0)
    },
    async [Symbol.asyncDispose]() {
      hungUp = true
      stopping.abort()
      wake()
      await stream.return()
    },
  }
}

function recording(warnings: unknown[], fields: object = {}): Log {
  return {
    ...silentLog,
    warn: (message, more) => warnings.push({ message, ...fields, ...more }),
    with: (more) => recording(warnings, { ...fields, ...more }),
  }
}
