import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { describeWithPeer } from '../support/peers.ts'
import { type AgentProgram, eventually, idOf, Installation, runClient, type ServerProgram } from '../support/programs.ts'
import { seconds } from '../../src/kernel/duration.ts'

describeWithPeer('py-spiffe', 'a Python workload on the unmodified py-spiffe library', (found) => {
  let installation: Installation
  let server: ServerProgram
  let agent: AgentProgram

  const python = (...args: readonly string[]) => runClient(found.path, args, { SPIFFE_ENDPOINT_SOCKET: agent.address })
  const own = `unix:uid:${process.getuid!()}`
  interface Svid {
    readonly id: string
    readonly serial: string
  }

  beforeAll(async () => {
    installation = await Installation.open()
    server = await installation.server()
    agent = await installation.agent(server)
  })

  afterAll(async () => {
    await installation[Symbol.asyncDispose]()
  })

  describe('without an entry', () => {
    test.each([['x509'], ['jwt', '--audience', 'db'], ['bundles']])('API-15 `%s` is refused: no identity issued', async (...args) => {
      const { last } = await python(...args)
      expect(last).toMatchObject({ code: 'PermissionDenied', error: expect.stringContaining('no identity issued') as string })
    })
  })

  describe('with an entry', () => {
    beforeAll(async () => {
      await server.entries(await agent.spiffeId(), { spiffeId: idOf('/python'), selectors: [own], x509SvidTtl: seconds(10) })
      await eventually('the agent served the entry', async () => 'svids' in (await python('x509')).last)
    })

    test('T-2 an X509-SVID verifies with the bundle that came with it, and is another one after its half life', async () => {
      const { last } = await python('x509')
      expect(last['bundles']).toEqual({ 'example.org': 1 })
      const [before] = last['svids'] as Svid[]
      expect(before).toMatchObject({ id: idOf('/python'), chain: 1 })
      await vi.waitFor(
        async () => {
          const [now] = (await python('x509')).last['svids'] as Svid[]
          expect(now?.id).toBe(idOf('/python'))
          expect(now?.serial).not.toBe(before?.serial)
        },
        { timeout: 20_000, interval: 500 },
      )
    })

    test('API-17 API-19 bundles hold the authorities of our trust domain', async () => {
      const { last } = await python('bundles')
      expect(last).toEqual({ x509: { 'example.org': 1 }, jwt: { 'example.org': [expect.any(String)] } })
    })

    test('T-2 a JWT-SVID verifies in the library, and the Workload API validates it', async () => {
      const { last } = await python('jwt', '--audience', 'db')
      expect(last).toMatchObject({ id: idOf('/python'), audience: ['db'] })
      const validated = await python('validate', '--audience', 'db', '--token', last['token'] as string)
      expect(validated.last).toMatchObject({ id: idOf('/python'), audience: ['db'] })
    })

    test('J-9 a token for another audience is not validated', async () => {
      const { last } = await python('jwt', '--audience', 'db')
      const { last: refused } = await python('validate', '--audience', 'mail', '--token', last['token'] as string)
      expect(refused['code']).toBe('InvalidArgument')
    })
  })
})
