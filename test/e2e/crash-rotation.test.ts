import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { verifyTrail } from '../../src/audit/verify.ts'
import { fraction, systemRandom } from '../../src/kernel/random.ts'
import { keyIdentifierOf } from '../../src/ca/x509-authority.ts'
import { Installation, type ServerProgram } from '../support/programs.ts'

/** `npm run test:crash` kills 500 times. */
const kills = Number(process.env['VIDIMUS_KILLS'] ?? 6)
const kinds = ['x509', 'jwt'] as const

let installation: Installation
beforeAll(async () => {
  installation = await Installation.open()
})
afterAll(() => installation[Symbol.asyncDispose]())

test(
  `Q-5 C-28 a server that is killed ${kills} times in the middle of forced rotations keeps one authority, all that it announced, and every serial once`,
  { timeout: 3_600_000 },
  async () => {
    const server = await installation.server({ ca: { lifetime: '10m' }, svid: { x509: '10s' }, refreshHint: '1s' })
    /** Announced and not sent away by us. */
    const expected = new Set<string>()
    let steps = 0
    for (let kill = 0; kill < kills; kill++) {
      const operating = rotate(server, expected, () => steps++)
      await pause(fraction(systemRandom) * 1500)
      await server.kill()
      await operating
      await server.start()
      await demandWhole(server, expected)
    }
    expect(steps, 'the kills met rotations').toBeGreaterThan(0)
    expect(await server.stop()).toBe(0)
    const lines = await trailOf(server)
    expect(verifyTrail(lines)).toMatchObject({ whole: true })
    const serials = lines.flatMap((line) => /"serial":"([0-9a-f]+)"/.exec(line)?.[1] ?? [])
    expect(new Set(serials).size).toBe(serials.length)
  },
)

/** Prepares, activates, taints and revokes, again and again, until the server is gone. */
async function rotate(server: ServerProgram, expected: Set<string>, onStep: () => void): Promise<void> {
  try {
    await server.asOperator(async ({ authorities }, signal) => {
      for (;;) {
        for (const kind of kinds) {
          const { active } = await authorities.state(kind, signal)
          const prepared = await authorities.prepare(kind, signal)
          onStep()
          await authorities.activate(kind, prepared.id, signal)
          expected.add(prepared.id)
          onStep()
          await authorities.taint(kind, active!.id, signal)
          onStep()
          // From here on it may be gone, whether the answer arrives or not.
          expected.delete(active!.id)
          await authorities.revoke(kind, active!.id, signal)
          onStep()
        }
      }
    })
  } catch {
    // The power went.
  }
}

/** One active authority of each kind, announced; nothing that was announced is lost; nothing is there twice. What a kill left old is taken out, as an operator would. */
async function demandWhole(server: ServerProgram, expected: ReadonlySet<string>): Promise<void> {
  await server.asOperator(async ({ authorities, bundle }, signal) => {
    const { x509Authorities, jwtAuthorities } = await bundle.find(signal)
    const announced = [
      ...x509Authorities.map(({ certificate }) => keyIdentifierOf(certificate)),
      ...jwtAuthorities.map(({ keyId }) => keyId),
    ]
    expect(new Set(announced).size, 'each once').toBe(announced.length)
    for (const id of expected) expect(announced, 'an activated authority').toContain(id)
    for (const kind of kinds) {
      const { active, old } = await authorities.state(kind, signal)
      expect(announced).toContain(active!.id)
      if (!old || expected.has(old.id)) continue
      await authorities.taint(kind, old.id, signal).catch(() => {})
      await authorities.revoke(kind, old.id, signal)
    }
  })
}

async function trailOf(server: ServerProgram): Promise<string[]> {
  const directory = installation.path(server.name)
  const files = (await readdir(directory)).filter((name) => name.startsWith('audit')).sort()
  const texts = await Promise.all(files.map((name) => readFile(join(directory, name), 'utf8')))
  return texts.join('').trimEnd().split('\n')
}
