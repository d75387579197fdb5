import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { methods, x509In } from '../../src/conformance/workload-api.ts'
import { field, isMessage, Wire, type WireCall } from '../../src/conformance/wire.ts'
import type { RegistrationEntry } from '../../src/registry/entry.ts'
import { type AgentProgram, eventually, idOf, Installation, type ServerProgram } from '../support/programs.ts'

const permissionDenied = { status: 7, text: 'no identity issued' }
const me = `unix:uid:${process.getuid!()}`
const soon = () => AbortSignal.timeout(10_000)

let installation: Installation
let server: ServerProgram
let agent: AgentProgram
let wire: Wire

beforeAll(async () => {
  installation = await Installation.open()
  server = await installation.server()
  agent = await installation.agent(server, { syncInterval: '200ms' })
  wire = new Wire({ path: agent.socket })
}, 60_000)

afterAll(async () => {
  await wire[Symbol.asyncDispose]()
  await installation[Symbol.asyncDispose]()
}, 60_000)

describe('a workload without identity', () => {
  test.each([methods.x509, methods.x509Bundles, methods.jwt, methods.jwtBundles, methods.validate])(
    'EP-14 API-15 %s is denied, and the refusal says no more than that',
    async (method) => {
      const request = Buffer.concat([field(1, 'db'), method === methods.validate ? field(2, 'x.y.z') : Buffer.alloc(0)])
      expect(await wire.call(method, method === methods.jwt || method === methods.validate ? request : undefined).ended(soon())).toEqual(
        permissionDenied,
      )
    },
  )
})

describe('a workload whose identities come and go', () => {
  let entries: readonly RegistrationEntry[]

  beforeAll(async () => {
    entries = await server.entries(await agent.spiffeId(), ...['/one', '/two'].map((path) => ({ spiffeId: idOf(path), selectors: [me] })))
    await eventually('the agent served both', async () => {
      const next = await wire.call(methods.x509).next(soon())
      return isMessage(next) && x509In(next).length === 2
    })
  }, 30_000)

  test('API-4 API-15 T-4 each message tells everything, and a stream whose last identity is gone ends with PermissionDenied', async () => {
    const [stream, bundles] = [wire.call(methods.x509), wire.call(methods.x509Bundles)]
    const before = await idsIn(stream)
    await bundles.next(soon())
    const [added] = await server.entries(await agent.spiffeId(), { spiffeId: idOf('/three'), selectors: [me] })
    expect((await idsIn(stream)).toSorted()).toEqual([...before, idOf('/three')].toSorted())
    await server.removeEntries([added!.id])
    expect(await idsIn(stream)).toEqual(before)
    await server.removeEntries(entries.map(({ id }) => id))
    expect(await stream.ended(soon())).toEqual(permissionDenied)
    expect(await bundles.ended(soon())).toEqual(permissionDenied)
    expect(await wire.call(methods.jwt, field(1, 'db')).ended(soon())).toEqual(permissionDenied)
  }, 20_000)
})

async function idsIn(stream: WireCall): Promise<string[]> {
  const next = await stream.next(soon())
  if (isMessage(next)) return x509In(next).map(({ spiffeId }) => spiffeId)
  throw new Error(`the stream ended: ${JSON.stringify(next)}`)
}
