import type { IssuedX509Svid } from '../ca/certificate-authority.ts'
import { Failure } from '../kernel/failure.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import type { AttestedNode } from '../registry/node.ts'
import { entitledById, notEntitled } from './entitled-entries.ts'
import type { Server } from './server.ts'

export interface X509SvidWish {
  readonly entryId: string
  readonly csr: Uint8Array
}

/** The most that one call may ask for (reference: SPIRE's limit of signatures a second). */
const maxBatch = 500

/**
 * Signs certificates for an agent's workloads: one answer for each wish, in order. Of a request only its key is used.
 * @throws Failure `server.batch-too-large`; what is wrong with one wish is in its answer
 */
export async function issueX509Svids(
  server: Pick<Server, 'clock' | 'ca' | 'audit' | 'entryCache'>,
  agent: AttestedNode,
  wishes: readonly X509SvidWish[],
  signal: AbortSignal,
): Promise<readonly (Issued | Failure)[]> {
  demandBatch(wishes.length)
  const entitled = await entitledById(server, agent)
  return Promise.all(
    wishes.map(async ({ entryId, csr }) => {
      const entry = entitled.get(entryId)
      if (!entry) return notEntitled(server, agent, entryId)
      return issue(server, agent, entry, csr, signal).catch((error: unknown) => Failure.from(error))
    }),
  )
}

/** @throws Failure `server.batch-too-large` */
export function demandBatch(size: number): void {
  if (size <= maxBatch) return
  throw new Failure('resource_exhausted', 'server.batch-too-large', { public: `the batch has ${size} requests: at most ${maxBatch}` })
}

export interface Issued {
  readonly entry: RegistrationEntry
  readonly svid: IssuedX509Svid
}

async function issue(
  server: Pick<Server, 'ca'>,
  agent: AttestedNode,
  entry: RegistrationEntry,
  csr: Uint8Array,
  signal: AbortSignal,
): Promise<Issued> {
  const { id, spiffeId, dnsNames, subject, x509SvidTtl: lifetime, expiresAt } = entry
  const context = { caller: agent.id, entry: id, revision: String(entry.revision) }
  const until = expiresAt === undefined ? {} : { until: expiresAt }
  const svid = await server.ca.issueX509Svid(
    { kind: 'workload', spiffeId, key: csr, lifetime, dnsNames, subject, ...until, context },
    signal,
  )
  return { entry, svid }
}
