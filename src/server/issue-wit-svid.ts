import type { IssuedWitSvid, WitSvidRequest } from '../ca/certificate-authority.ts'
import type { Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import type { AttestedNode } from '../registry/node.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { callerName, type Caller } from './caller.ts'
import { entitledById, notEntitled } from './entitled-entries.ts'
import { demandBatch } from './issue-x509-svid.ts'
import type { Server } from './server.ts'

/** The key that a token is to be bound to. */
export interface WitKey {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** What proofs will be signed with, the JWS name; absent for the usual one of the key. */
  readonly signingAlgorithm?: string
}

export interface WitSvidWish extends WitKey {
  readonly entryId: string
}

/**
 * Signs WIT-SVIDs for an agent's workloads: one answer for each wish, in order.
 * @throws Failure `server.batch-too-large`, `ca.wit-off`; what is wrong with one wish is in its answer
 */
export async function issueWitSvids(
  server: Pick<Server, 'clock' | 'ca' | 'audit' | 'entryCache'>,
  agent: AttestedNode,
  wishes: readonly WitSvidWish[],
  signal: AbortSignal,
): Promise<readonly (IssuedWit | Failure)[]> {
  demandWit(server)
  demandBatch(wishes.length)
  const entitled = await entitledById(server, agent)
  return Promise.all(
    wishes.map(async ({ entryId, ...key }) => {
      const entry = entitled.get(entryId)
      if (!entry) return notEntitled(server, agent, entryId)
      const context = { caller: agent.id, entry: entry.id, revision: String(entry.revision) }
      const until = entry.expiresAt === undefined ? {} : { until: entry.expiresAt }
      const { spiffeId, jwtSvidTtl: lifetime, claims } = entry
      return issue(server, { spiffeId, lifetime, claims, ...until, ...key }, context, signal).then(
        (svid) => ({ entry, svid }),
        (error: unknown) => Failure.from(error),
      )
    }),
  )
}

export interface IssuedWit {
  readonly entry: RegistrationEntry
  readonly svid: IssuedWitSvid
}

/** Signs one WIT-SVID that no entry provides for, because an operator asks for it. @throws Failure `ca.*` */
export async function mintWitSvid(
  server: Pick<Server, 'ca'>,
  wish: WitKey & { readonly spiffeId: SpiffeId; readonly lifetime: Duration },
  caller: Caller,
  signal: AbortSignal,
): Promise<IssuedWitSvid> {
  demandWit(server)
  return issue(server, wish, { caller: callerName(caller) }, signal)
}

/** Asked once for all, so that a whole call is refused where nothing of it can be done. */
function demandWit({ ca }: Pick<Server, 'ca'>): void {
  ca.authorities.state('wit')
}

function issue(
  { ca }: Pick<Server, 'ca'>,
  { publicKey, signingAlgorithm, ...wish }: WitKey & Pick<WitSvidRequest, 'spiffeId' | 'lifetime' | 'claims' | 'until'>,
  context: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<IssuedWitSvid> {
  const algorithm = signingAlgorithm === undefined ? {} : { proofAlgorithm: signingAlgorithm }
  return ca.issueWitSvid({ ...wish, proofKey: publicKey, ...algorithm, context }, signal)
}
