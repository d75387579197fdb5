import { describe, expect, test } from 'vitest'
import { joinToken } from '../../src/attestation/node/join-token.ts'
import type { VerifierWorld } from '../../src/attestation/node-attestor.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { Secret, silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'

/** What every kind of node evidence keeps. Each row brings a world in which its example evidence is accepted once. */
const drivers = [{ driver: joinToken, kind: joinToken.kind, secret: 'token-1' }]
const signal = new AbortController().signal

function worldOf(secret: string): VerifierWorld {
  const tokens = new Set([secret])
  return {
    clock: new FakeClock(),
    random: seededRandom(1),
    files: systemFiles,
    log: silentLog,
    meter: silentMeter,
    secrets: { read: async () => new Secret(secret) },
    trustDomain: parseTrustDomain('example.org'),
    consumeJoinToken: async (token) => tokens.delete(token),
  }
}

describe.each(drivers)('node attestor $kind', ({ driver, secret }) => {
  const noChallenge = () => Promise.reject(new Error('bug: no challenge is expected'))

  test('its examples are valid configurations, and an unknown key is not', () => {
    for (const [schema, example] of [
      [driver.serverConfig, driver.example.server],
      [driver.agentConfig, driver.example.agent],
    ] as const) {
      expect(schema.safeParse(example).success).toBe(true)
      expect(schema.safeParse({ ...(example as object), noSuchKey: 1 }).success).toBe(false)
    }
  })

  test.each([0, 1, 64, 100_000])('refuses %d bytes of nothing with a reason', async (length) => {
    const world = worldOf(secret)
    await using verifier = await driver.openVerifier(driver.serverConfig.parse(driver.example.server), world)
    const refusal = await verifier.verify(new Uint8Array(length), noChallenge, signal).catch((error: unknown) => error)
    expect(refusal).toBeInstanceOf(Failure)
    expect((refusal as Failure).reason).toMatch(/^[a-z0-9-]+\.[a-z0-9-]+$/)
  })

  test('the agent’s half convinces the server’s half, under an ID of the agents’ part of the trust domain', async () => {
    const world = worldOf(secret)
    await using verifier = await driver.openVerifier(driver.serverConfig.parse(driver.example.server), world)
    await using prover = await driver.openProver(driver.agentConfig.parse(driver.example.agent), world)
    expect(prover.type).toBe(driver.kind)
    const proven = await verifier.verify(
      await prover.payload(signal),
      (challenge) => prover.answer?.(challenge, signal) ?? noChallenge(),
      signal,
    )
    expect(parseSpiffeId(proven.id).startsWith(`spiffe://example.org/spire/agent/${driver.kind}/`)).toBe(true)
    for (const one of proven.selectors) expect(one.type).toBe(driver.kind)
  })
})
