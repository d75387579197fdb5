import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { checked, type KeyManager } from '../../src/ca/key-manager.ts'
import { vaultTransit } from '../../src/ca/keys/vault-transit.ts'
import { formatPolicy, sessionRights, transitRights } from '../../src/ca/vault/rights.ts'
import { utf8 } from '../../src/kernel/bytes.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { importPublicKey, signatureAlgorithmOf, verifySignature } from '../../src/x509/signature.ts'
import { KeptLog, never, openTestAuthority, provenKey, testWorld, workload } from '../ca/support.ts'
import { FakeClock } from '../fakes/clock.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { OpenBao } from '../support/openbao.ts'
import { describeWithPeer } from '../support/peers.ts'

describeWithPeer('openbao', 'keys in a Transit mount of OpenBao', (found) => {
  const bao = new OpenBao(found.path)
  let folder: string
  let token: string

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vidimus-transit-'))
    await bao.start(folder)
    await bao.call('sys/mounts/transit', { type: 'transit' })
    token = await bao.tokenFor(formatPolicy([...transitRights({ mount: 'transit', prefix: 'vidimus' }), ...sessionRights]))
  })
  afterAll(async () => {
    await bao.stop()
    await rm(folder, { recursive: true, force: true })
  })

  const open = async (settings: object = {}, log = new KeptLog()): Promise<KeyManager> => {
    const parsed = vaultTransit.config.parse({ address: bao.address, auth: { method: 'token', token: { env: token } }, ...settings })
    return vaultTransit.open(parsed, { ...testWorld(), clock: systemClock, log })
  }

  test('V-17 a key that an operator rotated goes on signing with the version that our certificate names', async () => {
    await using keys = await open()
    const made = await checked(keys).create('rotated', 'ec-p256', never)
    await bao.write('transit/keys/vidimus-rotated/rotate', {})
    const message = utf8('after the rotation')
    const found = await checked(keys).find('rotated', never)
    expect(found?.publicKey).toEqual(made.publicKey)
    for (const key of [made, found!]) {
      expect(verifySignature(importPublicKey(made.publicKey), signatureAlgorithmOf('ec-p256'), message, await key.sign(message))).toBe(true)
    }
  })

  test('V-17 a key whose first version was archived is refused with what to do, not taken for a missing one', async () => {
    await using keys = await open()
    const key = await keys.create('archived', 'ec-p256', never)
    await bao.write('transit/keys/vidimus-archived/rotate', {})
    await bao.write('transit/keys/vidimus-archived/config', { min_decryption_version: 2, min_encryption_version: 2 })
    await expect(keys.find('archived', never)).rejects.toMatchObject({ reason: 'keys.version-gone' })
    // OpenBao calls that an error of its own.
    await expect(key.sign(utf8('x'))).rejects.toMatchObject({ reason: 'keys.unavailable' })
  })

  test('a key that can be exported is refused', async () => {
    await bao.write('transit/keys/vidimus-open', { type: 'ecdsa-p256', exportable: true })
    await using keys = await open()
    await expect(keys.find('open', never)).rejects.toMatchObject({ reason: 'keys.exportable' })
  })

  test('a key of another kind is refused', async () => {
    await bao.write('transit/keys/vidimus-cipher', { type: 'aes256-gcm96' })
    await using keys = await open()
    await expect(keys.find('cipher', never)).rejects.toMatchObject({ category: 'failed_precondition' })
  })

  test('V-17 the printed policy is enough, and gives nothing of anybody else', async () => {
    await bao.write('transit/keys/other-key', { type: 'ecdsa-p256' })
    await using keys = await open({ prefix: 'other' })
    await expect(keys.find('key', never)).rejects.toMatchObject({ reason: 'vault.permission-denied' })
    await expect
      .poll(() => keys.complaints?.().join())
      .toContain('path "transit/keys/other-*" { capabilities = ["create", "read", "update", "delete"] }')
  })

  test('C-23 an outage is told as one, and passes', async () => {
    await using proxy = await FaultProxy.open(bao.port)
    await using keys = await open({ address: proxy.address, timeout: '1s' })
    const key = await keys.create('away', 'ec-p256', never)
    proxy.always = { kind: 'cut' }
    proxy.dropAll()
    await expect(key.sign(utf8('x'))).rejects.toMatchObject({ category: 'unavailable', reason: 'keys.unavailable' })
    proxy.always = undefined
    await expect(key.sign(utf8('x'))).resolves.toBeDefined()
  }, 60_000)

  test('a CA whose keys are there issues what verifies, and finds them again after a restart', async () => {
    const world = { ...testWorld({ clock: new FakeClock(systemClock.now()) }) }
    await using keys = await open()
    await using first = await openTestAuthority({ world, keys })
    const issue = async (ca: typeof first.ca) =>
      ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key: await provenKey(), context: {} }, never)
    const before = await issue(first.ca)
    await using again = await openTestAuthority({ world, keys, journal: first.journal })
    const after = await issue(again.ca)
    expect(after.chain.at(-1)?.issuer.text).toBe(before.chain.at(-1)?.issuer.text)
    expect(verifyX509Svid(after.chain, bundleSet([first.ca.bundle.current]), world.clock.now()).spiffeId).toBe(workload)
  })
})
