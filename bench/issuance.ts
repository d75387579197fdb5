/** SVIDs made by one CA in one process, with everything that is done to each. */
import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { file } from '../src/audit/sinks/file.ts'
import { openTrail } from '../src/audit/trail.ts'
import type { CertificateAuthority } from '../src/ca/certificate-authority.ts'
import { memory as keysInMemory } from '../src/ca/keys/memory.ts'
import { brokenRules, type Expected } from '../src/ca/lint.ts'
import { openIntents } from '../src/ca/intents.ts'
import { openCertificateAuthority } from '../src/ca/own-authority.ts'
import { issuanceProfile } from '../src/ca/profile.ts'
import { selfSigned } from '../src/ca/upstream/self-signed.ts'
import { overThreads } from '../src/ca/workbench-threads.ts'
import { fromHex } from '../src/kernel/bytes.ts'
import { systemClock } from '../src/kernel/clock.ts'
import type { World } from '../src/kernel/driver.ts'
import { hours, minutes } from '../src/kernel/duration.ts'
import { systemFiles } from '../src/kernel/files.ts'
import { silentLog } from '../src/kernel/log.ts'
import { silentMeter } from '../src/kernel/meter.ts'
import { systemRandom } from '../src/kernel/random.ts'
import { openWorkbenchThreads } from '../src/main/threads.ts'
import { bundleSet } from '../src/spiffe/bundle-set.ts'
import { parseSpiffeId } from '../src/spiffe/id.ts'
import { verifyJwtSvid } from '../src/spiffe/jwt-svid.ts'
import { parseTrustDomain } from '../src/spiffe/trust-domain.ts'
import { verifyX509Svid } from '../src/spiffe/x509-svid.ts'
import { memory as storeInMemory } from '../src/store/memory.ts'
import { createCertificateRequest, parseCertificateRequest, proven } from '../src/x509/certificate-request.ts'
import { parseCertificate } from '../src/x509/certificate.ts'
import { signerOf } from '../src/x509/signature.ts'
import { type Bench, demand, type Effort, type Figure, figureBesideOpenssl, figureOf, load, openLoop, repeat, watched } from './harness.ts'

export const issuance: readonly Bench[] = [
  {
    name: 'issuance.p256',
    about:
      'an X509-SVID from a request: proof of its key, template, lint, intent on the disk, signature, check, audit record on the disk; 256 at once, waiting times at 70 % of that',
    run: (effort) => issueX509(effort, 'ec-p256'),
  },
  { name: 'issuance.rsa2048', about: 'the same by an authority with an RSA key', run: (effort) => issueX509(effort, 'rsa-2048') },
  {
    name: 'issuance.jwt',
    about: 'a JWT-SVID: intent on the disk, signed, verified, audit record on the disk; 256 at once, waiting times at 70 % of that',
    run: issueJwt,
  },
  { name: 'issuance.lint', about: 'every rule on one leaf that is about to be signed, read from its bytes', run: lintLeaves },
]

async function issueX509(effort: Effort, keyType: 'ec-p256' | 'rsa-2048'): Promise<Figure> {
  await using office = await openOffice(keyType)
  const { ca } = office
  const requests = await makeRequests()
  const issue = (count: number) => {
    const key = requests[count % requests.length]!
    return ca.issueX509Svid({ kind: 'workload', spiffeId, key, context }, effort.stop)
  }

  const { chain } = await issue(0)
  demand(verifyX509Svid(chain, bundleSet([ca.bundle.current]), systemClock.now()).spiffeId === spiffeId, 'the certificate does not verify')
  return await measured(effort, issue, 'certs/s', keyType === 'ec-p256' ? 'ecdsap256' : 'rsa2048')
}

async function issueJwt(effort: Effort): Promise<Figure> {
  await using office = await openOffice('ec-p256')
  const { ca } = office
  const issue = () => ca.issueJwtSvid({ spiffeId, audience: [audience], context }, effort.stop)

  const { token } = await issue()
  const verified = await verifyJwtSvid(token, bundleSet([ca.bundle.current]), audience, systemClock.now())
  demand(verified.spiffeId === spiffeId, 'the token does not verify')
  return await measured(effort, issue, 'tokens/s', 'ecdsap256')
}

/** As fast as it goes, and then at 70 % of that for the waiting times; nobody may hold the thread meanwhile. */
async function measured(
  effort: Effort,
  issue: (count: number) => Promise<unknown>,
  unit: string,
  algorithm: 'ecdsap256' | 'rsa2048',
): Promise<Figure> {
  const half = { ...effort, seconds: effort.seconds / 2 }
  await load({ ...effort, seconds: 1 }, { concurrency }, (_, count) => issue(count))
  const { value, heldMs } = await watched(async () => {
    const rate = await load(half, { concurrency }, (_, count) => issue(count))
    return { rate, calm: await openLoop(half, { perSecond: 0.7 * rate.perSecond }, issue) }
  })
  const figure = await figureBesideOpenssl(value.rate, unit, 'sign', algorithm)
  const { p50_ms, p99_ms } = figureOf(value.calm, unit)
  return { ...figure, ...(p50_ms === undefined ? {} : { p50_ms }), ...(p99_ms === undefined ? {} : { p99_ms }), held_ms: heldMs }
}

async function lintLeaves(effort: Effort): Promise<Figure> {
  await using office = await openOffice('ec-p256')
  const [request] = await makeRequests(1)
  const key = await proven(parseCertificateRequest(request!))
  const at = systemClock.now()
  const { chain } = await office.ca.issueX509Svid({ kind: 'workload', spiffeId, key, context }, effort.stop)
  const issuer = office.ca.bundle.current.x509Authorities[0]!.certificate
  const expected: Expected = {
    what: 'leaf',
    trustDomain,
    id: spiffeId,
    subject: chain[0]!.subject.attributes,
    dnsNames: [],
    spki: key.spki,
    issuer,
    signatureKeyType: 'ec-p256',
    serial: fromHex(chain[0]!.serial),
    notBefore: chain[0]!.notBefore,
    notAfter: chain[0]!.notAfter,
    at: Math.max(at, chain[0]!.notBefore),
    longest: hours(1),
    pathLength: 0,
    authorityKeys: [issuer.spki],
  }
  const der = chain[0]!.raw
  demand(brokenRules(parseCertificate(der), expected).length === 0, 'a good leaf breaks a rule')
  demand(brokenRules(parseCertificate(der), { ...expected, pathLength: 0, dnsNames: ['x.test'] }).length > 0, 'a bad leaf breaks none')
  return figureOf(await repeat(effort, () => brokenRules(parseCertificate(der), expected)), 'leaves/s')
}

/** A CA as the server opens it: keys and store in memory, intents and audit trail in files. */
async function openOffice(keyType: 'ec-p256' | 'rsa-2048'): Promise<{ readonly ca: CertificateAuthority } & AsyncDisposable> {
  await using opened = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'vidimus-bench-'))
  opened.defer(() => rm(directory, { recursive: true, force: true }))
  const world: World = {
    clock: systemClock,
    random: systemRandom,
    files: systemFiles,
    log: silentLog,
    meter: silentMeter,
    secrets: { read: () => Promise.reject(new Error('bug: nothing here is secret')) },
  }
  const store = opened.use(await storeInMemory.open({}, world))
  const keys = opened.use(await keysInMemory.open({}, world))
  const upstream = opened.use(await selfSigned.open({}, world))
  const audit = opened.use(
    await openTrail(await file.open({ path: join(directory, 'audit.log'), maxMebibytes: 64, maxAge: hours(24) }, world), world),
  )
  const intents = opened.use(await openIntents({ ...world, directory: join(directory, 'intents'), records: store.issuances }))
  const ca = opened.use(
    await openCertificateAuthority({
      ...world,
      keys,
      upstream,
      audit,
      journal: store.journal,
      intents,
      workbench: overThreads(opened.use(await openWorkbenchThreads())),
      profile: issuanceProfile({ ca: { keyType } }),
      trustDomain,
      serverId: 'bench',
      refreshHint: minutes(5),
    }),
  )
  const stop = new AbortController()
  const copying = intents.keepCopied(stop.signal)
  opened.defer(async () => {
    stop.abort()
    await copying
  })
  const owned = opened.move()
  return { ca, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

/** More than any cache of keys holds, so that each certificate costs what the first of a stranger costs. */
async function makeRequests(count = 4096): Promise<Uint8Array[]> {
  const requests: Uint8Array[] = []
  for (let index = 0; index < count; index++) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    requests.push(await createCertificateRequest({ signer: signerOf(privateKey) }))
  }
  return requests
}

const trustDomain = parseTrustDomain('bench.test')
const spiffeId = parseSpiffeId('spiffe://bench.test/ns/shop/sa/orders')
const audience = 'payments'
const context = { caller: 'spiffe://bench.test/agent', entry: 'e-1', revision: '1' }
const concurrency = 256
