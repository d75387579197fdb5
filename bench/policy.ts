/** The decision function on its own: rules that concern one workload, and one request. */
import { systemClock } from '../src/kernel/clock.ts'
import { compileFor } from '../src/policy/compile.ts'
import { decide } from '../src/policy/evaluate.ts'
import { parsePolicySet } from '../src/policy/language.ts'
import type { PolicyRequest } from '../src/policy/request.ts'
import { parseSpiffeId } from '../src/spiffe/id.ts'
import { type Bench, demand, type Effort, type Figure, figureOf, repeat } from './harness.ts'
import { makeCalls, makePolicies, type MadeCall } from './rules.ts'

export const policy: readonly Bench[] = [10, 100, 1000, 10_000].map((rules) => ({
  name: `policy.decide${rules}`,
  about: `a request decided by ${rules} rules for one workload, one in four refused`,
  run: (effort) => decideAmong(rules, effort),
}))

async function decideAmong(rules: number, effort: Effort): Promise<Figure> {
  const workload = parseSpiffeId('spiffe://bench.test/ns/shop/sa/orders')
  const compiled = compileFor(
    parsePolicySet(makePolicies(workload, rules)),
    { spiffeIds: [workload], selectors: [] },
    { at: systemClock.now() },
  )
  demand(
    compiled.allow.length + compiled.deny.length === rules,
    `${compiled.allow.length + compiled.deny.length} rules instead of ${rules}`,
  )
  const calls = makeCalls(rules).map((call) => ({ request: requestOf(call), allowed: call.allowed }))
  for (const { request, allowed } of calls)
    demand(decide(compiled, request).allowed === allowed, `${JSON.stringify(request)} is not ${allowed ? 'allowed' : 'refused'}`)
  return figureOf(await repeat(effort, (count) => decide(compiled, calls[count % calls.length]!.request)), 'decisions/s')
}

function requestOf({ peer, method, path }: MadeCall): PolicyRequest {
  const headers = new Map([['user-agent', ['bench']]])
  return {
    peer: { spiffeId: parseSpiffeId(peer) },
    sourceIp: '10.0.0.7',
    destinationPort: 8080,
    http: { method, path, host: 'orders.shop:8080', headers },
  }
}
