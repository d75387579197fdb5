import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import net from 'node:net'
import { describe, expect, test } from 'vitest'
import { silentLog } from '../../src/kernel/log.ts'
import { SpiffeWorkloadAPI } from '../../src/rpc/gen/spiffe/workload/workload_pb.ts'
import { type WrappedCall } from '../../src/rpc/handler.ts'
import { listenUnix } from '../../src/rpc/listen.ts'
import { mount } from '../../src/rpc/handler.ts'
import { requireSecurityHeader } from '../../src/workload-api/security-header.ts'

const call = (headers: Record<string, readonly string[]>, method = '/SpiffeWorkloadAPI/FetchX509SVID'): WrappedCall<unknown> => ({
  signal: new AbortController().signal,
  peer: undefined,
  method,
  metadata: new Map(Object.entries(headers)),
})

async function passes(one: WrappedCall<unknown>): Promise<boolean> {
  let passed = false
  await (async () => requireSecurityHeader(one, async () => void (passed = true)))()
  return passed
}

describe('EP-5 a call of the Workload API is refused', () => {
  test.each<[string, Record<string, readonly string[]>]>([
    ['without the header', {}],
    ['with no value', { 'workload.spiffe.io': [] }],
    ['with an empty value', { 'workload.spiffe.io': [''] }],
    ['with `True`', { 'workload.spiffe.io': ['True'] }],
    ['with `TRUE`', { 'workload.spiffe.io': ['TRUE'] }],
    ['with `1`', { 'workload.spiffe.io': ['1'] }],
    ['with `false`', { 'workload.spiffe.io': ['false'] }],
    ['with blanks around it', { 'workload.spiffe.io': [' true '] }],
    ['with the value twice', { 'workload.spiffe.io': ['true', 'true'] }],
    ['with the value and another', { 'workload.spiffe.io': ['true', 'false'] }],
    ['with both values in one', { 'workload.spiffe.io': ['true, true'] }],
    ['with another header', { 'workload-spiffe-io': ['true'] }],
  ])('%s', async (_what, headers) => {
    await expect(passes(call(headers))).rejects.toMatchObject({ category: 'invalid_argument', reason: 'workload-api.security-header' })
  })
})

test('EP-4 exactly `workload.spiffe.io: true` is let through', async () => {
  expect(await passes(call({ 'workload.spiffe.io': ['true'] }))).toBe(true)
})

test('other services on the same socket do not need it', async () => {
  expect(await passes(call({}, '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets'))).toBe(true)
  expect(await passes(call({}, '/grpc.health.v1.Health/Check'))).toBe(true)
})

test('EP-5 on the wire, whatever a hostile client sends', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vh-'))
  const refused = () => Promise.reject(new Error('bug: this is not asked for'))
  const service = mount<typeof SpiffeWorkloadAPI, string>(SpiffeWorkloadAPI, {
    fetchX509SVID: async function* () {},
    fetchX509Bundles: async function* () {},
    fetchJWTBundles: async function* () {},
    fetchWITSVID: async function* () {},
    fetchWITBundles: async function* () {},
    fetchJWTSVID: refused,
    validateJWTSVID: async () => ({ spiffeId: 'spiffe://example.org/seen' }),
  })
  await using listener = await listenUnix({
    path: join(folder, 's'),
    mode: 0o600,
    services: [service],
    peerOf: () => 'somebody',
    log: silentLog,
    wrap: requireSecurityHeader,
  })
  const session = connect('http://localhost', { createConnection: () => net.connect(listener.address) })
  const statusWith = async (headers: Record<string, string | string[]>): Promise<string> => {
    const stream = session.request({
      ':method': 'POST',
      ':path': '/SpiffeWorkloadAPI/ValidateJWTSVID',
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    })
    let status: string | undefined
    stream.on('response', (answer) => (status ??= answer['grpc-status'] as string | undefined))
    stream.on('trailers', (trailers) => (status ??= trailers['grpc-status'] as string | undefined))
    stream.end(Buffer.from([0, 0, 0, 0, 0])).resume()
    await once(stream, 'close')
    return status ?? 'none'
  }
  expect(await statusWith({})).toBe('3')
  expect(await statusWith({ 'workload.spiffe.io': 'True' })).toBe('3')
  expect(await statusWith({ 'workload.spiffe.io': ['true', 'true'] })).toBe('3')
  expect(await statusWith({ 'workload.spiffe.io': ['true', 'false'] })).toBe('3')
  expect(await statusWith({ 'workload.spiffe.io': 'true' })).toBe('0')
  session.close()
  await once(session, 'close')
  rmSync(folder, { recursive: true, force: true })
})
