import type { NodeVerifier } from '../attestation/node-attestor.ts'
import type { AuditTrail } from '../audit/trail.ts'
import type { CertificateAuthority } from '../ca/certificate-authority.ts'
import type { Clock } from '../kernel/clock.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import type { Random } from '../kernel/random.ts'
import type { EntryStore } from '../registry/entry.ts'
import type { TokenStore } from '../registry/join-token.ts'
import type { NodeStore } from '../registry/node.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { EntryCache } from './entry-cache.ts'
import type { Policies } from './policies.ts'
import type { Shadow } from './shadow.ts'

/** Everything that the server's deeds need; each takes only the part that it uses. */
export interface Server {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly meter: Meter
  readonly ca: CertificateAuthority
  readonly audit: AuditTrail
  readonly entries: EntryStore
  readonly nodes: NodeStore
  readonly tokens: TokenStore
  /** Rejects while what is kept cannot be changed. */
  readonly tryWrite: () => Promise<void>
  readonly entryCache: EntryCache
  /** The server's halves of the node attestors, by their kind. */
  readonly verifiers: ReadonlyMap<string, NodeVerifier>
  readonly policies: Policies
  /** What agents saw of a set that is tried. */
  readonly shadow: Shadow
  /** Identities that are administrators by configuration, besides those whose entry says so. */
  readonly adminIds?: ReadonlySet<SpiffeId>
}
