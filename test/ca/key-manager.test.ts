import { chmod, mkdir, mkdtemp, readdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { checked, type KeyManager, type ManagedKey } from '../../src/ca/key-manager.ts'
import { disk } from '../../src/ca/keys/disk.ts'
import { memory } from '../../src/ca/keys/memory.ts'
import { never, testWorld } from './support.ts'

describe('C-20 a key manager is not believed', () => {
  async function lying(lie: (key: ManagedKey, other: ManagedKey) => ManagedKey): Promise<KeyManager> {
    const honest = await memory.open({}, testWorld())
    const other = await honest.create('other', 'ec-p256', never)
    const told = async (key: Promise<ManagedKey | undefined>) => lie((await key)!, other)
    return { ...honest, create: (...what) => told(honest.create(...what)), find: (...what) => told(honest.find(...what)) }
  }

  test.for<readonly [string, (key: ManagedKey, other: ManagedKey) => ManagedKey, string]>([
    ['another name', (key) => ({ ...key, id: 'other' }), 'keys.wrong-id'],
    ['a type that its public half does not have', (key) => ({ ...key, keyType: 'ec-p384' }), 'keys.wrong-type'],
    ['the public half of another key', (key, other) => ({ ...key, publicKey: other.publicKey }), 'keys.not-its-key'],
    ['signatures of another key', (key, other) => ({ ...key, sign: (...what) => other.sign(...what) }), 'keys.not-its-key'],
    ['a public half that is none', (key) => ({ ...key, publicKey: Uint8Array.of(0x30, 0) }), 'der.truncated'],
  ])('a key with %s is refused', async ([, lie, reason]) => {
    const keys = checked(await lying(lie))
    const expected = reason.startsWith('der') ? { category: 'invalid_argument' } : { reason }
    await expect(keys.create('own', 'ec-p256', never)).rejects.toMatchObject(expected)
    await expect(keys.find('own', never)).rejects.toMatchObject(expected)
  })

  test('a key of another type than was asked for is refused', async () => {
    const honest = await memory.open({}, testWorld())
    const keys = checked({ ...honest, create: (id) => honest.create(id, 'ec-p384', never) })
    await expect(keys.create('own', 'ec-p256', never)).rejects.toMatchObject({ reason: 'keys.wrong-type' })
  })
})

describe('R-40 keys on disk', () => {
  let folder: string
  let directory: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vidimus-keys-'))
    directory = join(folder, 'keys')
  })
  afterEach(() => rm(folder, { recursive: true, force: true }))

  const open = () => disk.open({ directory }, testWorld())

  test('a directory that others can enter is refused', async () => {
    await mkdir(directory, { mode: 0o755 })
    await chmod(directory, 0o755)
    await expect(open()).rejects.toMatchObject({ reason: 'directory.loose-permissions' })
  })

  test('a key that others can read is refused', async () => {
    const keys = await open()
    await keys.create('own', 'ec-p256', never)
    await chmod(join(directory, 'own.pem'), 0o640)
    await expect(keys.find('own', never)).rejects.toMatchObject({ reason: 'keys.loose-permissions' })
  })

  test('a link to a key elsewhere is refused', async () => {
    const keys = await open()
    await keys.create('own', 'ec-p256', never)
    await rename(join(directory, 'own.pem'), join(folder, 'elsewhere.pem'))
    await symlink(join(folder, 'elsewhere.pem'), join(directory, 'own.pem'))
    await expect(keys.find('own', never)).rejects.toMatchObject({ reason: 'keys.loose-permissions' })
  })

  test.for(['', 'hello', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n'])(
    'a file that holds no key is refused, not taken for a missing one',
    async (content) => {
      const keys = await open()
      await writeFile(join(directory, 'own.pem'), content, { mode: 0o600 })
      await expect(keys.find('own', never)).rejects.toMatchObject({ reason: 'keys.unreadable' })
    },
  )

  test('keys outlive the process, one file each, that only their owner can read', async () => {
    const made = await (await open()).create('own', 'ec-p256', never)
    const again = await (await open()).find('own', never)
    expect(again?.publicKey).toEqual(made.publicKey)
    expect(await readdir(directory)).toEqual(['own.pem'])
    expect((await stat(join(directory, 'own.pem'))).mode & 0o777).toBe(0o600)
    expect((await stat(directory)).mode & 0o777).toBe(0o700)
  })
})
