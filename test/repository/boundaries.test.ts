import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { repository } from '../../tools/peers/source.ts'
import { type Outcome, run } from '../../tools/run.ts'

// A small house with the right files, into which wrong ones are put: each must be found, and told with its reason.

const right: Readonly<Record<string, string>> = {
  'kernel/clock.ts': 'export const now = () => Date.now()',
  'kernel/failure.ts': 'export const failure = 1',
  'x509/template.ts': 'export const assemble = () => 1',
  'x509/library.ts': `export const library = () => import('@peculiar/x509')`,
  'spiffe/id.ts': `import { failure } from '../kernel/failure.ts'\nexport const id = failure\nexport type Id = string`,
  'audit/event.ts': 'export const event = 1',
  'policy/evaluate.ts': `import { id } from '../spiffe/id.ts'\nexport const evaluate = id`,
  'ca/workbench.ts': `import { assemble } from '../x509/template.ts'\nexport const draft = () => assemble()`,
  'ca/issuance.ts': `import { draft } from './workbench.ts'\nexport const issue = (key: { sign(): void }) => [draft(), key.sign()]\nexport type Issued = number`,
  'ca/keys/disk.ts': `import { readFileSync } from 'node:fs'\nexport const disk = readFileSync`,
  'ca/keys/memory.ts': 'export const memory = 1',
  'ca/upstream/vault.ts': `import { wire } from '../vault/wire.ts'\nexport const vault = wire`,
  'ca/vault/wire.ts': `import wire from 'node-vault'\nexport { wire }`,
  'ca/keys/token.ts': `import { library } from './token-library.ts'\nexport const token = library`,
  'ca/keys/token-library.ts': `export const library = 1`,
  'registry/entry.ts': 'export const entry = 1\nexport type Entry = number',
  'store/sqlite.ts': `import { DatabaseSync } from 'node:sqlite'\nimport type { Entry } from '../registry/entry.ts'\nexport const sqlite = (_: Entry) => DatabaseSync`,
  'rpc/gen/made.ts': 'export const made = 1',
  'rpc/serve.ts': `import * as grpc from '@grpc/grpc-js'\nexport const serve = grpc`,
  'server/server.ts': `import { issue } from '../ca/issuance.ts'\nexport const server = issue`,
  'server-api/messages.ts': `import type { Issued } from '../ca/issuance.ts'\nimport { made } from '../rpc/gen/made.ts'\nexport const messages = (_: Issued) => made`,
  'server-api/client.ts': `export const client = async () => { await using owned = new AsyncDisposableStack()\nreturn owned }`,
  'sds/service.ts': 'export const sds = 1',
  'cli/entry.ts': `import { client } from '../server-api/client.ts'\nexport const command = client`,
  'main/builtins.ts': `import { disk } from '../ca/keys/disk.ts'\nimport { vault } from '../ca/upstream/vault.ts'\nimport { sqlite } from '../store/sqlite.ts'\nexport const drivers = [disk, vault, sqlite]`,
  'main/log.ts': `import pino from 'pino'\nexport const log = pino`,
}

const wrong: readonly (readonly [file: string, source: string, rule: string])[] = [
  ['kernel/up.ts', `import { id } from '../spiffe/id.ts'\nexport const x = id`, 'arrows of kernel'],
  [
    'kernel/disk.ts',
    `import { readFileSync } from 'node:fs'\nexport const x = readFileSync`,
    'the kernel adapts the machine in a few files',
  ],
  ['x509/trust.ts', `import { id } from '../spiffe/id.ts'\nexport const x = id`, 'arrows of x509'],
  ['spiffe/told.ts', `import { event } from '../audit/event.ts'\nexport const x = event`, 'arrows of spiffe'],
  ['spiffe/fetched.ts', `import { connect } from 'node:net'\nexport const x = connect`, 'values do no input or output'],
  ['policy/issues.ts', `import { issue } from '../ca/issuance.ts'\nexport const x = issue`, 'arrows of policy'],
  ['ca/looks-up.ts', `import type { Entry } from '../registry/entry.ts'\nexport const x = (_: Entry) => 1`, 'arrows of ca'],
  ['ca/dials.ts', `import { connect } from 'node:tls'\nexport const x = connect`, 'crafts and households do not open sockets'],
  ['ca/chooses.ts', `import { disk } from './keys/disk.ts'\nexport const x = disk`, 'drivers come from the list'],
  ['ca/keys/both.ts', `import { memory } from './memory.ts'\nexport const x = memory`, 'drivers do not know each other'],
  ['registry/keeps.ts', `import { sqlite } from '../store/sqlite.ts'\nexport const x = sqlite`, 'arrows of registry'],
  ['store/serves.ts', `import { server } from '../server/server.ts'\nexport const x = server`, 'arrows of store'],
  ['rpc/knows.ts', `import { id } from '../spiffe/id.ts'\nexport const x = id`, 'arrows of rpc'],
  ['xds/knows.ts', `import { serve } from '../rpc/serve.ts'\nexport const x = serve`, 'arrows of xds'],
  ['server/keeps.ts', `import { sqlite } from '../store/sqlite.ts'\nexport const x = sqlite`, 'arrows of server'],
  ['server/wire.ts', `import { made } from '../rpc/gen/made.ts'\nexport const x = made`, 'protobuf stays at the doors'],
  ['agent/wire.ts', `import { create } from '@bufbuild/protobuf'\nexport const x = create`, 'protobuf stays at the doors'],
  ['agent/neighbour.ts', `import { server } from '../server/server.ts'\nexport const x = server`, 'arrows of agent'],
  ['server-api/decides.ts', `import { issue } from '../ca/issuance.ts'\nexport const x = issue`, 'server-api takes types alone'],
  ['server-api/beside.ts', `import { sds } from '../sds/service.ts'\nexport const x = sds`, 'arrows of server-api'],
  ['workload-api/grpc.ts', `import * as grpc from '@grpc/grpc-js'\nexport const x = grpc`, 'grpc-js'],
  ['workload-client/heavy.ts', `import { memory } from '../ca/keys/memory.ts'\nexport const x = memory`, 'arrows of workload-client'],
  ['conformance/inside.ts', `import { sds } from '../sds/service.ts'\nexport const x = sds`, 'arrows of conformance'],
  ['cli/door.ts', `import { messages } from '../server-api/messages.ts'\nexport const x = messages`, 'arrows of cli'],
  ['authz/front.ts', `import { drivers } from '../main/builtins.ts'\nexport const x = drivers`, 'main is not imported'],
  ['x509/reads.ts', `import * as library from '@peculiar/x509'\nexport const x = library`, '@peculiar/x509'],
  ['attestation/native.ts', `import koffi from 'koffi'\nexport const x = koffi`, 'koffi'],
  ['ca/upstream/other.ts', `import vault from 'node-vault'\nexport const x = vault`, 'node-vault'],
  ['ca/issues.ts', `import { wire } from './vault/wire.ts'\nexport const x = wire`, 'a vault is spoken to by its drivers'],
  ['server/logs.ts', `import pino from 'pino'\nexport const x = pino`, 'pino'],
  ['server/sql.ts', `import { sql } from 'kysely'\nexport const x = sql`, 'kysely'],
  ['spiffe/round.ts', `import { y } from './trip.ts'\nexport const x = () => y`, 'no cycles'],
  ['spiffe/gone.ts', `import { y } from './nowhere.ts'\nexport const x = y`, 'what is imported exists'],
  ['main/dev.ts', `import fc from 'fast-check'\nexport const x = fc`, 'the product needs no development dependency'],
  [
    'ca/x509-authority.ts',
    `import { assemble } from '../x509/template.ts'\nexport const x = () => assemble()`,
    'certificates are assembled in workbench.ts',
  ],
  [
    'ca/jwt-authority.ts',
    `export const provenElsewhere = (key: string) => key\nexport const x = provenElsewhere('')`,
    'keys are proven by their requests',
  ],
  [
    'server/tokens.ts',
    `export const makeJwtSvid = (key: string) => key\nexport const x = makeJwtSvid('')`,
    'tokens are made by their authorities',
  ],
  ['ca/rotation.ts', `export const x = (key: { sign(): void }) => key.sign()`, 'signers are used in three places'],
  ['server/stops.ts', `export const x = () => process.exit(1)`, 'the process is touched in main/process.ts'],
  ['server/compares.ts', `export const x = (a: string, secret: string) => a === secret`, 'secrets are compared by their hashes'],
  ['sds/trusts.ts', `export const x = { rejectUnauthorized: false }`, 'danger says its name'],
]

/** The other half of a cycle, which is told once. */
const accomplice = ['spiffe/trip.ts', `import { x } from './round.ts'\nexport const y = () => x`] as const

let house: string
let broken: Outcome
let told: string

beforeAll(async () => {
  house = await mkdtemp(join(tmpdir(), 'vd-house-'))
  for (const file of ['.dependency-cruiser.cjs', 'tsconfig.json', 'package.json']) await cp(join(repository, file), join(house, file))
  await symlink(join(repository, 'node_modules'), join(house, 'node_modules'))
  for (const [file, source] of Object.entries(right)) await put(file, source)
})
afterAll(() => rm(house, { recursive: true, force: true }))

test('a house with all arrows pointing down is found in order', async () => {
  const { code, stdout } = await check()
  expect(stdout).toBe(`${Object.keys(right).length - 1} files, 0 broken boundaries\n`)
  expect(code).toBe(0)
})

describe('an arrow that points up or sideways is found', () => {
  beforeAll(async () => {
    for (const [file, source] of [...wrong, accomplice]) await put(file, source)
    broken = await check()
    told = broken.stdout
  }, 30_000)

  test.each(wrong)('src/%s', (file, _source, rule) => {
    const found = told.split('\n').flatMap((line, index, lines) => (line.startsWith(`src/${file}`) ? [lines[index + 1] ?? ''] : []))
    expect(found.map((line) => line.slice(0, line.indexOf(': ')).trim())).toContain(rule)
  })

  test('and nothing that is right is told', () => {
    expect(broken.code).toBe(1)
    for (const file of Object.keys(right)) expect(`\n${told}`).not.toContain(`\nsrc/${file}`)
  })
})

async function put(file: string, source: string): Promise<void> {
  const path = join(house, 'src', file)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, `${source}\n`)
}

function check() {
  return run(process.execPath, [join(repository, 'tools', 'boundaries.ts'), house], { deadlineMs: 30_000 })
}
