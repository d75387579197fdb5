import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openAgent } from '../../src/agent/open-agent.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { formatBundlePem } from '../../src/spiffe/bundle-document.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { FakeClock } from '../fakes/clock.ts'
import { FakeUpstreamServer } from '../fakes/upstream-server.ts'
import { generateKeyPair } from '../../src/x509/key-type.ts'
import { signerOf } from '../../src/x509/signature.ts'
import { TestCa } from '../support/test-ca.ts'
import { agentParts, never, startAgent, until } from './rig.ts'

let directory: string
let clock: FakeClock
let server: FakeUpstreamServer
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'vj-'))
  clock = new FakeClock()
  server = await FakeUpstreamServer.start({ clock })
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const parts = () => agentParts({ clock, server, directory })
const stateFile = () => join(directory, 'data', 'agent.json')

describe('an agent does not start', () => {
  test('with a join token that was used', async () => {
    server.tokens.clear()
    await expect(openAgent(await parts(), never)).rejects.toMatchObject({
      category: 'permission_denied',
      reason: 'join-token.not-accepted',
    })
  })

  test('with nothing to prove itself with', async () => {
    await expect(openAgent({ ...(await parts()), prover: undefined }, never)).rejects.toMatchObject({ reason: 'agent.no-evidence' })
    expect(server.calls.attest).toBe(0)
  })

  test('without a trust bundle, and with one that trusts nothing', async () => {
    await expect(openAgent({ ...(await parts()), trustBundle: { path: join(directory, 'missing.pem') } }, never)).rejects.toMatchObject({
      reason: 'agent.no-trust-bundle',
    })
    writeFileSync(join(directory, 'empty.json'), '{"keys":[]}')
    await expect(openAgent({ ...(await parts()), trustBundle: { path: join(directory, 'empty.json') } }, never)).rejects.toMatchObject({
      reason: 'agent.bad-trust-bundle',
    })
    expect(server.calls.attest).toBe(0)
  })

  test('R-40 in a directory that others may enter', async () => {
    mkdirSync(join(directory, 'data'))
    chmodSync(join(directory, 'data'), 0o755)
    await expect(openAgent(await parts(), never)).rejects.toMatchObject({ reason: 'directory.loose-permissions' })
  })

  test.each([
    ['a workload’s ID', async () => ({ uris: ['spiffe://example.org/payments'] })],
    ['an ID of another trust domain', async () => ({ uris: ['spiffe://other.example/spire/agent/join_token/token-1'] })],
    ['another key', async () => ({ spki: signerOf((await generateKeyPair('ec-p256')).privateKey).publicKey })],
    ['a certificate of an authority', async () => ({ ca: {}, keyUsage: ['keyCertSign'] as const })],
    ['no time left', async () => ({ notAfter: clock.now() - seconds(1) })],
  ])('when the server issues %s', async (_what, wishes) => {
    server.wishes = await wishes()
    await expect(openAgent(await parts(), never)).rejects.toMatchObject({ category: 'unauthenticated', reason: 'agent.bad-identity' })
    expect(() => statSync(stateFile())).toThrow()
  })

  test('when the server’s identity chains to somebody else', async () => {
    const stranger = await TestCa.create({ at: clock.now() })
    const bundle = { ...server.currentBundle, x509Authorities: [{ certificate: stranger.certificate, tainted: false }] }
    await expect(openAgent({ ...(await parts()), trustBundle: { bundle } }, never)).rejects.toMatchObject({ reason: 'agent.bad-identity' })
  })

  test('on what it kept when that is damaged, and does not quote it', async () => {
    mkdirSync(join(directory, 'data'), { mode: 0o700 })
    for (const content of [
      '',
      '{',
      '{"version":1}',
      '{"version":1,"privateKey":"SECRET","chain":"x","bundle":"{}","reattestable":false}',
    ]) {
      writeFileSync(stateFile(), content)
      const refusal = (await openAgent(await parts(), never).catch((error: unknown) => error)) as Error
      expect(refusal).toMatchObject({ reason: 'agent.state-damaged' })
      expect(JSON.stringify([refusal, refusal.message, refusal.cause])).not.toContain('SECRET')
    }
    expect(server.calls.attest).toBe(0)
  })

  test('on what it kept for another trust domain', async () => {
    await openAgent(await parts(), never)
    const other = { ...(await parts()), trustDomain: parseTrustDomain('other.example') }
    await expect(openAgent(other, never)).rejects.toMatchObject({ reason: 'agent.other-trust-domain' })
  })
})

describe('joining', () => {
  test('waits for a server that is away, and uses the token once', async () => {
    server.away = true
    const opening = openAgent(await parts(), never)
    await until(() => server.calls.attest === 1 && clock.sleepers === 1)
    await clock.advance(minutes(2))
    expect(server.calls.attest).toBeGreaterThan(2)
    server.away = false
    await clock.advance(minutes(1))
    expect((await opening).status().spiffeId).toBe('spiffe://example.org/spire/agent/join_token/token-1')
  })

  test('ends when it is told to stop', async () => {
    server.away = true
    const stop = new AbortController()
    const opening = openAgent(await parts(), stop.signal)
    await until(() => clock.sleepers === 1)
    stop.abort()
    await expect(opening).rejects.toMatchObject({ name: 'AbortError' })
  })

  test('R-40 keeps key, SVID and bundle in one file that only it can read', async () => {
    await openAgent(await parts(), never)
    expect(statSync(stateFile()).mode & 0o777).toBe(0o600)
    expect(statSync(join(directory, 'data')).mode & 0o777).toBe(0o700)
    expect(readFileSync(stateFile(), 'utf8')).not.toContain('token-1"')
  })

  test('reads the trust bundle from a file', async () => {
    writeFileSync(join(directory, 'bundle.pem'), formatBundlePem(server.currentBundle))
    const agent = await openAgent({ ...(await parts()), trustBundle: { path: join(directory, 'bundle.pem') } }, never)
    expect(agent.bundle.current.x509Authorities).toHaveLength(1)
  })
})

describe('after a restart', () => {
  test('Q-6 the agent is the same, without attestation and without its server', async () => {
    await openAgent(await parts(), never)
    server.away = true
    await using again = await startAgent({ server, directory, run: false, prover: undefined })
    expect(again.agent.status().spiffeId).toBe('spiffe://example.org/spire/agent/join_token/token-1')
    expect(server.calls.attest).toBe(1)
    expect(server.used).toHaveLength(2)
  })

  test('what was being written when it was killed is removed, and nothing else', async () => {
    await (await startAgent({ clock, server, directory })).stop()
    const data = (name: string) => join(directory, 'data', name)
    for (const name of ['.agent.json.123.1.tmp', '.policies.json.9.22.tmp', 'notes.tmp', '.hidden']) writeFileSync(data(name), 'x')
    await (await startAgent({ clock, server, directory })).stop()
    const left = readdirSync(data(''))
    expect(left.filter((name) => name.endsWith('.tmp') || name.startsWith('.')).toSorted()).toEqual(['.hidden', 'notes.tmp'])
    expect(left).toContain('agent.json')
  })

  test('after an absence that outlasted its identity and its server’s authorities, the configured trust bundle counts', async () => {
    await (await startAgent({ clock, server, directory })).stop()
    const kept = server.currentBundle
    await clock.advance(hours(2))
    await server.rotateCa('removed')
    server.tokens.add('token-1')
    const stale = { ...(await parts()), trustBundle: { bundle: kept } }
    await expect(openAgent(stale, never)).rejects.toMatchObject({ reason: 'agent.bad-identity' })
    server.tokens.add('token-1')
    await using rig = await startAgent({ clock, server, directory })
    expect(rig.agent.bundle.current.x509Authorities.map(({ certificate }) => certificate.raw)).toEqual(
      [kept, server.currentBundle].flatMap(({ x509Authorities }) => x509Authorities.map(({ certificate }) => certificate.raw)),
    )
  })

  test('an identity that expired meanwhile is no identity: the node proves itself anew', async () => {
    await openAgent(await parts(), never)
    clock.set(clock.now() + hours(2))
    await expect(openAgent({ ...(await parts()), prover: undefined }, never)).rejects.toMatchObject({ reason: 'agent.no-evidence' })
    server.tokens.add('token-1')
    await openAgent(await parts(), never)
    expect(server.calls.attest).toBe(2)
  })
})
