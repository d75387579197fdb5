/** Rules for whoever validates and reads documents, held by ours, where the tests of those rooms do not say so already. */
import { fromBinary } from '@bufbuild/protobuf'
import { beforeAll, describe, expect, test } from 'vitest'
import { ValidateJWTSVIDResponseSchema } from '../../src/rpc/gen/spiffe/workload/workload_pb.ts'
import { formatBundleDocument, parseBundleDocument } from '../../src/spiffe/bundle-document.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import type { TrustBundle } from '../../src/spiffe/bundle.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import { validatedResponse } from '../../src/workload-api/messages.ts'
import { type Wishes, TestCa } from '../support/test-ca.ts'

const at = 1_767_225_600_000
const trustDomain = parseTrustDomain('example.org')
const id = 'spiffe://example.org/workload'
let root: TestCa
let bundle: TrustBundle

beforeAll(async () => {
  root = await TestCa.create({ at })
  bundle = {
    trustDomain,
    x509Authorities: [{ certificate: root.certificate, tainted: false }],
    jwtAuthorities: [{ keyId: 'k1', publicKey: root.signer.publicKey, tainted: false }],
    witAuthorities: [],
    sequence: 1n,
  }
})

describe('a path through signing certificates', () => {
  /** A leaf under two of them. */
  async function under(upper: Wishes, lower: Wishes) {
    const first = await root.intermediate({ ca: {}, name: 'first', ...upper })
    const second = await first.intermediate({ name: 'second', ...lower })
    const { certificate } = await second.leaf({ uris: [id] })
    return verifyX509Svid([certificate, second.certificate, first.certificate], bundleSet([bundle]), at)
  }

  test('X-13 is refused where it is longer than one of them allows', async () => {
    await expect(under({ ca: { pathLength: 0 } }, {})).rejects.toMatchObject({ reason: 'chain.path-too-long' })
  })

  test('X-14 is refused where one of them may not certify the trust domain', async () => {
    const constrained = (permittedUris: string[]) => ({ nameConstraints: { critical: true, permittedUris } })
    await expect(under({ ca: {}, ...constrained(['other.example']) }, {})).rejects.toMatchObject({ reason: 'chain.name-constraint' })
    await expect(under({ ca: {}, ...constrained(['example.org']) }, {})).resolves.toMatchObject({ spiffeId: id })
  })

  test('X-9 is accepted, be one of them of another trust domain', async () => {
    await expect(under({ uris: ['spiffe://other.example'] }, {})).resolves.toMatchObject({ spiffeId: id })
  })

  test('X-33 is accepted where one of them has an extended key usage', async () => {
    await expect(under({ extKeyUsage: ['serverAuth', 'clientAuth'] }, {})).resolves.toMatchObject({ spiffeId: id })
  })
})

describe('a bundle document', () => {
  interface Key {
    readonly use: string
    readonly x5c?: readonly string[]
  }
  const changed = (change: (key: Key) => object | undefined) => {
    const { keys } = JSON.parse(formatBundleDocument(bundle)) as { keys: Key[] }
    return parseBundleDocument(trustDomain, JSON.stringify({ keys: keys.flatMap((key) => change(key) ?? []) }))
  }

  test.each(['[]', '"keys"', '{"keys": {}}', '{"keys": "none"}', 'keys'])('B-1 is refused where it is no JWK set: %s', (text) => {
    expect(() => parseBundleDocument(trustDomain, text)).toThrow(expect.objectContaining({ category: 'invalid_argument' }))
  })

  test('B-6 trusts nobody when it is empty, and when nothing in it is of use', async () => {
    const { certificate } = await root.leaf({ uris: [id] })
    for (const empty of [changed(() => undefined), changed((key) => ({ ...key, use: 'sig' }))]) {
      expect(empty).toMatchObject({ x509Authorities: [], jwtAuthorities: [] })
      expect(() => verifyX509Svid([certificate], bundleSet([empty]), at)).toThrow(
        expect.objectContaining({ reason: 'x509-svid.unknown-trust-domain' }),
      )
    }
  })

  test.each([undefined, 'EC2', 'oct', 7])('B-8 passes over a key of the type %s', (kty) => {
    expect(changed((key) => ({ ...key, kty }))).toMatchObject({ x509Authorities: [], jwtAuthorities: [] })
  })

  test('J-17 W-20 a JWT authority is what has the use `jwt-svid`, and no other key', () => {
    for (const use of [undefined, 'sig', 'JWT-SVID', 'x509-svid', 'wit-svid']) {
      expect(changed((key) => (key.use === 'jwt-svid' ? { ...key, use } : key))?.jwtAuthorities).toEqual([])
    }
  })

  test.each([[undefined], [[]], [['']]])('X-30 passes over an X.509 authority whose certificates are %j', (x5c) => {
    expect(changed((key) => (key.x5c ? { ...key, x5c } : key)).x509Authorities).toEqual([])
  })

  test('X-31 reads the first certificate of an X.509 authority and no other', () => {
    const read = changed((key) => (key.x5c ? { ...key, x5c: [key.x5c[0], 'AAAA'] } : key))
    expect(read.x509Authorities.map(({ certificate }) => certificate.raw)).toEqual([root.certificate.raw])
  })
})

test('J-19 private claims of a foreign trust domain are not passed on', () => {
  const claims = { sub: 'spiffe://other.example/web', aud: ['db'], exp: 1, role: 'admin' }
  const verified = { spiffeId: parseSpiffeId(claims.sub), audience: ['db'], expiresAt: at, claims }
  const { bytes } = validatedResponse(verified, trustDomain)
  expect(Object.keys(fromBinary(ValidateJWTSVIDResponseSchema, bytes).claims ?? {})).toEqual(['sub', 'aud', 'exp'])
})
