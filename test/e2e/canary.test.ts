import { randomUUID } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { scrapedText } from '../support/prometheus.ts'
import { idOf, Installation, runVidimus, type AgentProgram, type ServerProgram } from '../support/programs.ts'

let installation: Installation
let server: ServerProgram
let agent: AgentProgram
const metrics = { prometheus: { port: 0 } }

beforeAll(async () => {
  installation = await Installation.open()
  server = await installation.server({ metrics, log: { format: 'json', level: 'debug' } })
  agent = await installation.agent(server, { metrics, log: { format: 'json', level: 'debug' } })
})
afterAll(() => installation[Symbol.asyncDispose]())

test('R-36 no key, no token, no evidence and no variable of an environment is in a log, a metric, the audit trail or an intent, at the most talkative level', async () => {
  const joinTokens = [await server.joinToken()]
  for (const name of await readdir(installation.directory)) {
    if (name.endsWith('-token')) joinTokens.push((await readFile(installation.path(name), 'utf8')).trim())
  }
  const uid = process.getuid!()
  const canary = `canary-${randomUUID()}`
  const secretive = [`unix:uid:${uid}`, `docker:env:PASSWORD=${canary}`]
  await server.entries(await agent.spiffeId(), { spiffeId: idOf('/secretive'), selectors: secretive })
  const explained = () =>
    runVidimus('explain', 'workload', '--pid', String(process.pid), '--agent-admin-socket', agent.adminSocket).catch(String)
  await expect.poll(explained, { timeout: 20_000 }).toContain('docker:env:PASSWORD=[secret]')
  await expect(runVidimus('fetch', 'x509', '--socket', agent.address)).rejects.toThrow('no identity issued')
  await expect.poll(() => agent.log.join('\n')).toContain('lacks docker:env:PASSWORD=[secret]')
  await server.entries(await agent.spiffeId(), { spiffeId: idOf('/workload'), selectors: [`unix:uid:${uid}`] })
  const socket = ['--socket', agent.address]
  const written = installation.path('written')
  await retried(() => runVidimus('fetch', 'x509', ...socket, '--write', written))
  const jwt = await runVidimus('fetch', 'jwt', '--audience', 'a', ...socket, '--output', 'json')
  const workloadKeys = (await textsUnder(written, (path) => path.endsWith('.key'))).flatMap((pem) =>
    pem.split('\n').filter((line) => line.length > 20),
  )
  const tokens = [...jwt.matchAll(/eyJ[\w-]+\.[\w-]+\.[\w-]+/g)].map((match) => match[0])
  // Keys at rest are secrets as well; whatever their files hold beside them is told by its form.
  const keyLines = (await textsUnder(installation.path(server.name), (path) => path.includes('keys'))).flatMap((text) =>
    [...text.matchAll(/[A-Za-z0-9+/=_-]{60,}/g)].map((match) => match[0]),
  )
  expect([workloadKeys.length > 0, tokens.length > 0, keyLines.length > 0, joinTokens.length]).toEqual([true, true, true, 2])

  const said = [
    await scrapedText(server),
    await scrapedText(agent),
    ...server.log,
    ...agent.log,
    ...(await textsUnder(installation.path(server.name), (path) => /audit|intents/.test(path))),
  ].join('\n')
  expect(said).toContain('x509-svid.issued')
  expect(said).toContain('vidimus_agent_svids 2')
  for (const secret of [...joinTokens.slice(0, 1), ...tokens, ...tokens.map((token) => token.split('.')[2]!), ...keyLines])
    expect(said).not.toContain(secret)
  for (const line of workloadKeys.filter((one) => !one.startsWith('-----'))) expect(said).not.toContain(line)
  expect(said).not.toContain('PRIVATE KEY')
  expect(said).not.toContain(canary)
  expect(await explained()).not.toContain(canary)
})

async function textsUnder(folder: string, isMeant: (path: string) => boolean): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
  return Promise.all(paths.filter(isMeant).map((path) => readFile(path, 'utf8')))
}

/** The agent hears of a new entry within a second. */
async function retried(deed: () => Promise<string>): Promise<string> {
  for (let tries = 0; tries < 20; tries++) {
    try {
      return await deed()
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 500))
    }
  }
  return deed()
}
