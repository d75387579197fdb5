import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createPublicKey } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checked, type KeyManager } from '../../src/ca/key-manager.ts'
import { utf8 } from '../../src/kernel/bytes.ts'
import { keyManagers } from '../../src/main/builtins.ts'
import { keyTypeOf, type KeyType } from '../../src/x509/key-type.ts'
import { importPublicKey, signatureAlgorithmOf, verifySignature } from '../../src/x509/signature.ts'
import { never, testWorld } from '../ca/support.ts'

/** What each driver is configured with here; a new driver needs a line. */
const settings: Record<(typeof keyManagers)[number]['kind'], (folder: string) => object> = {
  memory: () => ({}),
  disk: (folder) => ({ directory: join(folder, 'keys') }),
}

describe.each(keyManagers.map((driver) => [driver.kind, driver] as const))('key manager %s', (kind, driver) => {
  let folder: string
  let keys: KeyManager
  const open = async (): Promise<KeyManager> => driver.open(driver.config.parse(settings[kind]!(folder)) as never, testWorld())

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vidimus-keys-'))
    keys = await open()
  })
  afterAll(async () => {
    await keys[Symbol.asyncDispose]()
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
})
