import { once } from 'node:events'
import { request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { seconds } from '../../src/kernel/duration.ts'
import type { RegistrationEntry } from '../../src/registry/entry.ts'
import { exactly, guarded, mtlsAgent, openAuthorizer, openJwtSource, openX509Source, serveMtls } from '../../src/workload-client/vidimus.ts'
import { type AgentProgram, eventually, idOf, Installation, runVidimus, type ServerProgram } from '../support/programs.ts'

describe('a service written in Node, with our client library and a real agent', () => {
  const id = idOf('/service')
  let installation: Installation
  let server: ServerProgram
  let agent: AgentProgram

  beforeAll(async () => {
    installation = await Installation.open()
    server = await installation.server({ svid: { x509: '10s' } })
    agent = await installation.agent(server, { syncInterval: '200ms' })
  })

  afterAll(async () => {
    await installation[Symbol.asyncDispose]()
  })

  afterEach(() => void vi.unstubAllEnvs())

  const registered = async (): Promise<RegistrationEntry> => {
    const [entry] = await server.entries(await agent.spiffeId(), { spiffeId: id, selectors: [`unix:uid:${process.getuid!()}`] })
    return entry!
  }

  test('is told who can help while it has no entry, and gets its identity as soon as there is one', async () => {
    await expect(openX509Source({ address: agent.address, timeout: seconds(1) })).rejects.toMatchObject({
      reason: 'workload-client.no-identity',
      message: expect.stringContaining('no identity issued') as string,
    })
    vi.stubEnv('SPIFFE_ENDPOINT_SOCKET', agent.address)
    const opening = openX509Source({ timeout: seconds(30) })
    const entry = await registered()
    await using source = await opening
    expect(source.identity().spiffeId).toBe(id)
    await server.removeEntries([entry.id])
    await eventually('the identity was withdrawn', () => source.context.current === undefined)
  })

  test('takes and validates tokens', async () => {
    const entry = await registered()
    await using source = await openX509Source({ address: agent.address })
    await using jwts = openJwtSource({ address: agent.address })
    const { token, spiffeId } = await jwts.fetch(['db'])
    expect(spiffeId).toBe(source.identity().spiffeId)
    expect(await jwts.validate('db', token)).toMatchObject({ spiffeId: id, claims: { aud: ['db'] } })
    await expect(jwts.validate('mail', token)).rejects.toMatchObject({ reason: 'rpc.invalid-argument' })
    await server.removeEntries([entry.id])
  })

  test('serves and calls through two rotations and a restart of its agent, and no request fails', async () => {
    const entry = await registered()
    await using source = await openX509Source({ address: agent.address })
    await using service = await listening(serveMtls(source, exactly(id), (_request, response) => response.end('hello')))
    const agentOfClient = mtlsAgent(source, exactly(id))
    const [serials, failures] = [new Set<string>(), [] as unknown[]]
    let requests = 0
    const restarted = (async () => {
      await agent.kill()
      await agent.start()
    })()
    const until = Date.now() + 14_000
    while (Date.now() < until || serials.size < 3) {
      if (Date.now() > until + 20_000) break
      await call(service.port, agentOfClient).then(
        () => requests++,
        (error: unknown) => failures.push(error),
      )
      serials.add(source.identity().chain[0]!.serial)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await restarted
    agentOfClient.destroy()
    expect(failures).toEqual([])
    expect(requests).toBeGreaterThan(100)
    expect(serials.size).toBeGreaterThanOrEqual(3)
    await server.removeEntries([entry.id])
  })

  test('decides by the policies that the security team applies, from the next moment on', async () => {
    const entry = await registered()
    await using source = await openX509Source({ address: agent.address })
    await using authorizer = await openAuthorizer({ address: agent.address })
    await using service = await listening(
      serveMtls(
        source,
        exactly(id),
        guarded(authorizer, (_request, response) => response.end('hello')),
      ),
    )
    const agentOfClient = mtlsAgent(source, exactly(id))
    const status = async (path: string) => (await call(service.port, agentOfClient, path)).status
    expect(await status('/orders')).toBe(403)
    const policy = { identities: [id], rules: [{ from: [{ source: { spiffeIds: [id] } }], to: [{ operation: { paths: ['/orders'] } }] }] }
    const text = JSON.stringify({ apiVersion: 'vidimus.dev/v1', kind: 'AuthorizationPolicy', metadata: { name: 'reads' }, spec: policy })
    await installation.write('policies/reads.yaml', text)
    await runVidimus('policy', 'apply', installation.path('policies'), '--server-socket', server.adminSocket)
    await eventually('the policy was in force', async () => (await status('/orders')) === 200)
    expect(await status('/admin')).toBe(403)
    agentOfClient.destroy()
    await server.removeEntries([entry.id])
  })
})

async function listening(server: ReturnType<typeof serveMtls>) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { port: (server.address() as AddressInfo).port, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() }
}

function call(port: number, agent: ReturnType<typeof mtlsAgent>, path = '/'): Promise<{ status: number | undefined }> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, agent }, (answer) => {
      answer.resume().once('end', () => resolve({ status: answer.statusCode }))
    })
    sent.once('error', reject).end()
  })
}
