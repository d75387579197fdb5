import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { type Log, silentLog } from '../../src/kernel/log.ts'
import { firstOf, WatchedValue } from '../../src/kernel/watched.ts'
import { frozen } from '../../src/registry/node.ts'
import { healthOf, WatchedHealth } from '../../src/server/health.ts'
import { OwnIdentity } from '../../src/server/own-identity.ts'
import type { Server } from '../../src/server/server.ts'
import { TestCa } from '../support/test-ca.ts'
import { never, openRig, type Rig } from './rig.ts'

describe("the server's own certificate", () => {
  let rig: Rig
  let stop: AbortController
  beforeEach(async () => {
    rig = await openRig()
    stop = new AbortController()
  })
  afterEach(async () => {
    stop.abort()
    await rig[Symbol.asyncDispose]()
  })

  const serial = (own: OwnIdentity) => own.identity.current.chain[0]!.serial
  /** The same CA, with a bundle and an issuer of the test's. */
  const withCa = (fields: Partial<Pick<Server['ca'], 'bundle' | 'issueX509Svid'>>): Server => {
    const { ca } = rig.server
    const real = { trustDomain: ca.trustDomain, bundle: ca.bundle, issueX509Svid: ca.issueX509Svid.bind(ca) }
    return { ...rig.server, ca: { ...real, ...fields } as Server['ca'] }
  }
  const changed = (own: OwnIdentity, from: string) =>
    firstOf(own.identity, ({ chain }) => chain[0]!.serial !== from, AbortSignal.timeout(5000))

  test('has the exact ID that agents expect, and is verified by our bundle', async () => {
    const own = await OwnIdentity.open(rig.server, never)
    expect(own.identity.current.spiffeId).toBe('spiffe://example.org/spire/server')
    expect(own.identity.current.chain[0]?.subjectAltName?.uris).toEqual(['spiffe://example.org/spire/server'])
    expect(own.isGood).toBe(true)
  })

  test('stays until half its life and is new after it, with a new key', async () => {
    const own = await OwnIdentity.open(rig.server, never)
    const running = own.keepFresh(stop.signal)
    const [first, key] = [serial(own), own.identity.current.key]
    await rig.clock.advance(minutes(26))
    expect(serial(own)).toBe(first)
    await rig.clock.advance(minutes(10))
    await changed(own, first)
    expect(own.identity.current.key.equals(key)).toBe(false)
    stop.abort()
    await running
  })

  test('of the shortest life that can be configured is replaced before it ends', async () => {
    const { ca } = rig.server
    const issueX509Svid: Server['ca']['issueX509Svid'] = (request, signal) => ca.issueX509Svid({ ...request, lifetime: seconds(5) }, signal)
    const own = await OwnIdentity.open(withCa({ issueX509Svid }), never)
    const running = own.keepFresh(stop.signal)
    const first = serial(own)
    await rig.clock.advance(seconds(3))
    await changed(own, first)
    expect(own.isGood).toBe(true)
    stop.abort()
    await running
  })

  test('C-28 is renewed at once when its authority is tainted: who connects after the revocation meets the new one', async () => {
    const bundle = new WatchedValue(rig.server.ca.bundle.current)
    const other = await TestCa.create({ at: rig.clock.now() })
    const own = await OwnIdentity.open(withCa({ bundle }), never)
    const running = own.keepFresh(stop.signal)
    const first = serial(own)
    const tainted = bundle.current.x509Authorities.map((one) => ({ ...one, tainted: true }))
    bundle.set({ ...bundle.current, x509Authorities: [...tainted, { certificate: other.certificate, tainted: false }] })
    await changed(own, first)
    stop.abort()
    await running
  })

  test('is renewed at once when its authority left the bundle', async () => {
    const bundle = new WatchedValue(rig.server.ca.bundle.current)
    const other = await TestCa.create({ at: rig.clock.now() })
    const own = await OwnIdentity.open(withCa({ bundle }), never)
    const running = own.keepFresh(stop.signal)
    const first = serial(own)
    bundle.set({ ...bundle.current, x509Authorities: [{ certificate: other.certificate, tainted: false }] })
    expect(own.isGood).toBe(false)
    await changed(own, first)
    stop.abort()
    await running
  })

  test('Q-10 a CA that fails is asked again, and the certificate at hand stays', async () => {
    let broken = false
    const failed = Promise.withResolvers<void>()
    const issueX509Svid: Server['ca']['issueX509Svid'] = (request, signal) => {
      if (!broken) return rig.server.ca.issueX509Svid(request, signal)
      failed.resolve()
      return Promise.reject(new Error('away'))
    }
    const own = await OwnIdentity.open(withCa({ issueX509Svid }), never)
    broken = true
    const running = own.keepFresh(stop.signal)
    const first = serial(own)
    await rig.clock.advance(minutes(40))
    expect(serial(own)).toBe(first)
    await failed.promise
    broken = false
    while (serial(own) === first) await rig.clock.advance(seconds(6))
    await changed(own, first)
    stop.abort()
    await running
  })

  test('C-29 health names agents that are frozen, at most three, and goes on serving the others', async () => {
    const identity = await OwnIdentity.open(rig.server, never)
    const seen = { serial: 'ff', address: '192.0.2.7' }
    for (const name of ['a', 'b', 'c', 'd', 'e']) {
      const { node } = await rig.join(name)
      await rig.store.nodes.change(node.id, (found) => frozen(found, { at: 1, superseded: seen, successor: seen }))
    }
    const { serving, complaints } = await healthOf({ ...rig.server, identity })
    expect(serving).toBe(true)
    expect(complaints).toEqual([
      expect.stringMatching(/^frozen because two parties hold the identity: (spiffe:\/\/[^,]+\/[abc](, )?){3} and 2 more$/),
    ])
  })

  test('health complains when it has expired, and when the store is away', async () => {
    const identity = await OwnIdentity.open(rig.server, never)
    expect(await healthOf({ ...rig.server, identity })).toEqual({ serving: true, complaints: [] })
    await rig.clock.advance(hours(2))
    expect((await healthOf({ ...rig.server, identity })).complaints).toContain('the server certificate is not valid')
    const tryWrite = () => Promise.reject(new Error('disk on fire'))
    const { serving, complaints } = await healthOf({ ...rig.server, tryWrite, identity })
    expect([serving, complaints.join()]).toEqual([false, expect.stringContaining('the store cannot be written: disk on fire')])
  })
})

test('the log says why the server is not well, and when it is well again, once each', async () => {
  await using rig = await openRig()
  const lines: string[] = []
  const note = (message: string, fields?: object) => void lines.push(`${message} ${JSON.stringify(fields ?? {})}`)
  const log: Log = { ...silentLog, warn: note, info: note }
  let complaints: readonly string[] = []
  const ca = { ...rig.server.ca, complaints: () => complaints }
  const health = await WatchedHealth.open({ ...rig.server, ca, log, identity: { isGood: true } })
  const stop = new AbortController()
  const watching = health.keepWatching(stop.signal)
  const pass = async () => {
    await expect.poll(() => rig.clock.sleepers).toBeGreaterThan(0)
    await rig.clock.advance(seconds(5))
  }
  complaints = ['the vault is away']
  await pass()
  await expect.poll(() => health.state.current.serving).toBe(false)
  await pass()
  complaints = []
  await pass()
  await expect.poll(() => health.state.current.serving).toBe(true)
  stop.abort()
  await watching
  expect(lines).toEqual(['the server is not well {"complaints":["the vault is away"]}', 'the server is well again {}'])
})
