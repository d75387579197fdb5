/** What a meter counts is what whoever looks is shown: over every way to look there is. */
import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import { request as ask } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { describe, expect, test, vi } from 'vitest'
import { systemClock } from '../../src/kernel/clock.ts'
import { seconds } from '../../src/kernel/duration.ts'
import { counter, CountingMeter, gauge, reasonCodes, timing, type Metric } from '../../src/kernel/meter.ts'
import { openExports } from '../../src/main/metrics-exports.ts'
import { KeptLog } from '../ca/support.ts'
import { parseScrape, type Sample } from '../support/prometheus.ts'

const refusals = counter('vidimus_refused_total', 'Refusals, "quoted" and with \\ in its help', {
  kind: ['x509', 'jwt'],
  reason: reasonCodes,
})
const lengths = timing('vidimus_call_seconds', 'How long calls take', { outcome: ['done', 'refused'] })
const level = gauge('vidimus_level', 'How high it stands', {})
const metrics: readonly Metric[] = [refusals, lengths, level]

interface Looking extends AsyncDisposable {
  look(): Promise<readonly Sample[]>
}

const ways: readonly (readonly [string, (meter: CountingMeter) => Promise<Looking>])[] = [
  ['scraped by Prometheus', scraped],
  ['sent to an OpenTelemetry collector', sent],
]

describe.for(ways)('what is counted, %s', ([, open]) => {
  test('is nothing before anything happened, where all that can happen is known', async () => {
    await using looking = await open(new CountingMeter(metrics))
    const samples = await looking.look()
    expect(samples).toContainEqual({ name: 'vidimus_call_seconds_count', labels: { outcome: 'done' }, value: 0 })
    expect(samples.filter(({ name }) => name === 'vidimus_refused_total' || name === 'vidimus_level')).toEqual([])
  })

  test('is a sum that only grows, with its labels', async () => {
    const meter = new CountingMeter(metrics)
    await using looking = await open(meter)
    const labels = { kind: 'x509', reason: 'lint.ca-true' } as const
    for (const added of [1, 2]) {
      meter.counter(refusals, labels).add(added)
      expect(await looking.look()).toContainEqual({ name: 'vidimus_refused_total', labels, value: added === 1 ? 1 : 3 })
    }
  })

  test('is a level at the moment of the look', async () => {
    const meter = new CountingMeter(metrics)
    let height = 0.25
    meter.gauge(level, () => [{ labels: {}, value: height }])
    await using looking = await open(meter)
    expect(await looking.look()).toContainEqual({ name: 'vidimus_level', labels: {}, value: 0.25 })
    height = -3
    expect(await looking.look()).toContainEqual({ name: 'vidimus_level', labels: {}, value: -3 })
  })

  test('is a histogram of times in seconds', async () => {
    const meter = new CountingMeter(metrics)
    await using looking = await open(meter)
    for (const milliseconds of [4, 40, 40_000]) meter.timing(lengths, { outcome: 'done' }).record(milliseconds)
    const samples = (await looking.look()).filter(({ labels }) => labels['outcome'] === 'done')
    const bucket = (le: string) => samples.find((one) => one.name === 'vidimus_call_seconds_bucket' && one.labels['le'] === le)?.value
    expect([bucket('0.0025'), bucket('0.005'), bucket('0.05'), bucket('30'), bucket('+Inf')]).toEqual([0, 1, 2, 2, 3])
    expect(samples).toContainEqual({
      name: 'vidimus_call_seconds_sum',
      labels: { outcome: 'done' },
      value: expect.closeTo(40.044, 6) as number,
    })
  })
})

describe('the address that Prometheus asks', () => {
  test('is refused where another process listens', async () => {
    await using first = await listening(new CountingMeter(metrics))
    await expect(listening(new CountingMeter(metrics), { port: first.port })).rejects.toMatchObject({ reason: 'listen.address-in-use' })
  })

  test.for([
    ['POST', '/metrics', 405],
    ['HEAD', '/metrics', 405],
    ['GET', '/', 404],
    ['GET', '/metrics/', 404],
    ['GET', '/debug/pprof', 404],
    ['GET', '/metrics?x=1', 200],
  ] as const)('answers %s %s with %i', async ([method, path, status]) => {
    await using server = await listening(new CountingMeter(metrics))
    expect((await asked(server.port, method, path)).statusCode).toBe(status)
  })

  test('takes headers of a few KiB, and closes the connection on more', async () => {
    await using server = await listening(new CountingMeter(metrics))
    const heard = async (headerBytes: number): Promise<string> => {
      const socket = connect(server.port, '127.0.0.1')
      const parts: Buffer[] = []
      socket.on('data', (part: Buffer) => parts.push(part)).on('error', () => {})
      socket.write(`GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: ${'y'.repeat(headerBytes)}\r\n\r\n`)
      await once(socket, 'close')
      return Buffer.concat(parts).toString('latin1').slice(0, 12)
    }
    expect(await heard(4000)).toBe('HTTP/1.1 200')
    expect(await heard(9000)).toBe('')
  })

  test('keeps no more than a few connections', async () => {
    await using server = await listening(new CountingMeter(metrics))
    const sockets = Array.from({ length: 40 }, () => connect(server.port, '127.0.0.1').on('error', () => {}))
    let closed = 0
    for (const socket of sockets) socket.on('close', () => closed++)
    await expect.poll(() => closed, { timeout: 10_000 }).toBe(24)
    for (const socket of sockets) socket.destroy()
  })

  test('closes what is open when it is disposed of', async () => {
    const server = await listening(new CountingMeter(metrics))
    const socket = connect(server.port, '127.0.0.1')
    await once(socket, 'connect')
    const closed = once(socket, 'close')
    await server[Symbol.asyncDispose]()
    await closed
  })

  test('says that it cannot show what cannot be read, and goes on', async () => {
    const meter = new CountingMeter(metrics)
    const log = new KeptLog()
    const broken = meter.gauge(level, () => {
      throw new Error('a gauge that cannot be read')
    })
    await using server = await listening(meter, { log })
    expect((await asked(server.port, 'GET', '/metrics')).statusCode).toBe(500)
    expect(log.lines.at(-1)).toMatch(/^error the metrics cannot be shown/)
    broken[Symbol.dispose]()
    expect((await asked(server.port, 'GET', '/metrics')).statusCode).toBe(200)
  })
})

test("a collector's token comes from the environment, as OpenTelemetry says; its address from the configuration alone", async () => {
  vi.stubEnv('OTEL_EXPORTER_OTLP_HEADERS', 'authorization=Bearer%20t0ken')
  vi.stubEnv('OTEL_EXPORTER_OTLP_METRICS_ENDPOINT', 'http://127.0.0.1:1/elsewhere')
  const asked = Promise.withResolvers<IncomingMessage>()
  const collector = createServer((request, response) => {
    response.end('{}')
    asked.resolve(request)
  })
  await once(collector.listen(0, '127.0.0.1'), 'listening')
  const log = new KeptLog()
  const otlp = { endpoint: `http://127.0.0.1:${(collector.address() as AddressInfo).port}/v1/metrics`, interval: seconds(0.05) }
  try {
    await using _sending = await openExports(new CountingMeter(metrics), 'server', { otlp }, { clock: systemClock, log })
    const { headers, url } = await asked.promise
    expect([headers.authorization, url]).toEqual(['Bearer t0ken', '/v1/metrics'])
    expect(log.lines.join()).not.toContain('t0ken')
  } finally {
    vi.unstubAllEnvs()
    collector.close()
    collector.closeAllConnections()
  }
})

test('a collector that is away hinders nobody, and the log says once that it is', async () => {
  const log = new KeptLog()
  const otlp = { endpoint: 'http://127.0.0.1:1/v1/metrics', interval: seconds(0.05) }
  await using _sending = await openExports(new CountingMeter(metrics), 'server', { otlp }, { clock: systemClock, log })
  await expect.poll(() => log.lines.filter((line) => line.startsWith('warn metrics cannot be sent')).length, { timeout: 20_000 }).toBe(1)
})

interface Listening extends AsyncDisposable {
  readonly port: number
}

async function listening(meter: CountingMeter, { port = 0, log = new KeptLog() } = {}): Promise<Listening> {
  const shown = await openExports(meter, 'server', { prometheus: { host: '127.0.0.1', port } }, { clock: systemClock, log })
  const { port: bound } = JSON.parse(log.lines[0]!.slice('info metrics are shown '.length)) as { port: number }
  return { port: bound, [Symbol.asyncDispose]: () => shown[Symbol.asyncDispose]() }
}

async function asked(
  port: number,
  method: string,
  path: string,
): Promise<{ readonly statusCode: number | undefined; readonly body: string }> {
  const request = ask({ host: '127.0.0.1', port, method, path, agent: false }).end()
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  return { statusCode: response.statusCode, body: await text(response) }
}

async function scraped(meter: CountingMeter): Promise<Looking> {
  const server = await listening(meter)
  return {
    look: async () => parseScrape((await asked(server.port, 'GET', '/metrics')).body).samples,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}

/** A collector that keeps the last of what it was sent. */
async function sent(meter: CountingMeter): Promise<Looking> {
  let next = Promise.withResolvers<readonly Sample[]>()
  const collector = createServer((request, response) => {
    void text(request).then((body) => {
      response.setHeader('content-type', 'application/json').end('{}')
      next.resolve(samplesIn(JSON.parse(body) as Export))
    })
  })
  collector.listen(0, '127.0.0.1')
  await once(collector, 'listening')
  const { port } = collector.address() as AddressInfo
  const otlp = { endpoint: `http://127.0.0.1:${port}/v1/metrics`, interval: seconds(0.05) }
  const sending = await openExports(meter, 'server', { otlp }, { clock: systemClock, log: new KeptLog() })
  return {
    async look() {
      // One may be on its way that was looked at before.
      for (let waited = 0; waited < 2; waited++) {
        next = Promise.withResolvers()
        await next.promise
      }
      return next.promise
    },
    async [Symbol.asyncDispose]() {
      await sending[Symbol.asyncDispose]()
      collector.close()
      collector.closeAllConnections()
    },
  }
}

/** `ExportMetricsServiceRequest` in JSON (OTLP 1.x), the part that is looked at. */
interface Export {
  readonly resourceMetrics: readonly {
    readonly resource: { readonly attributes: readonly Attribute[] }
    readonly scopeMetrics: readonly { readonly metrics: readonly Exported[] }[]
  }[]
}

interface Exported {
  readonly name: string
  readonly sum?: { readonly isMonotonic: boolean; readonly aggregationTemporality: number; readonly dataPoints: readonly Point[] }
  readonly gauge?: { readonly dataPoints: readonly Point[] }
  readonly histogram?: { readonly dataPoints: readonly Buckets[] }
}

interface Attribute {
  readonly key: string
  readonly value: { readonly stringValue?: string }
}

interface Point {
  readonly attributes: readonly Attribute[]
  readonly asDouble?: number
  readonly asInt?: number
}

interface Buckets {
  readonly attributes: readonly Attribute[]
  readonly count: number
  readonly sum: number
  readonly bucketCounts: readonly number[]
  readonly explicitBounds: readonly number[]
}

/** As a scrape would show them. */
function samplesIn({ resourceMetrics }: Export): readonly Sample[] {
  const [{ resource, scopeMetrics } = { resource: { attributes: [] }, scopeMetrics: [] }] = resourceMetrics
  expect(labelsOf(resource)).toMatchObject({ 'service.name': 'vidimus-server' })
  return scopeMetrics.flatMap(({ metrics: exported }) =>
    exported.flatMap(({ name, sum, gauge: read, histogram }) => {
      if (sum) expect(sum).toMatchObject({ isMonotonic: true, aggregationTemporality: 2 })
      const points = [...(sum?.dataPoints ?? []), ...(read?.dataPoints ?? [])]
      const plain = points.map((one) => ({ name, labels: labelsOf(one), value: Number(one.asDouble ?? one.asInt) }))
      return [...plain, ...(histogram?.dataPoints ?? []).flatMap((one) => samplesOfBuckets(name, one))]
    }),
  )
}

function samplesOfBuckets(name: string, buckets: Buckets): readonly Sample[] {
  const labels = labelsOf(buckets)
  let below = 0
  const counted = buckets.bucketCounts.map((count, at) => {
    below += count
    return { name: `${name}_bucket`, labels: { ...labels, le: String(buckets.explicitBounds[at] ?? '+Inf') }, value: below }
  })
  return [...counted, { name: `${name}_count`, labels, value: buckets.count }, { name: `${name}_sum`, labels, value: buckets.sum }]
}

const labelsOf = ({ attributes }: { readonly attributes: readonly Attribute[] }): Record<string, string> =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, value.stringValue ?? '']))
