import { afterAll, beforeAll, expect, test } from 'vitest'
import { joinToken } from '../../src/attestation/node/join-token.ts'
import type { NodeProver } from '../../src/attestation/node-attestor.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { Secret, silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { systemRandom } from '../../src/kernel/random.ts'
import { connectServer } from '../../src/server-api/client.ts'
import { parseBundle } from '../../src/spiffe/bundle-document.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { createCertificateRequest } from '../../src/x509/certificate-request.ts'
import { generateKeyPair } from '../../src/x509/key-type.ts'
import { signerOf } from '../../src/x509/signature.ts'
import { Installation, type ServerProgram, trustDomain } from '../support/programs.ts'

let installation: Installation
let server: ServerProgram
beforeAll(async () => {
  installation = await Installation.open()
  server = await installation.server()
})
afterAll(() => installation[Symbol.asyncDispose]())

const world = { clock: systemClock, random: systemRandom, files: systemFiles, log: silentLog, meter: silentMeter }
const proverOf = (token: string): Promise<NodeProver> =>
  joinToken.openProver({ token: { env: 'TOKEN' } }, { ...world, secrets: { read: async () => new Secret(token) } })

/** Attests as an agent does, with a key and a connection of its own; the reason if it is refused. */
async function attest(token: string): Promise<string> {
  const bundle = parseBundle(parseTrustDomain(trustDomain), await server.bundlePem())
  const { privateKey } = await generateKeyPair('ec-p256')
  const csr = await createCertificateRequest({ signer: signerOf(privateKey) })
  await using upstream = connectServer({ host: '127.0.0.1', port: server.port }, world)
  try {
    const { svid } = await upstream.attest(await proverOf(token), csr, bundle, AbortSignal.timeout(60_000))
    return svid.spiffeId
  } catch (error) {
    return Failure.from(error).category
  }
}

test('A-13 of a hundred that use one token at once, the real server admits one, and tells the others nothing but no', async () => {
  const token = await server.joinToken()
  const outcomes = await Promise.all(Array.from({ length: 100 }, () => attest(token)))
  const admitted = outcomes.filter((one) => one.startsWith('spiffe://'))
  expect(admitted).toEqual([`spiffe://${trustDomain}/spire/agent/join_token/${token}`])
  expect(new Set(outcomes.filter((one) => !one.startsWith('spiffe://')))).toEqual(new Set(['permission_denied']))
  expect(await server.asOperator(({ agents }, signal) => agents.list(signal))).toHaveLength(1)
})

test('A-13 a token stays used when the server is killed right after', async () => {
  const token = await server.joinToken()
  expect(await attest(token)).toMatch(/^spiffe:/)
  await server.kill()
  await server.start()
  expect(await attest(token)).toBe('permission_denied')
})

test('a token that is not used yet survives the server', async () => {
  const token = await server.joinToken()
  await server.kill()
  await server.start()
  expect(await attest(token)).toMatch(/^spiffe:/)
})

test('V-15 a token that can still be used is not in the log of the server', async () => {
  const token = await server.joinToken()
  expect(await attest('b1946ac9-2492-4d23-9f3c-1d5b6c7e8f90')).toBe('permission_denied')
  expect(server.log.join('\n')).not.toContain(token)
  expect(server.log.join('\n'), 'nor what somebody guessed').not.toContain('b1946ac9')
})
