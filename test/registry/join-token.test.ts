import { expect, test } from 'vitest'
import { joinTokenAgent, joinTokenDigest } from '../../src/registry/join-token.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'

test.each(['', '.', '..', 'a/b', 'a b', 'a%2f', 'ä', 'x'.repeat(256)])('R-2 refuses %j as a join token', (token) => {
  expect(() => joinTokenAgent(parseTrustDomain('example.org'), token)).toThrow(expect.objectContaining({ reason: 'join-token.malformed' }))
})

test('R-36 a refusal does not show the token', () => {
  expect(() => joinTokenAgent(parseTrustDomain('example.org'), 'secret value')).toThrow(
    expect.objectContaining({ message: expect.not.stringContaining('secret') }),
  )
})

test('a token names its agent, and is kept by its digest', () => {
  expect(joinTokenAgent(parseTrustDomain('example.org'), 'abc-1')).toBe('spiffe://example.org/spire/agent/join_token/abc-1')
  expect(joinTokenDigest('abc')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')
})
