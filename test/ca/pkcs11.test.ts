import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { checked, type KeyManager } from '../../src/ca/key-manager.ts'
import { pkcs11 } from '../../src/ca/keys/pkcs11.ts'
import { loadModule, type Attribute } from '../../src/ca/keys/pkcs11-library.ts'
import { utf8 } from '../../src/kernel/bytes.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { systemSecrets } from '../../src/main/config/secrets.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { FakeClock } from '../fakes/clock.ts'
import { describeWithPeer } from '../support/peers.ts'
import { softHsm, type SoftToken } from '../support/softhsm.ts'
import { KeptLog, never, openTestAuthority, provenKey, testWorld, workload } from './support.ts'

const [CKM_EC_KEY_PAIR_GEN, CKA_TOKEN, CKA_LABEL, CKA_ID, CKA_SENSITIVE, CKA_EXTRACTABLE, CKA_EC_PARAMS] = [
  0x1040, 1, 3, 0x102, 0x103, 0x162, 0x180,
]

describeWithPeer('softhsm', 'C-24 keys on a PKCS #11 token', ({ path: program }) => {
  let folder: string
  let token: SoftToken
  let pinFile: string

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vidimus-hsm-'))
    token = await softHsm(folder, program)
    pinFile = join(folder, 'pin')
    await writeFile(pinFile, `${token.pin}\n`, { mode: 0o600 })
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  async function open(settings: object = {}, log = new KeptLog()): Promise<KeyManager> {
    const parsed = pkcs11.config.parse({ module: token.module, token: token.label, pin: { file: pinFile }, ...settings })
    return pkcs11.open(parsed, { ...testWorld(), secrets: systemSecrets, log })
  }

  test('a module that is none is refused at the start', async () => {
    await expect(open({ module: '/etc/hostname' })).rejects.toMatchObject({ reason: 'keys.no-module' })
    expect(pkcs11.config.safeParse({ module: 'libsofthsm2.so', token: 'x', pin: { env: 'X' } }).success).toBe(false)
  })

  test('a token that is not there is refused at the start, by its name', async () => {
    await expect(open({ token: 'another' })).rejects.toMatchObject({
      reason: 'keys.unavailable',
      cause: { message: '0 tokens are called `another`: expected 1' },
    })
  })

  test('a PIN file that others can read is not used', async () => {
    const loose = join(folder, 'loose-pin')
    await writeFile(loose, token.pin, { mode: 0o644 })
    await expect(open({ pin: { file: loose } })).rejects.toMatchObject({ reason: 'secret.loose-permissions' })
  })

  test('a wrong PIN is tried once and never again, so that the token is not locked; another one is', async () => {
    await using keys = await open()
    const key = await keys.create('locked', 'ec-p256', never)
    await writeFile(pinFile, 'wrong')
    try {
      await takenOut(() => expect(key.sign(utf8('x'))).rejects.toBeDefined())
      await expect(key.sign(utf8('x'))).rejects.toMatchObject({ message: expect.stringContaining('login: CKR 0xa0') as string })
      for (let tries = 0; tries < 20; tries++) {
        await expect(key.sign(utf8('x'))).rejects.toMatchObject({
          reason: 'keys.pin-incorrect',
          message: expect.stringContaining('is the one that the token refused') as string,
        })
      }
      expect(keys.complaints?.().join()).toContain('not tried again')
    } finally {
      await writeFile(pinFile, token.pin)
    }
    await expect(key.sign(utf8('x'))).resolves.toBeDefined()
    expect(keys.complaints?.()).toEqual([])
  })

  test('C-23 a token that is taken out is an outage, told once; when it is back, the same key signs again', async () => {
    const log = new KeptLog()
    await using keys = await open({}, log)
    const key = await checked(keys).create('removed', 'ec-p256', never)
    await takenOut(async () => {
      for (let tries = 0; tries < 3; tries++) {
        await expect(key.sign(utf8('x'))).rejects.toMatchObject({ category: 'unavailable', reason: 'keys.unavailable' })
        await expect(keys.find('removed', never)).rejects.toMatchObject({ reason: 'keys.unavailable' })
      }
      expect(keys.complaints?.().join()).toContain('the token `vidimus` cannot be used')
    })
    await expect(key.sign(utf8('x'))).resolves.toBeDefined()
    expect((await checked(keys).find('removed', never))?.publicKey).toEqual(key.publicKey)
    expect(log.lines.filter((line) => line.startsWith('error')).length).toBeLessThanOrEqual(2)
    expect(log.lines.join()).not.toContain(token.pin)
  })

  test('a key that could leave the token is refused', async () => {
    const module = loadModule(token.module)
    module.initialize()
    const session = module.openSession(module.tokens().find(({ label }) => label === token.label)!.slot)
    module.login(session, token.pin)
    const [yes, label] = [Buffer.of(1), utf8('vidimus-open')]
    const named: Attribute[] = [
      [CKA_LABEL, label],
      [CKA_ID, label],
      [CKA_TOKEN, yes],
    ]
    const p256 = Buffer.from('06082a8648ce3d030107', 'hex')
    module.generate(
      session,
      CKM_EC_KEY_PAIR_GEN,
      [...named, [CKA_EC_PARAMS, p256]],
      [...named, [CKA_EXTRACTABLE, yes], [CKA_SENSITIVE, Buffer.of(0)]],
    )
    module.finalize()
    await using keys = await open()
    await expect(keys.find('open', never)).rejects.toMatchObject({ reason: 'keys.exportable' })
  })

  test('thousands of signatures, and the module is still there', async () => {
    await using keys = await open()
    const key = await keys.create('many', 'ec-p256', never)
    for (let round = 0; round < 60; round++) await Promise.all(Array.from({ length: 50 }, () => key.sign(utf8('x'))))
  }, 30_000)

  test('the event loop runs on while the device makes an RSA key', async () => {
    await using keys = await open()
    let turns = 0
    const ticking = setInterval(() => turns++, 1)
    await keys.create('slow', 'rsa-4096', never)
    clearInterval(ticking)
    expect(turns).toBeGreaterThan(10)
  }, 60_000)

  test('a CA whose keys are there issues what verifies, and finds them again after a restart', async () => {
    const world = testWorld({ clock: new FakeClock(systemClock.now()) })
    await using keys = await open()
    await using first = await openTestAuthority({ world, keys })
    const issued = await first.ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key: await provenKey(), context: {} }, never)
    await using others = await open()
    await using again = await openTestAuthority({ world, keys: others, journal: first.journal })
    const later = await again.ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key: await provenKey(), context: {} }, never)
    expect(later.chain.at(-1)?.issuer.text).toBe(issued.chain.at(-1)?.issuer.text)
    expect(verifyX509Svid(later.chain, bundleSet([first.ca.bundle.current]), world.clock.now()).spiffeId).toBe(workload)
  })

  /** While `deed` runs the token is out of its slot. */
  async function takenOut(deed: () => Promise<void>): Promise<void> {
    await rename(token.directory, `${token.directory}-out`)
    try {
      await deed()
    } finally {
      await rename(`${token.directory}-out`, token.directory)
    }
  }
})
