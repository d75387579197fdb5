import { once } from 'node:events'
import { createServer, type IncomingMessage, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, test, vi } from 'vitest'
import { days, seconds } from '../../src/kernel/duration.ts'
import { formatInstant } from '../../src/kernel/clock.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { guarded, openAuthorizer, type Authorizer } from '../../src/workload-client/authorize.ts'
import { FakeClock } from '../fakes/clock.ts'
import { ours, request } from '../policy/make.ts'
import { FakeAgent } from './fake-agent.ts'

const web = 'spiffe://example.org/web'
const readOrders = { rules: [{ from: [{ source: { spiffeIds: [web] } }], to: [{ operation: { methods: ['GET'], paths: ['/orders'] } }] }] }

/** An agent that sends policies to the workload `/orders`. */
async function stage() {
  const agent = await FakeAgent.start()
  const clock = new FakeClock()
  let version = 0
  const send = (...texts: readonly string[]) =>
    agent.policies.set({
      version: `v${++version}`,
      documents: texts.map((text, index) => ({ name: `${index}.yaml`, text })),
      spiffeIds: ['spiffe://example.org/orders'],
    })
  return {
    agent,
    clock,
    send,
    open: (timeout = seconds(20)) => openAuthorizer({ address: agent.address, clock, timeout }),
    /** Sends it, and waits until the authorizer has seen it. */
    async sent(authorizer: Authorizer, ...texts: readonly string[]) {
      send(...texts)
      await vi.waitFor(() => expect(authorizer.problem !== undefined || authorizer.version === `v${version}`).toBe(true))
    },
    [Symbol.asyncDispose]: () => agent[Symbol.asyncDispose](),
  }
}

const allowed = (authorizer: Authorizer, made: Parameters<typeof request>[0] = {}) =>
  authorizer.authorize(request({ peer: web, ...made })).allowed

describe('everything is refused', () => {
  test('without a policy', async () => {
    await using at = await stage()
    at.send()
    await using authorizer = await at.open()
    expect(authorizer.authorize(request({ peer: web })).allowed).toBe(false)
  })

  test('that no policy allows: another caller, method or path, or nobody', async () => {
    await using at = await stage()
    at.send(ours(readOrders))
    await using authorizer = await at.open()
    expect(allowed(authorizer)).toBe(true)
    expect(allowed(authorizer, { peer: 'spiffe://example.org/report' })).toBe(false)
    expect(allowed(authorizer, { method: 'DELETE' })).toBe(false)
    expect(allowed(authorizer, { path: '/admin' })).toBe(false)
    expect(allowed(authorizer, { peer: undefined })).toBe(false)
  })

  test('when the policies are for another workload', async () => {
    await using at = await stage()
    at.send(ours({ ...readOrders, identities: ['spiffe://example.org/payments'] }))
    await using authorizer = await at.open()
    expect(allowed(authorizer)).toBe(false)
  })
})

describe('an authorizer does not open', () => {
  test.each([
    ['when there is no agent', async ({ agent }: Awaited<ReturnType<typeof stage>>) => agent.vanish(), 'rpc.unavailable'],
    ['when the workload has no identity', async () => {}, 'rpc.permission-denied'],
    [
      'when the only policies there are do not parse',
      async ({ send }: Awaited<ReturnType<typeof stage>>) => send('kind: nonsense'),
      'policy.invalid',
    ],
  ] as const)('%s', async (_what, arrange, reason) => {
    await using at = await stage()
    await arrange(at)
    await expect(at.open(300)).rejects.toMatchObject({ reason: 'workload-client.no-policies', cause: { reason } })
  })

  test('EP-15 at an agent that does not know the method, which is not asked again', async () => {
    await using at = await stage()
    at.agent.policies.set(new Failure('unimplemented', 'fake.never', { public: 'never' }))
    await expect(at.open()).rejects.toMatchObject({ reason: 'rpc.unimplemented' })
    expect(at.agent.opened.policies).toBe(1)
  })
})

describe('what changes', () => {
  test('a policy that is taken back refuses the next request, on the same stream', async () => {
    await using at = await stage()
    at.send(ours(readOrders))
    await using authorizer = await at.open()
    expect(allowed(authorizer)).toBe(true)
    await at.sent(authorizer)
    expect(allowed(authorizer)).toBe(false)
    expect(at.agent.opened.policies).toBe(1)
  })

  test('policies that do not parse leave the last good ones in force and say why; the next good ones count', async () => {
    await using at = await stage()
    at.send(ours(readOrders))
    await using authorizer = await at.open()
    await at.sent(authorizer, 'kind: nonsense')
    expect(authorizer.problem).toMatchObject({ reason: 'policy.invalid' })
    expect(authorizer.version).toBe('v1')
    expect(allowed(authorizer)).toBe(true)
    at.send()
    await vi.waitFor(() => expect(authorizer.problem).toBeUndefined())
    expect(allowed(authorizer)).toBe(false)
    expect(at.agent.opened.policies).toBe(1)
  })

  test('an exception ends at its moment, without an update', async () => {
    await using at = await stage()
    const expires = formatInstant(at.clock.now() + days(2)).slice(0, 10)
    at.send(ours({ ...readOrders, expires }))
    await using authorizer = await at.open()
    expect(allowed(authorizer)).toBe(true)
    await at.clock.advance(days(1))
    expect(allowed(authorizer)).toBe(true)
    await at.clock.advance(days(2))
    expect(allowed(authorizer)).toBe(false)
  })

  test('an agent that goes away leaves the policies in force', async () => {
    await using at = await stage()
    at.send(ours(readOrders))
    await using authorizer = await at.open()
    await at.agent.vanish()
    await vi.waitFor(() => expect(at.clock.sleepers).toBe(1))
    expect(allowed(authorizer)).toBe(true)
  })
})

test('a request that did not come over mutual TLS is nobody’s: it is refused, with 403 and no reason, not an exception', async () => {
  await using at = await stage()
  at.send(ours(readOrders))
  await using authorizer = await at.open()
  const called: string[] = []
  const server = createServer(guarded(authorizer, ({ url }) => void called.push(url ?? '')))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const sent = httpRequest({ host: '127.0.0.1', port: (server.address() as AddressInfo).port, path: '/orders' }).end()
  const [answer] = (await once(sent, 'response')) as [IncomingMessage]
  let body = ''
  for await (const part of answer) body += String(part)
  expect([answer.statusCode, body, called]).toEqual([403, 'RBAC: access denied\n', []])
  server.close()
  server.closeAllConnections()
})
