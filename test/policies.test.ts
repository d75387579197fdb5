import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { WatchedValue } from '../src/kernel/watched.ts'
import { ownApiPolicies } from '../src/main/policies.ts'
import { parsePolicySet } from '../src/policy/language.ts'
import { serverApiCallers } from '../src/policy/request.ts'
import { decideServerApi, serverApiPolicy } from '../src/policy/server-api.ts'
import { pathOf } from '../src/rpc/handler.ts'
import { privateServerApi } from '../src/server-api/services.ts'
import type { Server } from '../src/server/server.ts'

const file = fileURLToPath(new URL('../policies/server-api.matrix.txt', import.meta.url))

/** Every method that is served, and who may call it by the policies that the program comes with. */
async function matrix(): Promise<string> {
  const compiled = serverApiPolicy(parsePolicySet(await ownApiPolicies()))
  // Mounting a service looks at none of the server's parts.
  const services = privateServerApi({} as Server, new WatchedValue({ serving: true, complaints: [] }))
  const methods = services.flatMap(({ service }) => service.methods.map(pathOf)).sort()
  const wide = Math.max(...methods.map((method) => method.length))
  const mark = (method: string, caller: (typeof serverApiCallers)[number]) =>
    decideServerApi(compiled, { caller, method, attributes: {} }, 0).allowed ? '✔' : '✘'
  const rows = methods.map(
    (method) => `${method.padEnd(wide)}  ${serverApiCallers.map((caller) => mark(method, caller).padEnd(caller.length)).join('  ')}`,
  )
  return `${[`${''.padEnd(wide)}  ${serverApiCallers.join('  ')}`, ...rows].map((line) => line.trimEnd()).join('\n')}\n`
}

test('who may call what is as policies/server-api.matrix.txt says (run with UPDATE_MATRIX=1 to write it anew, and read the difference)', async () => {
  const now = await matrix()
  if (process.env['UPDATE_MATRIX'] === '1') await writeFile(file, now)
  expect(now).toBe(await readFile(file, 'utf8'))
})

test('every method can be called by somebody', async () => {
  const forgotten = (await matrix())
    .split('\n')
    .slice(1)
    .filter((row) => row !== '' && !row.includes('✔'))
  expect(forgotten).toEqual([])
})

test('no method but attestation and the bundle can be called by somebody who has shown nothing', async () => {
  const open = (await matrix()).split('\n').filter((row) => row.trimEnd().endsWith('✔'))
  expect(open.map((row) => row.split(' ')[0])).toEqual([
    '/spire.api.server.agent.v1.Agent/AttestAgent',
    '/spire.api.server.bundle.v1.Bundle/GetBundle',
  ])
})
