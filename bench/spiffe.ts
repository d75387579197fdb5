/** What whoever receives an SVID does with it. */
import { generateKeyPairSync } from 'node:crypto'
import { systemClock } from '../src/kernel/clock.ts'
import { minutes } from '../src/kernel/duration.ts'
import { bundleSet } from '../src/spiffe/bundle-set.ts'
import type { TrustBundle } from '../src/spiffe/bundle.ts'
import { parseSpiffeId } from '../src/spiffe/id.ts'
import { makeJwtSvid, verifyJwtSvid } from '../src/spiffe/jwt-svid.ts'
import { parseTrustDomain } from '../src/spiffe/trust-domain.ts'
import { verifyX509Svid } from '../src/spiffe/x509-svid.ts'
import { parseCertificates } from '../src/x509/certificate.ts'
import { signerOf } from '../src/x509/signature.ts'
import { TestCa } from '../test/support/test-ca.ts'
import { type Bench, demand, type Effort, type Figure, figureBesideOpenssl, figureOf, load, repeat } from './harness.ts'

export const spiffe: readonly Bench[] = [
  { name: 'spiffe.x509-verify', about: 'an X509-SVID read from its bytes and verified against a bundle', run: verifyCertificates },
  { name: 'spiffe.jwt-verify', about: 'a JWT-SVID verified against a bundle', run: verifyTokens },
  { name: 'spiffe.id-parse', about: 'a SPIFFE ID read', run: parseIds },
]

async function verifyCertificates(effort: Effort): Promise<Figure> {
  const at = systemClock.now()
  const ca = await TestCa.create({ at, trustDomain })
  const chains: Uint8Array[] = []
  for (let index = 0; index < 64; index++) chains.push((await ca.leaf({ uris: [idOf(index)] })).certificate.raw)
  const bundles = bundleSet([{ ...emptyBundle, x509Authorities: [{ certificate: ca.certificate, tainted: false }] }])
  const verify = (count: number) => verifyX509Svid(parseCertificates(chains[count % chains.length]!), bundles, at)

  demand(verify(5).spiffeId === idOf(5), 'a certificate does not verify')
  return figureBesideOpenssl(await repeat(effort, verify), 'certs/s', 'verify')
}

async function verifyTokens(effort: Effort): Promise<Figure> {
  const at = systemClock.now()
  const signer = signerOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  const bundles = bundleSet([{ ...emptyBundle, jwtAuthorities: [{ keyId: 'k', publicKey: signer.publicKey, tainted: false }] }])
  const content = { spiffeId: idOf(1), audience: ['payments'], issuedAt: at, expiresAt: at + minutes(5), jti: 'j' }
  const token = await makeJwtSvid(signer, 'k', content)
  const verify = () => verifyJwtSvid(token, bundles, 'payments', at)

  demand((await verify()).spiffeId === idOf(1), 'a token does not verify')
  return figureBesideOpenssl(await load(effort, { concurrency: 1 }, verify), 'tokens/s', 'verify')
}

async function parseIds(effort: Effort): Promise<Figure> {
  const ids = Array.from({ length: 1024 }, (_, index) => String(idOf(index)))
  demand(parseSpiffeId(ids[7]!) === ids[7], 'an ID is not itself')
  return figureOf(await repeat(effort, (count) => parseSpiffeId(ids[count % ids.length]!)), 'ids/s')
}

const trustDomain = parseTrustDomain('bench.test')
const idOf = (index: number) => parseSpiffeId(`spiffe://bench.test/ns/shop-${index}/sa/orders`)
const emptyBundle: TrustBundle = { trustDomain, x509Authorities: [], jwtAuthorities: [], witAuthorities: [], sequence: 1n }
