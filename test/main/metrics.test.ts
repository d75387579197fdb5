import { readFile } from 'node:fs/promises'
import { parser } from '@prometheus-io/lezer-promql'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { CountingMeter, type Metric, silentMeter } from '../../src/kernel/meter.ts'
import { loadAgentConfig } from '../../src/main/config/agent.ts'
import { loadServerConfig } from '../../src/main/config/server.ts'
import { Metrics, metricsOf } from '../../src/main/metrics.ts'

const all = [...new Set(Object.values(metricsOf).flat())]
const server = (text: string) => loadServerConfig({ name: 'server.yaml', text: `trustDomain: example.org\n${text}` })

describe('what is written about metrics', () => {
  test('the table in docs/metrics.md is what the programs count, each with its labels', async () => {
    const text = await readFile('docs/metrics.md', 'utf8')
    const rows = [...text.matchAll(/^\| `(vidimus_\w+)` \| (\w+) \| (\w+) \| (.*?) \| (.*?) \| .*\|$/gm)]
    expect(rows.map(([, ...cells]) => cells)).toEqual(
      all.map((metric) => [metric.name, whereIs(metric), typeOf(metric), labelsOf(metric), metric.help]),
    )
  })

  test('rules of alerts, and the other tables, name only metrics that there are', async () => {
    const names = new Set(all.flatMap(namesOf))
    const texts = await Promise.all(['docs/metrics.md', 'deploy/prometheus/rules.yaml'].map((path) => readFile(path, 'utf8')))
    const named = texts.flatMap((text) => text.match(/\bvidimus_[a-z_0-9]+/g) ?? [])
    expect(named.filter((name) => !names.has(name))).toEqual([])
    expect(named.length).toBeGreaterThan(50)
  })

  test('every rule of an alert is one that Prometheus can read, and says what is wrong', async () => {
    const { groups } = parse(await readFile('deploy/prometheus/rules.yaml', 'utf8')) as {
      groups: { name: string; rules: Record<string, unknown>[] }[]
    }
    const rules = groups.flatMap((group) => group.rules)
    for (const rule of rules) {
      expect(rule).toMatchObject({
        alert: expect.stringMatching(/^Vidimus[A-Za-z]+$/) as string,
        expr: expect.any(String) as string,
        labels: { severity: expect.stringMatching(/^(page|ticket)$/) as string },
        annotations: { summary: expect.any(String) as string },
      })
      expect(isPromQl(String(rule['expr'])), String(rule['expr'])).toBe(true)
    }
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length)
  })
})

describe('the configuration of metrics', () => {
  test('without it nothing is counted', () => {
    for (const config of [server(''), server('metrics: {}')]) expect(new Metrics('server', config).meter).toBe(silentMeter)
  })

  test('Prometheus is answered on loopback, unless another address is written', () => {
    expect(server('metrics: { prometheus: { port: 0 } }').metrics).toEqual({ prometheus: { host: '127.0.0.1', port: 0 } })
    expect(server('metrics: { prometheus: { host: "::", port: 9464 } }').metrics.prometheus?.host).toBe('::')
  })

  test('a collector is told every minute, unless another interval is written', () => {
    const { metrics } = server('metrics: { otlp: { endpoint: "http://127.0.0.1:4318/v1/metrics" } }')
    expect(metrics.otlp).toEqual({ endpoint: 'http://127.0.0.1:4318/v1/metrics', interval: 60_000 })
  })

  test('R-43 settings whose name says that they are dangerous are counted, those of drivers too', () => {
    const vault = 'kind: vault, address: "https://v", auth: { method: token, token: { env: T } }'
    const count = (text: string) => {
      const { meter } = new Metrics('server', server(`${text}metrics: { prometheus: { port: 0 } }`))
      if (!(meter instanceof CountingMeter)) throw new Error('nothing is counted')
      return meter.read().find(({ metric }) => metric.name === 'vidimus_insecure_settings')!.series
    }
    expect(count(`upstreamAuthority: { ${vault} }\n`)).toEqual([{ labels: {}, value: 0 }])
    expect(count(`dangerouslySignWithoutAudit: true\nupstreamAuthority: { ${vault}, dangerouslySkipTlsVerification: true }\n`)).toEqual([
      { labels: {}, value: 2 },
    ])
  })

  test('an agent is configured in the same words', () => {
    const text = 'trustDomain: example.org\nserver: { host: s }\ntrustBundle: b.pem\nmetrics: { prometheus: { port: 1 } }'
    expect(loadAgentConfig({ name: 'agent.yaml', text }).metrics.prometheus?.port).toBe(1)
  })

  test.for([
    ['metrics: { prometheus: {} }', /server\.yaml:2:\d+: `?metrics\.prometheus/],
    ['metrics: { prometheus: { port: 70000 } }', /server\.yaml:2:32: .*metrics\.prometheus\.port/],
    ['metrics: { prometheus: { port: -1 } }', /server\.yaml:2:32/],
    ['metrics: { prometheus: { port: 1, path: /x } }', /unknown key `path`/],
    ['metrics: { statsd: {} }', /unknown key `statsd`/],
    ['metrics: { otlp: { endpoint: "127.0.0.1:4318" } }', /server\.yaml:2:30: .*expected a URL/],
    ['metrics: { otlp: { endpoint: "ftp://collector/" } }', /expected a URL/],
    ['metrics: { otlp: { endpoint: "https://user:password@collector/" } }', /secrets are not written into the configuration/],
    ['metrics: { otlp: { endpoint: "https://c/", interval: 10ms } }', /expected 1s to 10m/],
  ] as const)('`%s` is refused with its place', ([text, problem]) => {
    expect(() => server(text)).toThrow(problem)
    expect(() => server(text)).not.toThrow(/password@/)
  })
})

/** By the grammar of Prometheus itself. */
function isPromQl(expression: string): boolean {
  let isWhole = true
  parser.parse(expression).iterate({ enter: ({ type }) => void (isWhole &&= !type.isError) })
  return isWhole
}

const typeOf = ({ kind }: Metric): string => (kind === 'timing' ? 'histogram' : kind)

function whereIs(metric: Metric): string {
  const [isServer, isAgent] = [metricsOf.server.includes(metric), metricsOf.agent.includes(metric)]
  return isServer && isAgent ? 'both' : isServer ? 'server' : 'agent'
}

const labelsOf = ({ labels }: Metric): string =>
  Object.entries(labels)
    .map(([name, set]) => `\`${name}\`${'most' in set ? '' : ` (${set.join(', ')})`}`)
    .join(', ')

const namesOf = ({ kind, name }: Metric): readonly string[] =>
  kind === 'timing' ? [name, `${name}_bucket`, `${name}_count`, `${name}_sum`] : [name]
