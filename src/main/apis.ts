/** The agent's two sockets, in the words that commands use. */
import type { OperatorApi, WorkloadApi } from '../cli/context.ts'
import { formatInstant, systemClock } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { formatBundlePem, formatJwtKeySet } from '../spiffe/bundle-document.ts'
import { openWorkloadApiClient } from '../workload-client/client.ts'
import { endpointOf } from '../workload-client/endpoint.ts'
import { connectOperator } from '../workload-api/client.ts'
import { formatPem } from '../x509/pem.ts'

export function openWorkloadApi(address: string | undefined): WorkloadApi {
  const client = openWorkloadApiClient(endpointOf(address), systemClock)
  return {
    async fetchX509(signal) {
      const { identities, bundles } = await first(client.watchX509(signal))
      const svids = identities.map(({ spiffeId, hint, chain, chainPem, privateKey }) => {
        const { serial, notBefore, notAfter } = chain[0]!
        return {
          spiffeId,
          hint,
          serial,
          notBefore,
          notAfter,
          chainPem,
          privateKeyPem: privateKey.export({ format: 'pem', type: 'pkcs8' }),
        }
      })
      return { svids, bundles: new Map([...bundles.all()].map((bundle) => [bundle.trustDomain, formatBundlePem(bundle)])) }
    },
    async fetchBundles(signal) {
      const [x509, jwt] = await Promise.all([first(client.watchX509Bundles(signal)), first(client.watchJwtBundles(signal))])
      return {
        x509: new Map(
          [...x509].map(([domain, certificates]) => [domain, certificates.map(({ raw }) => formatPem('CERTIFICATE', raw)).join('')]),
        ),
        jwt: new Map([...jwt].map(([domain, bundle]) => [domain, JSON.parse(formatJwtKeySet(bundle)) as unknown])),
      }
    },
    fetchWit: (spiffeId, signal) => first(client.watchWit(spiffeId, signal)),
    fetchJwt: (audience, spiffeId, signal) => client.fetchJwt(audience, spiffeId, signal),
    validateJwt: (audience, token, signal) => client.validateJwt(audience, token, signal),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
}

export function openOperatorApi(socketPath: string): OperatorApi {
  const client = connectOperator(socketPath)
  return {
    explainWorkload: (pid, signal) => client.explainWorkload(pid, signal),
    async status(signal) {
      const { spiffeId, ready, reasons, svidExpiresAt, lastSyncAt, entries, svids, policyVersion } = await client.status(signal)
      const facts = [
        ['certificate until', svidExpiresAt === undefined ? '' : formatInstant(svidExpiresAt)],
        ['last sync', lastSyncAt === undefined ? 'never' : formatInstant(lastSyncAt)],
        ['entries', entries],
        ['svids', svids],
        ['policy version', policyVersion.slice(0, 16)],
      ] as const
      return { spiffeId, ready, complaints: reasons, facts }
    },
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
}

/** The first answer of a stream, which is then closed. */
async function first<T>(stream: AsyncIterable<T>): Promise<T> {
  for await (const value of stream) return value
  throw new Failure('unavailable', 'workload-api.no-answer', { public: 'the agent closed the stream without an answer' })
}
