/** A process that writes entries until it is killed, and says which were acknowledged. */
import { systemClock } from '../../src/kernel/clock.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { systemRandom } from '../../src/kernel/random.ts'
import { sqlite } from '../../src/store/sqlite.ts'
import { entry } from './sample.ts'

const [path = '', prefix = ''] = process.argv.slice(2)
const secrets = { read: () => Promise.reject(new Error('bug: a store needs no secret')) }
const store = await sqlite.open(
  { path },
  { clock: systemClock, random: systemRandom, files: systemFiles, log: silentLog, meter: silentMeter, secrets },
)

async function write(lane: number): Promise<never> {
  for (let i = 0; ; i++) {
    const id = `${prefix}-${lane}-${i}`
    await store.entries.create(entry({ id, selectors: [`x:${id}`] }))
    process.stdout.write(`${id}\n`)
  }
}
await Promise.all([write(0), write(1), write(2)])
