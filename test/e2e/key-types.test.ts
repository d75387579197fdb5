import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readPublicKeyInfo } from '../../src/x509/key-type.ts'
import { exactly, openJwtSource, openX509Source } from '../../src/workload-client/vidimus.ts'
import { idOf, Installation, type AgentProgram, type ServerProgram } from '../support/programs.ts'

let installation: Installation
let server: ServerProgram
let agent: AgentProgram

beforeAll(async () => {
  installation = await Installation.open()
  server = await installation.server()
  agent = await installation.agent(server)
})
afterAll(() => installation[Symbol.asyncDispose]())

const file = () => installation.path(`${server.name}.yaml`)
/** Changes the configuration and asks the running server to read it. */
async function reread(change: (config: Record<string, unknown>) => object, answer: string): Promise<string> {
  const written = JSON.parse(await readFile(file(), 'utf8')) as Record<string, unknown>
  await writeFile(file(), JSON.stringify(change(written)))
  const before = server.log.length
  process.kill(server.pid, 'SIGHUP')
  await expect.poll(() => server.log.slice(before).join('\n'), { timeout: 20_000 }).toContain(answer)
  return server.log.slice(before).join('\n')
}

test('a configuration that cannot be used changes nothing, and what has to wait for a restart is named', async () => {
  const { pid } = server
  const wrong = await reread(
    (config) => ({ ...config, ca: { keyType: 'ec-p255' } }),
    'the configuration cannot be used, and the one of before is',
  )
  expect(wrong).toContain('ca.keyType')
  const waits = await reread((config) => ({ ...config, ca: {}, refreshHint: '1m' }), 'the configuration was read anew')
  expect(waits).toMatch(/"keys":"refreshHint".*wait for a restart/)
  expect(server.pid).toBe(pid)
})

test('C-35 the algorithms of a trust domain change by forced rotation, without a restart, under workloads that go on', async () => {
  const { pid } = server
  await server.entries(await agent.spiffeId(), { spiffeId: idOf('/web'), selectors: [`unix:uid:${process.getuid!()}`] })
  await using source = await openX509Source({ address: agent.address })
  await using tokens = openJwtSource({ address: agent.address })
  const algorithm = async () => {
    const { token } = await tokens.fetch(['db'])
    expect((await tokens.validate('db', token)).spiffeId).toBe(idOf('/web'))
    return (JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()) as { alg: string }).alg
  }
  const authorityTypes = () =>
    [...source.context.current!.bundles.all()].flatMap(({ x509Authorities }) =>
      x509Authorities.map(({ certificate }) => readPublicKeyInfo(certificate.spki).type),
    )
  const serial = () => source.identity().chain[0]!.serial
  expect([authorityTypes(), await algorithm()]).toEqual([['ec-p256'], 'ES256'])

  await reread((config) => ({ ...config, ca: { keyType: 'ec-p384', jwtKeyType: 'ec-p384' } }), '"keyType":"ec-p384"')
  const before = serial()
  await server.asOperator(async ({ authorities }, signal) => {
    for (const kind of ['x509', 'jwt'] as const) {
      const old = (await authorities.state(kind, signal)).active!.id
      const { id } = await authorities.prepare(kind, signal)
      await authorities.activate(kind, id, signal)
      await authorities.taint(kind, old, signal)
    }
  })
  await expect.poll(serial, { timeout: 20_000 }).not.toBe(before)
  await expect.poll(algorithm, { timeout: 20_000 }).toBe('ES384')
  expect(authorityTypes()).toContain('ec-p384')
  expect(source.identity().chain[0]!.signatureAlgorithm.oid).toBe('1.2.840.10045.4.3.3')
  expect(server.pid).toBe(pid)
  expect(exactly(idOf('/web'))(source.identity().spiffeId)).toBe(true)
})
