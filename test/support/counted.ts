/** A meter that counts, and what it counted: for tests of those who are handed one. */
import { metricsOf } from '../../src/main/metrics.ts'
import { CountingMeter, type Labels, type LabelValues, type Metric } from '../../src/kernel/meter.ts'

/** A meter for whatever the programs count. */
export class TestMeter extends CountingMeter {
  constructor() {
    super([...new Set(Object.values(metricsOf).flat())])
  }

  /** How much was counted, how high a gauge is or how many times something was timed; 0 where there is no such series. */
  of<const L extends Labels>(metric: Metric<Metric['kind'], L>, labels: LabelValues<L>): number {
    const series = this.read().find((family) => family.metric.name === metric.name)?.series ?? []
    const wanted = Object.entries(labels as Readonly<Record<string, string>>)
    const found = series.find((one) => wanted.every(([name, value]) => one.labels[name] === value))
    if (!found) return 0
    return 'value' in found ? found.value : found.counts.reduce((all, each) => all + each, 0)
  }
}
