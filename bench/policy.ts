/** The decision function on its own: rules that concern one workload, and one request. */
import { systemClock } from '../src/kernel/clock.ts'
import { compileFor } from '../src/policy/compile.ts'
import { decide } from '../src/policy/evaluate.ts'
import { parsePolicySet } from '../src/policy/language.ts'
import type { PolicyRequest } from '../src/policy/request.ts'
import { parseSpiffeId } from '../src/spiffe/id.ts'
import { openCedar } from './cedar.ts'
import { type Bench, demand, type Effort, type Figure, figureOf, repeat } from './harness.ts'
import { makeCalls, makePolicies, type MadeCall } from './rules.ts'

export const policy: readonly Bench[] = [
  ...[10, 100, 1000, 10_000].map((rules) => ({
    name: `policy.decide${rules}`,
    about: `a request decided by ${rules} rules for one workload, one in four refused`,
    run: (effort: Effort) => decideAmong(rules, effort),
  })),
  ...[100, 1000].map((rules) => ({
    name: `policy.cedar${rules}`,
    about: `the same requests and ${rules} rules decided by Cedar in this process, with its policies read beforehand; RATIO is ours in the same run`,
    run: (effort: Effort) => decideBesideCedar(rules, effort),
  })),
]

async function decideAmong(rules: number, effort: Effort): Promise<Figure> {
  const decideOne = prepare(rules)
  return figureOf(await repeat(effort, decideOne), 'decisions/s')
}

async function decideBesideCedar(rules: number, effort: Effort): Promise<Figure> {
  const half = { ...effort, seconds: effort.seconds / 2 }
  const ours = await repeat(half, prepare(rules))
  const calls = makeCalls(rules)
  const cedar = openCedar(rules)
  for (const call of calls.slice(0, 64)) demand(cedar(call) === call.allowed, `cedar decides ${JSON.stringify(call)} otherwise`)
  const theirs = await repeat(half, (count) => cedar(calls[count % calls.length]!))
  return { ...figureOf(theirs, 'decisions/s'), ratio: Math.round(ours.perSecond / theirs.perSecond), of: 'ours, decided beside it' }
}

/** Rules for one workload and calls, checked; what is returned decides the next call. */
function prepare(rules: number): (count: number) => unknown {
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
  return (count) => decide(compiled, calls[count % calls.length]!.request)
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
