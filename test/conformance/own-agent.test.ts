/** The suite against our own agent: every rule that shows on a socket is kept. */
import { stat } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Outcome, tellVerdict } from '../../src/conformance/report.ts'
import type { Rule } from '../../src/conformance/rule.ts'
import { rules } from '../../src/conformance/rules.ts'
import { runConformance } from '../../src/conformance/run.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { seconds } from '../../src/kernel/duration.ts'
import { type AgentProgram, eventually, idOf, Installation, type ServerProgram } from '../support/programs.ts'

let installation: Installation
let server: ServerProgram
let agent: AgentProgram

const me = `unix:uid:${process.getuid!()}`
const seen = rules.filter(({ unseen, notBuilt }) => unseen === undefined && notBuilt === undefined)

async function outcomesOf(selected: readonly Rule[]): Promise<ReadonlyMap<string, Outcome>> {
  const stop = AbortSignal.timeout(60_000)
  const found = await runConformance({ socketPath: agent.socket, audience: 'db', timeout: seconds(10), selected, clock: systemClock, stop })
  return new Map(found.map((outcome) => [outcome.rule.id, outcome]))
}

async function verdictOn(id: string): Promise<string> {
  const outcomes = await outcomesOf(rules.filter((rule) => rule.id === id))
  return tellVerdict(outcomes.get(id)!)
}

beforeAll(async () => {
  installation = await Installation.open()
  server = await installation.server()
  agent = await installation.agent(server, { syncInterval: '200ms' })
}, 60_000)

afterAll(() => installation[Symbol.asyncDispose](), 60_000)

test('EP-1 EP-3 the endpoint is a Unix socket of this machine that every user may open', async () => {
  const socket = await stat(agent.socket)
  expect(socket.isSocket()).toBe(true)
  expect(socket.mode & 0o777).toBe(0o666)
})

test('EP-14 a process without identity is denied', async () => {
  expect(await verdictOn('EP-14')).toBe('kept')
})

describe('an agent that serves four identities keeps', () => {
  let outcomes: ReadonlyMap<string, Outcome>

  beforeAll(async () => {
    const hints = ['', 'main', 'main', 'other']
    const wishes = ['/one', '/two', '/three', '/four'].map((path, index) => ({
      spiffeId: idOf(path),
      selectors: [me],
      hint: hints[index]!,
    }))
    await server.entries(await agent.spiffeId(), ...wishes)
    await eventually('the agent served an identity', async () => (await verdictOn('API-12')) === 'kept')
    outcomes = await outcomesOf(rules)
  }, 60_000)

  test('EP-6 EP-11 EP-17 exposes the Workload API to a caller that speaks no TLS and shows nothing of itself', () => {
    expect(tellVerdict(outcomes.get('API-1')!)).toBe('kept')
  })

  const awaited = /^(?:W-|API-24|API-25|EP-16|EP-18|EP-14)/
  test.each(seen.filter(({ id }) => !awaited.test(id)))('$id $says', ({ id }) => {
    expect(tellVerdict(outcomes.get(id)!)).toBe('kept')
  })
})
