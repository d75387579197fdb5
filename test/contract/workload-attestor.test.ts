import { describe, expect, test } from 'vitest'
import type { Peer } from '../../src/attestation/peer.ts'
import { openPeerCredentials } from '../../src/attestation/peer/linux.ts'
import { unix } from '../../src/attestation/workload/unix.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'

/** What every workload attestor keeps. */
const drivers = [unix]
const world = {
  clock: new FakeClock(),
  random: seededRandom(1),
  files: systemFiles,
  log: silentLog,
  meter: silentMeter,
  secrets: { read: () => Promise.reject(new Error('bug: no secret is configured')) },
}

describe.each(drivers)('workload attestor $kind', (driver) => {
  const open = () => driver.open(driver.config.parse(driver.example), world)
  const signal = new AbortController().signal

  test('its example is a valid configuration, and an unknown key is not', () => {
    expect(driver.config.safeParse(driver.example).success).toBe(true)
    expect(driver.config.safeParse({ ...(driver.example as object), noSuchKey: 1 }).success).toBe(false)
  })
  test('A-18 gives nothing for a process that has ended', async () => {
    await using attestor = await open()
    const ended: Peer = {
      pid: process.pid,
      uid: process.geteuid!(),
      gid: process.getegid!(),
      stillThere: () => false,
      [Symbol.dispose]() {},
    }
    await expect(attestor.attest(ended, signal)).rejects.toMatchObject({ reason: 'workload.gone' })
  })
  test('gives selectors of its own type, the same ones each time', async () => {
    await using attestor = await open()
    using self = (await openPeerCredentials()).ofPid(process.pid)
    const first = await attestor.attest(self, signal)
    expect(first.length).toBeGreaterThan(0)
    expect(new Set(first.map((one) => one.type))).toEqual(new Set([driver.kind]))
    expect(await attestor.attest(self, signal)).toEqual(first)
  })
})
