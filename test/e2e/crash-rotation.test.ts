import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { keyIdentifierOf } from '../../src/ca/x509-authority.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { fraction, systemRandom } from '../../src/kernel/random.ts'
import type { AdminClient } from '../../src/server-api/client.ts'
import { Installation, type ServerProgram } from '../support/programs.ts'
import { IssuanceLedger } from './issuance-ledger.ts'
import { cutOff, IssuingAgent } from './issuing-agent.ts'

/** `npm run test:crash` kills 500 times in forced rotations, and 100 times where old authorities are pruned. */
const kills = Number(process.env['VIDIMUS_KILLS'] ?? 10)
/** Killed at the same time, each its share. */
const servers = kills < 100 ? 1 : 4
/** An authority is pruned a minute after it was made at the earliest: too long for every run. */
const prunes = kills < 100 ? 0 : kills / 5
const kinds = ['x509', 'jwt'] as const
/** Where in a forced rotation, or with which signature on its way, the power goes. */
const points = ['prepare', 'activate', 'sign', 'taint', 'revoke'] as const
type Point = (typeof points)[number]

let installation: Installation
beforeAll(async () => {
  installation = await Installation.open()
})
afterAll(() => installation[Symbol.asyncDispose]())

describe.concurrent('a server that is killed while it issues', () => {
  test.for(Array.from({ length: servers }, (_, index) => index + 1))(
    `Q-5 C-10 C-28 ${kills / servers} times in forced rotations keeps one authority, all that it announced, and a record of every certificate (server %i)`,
    { timeout: 7_200_000 },
    async () => {
      const server = await installation.server({ ca: { lifetime: '10m' }, svid: { x509: '1m' }, refreshHint: '1s' })
      const ledger = new IssuanceLedger(installation.path(server.name))
      /** Announced and not sent away by us. */
      const expected = new Set<string>()
      const met: Record<Point, number> = { prepare: 0, activate: 0, sign: 0, taint: 0, revoke: 0 }
      for (let kill = 0; kill < kills / servers; kill++) {
        await using agent = await IssuingAgent.join(server)
        const aim = new Aim(points[kill % points.length]!, 1 + Math.floor(fraction(systemRandom) * 3))
        const asking = agent.askUntilCutOff(() => aim.reach('sign'))
        const operating = rotate(server, agent, expected, (point) => aim.reach(point))
        await Promise.race([aim.reached, operating, asking])
        if (aim.isReached) met[aim.point]++
        await pause(fraction(systemRandom) * longestCall)
        await server.kill()
        await Promise.all([operating, asking])
        await server.start()
        await demandWhole(server, expected)
        await ledger.check(agent.received)
        expect(ledger.problems).toEqual([])
      }
      await demandHealthy(server)
      expect(await server.stop()).toBe(0)
      await ledger.checkAll()
      expect(ledger.problems).toEqual([])
      expect(Math.min(...Object.values(met)), 'the kills met each step').toBeGreaterThan(0)
      expect(ledger.certificates).toBeGreaterThan(kills)
      tell(`${kills / servers} kills in forced rotations: ${JSON.stringify(met)}, ${ledger.certificates} certificates and tokens received`)
    },
  )

  if (prunes > 0)
    test(
      `Q-5 C-22 ${prunes} times when old authorities end keeps what is trusted, and nothing that was pruned comes back`,
      { timeout: 7_200_000 },
      async () => {
        const server = await installation.server({ ca: { lifetime: '30s' }, svid: { x509: '5s', jwt: '5s' }, refreshHint: '1s' })
        const ledger = new IssuanceLedger(installation.path(server.name))
        /** When each that was activated may be forgotten. */
        const ends = new Map<string, number>()
        let met = 0
        for (let kill = 0; kill < prunes; kill++) {
          await using agent = await IssuingAgent.join(server)
          const asking = agent.askUntilCutOff(() => {})
          const next = await replaced(server, kinds[kill % kinds.length]!, ends)
          const until = Math.min(...[...ends.values()].filter((end) => end > Date.now()), next)
          if (until !== next) met++
          await pause(Math.max(0, until - Date.now() - 10 + fraction(systemRandom) * longestCall))
          await server.kill()
          await asking
          await server.start()
          await demandTrusted(server, ends)
          await ledger.check(agent.received)
          expect(ledger.problems).toEqual([])
        }
        await demandHealthy(server)
        expect(await server.stop()).toBe(0)
        await ledger.checkAll()
        expect(ledger.problems).toEqual([])
        tell(`${prunes} kills around the end of authorities, ${met} at one: ${ledger.certificates} certificates and tokens received`)
      },
    )
})

/** Where the next kill is to be. */
class Aim {
  readonly point: Point
  #left: number
  readonly #reached = Promise.withResolvers<void>()

  constructor(point: Point, times: number) {
    this.point = point
    this.#left = times
  }

  get reached(): Promise<void> {
    return this.#reached.promise
  }

  get isReached(): boolean {
    return this.#left <= 0
  }

  reach(point: Point): void {
    if (point === this.point && --this.#left <= 0) this.#reached.resolve()
  }
}

/** Prepares, activates, taints and revokes, again and again, until the server is gone. */
async function rotate(server: ServerProgram, agent: IssuingAgent, expected: Set<string>, on: (point: Point) => void): Promise<void> {
  await untilGone(server, async ({ authorities }, signal) => {
    for (;;) {
      for (const kind of kinds) {
        const { active } = await authorities.state(kind, signal)
        on('prepare')
        const prepared = await authorities.prepare(kind, signal)
        on('activate')
        await authorities.activate(kind, prepared.id, signal)
        expected.add(prepared.id)
        on('taint')
        await authorities.taint(kind, active!.id, signal)
        await agent.renewed()
        // From here on it may be gone, whether the answer arrives or not.
        expected.delete(active!.id)
        on('revoke')
        await authorities.revoke(kind, active!.id, signal)
      }
    }
  })
}

/** Another authority takes over; resolves to when the old one would be pruned if there were nothing else to wait for. */
async function replaced(server: ServerProgram, kind: (typeof kinds)[number], ends: Map<string, number>): Promise<number> {
  return server.asOperator(async ({ authorities }, signal) => {
    try {
      const { id } = await authorities.prepare(kind, signal)
      const { expiresAt } = await authorities.activate(kind, id, signal)
      ends.set(id, expiresAt + keptExpired)
    } catch (error) {
      // Eight old ones are trusted, or the server has just replaced it itself.
      if (!Failure.from(error).reason.startsWith('authority.')) throw error
    }
    return Date.now() + 2000
  })
}

async function untilGone(server: ServerProgram, deed: Parameters<typeof server.asOperator<void>>[0]): Promise<void> {
  try {
    await server.asOperator(deed)
  } catch (error) {
    if (!cutOff.has(Failure.from(error).category)) throw error
  }
}

/** One active authority of each kind, announced; nothing that was announced is lost; nothing is there twice. What a kill left old is taken out, as an operator would. */
async function demandWhole(server: ServerProgram, expected: Set<string>): Promise<void> {
  await server.asOperator(async (admin, signal) => {
    const announced = await announcedBy(admin, signal)
    for (const id of expected) expect(announced, 'an activated authority').toContain(id)
    for (const kind of kinds) {
      const { active, prepared, old } = await admin.authorities.state(kind, signal)
      expect(announced).toContain(active!.id)
      const states = [active, prepared, old].flatMap((one) => (one ? [one.id] : []))
      expect(new Set(states).size, 'each in one state').toBe(states.length)
      if (!old) continue
      await admin.authorities.taint(kind, old.id, signal).catch((error: unknown) => {
        if (Failure.from(error).reason !== 'authority.already-tainted') throw error
      })
      expected.delete(old.id)
      await admin.authorities.revoke(kind, old.id, signal)
      expect((await admin.authorities.state(kind, signal)).old, 'the only old one').toBeUndefined()
    }
  })
}

/** Until an authority may be forgotten it is announced, and soon after it is no longer, whatever happened meanwhile. */
async function demandTrusted(server: ServerProgram, ends: Map<string, number>): Promise<void> {
  await server.asOperator(async (admin, signal) => {
    const announced = await announcedBy(admin, signal)
    const now = Date.now()
    for (const [id, end] of ends) {
      if (end > now) expect(announced, 'an authority of which something may live').toContain(id)
      else if (end < now - 10_000) expect(announced, 'a pruned authority').not.toContain(id)
    }
    for (const kind of kinds) expect(announced).toContain((await admin.authorities.state(kind, signal)).active!.id)
  })
}

async function announcedBy({ bundle }: AdminClient, signal: AbortSignal): Promise<readonly string[]> {
  const { x509Authorities, jwtAuthorities } = await bundle.find(signal)
  const announced = [...x509Authorities.map(({ certificate }) => keyIdentifierOf(certificate)), ...jwtAuthorities.map(({ keyId }) => keyId)]
  expect(new Set(announced).size, 'each once').toBe(announced.length)
  return announced
}

async function demandHealthy(server: ServerProgram): Promise<void> {
  expect(await server.asOperator((admin, signal) => admin.isHealthy(signal))).toBe(true)
}

const tell = (line: string): boolean => process.stdout.write(`${line}\n`)

/** Within which an administrative call is done on two busy cores, in milliseconds. */
const longestCall = 60
/** An old authority is trusted for another lifetime of 30 s after its end. */
const keptExpired = 30_000
