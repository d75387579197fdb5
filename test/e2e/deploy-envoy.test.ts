import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { describeWithPeer } from '../support/peers.ts'
import { freePort, idOf, Installation } from '../support/programs.ts'

const bootstrap = 'deploy/envoy/sidecar.yaml'

describeWithPeer('envoy', 'the bootstrap in deploy/envoy', (peer) => {
  test('Envoy finds nothing wrong with it', async () => {
    const { stdout, stderr } = await promisify(execFile)(peer.path, ['--mode', 'validate', '-c', bootstrap, '--disable-hot-restart'])
    expect(`${stdout}${stderr}`).toContain(`configuration '${bootstrap}' OK`)
  })

  test('Envoy, started with it, holds the SVID and the policies that the agent gives it', async () => {
    await using installation = await Installation.open()
    const server = await installation.server()
    const agent = await installation.agent(server)
    await server.entries(await agent.spiffeId(), { spiffeId: idOf('/orders'), selectors: [`unix:uid:${process.getuid?.() ?? 0}`] })
    const admin = await freePort()
    const config = installation.path('sidecar.yaml')
    await writeFile(config, await pointedAt(agent.socket, admin))
    const envoy = spawn(
      peer.path,
      ['-c', config, '--use-dynamic-base-id', '--disable-hot-restart', '--concurrency', '1', '--log-level', 'error'],
      { stdio: 'ignore' },
    )
    try {
      await expect.poll(() => page(admin, 'certs'), { timeout: 30_000 }).toContain(idOf('/orders'))
      for (const filter of ['vidimus.rbac.deny', 'vidimus.rbac.allow']) {
        await expect.poll(() => page(admin, 'config_dump?resource=ecds_filters'), { timeout: 30_000 }).toContain(filter)
      }
      await expect.poll(() => page(admin, 'ready'), { timeout: 30_000 }).toContain('LIVE')
    } finally {
      envoy.kill()
      await once(envoy, 'exit')
    }
  })
})

/** The file as it is, with the addresses that its README says to set. */
async function pointedAt(socket: string, admin: number): Promise<string> {
  const ports = new Map([['9901', admin]])
  for (const port of ['8443', '9001']) ports.set(port, await freePort())
  const text = (await readFile(bootstrap, 'utf8')).replace('/run/vidimus/agent/public/api.sock', socket).replace('0.0.0.0', '127.0.0.1')
  return text.replaceAll(/port_value: (\d+)/g, (line, port: string) => (ports.has(port) ? `port_value: ${ports.get(port)}` : line))
}

async function page(admin: number, path: string): Promise<string> {
  try {
    return await (await fetch(`http://127.0.0.1:${admin}/${path}`)).text()
  } catch {
    return ''
  }
}
