import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isJoinToken, joinToken } from '../../src/attestation/node/join-token.ts'
import type { VerifierWorld } from '../../src/attestation/node-attestor.ts'
import { fromUtf8, utf8 } from '../../src/kernel/bytes.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { Secret, silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'

const signal = new AbortController().signal
const noChallenge = () => Promise.reject(new Error('bug: join tokens have no challenge'))

function world(tokens: string[], secret = 'unused') {
  const asked: string[] = []
  const made: VerifierWorld = {
    clock: new FakeClock(),
    random: seededRandom(1),
    files: systemFiles,
    log: silentLog,
    meter: silentMeter,
    secrets: { read: async () => new Secret(secret) },
    trustDomain: parseTrustDomain('example.org'),
    async consumeJoinToken(token) {
      asked.push(token)
      const at = tokens.indexOf(token)
      return at !== -1 && tokens.splice(at, 1).length === 1
    },
  }
  return { made, asked }
}
const verify = async (payload: Uint8Array, tokens: string[], asked?: string[]) => {
  const one = world(tokens)
  await using verifier = await joinToken.openVerifier({}, one.made)
  return await verifier.verify(payload, noChallenge, signal).finally(() => asked?.push(...one.asked))
}

describe('the server’s half refuses', () => {
  test.each(['', '.', '..', 'a/b', '../../spire/server', 'a b', 'ä', 'a%2fb', 'tok\n', 'tok\0', 'x'.repeat(256)])(
    'R-2 the token `%s` before it is used up',
    async (token) => {
      const asked: string[] = []
      await expect(verify(utf8(token), [token], asked)).rejects.toMatchObject({ reason: 'join-token.malformed' })
      expect(asked).toEqual([])
    },
  )
  test('bytes that are no text', async () => {
    await expect(verify(Uint8Array.of(0xff, 0xfe), [])).rejects.toMatchObject({ reason: 'join-token.malformed' })
  })
  test('a token that nobody made', async () => {
    await expect(verify(utf8('abc'), ['other'])).rejects.toMatchObject({ category: 'permission_denied', reason: 'join-token.not-accepted' })
  })
  test('A-13 the second use of a token', async () => {
    const { made } = world(['abc'])
    await using verifier = await joinToken.openVerifier({}, made)
    const uses = await Promise.allSettled(Array.from({ length: 100 }, () => verifier.verify(utf8('abc'), noChallenge, signal)))
    expect(uses.filter((one) => one.status === 'fulfilled')).toHaveLength(1)
  })
  test('without showing the token', async () => {
    const failure = await verify(utf8('secret/token'), []).catch((error: unknown) => error)
    expect(JSON.stringify(failure) + String(failure)).not.toContain('secret/token')
  })
})

test('the node is named after its token, as with SPIRE, and cannot attest again', async () => {
  expect(await verify(utf8('0b1c.x_Y-9'), ['0b1c.x_Y-9'])).toEqual({
    id: 'spiffe://example.org/spire/agent/join_token/0b1c.x_Y-9',
    selectors: [],
    canReattest: false,
  })
})

test('R-1 every token that is accepted makes a valid SPIFFE ID', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...'aZ0._-/%~ \n\u00e4'), maxLength: 12 }), (token) => {
      if (isJoinToken(token)) expect(parseSpiffeId(`spiffe://example.org/spire/agent/join_token/${token}`)).toContain(token)
    }),
  )
})

describe('the agent’s half', () => {
  const payload = async (secret: string) => {
    await using prover = await joinToken.openProver({ token: { env: 'X' } }, world([], secret).made)
    return fromUtf8(await prover.payload(signal))
  }
  test('sends the token’s bytes, without the line end of its file', async () => expect(await payload('abc-1\n')).toBe('abc-1'))
  test('refuses to send what no server can accept', async () => {
    await expect(payload('two words')).rejects.toMatchObject({ reason: 'join-token.malformed' })
  })
})
