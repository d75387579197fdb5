import { readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { verifyTrail } from '../../src/audit/verify.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { seconds } from '../../src/kernel/duration.ts'
import { fraction, systemRandom } from '../../src/kernel/random.ts'
import { fingerprint } from '../../src/x509/certificate.ts'
import { openWorkloadApiClient, type X509Context } from '../../src/workload-client/client.ts'
import { type AgentProgram, idOf, Installation, type Program, type ServerProgram } from '../support/programs.ts'
import { EntryWriter } from './entry-writer.ts'

/** The shortest lifetimes that the configuration takes, so that there is always something being rotated. */
const settings = { ca: { lifetime: '30s' }, svid: { x509: '10s', agent: '20s' }, refreshHint: '1s' }
const kills = 12

let installation: Installation
beforeAll(async () => {
  installation = await Installation.open()
})
afterAll(() => installation[Symbol.asyncDispose]())

/** Between nothing and `most` milliseconds. */
const anyMoment = (most: number): Promise<void> => pause(fraction(systemRandom) * most)

describe('a server that is killed at any moment', () => {
  test('Q-5 loses no acknowledged write and no authority, makes none twice, and starts again by itself', async () => {
    const server = await installation.server(settings)
    const writer = new EntryWriter(server)
    const seen = new Map<string, number>()
    for (let kill = 0; kill < kills; kill++) {
      const writing = writer.writeUntilCutOff()
      await anyMoment(600)
      await noteAuthorities(server, seen)
      await anyMoment(200)
      await server.kill()
      await writing
      expect(await isThere(server.adminSocket), 'the socket file is left behind').toBe(true)
      if (kill % 3 === 0) await killWhileStarting(server)
      await server.start()
      expect(await writer.broken()).toEqual([])
      await demandAuthorities(server, seen)
    }
    expect(writer.acknowledged, 'the kills met writes').toBeGreaterThan(kills * 3)
    expect(await server.stop()).toBe(0)
    const trail = (await readFile(join(installation.path(server.name), 'audit.log'), 'utf8')).trimEnd().split('\n')
    expect(verifyTrail(trail)).toMatchObject({ whole: true, lines: trail.length })
    for (const id of writer.created)
      expect(
        trail.some((line) => line.includes(id)),
        `${id} is in the trail`,
      ).toBe(true)
  })
})

describe('an agent that is killed at any moment', () => {
  test('Q-6 goes on with the identity it had, without a token, and serves a valid SVID', async () => {
    const server = await installation.server(settings)
    const agent = await installation.agent(server)
    await rm(installation.path(`${agent.name}-token`))
    await installation.write(`${agent.name}-token`, 'used-up')
    const id = await agent.spiffeId()
    await server.entries(id, { spiffeId: idOf('/crash'), selectors: [`unix:uid:${process.getuid!()}`] })
    const serials = new Set<string>()
    for (let kill = 0; kill < kills; kill++) {
      serials.add(await validSerial(agent))
      await anyMoment(900)
      await agent.kill()
      expect(await isThere(agent.socket), 'the socket file is left behind').toBe(true)
      if (kill % 3 === 0) await killWhileStarting(agent)
      await agent.start()
      expect(await agent.spiffeId()).toBe(id)
    }
    serials.add(await validSerial(agent))
    expect(serials.size, 'the kills met renewals').toBeGreaterThan(1)
    expect(await server.asOperator(({ agents }, signal) => agents.list(signal)), 'nobody joined anew').toHaveLength(1)
    expect(await agent.stop()).toBe(0)
    expect(await isThere(agent.socket)).toBe(false)
    await server.stop()
  })

  test('and its server with it: both come back in either order, and the workload has its identity', async () => {
    const server = await installation.server(settings)
    const agent = await installation.agent(server)
    await server.entries(await agent.spiffeId(), { spiffeId: idOf('/both'), selectors: [`unix:uid:${process.getuid!()}`] })
    await validSerial(agent)
    for (const order of [
      [server, agent],
      [agent, server],
    ]) {
      await anyMoment(500)
      await Promise.all([server.kill(), agent.kill()])
      for (const program of order) await program.start()
      await validSerial(agent)
    }
    await agent.stop()
    await server.stop()
  })
})

/** Ends a program before or just after it is ready. */
async function killWhileStarting(program: Program): Promise<void> {
  const starting = program.start().catch(() => {})
  await anyMoment(1200)
  await program.kill()
  await starting
}

/** Every authority in the bundle and when it ends. */
async function noteAuthorities(server: ServerProgram, seen: Map<string, number>): Promise<void> {
  const bundle = await server.asOperator((admin, signal) => admin.bundle.find(signal))
  for (const { certificate } of bundle.x509Authorities) seen.set(fingerprint(certificate), certificate.notAfter)
}

/** What was announced and has not ended is announced still; nothing is there twice; there are not more than rotation makes. */
async function demandAuthorities(server: ServerProgram, seen: ReadonlyMap<string, number>): Promise<void> {
  const bundle = await server.asOperator((admin, signal) => admin.bundle.find(signal))
  const now = bundle.x509Authorities.map(({ certificate }) => fingerprint(certificate))
  for (const [authority, until] of seen) if (until > systemClock.now()) expect(now, 'an announced authority').toContain(authority)
  expect(new Set(now).size, 'each once').toBe(now.length)
  expect(new Set(bundle.jwtAuthorities.map(({ keyId }) => keyId)).size, 'each JWT key once').toBe(bundle.jwtAuthorities.length)
  expect(now.length, 'active, next, and those that ended within a lifetime').toBeLessThanOrEqual(6)
}

/** The serial number of the SVID that the agent gives us, which the client verified; asks again while the agent says that it is not ready. */
async function validSerial(agent: AgentProgram): Promise<string> {
  await using client = openWorkloadApiClient({ scheme: 'unix', path: agent.socket }, systemClock)
  const signal = AbortSignal.timeout(seconds(30))
  for (;;) {
    try {
      return (await first(client.watchX509(signal))).identities[0].chain[0]!.serial
    } catch (error) {
      if (signal.aborted) throw error
      await pause(50)
    }
  }
}

async function first(stream: AsyncIterable<X509Context>): Promise<X509Context> {
  for await (const context of stream) return context
  throw new Error('the stream ended')
}

const isThere = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  )
