import { describe, expect, test } from 'vitest'
import { collectSelectors } from '../../src/attestation/collect.ts'
import type { Peer } from '../../src/attestation/peer.ts'
import type { WorkloadAttestor } from '../../src/attestation/workload-attestor.ts'
import { milliseconds, seconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { formatSelector, parseSelector } from '../../src/spiffe/selector.ts'

const attestor = (attest: WorkloadAttestor['attest']): WorkloadAttestor => ({ attest, async [Symbol.asyncDispose]() {} })
const says = (...selectors: string[]) => attestor(async () => selectors.map(parseSelector))
const fails = attestor(async () => {
  throw new Failure('unavailable', 'kubelet.away', { public: 'the kubelet does not answer' })
})
const peer = (alive = () => true): Peer => ({ pid: 42, uid: 1, gid: 1, stillThere: alive, [Symbol.dispose]() {} })
const collect = async (
  attestors: Record<string, WorkloadAttestor>,
  { who = peer(), timeout = seconds(10), signal = new AbortController().signal } = {},
) => (await collectSelectors(who, { attestors: new Map(Object.entries(attestors)), log: silentLog, timeout }, signal)).map(formatSelector)

describe('attesting a workload refuses', () => {
  test('when every attestor failed', async () => {
    await expect(collect({ k8s: fails, unix: fails })).rejects.toMatchObject({
      category: 'unavailable',
      reason: 'workload.attestation-failed',
    })
  })
  test('when there is no attestor at all', async () => {
    await expect(collect({})).rejects.toMatchObject({ reason: 'workload.attestation-failed' })
  })
  test('A-18 when the process ended while it was looked at, asked after the last read', async () => {
    let alive = true
    const ends = attestor(async () => {
      alive = false
      return [parseSelector('unix:uid:0')]
    })
    await expect(collect({ unix: ends, k8s: says('k8s:ns:a') }, { who: peer(() => alive) })).rejects.toMatchObject({
      reason: 'workload.gone',
    })
  })
  test('a selector of another attestor’s type', async () => {
    await expect(collect({ docker: says('docker:label:a:b', 'unix:uid:0') })).rejects.toMatchObject({
      reason: 'workload.attestation-failed',
      internal: { failures: [expect.stringContaining('workload.bad-selectors')] },
    })
  })
  test('to wait longer than its deadline, even for an attestor that ignores its signal', async () => {
    const hangs = attestor(() => new Promise(() => {}))
    await expect(collect({ unix: hangs }, { timeout: milliseconds(5) })).rejects.toMatchObject({ reason: 'workload.attestation-failed' })
    expect(await collect({ unix: says('unix:uid:1'), k8s: hangs }, { timeout: milliseconds(5) })).toEqual(['unix:uid:1'])
  })
  test('when its caller has gone', async () => {
    const stop = new AbortController()
    const result = collect({ unix: attestor(() => new Promise(() => {})) }, { signal: stop.signal })
    stop.abort(new Failure('cancelled', 'caller.gone', { public: 'gone' }))
    await expect(result).rejects.toMatchObject({ reason: 'caller.gone' })
  })
})

test('one failing attestor is noted and the others count', async () => {
  expect(await collect({ k8s: fails, unix: says('unix:uid:1') })).toEqual(['unix:uid:1'])
})

test('selectors come sorted, each once', async () => {
  expect(await collect({ unix: says('unix:uid:1', 'unix:gid:2', 'unix:uid:1'), k8s: says('k8s:ns:b') })).toEqual([
    'k8s:ns:b',
    'unix:gid:2',
    'unix:uid:1',
  ])
})
