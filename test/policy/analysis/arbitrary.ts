/** Random policies and requests of a small world, so that they meet often. */
import fc from 'fast-check'
import type { PolicyMode } from '../../../src/policy/policy-set.ts'
import { istios, ours, request } from '../make.ts'

const ids = [
  'spiffe://example.org/ns/a/sa/x',
  'spiffe://example.org/ns/a/sa/y',
  'spiffe://example.org/ns/b/sa/x',
  'spiffe://example.org/web',
  'spiffe://example.org',
  'spiffe://other.org/ns/a/sa/x',
  'spiffe://example.org/ns/a/sa/xx/ns/b/y',
  'spiffe://ns/ns/a/sa/sa/x',
]
const some = <T>(...values: readonly T[]) => fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 3 })
const field = (name: string, ...values: readonly string[]) =>
  fc.tuple(fc.constantFrom(name, `not${name[0]!.toUpperCase()}${name.slice(1)}`), some(...values))
const merged = (fields: fc.Arbitrary<[string, string[]]>) =>
  fc.uniqueArray(fields, { minLength: 1, maxLength: 3, selector: ([name]) => name }).map((entries) => Object.fromEntries(entries))

const principals = {
  strict: ['*', 'example.org/*', 'example.org/ns/a/*', 'example.org/ns/a/sa/x', 'example.org/web', '*/sa/x'],
  istio: ['*', 'example.org/ns/a/s*', '*x', 'example.org/ns/a/sa/x', 'example.org/w*', '*/sa/x', 'ns/ns*'],
}
const spellings = {
  strict: ['/', '/a', '/a/*', '/a*', '/a/b', '*b', '*', '/{*}', '/a/{*}', '/a/{**}', '/{*}/b', '/a@b', '/%25', '/%C3%A4/*', '/{**}/b'],
  istio: ['/', '/a', '/a*', '/a//b', '*b', '*', '/{*}', '/a/{**}', 'b', '/a[*', '/A', '*;', '/%2f'],
}
const hosts = ['a.org', '*.org', 'a.org:80', '*', 'a*', '*:80', '[::1]', 'A.ORG']

const celConditions = [
  'request.method == "GET" || destination.port < 81',
  '!(request.headers["x"] in ["1", "12"])',
  'request.headers["x"].startsWith("1") && connection.mtls',
  '"x" in request.headers ? request.method != "PUT" : request.url_path.startsWith("/a/")',
  'connection.uri_san_peer_certificate.endsWith("/sa/x")',
  'connection.requested_server_name.contains("b") || !connection.mtls',
  'request.headers["x"].matches("^1[0-9]?$")',
  '!request.headers["authorization"].startsWith("Bearer ")',
  'destination.port >= 80 && destination.port != 82',
]

function ruleIn(mode: PolicyMode, isOurs: boolean) {
  const source = merged(
    fc.oneof(
      field('principals', ...principals[mode]),
      field('namespaces', 'a', 'b', '*', 'a*'),
      field('ipBlocks', '10.0.0.0/8', '10.1.0.0/16', '::1', '0.0.0.0/0', '::/0'),
      field('remoteIpBlocks', '10.0.0.0/8', '10.1.2.3'),
      field('trustDomains', 'example.org', 'o*', '*'),
      field('requestPrincipals', 'i/s', 'i/*', '*', '*/t', ...(mode === 'istio' ? ['s*', '*x'] : [])),
      ...(isOurs
        ? [field('spiffeIds', ids[0]!, 'spiffe://example.org/{*}', 'spiffe://example.org/ns/{*}/sa/{*}', 'spiffe://example.org/{**}')]
        : []),
    ),
  )
  const account = fc
    .tuple(fc.constantFrom('serviceAccounts', 'notServiceAccounts'), some('a/x', 'b/x', 'a/xx'))
    .map(([name, values]) => ({ [name]: values }))
  const operation = merged(
    fc.oneof(
      field('paths', ...spellings[mode]),
      field('methods', 'GET', 'POST', '*', ...(mode === 'strict' ? ['REPORT'] : ['P*', '*T'])),
      field('hosts', ...hosts),
      field('ports', '80', '81'),
    ),
  )
  const when = (name: string, ...values: readonly string[]) =>
    fc.tuple(fc.constantFrom('values', 'notValues'), some(...values)).map(([key, list]) => ({ key: name, [key]: list }))
  const condition = fc.oneof(
    when('request.headers[x]', '1', '2', '*', '1*', '*2'),
    when('request.headers[authorization]', 'Bearer *', 'b'),
    when('request.headers[accept]', '1', '12', '2*'),
    when('connection.sni', 'a', '*', 'a*'),
    when('destination.ip', '10.0.0.0/8'),
    when('source.namespace', 'a'),
    when('request.auth.audiences', 'a1', 'a*'),
    when('request.auth.claims[scope]', 'read', 'write'),
    when('request.auth.claims[a][b]', '1'),
    when('request.auth.principal', 'i/s'),
    ...(mode === 'istio' ? [when('request.headers[:path]', '/a?b', '/a*'), when('request.headers[host]', 'a.org', 'A*')] : []),
  )
  return fc.record(
    {
      from: fc.array(fc.oneof({ weight: 4, arbitrary: source }, { weight: 1, arbitrary: account }).map((one) => ({ source: one })), { minLength: 1, maxLength: 2 }),
      to: fc.array(operation.map((one) => ({ operation: one })), { minLength: 1, maxLength: 2 }),
      when: fc.array(condition, { minLength: 1, maxLength: 2 }),
      ...(isOurs ? { condition: fc.constantFrom(...celConditions) } : {}),
    },
    { requiredKeys: [] },
  ) // prettier-ignore
}

const policyIn = (mode: PolicyMode, most: number) =>
  fc.boolean().chain((isOurs) =>
    fc
      .record({
        action: fc.constantFrom('ALLOW', 'ALLOW', 'DENY', 'CUSTOM'),
        rules: fc.array(ruleIn(mode, isOurs), { minLength: 1, maxLength: most }),
        requirePeer: fc.boolean(),
        provider: fc.constantFrom('opa', 'opa', 'other'),
      })
      .map(({ requirePeer, provider, ...rest }) => {
        const spec = rest.action === 'CUSTOM' ? { ...rest, provider: { name: provider }, rules: rest.rules.map(withoutIdentity) } : rest
        return isOurs ? { ours: true, spec: spec.action === 'ALLOW' ? { ...spec, requirePeer } : spec } : { ours: false, spec }
      }),
  )

/** CUSTOM has no fields about identities. */
const withoutIdentity = (rule: object): object => {
  const { to } = rule as { to?: unknown }
  return to === undefined ? {} : { to }
}

const authentication = (kind: string, spec: object) =>
  JSON.stringify({ apiVersion: 'security.istio.io/v1', kind, metadata: { name: 'around', namespace: 'shop' }, spec })
const around = fc.subarray([
  authentication('PeerAuthentication', {
    selector: { matchLabels: { app: 'orders' } },
    mtls: { mode: 'STRICT' },
    portLevelMtls: { 81: { mode: 'DISABLE' } },
  }),
  authentication('RequestAuthentication', {
    jwtRules: [
      { issuer: 'i', audiences: ['a1', 'a2'], jwks: '{"keys":[]}' },
      { issuer: 'j', jwks: '{"keys":[]}' },
    ],
  }),
])

/** Texts of policies for `orders`, of both kinds. */
export const policiesIn = (
  mode: PolicyMode,
  { policies = 4, rules = 3 }: { policies?: number; rules?: number } = {},
): fc.Arbitrary<string[]> =>
  fc
    .tuple(fc.array(policyIn(mode, rules), { minLength: 0, maxLength: policies }), around)
    .map(([list, others]) => [
      ...others,
      ...list.map(({ ours: isOurs, spec }, index) => (isOurs ? ours(spec, `p${index}`) : istios(spec, `p${index}`))),
    ])

/** Requests that such policies are about, also malformed ones. */
export const requestsIn = (mode: PolicyMode) =>
  fc
    .record({
      http: fc.boolean(),
      peer: fc.option(fc.constantFrom(...ids), { nil: undefined }),
      method: fc.constantFrom('GET', 'POST', 'get', 'PUT', 'REPORT', 'TRACE'),
      path: fc.constantFrom(
        '/',
        '/a',
        '/a/',
        '/a/b',
        '/a//b',
        '/a/b/c',
        '/b',
        '/a%40b',
        '/a;b',
        '/x/../a',
        '/a?b',
        '',
        '/%00',
        '/ab',
        '/a[0]',
        '/%C3%A4/x',
        '/%25',
        'a',
      ),
      host: fc.constantFrom('a.org', 'A.org:80', 'b.org', 'b', 'a.org.', '[::1]:80', ...(mode === 'strict' ? ['a b', ''] : [])),
      headers: fc.array(fc.tuple(fc.constantFrom('x', 'accept', 'authorization'), fc.constantFrom('1', '2', '', '12', 'Bearer z')), {
        maxLength: 3,
      }),
      sourceIp: fc.constantFrom('10.1.2.3', '10.2.0.1', '11.0.0.1', '::1', '::2', '::ffff:10.0.0.1'),
      remoteIp: fc.option(fc.constantFrom('10.1.2.3', '10.0.0.1', '9.9.9.9'), { nil: undefined }),
      destinationPort: fc.constantFrom(80, 81, 82),
      destinationIp: fc.constantFrom('10.0.0.1', '11.0.0.1'),
      sni: fc.option(fc.constantFrom('a', 'b', 'ab'), { nil: undefined }),
      claims: fc.option(
        fc.record(
          {
            iss: fc.constantFrom('i', 'j', 'k'),
            sub: fc.constantFrom('s', 't', ''),
            aud: fc.constantFrom<string | string[]>('a1', ['a2', 'b'], []),
            scope: fc.constantFrom<string | string[]>('read write', 'read', ['write']),
            a: fc.constantFrom({ b: '1' }, { b: ['1', '2'] }, {}),
          },
          { requiredKeys: ['iss'] },
        ),
        { nil: undefined },
      ),
      providers: fc.constantFrom<Record<string, 'allowed' | 'denied'>>(
        {},
        { opa: 'allowed' },
        { opa: 'denied', other: 'allowed' },
        { opa: 'allowed', other: 'allowed' },
      ),
    })
    .map(({ http, peer, method, path, host, headers, sni, remoteIp, claims, ...connection }) => {
      const { http: facts, ...rest } = request({ peer, method, path, host, headers }, {
      ...connection,
      ...(remoteIp === undefined ? {} : { remoteIp }),
      ...(sni === undefined ? {} : { sni }),
      ...(claims === undefined ? {} : { token: { claims } }),
    }) // prettier-ignore
      return http ? { ...rest, ...(facts ? { http: facts } : {}) } : rest
    })
