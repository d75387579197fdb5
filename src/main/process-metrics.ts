/** What the process itself is like. */
import { performance } from 'node:perf_hooks'
import { gauge, type Meter } from '../kernel/meter.ts'
import { version } from './version.ts'

export const processMetrics = {
  build: gauge('vidimus_build_info', 'Always 1; its label is the version that runs', { version: { most: 1 } }),
  start: gauge('vidimus_start_timestamp_seconds', 'When the process was started', {}),
  memory: gauge('vidimus_resident_bytes', 'Memory that the process holds', {}),
  busy: gauge('vidimus_event_loop_busy_ratio', 'The share of the time since the last look in which the main thread was at work', {}),
  insecure: gauge('vidimus_insecure_settings', 'Settings in force whose name says that they are dangerous (R-43)', {}),
}

/** For as long as the process lives. */
export function showProcess(meter: Meter, config: object): void {
  const show = (metric: (typeof processMetrics)['start'], read: () => number) => meter.gauge(metric, () => [{ labels: {}, value: read() }])
  meter.gauge(processMetrics.build, () => [{ labels: { version }, value: 1 }])
  show(processMetrics.start, () => performance.timeOrigin / 1000)
  show(processMetrics.memory, () => process.memoryUsage.rss())
  let seen = performance.eventLoopUtilization()
  show(processMetrics.busy, () => {
    const now = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(now, seen)
    seen = now
    return utilization
  })
  const insecure = insecureSettings(config)
  show(processMetrics.insecure, () => insecure)
}

/** How many switches are on that say of themselves what they are. */
function insecureSettings(config: object): number {
  const settings = Object.entries(config) as readonly (readonly [string, unknown])[]
  return settings.reduce((sum, [name, value]) => {
    if (typeof value === 'object' && value !== null) return sum + insecureSettings(value)
    return sum + Number(value === true && /^(dangerously|insecure)/.test(name))
  }, 0)
}
