/** Who is calling: what a connection proves, and as whom a call is then answered. */
import type { CertificateAuthority } from '../ca/certificate-authority.ts'
import type { Clock, Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { AttestedNode } from '../registry/node.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { bundleSet } from '../spiffe/bundle-set.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { verifyX509Svid, type VerifiedX509Svid } from '../spiffe/x509-svid.ts'
import { fingerprint, parseCertificate } from '../x509/certificate.ts'

/** The other end of a connection, as established when it was accepted. */
export type Peer = LocalPeer | RemotePeer

/** A process on this machine that may open the operators' socket. */
export interface LocalPeer {
  readonly kind: 'local'
  readonly uid: number
  readonly pid: number
  readonly gid: number
}

export interface RemotePeer {
  readonly kind: 'remote'
  readonly address: string
  /** Whose certificate was verified; absent if none was presented. */
  readonly identity?: VerifiedX509Svid
  /** Why the certificate that was presented is not accepted: every call on this connection fails with it. */
  readonly refusal?: Failure
}

/** Who a call is answered as, once it is authorised. */
export type Caller =
  | LocalPeer
  | {
      readonly kind: 'agent'
      readonly address: string
      readonly node: AttestedNode
      /** By a certificate that was just replaced. */ readonly isSuperseded: boolean
    }
  | { readonly kind: 'admin' | 'downstream'; readonly address: string; readonly id: SpiffeId }
  | { readonly kind: 'anyone'; readonly address: string }

/** A caller as the audit trail names it. */
export function callerName(caller: Caller | Peer): string {
  switch (caller.kind) {
    case 'local':
      return `local uid ${caller.uid} pid ${caller.pid}`
    case 'agent':
      return caller.node.id
    case 'admin':
    case 'downstream':
      return caller.id
    case 'anyone':
      return caller.address
    case 'remote':
      return caller.identity?.spiffeId ?? caller.address
    default:
      throw new Error(`bug: no such caller: ${String(caller satisfies never)}`)
  }
}

/** Where a call comes from, for the audit trail. */
export const addressOf = (caller: Caller): string => (caller.kind === 'local' ? 'local' : caller.address)

/**
 * Verifies what a TLS client presented (DER, leaf first) against the bundle of this moment. A client without a certificate is nobody;
 * one whose certificate is not accepted is told so in the answer to its calls, since a broken handshake explains nothing.
 */
export function remotePeer(
  { ca, clock }: { readonly ca: Pick<CertificateAuthority, 'bundle'>; readonly clock: Clock },
  chain: readonly Uint8Array[],
  address: string,
): RemotePeer {
  if (chain.length === 0) return { kind: 'remote', address }
  const at = clock.now()
  try {
    const certificates = chain.map((der) => parseCertificate(der))
    const leaf = certificates[0]
    if (leaf && at > leaf.notAfter) return { kind: 'remote', address, refusal: expired() }
    return { kind: 'remote', address, identity: verifyX509Svid(certificates, bundleSet([ca.bundle.current]), at) }
  } catch (cause) {
    return { kind: 'remote', address, refusal: untrusted(cause) }
  }
}

/**
 * Looks again at a certificate that was verified when its connection was accepted: time has passed, and authorities come and go.
 * @throws Failure `server.agent-expired`, `server.peer-untrusted`
 */
export function checkStillTrusted(identity: VerifiedX509Svid, bundle: TrustBundle, at: Instant): void {
  if (at > identity.leaf.notAfter) throw expired()
  const anchor = identity.path.at(-1)
  const trusted =
    anchor && bundle.x509Authorities.some(({ certificate }) => certificate === anchor || fingerprint(certificate) === fingerprint(anchor))
  if (!trusted) throw untrusted(new Error('its authority is no longer in the trust bundle'))
}

/** To be tried again: with the certificate that replaced this one, or to learn that there is a copy (C-29). */
export function superseded(): Failure {
  return new Failure('unavailable', 'server.agent-superseded', { public: 'the agent certificate was replaced: connect again' })
}

/** Named after agents because they alone act on it: SPIRE's attest again. */
function expired(): Failure {
  return new Failure('permission_denied', 'server.agent-expired', { public: 'the client certificate has expired' })
}

function untrusted(cause: unknown): Failure {
  return new Failure('unauthenticated', 'server.peer-untrusted', { public: 'the client certificate is not accepted', cause })
}
