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
    test.each([['x509'], ['jwt', '--audience', 'db'], ['validate', '--audience', 'db', '--token', 'a.b.c'], ['bundles']])(
      'API-15 `%s` is refused: no identity issued',
      async (...args) => {
        const { last } = await python(...args)
        expect(last).toMatchObject({ code: 'PermissionDenied', error: expect.stringContaining('no identity issued') as string })
      },
    )
  })

  describe('with an entry', () => {
    let entries: readonly string[]

    beforeAll(async () => {
      const created = await server.entries(await agent.spiffeId(), {
        spiffeId: idOf('/python'),
        selectors: [own],
        x509SvidTtl: seconds(10),
      })
      entries = created.map(({ id }) => id)
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

    test('API-4 one stream shows each rotation: another certificate for the same identity', async () => {
      const { lines } = await python('watch-x509', '--updates', '3', '--timeout', '40')
      const svids = lines.map((line) => (line['svids'] as Svid[] | undefined)?.[0])
      expect(svids.map((svid) => svid?.id)).toEqual([idOf('/python'), idOf('/python'), idOf('/python')])
      expect(new Set(svids.map((svid) => svid?.serial)).size).toBe(3)
    })

    test('J-9 a token for another audience is not validated', async () => {
      const { last } = await python('jwt', '--audience', 'db')
      const { last: refused } = await python('validate', '--audience', 'mail', '--token', last['token'] as string)
      expect(refused['code']).toBe('InvalidArgument')
    })

    test('API-20 what is no token is not validated', async () => {
      const { last } = await python('validate', '--audience', 'db', '--token', 'a.b.c')
      expect(last['code']).toBe('InvalidArgument')
    })

    test('T-4 API-15 a stream ends with PermissionDenied when the last entry is gone', async () => {
      const watching = python('watch-x509', '--updates', '1000', '--timeout', '60')
      // A rotation later the stream is open for certain.
      const [before] = (await python('x509')).last['svids'] as Svid[]
      await vi.waitFor(
        async () => {
          const [now] = (await python('x509')).last['svids'] as Svid[]
          expect(now?.serial).not.toBe(before?.serial)
        },
        { timeout: 20_000, interval: 500 },
      )
      await server.removeEntries(entries)
      const { lines, last } = await watching
      expect(lines[0]).toMatchObject({ update: 1, svids: [expect.objectContaining({ id: idOf('/python') })] })
      expect(last['error']).toContain('PERMISSION_DENIED')
    })
  })
})
