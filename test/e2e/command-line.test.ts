import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { repository } from '../../tools/peers/source.ts'
import { run } from '../../tools/run.ts'
import { type AgentProgram, Installation, type ServerProgram } from '../support/programs.ts'

let installation: Installation
let server: ServerProgram
let agent: AgentProgram
beforeAll(async () => {
  installation = await Installation.open()
  server = await installation.server({ svid: { additions: { subject: ['organizationalUnit'], claims: ['tier'] } } })
  agent = await installation.agent(server)
})
afterAll(() => installation[Symbol.asyncDispose]())

interface Ended {
  readonly code: number | undefined
  readonly stdout: string
  readonly stderr: string
}

const vidimus = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> =>
  run(process.execPath, [join(repository, 'src/main/cli.ts'), ...args], { deadlineMs: 60_000, env })

/** What a command that works printed as JSON. */
async function json(...args: readonly string[]): Promise<unknown> {
  const ended = await vidimus([...args, '--output', 'json'], { SPIFFE_ENDPOINT_SOCKET: agent.address })
  expect(ended, ended.stderr).toMatchObject({ code: 0, stderr: '' })
  return JSON.parse(ended.stdout) as unknown
}

const onServer = (...args: readonly string[]) => json(...args, '--server-socket', server.adminSocket)

/** Asks again, for as long as an agent may need to hear of something. */
async function eventually(ask: () => Promise<Ended>, want: (ended: Ended) => boolean): Promise<Ended> {
  const until = Date.now() + 20_000
  for (;;) {
    const ended = await ask()
    if (want(ended) || Date.now() > until) return ended
  }
}

test('an identity, from the entry to its end, by commands alone', async () => {
  const selector = `unix:uid:${process.getuid!()}`
  const fetchX509 = (...more: string[]) => vidimus(['fetch', 'x509', ...more], { SPIFFE_ENDPOINT_SOCKET: agent.address })

  const none = await fetchX509()
  expect([none.code, none.stdout, none.stderr]).toEqual([1, '', 'vidimus: no identity issued\n'])
  const why = await vidimus(['explain', 'workload', '--pid', String(process.pid), '--agent-admin-socket', agent.adminSocket])
  expect(why.code).toBe(1)
  expect(why.stdout).toContain(`  ${selector}\n`)

  const { agents } = (await onServer('agent', 'list')) as { agents: { id: string }[] }
  expect(agents.map(({ id }) => id)).toEqual([await agent.spiffeId()])
  await onServer(
    'entry',
    'create',
    '--id',
    'web',
    '--spiffe-id',
    'spiffe://example.org/web',
    '--parent-id',
    agents[0]!.id,
    '--selector',
    selector,
    '--x509-ttl',
    '5m',
  )

  const folder = installation.path('svid')
  const held = await eventually(
    () => fetchX509('--write', folder),
    ({ code }) => code === 0,
  )
  expect(held.stdout).toContain('spiffe://example.org/web')
  expect(held.stdout).not.toContain('PRIVATE KEY')
  expect((await readdir(folder)).sort()).toEqual(['bundle.example.org.pem', 'svid.0.key', 'svid.0.pem'])
  expect((await stat(join(folder, 'svid.0.key'))).mode & 0o777).toBe(0o600)
  const { pem } = (await onServer('bundle', 'show')) as { pem: string }
  expect(await readFile(join(folder, 'bundle.example.org.pem'), 'utf8')).toBe(pem)
  const verified = await run('openssl', ['verify', '-CAfile', join(folder, 'bundle.example.org.pem'), join(folder, 'svid.0.pem')], {
    deadlineMs: 20_000,
  })
  expect(verified.code, verified.stderr).toBe(0)

  const { svids } = (await json('fetch', 'jwt', '--audience', 'orders')) as { svids: { token: string; spiffeId: string }[] }
  expect(svids.map(({ spiffeId }) => spiffeId)).toEqual(['spiffe://example.org/web'])
  const token = await installation.write('web.jwt', `${svids[0]!.token}\n`)
  expect(await json('validate', 'jwt', '--audience', 'orders', '--token-file', token)).toMatchObject({
    spiffeId: 'spiffe://example.org/web',
    claims: { sub: 'spiffe://example.org/web' },
  })
  const elsewhere = await vidimus(['validate', 'jwt', '--audience', 'payments', '--token-file', token], {
    SPIFFE_ENDPOINT_SOCKET: agent.address,
  })
  expect([elsewhere.code, elsewhere.stdout]).toEqual([1, ''])
  expect(elsewhere.stderr).not.toContain(svids[0]!.token)

  // An entry that changes reaches what it is for, and its workload.
  await onServer('entry', 'update', 'web', '--subject', '{"organizationalUnit":"Storage"}', '--claims', '{"tier":"gold"}')
  const subject = async () => {
    await fetchX509('--write', folder)
    return run('openssl', ['x509', '-noout', '-subject', '-nameopt', 'RFC2253', '-in', join(folder, 'svid.0.pem')], { deadlineMs: 20_000 })
  }
  expect((await eventually(subject, ({ stdout }) => stdout.includes('OU='))).stdout).toBe('subject=OU=Storage,O=Vidimus\n')
  const amended = (await json('fetch', 'jwt', '--audience', 'orders')) as { svids: { token: string }[] }
  expect(JSON.parse(Buffer.from(amended.svids[0]!.token.split('.')[1]!, 'base64url').toString())).toMatchObject({ tier: 'gold' })
  expect(await json('fetch', 'bundles')).toMatchObject({ x509: { 'example.org': pem }, jwt: { 'example.org': { keys: [{}] } } })

  expect(await json('explain', 'workload', '--pid', String(process.pid), '--agent-admin-socket', agent.adminSocket)).toMatchObject({
    considered: [{ entryId: 'web', matches: true }],
  })
  expect(await json('health', '--agent', '--agent-admin-socket', agent.adminSocket)).toMatchObject({
    healthy: true,
    spiffeId: agents[0]!.id,
    entries: 1,
    svids: 1,
  })
  expect(await onServer('health')).toEqual({ healthy: true })

  await onServer('entry', 'delete', 'web')
  const gone = await eventually(
    () => fetchX509(),
    ({ code }) => code === 1,
  )
  expect([gone.code, gone.stderr]).toEqual([1, 'vidimus: no identity issued\n'])
})

test('a process that is not there is told by its number', async () => {
  const ended = await vidimus(['explain', 'workload', '--pid', '4194304', '--agent-admin-socket', agent.adminSocket])
  expect([ended.code, ended.stdout]).toEqual([1, ''])
  expect(ended.stderr).toContain('4194304')
})

test('a configuration is printed as it is meant, and what is printed can be used', async () => {
  const printed = await vidimus(['config', 'print', 'server', '--config', installation.path(`${server.name}.yaml`)])
  expect(printed.code).toBe(0)
  const file = await installation.write('printed.yaml', printed.stdout)
  expect(await json('config', 'validate', 'server', '--config', file)).toEqual({ kind: 'server', valid: true })
  expect(await vidimus(['config', 'print', 'server', '--config', file])).toMatchObject({ stdout: printed.stdout })
})

test('an agent that is banned ends by itself and says why', async () => {
  const banned = await installation.agent(server)
  const id = await banned.spiffeId()
  await onServer('agent', 'ban', id)
  expect(await banned.logged('vidimus: ')).toMatch(
    /^vidimus: the server does not accept this agent any more.*evict it.*new join token.*: agent is banned$/,
  )
  expect(await onServer('agent', 'show', id)).toMatchObject({ id, banned: true })
  await onServer('agent', 'evict', id)
})

test('both programs stop when they are told to, with exit code 0, and take their sockets away', async () => {
  const lonely = await installation.server()
  expect(await lonely.stop()).toBe(0)
  await expect(stat(lonely.adminSocket)).rejects.toMatchObject({ code: 'ENOENT' })
  expect(lonely.log.some((line) => line.includes('"server stopped"'))).toBe(true)
})
