import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { requestLine, verdictLine } from '../../src/cli/policy-lines.ts'
import { systemDisk } from '../../src/main/disk.ts'
import { vidimus } from './rig.ts'

let folder: string
const at = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), 'vp-'))))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const policy = (spec: object, name = 'p', annotations = {}): string =>
  `---\n${JSON.stringify({ apiVersion: 'security.istio.io/v1', kind: 'AuthorizationPolicy', metadata: { name, namespace: 'shop', annotations }, spec })}\n`
const orders = { identities: ['spiffe://example.org/ns/shop/sa/orders'], port: 8080 }
const web = { principal: 'example.org/ns/shop/sa/web' }
const get = { workload: orders, peer: web, method: 'GET', host: 'orders.shop', path: '/orders/1' }

async function evaluated(policies: string, requests: readonly (object | string)[], ...more: readonly string[]) {
  const lines = requests.map((one) => (typeof one === 'string' ? one : JSON.stringify(one)))
  const outcome = await vidimus([
    'policy',
    'eval',
    '--policies',
    at('p.yaml', policies),
    '--requests',
    at('r.jsonl', `${lines.join('\n')}\n`),
    ...more,
  ])
  const verdicts = outcome.out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  return { ...outcome, verdicts }
}

describe('policy eval', () => {
  const reading = policy({
    rules: [{ from: [{ source: { principals: ['example.org/ns/shop/sa/web'] } }], to: [{ operation: { paths: ['/orders/*'] } }] }],
  })

  test.each<[string, object | string, string]>([
    ['no JSON', '{', 'the line is no JSON'],
    ['a list', '[]', 'expected'],
    ['an unknown key', { ...get, port: 1 }, 'port'],
    ['no workload', { ...get, workload: undefined }, '`workload` is missing'],
    ['an identity that is none', { ...get, workload: { identities: ['orders'] } }, 'is not a SPIFFE ID'],
    ['a peer that is none', { ...get, peer: { principal: 'Example.org/x' } }, 'is not a SPIFFE ID'],
    ['a header that is no list', { ...get, headers: { a: 'b' } }, '`headers.a`'],
    ['a port beyond all ports', { ...get, workload: { ...orders, port: 65_536 } }, '`workload.port`'],
    ['half a request', { workload: orders, method: 'GET' }, 'a request of `http` has `method`, `host` and `path`'],
    ['a connection with a path', { workload: orders, protocol: 'tcp', path: '/' }, '`path`: a connection of `tcp` has none'],
    ['a moment that is none', { ...get, at: 'noon' }, '`at`: expected a moment'],
    ['a line without end', JSON.stringify({ ...get, path: `/${'a'.repeat(1_100_000)}` }), 'at most 1048576'],
  ])('a bad line is an error with its number, and the others are decided: %s', async (_, line, says) => {
    const { verdicts, code } = await evaluated(reading, [get, line, get])
    expect(code).toBe(1)
    expect(verdicts.map(({ line: number, decision }) => [number, decision])).toEqual([[1, 'allow'], [2, undefined], [3, 'allow']]) // prettier-ignore
    expect(verdicts[1]!['error']).toContain(says)
  })

  test('policies that are not valid decide nothing', async () => {
    const { code, out, thrown } = await evaluated(policy({ rules: [{ from: [] }] }), [get])
    expect([code, out]).toEqual([1, ''])
    expect(String(thrown)).toContain('p.yaml:2:')
  })

  test('a verdict names the decision, its reason, the rules and what the request was called; a refusal is no failure', async () => {
    const { verdicts, code } = await evaluated(reading, [
      { ...get, id: 'a' },
      { ...get, peer: undefined },
    ])
    expect(code).toBe(0)
    expect(verdicts).toEqual([
      { line: 1, id: 'a', decision: 'allow', reason: 'allowed', rules: [{ id: 'ns[shop]-policy[p]-rule[0]', policy: 'shop/p', rule: 0 }], errors: [] },
      { line: 2, decision: 'deny', reason: 'no-rule-matched', rules: [], errors: [] },
    ]) // prettier-ignore
    for (const verdict of verdicts) expect(verdictLine.safeParse(verdict).success).toBe(true)
  })

  test('every fact of a request reaches the rules', async () => {
    const facts: readonly [object, object][] = [
      [{ from: [{ source: { ipBlocks: ['10.0.0.0/8'] } }] }, { directIp: '10.1.1.1' }],
      [{ from: [{ source: { remoteIpBlocks: ['192.0.2.1'] } }] }, { remoteIp: '192.0.2.1' }],
      [
        { from: [{ source: { requestPrincipals: ['https://issuer.test/alice'] } }] },
        { claims: { iss: 'https://issuer.test', sub: 'alice' } },
      ],
      [{ to: [{ operation: { ports: ['8080'] } }] }, {}],
      [{ when: [{ key: 'request.headers[x]', values: ['1'] }] }, { headers: { X: ['1'] } }],
      [{ when: [{ key: 'connection.sni', values: ['a.test'] }] }, { sni: 'a.test' }],
      [{ when: [{ key: 'destination.ip', values: ['10.0.0.9'] }] }, { workload: { ...orders, ip: '10.0.0.9' } }],
      [{ when: [{ key: 'experimental.envoy.filters.http.a[b]', values: ['c'] }] }, { metadata: { 'envoy.filters.http.a': { b: 'c' } } }],
    ]
    for (const [rule, fact] of facts) {
      const { verdicts } = await evaluated(policy({ rules: [rule] }), [{ ...get, ...fact }])
      expect([rule, verdicts[0]!['decision']]).toEqual([rule, 'allow'])
    }
    const selected = policy({ selector: { matchLabels: { app: 'x' } }, rules: [{}] })
    const labelled = { ...get, workload: { identities: ['spiffe://example.org/x'], namespace: 'shop', labels: { app: 'x' } } }
    expect((await evaluated(selected, [labelled, get])).verdicts.map(({ reason }) => reason)).toEqual(['allowed', 'no-policy'])
  })

  test('with --compat istio it decides as Istio does', async () => {
    const negation = policy({ rules: [{ from: [{ source: { notPrincipals: ['example.org/ns/shop/sa/bad'] } }] }] })
    const plain = { ...get, peer: undefined }
    expect((await evaluated(negation, [plain])).verdicts[0]!['decision']).toBe('deny')
    expect((await evaluated(negation, [plain], '--compat', 'istio')).verdicts[0]!['decision']).toBe('allow')
  })

  test('what policies on dry run would decide stands beside what is decided', async () => {
    const dry = reading + policy({ action: 'DENY', rules: [{}] }, 'dry', { 'istio.io/dry-run': 'true' })
    const { verdicts } = await evaluated(dry, [get])
    expect(verdicts[0]).toMatchObject({ decision: 'allow', dryRun: { decision: 'deny', rules: [{ policy: 'shop/dry' }] } })
  })

  test('what AUDIT rules mark, and what a provider says', async () => {
    const set =
      reading +
      policy({ action: 'AUDIT', rules: [{}] }, 'audit') +
      policy({ action: 'CUSTOM', provider: { name: 'opa' }, rules: [{}] }, 'ask')
    const { verdicts } = await evaluated(set, [get, { ...get, providers: { opa: 'allowed' } }, { ...get, providers: { opa: 'denied' } }])
    expect(verdicts.map(({ reason }) => reason)).toEqual(['provider-silent', 'allowed', 'provider-denied'])
    expect(verdicts[1]!['audited']).toMatchObject([{ policy: 'shop/audit' }])
  })

  test('a policy expires at the moment of the request', async () => {
    const exception = `---\n${JSON.stringify({ apiVersion: 'vidimus.dev/v1', kind: 'AuthorizationPolicy', metadata: { name: 'e' }, spec: { identities: ['spiffe://example.org/{**}'], expires: '2030-01-01', rules: [{}] } })}\n`
    const { verdicts } = await evaluated(exception, [
      { ...get, at: '2029-12-31T23:59:59Z' },
      { ...get, at: '2030-01-01T00:00:00Z' },
    ])
    expect(verdicts.map(({ decision }) => decision)).toEqual(['allow', 'deny'])
  })

  test('--schema prints what lines look like, and needs nothing else', async () => {
    const outcome = await vidimus(['policy', 'eval', '--schema'])
    expect(outcome.json()).toMatchObject({ request: { type: 'object', required: ['workload'] }, verdict: { anyOf: [{}, {}] } })
    expect(requestLine.safeParse(get).success).toBe(true)
    expect((await vidimus(['policy', 'eval'])).code).not.toBe(0)
  })
})

describe('policy compile', () => {
  const compile = (text: string, ...more: readonly string[]) =>
    vidimus(['policy', 'compile', '--policies', at('c.yaml', text), '--workload', 'spiffe://example.org/ns/shop/sa/orders', ...more])
  const rules = policy({ rules: [{ to: [{ operation: { methods: ['GET'] } }] }] })

  test('a provider without a cluster is a mistake', async () => {
    expect((await compile(rules, '--provider', 'opa')).code).not.toBe(0)
  })

  test('a rule that a proxy cannot enforce is named with its place, and nothing is printed', async () => {
    const outcome = await compile(policy({ rules: [{ when: [{ key: 'request.headers[x]', values: ['a*', '*b'] }] }] }))
    expect([outcome.code, outcome.out]).toEqual([1, ''])
    expect(String(outcome.thrown)).toContain('cannot be enforced by a proxy')
  })

  test('YAML and JSON say the same', async () => {
    const [yaml, json] = [await compile(rules, '--output', 'yaml'), await compile(rules, '--output', 'json')]
    const { http, network } = json.json() as { http: object[]; network: object[] }
    expect(parse(yaml.out)).toEqual({ http, network })
    expect(yaml.out).toContain('# `ns[shop]-policy[p]-rule[0]` is about HTTP')
  })

  test('with --compat istio there is what Istio emits: filters in its order, rules under its names, matchers of its kind', async () => {
    const set = [
      policy({}, 'nothing'),
      policy(
        {
          action: 'DENY',
          rules: [{ from: [{ source: { notNamespaces: ['a*'] } }], to: [{ operation: { hosts: ['A.test'], paths: ['/x/{*}'] } }] }],
        },
        'no',
      ),
      policy({ action: 'AUDIT', rules: [{}] }, 'audit'),
      policy({ action: 'CUSTOM', provider: { name: 'opa' }, rules: [{ to: [{ operation: { methods: ['*'] } }] }] }, 'ask'),
    ].join('')
    const { http } = (await compile(set, '--compat', 'istio', '--provider', 'opa=cluster', '--output', 'json')).json() as { http: { name: string; typed_config: Record<string, unknown> }[] } // prettier-ignore
    expect(http.map(({ name }) => name.replace('envoy.filters.http.', ''))).toEqual(['rbac', 'ext_authz', 'rbac', 'rbac', 'rbac'])
    const [custom, ask, audit, deny, allow] = http.map(({ typed_config: config }) => config)
    expect(custom).toMatchObject({
      shadow_rules_stat_prefix: 'istio_ext_authz_',
      shadow_rules: { action: 'DENY', policies: { 'istio-ext-authz-opa-ns[shop]-policy[ask]-rule[0]': { permissions: [{ and_rules: { rules: [{ or_rules: { rules: [{ header: { name: ':method', present_match: true } }] } }] } }] } } },
    }) // prettier-ignore
    expect(ask).toMatchObject({ grpc_service: { envoy_grpc: { cluster_name: 'cluster' } }, filter_enabled_metadata: { path: [{ key: 'istio_ext_authz_shadow_effective_policy_id' }], value: { string_match: { prefix: 'istio-ext-authz-opa-' } } } }) // prettier-ignore
    expect(audit).toMatchObject({ rules: { action: 'LOG' } })
    const any = { any: true }
    expect(allow).toEqual({ '@type': expect.any(String) as string, rules: { action: 'ALLOW', policies: { 'ns[shop]-policy[nothing]-rule[0]': { permissions: [{ not_rule: any }], principals: [{ not_id: any }] } } } }) // prettier-ignore
    expect(deny).toMatchObject({
      rules: {
        action: 'DENY',
        policies: {
          'ns[shop]-policy[no]-rule[0]': {
            permissions: [
              {
                and_rules: {
                  rules: [
                    { or_rules: { rules: [{ header: { name: ':authority', string_match: { exact: 'a.test', ignore_case: true } } }] } },
                    { or_rules: { rules: [{ uri_template: { typed_config: { path_template: '/x/*' } } }] } },
                  ],
                },
              },
            ],
            principals: [{ and_ids: { ids: [{ not_id: { or_ids: { ids: [{ authenticated: { principal_name: { safe_regex: { regex: '.*/ns/a.*/.*' } } } }] } } }] } }],
          },
        },
      },
    }) // prettier-ignore
  })

  test('in strict mode peers are typed names of validated certificates', async () => {
    const { out } = await compile(
      policy({ rules: [{ from: [{ source: { principals: ['example.org/ns/shop/sa/web'] } }] }] }),
      '--output',
      'json',
    )
    expect(out).toContain('envoy.rbac.principals.mtls_authenticated')
    expect(out).not.toContain('"authenticated":')
  })

  test('a dry run is shadowed: in istio mode the policy alone, in strict mode the whole set that would result', async () => {
    const set =
      policy({ rules: [{ to: [{ operation: { methods: ['GET'] } }] }] }) + policy({ rules: [{}] }, 'dry', { 'istio.io/dry-run': 'true' })
    const shadowOf = async (...more: string[]) => {
      const { http } = (await compile(set, '--output', 'json', ...more)).json() as { http: { typed_config: { shadow_rules?: { policies: object }; shadow_rules_stat_prefix?: string } }[] } // prettier-ignore
      const { shadow_rules: shadow, shadow_rules_stat_prefix: prefix } = http.at(-1)!.typed_config
      return [prefix, Object.keys(shadow?.policies ?? {})]
    }
    expect(await shadowOf('--compat', 'istio')).toEqual(['istio_dry_run_allow_', ['ns[shop]-policy[dry]-rule[0]']])
    expect(await shadowOf()).toEqual(['istio_dry_run_allow_', ['ns[shop]-policy[dry]-rule[0]', 'ns[shop]-policy[p]-rule[0]']])
  })
})

describe('policy normalize', () => {
  const normalized = async (mode: string, ...lines: readonly string[]) => {
    const disk = {
      ...systemDisk,
      async *lines() {
        yield* lines
      },
    }
    return (await vidimus(['policy', 'normalize', '--mode', mode], { disk })).out.split('\n').slice(0, -1)
  }

  test('maps each line, and says 400 where a proxy does', async () => {
    const sent = ['/a/../b', '//x', '/a%2fb', 'x']
    expect(await normalized('none', ...sent)).toEqual(['/a/../b', '//x', '/a%2fb', '400'])
    expect(await normalized('base', ...sent)).toEqual(['/b', '//x', '/a%2fb', '400'])
    expect(await normalized('merge-slashes', ...sent)).toEqual(['/b', '/x', '/a%2fb', '400'])
    expect(await normalized('decode-and-merge-slashes', ...sent)).toEqual(['/b', '/x', '/a/b', '400'])
  })

  test('refuses a mode that is none', async () => expect((await vidimus(['policy', 'normalize', '--mode', 'all'])).code).not.toBe(0))
})
