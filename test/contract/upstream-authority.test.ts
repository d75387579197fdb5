import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { authorityRequest, issueAuthority } from '../../src/ca/issuance.ts'
import { onThisThread } from '../../src/ca/workbench.ts'
import { checked, type MintRequest, type UpstreamAuthority } from '../../src/ca/upstream-authority.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { idOfTrustDomain } from '../../src/spiffe/id.ts'
import { upstreamAuthorities } from '../../src/main/builtins.ts'
import { buildChain } from '../../src/x509/chain.ts'
import { fingerprint, signedBy } from '../../src/x509/certificate.ts'
import { generateKeyPair } from '../../src/x509/key-type.ts'
import { signerOf } from '../../src/x509/signature.ts'
import type { World } from '../../src/kernel/driver.ts'
import { systemSecrets } from '../../src/main/config/secrets.ts'
import { FakeVault } from '../ca/fake-vault.ts'
import { upstreamFiles, writeUpstream } from '../ca/upstream-files.ts'
import { TestCa } from '../support/test-ca.ts'
import { never, testWorld, trustDomain, type TestWorld } from '../ca/support.ts'
import { FakeIntents } from '../fakes/intents.ts'

type Kind = (typeof upstreamAuthorities)[number]['kind']

/** Who stands behind each driver here; a new driver needs a line. */
const counterparts: Record<Kind, (world: TestWorld) => Promise<{ readonly settings: object; readonly world?: World } & AsyncDisposable>> = {
  disk: async (world) => {
    const folder = await mkdtemp(join(tmpdir(), 'vidimus-upstream-'))
    const root = await TestCa.create({ at: world.clock.now(), name: 'root', lifetime: hours(240) })
    const middle = await root.intermediate({ ca: {}, notAfter: world.clock.now() + hours(120) })
    await writeUpstream(folder, middle, root)
    const dispose = () => rm(folder, { recursive: true, force: true })
    return { settings: upstreamFiles(folder), world: { ...world, secrets: systemSecrets }, [Symbol.asyncDispose]: dispose }
  },
  'self-signed': async () => ({ settings: {}, async [Symbol.asyncDispose]() {} }),
  vault: async (world) => {
    const server = await FakeVault.open(world.clock.now())
    const settings = { address: server.address, auth: { method: 'token', token: { env: server.token } } }
    return { settings, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() }
  },
}

describe.each(upstreamAuthorities.map((driver) => [driver.kind, driver] as const))('upstream authority %s', (kind, driver) => {
  async function withUpstream(deed: (upstream: UpstreamAuthority, world: TestWorld) => Promise<void>): Promise<void> {
    const world = testWorld()
    await using counterpart = await counterparts[kind]!(world)
    await using upstream = await driver.open(driver.config.parse(counterpart.settings) as never, counterpart.world ?? world)
    await deed(upstream, world)
  }

  test('its example is a configuration', () => {
    expect(driver.config.safeParse(driver.example).success).toBe(true)
  })

  test('makes our key an authority of our trust domain, below a root that it announces', () =>
    withUpstream(async (upstream, world) => {
      const request = await mintRequest(world)
      const { chain, roots, until } = await checked(upstream, world).mint(request, never)
      const [own] = chain
      expect(own.spki).toEqual(request.publicKey)
      expect(own.subjectAltName?.uris).toEqual([idOfTrustDomain(trustDomain)])
      expect(own.basicConstraints).toMatchObject({ ca: true, pathLength: 0 })
      expect(roots).toHaveLength(1)
      const isRoot = fingerprint(own) === fingerprint(roots[0]!)
      if (isRoot) expect(signedBy(own, own)).toBe(true)
      else expect(buildChain({ leaf: own, intermediates: chain.slice(1), roots, at: world.clock.now() })).toHaveLength(chain.length + 1)
      expect(Math.abs(until - (world.clock.now() + request.lifetime))).toBeLessThanOrEqual(minutes(5))
    }))

  test('the root is not in the chain, unless it is our own certificate', () =>
    withUpstream(async (upstream, world) => {
      const { chain, roots } = await checked(upstream, world).mint(await mintRequest(world), never)
      const announced = new Set(roots.map(fingerprint))
      expect(chain.slice(1).filter((one) => announced.has(fingerprint(one)))).toEqual([])
    }))

  test('makes another authority each time it is asked', () =>
    withUpstream(async (upstream, world) => {
      const first = await checked(upstream, world).mint(await mintRequest(world), never)
      const second = await checked(upstream, world).mint(await mintRequest(world), never)
      expect(second.chain[0].serial).not.toBe(first.chain[0].serial)
      expect(second.chain[0].subject.text).not.toBe(first.chain[0].subject.text)
    }))

  test('a short life is a short life', () =>
    withUpstream(async (upstream, world) => {
      const { until } = await checked(upstream, world).mint(await mintRequest(world, minutes(1)), never)
      expect(until).toBeLessThanOrEqual(world.clock.now() + minutes(1) + seconds(1))
    }))
})

let serials = 0

async function mintRequest({ clock }: TestWorld, lifetime = hours(24)): Promise<MintRequest> {
  const key = signerOf((await generateKeyPair('ec-p256')).privateKey)
  const serial = Uint8Array.from({ length: 16 }, (_, index) => (index === 15 ? ++serials : 0x41))
  return {
    trustDomain,
    publicKey: key.publicKey,
    lifetime,
    leastLifetime: 0.9 * lifetime,
    pathLength: 0,
    csr: () => authorityRequest({ key, trustDomain, serial }),
    certify: (issuer) =>
      issueAuthority(
        { trustDomain, key, issuer, serial, at: clock.now(), backdate: seconds(30), lifetime, pathLength: 0 },
        { intents: new FakeIntents(), workbench: onThisThread },
        never,
      ),
  }
}
