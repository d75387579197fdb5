/** The suite against our own agent: every rule that shows on a socket is kept. */
import { stat } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Outcome, tellVerdict } from '../../src/conformance/report.ts'
import type { Rule } from '../../src/conformance/rule.ts'
import { rules } from '../../src/conformance/rules.ts'
import { runConformance } from '../../src/conformance/run.ts'
import { Wire } from '../../src/conformance/wire.ts'
import { certificatesOf, methods, status, WorkloadApi } from '../../src/conformance/workload-api.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { seconds } from '../../src/kernel/duration.ts'
import { formatBundleDocument } from '../../src/spiffe/bundle-document.ts'
import { parseCertificates } from '../../src/x509/certificate.ts'
import { askGo } from '../support/go-judge.ts'
import { describeWithPeer } from '../support/peers.ts'
import { type AgentProgram, eventually, idOf, Installation, runVidimus, type ServerProgram, trustDomain } from '../support/programs.ts'

let installation: Installation
let server: ServerProgram
let agent: AgentProgram

const experimental = { witSvid: true }
const me = `unix:uid:${process.getuid!()}`
const seen = rules.filter(({ unseen, notBuilt }) => unseen === undefined && notBuilt === undefined)

async function outcomesOf(selected: readonly Rule[], { socket }: AgentProgram = agent): Promise<ReadonlyMap<string, Outcome>> {
  const stop = AbortSignal.timeout(60_000)
  const found = await runConformance({
    place: { path: socket },
    audience: 'db',
    timeout: seconds(10),
    selected,
    clock: systemClock,
    stop,
  })
  return new Map(found.map((outcome) => [outcome.rule.id, outcome]))
}

async function verdictOn(id: string, asked: AgentProgram = agent): Promise<string> {
  const outcomes = await outcomesOf(
    rules.filter((rule) => rule.id === id),
    asked,
  )
  return tellVerdict(outcomes.get(id)!)
}

beforeAll(async () => {
  installation = await Installation.open()
  server = await installation.server({ experimental })
  agent = await installation.agent(server, { syncInterval: '200ms', experimental })
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

  // Who has identities does not see how others are denied.
  test.each(seen.filter(({ id }) => id !== 'EP-14'))('$id $says', ({ id }) => {
    expect(tellVerdict(outcomes.get(id)!)).toBe('kept')
  })

  test('the command line says the same, and ends well', async () => {
    const printed = await runVidimus('conformance', '--socket', agent.address, '--audience', 'db', '--quiet')
    expect(printed).toMatch(/\nJ-11 +kept\n/)
    expect(printed.trimEnd().split('\n').at(-1)).toMatch(/^\d+ kept, 0 broken, \d+ not testable from outside, 46 not built$/)
  }, 20_000)

  describeWithPeer('go-spiffe', 'and go-spiffe accepts', (found) => {
    test('T-2 every certificate, token and bundle that is handed out', async () => {
      await using wire = new Wire({ path: agent.socket })
      const api = WorkloadApi.over(wire, systemClock, 'db', AbortSignal.timeout(20_000))
      const [x509, jwt, wit] = [await api.x509(), await api.tokens('jwt'), await api.tokens('wit')]
      const keysFor = async (kind: 'jwtBundles' | 'witBundles') =>
        Buffer.from((await api.keySets(kind)).get(`spiffe://${trustDomain}`)!).toString()
      const [jwtKeys, witKeys] = [await keysFor('jwtBundles'), await keysFor('witBundles')]
      const bundle = await server.asOperator((admin, signal) => admin.bundle.find(signal))
      const answers = askGo(found, [
        ...x509.map((held) => {
          const chain = certificatesOf(held).map(({ raw }) => raw)
          return { kind: 'x509' as const, trustDomain, chain, roots: parseCertificates(held.bundleDer).map(({ raw }) => raw) }
        }),
        ...jwt.map(({ token }) => ({ kind: 'jwt' as const, trustDomain, text: token.text, audience: 'db', document: jwtKeys })),
        ...wit.map(({ token }) => ({ kind: 'wit' as const, trustDomain, text: token.text, document: witKeys })),
        { kind: 'bundle', trustDomain, document: formatBundleDocument(bundle) },
      ])
      expect(answers).toEqual([
        ...[...x509, ...jwt, ...wit].map(({ spiffeId }) => ({ id: spiffeId })),
        expect.objectContaining({ x509: 1, jwt: 1, wit: 1, sequence: `${bundle.sequence}` }),
      ])
      expect(answers).toHaveLength(13)
    })
  })
})

describe('where WIT-SVIDs are switched off, as they are by default,', () => {
  let plain: AgentProgram
  let outcomes: ReadonlyMap<string, Outcome>

  beforeAll(async () => {
    const issuer = await installation.server()
    plain = await installation.agent(issuer, { syncInterval: '200ms' })
    await issuer.entries(await plain.spiffeId(), { spiffeId: idOf('/plain'), selectors: [me] })
    await eventually('the agent served an identity', async () => (await verdictOn('API-12', plain)) === 'kept')
    outcomes = await outcomesOf(rules, plain)
  }, 60_000)

  test('API-23 both methods are unimplemented, and that is no broken rule', async () => {
    expect(tellVerdict(outcomes.get('API-23')!)).toBe('kept')
    await using wire = new Wire({ path: plain.socket })
    const api = WorkloadApi.over(wire, systemClock, 'db', AbortSignal.timeout(20_000))
    for (const method of [methods.wit, methods.witBundles]) {
      expect(await api.outcome(method)).toMatchObject({ status: status.unimplemented })
    }
  })

  test('W API-24 API-25 are said not to be testable, for want of the methods, and every other rule is kept as before', () => {
    const needsWit = (id: string) => id.startsWith('W-') || id === 'API-24' || id === 'API-25'
    for (const { id } of seen.filter((rule) => rule.id !== 'EP-14')) {
      const told = needsWit(id) ? expect.stringMatching(/^not testable: FetchWIT(SVID|Bundles) ended with Unimplemented/) : 'kept'
      expect([id, tellVerdict(outcomes.get(id)!)]).toEqual([id, told])
    }
  })
})
