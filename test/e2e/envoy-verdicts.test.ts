import { X509Certificate } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { HeldIdentity } from '../../src/agent/identities.ts'
import { extensionConfigDiscovery } from '../../src/authz/extension-config-service.ts'
import { externalAuthorization } from '../../src/authz/ext-authz-service.ts'
import { WorkloadRules } from '../../src/authz/workload-rules.ts'
import { systemRandom } from '../../src/kernel/random.ts'
import { decide } from '../../src/policy/evaluate.ts'
import type { PolicyMode } from '../../src/policy/policy-set.ts'
import { headerValues, type PolicyRequest } from '../../src/policy/request.ts'
import { Authorization } from '../../src/rpc/gen/envoy/service/auth/v3/auth_pb.ts'
import { ExtensionConfigDiscoveryService } from '../../src/rpc/gen/envoy/service/extension/v3/config_discovery_pb.ts'
import { SecretDiscoveryService } from '../../src/rpc/gen/envoy/service/secret/v3/sds_pb.ts'
import { mount } from '../../src/rpc/handler.ts'
import { secretDiscovery } from '../../src/sds/service.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { oid } from '../../src/x509/oid.ts'
import type { StreamState } from '../../src/xds/stream.ts'
import { newSubscription, receive } from '../../src/xds/subscription.ts'
import { sendInPlain, sendOverTls, serveAgent, until } from '../sds/envoy-agent.ts'
import { heldIdentity, localAgent, type LocalAgent, type LocalWorkload } from '../sds/local-agent.ts'
import { askTheAgent, discoveredRbac, type RunningEnvoy, startEnvoy } from '../support/envoy.ts'
import { describeWithPeer } from '../support/peers.ts'

// One question, three answers: the evaluator, the RBAC filters that a real Envoy has from the agent, and ext_authz behind the same Envoy.

describeWithPeer('envoy', 'a real Envoy and the evaluator', ({ path }) => {
  for (const mode of ['strict', 'istio'] as const) {
    describe(`in ${mode} mode`, () => {
      let mesh: Mesh
      beforeAll(async () => void (mesh = await start(path, mode)))
      afterAll(() => mesh?.[Symbol.asyncDispose]())

      for (const one of cases.filter((each) => each.modes.includes(mode))) {
        test(`give the same verdicts: ${one.name}`, async () => {
          await mesh.apply(one.policy)
          const wrong: string[] = []
          let allowed = 0
          let asked = 0
          for (const caller of one.callers ?? callers) {
            for (const request of one.requests) {
              const verdicts = await mesh.verdicts(caller, request)
              if (!verdicts) continue
              asked++
              if (verdicts.evaluator) allowed++
              if (new Set(Object.values(verdicts)).size > 1)
                wrong.push(`${caller}: ${request.lines.join(' | ')}: ${JSON.stringify(verdicts)}`)
            }
          }
          expect(wrong).toEqual([])
          // A set of requests that are all refused, or all allowed, covers nothing.
          if (!one.name.includes('everything')) expect(allowed > 0 && allowed < asked, `${allowed} of ${asked} allowed`).toBe(true)
        })
      }
    })
  }
})

describeWithPeer('envoy', 'a real Envoy with policies from the agent', ({ path }) => {
  test('takes a changed policy without a restart', async () => {
    await using mesh = await start(path, 'strict')
    await mesh.apply(allowAll)
    expect(await mesh.status('web', get('/'))).toBe(200)
    const times: number[] = []
    for (const [text, status] of [
      ['', 403],
      [allowAll, 200],
      [allowAll + istio('no', 'DENY', 'rules: [{}]'), 403],
      [allowAll, 200],
    ] as const) {
      times.push(await mesh.change(text, async () => (await mesh.status('web', get('/'))) === status))
    }
    expect(await mesh.stat('server.live')).toBe(1)
    expect(Math.max(...times)).toBeLessThan(5000)
  })

  test('refuses everything as soon as its workload has lost its identity', async () => {
    await using mesh = await start(path, 'strict')
    await mesh.apply(allowAll)
    expect(await mesh.status('web', get('/'))).toBe(200)
    await mesh.loseIdentity()
    await until('everything is refused', async () => (await mesh.status('web', get('/'))) === 403)
  })

  test('refuses in strict mode a certificate of a federated CA that carries a name of ours beside its own', async () => {
    await using mesh = await start(path, 'strict')
    await mesh.apply(istio('web', 'ALLOW', 'rules: [{from: [{source: {principals: ["example.org/ns/shop/sa/web"]}}]}]'))
    expect(await mesh.status('web', get('/'))).toBe(200)
    expect(await mesh.status('impostor', get('/'))).toBe(403)
  })

  test('falls in istio mode for a subject and a DNS name that look like a namespace, as the evaluator says it does; in strict mode it does not', async () => {
    const policy = istio('shop', 'ALLOW', 'rules: [{from: [{source: {namespaces: ["vault"]}}]}]')
    for (const mode of ['istio', 'strict'] as const) {
      await using mesh = await start(path, mode)
      await mesh.apply(policy)
      const judged = { web: await mesh.bothSay('web'), subject: await mesh.bothSay('subject'), dns: await mesh.bothSay('dns') }
      expect({ mode, judged }).toEqual({ mode, judged: { web: false, subject: mode === 'istio', dns: mode === 'istio' } })
    }
  })
})

type Caller = 'impostor' | 'subject' | 'dns' | 'web' | 'deep' | 'foreign' | 'nobody'
const callers: readonly Caller[] = ['web', 'deep', 'foreign', 'nobody']

interface Request {
  readonly lines: readonly string[]
  readonly sni?: string
}

interface Case {
  readonly name: string
  readonly modes: readonly PolicyMode[]
  readonly policy: string
  readonly callers?: readonly Caller[]
  readonly requests: readonly Request[]
}

/** A policy in the namespace of the workload, from the lines of its spec. */
function istio(name: string, action: 'ALLOW' | 'DENY', spec: string): string {
  const lines = spec.split('\n').map((line) => `  ${line}`)
  return [
    '---',
    'apiVersion: security.istio.io/v1',
    'kind: AuthorizationPolicy',
    `metadata: {name: ${name}, namespace: shop}`,
    'spec:',
    `  action: ${action}`,
    ...lines,
    '',
  ].join('\n')
}
const ours = (name: string, action: 'ALLOW' | 'DENY', spec: string): string =>
  istio(name, action, spec).replace('security.istio.io/v1', 'vidimus.dev/v1')

const get = (target: string, ...headers: readonly string[]): Request => ({
  lines: [`GET ${target} HTTP/1.1`, 'Host: shop.test', ...headers],
})
const method = (name: string, target = '/'): Request => ({ lines: [`${name} ${target} HTTP/1.1`, 'Host: shop.test', 'Content-Length: 0'] })
const host = (name: string): Request => ({ lines: ['GET / HTTP/1.1', `Host: ${name}`] })
const sni = (name: string): Request => ({ lines: ['GET / HTTP/1.1', 'Host: shop.test'], sni: name })

const both: readonly PolicyMode[] = ['strict', 'istio']
const allowAll = istio('everyone', 'ALLOW', 'rules: [{}]')

/** Spellings of a few paths, for rules about `/admin`, `/orders/…` and `/files/…`. */
const paths: readonly Request[] = [
  '/',
  '/admin',
  '/admin/',
  '/admin/x',
  '/Admin',
  '/administrator',
  '/admin?x=1',
  '/admin#x',
  '/x/../admin',
  '/x/./../admin',
  '//admin',
  '/admin//x',
  '/%61dmin',
  '/adm%69n',
  '/admin%2Fx',
  '/admin%2fx',
  '/x%2F..%2Fadmin',
  '/x%5c..%5cadmin',
  '/admin%252Fx',
  '/admin;v=1',
  '/admin;v=1/x',
  '/x/..;/admin',
  '/%2e%2e/admin',
  '/x/%2E%2E/admin',
  String.raw`/\admin`,
  String.raw`/x\..\admin`,
  '/admin.json',
  '/admin/a.json',
  '/orders/7',
  '/orders/7/',
  '/orders/7/items',
  '/orders/',
  '/orders',
  '/orders/a*b',
  '/orders/a[0]',
  '/orders/%20',
  '/orders/%C3%A9',
  '/orders/%c3%a9',
  '/orders/%C3',
  '/orders/%ff',
  '/orders/a%00b',
  '/orders/a%0ab',
  '/orders/100%',
  '/orders/%zz',
  '/files/a@b',
  '/files/a%40b',
  '/files/a%2bc',
  '/files/a+c',
  '/files/%C3%A9',
  '/files/%c3%a9',
  '/files/a%2fb',
  '/x%2admin',
  '/x%4a',
  '/files/a"b',
  '/files/a|b',
].map((target) => get(target))

/** Envoy 1.40 takes a raw `*` for part of a template's segment; earlier ones do not. */
const settledPaths = paths.filter(({ lines }) => !lines[0]!.includes('*'))

const cases: readonly Case[] = [
  { name: 'no policy at all refuses everything in strict mode', modes: ['strict'], policy: '', requests: [get('/')] },
  { name: 'no policy at all allows everything in istio mode', modes: ['istio'], policy: '', requests: [get('/')] },
  {
    name: 'an ALLOW policy without rules refuses everything',
    modes: both,
    policy: istio('none', 'ALLOW', 'rules: []').replace('  rules: []\n', ''),
    requests: [get('/')],
  },
  {
    name: 'peers by principal, namespace, service account and negation',
    modes: both,
    policy: [
      istio(
        'a',
        'ALLOW',
        'rules: [{from: [{source: {principals: ["example.org/ns/shop/sa/web"]}}], to: [{operation: {paths: ["/principal"]}}]}]',
      ),
      istio('b', 'ALLOW', 'rules: [{from: [{source: {namespaces: ["shop"]}}], to: [{operation: {paths: ["/namespace"]}}]}]'),
      istio(
        'c',
        'ALLOW',
        'rules: [{from: [{source: {namespaces: ["sh*"], notPrincipals: ["example.org/ns/shop/sa/web"]}}], to: [{operation: {paths: ["/some"]}}]}]',
      ),
      istio(
        'd',
        'ALLOW',
        'rules: [{from: [{source: {notPrincipals: ["example.org/ns/shop/sa/web"]}}], to: [{operation: {paths: ["/others"]}}]}]',
      ),
      istio('e', 'ALLOW', 'rules: [{from: [{source: {notNamespaces: ["shop"]}}], to: [{operation: {paths: ["/elsewhere"]}}]}]'),
      istio('f', 'ALLOW', 'rules: [{from: [{source: {principals: ["*"]}}], to: [{operation: {paths: ["/anyone"]}}]}]'),
      istio('g', 'ALLOW', 'rules: [{from: [{source: {serviceAccounts: ["shop/web"]}}], to: [{operation: {paths: ["/account"]}}]}]'),
      istio('h', 'ALLOW', 'rules: [{from: [{source: {principals: ["example.org/*"]}}], to: [{operation: {paths: ["/below"]}}]}]'),
      istio('i', 'ALLOW', 'rules: [{from: [{source: {principals: ["*/sa/web"]}}], to: [{operation: {paths: ["/ending"]}}]}]'),
      istio('z', 'DENY', 'rules: [{from: [{source: {notPrincipals: ["*"]}}], to: [{operation: {paths: ["/mtls"]}}]}]'),
    ].join(''),
    requests: ['/principal', '/namespace', '/some', '/others', '/elsewhere', '/anyone', '/account', '/below', '/ending', '/mtls'].map(
      (target) => get(target),
    ),
  },
  {
    name: 'typed SPIFFE IDs of our own kind',
    modes: both,
    policy: [
      ours(
        'a',
        'ALLOW',
        'rules: [{from: [{source: {spiffeIds: ["spiffe://example.org/ns/{*}/sa/web"]}}], to: [{operation: {paths: ["/template"]}}]}]',
      ),
      ours('b', 'ALLOW', 'rules: [{from: [{source: {spiffeIds: ["spiffe://example.org/{**}"]}}], to: [{operation: {paths: ["/rest"]}}]}]'),
      ours(
        'c',
        'ALLOW',
        'rules: [{from: [{source: {notSpiffeIds: ["spiffe://example.org/ns/shop/sa/web"]}}], to: [{operation: {paths: ["/not"]}}]}]',
      ),
      ours('d', 'ALLOW', 'rules: [{to: [{operation: {paths: ["/peer"]}}]}]'),
      ours('e', 'ALLOW', 'requirePeer: false\nrules: [{to: [{operation: {paths: ["/open"]}}]}]'),
      ours(
        'f',
        'DENY',
        'rules: [{from: [{source: {notSpiffeIds: ["spiffe://example.org/{**}"]}}], to: [{operation: {paths: ["/open"]}}]}]',
      ),
    ].join(''),
    requests: ['/template', '/rest', '/not', '/peer', '/open'].map((target) => get(target)),
  },
  {
    name: 'what ALLOW rules say of paths',
    modes: both,
    callers: ['web', 'nobody'],
    policy: istio('paths', 'ALLOW', 'rules: [{to: [{operation: {paths: ["/admin", "/admin/x", "/orders/{*}", "*.json"]}}]}]'),
    requests: settledPaths,
  },
  {
    name: 'what DENY rules say of paths',
    modes: both,
    callers: ['web', 'nobody'],
    policy: allowAll + istio('paths', 'DENY', 'rules: [{to: [{operation: {paths: ["/admin*", "/orders/{**}", "*.json"]}}]}]'),
    requests: settledPaths,
  },
  {
    name: 'what negations say of paths',
    modes: both,
    callers: ['web'],
    policy:
      istio('a', 'ALLOW', 'rules: [{to: [{operation: {notPaths: ["/admin*", "*n"]}}]}]') +
      istio('b', 'DENY', 'rules: [{to: [{operation: {methods: ["GET"], notPaths: ["/orders*", "/admin*", "/files/*", "/x*"]}}]}]'),
    requests: paths,
  },
  {
    name: 'paths with several spellings, and endings that may be digits of an escape',
    modes: ['strict'],
    callers: ['web'],
    policy: [
      istio('a', 'ALLOW', 'rules: [{to: [{operation: {paths: ["/files/a@b", "/files/a+*", "/files/%C3%A9", "*admin", "*a"]}}]}]'),
      istio('b', 'DENY', 'rules: [{to: [{operation: {paths: ["*%A9", "*c"]}}]}]'),
    ].join(''),
    requests: paths,
  },
  ...['', 'rules: [{to: [{operation: {ports: ["1"], methods: ["PUT"]}}]}]'].map((ports) => ({
    name: `paths and hosts that cannot be read, in rules about one, both and neither${ports === '' ? '' : ', beside a rule about ports'}`,
    modes: ['strict'] as const,
    callers: ['web', 'nobody'] as const,
    policy: [
      istio(
        'a',
        'ALLOW',
        'rules: [{to: [{operation: {paths: ["/admin*"]}}, {operation: {hosts: ["api.test"]}}, {operation: {paths: ["/orders*"], hosts: ["shop.test", "evil*"]}}]}]',
      ),
      istio(
        'b',
        'ALLOW',
        'rules: [{from: [{source: {principals: ["example.org/ns/shop/sa/web"]}}], to: [{operation: {methods: ["POST"]}}]}]',
      ),
      istio(
        'c',
        'DENY',
        'rules: [{from: [{source: {notPrincipals: ["*"]}}], to: [{operation: {paths: ["/admin/x"]}}, {operation: {hosts: ["secret.test"], notPaths: ["/admin*"]}}]}]',
      ),
      ...(ports === '' ? [] : [istio('d', 'ALLOW', ports), istio('e', 'DENY', ports.replace('methods', 'paths: ["/files*"], methods'))]),
    ].join(''),
    requests: ['/admin', '/admin/x', '/admin/%2e%3b', '/admin;x', '/orders/7', '/orders/%zz', '/other', '/other;x'].flatMap((target) =>
      ['shop.test', 'api.test', 'secret.test', 'evil_test', 'evil,test', 'api.test,x', 'x y'].flatMap((name) =>
        ['GET', 'POST'].map((verb) => ({ lines: [`${verb} ${target} HTTP/1.1`, `Host: ${name}`, 'Content-Length: 0'] })),
      ),
    ),
  })),
  {
    name: 'methods, also unknown ones',
    modes: ['strict'],
    callers: ['web', 'nobody'],
    policy: istio(
      'a',
      'ALLOW',
      'rules: [{to: [{operation: {methods: ["GET", "PO*"]}}, {operation: {notMethods: ["*E"], paths: ["/not"]}}]}]',
    ),
    requests: [
      ...['GET', 'get', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH', 'MKCOL', 'POLICE'].flatMap((name) => [
        method(name),
        method(name, '/not'),
      ]),
    ],
  },
  {
    name: 'methods',
    modes: ['istio'],
    callers: ['web', 'nobody'],
    policy: istio(
      'a',
      'ALLOW',
      'rules: [{to: [{operation: {methods: ["GET", "PO*"]}}, {operation: {notMethods: ["*E"], paths: ["/not"]}}]}]',
    ),
    requests: [...['GET', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH'].flatMap((name) => [method(name), method(name, '/not')])],
  },
  ...(['ALLOW', 'DENY'] as const).map((action) => ({
    name: `hosts in ${action} rules`,
    modes: both,
    callers: ['web'] as const,
    policy:
      (action === 'DENY' ? allowAll : '') +
      istio(
        'hosts',
        action,
        'rules: [{to: [{operation: {hosts: ["shop.test", "*.shop.test", "api.*", "with.port:8080"]}}, {operation: {methods: [GET], notHosts: ["shop.test", "*.test"], hosts: ["other*"]}}]}]',
      ),
    requests: [
      'shop.test',
      'SHOP.test',
      'shop.test:443',
      'shop.test:8080',
      'shop.test.',
      'shop.test.:80',
      'a.shop.test',
      'a.shop.test:1',
      'ashop.test',
      'api.example',
      'API.example:99',
      'with.port',
      'with.port:8080',
      'WITH.port:8080',
      'with.port:80',
      'other.example',
      'other.test',
      'shop.test@evil',
      'evil/shop.test',
      'shop.test,evil',
      '[::1]',
      '[::1]:80',
      '.',
      'shop.test:',
      'shop.test:x',
    ].map(host),
  })),
  ...(['ALLOW', 'DENY'] as const).map((action) => ({
    name: `headers in ${action} rules, also sent twice`,
    modes: both,
    callers: ['web'] as const,
    policy:
      (action === 'DENY' ? allowAll : '') +
      [
        istio(
          'a',
          action,
          'rules: [{to: [{operation: {paths: ["/exact"]}}], when: [{key: "request.headers[x-role]", values: ["admin", "ops*"]}]}]',
        ),
        istio(
          'b',
          action,
          'rules: [{to: [{operation: {paths: ["/not"]}}], when: [{key: "request.headers[x-role]", notValues: ["admin", "*guest"]}]}]',
        ),
        istio('c', action, 'rules: [{to: [{operation: {paths: ["/any"]}}], when: [{key: "request.headers[x-role]", values: ["*"]}]}]'),
        istio('d', action, 'rules: [{to: [{operation: {paths: ["/none"]}}], when: [{key: "request.headers[x-role]", notValues: ["*"]}]}]'),
      ].join(''),
    requests: ['/exact', '/not', '/any', '/none'].flatMap((target) =>
      [
        [],
        ['admin'],
        ['ADMIN'],
        ['guest'],
        ['ops-1'],
        [''],
        ['admin', 'admin'],
        ['admin', 'guest'],
        ['guest', 'admin'],
        ['admin', 'ops-2'],
        ['admin,guest'],
        ['x', 'y'],
        ['a', 'adminx'],
        ['\xff'],
        ['admin', '\xe9'],
      ].map((values) => get(target, ...values.map((value) => `X-Role: ${value}`))),
    ),
  })),
  {
    name: 'repeated authorization headers',
    modes: ['strict'],
    callers: ['web'],
    policy: allowAll,
    requests: [
      get('/', 'Authorization: Bearer abc'),
      get('/', 'Authorization: Bearer abc', 'Authorization: Bearer def'),
      get('/', 'Authorization: Basic YTpi', 'Authorization: x'),
      get('/', 'Authorization: Digest username="a", realm="b", nonce="c"'),
      get('/', 'Authorization: AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host;range, Signature=fe'),
    ],
  },
  ...(['ALLOW', 'DENY'] as const).map((action) => ({
    name: `repeated headers that the proxy joins, in ${action} rules`,
    modes: ['istio'] as const,
    callers: ['web'] as const,
    policy:
      (action === 'DENY' ? allowAll : '') +
      istio(
        'a',
        action,
        [
          'rules:',
          '- to: [{operation: {paths: ["/is"]}}]',
          '  when: [{key: "request.headers[authorization]", values: ["Bearer b"]}]',
          '- to: [{operation: {paths: ["/begins"]}}]',
          '  when: [{key: "request.headers[authorization]", values: ["Bearer b*"]}]',
          '- to: [{operation: {paths: ["/ends"]}}]',
          '  when: [{key: "request.headers[authorization]", values: ["*b"]}]',
          '- to: [{operation: {paths: ["/is-not"]}}]',
          '  when: [{key: "request.headers[authorization]", notValues: ["Bearer b"]}]',
          '- to: [{operation: {paths: ["/accepts"]}}]',
          '  when: [{key: "request.headers[accept]", values: ["text/html", "a,b"]}]',
        ].join('\n'),
      ),
    requests: [
      ...['/is', '/begins', '/ends', '/is-not'].flatMap((target) =>
        [[], ['Bearer b'], ['Bearer a', 'Bearer b'], ['Bearer b', 'Bearer a'], ['Bearer b', 'Bearer b'], ['Digest a="1"', 'c="b"']].map(
          (values) => get(target, ...values.map((value) => `Authorization: ${value}`)),
        ),
      ),
      ...[['text/html'], ['text/html', 'text/plain'], ['a', 'b'], ['a,b'], ['b', 'a']].map((values) =>
        get('/accepts', ...values.map((value) => `Accept: ${value}`)),
      ),
    ],
  })),
  ...(['ALLOW', 'DENY'] as const).map((action) => ({
    name: `conditions about the server name, and about connections without one, in ${action} rules`,
    modes: both,
    callers: ['web', 'nobody'] as const,
    policy:
      (action === 'DENY' ? allowAll : '') +
      [
        ['/is', 'connection.requested_server_name == "shop.test"'],
        ['/is-not', 'connection.requested_server_name != "shop.test"'],
        ['/is-empty', 'connection.requested_server_name == ""'],
        ['/begins', 'connection.requested_server_name.startsWith("")'],
        ['/either', 'connection.requested_server_name == "shop.test" || request.method == "GET"'],
      ]
        .map(([target, condition], index) =>
          ours(`c-${index}`, action, `rules: [{to: [{operation: {paths: ["${target}"]}}], condition: '${condition}'}]`),
        )
        .join(''),
    requests: ['/is', '/is-not', '/is-empty', '/begins', '/either'].flatMap((target) =>
      [undefined, 'shop.test', 'evil.test'].map((name): Request => ({ ...get(target), ...(name !== undefined && { sni: name }) })),
    ),
  })),
  ...(['ALLOW', 'DENY'] as const).map((action) => ({
    name: `ports, addresses and server names in ${action} rules`,
    modes: both,
    callers: ['web', 'nobody'] as const,
    policy:
      (action === 'DENY' ? allowAll : '') +
      [
        istio(
          'a',
          action,
          'rules: [{to: [{operation: {paths: ["/port"], ports: ["1"]}}, {operation: {paths: ["/other-port"], notPorts: ["1"]}}]}]',
        ),
        istio(
          'b',
          action,
          'rules: [{from: [{source: {ipBlocks: ["127.0.0.0/8", "2001:db8::/32"]}}], to: [{operation: {paths: ["/ip"]}}]}]',
        ),
        istio('c', action, 'rules: [{from: [{source: {notIpBlocks: ["127.0.0.1"]}}], to: [{operation: {paths: ["/other-ip"]}}]}]'),
        istio(
          'd',
          action,
          'rules: [{to: [{operation: {paths: ["/"]}}], when: [{key: connection.sni, values: ["shop.test", "*.shop.test"]}]}]',
        ),
        istio(
          'e',
          action,
          'rules: [{to: [{operation: {paths: ["/"], methods: [GET]}}], when: [{key: destination.ip, values: ["10.0.0.0/8"]}]}]',
        ),
      ].join(''),
    requests: [
      get('/port'),
      get('/other-port'),
      get('/ip'),
      get('/other-ip'),
      get('/'),
      sni('shop.test'),
      sni('a.shop.test'),
      sni('evil.test'),
    ],
  })),
]

interface Verdicts {
  readonly evaluator: boolean
  readonly rbac: boolean
  readonly extAuthz: boolean
}

interface Mesh extends AsyncDisposable {
  apply(policy: string): Promise<void>
  /** Nothing where the proxy itself answers 400 and asks nobody. */
  verdicts(caller: Caller, request: Request): Promise<Verdicts | undefined>
  /** What the proxy's filters answer. */
  status(caller: Caller, request: Request): Promise<number>
  /** The verdict of filters and evaluator on `GET /`; throws where they differ. */
  bothSay(caller: Caller): Promise<boolean>
  /** Applies policies and measures the milliseconds until `holds`. */
  change(policy: string, holds: () => Promise<boolean>): Promise<number>
  loseIdentity(): Promise<void>
  stat(name: string): Promise<number>
}

async function start(binary: string, mode: PolicyMode): Promise<Mesh> {
  await using owned = new AsyncDisposableStack()
  const local = await localAgent()
  const workload = await local.workload(7, ['spiffe://example.org/ns/shop/sa/server'])
  const rules = new WorkloadRules({ clock: local.agent.clock, log: local.agent.log, language: { mode } })
  const states = new Map<string, StreamState>()
  const report = (state: StreamState) => void states.set(state.names.join(), state)
  const services = [
    mount(SecretDiscoveryService, secretDiscovery({ agent: local.agent, random: systemRandom })),
    mount(ExtensionConfigDiscoveryService, extensionConfigDiscovery({ agent: local.agent, rules, random: systemRandom, report })),
    mount(Authorization, externalAuthorization({ agent: local.agent, rules })),
  ]
  const socket = owned.use(await serveAgent(workload, services))
  const filters = [discoveredRbac('vidimus.rbac.deny'), discoveredRbac('vidimus.rbac.allow')]
  const tls = { certificate: 'default', validation: 'ALL' }
  const common = { paths: mode === 'strict' ? 'decode-and-merge-slashes' : 'base' } as const
  const envoy = owned.use(
    await startEnvoy(binary, {
      agentSocket: socket.path,
      listeners: [
        { name: 'tls', tls, httpFilters: filters, ...common },
        { name: 'plain', httpFilters: filters, ...common },
        { name: 'tls-asking', tls, httpFilters: [askTheAgent], ...common },
        { name: 'plain-asking', httpFilters: [askTheAgent], ...common },
      ],
    }),
  )
  const identities = await clients(local)
  const parts = { local, envoy, rules, workload }
  const open = owned.move()
  return {
    apply: (policy) => applied({ workload, rules, states, local }, policy),
    verdicts: (caller, request) => verdicts(parts, identities[caller], request),
    status: (caller, request) => statusAt(parts, identities[caller], request, identities[caller] ? 'tls' : 'plain'),
    async bothSay(caller) {
      const client = identities[caller]!
      const evaluator = decide(rules.of(workload).compiled!, asSeen(get('/'), client, envoy.port('tls'))).allowed
      const proxy = (await statusAt(parts, client, get('/'), 'tls')) === 200
      if (proxy !== evaluator) throw new Error(`${caller}: the proxy says ${proxy}, the evaluator ${evaluator}`)
      return proxy
    },
    change(policy, holds) {
      workload.apply({ 'policy.yaml': policy })
      return until('the policy is in force', holds)
    },
    loseIdentity: () => workload.hold(),
    stat: (name) => envoy.stat(name),
    [Symbol.asyncDispose]: () => open[Symbol.asyncDispose](),
  }
}

async function clients(local: LocalAgent): Promise<Readonly<Record<Caller, HeldIdentity | undefined>>> {
  return {
    web: await heldIdentity(local.ca, parseSpiffeId('spiffe://example.org/ns/shop/sa/web')),
    deep: await heldIdentity(local.ca, parseSpiffeId('spiffe://example.org/ns/bar/sa/a/ns/shop/z')),
    impostor: await heldIdentity(local.foreign, parseSpiffeId('spiffe://other.test/x'), {
      uris: ['spiffe://other.test/x', 'spiffe://example.org/ns/shop/sa/web'],
    }),
    subject: await heldIdentity(local.ca, parseSpiffeId('spiffe://example.org/ns/shop/sa/web'), {
      subject: [{ oid: oid.commonName, value: '/ns/vault/x' }],
    }),
    dns: await heldIdentity(local.ca, parseSpiffeId('spiffe://example.org/ns/shop/sa/web'), { dnsNames: ['/ns/vault/x'] }),
    foreign: await heldIdentity(local.foreign, parseSpiffeId('spiffe://other.test/ns/shop/sa/web')),
    nobody: undefined,
  }
}

/** The version of one filter as the stream says it. */
function versionOf(rules: WorkloadRules, workload: LocalWorkload, names: readonly string[]): string {
  return receive(newSubscription, { names, nonce: '' }, rules.of(workload).filters, '').answer!.version
}

/** Applies policies and waits until the proxy has accepted exactly them. */
async function applied(
  {
    workload,
    rules,
    states,
    local,
  }: { workload: LocalWorkload; rules: WorkloadRules; states: Map<string, StreamState>; local: LocalAgent },
  policy: string,
): Promise<void> {
  workload.apply({ 'policy.yaml': policy })
  const wanted = rules.of(workload)
  if (!wanted.compiled) throw new Error(`the policy is refused: ${JSON.stringify(local.warnings.at(-1))}`)
  await until('the proxy accepts the policies', () => {
    for (const [, state] of states) if (state.rejection !== undefined) throw new Error(`the proxy refuses: ${state.rejection}`)
    return (
      [...states.values()].length === 2 &&
      [...states.values()].every(
        (state) => state.acceptedVersion === state.sentVersion && state.sentVersion === versionOf(rules, workload, state.names),
      )
    )
  })
}

interface Parts {
  readonly local: LocalAgent
  readonly envoy: RunningEnvoy
  readonly rules: WorkloadRules
  readonly workload: LocalWorkload
}

async function verdicts(parts: Parts, client: HeldIdentity | undefined, request: Request): Promise<Verdicts | undefined> {
  const kind = client ? 'tls' : 'plain'
  const at = (listener: string) => statusAt(parts, client, request, listener)
  const [rbac, extAuthz] = [await at(kind), await at(`${kind}-asking`)]
  if (rbac === 400 && extAuthz === 400) return undefined
  const evaluator = decide(parts.rules.of(parts.workload).compiled!, asSeen(request, client, parts.envoy.port(kind))).allowed
  return { evaluator, rbac: rbac === 200, extAuthz: extAuthz === 200 }
}

async function statusAt({ local, envoy }: Parts, client: HeldIdentity | undefined, request: Request, listener: string): Promise<number> {
  const port = envoy.port(listener)
  const { status } = client ? await sendOverTls(local, client, port, request.lines, request.sni) : await sendInPlain(port, request.lines)
  if (![200, 400, 403].includes(status)) throw new Error(`${listener} answered ${status} to ${request.lines.join(' | ')}`)
  return status
}

/** The request as the evaluator is told of it: what was sent, and by whom. */
function asSeen({ lines, sni: name }: Request, client: HeldIdentity | undefined, port: number): PolicyRequest {
  const [start, ...fields] = lines
  const [verb = '', target = ''] = start!.split(' ')
  const headers = headerValues(fields.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()] as const))
  return {
    ...(client && { peer: { spiffeId: client.spiffeId, names: namesOf(client) } }),
    sourceIp: '127.0.0.1',
    destinationIp: '127.0.0.1',
    destinationPort: port,
    ...(client && name !== undefined && { sni: name }),
    http: { method: verb, path: target, host: headers.get('host')?.join(',') ?? '', headers },
  }
}

/** The names of a certificate in the order in which Envoy tries them. */
function namesOf({ chainPem }: HeldIdentity): readonly string[] {
  const { subjectAltName, subject } = new X509Certificate(chainPem)
  const sans = (subjectAltName ?? '').split(', ')
  const of = (kind: string) => sans.filter((san) => san.startsWith(kind)).map((san) => san.slice(kind.length))
  return [...of('URI:'), ...of('DNS:'), subject || '']
}
