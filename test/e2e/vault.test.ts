import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { checked, type MintRequest } from '../../src/ca/upstream-authority.ts'
import { vault } from '../../src/ca/upstream/vault.ts'
import { authorityRequest } from '../../src/ca/issuance.ts'
import { hours, minutes } from '../../src/kernel/duration.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { tellChain } from '../../src/kernel/failure.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { generateKeyPair } from '../../src/x509/key-type.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { signerOf } from '../../src/x509/signature.ts'
import { openTestAuthority, provenKey, never, testWorld, trustDomain, whileFresh, workload } from '../ca/support.ts'
import { FakeClock } from '../fakes/clock.ts'
import { FakeJournal } from '../fakes/journal.ts'
import { OpenBao } from '../support/openbao.ts'
import { describeWithPeer } from '../support/peers.ts'

describeWithPeer('openbao', 'an OpenBao server as upstream', (found) => {
  const bao = new OpenBao(found.path)
  let folder: string

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vidimus-vault-'))
    await bao.start(folder)
    await bao.mountRoot('pki')
    await bao.mountIntermediate('pki-int', 'pki')
  })

  afterAll(async () => {
    await bao.stop()
    await rm(folder, { recursive: true, force: true })
  })

  const upstreamOf = (settings: object, world = testWorld({ clock: new FakeClock(systemClock.now()) })) =>
    vault.open(vault.config.parse({ address: bao.address, auth: { method: 'token', token: { env: bao.token } }, ...settings }), world)

  test('V-15 a wrong token is refused with what the policy needs, is not tried again, and is nowhere to be read', async () => {
    const world = testWorld({ clock: new FakeClock(systemClock.now()) })
    const upstream = await upstreamOf({ auth: { method: 'token', token: { env: 's.wrong-and-secret' } } }, world)
    const error = await upstream.mint(await mintRequest(), never).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ reason: 'vault.permission-denied' })
    expect(tellChain(error)).toContain('path "pki/root/sign-intermediate" { capabilities = ["update"] }')
    expect(`${tellChain(error)}${JSON.stringify(error)}${world.log.lines.join()}`).not.toContain('s.wrong-and-secret')
    expect(world.log.lines.filter((line) => line.includes('tried again'))).toEqual([])
  })

  test('a token whose policy lacks the right is refused in the same words', async () => {
    const token = await bao.tokenFor('path "pki/roles/*" { capabilities = ["read"] }')
    const upstream = await upstreamOf({ auth: { method: 'token', token: { env: token } } })
    await expect(upstream.mint(await mintRequest(), never)).rejects.toMatchObject({ reason: 'vault.permission-denied' })
  })

  test('a mount or an issuer that is not there is refused', async () => {
    await expect((await upstreamOf({ mount: 'nowhere' })).mint(await mintRequest(), never)).rejects.toMatchObject({
      reason: 'vault.not-found',
    })
  })

  test('V-6 a certificate for another trust domain is refused', async () => {
    const upstream = checked(await upstreamOf({}), { clock: systemClock, log: silentLog, meter: silentMeter })
    const request = await mintRequest()
    await expect(upstream.mint({ ...request, trustDomain: parseTrustDomain('other.test') }, never)).rejects.toMatchObject({
      reason: 'upstream.wrong-name',
    })
  })

  test('V-6 a certificate for another key is refused', async () => {
    const upstream = checked(await upstreamOf({}), { clock: systemClock, log: silentLog, meter: silentMeter })
    const request = await mintRequest()
    const { publicKey } = signerOf((await generateKeyPair('ec-p256')).privateKey)
    await expect(upstream.mint({ ...request, publicKey }, never)).rejects.toMatchObject({ reason: 'upstream.wrong-key' })
  })

  test('V-4 a lifetime that the mount caps is told, and refused where it is too short to be of use', async () => {
    await bao.mountRoot('pki-short', { max: '1h' })
    const upstream = checked(await upstreamOf({ mount: 'pki-short' }), { clock: systemClock, log: silentLog, meter: silentMeter })
    const minted = await upstream.mint({ ...(await mintRequest()), leastLifetime: minutes(30) }, never)
    expect(minted.complaints.join('\n')).toMatch(/capped the lifetime of our CA: asked for 1d, got (1h|59m)/)
    expect(minted.until - systemClock.now()).toBeLessThanOrEqual(hours(1) + 1000)
    await expect(upstream.mint({ ...(await mintRequest()), leastLifetime: hours(2) }, never)).rejects.toMatchObject({
      reason: 'upstream.lifetime-too-short',
    })
  })

  test.for([
    ['the root of a mount', 'pki', 1],
    ['an intermediate of a mount', 'pki-int', 2],
  ] as const)('an SVID of a CA below %s is accepted by OpenSSL, by Node and by our own verifier', async ([, mount, issuers]) => {
    const world = testWorld({ clock: new FakeClock(systemClock.now()) })
    const token = await bao.tokenFor(`path "${mount}/root/sign-intermediate" { capabilities = ["update"] }`)
    const upstream = await upstreamOf({ mount, auth: { method: 'token', token: { env: token } } }, world)
    await using opened = await openTestAuthority({ world, upstream })
    const { ca } = opened
    const svid = await ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key: await provenKey(), context: {} }, never)
    const roots = ca.bundle.current.x509Authorities.map(({ certificate }) => certificate)

    expect(svid.chain).toHaveLength(1 + issuers)
    expect(roots).toHaveLength(1)
    expect(verifyX509Svid(svid.chain, bundleSet([ca.bundle.current]), world.clock.now()).spiffeId).toBe(workload)
    const certificates = [...svid.chain, ...roots].map(({ raw }) => new X509Certificate(raw))
    for (const [place, one] of certificates.slice(0, -1).entries()) {
      expect(one.checkIssued(certificates[place + 1]!) && one.verify(certificates[place + 1]!.publicKey)).toBe(true)
    }
    expect(await opensslVerifies(folder, svid.chain.map(pem), roots.map(pem))).toContain('OK')
    expect(world.log.lines.join()).not.toContain(token)
  })

  test('V-3 an issuer that is named signs, whatever the default of the mount is', async () => {
    const upstream = checked(await upstreamOf({ issuer: 'first' }), { clock: systemClock, log: silentLog, meter: silentMeter })
    const { roots } = await upstream.mint(await mintRequest(), never)
    expect(roots[0]!.subject.text).toContain('CN=root of pki')
  })

  test('the CA rotates under the same root, and what it signed before stays valid', async () => {
    const world = testWorld({ clock: new FakeClock(systemClock.now()) })
    await using opened = await openTestAuthority({
      world,
      upstream: await upstreamOf({}, world),
      profile: { ca: { lifetime: hours(2) }, svid: { x509: minutes(10) } },
    })
    const { ca } = opened
    const issue = async () => ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key: await provenKey(), context: {} }, never)
    const before = await issue()
    await whileFresh(ca, async () => {
      // The vault lives in real time, so the next authority is half as long as it was asked to be: still long enough.
      for (let waited = 0; waited < 100 && !(await rotated(opened.journal)); waited++) {
        await world.clock.advance(minutes(2))
        await new Promise((resolve) => setTimeout(resolve, 30))
      }
    })
    expect(ca.bundle.current.x509Authorities).toHaveLength(1)
    const after = await issue()
    expect(after.chain[1]!.serial).not.toBe(before.chain[1]!.serial)
    expect(verifyX509Svid(after.chain, bundleSet([ca.bundle.current]), world.clock.now()).spiffeId).toBe(workload)
  })

  test('V-10 a CA that is open goes on issuing while the vault is sealed, complains, and starts again without it', async () => {
    const world = testWorld({ clock: new FakeClock(systemClock.now()) })
    const journal = new FakeJournal()
    const upstream = await upstreamOf({ timeout: '2s' }, world)
    await using opened = await openTestAuthority({ world, upstream, journal })
    const { ca, keys } = opened
    await bao.seal()
    await whileFresh(ca, async () => {
      for (let waited = 0; waited < 200 && ca.complaints().length === 0; waited++) {
        await world.clock.advance(waited === 0 ? hours(13) : minutes(1))
        await new Promise((resolve) => setTimeout(resolve, 30))
      }
    })
    expect(ca.complaints().join()).toContain('sealed')
    const svid = await ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key: await provenKey(), context: {} }, never)
    expect(svid.chain).toHaveLength(2)

    const again = openTestAuthority({ world, upstream, journal, keys })
    for (let waited = 0; waited < 100 && !(await Promise.race([again.then(() => true), Promise.resolve(false)])); waited++) {
      await world.clock.advance(minutes(1))
      await new Promise((resolve) => setTimeout(resolve, 30))
    }
    await using reopened = await again
    expect(
      (await reopened.ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key: await provenKey(), context: {} }, never)).chain[1]!
        .serial,
    ).toBe(svid.chain[1]!.serial)
  })
})

async function mintRequest(): Promise<MintRequest> {
  const key = signerOf((await generateKeyPair('ec-p256')).privateKey)
  return {
    trustDomain,
    publicKey: key.publicKey,
    lifetime: hours(24),
    leastLifetime: hours(2),
    pathLength: 0,
    csr: () => authorityRequest({ key, trustDomain, serial: Uint8Array.of(0x41, 2, 3, 4) }),
    certify: () => Promise.reject(new Error('bug: a vault is no self-signed CA')),
  }
}

async function rotated(journal: { read(id: string): Promise<{ readonly record: string } | undefined> }): Promise<boolean> {
  const record = JSON.parse((await journal.read('server'))?.record ?? '{}') as { x509: { old: unknown[] } }
  return record.x509.old.length > 0
}

const pem = ({ raw }: { readonly raw: Uint8Array }): string => formatPem('CERTIFICATE', raw)

async function opensslVerifies(folder: string, chain: readonly string[], roots: readonly string[]): Promise<string> {
  const files = { leaf: chain[0]!, chain: chain.slice(1).join(''), roots: roots.join('') }
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, `${name}.pem`), text)
  const { stdout } = await promisify(execFile)(
    'openssl',
    ['verify', '-x509_strict', '-CAfile', 'roots.pem', '-untrusted', 'chain.pem', 'leaf.pem'],
    { cwd: folder },
  )
  return stdout
}
