import { chmod, link, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { repository } from '../../tools/peers/source.ts'
import { run } from '../../tools/run.ts'
import { eventually, Installation, type ServerProgram, trustDomain } from '../support/programs.ts'

let installation: Installation
let server: ServerProgram
let port: number
beforeAll(async () => {
  installation = await Installation.open()
  server = await installation.server()
  port = server.port
})
afterAll(() => installation[Symbol.asyncDispose]())

interface Ended {
  readonly code: number | undefined
  readonly out: string
  readonly err: string
}

/** Runs the program until it ends by itself. */
async function vidimus(...args: readonly string[]): Promise<Ended> {
  const { code, stdout, stderr } = await run(process.execPath, [join(repository, 'src/main/cli.ts'), ...args], { deadlineMs: 60_000 })
  return { code, out: stdout, err: stderr }
}

const asOperator = (...args: readonly string[]) => vidimus(...args, '--server-socket', server.adminSocket)

/** A configuration file of a program that is not to come up. */
const config = (name: string, kind: 'server' | 'agent', settings: object): Promise<string> => {
  const common = { trustDomain, dataDirectory: installation.path(name), adminSocket: installation.path(`${name}-admin.sock`) }
  const own =
    kind === 'server'
      ? { listen: { host: '127.0.0.1', port: 0 } }
      : { socket: installation.path(`${name}.sock`), server: { host: '127.0.0.1', port }, trustBundle: installation.path('bundle.pem') }
  return installation.write(`${name}.yaml`, JSON.stringify({ ...common, ...own, ...settings }, null, 2))
}

const start = async (kind: 'server' | 'agent', name: string, settings: object): Promise<Ended> =>
  vidimus(kind, 'run', '--config', await config(name, kind, settings))

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  )

/** The error alone, without the lines of the log around it. */
const lastWords = ({ err }: Ended): string => err.replaceAll(/^\d\d:\d\d:\d\d .*\n/gm, '')

describe('a configuration', () => {
  test('with an unknown or misspelt key is refused with its place and the nearest key; nothing is made', async () => {
    const file = await installation.write(
      'typo.yaml',
      `trustDomain: ${trustDomain}\ndataDirectory: ${installation.path('typo')}\nlisten:\n  hots: 127.0.0.1\ncolour: red\n`,
    )
    for (const verb of [
      ['server', 'run'],
      ['config', 'validate', 'server'],
    ]) {
      const ended = await vidimus(...verb, '--config', file)
      expect(ended).toMatchObject({ code: 2, out: '' })
      expect(ended.err).toContain(`${file}:4:3: \`listen.hots\`: unknown key \`hots\`: did you mean \`host\`?\n`)
      expect(ended.err).toContain(`${file}:5:1: \`colour\`: unknown key \`colour\`: expected one of \`trustDomain\``)
    }
    expect(await exists(installation.path('typo'))).toBe(false)
  })

  test('that is not there is told by its path', async () => {
    expect(await vidimus('server', 'run', '--config', installation.path('nowhere.yaml'))).toEqual({
      code: 2,
      out: '',
      err: `vidimus: \`${installation.path('nowhere.yaml')}\` does not exist\n`,
    })
  })

  test('with a malformed SPIFFE ID or trust domain is refused', async () => {
    const ids = await start('server', 'ids', { adminIds: ['spiffe://example.org/../admin'] })
    expect(ids.code).toBe(2)
    expect(ids.err).toMatch(/ids\.yaml:\d+:\d+: `adminIds\.0`: .*spiffe:\/\/example\.org\/\.\.\/admin/)
    const domain = await start('agent', 'domain', { trustDomain: 'spiffe://example.org' })
    expect(domain.code).toBe(2)
    expect(domain.err).toMatch(/domain\.yaml:\d+:\d+: `trustDomain`: `spiffe:\/\/example\.org` is not a trust domain name/)
  })
})

describe('a place to listen', () => {
  test('that another server has is named, and so is what to do', async () => {
    const ended = await start('server', 'port', { listen: { host: '127.0.0.1', port } })
    expect(ended.code).toBe(1)
    expect(lastWords(ended)).toContain(`vidimus: \`127.0.0.1:${port}\` is in use: stop the other process or choose another address`)
    expect(await exists(installation.path('port-admin.sock')), 'its own socket is gone again').toBe(false)
  })

  test('of a server that runs is not taken from it', async () => {
    const ended = await start('server', 'taken', { adminSocket: server.adminSocket })
    expect(ended.code).toBe(1)
    expect(lastWords(ended)).toBe(`vidimus: \`${server.adminSocket}\` is in use: another process listens on it\n`)
    expect((await asOperator('health')).out).toBe('the server is well\n')
  })

  test('that is a file is left alone', async () => {
    const path = await installation.write('precious.sock', 'precious')
    const ended = await start('server', 'file', { adminSocket: path })
    expect(ended.code).toBe(1)
    expect(lastWords(ended)).toBe(`vidimus: \`${path}\` exists and is not a socket: remove it or choose another path\n`)
    expect(await readFile(path, 'utf8')).toBe('precious')
  })

  test('with a path of 108 bytes is refused before anything is made', async () => {
    const path = installation.path('x').padEnd(108, 'x')
    const ended = await start('server', 'long', { adminSocket: path })
    expect(ended.code).toBe(2)
    expect(ended.err).toMatch(/long\.yaml:\d+:\d+: `adminSocket`: .* has 108 bytes: the path of a socket has at most 107\n/)
    expect(await exists(installation.path('long'))).toBe(false)
  })

  test('in a directory that others may enter is refused', async () => {
    const folder = installation.path('open')
    await mkdir(folder)
    await chmod(folder, 0o755)
    const ended = await start('server', 'loose-socket', { adminSocket: join(folder, 'api.sock') })
    expect(ended.code).toBe(1)
    expect(lastWords(ended)).toBe(
      `vidimus: \`${folder}\` can be entered by others (mode 0755): expected 0700; run \`chmod 700 ${folder}\`\n`,
    )
  })
})

describe('a data directory', () => {
  test.each(['server', 'agent'] as const)(
    'R-40 that others may enter is refused by the %s, and nothing is written into it',
    async (kind) => {
      const folder = installation.path(`loose-${kind}`)
      await mkdir(folder)
      await chmod(folder, 0o750)
      const ended = await start(kind, `loose-${kind}-config`, { dataDirectory: folder })
      expect(ended.code).toBe(1)
      expect(lastWords(ended)).toBe(
        `vidimus: \`${folder}\` can be entered by others (mode 0750): expected 0700; run \`chmod 700 ${folder}\`\n`,
      )
      expect(await readdir(folder)).toEqual([])
    },
  )

  test('of a server that runs is not used by a second one', async () => {
    const ended = await start('server', 'second', { dataDirectory: installation.path(server.name) })
    expect(ended.code).toBe(1)
    expect(lastWords(ended)).toContain(installation.path(server.name))
    expect((await asOperator('health')).out).toBe('the server is well\n')
  })
})

describe('a join token', () => {
  const agentWith = async (name: string, token: string, more: object = {}): Promise<Ended> => {
    await installation.write('bundle.pem', await server.bundlePem())
    return start('agent', name, { joinToken: { file: await installation.write(`${name}-token`, token) }, ...more })
  }

  test('A-13 that was used before admits nobody, and leaves nothing behind', async () => {
    const token = await server.joinToken()
    const first = await installation.agent(server, { joinToken: { file: await installation.write('once', token) } })
    const ended = await agentWith('again', token)
    expect(ended.code).toBe(1)
    expect(lastWords(ended)).toMatch(/^vidimus: .*join token.*(used|expired|unknown)/)
    expect(ended.err).not.toContain(token)
    expect(await readdir(installation.path('again')), 'no key, no certificate').toEqual(['lock'])
    await first.stop()
  })

  test('that expired, or that nobody made, admits nobody', async () => {
    const { out } = await asOperator('token', 'generate', '--ttl', '1s')
    const made = performance.now()
    const { out: valid } = await asOperator('token', 'generate', '--ttl', '10m')
    expect(valid).not.toBe(out)
    await eventually('the first token has had its second', () => performance.now() - made > 1000)
    const expired = await agentWith('expired', out.trim())
    expect([expired.code, lastWords(expired)]).toEqual([1, expect.stringContaining('join token') as string])
    const invented = await agentWith('invented', 'b1946ac9-2492-4d23-9f3c-1d5b6c7e8f90')
    expect([invented.code, lastWords(invented)]).toEqual([1, expect.stringContaining('join token') as string])
  })

  test('in a file that others may read is not used up', async () => {
    const token = await server.joinToken()
    const path = await installation.write('readable', token)
    await chmod(path, 0o644)
    const ended = await agentWith('readable-agent', '', { joinToken: { file: path } })
    expect([ended.code, lastWords(ended)]).toEqual([
      1,
      `vidimus: \`${path}\` can be read by others (mode 0644): expected 0600; run \`chmod 600 ${path}\`\n`,
    ])
    await chmod(path, 0o600)
    const agent = await installation.agent(server, { joinToken: { file: path } })
    await agent.stop()
  })

  test('is not shown to a server that the trust bundle does not vouch for', async () => {
    const other = await installation.server()
    const token = await server.joinToken()
    const wrong = await installation.write('wrong-bundle.pem', await other.bundlePem())
    const ended = await agentWith('misled', token, { trustBundle: wrong })
    expect(ended.code).toBe(1)
    expect(lastWords(ended)).toMatch(/^vidimus: .*(trust|bundle|verified|authority)/)
    const agent = await installation.agent(server, { joinToken: { file: await installation.write('kept', token) } })
    await agent.stop()
    await other.stop()
  })

  test('is not looked at when the trust bundle is missing or is none', async () => {
    const missing = await start('agent', 'bundleless', { trustBundle: installation.path('no-bundle.pem'), joinToken: { env: 'HOME' } })
    expect([missing.code, lastWords(missing)]).toEqual([
      1,
      `vidimus: the trust bundle \`${installation.path('no-bundle.pem')}\` does not exist: write it with \`vidimus bundle show\` on the server\n`,
    ])
    const garbage = await start('agent', 'garbage', {
      trustBundle: await installation.write('garbage.pem', 'hello'),
      joinToken: { env: 'HOME' },
    })
    expect(garbage.code).toBe(1)
    expect(lastWords(garbage)).toContain(installation.path('garbage.pem'))
  })
})

describe('what is asked of a running server', () => {
  test('with a malformed SPIFFE ID or selector, or an entry with no selectors, is a mistake of the command line', async () => {
    const entry = await asOperator(
      'entry',
      'create',
      '--spiffe-id',
      'spiffe://example.org/a//b',
      '--parent-id',
      'example.org/agent',
      '--selector',
      'unix',
    )
    expect(entry.code).toBe(2)
    expect(entry.err).toMatch(
      /`--spiffe-id`: `spiffe:\/\/example\.org\/a\/\/b`.*\n`--parent-id`: `example\.org\/agent` is not a SPIFFE ID.*\n`--selector`: `unix` is not a selector/,
    )
    const bare = await asOperator('entry', 'create', '--spiffe-id', 'spiffe://example.org/a', '--parent-id', 'spiffe://example.org/agent')
    expect([bare.code, bare.err]).toEqual([2, 'vidimus: `--selector` is missing\nrun `vidimus entry create --help` for what it takes\n'])
    expect((await asOperator('entry', 'show')).out).toBe('no entries\n')
  })

  test('a policy with an unknown field is refused with line and column, and what was in force stays', async () => {
    const good =
      'apiVersion: vidimus.dev/v1\nkind: AuthorizationPolicy\nmetadata: { name: reads }\nspec:\n  identities: [spiffe://example.org/db]\n  action: ALLOW\n  rules:\n    - to: [{ operation: { methods: [GET] } }]\n'
    const folder = installation.path('policies')
    await mkdir(folder)
    await writeFile(join(folder, 'a-good.yaml'), good)
    expect((await asOperator('policy', 'apply', folder)).code).toBe(0)
    const before = (await asOperator('policy', 'list')).out
    await writeFile(join(folder, 'b-bad.yaml'), good.replace('name: reads', 'name: other').replace('methods: [GET]', 'method: [GET]'))
    for (const verb of ['check', 'apply']) {
      const ended = await vidimus('policy', verb, folder, ...(verb === 'apply' ? ['--server-socket', server.adminSocket] : []))
      expect(ended.code).toBe(1)
      expect(ended.out + ended.err).toContain(
        `${join(folder, 'b-bad.yaml')}:8:27: \`spec.rules[0].to[0].operation.method\`: unknown key \`method\``,
      )
    }
    expect((await asOperator('policy', 'list')).out).toBe(before)
  })

  test('on a socket that nobody serves says which, and who should', async () => {
    const ended = await vidimus('entry', 'show', '--server-socket', installation.path('nobody.sock'))
    expect(ended).toEqual({
      code: 1,
      out: '',
      err: `vidimus: nobody answers on \`${installation.path('nobody.sock')}\`: is \`vidimus server run\` running on this machine? \`--server-socket\` names another socket\n`,
    })
  })
})

describe('a socket file that a crash left behind', () => {
  test('is replaced without asking', async () => {
    const path = installation.path('stale.sock')
    await leaveSocketBehind(path)
    expect(await exists(path)).toBe(true)
    const fresh = await installation.server({ adminSocket: path })
    expect(await fresh.stop()).toBe(0)
    expect(await exists(path)).toBe(false)
  })
})

/** A socket file whose process is gone: a hard link outlives the name that Node removes. */
async function leaveSocketBehind(path: string): Promise<void> {
  const listener: Server = createServer().listen(`${path}.live`)
  await once(listener, 'listening')
  await link(`${path}.live`, path)
  listener.close()
  await once(listener, 'close')
}
