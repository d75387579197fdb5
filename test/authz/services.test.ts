import type { JsonObject, MessageInitShape } from '@bufbuild/protobuf'
import { describe, expect, test } from 'vitest'
import { extensionConfigDiscovery, extensionConfigTypeUrl } from '../../src/authz/extension-config-service.ts'
import { externalAuthorization } from '../../src/authz/ext-authz-service.ts'
import { workloadPolicies } from '../../src/authz/policy-service.ts'
import { WorkloadRules } from '../../src/authz/workload-rules.ts'
import { silentLog } from '../../src/kernel/log.ts'
import type { PolicyMode } from '../../src/policy/policy-set.ts'
import { clientOf } from '../../src/rpc/client.ts'
import { type AttributeContextSchema, Authorization, type CheckResponse } from '../../src/rpc/gen/envoy/service/auth/v3/auth_pb.ts'
import { ExtensionConfigDiscoveryService } from '../../src/rpc/gen/envoy/service/extension/v3/config_discovery_pb.ts'
import { WorkloadPolicies } from '../../src/rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { mount } from '../../src/rpc/handler.ts'
import { connectInMemory } from '../../src/rpc/in-memory.ts'
import { seededRandom } from '../fakes/random.ts'
import { localAgent } from '../sds/local-agent.ts'

describe('a caller without an identity', () => {
  test('is refused filters and policies', async () => {
    await using proxy = await connect({ ids: [] })
    await expect(proxy.fetchFilters()).rejects.toMatchObject({ category: 'permission_denied', message: 'no identity issued' })
    await expect(proxy.policies().next()).rejects.toMatchObject({ category: 'permission_denied', message: 'no identity issued' })
  })

  test('gets a denial from ext_authz, not an error, since proxies may be told to allow on errors', async () => {
    await using proxy = await connect({ ids: [] })
    expect(await proxy.check({})).toEqual(denied('no-policy'))
  })
})

describe('ext_authz', () => {
  test('refuses when the caller cannot be identified, and says nothing of why', async () => {
    await using proxy = await connect({ unknown: true })
    expect(await proxy.check({})).toEqual(denied('error'))
  })

  test('refuses a question without attributes', async () => {
    await using proxy = await connect({})
    expect(outcome(await proxy.authorization.check({}))).toMatchObject({ code: 7 })
  })

  test('asks for the workload that calls, not for the one that the question names', async () => {
    await using proxy = await connect({ policy: policy('bank').replace('namespace: shop', 'namespace: bank') })
    expect(await proxy.check({ destination: { principal: 'spiffe://example.org/ns/bank/sa/vault' } })).toEqual(denied('no-policy'))
  })

  test('allows what the policies allow, and names the rule in metadata only', async () => {
    await using proxy = await connect({})
    expect(await proxy.check({})).toEqual({
      code: 0,
      metadata: { decision: 'allowed', reason: 'allowed', rule: 'ns[shop]-policy[web]-rule[0]' },
    })
  })

  test('says to the agent what a set that is tried would have decided, and decides by the one in force', async () => {
    await using proxy = await connect({})
    proxy.workload.apply({ 'policy.yaml': policy('web') }, { 'policy.yaml': policy('web').replace('shop/sa/web', 'shop/sa/other') })
    expect(await proxy.check({})).toMatchObject({ code: 0 })
    expect(proxy.shadowed).toEqual([
      expect.objectContaining({ workload: 'spiffe://example.org/ns/shop/sa/server', allowed: true, candidateAllows: false, rule: '' }),
    ])
    proxy.workload.apply({ 'policy.yaml': policy('web') }, { 'policy.yaml': 'not: a policy' })
    expect(await proxy.check({})).toMatchObject({ code: 0 })
    expect(proxy.shadowed).toHaveLength(1)
  })

  test('takes nothing but a SPIFFE ID of a workload for the source', async () => {
    await using proxy = await connect({})
    for (const principal of [
      '',
      'web.test',
      'CN=spiffe://example.org/ns/shop/sa/web',
      'spiffe://example.org',
      'spiffe://example.org/ns/shop/sa/web/',
      'SPIFFE://example.org/ns/shop/sa/web',
    ]) {
      expect(await proxy.check({ source: { principal } })).toEqual(denied('no-rule-matched'))
    }
  })

  test('sees each of several headers, raw or joined', async () => {
    await using proxy = await connect({ policy: policy('web', 'when: [{key: "request.headers[x-role]", values: ["ops"]}]') })
    const raw = (...values: string[]) => ({
      headerMap: { headers: values.map((value) => ({ key: 'x-role', rawValue: Buffer.from(value) })) },
    })
    expect((await proxy.check({ request: { http: { ...http, ...raw('ops') } } })).code).toBe(0)
    expect((await proxy.check({ request: { http: { ...http, ...raw('ops', 'ops') } } })).code).toBe(0)
    expect((await proxy.check({ request: { http: { ...http, ...raw('ops', 'guest') } } })).code).toBe(7)
    expect((await proxy.check({ request: { http: { ...http, headers: { 'x-role': 'ops' } } } })).code).toBe(0)
    expect((await proxy.check({ request: { http: { ...http, headers: { 'x-role': 'ops,guest' } } } })).code).toBe(7)
  })

  test('does not know the address behind a proxy, so nothing is allowed by it', async () => {
    await using proxy = await connect({ policy: policy('web', 'when: [{key: remote.ip, values: ["0.0.0.0/0"]}]') })
    expect(await proxy.check({})).toEqual(denied('no-rule-matched'))
  })
})

describe('ECDS', () => {
  test('serves the filters of the calling workload, and those two only', async () => {
    await using proxy = await connect({})
    const names = (await proxy.fetchFilters('vidimus.rbac.deny', 'vidimus.rbac.allow', 'envoy.filters.http.rbac')).resources
    expect(names).toHaveLength(2)
    expect(proxy.warnings).toContainEqual(expect.objectContaining({ reason: 'xds.no-such-resource', names: ['envoy.filters.http.rbac'] }))
  })

  test('pushes a changed policy to an open stream', async () => {
    await using proxy = await connect({})
    const stream = proxy.extensions.streamExtensionConfigs()
    void stream.send({ resourceNames: ['vidimus.rbac.allow'], typeUrl: extensionConfigTypeUrl })
    const first = (await stream.responses.next()).value!
    proxy.workload.apply({ 'web.yaml': policy('other') })
    const second = (await stream.responses.next()).value!
    expect(second.versionInfo).not.toBe(first.versionInfo)
    stream.end()
  })
})

describe('a workload’s own policies', () => {
  test('come with the facts that they select on, again when they change, and not at all when the identity is gone', async () => {
    await using proxy = await connect({})
    const policies = proxy.policies()
    expect((await policies.next()).value).toMatchObject({
      documents: [{ name: 'policy.yaml' }],
      spiffeIds: ['spiffe://example.org/ns/shop/sa/server'],
      selectors: [{ type: 'unix', value: 'uid:7' }],
    })
    proxy.workload.apply({ 'other.yaml': policy('other') })
    expect((await policies.next()).value).toMatchObject({ documents: [{ name: 'other.yaml' }] })
    await proxy.workload.hold()
    expect((await policies.next()).value).toMatchObject({ documents: [], spiffeIds: [] })
  })
})

const http = { method: 'GET', path: '/orders', host: 'shop.test' }

function policy(name: string, more = ''): string {
  const rule = ['from: [{source: {principals: ["example.org/ns/shop/sa/web"]}}]', ...(more === '' ? [] : [more])].join('\n      ')
  return `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ${name}, namespace: shop}\nspec:\n  rules:\n    - ${rule}\n`
}

const denied = (reason: string) => ({ code: 7, status: 403, body: 'denied', metadata: { decision: 'denied', reason } })

function outcome({ status, httpResponse, dynamicMetadata }: CheckResponse): {
  code: number | undefined
  status?: number | undefined
  body?: string
  metadata: JsonObject | undefined
} {
  const denial = httpResponse.case === 'deniedResponse' ? { status: httpResponse.value.status?.code, body: httpResponse.value.body } : {}
  return { code: status?.code, ...denial, metadata: dynamicMetadata }
}

async function connect({
  ids = ['spiffe://example.org/ns/shop/sa/server'],
  unknown = false,
  policy: text = policy('web'),
  mode = 'strict',
}: {
  ids?: readonly string[]
  unknown?: boolean
  policy?: string
  mode?: PolicyMode
}) {
  const local = await localAgent()
  const workload = await local.workload(7, ids, { selectors: ['unix:uid:7'] })
  workload.apply({ 'policy.yaml': text })
  const { agent } = local
  const rules = new WorkloadRules({ clock: agent.clock, log: agent.log, language: { mode } })
  const services = [
    mount(ExtensionConfigDiscoveryService, extensionConfigDiscovery({ agent, rules, random: seededRandom(1) })),
    mount(Authorization, externalAuthorization({ agent, rules })),
    mount(WorkloadPolicies, workloadPolicies({ agent })),
  ]
  const channel = connectInMemory({ services, peer: unknown ? { ...workload.peer, pid: 99 } : workload.peer, log: silentLog })
  const authorization = clientOf(Authorization, channel)
  const extensions = clientOf(ExtensionConfigDiscoveryService, channel)
  const policyClient = clientOf(WorkloadPolicies, channel)
  const usual = { source: { principal: 'spiffe://example.org/ns/shop/sa/web' }, request: { http } }
  return {
    workload,
    warnings: local.warnings,
    shadowed: local.shadowed,
    authorization,
    extensions,
    check: async (attributes: Omit<MessageInitShape<typeof AttributeContextSchema>, '$typeName'>) =>
      outcome(await authorization.check({ attributes: { ...usual, ...attributes } })),
    fetchFilters: (...names: string[]) => extensions.fetchExtensionConfigs({ resourceNames: names, typeUrl: extensionConfigTypeUrl }),
    policies: () => policyClient.watchPolicies({})[Symbol.asyncIterator](),
    [Symbol.asyncDispose]: () => channel[Symbol.asyncDispose](),
  }
}
