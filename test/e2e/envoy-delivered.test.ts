import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { describe, expect, test } from 'vitest'
import { extensionConfigDiscovery } from '../../src/authz/extension-config-service.ts'
import { WorkloadRules } from '../../src/authz/workload-rules.ts'
import { systemRandom } from '../../src/kernel/random.ts'
import { AccessLogService } from '../../src/rpc/gen/envoy/service/accesslog/v3/als_pb.ts'
import { Authorization } from '../../src/rpc/gen/envoy/service/auth/v3/auth_pb.ts'
import { ExtensionConfigDiscoveryService } from '../../src/rpc/gen/envoy/service/extension/v3/config_discovery_pb.ts'
import { SecretDiscoveryService } from '../../src/rpc/gen/envoy/service/secret/v3/sds_pb.ts'
import { mount } from '../../src/rpc/handler.ts'
import { secretDiscovery } from '../../src/sds/service.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { sendOverTls, serveAgent, until } from '../sds/envoy-agent.ts'
import { heldIdentity, localAgent } from '../sds/local-agent.ts'
import { discovered, discoveredRbac, startEnvoy } from '../support/envoy.ts'
import { describeWithPeer } from '../support/peers.ts'

const web = 'spiffe://example.org/web'
const policy = (name: string, spec: string) =>
  `apiVersion: vidimus.dev/v1\nkind: AuthorizationPolicy\nmetadata: { name: ${name} }\nspec: { identities: [spiffe://example.org/server], ${spec} }\n`
const custom = (name: string, provider: string, path: string) =>
  policy(name, `action: CUSTOM, provider: { name: ${provider} }, rules: [{ to: [{ operation: { paths: [${path}] } }] }]`)
const everything = policy('everything', `rules: [{ from: [{ source: { spiffeIds: [${web}] } }] }]`)
const signedIn = policy('signed-in', `rules: [{ from: [{ source: { spiffeIds: [${web}], requestPrincipals: ['*'] } }] }]`)
const notMallory = policy(
  'not-mallory',
  `action: DENY, rules: [{ from: [{ source: { requestPrincipals: [https://issuer.test/mallory] } }] }]`,
)
const watched = policy('watched', 'action: AUDIT, rules: [{ to: [{ operation: { paths: [/watched] } }] }]')
const tokensOf = (keys: string) =>
  `apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: { name: tokens, namespace: istio-system }\nspec: { jwtRules: [{ issuer: https://issuer.test, ${keys} }] }\n`

describeWithPeer('envoy', 'a real Envoy that has its filters from the agent', ({ path: binary }) => {
  describe('and lists those for tokens and for a provider', () => {
    const places = { filters: ['vidimus.jwt_authn', 'vidimus.rbac.audit'], providers: { checks: 'agent', second: 'agent' } }

    test('refuses a bad token with 401 and a missing one where a rule wants it, takes a good one, and follows the policies live', async () => {
      await using mesh = await start(binary, places)
      mesh.workload.apply({ 'a.yaml': signedIn, 'b.yaml': notMallory, 'c.yaml': tokensOf(`jwks: '${mesh.jwks}'`) })
      await until('a token is taken', async () => (await mesh.send('/', await mesh.token('alice'))) === 200)

      expect({
        none: await mesh.send('/'),
        signedBySomebodyElse: await mesh.send('/', await mesh.forged('alice')),
        noToken: await mesh.send('/', 'x.y.z'),
        ofAnotherIssuer: await mesh.send('/', await mesh.token('alice', 'https://other.test')),
        denied: await mesh.send('/', await mesh.token('mallory')),
      }).toEqual({ none: 403, signedBySomebodyElse: 401, noToken: 401, ofAnotherIssuer: 401, denied: 403 })

      mesh.workload.apply({ 'a.yaml': everything, 'c.yaml': tokensOf(`jwks: '${mesh.jwks}'`) })
      await until('no token is needed any more', async () => (await mesh.send('/')) === 200)
      expect(await mesh.send('/', await mesh.forged('alice'))).toBe(401)
      expect(mesh.rejections).toEqual([])
    })

    test('asks each provider about what its rules match, about nothing else, and obeys', async () => {
      await using mesh = await start(binary, places)
      mesh.workload.apply({ 'a.yaml': everything })
      await until('the policies are there', async () => (await mesh.send('/asked')) === 200)
      expect(mesh.asked).toEqual([])

      mesh.workload.apply({
        'a.yaml': everything,
        'b.yaml': custom('one', 'checks', '/asked*'),
        'c.yaml': custom('two', 'second', '/asked/twice'),
      })
      await until('the provider is asked', async () => (await mesh.send('/asked')) === 403)
      mesh.answers.allow = true
      await until('and allows', async () => (await mesh.send('/asked')) === 200)
      mesh.asked.length = 0
      expect([await mesh.send('/free'), await mesh.send('/asked'), await mesh.send('/asked/twice')]).toEqual([200, 200, 200])
      expect(mesh.asked).toEqual(['/asked', '/asked/twice', '/asked/twice'])
      expect(mesh.rejections).toEqual([])
    })

    test('marks what AUDIT rules match, and lets it through', async () => {
      await using mesh = await start(binary, places)
      mesh.workload.apply({ 'a.yaml': everything, 'b.yaml': watched })
      await until('the policies are there', async () => (await mesh.send('/')) === 200)
      await until('the rule has marked', async () => (await mesh.send('/watched')) === 200 && mesh.marked.includes('/watched'))
      expect(mesh.marked).not.toContain('/')
    })

    test('refuses the tokens of an issuer whose keys it cannot fetch, and the log says why', async () => {
      await using mesh = await start(binary, places)
      mesh.workload.apply({ 'a.yaml': everything, 'c.yaml': tokensOf('jwksUri: https://issuer.test/keys') })
      await until('the policies are there', async () => (await mesh.send('/')) === 200)
      const token = await mesh.token('alice')
      // Each filter comes on a stream of its own, a moment before or after the others.
      await until('the token is refused', async () => (await mesh.send('/', token)) === 401)
      expect(await mesh.send('/')).toBe(200)
      mesh.workload.apply({ 'a.yaml': everything, 'c.yaml': tokensOf(`jwks: '{"keys":[]}'`) })
      expect(await mesh.send('/', token)).toBe(401)
      expect(mesh.rejections).toEqual([])
      expect(JSON.stringify(mesh.warnings)).toContain('names no cluster for `https://issuer.test/keys`')
    })
  })

  test('without a place for tokens or providers it refuses what the rules need them for, and the log says so', async () => {
    await using mesh = await start(binary, {})
    mesh.workload.apply({ 'a.yaml': everything, 'b.yaml': custom('one', 'checks', '/asked'), 'c.yaml': tokensOf(`jwks: '${mesh.jwks}'`) })
    await until('the policies are there', async () => (await mesh.send('/')) === 200)
    expect([await mesh.send('/asked'), await mesh.send('/', await mesh.token('alice')), await mesh.send('/?access_token=x')]).toEqual([
      403, 403, 403,
    ])
    mesh.workload.apply({ 'a.yaml': everything, 'b.yaml': notMallory, 'c.yaml': tokensOf(`jwks: '${mesh.jwks}'`) })
    await until('a rule against tokens that nobody reads refuses', async () => (await mesh.send('/')) === 403)
    expect(mesh.asked).toEqual([])
    const told = JSON.stringify(mesh.warnings)
    expect(told).toContain('the provider `checks` is not known here')
    expect(told).toContain('the proxy does not list `vidimus.jwt_authn`')
  })
})

async function start(
  binary: string,
  places: { readonly filters?: readonly string[]; readonly providers?: Readonly<Record<string, string>> },
) {
  await using owned = new AsyncDisposableStack()
  const local = await localAgent()
  const { agent, warnings } = local
  const [keys, others] = await Promise.all([generateKeyPair('ES256'), generateKeyPair('ES256')])
  const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(keys.publicKey)), kid: 'k', alg: 'ES256' }] })
  const workload = await local.workload(7, ['spiffe://example.org/server'])
  const rules = new WorkloadRules({ clock: agent.clock, log: agent.log })
  const answers = { allow: false }
  const asked: string[] = []
  const rejections: string[] = []
  const report = ({ rejection }: { readonly rejection?: string }) => void (rejection !== undefined && rejections.push(rejection))
  const provider = mount(Authorization, {
    async check({ attributes }) {
      asked.push(attributes?.request?.http?.path ?? '')
      return answers.allow
        ? { status: { code: 0 }, httpResponse: { case: 'okResponse', value: {} } }
        : { status: { code: 7 }, httpResponse: { case: 'deniedResponse', value: {} } }
    },
  })
  const marked: string[] = []
  const logs = mount(AccessLogService, {
    async streamAccessLogs(messages) {
      for await (const { logEntries } of messages) {
        for (const { commonProperties, request } of logEntries.case === 'httpLogs' ? logEntries.value.logEntry : []) {
          if (commonProperties?.metadata?.filterMetadata['envoy.common']?.['access_log_hint'] === true) marked.push(request?.path ?? '')
        }
      }
      return {}
    },
  })
  const socket = owned.use(
    await serveAgent(workload, [
      mount(SecretDiscoveryService, secretDiscovery({ agent, random: systemRandom })),
      mount(ExtensionConfigDiscoveryService, extensionConfigDiscovery({ agent, rules, random: systemRandom, report })),
      provider,
      logs,
    ]),
  )
  const httpFilters = [
    ...(places.filters?.includes('vidimus.jwt_authn')
      ? [discovered('vidimus.jwt_authn', 'envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication')]
      : []),
    ...Object.keys(places.providers ?? {}).flatMap((name) => [
      discoveredRbac(`vidimus.rbac.custom.${name}`),
      discovered(`vidimus.ext_authz.${name}`, 'envoy.extensions.filters.http.ext_authz.v3.ExtAuthz'),
    ]),
    ...['audit', 'deny', 'allow'].map((name) => discoveredRbac(`vidimus.rbac.${name}`)),
  ]
  const envoy = owned.use(
    await startEnvoy(binary, {
      agentSocket: socket.path,
      nodeMetadata: { vidimus: places },
      listeners: [{ name: 'in', tls: { certificate: 'default', validation: 'ALL' }, httpFilters, logsToAgent: true }],
    }),
  )
  const client = await heldIdentity(local.ca, parseSpiffeId(web))
  const sign = (key: CryptoKey, subject: string, issuer: string) =>
    new SignJWT({}).setIssuer(issuer).setSubject(subject).setProtectedHeader({ alg: 'ES256', kid: 'k' }).setExpirationTime('1h').sign(key)
  const open = owned.move()
  return {
    workload, envoy, jwks, answers, asked, marked, rejections, warnings,
    token: (subject: string, issuer = 'https://issuer.test') => sign(keys.privateKey, subject, issuer),
    forged: (subject: string) => sign(others.privateKey, subject, 'https://issuer.test'),
    async send(path: string, token?: string) {
      const lines = [`GET ${path} HTTP/1.1`, 'Host: server', ...(token === undefined ? [] : [`Authorization: Bearer ${token}`])]
      return (await sendOverTls(local, client, envoy.port('in'), lines)).status
    },
    [Symbol.asyncDispose]: () => open[Symbol.asyncDispose](),
  } // prettier-ignore
}
