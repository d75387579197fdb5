import { describe, expect, test } from 'vitest'
import { rbacRules } from '../../src/authz/rbac.ts'
import { applyAll, seenByProxy } from '../../src/authz/rbac-interpreter.ts'
import { compileFor } from '../../src/policy/compile.ts'
import { decide } from '../../src/policy/evaluate.ts'
import { parsePolicySet } from '../../src/policy/language.ts'
import type { PolicyMode } from '../../src/policy/policy-set.ts'
import { headerValues, type PolicyRequest } from '../../src/policy/request.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { type Caller, callers, type Row, rows, type Sent, tokensFrom } from '../e2e/policy-rows.ts'
import { coveringRequests } from '../support/covering.ts'
import { metadataFilter } from '../support/rule-envoy.ts'

// The rows that a real Envoy judges in the end-to-end tests, judged here without one: the evaluator, and our reading of the compiled rules.

describe.each(['strict', 'istio'] as const)('%s mode: the table, the evaluator and the compiled rules say the same', (mode) => {
  for (const section of ['1.1', '1.2', '1.3', '1.4', '1.5', '1.6', '1.7', '1.8', '5.1']) {
    test(`section ${section}`, () => {
      const chosen = rows.filter(({ name, modes }) => name.startsWith(section) && modes.includes(mode))
      expect(chosen.length).toBeGreaterThan(0)
      for (const row of chosen) {
        const judge = judgeOf(row, mode)
        for (const [sent, answer] of row.answers) {
          const expected = typeof answer === 'boolean' ? answer : answer[mode]
          expect([row.name, sent, judge.verdicts(sent)]).toEqual([row.name, sent, { evaluator: expected, rules: expected }])
        }
        for (const sent of coveringRequests(judge.compiled, callers, 150)) {
          const { evaluator, rules } = judge.verdicts(sent)
          expect([row.name, sent, rules]).toEqual([row.name, sent, evaluator])
        }
      }
    })
  }
})

function judgeOf(row: Row, mode: PolicyMode) {
  const tokens = /requestPrincipals|request\.auth/i.test(JSON.stringify(row.policies)) ? [tokensFrom('{}')] : []
  const documents = [...row.policies, ...tokens].map((text, index) => ({ name: `${index}.yaml`, text }))
  const set = parsePolicySet(documents, { mode, trustDomainAliases: (row.aliases ?? []).map((name) => parseTrustDomain(name)) })
  const facts = {
    spiffeIds: [parseSpiffeId('spiffe://example.org/ns/shop/sa/server')],
    selectors: ['k8s:ns:shop', 'k8s:pod-label:app:server'].map(parseSelector),
  }
  const compiled = compileFor(set, facts, { at: Date.parse('2026-01-01T00:00:00Z') })
  const trustDomains = ['example.org', 'other.test'].map((name) => parseTrustDomain(name))
  const of = (point: 'http' | 'tcp') => rbacRules(compiled, { trustDomains, point, refusePlaintext: mode === 'strict' })
  const rules = { http: of('http'), tcp: of('tcp') }
  return {
    compiled,
    verdicts(sent: Sent) {
      const request = requestOf(sent)
      const seen = seenByProxy(request, compiled.pathNormalization, compiled.tokens)
      const own = rules[request.http ? 'http' : 'tcp']
      const evaluator = decide(compiled, request).allowed
      return { evaluator, rules: seen ? applyAll(own, seen, row.providers ? request.providers : {}).allowed : evaluator }
    },
  }
}

function requestOf(sent: Sent): PolicyRequest {
  const names = certificates[sent.caller ?? 'web']
  const headers = [...(sent.headers ?? []), ...(sent.remoteIp === undefined ? [] : [['x-forwarded-for', sent.remoteIp] as const])]
  return {
    ...(names && { peer: { spiffeId: parseSpiffeId(names[0]!), names } }),
    sourceIp: sent.sourceIp ?? '127.0.0.1',
    remoteIp: sent.remoteIp ?? sent.sourceIp ?? '127.0.0.1',
    destinationIp: '127.0.0.1',
    destinationPort: 8443,
    ...(names && sent.sni !== undefined && { sni: sent.sni }),
    ...(sent.token && { token: { claims: sent.token } }),
    ...(sent.meta !== undefined && { filterMetadata: { [metadataFilter]: { meta: sent.meta } } }),
    ...(sent.provider && { providers: { test: sent.provider, 'test-2': sent.provider } }),
    ...(!sent.tcp && {
      http: { method: sent.method ?? 'GET', path: sent.path ?? '/', host: sent.host ?? 'shop.test', headers: headerValues(headers) },
    }),
  }
}

/** The names of each caller's certificate as Envoy tries them. */
const certificates: Readonly<Record<Caller, readonly string[] | undefined>> = {
  web: ['spiffe://example.org/ns/shop/sa/web', ''],
  other: ['spiffe://example.org/ns/shop/sa/other', ''],
  deep: ['spiffe://example.org/ns/bar/sa/a/ns/shop/z', ''],
  foreign: ['spiffe://other.test/ns/shop/sa/web', ''],
  subject: ['spiffe://example.org/ns/shop/sa/web', 'CN=/ns/vault/x'],
  dns: ['spiffe://example.org/ns/shop/sa/web', '/ns/vault/x', ''],
  nobody: undefined,
}
