import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { file } from '../../src/audit/sinks/file.ts'
import { openTrail } from '../../src/audit/trail.ts'
import { verifyTrail } from '../../src/audit/verify.ts'
import { openIntents } from '../../src/ca/intents.ts'
import { disk } from '../../src/ca/keys/disk.ts'
import { openCertificateAuthority } from '../../src/ca/own-authority.ts'
import { issuanceProfile } from '../../src/ca/profile.ts'
import { selfSigned } from '../../src/ca/upstream/self-signed.ts'
import { days, minutes, seconds } from '../../src/kernel/duration.ts'
import { type Fault, FaultyDisk } from '../fakes/faulty-disk.ts'
import { FakeJournal } from '../fakes/journal.ts'
import { never, provenKey, testWorld, trustDomain, workload } from './support.ts'

let directory: string
let drive: FaultyDisk
let journal: FakeJournal
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vidimus-faults-'))
  drive = new FaultyDisk()
  journal = new FakeJournal()
})
afterEach(() => rm(directory, { recursive: true }))

/** What a disk does to those who append, and to those who replace files. */
const faults: readonly (readonly [string, Fault])[] = [
  ['is full', { code: 'ENOSPC' }],
  ['is full in the middle of a write', { code: 'ENOSPC', on: ['write'], arrives: 'half' }],
  ['is read-only', { code: 'EROFS' }],
  ['fails', { code: 'EIO' }],
  ['takes a write and does not keep it', { code: 'EIO', on: ['write', 'sync'], arrives: 'all' }],
  ['fails, and cannot be tidied up', { code: 'EIO', on: ['write', 'truncate', 'remove'], arrives: 'half' }],
]
const at = (name: string): string => join(directory, name)

/** The rooms that write to the disk, as the server opens them. */
async function openRooms() {
  await using opened = new AsyncDisposableStack()
  const world = { ...testWorld(), files: drive.files }
  const records = { put: async () => [], prune: async () => {} }
  const keys = opened.use(await disk.open({ directory: at('keys') }, world))
  const sink = await file.open({ path: at('audit.log'), maxMebibytes: 64, maxAge: days(1) }, world)
  const audit = opened.use(await openTrail(sink, world))
  const intents = opened.use(await openIntents({ ...world, directory: at('intents'), records }))
  const ca = opened.use(
    await openCertificateAuthority({
      ...world,
      keys,
      audit,
      intents,
      journal,
      upstream: await selfSigned.open({}, world),
      profile: issuanceProfile(),
      trustDomain,
      serverId: 'server',
      refreshHint: minutes(5),
    }),
  )
  const owned = opened.move()
  const key = await provenKey()
  return {
    ca,
    clock: world.clock,
    issue: () => ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key, context: {} }, never),
    issueToken: () => ca.issueJwtSvid({ spiffeId: workload, audience: ['a'], context: {} }, never),
    keepCopied: (signal: AbortSignal) => intents.keepCopied(signal),
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  }
}

type Rooms = Awaited<ReturnType<typeof openRooms>>

/** As the server does in the background, until there is nothing to complain of. */
async function recovered({ ca, clock, keepCopied }: Rooms): Promise<void> {
  const stop = new AbortController()
  const copying = keepCopied(stop.signal)
  for (let tries = 0; tries < 5 && ca.complaints().length > 0; tries++) await clock.advance(seconds(1))
  stop.abort()
  await copying
}

/** The chain holds, each intent is a whole line, and no file is half written. */
async function demandWhole(): Promise<void> {
  const trail = (await readFile(at('audit.log'), 'utf8')).trimEnd().split('\n')
  expect(verifyTrail(trail)).toMatchObject({ whole: true })
  for (const name of await readdir(at('intents'))) {
    const text = await readFile(join(at('intents'), name), 'utf8')
    for (const line of text.split('\n').slice(0, -1)) expect(() => JSON.parse(line) as unknown).not.toThrow()
    expect(text === '' || text.endsWith('\n')).toBe(true)
  }
  // What cannot be tidied up at once goes at the next start.
  await drive.files.privateDirectory(at('keys'))
  expect((await readdir(at('keys'))).filter((name) => !name.endsWith('.pem'))).toEqual([])
  expect(drive.sins).toEqual([])
}

describe.each(faults)('a disk that %s', (_, fault) => {
  const { code } = fault

  test('C-10 under the intents: nothing is issued, that is an alarm, what is trusted stays, and it ends by itself', async () => {
    await using rooms = await openRooms()
    await rooms.issue()
    const bundle = rooms.ca.bundle.current
    drive.fault = { ...fault, under: at('intents') }
    await expect(rooms.issue()).rejects.toMatchObject({
      category: 'unavailable',
      reason: 'intents.not-written',
    })
    await expect(rooms.issueToken()).rejects.toMatchObject({ reason: 'intents.not-written' })
    expect(rooms.ca.complaints()).toEqual([expect.stringContaining(code)])
    expect(rooms.ca.bundle.current).toBe(bundle)
    drive.fault = undefined
    await recovered(rooms)
    expect(rooms.ca.complaints()).toEqual([])
    await rooms.issue()
    await rooms.issueToken()
    await demandWhole()
  })

  test('R-37 under the audit trail: nothing is issued, that is an alarm, and it ends with the next request', async () => {
    await using rooms = await openRooms()
    await rooms.issue()
    drive.fault = { ...fault, under: at('audit.log') }
    await expect(rooms.issue()).rejects.toMatchObject({
      category: 'unavailable',
      reason: 'audit.sink-failed',
    })
    await expect(rooms.issueToken()).rejects.toMatchObject({ reason: 'audit.sink-failed' })
    expect(rooms.ca.complaints()).toEqual([expect.stringContaining(code)])
    drive.fault = undefined
    await rooms.issue()
    expect(rooms.ca.complaints()).toEqual([])
    await demandWhole()
  })

  test('Q-5 under the keys: no authority is prepared, the active one goes on signing, and the next try succeeds', async () => {
    await using rooms = await openRooms()
    const before = rooms.ca.authorities.state('x509')
    drive.fault = { ...fault, under: at('keys') }
    await expect(rooms.ca.authorities.prepare('x509', {}, never)).rejects.toMatchObject({
      reason: 'file.not-written',
      cause: { code },
    })
    expect(rooms.ca.authorities.state('x509').active).toEqual(before.active)
    await rooms.issue()
    drive.fault = undefined
    const { id } = await rooms.ca.authorities.prepare('x509', {}, never)
    await rooms.ca.authorities.activate('x509', id, {})
    await rooms.issue()
    await demandWhole()
  })
})

test.each<readonly [string, Fault]>([
  ['fails', { code: 'EIO' }],
  ['is full in the middle of a write', { code: 'ENOSPC', on: ['write'], arrives: 'all' }],
])(
  'Q-5 a disk that %s once, at any step of a forced rotation: the server starts again on what is there, and can issue',
  { timeout: 120_000 },
  async (_, fault) => {
    const rotate = async ({ ca, issue }: Rooms) => {
      const { active } = ca.authorities.state('x509')
      const { id } = await ca.authorities.prepare('x509', {}, never)
      await ca.authorities.activate('x509', id, {})
      await issue()
      await ca.authorities.taint('x509', active!.id, {})
      await ca.authorities.revoke('x509', active!.id, {}, never)
    }
    await (await openRooms())[Symbol.asyncDispose]()
    let nth = 1
    for (let hit = true; hit; nth++) {
      const rooms = await openRooms()
      drive.fault = { ...fault, nth }
      await rotate(rooms).catch(() => {})
      hit = drive.hasFailed
      drive.fault = undefined
      await rooms[Symbol.asyncDispose]()
      await using again = await openRooms()
      const { active, old } = again.ca.authorities.state('x509')
      const trusted = again.ca.bundle.current.x509Authorities.length
      expect(active).toBeDefined()
      expect(trusted).toBeGreaterThan(0)
      await again.issue()
      if (old) {
        await again.ca.authorities.taint('x509', old.id, {}).catch(() => {})
        await again.ca.authorities.revoke('x509', old.id, {}, never)
      }
      await demandWhole()
    }
    expect(nth, 'steps of a rotation').toBeGreaterThan(8)
  },
)

test('Q-18 what cannot be read at a start is told with its place, and nothing is made in its stead', async () => {
  await (await openRooms())[Symbol.asyncDispose]()
  for (const place of ['keys', 'audit.log', 'intents']) {
    const before = await readdir(at('keys'))
    drive.fault = { code: 'EIO', on: ['read'], under: at(place) }
    await expect(openRooms(), place).rejects.toMatchObject({
      category: 'unavailable',
      reason: 'file.not-read',
      message: expect.stringContaining(at(place)) as string,
      cause: { code: 'EIO' },
    })
    drive.fault = undefined
    expect(await readdir(at('keys'))).toEqual(before)
  }
  await using rooms = await openRooms()
  await rooms.issue()
})
