/** What whoever receives an SVID does with it. */
import { generateKeyPairSync, verify } from 'node:crypto'
import { jwtVerify } from 'jose'
import { systemClock } from '../src/kernel/clock.ts'
import { minutes } from '../src/kernel/duration.ts'
import { bundleSet } from '../src/spiffe/bundle-set.ts'
import type { TrustBundle } from '../src/spiffe/bundle.ts'
import { parseSpiffeId } from '../src/spiffe/id.ts'
import { makeJwtSvid, verifyJwtSvid } from '../src/spiffe/jwt-svid.ts'
import { parseTrustDomain } from '../src/spiffe/trust-domain.ts'
import { makeWitProof, makeWitSvid, verifyWitPresentation } from '../src/spiffe/wit-svid.ts'
import { verifyX509Svid } from '../src/spiffe/x509-svid.ts'
import { type Certificate, parseCertificates, publicKeyOf } from '../src/x509/certificate.ts'
import { type Signer, signerOf } from '../src/x509/signature.ts'
import { TestCa } from '../test/support/test-ca.ts'
import { type Bench, demand, type Effort, type Figure, figureOf, load, repeat, rounded } from './harness.ts'

export const spiffe: readonly Bench[] = [
  {
    name: 'spiffe.x509-verify',
    about: 'an X509-SVID read and verified, its intermediate met before',
    run: (effort) => verifyCertificates(effort, true),
  },
  {
    name: 'spiffe.x509-verify-new',
    about: 'an X509-SVID read and verified, its intermediate never met',
    run: (effort) => verifyCertificates(effort, false),
  },
  { name: 'spiffe.jwt-verify', about: 'a JWT-SVID verified against a bundle', run: verifyTokens },
  { name: 'spiffe.wit-verify', about: 'a WIT-SVID and its proof of possession verified against a bundle', run: verifyPresentations },
  { name: 'spiffe.id-parse', about: 'a SPIFFE ID read', run: parseIds },
]

async function verifyCertificates(effort: Effort, metBefore: boolean): Promise<Figure> {
  const at = systemClock.now()
  const ca = await TestCa.create({ at, trustDomain })
  const below = await ca.intermediate()
  const leaves: Certificate[] = []
  for (let index = 0; index < 64; index++) leaves.push((await below.leaf({ uris: [idOf(index)] })).certificate)
  const chains = leaves.map(({ raw }) => Buffer.concat([raw, below.certificate.raw]))
  const bundle = { ...emptyBundle, x509Authorities: [{ certificate: ca.certificate, tainted: false }] }
  const bundles = bundleSet([bundle])
  const verifyChain = (count: number) =>
    verifyX509Svid(parseCertificates(chains[count % chains.length]!), metBefore ? bundles : bundleSet([{ ...bundle }]), at)
  const key = publicKeyOf(below.certificate)
  const raw = (count: number) => {
    const { tbs, signature } = leaves[count % leaves.length]!
    return verify('sha256', tbs, key, signature)
  }

  demand(verifyChain(5).spiffeId === idOf(5) && raw(5), 'a certificate does not verify')
  return beside(effort, 'certs/s', 'crypto.verify of the leaf alone, same run', verifyChain, raw)
}

async function verifyTokens(effort: Effort): Promise<Figure> {
  const at = systemClock.now()
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const signer = signerOf(privateKey)
  const bundles = bundleSet([{ ...emptyBundle, jwtAuthorities: [{ keyId: 'k', publicKey: signer.publicKey, tainted: false }] }])
  const content = { spiffeId: idOf(1), audience: ['payments'], issuedAt: at, expiresAt: at + minutes(5), jti: 'j' }
  const token = await makeJwtSvid(signer, 'k', content)
  const verifyToken = () => verifyJwtSvid(token, bundles, 'payments', at)
  const jose = () => jwtVerify(token, publicKey, { audience: 'payments', algorithms: ['ES256'] })

  demand((await verifyToken()).spiffeId === idOf(1) && (await jose()).payload.sub === idOf(1), 'a token does not verify')
  return beside(effort, 'tokens/s', 'jose jwtVerify with the same key, same run', verifyToken, jose)
}

async function verifyPresentations(effort: Effort): Promise<Figure> {
  const at = systemClock.now()
  const [signer, holder] = [0, 1].map(() => signerOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)) as [Signer, Signer]
  const bundles = bundleSet([{ ...emptyBundle, witAuthorities: [{ keyId: 'k', publicKey: signer.publicKey, tainted: false }] }])
  const content = { spiffeId: idOf(1), proofKey: holder.publicKey, issuedAt: at, expiresAt: at + minutes(60), jti: 'j' }
  const token = await makeWitSvid(signer, 'k', content)
  const proof = await makeWitProof(holder, { token, audience: 'https://payments.test', expiresAt: at + minutes(4), jti: 'p' })
  const present = () => verifyWitPresentation({ token, proof }, bundles, { audience: 'https://payments.test', at })

  demand((await present()).spiffeId === idOf(1), 'a token does not verify')
  return figureOf(await load(effort, { concurrency: 1 }, present), 'tokens/s')
}

async function parseIds(effort: Effort): Promise<Figure> {
  const ids = Array.from({ length: 1024 }, (_, index) => String(idOf(index)))
  demand(parseSpiffeId(ids[7]!) === ids[7], 'an ID is not itself')
  return figureOf(await repeat(effort, (count) => parseSpiffeId(ids[count % ids.length]!)), 'ids/s')
}

/**
 * One thing beside another on one thread, in turns of a few milliseconds, so that whatever else the machine does slows both.
 * The ratio is that of their CPU times; figures of the machine's clock would tell of its other guests.
 */
async function beside(
  effort: Effort,
  unit: string,
  of: string,
  ours: (count: number) => unknown,
  theirs: (count: number) => unknown,
): Promise<Figure> {
  for (let count = 0; count < 2000; count++) await Promise.all([ours(count), theirs(count)])
  const spent = { ours: 0, theirs: 0 }
  const began = performance.now()
  let wall = 0
  let count = 0
  while (performance.now() - began < effort.seconds * 1000) {
    effort.stop.throwIfAborted()
    const turn = performance.now()
    spent.ours += await cpuOf(ours, count)
    wall += performance.now() - turn
    spent.theirs += await cpuOf(theirs, count)
    count += operationsATurn
  }
  return {
    value: rounded(count / (wall / 1000)),
    unit,
    cpu_us_per_op: rounded(spent.ours / count),
    ratio: rounded(spent.theirs / spent.ours),
    of,
    n: count,
  }
}

async function cpuOf(operation: (count: number) => unknown, from: number): Promise<number> {
  const before = process.cpuUsage()
  for (let count = from; count < from + operationsATurn; count++) {
    const answer = operation(count)
    if (answer instanceof Promise) await answer
  }
  const { user, system } = process.cpuUsage(before)
  return user + system
}

const operationsATurn = 200
const trustDomain = parseTrustDomain('bench.test')
const idOf = (index: number) => parseSpiffeId(`spiffe://bench.test/ns/shop-${index}/sa/orders`)
const emptyBundle: TrustBundle = { trustDomain, x509Authorities: [], jwtAuthorities: [], witAuthorities: [], sequence: 1n }
