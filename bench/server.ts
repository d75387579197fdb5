/** What a server signs for an agent, over mutual TLS. */
import { joinToken } from '../src/attestation/node/join-token.ts'
import { createCertificateRequest } from '../src/x509/certificate-request.ts'
import { deadline, systemClock } from '../src/kernel/clock.ts'
import { minutes, seconds } from '../src/kernel/duration.ts'
import { Failure } from '../src/kernel/failure.ts'
import { Secret, silentLog } from '../src/kernel/log.ts'
import { silentMeter } from '../src/kernel/meter.ts'
import { systemFiles } from '../src/kernel/files.ts'
import { systemRandom } from '../src/kernel/random.ts'
import { makeSvidKey } from '../src/agent/svid-key.ts'
import type { UpstreamServer } from '../src/agent/upstream-server.ts'
import { type AdminClient, connectServer } from '../src/server-api/client.ts'
import { bundleSet } from '../src/spiffe/bundle-set.ts'
import { verifyX509Svid } from '../src/spiffe/x509-svid.ts'
import { type Bench, demand, type Effort, type Figure, figureOf, load, residentMb } from './harness.ts'
import { Installation, ownId, registerThisProcess } from './installation.ts'

export const server: readonly Bench[] = [
  {
    name: 'server.batch1',
    about: 'BatchNewX509SVID of one certificate, 8 at once on one connection; CPU and memory of the server',
    run: (effort) => signBatches(effort, 1, 8),
  },
  {
    name: 'server.batch50',
    about: 'BatchNewX509SVID of 50 certificates, 4 at once on one connection; CPU and memory of the server',
    run: (effort) => signBatches(effort, 50, 4),
  },
]

async function signBatches(effort: Effort, size: number, concurrency: number): Promise<Figure> {
  await using owned = new AsyncDisposableStack()
  const installation = owned.use(await Installation.open())
  const { admin, pid } = await installation.startServer()
  const upstream = owned.use(
    connectServer({ host: '127.0.0.1', port: installation.port }, { clock: systemClock, log: silentLog, meter: silentMeter }),
  )
  const entryId = await joinAndRegister(admin, upstream, effort.stop)
  const requests: { readonly entryId: string; readonly csr: Uint8Array }[] = []
  for (let index = 0; index < 2048; index++)
    requests.push({ entryId, csr: await createCertificateRequest({ signer: (await makeSvidKey()).signer }) })

  const batches = Array.from({ length: Math.floor(requests.length / size) }, (_, index) => requests.slice(index * size, (index + 1) * size))
  const sign = (count: number) => upstream.signX509(batches[count % batches.length]!, effort.stop)
  const answers = await sign(0)
  const bundles = bundleSet([await upstream.bundle(effort.stop)])
  for (const answer of answers) {
    if (answer instanceof Failure) throw answer
    demand(verifyX509Svid(answer.chain, bundles, systemClock.now()).spiffeId === ownId, 'a certificate does not verify')
  }
  const rate = await load(effort, { concurrency, pid }, async (_, count) =>
    demand(!(await sign(count)).some((answer) => answer instanceof Failure), 'a request was refused'),
  )
  const each = {
    ...rate,
    perSecond: rate.perSecond * size,
    count: rate.count * size,
    cpuUsEach: rate.cpuUsEach === undefined ? undefined : rate.cpuUsEach / size,
  }
  const rss = await residentMb(pid)
  return { ...figureOf(each, 'certs/s'), ...(rss === undefined ? {} : { rss_mb: rss }) }
}

/** Joins as an agent would; the id of an entry whose certificates this agent may have signed. */
async function joinAndRegister(admin: AdminClient, upstream: UpstreamServer, stop: AbortSignal): Promise<string> {
  const { token } = await admin.tokens.create({ ttl: minutes(10) }, stop)
  const secrets = { read: async () => new Secret(token.reveal()) }
  await using prover = await joinToken.openProver(
    { token: { env: 'TOKEN' } },
    { clock: systemClock, random: systemRandom, files: systemFiles, log: silentLog, meter: silentMeter, secrets },
  )
  const key = await makeSvidKey()
  const bundle = await admin.bundle.find(deadline(seconds(10)))
  const { svid } = await upstream.attest(prover, await createCertificateRequest({ signer: key.signer }), bundle, stop)
  upstream.use({ spiffeId: svid.spiffeId, chain: svid.chain, privateKeyPem: key.privateKeyPem }, bundle)
  await registerThisProcess(admin, svid.spiffeId)
  const [entry] = await upstream.entries(stop)
  if (!entry) throw new Error('the agent has no entry')
  return entry.id
}
