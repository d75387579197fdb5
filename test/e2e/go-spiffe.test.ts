import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { realpathSync } from 'node:fs'
import { request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { seconds } from '../../src/kernel/duration.ts'
import { mtlsAgent, openX509Source, peerOf, serveMtls, type X509Source } from '../../src/workload-client/vidimus.ts'
import { exactly, type PeerMatcher } from '../../src/spiffe/matcher.ts'
import { describeWithPeer } from '../support/peers.ts'
import { type AgentProgram, eventually, idOf, Installation, runClient, type ServerProgram } from '../support/programs.ts'

describeWithPeer('go-spiffe', 'a Go workload on the unmodified go-spiffe library', (found) => {
  const goId = idOf('/go')
  const nodeId = idOf('/node')
  let installation: Installation
  let server: ServerProgram
  let agent: AgentProgram

  /** The program that the kernel sees, behind the link in `.peers`. */
  const program = () => realpathSync(found.path)
  const go = (...args: readonly string[]) => runClient(program(), [...args], { SPIFFE_ENDPOINT_SOCKET: agent.address })
  const goSelector = () => `unix:path:${program()}`

  beforeAll(async () => {
    installation = await Installation.open()
    const experimental = { witSvid: true }
    server = await installation.server({ experimental })
    agent = await installation.agent(server, { experimental, workloadAttestors: [{ kind: 'unix', discoverWorkloadPath: true }] })
  })

  afterAll(async () => {
    await installation[Symbol.asyncDispose]()
  })

  describe('without an entry', () => {
    test.each([['x509'], ['jwt', '--audience', 'db'], ['validate', '--audience', 'db', '--token', 'x'], ['bundles'], ['wit']])(
      'API-15 `%s` is refused with PermissionDenied: no identity issued',
      async (...args) => {
        const { last } = await go(...args)
        expect(last['code']).toBe('PermissionDenied')
        expect(last['error']).toContain('no identity issued')
      },
    )
  })

  describe('with an entry', () => {
    beforeAll(async () => {
      const parent = await agent.spiffeId()
      await server.entries(
        parent,
        { spiffeId: goId, selectors: [goSelector()], dnsNames: ['go.example.org'], hint: 'main' },
        { spiffeId: nodeId, selectors: [`unix:path:${realpathSync(process.execPath)}`] },
      )
      await eventually('the agent served the entry', async () => 'svids' in (await go('x509')).last)
    })

    test('T-2 an X509-SVID verifies with the bundle that came with it, and carries hint and DNS name', async () => {
      const { last } = await go('x509')
      expect(last['bundles']).toEqual({ 'example.org': 1 })
      expect(last['svids']).toEqual([expect.objectContaining({ id: goId, chain: 1, hint: 'main', dnsNames: ['go.example.org'] })])
    })

    test('API-17 API-19 bundles hold the authorities of our trust domain', async () => {
      const { last } = await go('bundles')
      expect(last['x509']).toEqual({ 'example.org': 1 })
      expect((last['jwt'] as Record<string, string[]>)['example.org']).toHaveLength(1)
    })

    test('T-2 a JWT-SVID verifies in the library, and the Workload API validates it', async () => {
      const { last } = await go('jwt', '--audience', 'db')
      expect(last).toMatchObject({ id: goId, audience: ['db'], hint: 'main' })
      const validated = await go('validate', '--audience', 'db', '--token', last['token'] as string)
      expect(validated.last).toMatchObject({ id: goId, audience: ['db'] })
    })

    test('J-9 a token for another audience is not validated', async () => {
      const { last } = await go('jwt', '--audience', 'db')
      const { last: refused } = await go('validate', '--audience', 'mail', '--token', last['token'] as string)
      expect(refused['code']).toBe('InvalidArgument')
    })

    test('W-15 W-19 API-24 API-25 a WIT-SVID verifies in the library, and its private key is the one it is bound to', async () => {
      const { last } = await go('wit')
      expect(last['svids']).toEqual([expect.objectContaining({ id: goId, hint: 'main' })])
      expect((await go('wit', '--id', idOf('/admin'))).last).toMatchObject({ code: 'PermissionDenied' })
    })

    test('EP-18 a tool that knows nothing finds the services of the socket, and the methods of the Workload API, by reflection', async () => {
      const { last } = await go('reflect')
      expect(last['services']).toEqual(
        expect.arrayContaining(['SpiffeWorkloadAPI', 'grpc.health.v1.Health', 'grpc.reflection.v1.ServerReflection']),
      )
      expect(last['methods']).toEqual(expect.arrayContaining(['FetchX509SVID', 'FetchWITSVID']))
    })

    test('an identity that it does not have is refused to it', async () => {
      expect((await go('jwt', '--audience', 'db', '--id', idOf('/admin'))).last).toMatchObject({ code: 'PermissionDenied' })
      expect((await go('jwt', '--audience', 'db', '--id', nodeId)).last).toMatchObject({ code: 'PermissionDenied' })
    })

    describe('mutual TLS with a Node service', () => {
      let source: X509Source

      beforeAll(async () => {
        source = await openX509Source({ address: agent.address, timeout: seconds(20) })
      })

      afterAll(async () => {
        await source[Symbol.asyncDispose]()
      })

      test('a Go client is refused by a Node server that expects somebody else', async () => {
        await using service = await nodeService(source, exactly(idOf('/somebody-else')))
        const { last } = await go('dial', '--address', service.address, '--id', nodeId, '--get', '/')
        expect(last['error']).toBeTypeOf('string')
        expect(service.seen).toEqual([])
      })

      test('a Go client refuses a Node server that is not who it wants', async () => {
        await using service = await nodeService(source, exactly(goId))
        const { last } = await go('dial', '--address', service.address, '--id', idOf('/somebody-else'), '--get', '/')
        expect(last['error']).toMatch(/unexpected ID "spiffe:\/\/example\.org\/node"/)
        expect(service.seen).toEqual([])
      })

      test('a Go client calls a Node server, and each knows the other', async () => {
        await using service = await nodeService(source, exactly(goId))
        const { last } = await go('dial', '--address', service.address, '--id', nodeId, '--get', '/orders')
        expect(last).toEqual({ self: goId, peer: nodeId, status: 200, body: `hello ${goId}` })
        expect(service.seen).toEqual([`${goId} /orders`])
      })

      test('a Node client is refused by a Go server that expects somebody else', async () => {
        await using service = await GoService.start(program(), agent.address, idOf('/somebody-else'))
        await expect(callFrom(source, exactly(goId), service.address)).rejects.toThrow()
        expect(await service.next()).toMatchObject({
          refused: expect.stringContaining('unexpected ID "spiffe://example.org/node"') as string,
        })
      })

      test('a Node client refuses a Go server that is not who it wants', async () => {
        await using service = await GoService.start(program(), agent.address, nodeId)
        await expect(callFrom(source, exactly(idOf('/somebody-else')), service.address)).rejects.toMatchObject({
          reason: 'mtls.unexpected-peer',
        })
        expect(await service.next()).toMatchObject({ refused: expect.any(String) as string })
      })

      test('a Node client calls a Go server, and each knows the other', async () => {
        await using service = await GoService.start(program(), agent.address, nodeId)
        expect(await callFrom(source, exactly(goId), service.address)).toEqual({ status: 200, body: `hello ${nodeId}` })
        expect(await service.next()).toEqual({ request: '/', peer: nodeId })
      })
    })
  })

  describe('whose X509-SVIDs are short-lived', () => {
    test('API-4 sees each rotation on the stream it holds open: a new serial, the same identity', async () => {
      const agent = await installation.agent(server, { workloadAttestors: [{ kind: 'unix', discoverWorkloadPath: true }] })
      await server.entries(await agent.spiffeId(), { spiffeId: idOf('/short'), selectors: [goSelector()], x509SvidTtl: seconds(10) })
      const { lines } = await runClient(program(), ['watch-x509', '--updates', '3', '--timeout', '60s', '--socket', agent.address])
      const svids = lines.map((line) => (line['svids'] as { id: string; serial: string; notAfter: string }[])[0]!)
      expect(svids.map(({ id }) => id)).toEqual([idOf('/short'), idOf('/short'), idOf('/short')])
      expect(new Set(svids.map(({ serial }) => serial)).size).toBe(3)
      expect(svids.map(({ notAfter }) => notAfter)).toEqual(svids.map(({ notAfter }) => notAfter).sort())
    })
  })
})

/** An HTTPS service of ours on a free port, and who called what. */
async function nodeService(source: X509Source, accept: PeerMatcher) {
  const seen: string[] = []
  const server = serveMtls(source, accept, (request, response) => {
    seen.push(`${peerOf(request)} ${request.url}`)
    response.end(`hello ${peerOf(request)}`)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return { address: `127.0.0.1:${port}`, seen, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() }
}

function callFrom(source: X509Source, accept: PeerMatcher, address: string): Promise<{ status: number | undefined; body: string }> {
  const agent = mtlsAgent(source, accept)
  return new Promise<{ status: number | undefined; body: string }>((resolve, reject) => {
    const sent = request(`https://${address}/`, { agent }, (answer) => {
      let body = ''
      answer.setEncoding('utf8').on('data', (part: string) => (body += part))
      answer.once('end', () => resolve({ status: answer.statusCode, body }))
    })
    sent.once('error', reject).end()
  }).finally(() => agent.destroy())
}

/** `client serve`: a Go server that only `id` may call. */
class GoService implements AsyncDisposable {
  readonly address: string
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  private constructor(child: ChildProcess, lines: AsyncIterator<string>, address: string) {
    this.#child = child
    this.#lines = lines
    this.address = address
  }

  static async start(program: string, socket: string, id: string): Promise<GoService> {
    const child = spawn(program, ['serve', '--id', id, '--socket', socket, '--timeout', '60s'], { stdio: ['pipe', 'pipe', 'inherit'] })
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const { address } = await lineOf(lines)
    return new GoService(child, lines, address as string)
  }

  /** What it says next: a request, or a refusal. */
  next(): Promise<Record<string, unknown>> {
    return lineOf(this.#lines)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#child, 'close')
    this.#child.stdin?.end()
    await closed
  }
}

async function lineOf(lines: AsyncIterator<string>): Promise<Record<string, unknown>> {
  const { value, done } = await lines.next()
  if (done) throw new Error('the Go server ended')
  return JSON.parse(value) as Record<string, unknown>
}
