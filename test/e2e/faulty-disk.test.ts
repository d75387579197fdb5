import { readFile, rm, writeFile, open } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { verifyTrail } from '../../src/audit/verify.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { seconds } from '../../src/kernel/duration.ts'
import { openWorkloadApiClient } from '../../src/workload-client/client.ts'
import { type AgentProgram, eventually, idOf, Installation, runVidimus, type ServerProgram } from '../support/programs.ts'
import { describeWithSmallDisk, SmallDisk } from '../support/small-disk.ts'

let installation: Installation
let disk: SmallDisk
beforeEach(async () => {
  installation = await Installation.open()
  disk = await SmallDisk.open(installation.path('disk'), 16)
})
afterEach(async () => {
  await installation[Symbol.asyncDispose]()
  await disk[Symbol.asyncDispose]()
})

describeWithSmallDisk('a server whose disk is full', () => {
  test('Q-18 C-10 R-37 issues nothing and says why; workloads keep what they have; all goes on by itself when there is room', async () => {
    const server = await installation.server({ dataDirectory: disk.directory }, disk.prefix)
    const agent = await agentWithWorkload(server)
    const { serial } = await svid(agent)
    const pid = server.pid
    await disk.fill()

    // What is left of a page of the file of intents may still take some.
    await eventually('nothing is issued', () =>
      token(agent).then(
        () => false,
        () => true,
      ),
    )
    await expect(token(agent)).rejects.toMatchObject({ category: 'unavailable' })
    await expect(register(server, '/more')).rejects.toMatchObject({ category: 'unavailable' })
    await eventually('the server is not well', async () => !(await isHealthy(server)))
    expect(await server.logged('nothing can be issued')).toMatch(/ENOSPC/)
    expect((await svid(agent)).serial).toBe(serial)

    await disk.free()
    await eventually('the server is well', () => isHealthy(server))
    await register(server, '/more')
    await eventually('a token is issued', () =>
      token(agent).then(
        () => true,
        () => false,
      ),
    )
    expect(server.pid).toBe(pid)
    expect(await server.stop()).toBe(0)
    const trail = (await readFile(disk.path('audit.log'), 'utf8')).trimEnd().split('\n')
    expect(verifyTrail(trail)).toMatchObject({ whole: true })
    await server.start()
    await register(server, '/after')
  })

  test('Q-18 C-10 goes on issuing where only the store has no room, refuses what it could not keep, and complains', async () => {
    const server = await installation.server({ store: { kind: 'sqlite', path: `${disk.directory}/store.sqlite` } }, disk.prefix)
    const agent = await agentWithWorkload(server)
    await svid(agent)
    await disk.fill()
    await eventually('the server is not well', async () => !(await isHealthy(server)))
    expect(await server.logged('the server is not well')).toContain('the store cannot be written')
    await expect(register(server, '/more')).rejects.toMatchObject({
      category: 'unavailable',
      message: 'the store does not work at the moment',
    })
    await token(agent)
    await disk.free()
    await eventually('the server is well', () => isHealthy(server))
    await register(server, '/more')
    await token(agent)
    expect(await server.stop()).toBe(0)
  })
})

describeWithSmallDisk('a server on a disk', () => {
  test('Q-18 that is read-only does not start, and says what it cannot write; it starts when the disk is as it was', async () => {
    const server = await installation.server({ dataDirectory: disk.directory }, disk.prefix)
    await register(server, '/before')
    await server.stop()
    await disk.setReadOnly(true)
    await expect(server.start()).rejects.toThrow(new RegExp(`EROFS.*${disk.directory}`))
    await disk.setReadOnly(false)
    await server.start()
    await register(server, '/after')
  })

  test('Q-18 that takes no new key issues with the one that it has, refuses the next authority, and prepares it when it can', async () => {
    const server = await installation.server({ dataDirectory: disk.directory }, disk.prefix)
    const agent = await agentWithWorkload(server)
    await svid(agent)
    await disk.coverReadOnly('keys')
    const prepare = () => server.asOperator(({ authorities }, signal) => authorities.prepare('x509', signal))
    await expect(prepare()).rejects.toMatchObject({ internal: { text: expect.stringMatching(/keys.*cannot be written/) as string } })
    await token(agent)
    await disk.uncover('keys')
    await prepare()
  })

  test('Q-18 that lost a part of its store refuses to start on it, and says what to do', async () => {
    const server = await installation.server({ dataDirectory: disk.directory }, disk.prefix)
    await register(server, '/before')
    await server.stop()
    const path = disk.path('vidimus.sqlite')
    const whole = await readFile(path)
    {
      await using file = await open(path, 'r+')
      await file.write(Buffer.alloc(whole.length - 4096, 0xa5), 0, whole.length - 4096, 4096)
    }
    await expect(server.start()).rejects.toThrow(/vidimus\.sqlite.*damaged.*backup/s)
    await writeFile(path, Buffer.alloc(whole.length, 0xa5))
    await expect(server.start()).rejects.toThrow(/vidimus\.sqlite.*backup/s)
    await rm(path)
    await writeFile(path, whole, { mode: 0o600 })
    await server.start()
  })
})

describeWithSmallDisk('an agent whose disk is full', () => {
  test('Q-18 says so, serves its workloads beyond the end of its own SVID, and keeps its identity when there is room', async () => {
    const server = await installation.server({ svid: { agent: '20s' } })
    const agent = await agentWithWorkload(server, { dataDirectory: disk.directory }, disk.prefix)
    await svid(agent)
    await disk.fill()
    const status = async () =>
      JSON.parse(await runVidimus('health', '--agent', '--agent-admin-socket', agent.adminSocket, '--output', 'json')) as {
        complaints: string[]
      }
    const complains = async () => (await status()).complaints.some((one) => /cannot be kept on disk.*(ENOSPC|no space)/.test(one))
    await eventually('the agent complains', () => complains().catch(() => false), 40_000)
    await agent.logged('is used although it cannot be kept', 40_000)
    // Its connection to the server comes back with the new one.
    await eventually('the agent is ready, and complains', () => complains().catch(() => false))
    await svid(agent)
    await eventually('a token is issued', () =>
      token(agent).then(
        () => true,
        () => false,
      ),
    )
    await disk.free()
    await eventually('the agent has nothing to complain of', async () => (await status().catch(() => undefined))?.complaints.length === 0)
    const id = await agent.spiffeId()
    await agent.kill()
    await agent.start()
    expect(await agent.spiffeId()).toBe(id)
    await svid(agent)
  })
})

/** An agent on its own disk unless told otherwise, with an entry for us. */
async function agentWithWorkload(server: ServerProgram, settings: object = {}, prefix: readonly string[] = []): Promise<AgentProgram> {
  const agent = await installation.agent(server, settings, prefix)
  // Root within the namespace of a small disk is whoever made it.
  const selectors = [`unix:uid:${prefix.length > 0 ? 0 : process.getuid!()}`]
  await server.entries(await agent.spiffeId(), { spiffeId: idOf('/disk'), selectors })
  return agent
}

const register = (server: ServerProgram, path: string) =>
  server.entries(idOf('/parent'), { spiffeId: idOf(path), selectors: ['unix:uid:1'] })

const isHealthy = (server: ServerProgram): Promise<boolean> => server.asOperator((admin, signal) => admin.isHealthy(signal))

/** What the agent serves us, as soon as it does. */
async function svid(agent: AgentProgram): Promise<{ readonly serial: string }> {
  await using client = openWorkloadApiClient({ scheme: 'unix', path: agent.socket }, systemClock)
  const signal = AbortSignal.timeout(seconds(30))
  for (;;) {
    try {
      for await (const { identities } of client.watchX509(signal)) return { serial: identities[0].chain[0]!.serial }
    } catch (error) {
      if (signal.aborted) throw error
      await pause(50)
    }
  }
}

/** A token that nobody has asked for before: it has to be signed. */
async function token(agent: AgentProgram): Promise<void> {
  await using client = openWorkloadApiClient({ scheme: 'unix', path: agent.socket }, systemClock)
  await client.fetchJwt([`audience-${++tokens}`], undefined, AbortSignal.timeout(seconds(30)))
}
let tokens = 0
