import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { checked, distrusted, type KeyManager, type ManagedKey } from '../../src/ca/key-manager.ts'
import { disk } from '../../src/ca/keys/disk.ts'
import { memory } from '../../src/ca/keys/memory.ts'
import { systemFiles, type Files } from '../../src/kernel/files.ts'
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

// Deriving a key from a passphrase is slow on purpose.
describe('C-26 copies of keys that this process made, and the runtime lets it reach', () => {
  let directory: string
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'vidimus-'))
  })
  afterEach(() => rm(directory, { recursive: true }))

  /** A disk that keeps in mind what went through it, and may be full. */
  function watchedDisk(isFull = false) {
    const seen: Uint8Array[] = []
    const files: Files = {
      ...systemFiles,
      async read(path) {
        const content = await systemFiles.read(path)
        if (content) seen.push(content)
        return content
      },
      async writeAtomically(path, content) {
        seen.push(content)
        if (isFull) throw new Error('the disk is full')
        await systemFiles.writeAtomically(path, Uint8Array.from(content))
      },
    }
    const copies = () => seen.map((bytes) => bytes.some((octet) => octet !== 0))
    return { world: { ...testWorld(), files }, copies }
  }

  test('are overwritten when a key was written, read, and could not be written', async () => {
    const { world, copies } = watchedDisk()
    const keys = await disk.open({ directory }, world)
    await keys.create('a', 'ec-p256', never)
    expect((await keys.find('a', never))?.keyType).toBe('ec-p256')
    expect(copies()).toEqual([false, false])
    const full = watchedDisk(true)
    await expect((await disk.open({ directory }, full.world)).create('b', 'ec-p256', never)).rejects.toThrow('the disk is full')
    expect(full.copies()).toEqual([false])
  })

  test('are overwritten when a key cannot be used', async () => {
    const { world, copies } = watchedDisk()
    const keys = await disk.open({ directory }, world)
    await writeFile(join(directory, 'a.pem'), '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n', { mode: 0o600 })
    await expect(keys.find('a', never)).rejects.toThrow()
    expect(copies()).toEqual([false])
  })
})

describe('C-25 keys on disk, encrypted', { timeout: 60_000 }, () => {
  let folder: string
  let directory: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vidimus-sealed-'))
    directory = join(folder, 'keys')
  })
  afterEach(() => rm(folder, { recursive: true, force: true }))

  /** In these worlds a secret is what it is called. */
  const open = (encryption?: object) => disk.open(disk.config.parse({ directory, ...(encryption && { encryption }) }), testWorld())
  const passphrase = { passphrase: { env: 'correct horse battery' } }
  const key = { key: { env: '00'.repeat(31) + 'ff' } }
  const fileOf = (id: string) => join(directory, `${id}.pem`)

  test.for([
    ['a short passphrase', { passphrase: { env: 'too short' } }, 'keys.weak-passphrase'],
    ['a key of 16 bytes', { key: { env: '00'.repeat(16) } }, 'keys.weak-envelope-key'],
    ['a key that is none', { key: { env: 'hello' } }, 'keys.weak-envelope-key'],
  ] as const)('%s is refused at the start', async ([, encryption, reason]) => {
    await expect(open(encryption)).rejects.toMatchObject({ reason })
  })

  test.for([passphrase, key])('the file shows nothing of the key, and opens again with the same secret', async (encryption) => {
    const made = await (await open(encryption)).create('own', 'ec-p256', never)
    const content = await readFile(fileOf('own'), 'utf8')
    expect(content).toContain('"AES-256-GCM"')
    expect(content).not.toContain('PRIVATE KEY')
    expect((await stat(fileOf('own'))).mode & 0o777).toBe(0o600)
    const found = await checked(await open(encryption)).find('own', never)
    expect(found?.publicKey).toEqual(made.publicKey)
  })

  test.for([
    ['another passphrase', { passphrase: { env: 'incorrect horse battery' } }, 'keys.wrong-envelope-key'],
    ['a key instead', key, 'keys.wrong-envelope-key'],
    ['nothing', undefined, 'keys.encrypted'],
  ] as const)('with %s it is refused, and not taken for a missing one', async ([, encryption, reason]) => {
    await (await open(passphrase)).create('own', 'ec-p256', never)
    await expect((await open(encryption)).find('own', never)).rejects.toMatchObject({ reason })
  })

  test('a file that was changed, or put in the place of another, is refused', async () => {
    const keys = await open(key)
    await keys.create('own', 'ec-p256', never)
    await keys.create('other', 'ec-p256', never)
    const [own, other] = [await readFile(fileOf('own'), 'utf8'), await readFile(fileOf('other'), 'utf8')]
    await writeFile(fileOf('own'), other)
    await expect(keys.find('own', never)).rejects.toMatchObject({ reason: 'keys.wrong-envelope-key' })
    const sealed = (JSON.parse(own) as { sealed: string }).sealed
    const flipped = Buffer.from(sealed, 'base64')
    flipped[20]! ^= 1
    await writeFile(fileOf('own'), own.replace(sealed, flipped.toString('base64')))
    await expect(keys.find('own', never)).rejects.toMatchObject({ reason: 'keys.wrong-envelope-key' })
    for (const broken of ['{', own.replace('"none"', '"md5"'), own.replace('"vidimusKey": 1', '"vidimusKey": 2')]) {
      await writeFile(fileOf('own'), broken)
      await expect(keys.find('own', never)).rejects.toMatchObject({ reason: 'keys.unreadable' })
    }
  })

  test('a file that asks for more work than we ever do is refused before the work', async () => {
    const keys = await open(passphrase)
    await keys.create('own', 'ec-p256', never)
    const content = await readFile(fileOf('own'), 'utf8')
    await writeFile(fileOf('own'), content.replace('"N": 131072', '"N": 1073741824'))
    await expect(keys.find('own', never)).rejects.toMatchObject({ reason: 'keys.unreadable' })
  })

  test('a key of before is read, and encrypted from then on', async () => {
    const made = await (await open()).create('own', 'rsa-2048', never)
    const found = await (await open(key)).find('own', never)
    expect(found?.publicKey).toEqual(made.publicKey)
    expect(await readFile(fileOf('own'), 'utf8')).not.toContain('PRIVATE KEY')
    expect((await (await open(key)).find('own', never))?.publicKey).toEqual(made.publicKey)
  })
})

describe('C-21, C-23 a key that somebody else keeps', () => {
  async function key(changes: Partial<ManagedKey> = {}): Promise<ManagedKey> {
    const keys = await memory.open({}, testWorld())
    return { ...(await keys.create('own', 'ec-p256', never)), ...changes }
  }

  test('hands on no signature that does not hold', async () => {
    const other = await key()
    const own = distrusted(await key({ sign: (message) => other.sign(message) }))
    await expect(own.sign(Uint8Array.of(1))).rejects.toMatchObject({ reason: 'keys.bad-signature' })
    await expect(distrusted(await key()).sign(Uint8Array.of(1))).resolves.toBeDefined()
  })

  test('lets no more than a thousand wait, and lets others in when they are gone', async () => {
    const honest = await key()
    const gate = Promise.withResolvers<void>()
    const slow = distrusted({ ...honest, sign: (message) => gate.promise.then(() => honest.sign(message)) })
    const waiting = Array.from({ length: 1000 }, () => slow.sign(Uint8Array.of(1)))
    await expect(slow.sign(Uint8Array.of(1))).rejects.toMatchObject({ category: 'resource_exhausted', reason: 'keys.busy' })
    gate.resolve()
    await Promise.all(waiting)
    await expect(slow.sign(Uint8Array.of(1))).resolves.toBeDefined()
  })
})
