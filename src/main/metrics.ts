/** Which metrics each program has, and whether anybody looks at them. */
import { agentMetrics } from '../agent/metrics.ts'
import { auditMetrics } from '../audit/metrics.ts'
import { caMetrics } from '../ca/metrics.ts'
import type { World } from '../kernel/driver.ts'
import { CountingMeter, type Meter, type Metric, silentMeter } from '../kernel/meter.ts'
import { rpcMetrics } from '../rpc/metrics.ts'
import { serverMetrics } from '../server/metrics.ts'
import { clientMetrics } from '../server-api/metrics.ts'
import { storeMetrics } from '../store/metrics.ts'
import { xdsMetrics } from '../xds/metrics.ts'
import type { MetricsConfig } from './config/schema.ts'
import { processMetrics, showProcess } from './process-metrics.ts'

type Program = 'server' | 'agent'

/** In the order in which they are shown. */
export const metricsOf: Readonly<Record<Program, readonly Metric[]>> = {
  server: [serverMetrics, caMetrics, auditMetrics, storeMetrics, rpcMetrics, processMetrics].flatMap<Metric>(Object.values),
  agent: [agentMetrics, clientMetrics, xdsMetrics, rpcMetrics, processMetrics].flatMap<Metric>(Object.values),
}

/** Counts only where somebody is to be shown what was counted. */
export class Metrics {
  readonly meter: Meter
  readonly #counted: CountingMeter | undefined
  readonly #program: Program
  readonly #config: MetricsConfig

  /** `config` is that of the whole program. */
  constructor(program: Program, config: { readonly metrics: MetricsConfig }) {
    const { prometheus, otlp } = config.metrics
    this.#program = program
    this.#config = config.metrics
    this.#counted = prometheus || otlp ? new CountingMeter(metricsOf[program]) : undefined
    this.meter = this.#counted ?? silentMeter
    if (this.#counted) showProcess(this.#counted, config)
  }

  /** Shows them until it is disposed of. What does so is loaded here, so that who wants no metrics does not pay for them. @throws Failure `listen.*` */
  async show(world: Pick<World, 'clock' | 'log'>): Promise<AsyncDisposable> {
    const shown = new AsyncDisposableStack()
    if (!this.#counted) return shown
    const { openExports } = await import('./metrics-exports.ts')
    return openExports(this.#counted, this.#program, this.#config, world)
  }
}
