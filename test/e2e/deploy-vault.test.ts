import { chmod, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { repository } from '../../tools/peers/source.ts'
import { run } from '../../tools/run.ts'
import { OpenBao } from '../support/openbao.ts'
import { describeWithPeer } from '../support/peers.ts'
import { eventually, freePort, Installation, ServerProgram } from '../support/programs.ts'

describeWithPeer('openbao', 'the walk-through in deploy/vault', (found) => {
  test('every command in it works, and the server then issues under the root that was made, and under the one that replaces it', async () => {
    await using installation = await Installation.open()
    const bao = new OpenBao(found.path)
    await using stack = new AsyncDisposableStack()
    stack.defer(() => bao.stop())
    await bao.start(installation.directory)
    const [setUp, permit, check, replace, ...rest] = await blocks()
    expect(rest).toEqual([])
    const [port, adminSocket] = [await freePort(), installation.path('api.sock')]
    const text = (await readFile(join(repository, 'deploy/vault/server.yaml'), 'utf8'))
      .replaceAll('https://vault.example.org:8200', bao.address)
      .replaceAll(/^ *caFile: .*\n/gm, '')
      .replaceAll('/etc/vidimus/', `${installation.directory}/`)
    const settings = {
      dataDirectory: installation.path('data'),
      adminSocket,
      listen: { host: '127.0.0.1', port },
      ca: { lifetime: '40s' },
      svid: { x509: '5s' },
      refreshHint: '1s',
    }
    const written = Object.entries(settings).map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`)
    const config = await installation.write('server.yaml', `${text}${written.join('')}`)

    const shell = async (script: string): Promise<string> => {
      const env = { BAO_ADDR: bao.address, BAO_TOKEN: bao.token, PATH: `${dirname(process.execPath)}:${process.env['PATH']}` }
      const prelude = `set -eu -o pipefail\nvault() { '${found.path}' "$@"; }\nvidimus() { node '${join(repository, 'src/main/cli.ts')}' "$@"; }\n`
      const done = await run('bash', ['-c', `${prelude}${script}`], { cwd: installation.directory, env, deadlineMs: 60_000 })
      expect(done, done.stdout + done.stderr).toMatchObject({ code: 0 })
      return done.stdout
    }
    await shell(setUp!)
    await shell(permit!)
    expect(await shell(check!)).not.toContain('missing')
    await chmod(installation.directory, 0o700)

    const server = stack.use(new ServerProgram('server', ['server', 'run', '--config', config], adminSocket, port))
    await server.start()
    const bundle = async () => (await server.bundlePem()).trim().split(/(?<=-----END CERTIFICATE-----)\n/)
    const root = (await readFile(installation.path('root.pem'), 'utf8')).trim()
    expect(await bundle()).toEqual([root])

    await shell(replace!)
    const next = (await readFile(installation.path('root-2.pem'), 'utf8')).trim()
    await eventually('the CA is below the new root', async () => (await bundle()).includes(next), 40_000)
    expect(await bundle()).toEqual([root, next])
    // Its SVID is the first that is issued.
    await installation.agent(server)
    expect(server.log.filter((line) => line.includes('"level":"error"'))).toEqual([])
  })
})

/** The commands of the page, a block each. */
async function blocks(): Promise<readonly string[]> {
  const page = await readFile(join(repository, 'deploy/vault/README.md'), 'utf8')
  return [...page.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, commands]) => commands!)
}
