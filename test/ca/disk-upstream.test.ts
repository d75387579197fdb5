import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { UpstreamAuthority } from '../../src/ca/upstream-authority.ts'
import { diskUpstream } from '../../src/ca/upstream/disk.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { systemSecrets } from '../../src/main/config/secrets.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { TestCa } from '../support/test-ca.ts'
import { never, openTestAuthority, provenKey, testWorld, whileFresh, workload, type TestWorld } from './support.ts'
import { upstreamFiles, writeUpstream } from './upstream-files.ts'

let folder: string
let world: TestWorld
let root: TestCa
let issuer: TestCa

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vidimus-upstream-'))
  world = testWorld()
  root = await TestCa.create({ at: world.clock.now(), name: 'root', lifetime: hours(1000) })
  issuer = await root.intermediate({ ca: {}, notAfter: world.clock.now() + hours(500) })
  await writeUpstream(folder, issuer, root)
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const open = (changes: object = {}): Promise<UpstreamAuthority> =>
  diskUpstream.open(diskUpstream.config.parse({ ...upstreamFiles(folder), ...changes }), { ...world, secrets: systemSecrets })

test.for<readonly [string, () => Promise<unknown>, string]>([
  ['no certificate', () => rm(upstreamFiles(folder).certFile), 'upstream.file-missing'],
  ['no key', () => rm(upstreamFiles(folder).keyFile), 'secret.missing'],
  ['a key that others can read', () => chmod(upstreamFiles(folder).keyFile, 0o640), 'secret.loose-permissions'],
  ['a key that is none', () => writeFile(upstreamFiles(folder).keyFile, 'hello'), 'upstream.unreadable'],
  ['the key of another', () => writeFile(upstreamFiles(folder).keyFile, root.keyPem), 'upstream.wrong-key'],
  ['a certificate that is none', () => writeFile(upstreamFiles(folder).certFile, 'hello'), 'upstream.unreadable'],
  [
    'a root that did not sign',
    async () => writeUpstream(folder, issuer, await TestCa.create({ at: world.clock.now(), name: 'root' })),
    'chain.no-path',
  ],
  [
    'the path length 0',
    async () => writeUpstream(folder, await root.intermediate({ ca: { pathLength: 0 } }), root),
    'upstream.path-length',
  ],
  [
    'a certificate that has ended',
    async () => writeUpstream(folder, await root.intermediate({ ca: {}, notAfter: world.clock.now() - seconds(1) }), root),
    'upstream.expired',
  ],
])('V-6 files with %s are refused at the start', async ([, spoil, reason]) => {
  await spoil()
  await expect(open()).rejects.toMatchObject({ reason })
})

test('files that change are read anew; what is bad, or half written, changes nothing but the complaints', async () => {
  await using upstream = await open()
  const next = await TestCa.create({ at: world.clock.now(), name: 'next root', lifetime: hours(1000) })
  await writeFile(upstreamFiles(folder).keyFile, next.keyPem)
  await world.clock.advance(seconds(31))
  await expect.poll(() => upstream.complaints?.().join()).toContain('is not the key of the certificate')
  expect(upstream.roots?.current.map(({ serial }) => serial)).toEqual([root.certificate.serial])
  await writeUpstream(folder, next, next)
  await world.clock.advance(seconds(31))
  await expect.poll(() => upstream.roots?.current.map(({ serial }) => serial)).toEqual([next.certificate.serial])
  expect(upstream.complaints?.()).toEqual([])
})

test('an issuer that is a root needs no bundle', async () => {
  await writeUpstream(folder, root)
  await using upstream = await open({ bundleFile: undefined })
  expect(upstream.roots?.current.map(({ serial }) => serial)).toEqual([root.certificate.serial])
})

test('a CA below it issues what verifies; after the root was replaced in its files, the old and the new are trusted, and the next CA is below the new', async () => {
  await using upstream = await open()
  await using opened = await openTestAuthority({ world, upstream, profile: { ca: { lifetime: hours(2) }, svid: { x509: minutes(10) } } })
  const { ca } = opened
  const key = await provenKey()
  const issue = () => ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key, context: {} }, never)
  const before = await issue()
  expect(before.chain).toHaveLength(3)
  const next = await TestCa.create({ at: world.clock.now(), name: 'next root', lifetime: hours(1000) })
  await writeUpstream(folder, next, next)
  await whileFresh(ca, async () => {
    await world.clock.advance(minutes(1))
    await expect
      .poll(() => ca.bundle.current.x509Authorities.map(({ certificate }) => certificate.serial))
      .toEqual([root.certificate.serial, next.certificate.serial])
    for (let waited = 0; waited < 120; waited++) {
      await world.clock.advance(minutes(1))
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  })
  const after = await issue()
  expect(after.chain).toHaveLength(2)
  expect(after.chain[1]?.issuer.text).toContain('next root')
  expect(verifyX509Svid(after.chain, bundleSet([ca.bundle.current]), world.clock.now()).spiffeId).toBe(workload)
})
