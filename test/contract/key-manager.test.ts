import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createPublicKey } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { formatPolicy, sessionRights, transitRights } from '../../src/ca/vault/rights.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import type { PeerName } from '../../tools/peers/table.ts'
import { OpenBao } from '../support/openbao.ts'
import { softHsm } from '../support/softhsm.ts'
import { describeWithPeer } from '../support/peers.ts'
import { checked, type KeyManager } from '../../src/ca/key-manager.ts'
import { utf8 } from '../../src/kernel/bytes.ts'
import { keyManagers } from '../../src/main/builtins.ts'
import { keyTypeOf, type KeyType } from '../../src/x509/key-type.ts'
import { importPublicKey, signatureAlgorithmOf, verifySignature } from '../../src/x509/signature.ts'
import { never, testWorld } from '../ca/support.ts'

/** Where a driver keeps its keys here. */
interface Counterpart extends AsyncDisposable {
  readonly settings: object
}

const alone = (settings: object): Counterpart => ({ settings, async [Symbol.asyncDispose]() {} })

/** What stands behind each driver here; a new driver needs a line. */
const counterparts: Record<
  (typeof keyManagers)[number]['kind'],
  { readonly peer?: PeerName; open(folder: string, program: string): Promise<Counterpart> }
> = {
  memory: { open: async () => alone({}) },
  disk: { open: async (folder) => alone({ directory: join(folder, 'keys') }) },
  pkcs11: {
    peer: 'softhsm',
    async open(folder, program) {
      const token = await softHsm(folder, program)
      return alone({ module: token.module, token: token.label, pin: { env: token.pin } })
    },
  },
  'vault-transit': {
    peer: 'openbao',
    async open(folder, program) {
      const bao = new OpenBao(program)
      await bao.start(folder)
      await bao.call('sys/mounts/transit', { type: 'transit' })
      const token = await bao.tokenFor(formatPolicy([...transitRights({ mount: 'transit', prefix: 'vidimus' }), ...sessionRights]))
      return {
        settings: { address: bao.address, auth: { method: 'token', token: { env: token } } },
        [Symbol.asyncDispose]: () => bao.stop(),
      }
    },
  },
}

for (const driver of keyManagers) {
  const { peer, open: stand } = counterparts[driver.kind]!
  const title = `key manager ${driver.kind}`
  const body = (program: string) => keepsTheContract(driver, (folder) => stand(folder, program))
  if (peer === undefined) describe(title, () => body(''))
  else describeWithPeer(peer, title, ({ path }) => body(path))
}

function keepsTheContract(driver: (typeof keyManagers)[number], stand: (folder: string) => Promise<Counterpart>): void {
  let folder: string
  let counterpart: Counterpart
  let keys: KeyManager

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vidimus-keys-'))
    counterpart = await stand(folder)
    const world = { ...testWorld(), clock: systemClock }
    keys = await driver.open(driver.config.parse(counterpart.settings) as never, world)
  }, 30_000)
  afterAll(async () => {
    await keys[Symbol.asyncDispose]()
    await counterpart[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  test('its example is a configuration', () => {
    expect(driver.config.safeParse(driver.example).success).toBe(true)
  })

  test.for(['', '.', '..', '../x', 'a/b', 'A', 'a_b', 'a\0', '-a', 'a-', 'ä', 'a'.repeat(65)])(
    'refuses `%s` as a name, for it may become a path',
    async (id) => {
      const checkedKeys = checked(keys)
      for (const deed of [
        () => keys.create(id, 'ec-p256', never),
        () => checkedKeys.find(id, never),
        () => checkedKeys.remove(id, never),
      ]) {
        await expect(deed()).rejects.toMatchObject({ reason: 'keys.bad-id' })
      }
    },
  )

  test('a key that was never made is not found, and can be removed', async () => {
    expect(await keys.find('never', never)).toBeUndefined()
    await keys.remove('never', never)
  })

  test.for<KeyType>(['ec-p256', 'ec-p384', 'rsa-2048'])(
    'C-20 makes a key of type %s that signs what its public half accepts',
    async (type) => {
      const key = await checked(keys).create(`a-${type}`, type, never)
      const message = utf8('a message')
      expect(key).toMatchObject({ id: `a-${type}`, keyType: type })
      expect(keyTypeOf(createPublicKey({ key: Buffer.from(key.publicKey), format: 'der', type: 'spki' }))).toBe(type)
      expect(verifySignature(importPublicKey(key.publicKey), signatureAlgorithmOf(type), message, await key.sign(message, never))).toBe(
        true,
      )
    },
  )

  test('finds a key again by its name', async () => {
    const made = await keys.create('again', 'ec-p256', never)
    const found = await checked(keys).find('again', never)
    expect(found).toMatchObject({ id: 'again', keyType: 'ec-p256' })
    expect(found?.publicKey).toEqual(made.publicKey)
  })

  test('a second key of one name replaces the first', async () => {
    const first = await keys.create('twice', 'ec-p256', never)
    const second = await keys.create('twice', 'ec-p384', never)
    expect(second.publicKey).not.toEqual(first.publicKey)
    expect((await keys.find('twice', never))?.publicKey).toEqual(second.publicKey)
  })

  test('a removed key is gone', async () => {
    await keys.create('gone', 'ec-p256', never)
    await keys.remove('gone', never)
    expect(await keys.find('gone', never)).toBeUndefined()
  })

  test('nothing of a key shows its private half', async () => {
    const key = await keys.create('closed', 'ec-p256', never)
    expect(Object.keys(key).sort()).toEqual(['id', 'keyType', 'publicKey', 'sign'])
    expect(JSON.stringify(key)).not.toContain('PRIVATE')
  })

  test('signs for many at once', async () => {
    const key = await keys.create('busy', 'ec-p256', never)
    const publicKey = importPublicKey(key.publicKey)
    const messages = Array.from({ length: 50 }, (_, index) => utf8(`message ${index}`))
    const signatures = await Promise.all(messages.map((message) => key.sign(message, never)))
    expect(
      signatures.every((signature, index) => verifySignature(publicKey, signatureAlgorithmOf('ec-p256'), messages[index]!, signature)),
    ).toBe(true)
  })
}
