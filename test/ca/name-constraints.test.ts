import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { diskUpstream } from '../../src/ca/upstream/disk.ts'
import { readFile } from 'node:fs/promises'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { Secret } from '../../src/kernel/log.ts'
import { TestCa } from '../support/test-ca.ts'
import { never, openTestAuthority, provenKey, testWorld, workload, type TestAuthority } from './support.ts'
import { upstreamFiles, writeUpstream } from './upstream-files.ts'

const profile = { ca: { nameConstraints: true } }
const permitted = { critical: true, permittedUris: ['example.org'], permittedDns: [], excludedUris: [], excludedDns: [], otherTypes: [] }

/** What was issued is an SVID for whoever has the bundle. */
async function issued({ ca, world }: TestAuthority) {
  const order = { kind: 'workload', spiffeId: workload, key: await provenKey(), dnsNames: ['a.example.org'], context: {} } as const
  const { chain } = await ca.issueX509Svid(order, never)
  expect(verifyX509Svid(chain, bundleSet([ca.bundle.current]), world.clock.now()).spiffeId).toBe(workload)
  return chain
}

test('C-6 a trust domain that is an address cannot be the only one that is permitted', async () => {
  const opening = openTestAuthority({ profile, trustDomain: parseTrustDomain('192.0.2.1') })
  await expect(opening).rejects.toMatchObject({ reason: 'profile.constraints-address' })
})

test('C-6 a root of our own certifies its trust domain alone, where that is configured, and anything otherwise', async () => {
  for (const [wishes, constraints] of [
    [{ profile }, permitted],
    [{}, undefined],
  ] as const) {
    await using opened = await openTestAuthority(wishes)
    await issued(opened)
    expect(opened.ca.bundle.current.x509Authorities.map(({ certificate }) => certificate.nameConstraints)).toEqual([constraints])
  }
})

test('C-6 so does a CA of ours below a root on disk', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'v-constraints-'))
  const world = testWorld()
  const root = await TestCa.create({ at: world.clock.now(), name: 'disk root' })
  await writeUpstream(folder, root, root)
  const secrets = { read: async (reference: object) => new Secret(await readFile(Object.values(reference)[0] as string, 'utf8')) }
  await using upstream = await diskUpstream.open(upstreamFiles(folder), { ...world, secrets })
  await using opened = await openTestAuthority({ profile, world, upstream })
  const [, own] = await issued(opened)
  expect(own?.nameConstraints).toEqual(permitted)
  await rm(folder, { recursive: true })
})
