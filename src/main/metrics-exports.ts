/** Shows what was counted: Prometheus asks for it, an OpenTelemetry collector is sent it. Imported where one of them is configured, and only there. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { ValueType, type HrTime } from '@opentelemetry/api'
import { ExportResultCode, millisToHrTime } from '@opentelemetry/core'
import { OTLPMetricExporter } from '@opentelemetry/exporter-metrics-otlp-http'
import { PrometheusSerializer } from '@opentelemetry/exporter-prometheus'
import { resourceFromAttributes } from '@opentelemetry/resources'
import {
  AggregationTemporality,
  DataPointType,
  type MetricData,
  type MetricProducer,
  PeriodicExportingMetricReader,
  type PushMetricExporter,
  type ResourceMetrics,
} from '@opentelemetry/sdk-metrics'
import { deadline, type Clock } from '../kernel/clock.ts'
import type { World } from '../kernel/driver.ts'
import { minutes, seconds } from '../kernel/duration.ts'
import { tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import { type CountingMeter, type Family, timingBounds } from '../kernel/meter.ts'
import { bind } from '../rpc/listen.ts'
import type { MetricsConfig } from './config/schema.ts'
import { version } from './version.ts'

/** Opens what the configuration names. @throws Failure `listen.*` */
export async function openExports(
  meter: CountingMeter,
  program: string,
  { prometheus, otlp }: MetricsConfig,
  world: Pick<World, 'clock' | 'log'>,
): Promise<AsyncDisposable> {
  await using opened = new AsyncDisposableStack()
  const producer = producerOf(meter, program, world.clock)
  if (prometheus) opened.use(await listenForScrapes(producer, prometheus, world.log))
  if (otlp) opened.use(pushTo(producer, otlp, world.log))
  return opened.move()
}

/** What was counted, in the words of the OpenTelemetry SDK (its `MetricProducer`: metrics that come from elsewhere). */
function producerOf(meter: CountingMeter, program: string, clock: Clock): Producer {
  const resource = resourceFromAttributes({ 'service.name': `vidimus-${program}`, 'service.version': version })
  const startTime = millisToHrTime(clock.now())
  const look = (): ResourceMetrics => {
    const times = { startTime, endTime: millisToHrTime(clock.now()) }
    const metrics = meter.read().map((family) => metricData(family, times))
    return { resource, scopeMetrics: [{ scope: { name: 'vidimus', version }, metrics }] }
  }
  return { look, collect: () => Promise.resolve({ resourceMetrics: look(), errors: [] }) }
}

interface Producer extends MetricProducer {
  look(): ResourceMetrics
}

function metricData({ metric, series }: Family, times: { readonly startTime: HrTime; readonly endTime: HrTime }): MetricData {
  const { kind, name, help: description } = metric
  const unit = { counter: '', gauge: '', timing: 's' }[kind]
  const common = {
    descriptor: { name, description, unit, valueType: ValueType.DOUBLE },
    aggregationTemporality: AggregationTemporality.CUMULATIVE,
  }
  const values = series.flatMap((one) => ('value' in one ? [{ ...times, attributes: one.labels, value: one.value }] : []))
  switch (kind) {
    case 'counter':
      return { ...common, dataPointType: DataPointType.SUM, isMonotonic: true, dataPoints: values }
    case 'gauge':
      return { ...common, dataPointType: DataPointType.GAUGE, dataPoints: values }
    case 'timing': {
      const dataPoints = series.flatMap((one) => {
        if ('value' in one) return []
        const { labels, counts, sum } = one
        const count = counts.reduce((all, each) => all + each, 0)
        const buckets = { boundaries: [...timingBounds], counts: [...counts] }
        return [{ ...times, attributes: labels, value: { buckets, sum, count } }]
      })
      return { ...common, dataPointType: DataPointType.HISTOGRAM, dataPoints }
    }
  }
}

/** `GET /metrics`, for whoever reaches the address: nothing that is counted is a secret. The library's own server has no limits. */
async function listenForScrapes(
  producer: Producer,
  { host, port }: NonNullable<MetricsConfig['prometheus']>,
  log: Log,
): Promise<AsyncDisposable> {
  const serializer = new PrometheusSerializer(undefined, false, undefined, true, true)
  const server = createServer(
    {
      maxHeaderSize: 8 * 1024,
      headersTimeout: seconds(5),
      requestTimeout: seconds(5),
      connectionsCheckingInterval: seconds(1),
      keepAliveTimeout: minutes(2), // longer than the pauses between scrapes
    },
    (request, response) => answer(request, response, () => serializer.serialize(producer.look()), log),
  )
  server.maxConnections = maxConnections
  server.on('clientError', (_error, socket) => socket.destroy())
  await bind(server, { host, port }, `\`${host}:${port}\``)
  const { address, port: bound } = server.address() as AddressInfo
  log.info('metrics are shown', { address, port: bound, path })
  return {
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      await closed
    },
  }
}

function answer({ method, url }: IncomingMessage, response: ServerResponse, look: () => string, log: Log): void {
  // A reader that does not read does not keep its connection.
  const late = deadline(seconds(10))
  const giveUp = () => response.destroy()
  late.addEventListener('abort', giveUp, { once: true })
  response.once('close', () => late.removeEventListener('abort', giveUp))
  if (url?.split('?', 1)[0] !== path) return refuse(response, 404, `there is ${path} and nothing else here\n`)
  if (method !== 'GET') return refuse(response.setHeader('allow', 'GET'), 405, 'expected GET\n')
  try {
    const text = look()
    response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }).end(text)
  } catch (error) {
    log.error('the metrics cannot be shown', { error: tellChain(error) })
    refuse(response, 500, 'the metrics cannot be shown\n')
  }
}

/** What came with the request is not waited for. */
function refuse(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', connection: 'close' }).end(text)
}

/**
 * OTLP over HTTP in JSON, again and again, and once more at the end. A collector that is away hinders nobody, and one that does not answer
 * holds up the end for two seconds, or for what is left of the five that an export may take.
 */
function pushTo(producer: Producer, { endpoint, interval }: NonNullable<MetricsConfig['otlp']>, log: Log): AsyncDisposable {
  const timeout = Math.min(interval, seconds(5))
  const exporter = new ToldExporter(endpoint, timeout, log)
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: interval, exportTimeoutMillis: timeout })
  reader.setMetricProducer(producer)
  log.info('metrics are sent', { endpoint, intervalMs: interval })
  return {
    async [Symbol.asyncDispose]() {
      exporter.isEnding = true
      await reader.shutdown({ timeoutMillis: farewell }).catch(() => {})
    },
  }
}

/** Says in the log when sending begins to fail, and when it works again: the library keeps both to itself. */
class ToldExporter implements PushMetricExporter {
  readonly #usual: OTLPMetricExporter
  /** The library cannot end an export that is under way: what begins at the end has less time. */
  readonly #last: OTLPMetricExporter
  readonly #log: Log
  #isFailing = false
  isEnding = false

  constructor(url: string, timeoutMillis: number, log: Log) {
    this.#usual = new OTLPMetricExporter({ url, timeoutMillis, concurrencyLimit: 1 })
    this.#last = new OTLPMetricExporter({ url, timeoutMillis: Math.min(farewell, timeoutMillis), concurrencyLimit: 1 })
    this.#log = log
  }

  export(metrics: ResourceMetrics, done: Parameters<PushMetricExporter['export']>[1]): void {
    if (this.isEnding && this.#isFailing) return done({ code: ExportResultCode.FAILED })
    const exporter = this.isEnding ? this.#last : this.#usual
    exporter.export(metrics, (result) => {
      const failed = result.code !== ExportResultCode.SUCCESS
      if (failed && !this.#isFailing) this.#log.warn('metrics cannot be sent', { error: tellChain(result.error) })
      if (!failed && this.#isFailing) this.#log.info('metrics are sent again')
      this.#isFailing = failed
      done(result)
    })
  }

  async forceFlush(): Promise<void> {
    await Promise.all([this.#usual.forceFlush(), this.#last.forceFlush()])
  }

  async shutdown(): Promise<void> {
    await Promise.all([this.#usual.shutdown(), this.#last.shutdown()])
  }
}

const farewell = seconds(2)
const path = '/metrics'
const maxConnections = 16
