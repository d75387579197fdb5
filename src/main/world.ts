import { systemClock } from '../kernel/clock.ts'
import type { World } from '../kernel/driver.ts'
import { systemFiles } from '../kernel/files.ts'
import type { Meter } from '../kernel/meter.ts'
import { systemRandom } from '../kernel/random.ts'
import { systemSecrets } from './config/secrets.ts'
import { openLog, type LogConfig } from './log.ts'

/** The machine that this process runs on, behind its ports. */
export const systemWorld = (log: LogConfig, meter: Meter): World => ({
  clock: systemClock,
  random: systemRandom,
  files: systemFiles,
  log: openLog(log),
  meter,
  secrets: systemSecrets,
})
