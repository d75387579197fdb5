import { create, fromBinary } from '@bufbuild/protobuf'
import { anyUnpack } from '@bufbuild/protobuf/wkt'
import { describe, expect, test } from 'vitest'
import { allowFilter, denyFilter } from '../../src/authz/messages.ts'
import { WorkloadRules } from '../../src/authz/workload-rules.ts'
import { hours } from '../../src/kernel/duration.ts'
import type { PolicyMode } from '../../src/policy/policy-set.ts'
import { TypedExtensionConfigSchema } from '../../src/rpc/gen/envoy/config/core/v3/core_pb.ts'
import { RBAC_Action } from '../../src/rpc/gen/envoy/config/rbac/v3/rbac_pb.ts'
import { type RBAC, RBACSchema } from '../../src/rpc/gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.ts'
import type { Resources } from '../../src/xds/resources.ts'
import { FakeClock } from '../fakes/clock.ts'
import { localAgent } from '../sds/local-agent.ts'

describe('nothing is allowed', () => {
  test('without any policy', async () => {
    const { rules, workload } = await mesh()
    expect(filterIn(rules.of(workload).filters, allowFilter).rules).toMatchObject({ action: RBAC_Action.ALLOW, policies: {} })
  })

  test('at a workload without an identity, whatever the policies say', async () => {
    const { rules, workload } = await mesh()
    workload.apply({ 'open.yaml': policy('open', 'rules: [{}]') })
    await workload.hold()
    expect(rules.of(workload).compiled).toBeUndefined()
    expect(policyIds(rules.of(workload).filters, allowFilter)).toEqual([])
  })

  test('by policies that cannot be read, when none were good before', async () => {
    const { rules, workload } = await mesh()
    workload.apply({ 'broken.yaml': 'kind: Nonsense' })
    expect(policyIds(rules.of(workload).filters, allowFilter)).toEqual([])
  })

  test('by policies for other workloads', async () => {
    const { rules, workload } = await mesh()
    workload.apply({ 'others.yaml': policy('others', 'rules: [{}]').replace('namespace: shop', 'namespace: bank') })
    expect(policyIds(rules.of(workload).filters, allowFilter)).toEqual([])
  })
})

describe('what was good stays in force', () => {
  test('when a later set cannot be read, and the log says so', async () => {
    const { rules, workload, errors } = await mesh()
    workload.apply({ 'good.yaml': policy('good', 'rules: [{}]') })
    const good = rules.of(workload)
    workload.apply({ 'broken.yaml': 'kind: Nonsense' })
    expect(rules.of(workload)).toBe(good)
    expect(errors()).toContainEqual(expect.objectContaining({ reason: 'policy.invalid' }))
  })

  test('in the proxy when a later set cannot be enforced by it, and the log names the place', async () => {
    const { rules, workload, errors } = await mesh()
    workload.apply({ 'good.yaml': policy('good', 'rules: [{}]') })
    const good = rules.of(workload).filters
    workload.apply({ 'mixed.yaml': policy('mixed', 'rules: [{when: [{key: "request.headers[x-role]", values: ["a*", "*b"]}]}]') })
    expect(rules.of(workload).filters).toEqual(good)
    expect(errors()).toContainEqual(
      expect.objectContaining({ reason: 'rbac.not-enforceable', error: expect.stringContaining('mixed.yaml:') }),
    )
    expect(rules.of(workload).compiled?.allow).toHaveLength(1)
  })
})

describe('strict filters', () => {
  test('refuse unknown methods, repeated authorization, and certificates of two trust domains before any rule', async () => {
    const { rules, workload } = await mesh()
    workload.apply({ 'good.yaml': policy('good', 'rules: [{}]') })
    expect(policyIds(rules.of(workload).filters, denyFilter)).toEqual([
      'vidimus[repeated-authorization]',
      'vidimus[several-trust-domains]',
      'vidimus[unknown-method]',
      'vidimus[unreadable-host]',
    ])
    expect(policyIds(rules.of(workload).filters, allowFilter)).toEqual(['ns[shop]-policy[good]-rule[0]'])
  })
})

describe('istio filters', () => {
  test('are absent where no ALLOW policy selects the workload, and refuse where one does without a rule', async () => {
    const { rules, workload } = await mesh({ mode: 'istio' })
    expect(filterIn(rules.of(workload).filters, allowFilter).rules).toBeUndefined()
    workload.apply({ 'none.yaml': policy('none', '{}').replace('spec:\n  {}', 'spec: {}') })
    expect(filterIn(rules.of(workload).filters, allowFilter).rules).toMatchObject({ policies: {} })
  })
})

describe('the filters of a workload change', () => {
  test('with its policies and its identities, each at once', async () => {
    const { rules, workload } = await mesh()
    await using watching = watch(rules.filtersOf(workload).changes)
    expect(policyIds(await watching.next(), allowFilter)).toEqual([])
    workload.apply({ 'good.yaml': policy('good', 'rules: [{}]') })
    expect(policyIds(await watching.next(), allowFilter)).toEqual(['ns[shop]-policy[good]-rule[0]'])
    await workload.hold()
    expect(policyIds(await watching.next(), allowFilter)).toEqual([])
  })

  test('at the moment when an exception expires', async () => {
    const clock = new FakeClock()
    const { rules, workload } = await mesh({ clock })
    workload.apply({
      'exception.yaml': policy('exception', `expires: ${JSON.stringify('2026-01-01T01:00:00Z')}\nrules: [{}]`).replace(
        'security.istio.io/v1',
        'vidimus.dev/v1',
      ),
    })
    await using watching = watch(rules.filtersOf(workload).changes)
    expect(policyIds(await watching.next(), allowFilter)).toHaveLength(1)
    await clock.advance(hours(1))
    expect(policyIds(await watching.next(), allowFilter)).toEqual([])
    expect(clock.sleepers).toBe(0)
  })
})

test('rules are compiled once for all workloads with the same facts', async () => {
  const { rules, local, workload } = await mesh()
  const twin = await local.workload(8, ['spiffe://example.org/ns/shop/sa/server'])
  const other = await local.workload(9, ['spiffe://example.org/ns/shop/sa/other'])
  for (const one of [workload, twin, other]) one.apply({ 'good.yaml': policy('good', 'rules: [{}]') })
  expect(rules.of(twin)).toBe(rules.of(workload))
  expect(rules.of(other)).not.toBe(rules.of(workload))
})

async function mesh({ mode = 'strict', clock = new FakeClock() }: { mode?: PolicyMode; clock?: FakeClock } = {}) {
  const local = await localAgent({ clock })
  const workload = await local.workload(7, ['spiffe://example.org/ns/shop/sa/server'])
  return { local, workload, rules: new WorkloadRules({ clock, log: local.agent.log, language: { mode } }), errors: () => local.warnings }
}

function policy(name: string, spec: string): string {
  return [
    'apiVersion: security.istio.io/v1',
    'kind: AuthorizationPolicy',
    `metadata: {name: ${name}, namespace: shop}`,
    'spec:',
    ...spec.split('\n').map((line) => `  ${line}`),
    '',
  ].join('\n')
}

function filterIn(resources: Resources, name: string): RBAC {
  const config = fromBinary(TypedExtensionConfigSchema, resources.get(name)!.value)
  expect(config.name).toBe(name)
  return anyUnpack(config.typedConfig!, RBACSchema) ?? create(RBACSchema)
}

const policyIds = (resources: Resources, name: string): string[] => Object.keys(filterIn(resources, name).rules?.policies ?? {}).toSorted()

/** Reads changes as they come. */
function watch(changes: (signal: AbortSignal) => AsyncGenerator<Resources, void, void>) {
  const stop = new AbortController()
  const reading = changes(stop.signal)
  const next = async () => (await reading.next()).value!
  return {
    next,
    async [Symbol.asyncDispose]() {
      stop.abort()
      await reading.return()
    },
  }
}
