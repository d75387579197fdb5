import { beforeAll, describe, expect, test } from 'vitest'
import { hours, seconds } from '../../src/kernel/duration.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import type { TrustBundle } from '../../src/spiffe/bundle.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { checkX509Svid, verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { TestCa, type Wishes } from '../support/test-ca.ts'

const at = 1_767_225_600_000
let ca: TestCa
let stranger: TestCa

beforeAll(async () => {
  ca = await TestCa.create({ at })
  stranger = await TestCa.create({ at, trustDomain: 'other.org', name: 'test root' })
})

const bundleOf = (authority: TestCa, trustDomain = authority.trustDomain): TrustBundle => ({
  trustDomain: parseTrustDomain(trustDomain),
  x509Authorities: [{ certificate: authority.certificate, tainted: false }],
  jwtAuthorities: [],
  witAuthorities: [],
  sequence: 1n,
})
const verify = async (wishes: Wishes, bundles = bundleSet([bundleOf(ca)]), moment = at) =>
  verifyX509Svid([(await ca.leaf(wishes)).certificate], bundles, moment)

const badLeaves: readonly [rule: string, what: string, wishes: Wishes, reason: string][] = [
  ['X-1', 'no URI name', { uris: [], dnsNames: ['a.example.org'] }, 'x509-svid.uri-count'],
  ['X-2', 'two SPIFFE IDs', { uris: ['spiffe://example.org/a', 'spiffe://example.org/b'] }, 'x509-svid.uri-count'],
  ['X-2', 'a second URI that is no SPIFFE ID', { uris: ['spiffe://example.org/a', 'https://example.org'] }, 'x509-svid.uri-count'],
  ['X-4', 'the ID of the trust domain', { uris: ['spiffe://example.org'] }, 'x509-svid.no-path'],
  ['X-24', 'another scheme', { uris: ['https://example.org/a'] }, 'spiffe-id.scheme'],
  ['X-12', 'the CA flag', { ca: {} }, 'x509-svid.not-a-leaf'],
  ['X-18', 'a key that may sign certificates', { keyUsage: ['digitalSignature', 'keyCertSign'] }, 'x509-svid.may-sign'],
  ['X-18', 'a key that may sign revocation lists', { keyUsage: ['digitalSignature', 'cRLSign'] }, 'x509-svid.may-sign'],
  ['X-17', 'a key that may not sign', { keyUsage: ['keyEncipherment'] }, 'x509-svid.may-not-authenticate'],
  ['X-20', 'server authentication alone', { extKeyUsage: ['serverAuth'] }, 'x509-svid.extended-key-usage'],
]

describe('X509-SVIDs', () => {
  test.each(badLeaves)('%s refuses a leaf with %s', async (_rule, _what, wishes, reason) => {
    await expect(verify(wishes)).rejects.toMatchObject({ reason })
  })

  test('R-12 refuses an empty chain', () => {
    expect(() => verifyX509Svid([], bundleSet([bundleOf(ca)]), at)).toThrow(expect.objectContaining({ reason: 'x509-svid.empty-chain' }))
  })

  test('API-11 refuses a trust domain that no bundle is known for', async () => {
    await expect(verify({ uris: ['spiffe://unknown.org/a'] })).rejects.toMatchObject({ reason: 'x509-svid.unknown-trust-domain' })
  })

  test('X-32 refuses everybody when the bundle is empty', async () => {
    const empty = bundleSet([{ ...bundleOf(ca), x509Authorities: [] }])
    await expect(verify({}, empty)).rejects.toMatchObject({ reason: 'x509-svid.unknown-trust-domain' })
  })

  test('R-5 an authority of one trust domain does not vouch for another, though both are trusted', async () => {
    const both = bundleSet([bundleOf(ca), bundleOf(stranger)])
    await expect(verify({ uris: ['spiffe://other.org/a'] }, both)).rejects.toMatchObject({
      reason: expect.stringMatching(/^chain\./) as string,
    })
  })

  test('X-21 refuses a leaf before and after its time, and accepts its first and last second', async () => {
    const wishes = { notBefore: at, notAfter: at + hours(1) }
    await expect(verify(wishes, undefined, at - seconds(1))).rejects.toMatchObject({ reason: 'chain.not-yet-valid' })
    await expect(verify(wishes, undefined, at + hours(1) + seconds(1))).rejects.toMatchObject({ reason: 'chain.expired' })
    await expect(verify(wishes, undefined, at)).resolves.toBeTruthy()
    await expect(verify(wishes, undefined, at + hours(1))).resolves.toBeTruthy()
  })

  test('X-3 accepts DNS names beside the SPIFFE ID, and says who it is', async () => {
    const { spiffeId, path } = await verify({ dnsNames: ['web.example.org'] })
    expect(spiffeId).toBe('spiffe://example.org/workload')
    expect(path).toHaveLength(2)
  })

  test('R-13, X-21 an intermediate that was met before is still looked at for time, rights and trust', async () => {
    const below = await ca.intermediate({ notAfter: at + hours(2) })
    const leaf = async () => parseCertificate((await below.leaf({ notAfter: at + hours(3) })).certificate.raw)
    const again = () => parseCertificate(below.certificate.raw)
    const bundle = bundleOf(ca)
    const bundles = bundleSet([bundle])
    const { path } = verifyX509Svid([await leaf(), again()], bundles, at)
    expect(verifyX509Svid([await leaf(), again()], bundles, at).path[1], 'the very same').toBe(path[1])
    expect(() => verifyX509Svid([path[0]!, again()], bundles, at + hours(2) + seconds(1))).toThrow(
      expect.objectContaining({ reason: 'chain.expired' }),
    )
    expect(verifyX509Svid([await leaf(), again()], bundleSet([{ ...bundle }]), at).path[1], 'another revision').not.toBe(path[1])
    const without = bundleSet([{ ...bundle, x509Authorities: bundleOf(stranger).x509Authorities }])
    expect(() => verifyX509Svid([path[0]!, again()], without, at)).toThrow(expect.objectContaining({ reason: 'chain.no-path' }))
  })

  test('R-29 a bundle remembers no more than 64 intermediates', async () => {
    const bundles = bundleSet([bundleOf(ca)])
    const verify = async (below: TestCa) =>
      verifyX509Svid([(await below.leaf()).certificate, parseCertificate(below.certificate.raw)], bundles, at).path[1]
    const first = await ca.intermediate()
    const before = await verify(first)
    expect(await verify(first)).toBe(before)
    for (let count = 0; count < 64; count++) await verify(await ca.intermediate({ name: `intermediate ${count}` }))
    expect(await verify(first)).not.toBe(before)
  })

  test('accepts a leaf under an intermediate that the peer sent along', async () => {
    const below = await ca.intermediate()
    const { certificate } = await below.leaf()
    expect(verifyX509Svid([certificate, below.certificate], bundleSet([bundleOf(ca)]), at).path).toHaveLength(3)
    expect(checkX509Svid(certificate)).toBe('spiffe://example.org/workload')
  })
})
