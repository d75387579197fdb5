import { describe, expect, test } from 'vitest'
import { accessLogs } from '../../src/authz/access-log-service.ts'
import { extensionConfigDiscovery } from '../../src/authz/extension-config-service.ts'
import { WorkloadRules } from '../../src/authz/workload-rules.ts'
import { systemRandom } from '../../src/kernel/random.ts'
import { AccessLogService } from '../../src/rpc/gen/envoy/service/accesslog/v3/als_pb.ts'
import { ExtensionConfigDiscoveryService } from '../../src/rpc/gen/envoy/service/extension/v3/config_discovery_pb.ts'
import { SecretDiscoveryService } from '../../src/rpc/gen/envoy/service/secret/v3/sds_pb.ts'
import { mount } from '../../src/rpc/handler.ts'
import { secretDiscovery } from '../../src/sds/service.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { sendOverTls, serveAgent, until } from '../sds/envoy-agent.ts'
import { heldIdentity, localAgent } from '../sds/local-agent.ts'
import { discoveredRbac, startEnvoy } from '../support/envoy.ts'
import { describeWithPeer } from '../support/peers.ts'

const web = 'spiffe://example.org/web'
const rule = (name: string, action: string, operation: string) =>
  `apiVersion: vidimus.dev/v1\nkind: AuthorizationPolicy\nmetadata: { name: ${name} }\nspec:\n  action: ${action}\n  identities: [spiffe://example.org/server]\n  rules: [{ from: [{ source: { spiffeIds: [${web}] } }], to: [{ operation: ${operation} }] }]\n`
const reads = rule('reads', 'ALLOW', '{ methods: [GET] }')
const everything = rule('everything', 'ALLOW', '{ methods: [GET, POST, DELETE] }')
const noAdmin = rule('no-admin', 'DENY', '{ paths: [/admin] }')

describeWithPeer('envoy', 'a real Envoy with a set that is tried', ({ path }) => {
  describe('enforces the set in force', () => {
    test('and tells the agent what the other would have decided, for requests that were refused as well', async () => {
      await using owned = new AsyncDisposableStack()
      const local = await localAgent()
      const { agent } = local
      const workload = await local.workload(7, ['spiffe://example.org/server'])
      const rules = new WorkloadRules({ clock: agent.clock, log: agent.log })
      const socket = owned.use(
        await serveAgent(workload, [
          mount(SecretDiscoveryService, secretDiscovery({ agent, random: systemRandom })),
          mount(ExtensionConfigDiscoveryService, extensionConfigDiscovery({ agent, rules, random: systemRandom })),
          mount(AccessLogService, accessLogs({ agent })),
        ]),
      )
      workload.apply({ 'a.yaml': reads }, { 'a.yaml': everything, 'b.yaml': noAdmin })
      const httpFilters = ['candidate.deny', 'candidate.allow', 'deny', 'allow'].map((name) => discoveredRbac(`vidimus.rbac.${name}`))
      const tls = { certificate: 'default', validation: 'ALL' }
      const envoy = owned.use(
        await startEnvoy(path, { agentSocket: socket.path, listeners: [{ name: 'tls', tls, httpFilters, logsToAgent: true }] }),
      )
      const client = await heldIdentity(local.ca, parseSpiffeId(web))
      const send = async (method: string, target: string) =>
        (await sendOverTls(local, client, envoy.port('tls'), [`${method} ${target} HTTP/1.1`, 'Host: server'])).status
      await until('the policies are there', async () => (await send('GET', '/')) === 200)

      expect([
        await send('GET', '/reports?secret=1'),
        await send('POST', '/x'),
        await send('GET', '/admin'),
        await send('PUT', '/x'),
      ]).toEqual([200, 403, 200, 403])
      await until('the agent was told', () => local.shadowed.some(({ method }) => method === 'PUT'))
      const seen = (method: string, target: string) =>
        local.shadowed.findLast((one) => one.method === method && one.path.startsWith(target))
      const about = { workload: 'spiffe://example.org/server', peer: web }
      const everythingRule = 'ns[]-policy[everything]-rule[0]'
      expect(seen('GET', '/reports')).toMatchObject({ ...about, allowed: true, candidateAllows: true, rule: everythingRule })
      expect(seen('POST', '/x')).toMatchObject({ ...about, allowed: false, candidateAllows: true, rule: everythingRule })
      expect(seen('GET', '/admin')).toMatchObject({
        ...about,
        allowed: true,
        candidateAllows: false,
        rule: 'ns[]-policy[no-admin]-rule[0]',
      })
      expect(seen('PUT', '/x')).toMatchObject({ ...about, allowed: false, candidateAllows: false, rule: '' })

      const before = local.shadowed.length
      workload.apply({ 'a.yaml': everything })
      await until('the other set is in force', async () => (await send('POST', '/x')) === 200)
      await send('GET', '/last')
      await until('the log went out', async () => (await envoy.stat('access_logs.grpc_access_log.logs_written')) > 0)
      expect(local.shadowed.slice(before).filter(({ path: where }) => where === '/last')).toEqual([])
    })
  })
})
