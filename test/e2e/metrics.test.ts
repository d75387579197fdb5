import { mkdir, readFile } from 'node:fs/promises'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { hours, minutes } from '../../src/kernel/duration.ts'
import { metricsOf } from '../../src/main/metrics.ts'
import { upstreamFiles, writeUpstream } from '../ca/upstream-files.ts'
import { scrape } from '../support/prometheus.ts'
import { eventually, idOf, Installation, runVidimus, type AgentProgram, type ServerProgram } from '../support/programs.ts'
import { TestCa } from '../support/test-ca.ts'
import { IssuingAgent } from './issuing-agent.ts'

let installation: Installation
let server: ServerProgram
let agent: AgentProgram
let collector: Collector

const metrics = { prometheus: { port: 0 } }

/** The server's CA is to live a day, below a CA that ends in ten hours. */
beforeAll(async () => {
  installation = await Installation.open()
  const folder = installation.path('upstream')
  await mkdir(folder, { mode: 0o700 })
  const at = Date.now()
  const root = await TestCa.create({ at: at - minutes(1), name: 'root', lifetime: hours(100) })
  await writeUpstream(folder, await root.intermediate({ ca: {}, notAfter: at + hours(10) }), root)
  server = await installation.server({ metrics, upstreamAuthority: { kind: 'disk', ...upstreamFiles(folder) } })
  collector = await Collector.open()
  agent = await installation.agent(server, { metrics: { ...metrics, otlp: { endpoint: collector.endpoint, interval: '1s' } } })
}, 60_000)
afterAll(async () => {
  await installation[Symbol.asyncDispose]()
  await collector[Symbol.asyncDispose]()
})

describe('a server and an agent that are scraped', () => {
  test('show what is documented, in the text format of Prometheus, and nothing else', async () => {
    for (const [kind, program] of [
      ['server', server],
      ['agent', agent],
    ] as const) {
      const { types } = await scrape(program)
      const declared = metricsOf[kind].map(({ name, kind: type }) => [name, type === 'timing' ? 'histogram' : type])
      expect([...types]).toEqual(declared)
    }
  })

  test('send the same to an OpenTelemetry collector, again and again', async () => {
    await eventually('a collector was told twice', () => collector.received.length >= 2)
    const { resourceMetrics } = JSON.parse(collector.received.at(-1)!) as {
      resourceMetrics: readonly { scopeMetrics: readonly { metrics: readonly { name: string }[] }[] }[]
    }
    expect(resourceMetrics[0]!.scopeMetrics[0]!.metrics.map(({ name }) => name)).toEqual(metricsOf.agent.map(({ name }) => name))
    expect(collector.received.at(-1)).toContain('"stringValue":"vidimus-agent"')
  })

  test('V-4 an upstream that ends before our CA should is counted', async () => {
    const seen = await scrape(server)
    expect(seen.value('vidimus_upstream_ttl_capped_total', { cause: 'issuer' })).toBe(1)
    expect(seen.value('vidimus_upstream_ttl_capped_total', { cause: 'limit' })).toBe(0)
    const trail = await readFile(installation.path(`${server.name}/audit.log`), 'utf8')
    expect(trail).toMatch(/"what":"upstream\.ttl-capped".*"cause":"issuer","why":"`[^"]*` above us ends then: renew it"/)
    expect(seen.value('vidimus_upstream_mint_seconds_count', { outcome: 'done' })).toBe(1)
    const ends = seen.value('vidimus_authority_expiry_timestamp_seconds', { kind: 'x509' })
    expect(Math.abs(ends - Date.now() / 1000 - 36_000)).toBeLessThan(120)
  })

  test('count an SVID that is issued, the intent before it, and the record of it', async () => {
    const before = await scrape(server)
    await server.entries(await agent.spiffeId(), { spiffeId: idOf('/web'), selectors: [`unix:uid:${process.getuid!()}`] })
    await eventually('the agent holds an SVID', async () => (await scrape(agent)).value('vidimus_agent_svids') === 1)
    const after = await scrape(server)
    const issued = { kind: 'workload', outcome: 'done' }
    expect(before.value('vidimus_svid_issuing_seconds_count', issued)).toBe(0)
    expect(after.value('vidimus_svid_issuing_seconds_count', issued)).toBe(1)
    const grown = (name: string, labels: Record<string, string>) => after.value(name, labels) - before.value(name, labels)
    expect(grown('vidimus_intents_total', { outcome: 'issued' })).toBe(1)
    expect(grown('vidimus_audit_events_total', { event: 'x509-svid.issued' })).toBe(1)
    expect(after.value('vidimus_rpc_seconds_count', { method: '/spire.api.server.svid.v1.SVID/BatchNewX509SVID', code: 'ok' })).toBe(1)
  })

  test('R-4 count a certificate request that is refused, by its reason', async () => {
    await using issuing = await IssuingAgent.join(server)
    for (const csr of [Buffer.from('junk'), new Uint8Array(70_000)]) expect(await issuing.sign(csr)).toBeInstanceOf(Failure)
    const seen = await scrape(server)
    for (const reason of ['der.truncated', 'der.too-long'])
      expect(seen.value('vidimus_refusals_total', { event: 'svid.refused', reason })).toBe(1)
    expect(seen.value('vidimus_svid_issuing_seconds_count', { kind: 'workload', outcome: 'refused' })).toBe(2)
  })

  test('C-32 show what a workload asked the agent, and how the agent speaks with its server', async () => {
    await runVidimus('fetch', 'x509', '--socket', agent.address)
    const seen = await scrape(agent)
    expect(seen.value('vidimus_server_connections_total', { key_exchange: 'X25519MLKEM768' })).toBeGreaterThan(0)
    expect(seen.value('vidimus_agent_syncs_total', { outcome: 'done' })).toBeGreaterThan(0)
    expect(seen.value('vidimus_agent_ready')).toBe(1)
    const method = '/SpiffeWorkloadAPI/FetchX509SVID'
    await eventually('the stream of the workload is closed', async () => (await scrape(agent)).value('vidimus_rpc_open', { method }) === 0)
  })

  test('say who complains, and an agent that is alone that it is', async () => {
    const health = await scrape(server)
    expect(health.value('vidimus_complaints', { source: 'ca' })).toBe(1)
    expect(health.value('vidimus_complaints', { source: 'store' })).toBe(0)
    await server.stop()
    await eventually('a sync failed', async () => (await scrape(agent)).value('vidimus_agent_syncs_total', { outcome: 'failed' }) > 0)
    const seen = await scrape(agent)
    expect(seen.value('vidimus_agent_complaints')).toBeGreaterThan(0)
    expect(seen.value('vidimus_agent_svids')).toBe(1)
  })
})

/** What an OpenTelemetry collector is to whoever sends: OTLP over HTTP. */
class Collector implements AsyncDisposable {
  readonly received: string[] = []
  readonly #server: Server

  private constructor() {
    this.#server = createServer((request, response) => {
      void text(request).then((body) => {
        if (request.method === 'POST' && request.url === '/v1/metrics') this.received.push(body)
        response.setHeader('content-type', 'application/json').end('{}')
      })
    })
  }

  static async open(): Promise<Collector> {
    const collector = new Collector()
    await once(collector.#server.listen(0, '127.0.0.1'), 'listening')
    return collector
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1/metrics`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close().closeAllConnections()
    await closed
  }
}
