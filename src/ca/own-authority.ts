/** Opens our own CA: authorities kept fresh, and SVIDs signed by them. */
import { issuanceRefused, issuanceUnresolved } from '../audit/event.ts'
import type { AuditTrail } from '../audit/trail.ts'
import { deadline, type Clock } from '../kernel/clock.ts'
import { minutes, type Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter, Timing } from '../kernel/meter.ts'
import type { Random } from '../kernel/random.ts'
import type { Watched } from '../kernel/watched.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { demandAdditions } from './additions.ts'
import type { Authorities } from './authorities.ts'
import type {
  Additions,
  CertificateAuthority,
  IssuedJwtSvid,
  IssuedWitSvid,
  IssuedX509Svid,
  JwtSvidRequest,
  SvidKind,
  WitSvidRequest,
  X509SvidRequest,
} from './certificate-authority.ts'
import { witOff } from './forced-rotation.ts'
import type { Intents } from './intents.ts'
import type { Office } from './issuance.ts'
import type { CaJournal } from './journal.ts'
import { issueJwtSvid, type JwtPorts } from './jwt-authority.ts'
import { checked as checkedKeys, type KeyManager } from './key-manager.ts'
import { KeyUse } from './key-use.ts'
import { caMetrics } from './metrics.ts'
import type { IssuanceProfile, KeyTypes } from './profile.ts'
import { openRotation, type Rotation } from './rotation.ts'
import { Serials } from './serial.ts'
import { checked as checkedUpstream, type UpstreamAuthority } from './upstream-authority.ts'
import { issueWitSvid, type WitPorts } from './wit-authority.ts'
import { onThisThread, type Workbench } from './workbench.ts'
import { issueX509Svid, type X509Ports } from './x509-authority.ts'

/** What a CA is made of. Keys, upstream, journal and trail stay their openers' to dispose of. */
export interface CertificateAuthorityPorts {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly meter: Meter
  readonly keys: KeyManager
  readonly upstream: UpstreamAuthority
  readonly audit: AuditTrail
  readonly journal: CaJournal
  readonly intents: Intents
  /** Where certificates are shaped and checked: on this thread when left out. */
  readonly workbench?: Workbench
  readonly profile: IssuanceProfile
  /** Asked when an authority is made: those of the profile when left out (C-35). */
  readonly keyTypes?: () => KeyTypes
  readonly trustDomain: TrustDomain
  /** Under which the journal is kept: no two servers may share it. */
  readonly serverId: string
  readonly refreshHint: Duration
  /** Whether WIT-SVIDs are issued: their specification is not stable yet. */
  readonly witSvid?: boolean
}

/**
 * Opens the CA: when it is there, it can issue. A first start needs the upstream; a later one only what the journal and the key manager hold.
 * @throws Failure `profile.constraints-address`, `journal.*`, `keys.*`, `upstream.*`, `audit.*`
 */
export async function openCertificateAuthority(
  ports: CertificateAuthorityPorts,
  signal: AbortSignal = deadline(minutes(3)),
): Promise<CertificateAuthority> {
  demandConstrainable(ports)
  const serials = new Serials(ports.random)
  const keys = checkedKeys(ports.keys)
  const upstream = checkedUpstream(ports.upstream, ports)
  const office = { intents: ports.intents, workbench: ports.workbench ?? onThisThread }
  for (const { kind, name, id, entry } of ports.intents.unresolved)
    await ports.audit.append(issuanceUnresolved({ kind, name, spiffeId: id, entry }))
  const rotation = await openRotation(
    { keyTypes: () => ports.profile.ca, ...ports, keys, upstream, serials, office, wit: ports.witSvid ?? false },
    signal,
  )
  return new OwnAuthority(ports, serials, office, rotation)
}

/** A URI whose host is an address is within no constraint (RFC 5280 section 4.2.1.10). */
function demandConstrainable({ profile, trustDomain }: Pick<CertificateAuthorityPorts, 'profile' | 'trustDomain'>): void {
  if (!profile.ca.nameConstraints || !/^[0-9.]+$/.test(trustDomain)) return
  throw new Failure('invalid_argument', 'profile.constraints-address', {
    public: `\`ca.nameConstraints\` cannot hold for the trust domain \`${trustDomain}\`: expected a name, and it is an address`,
  })
}

class OwnAuthority implements CertificateAuthority {
  readonly trustDomain: TrustDomain
  readonly #rotation: Rotation
  readonly #x509: X509Ports
  readonly #jwt: JwtPorts
  readonly #wit: WitPorts | undefined
  readonly #profile: IssuanceProfile
  readonly #audit: AuditTrail
  readonly #intents: Intents
  readonly #clock: Clock
  readonly #issuing: Readonly<Record<IssuedKind, Issuing>>
  /** Those who may have something to say of themselves. */
  readonly #others: readonly { complaints?(): readonly string[] }[]

  constructor(ports: CertificateAuthorityPorts, serials: Serials, office: Office, rotation: Rotation) {
    this.#others = [ports.upstream, ports.keys]
    this.trustDomain = ports.trustDomain
    this.#rotation = rotation
    this.#profile = ports.profile
    const keyUse = ports.profile.oneKeyOneIdentity ? new KeyUse() : undefined
    const truncated = truncatedBy(ports.meter)
    this.#x509 = {
      ...ports,
      office,
      keyUse,
      serials,
      truncated,
      signing: () => rotation.x509(),
      authorityKeys: () => rotation.authorityKeys(),
    }
    this.#jwt = { ...ports, signing: () => rotation.jwt() }
    this.#wit = ports.witSvid ? { ...ports, signing: () => rotation.wit(), authorityKeys: () => rotation.authorityKeys() } : undefined
    this.#audit = ports.audit
    this.#intents = ports.intents
    this.#clock = ports.clock
    this.#issuing = issuingBy(ports.meter)
  }

  get bundle(): Watched<TrustBundle> {
    return this.#rotation.bundle
  }

  get authorities(): Authorities {
    return this.#rotation.authorities
  }

  issueX509Svid(request: X509SvidRequest, signal: AbortSignal): Promise<IssuedX509Svid> {
    return this.#recorded(request.kind, request, () => issueX509Svid(request, this.#x509, signal))
  }

  issueJwtSvid(request: JwtSvidRequest, signal: AbortSignal): Promise<IssuedJwtSvid> {
    return this.#recorded('jwt', request, () => issueJwtSvid(request, this.#jwt, signal))
  }

  issueWitSvid(request: WitSvidRequest, signal: AbortSignal): Promise<IssuedWitSvid> {
    const ports = this.#wit
    if (!ports) return Promise.reject(witOff())
    return this.#recorded('wit', request, () => issueWitSvid(request, ports, signal))
  }

  demandAllowed(additions: Additions): void {
    demandAdditions(additions, this.#profile)
  }

  keepFresh(signal: AbortSignal): Promise<void> {
    return this.#rotation.keepFresh(signal)
  }

  complaints(): readonly string[] {
    return [
      ...this.#rotation.complaints(),
      ...this.#intents.complaints(),
      ...this.#audit.complaints(),
      ...this.#others.flatMap((one) => one.complaints?.() ?? []),
    ]
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#rotation[Symbol.asyncDispose]()
  }

  /** A refusal is recorded too; where even that fails, the refusal is what the caller hears of. */
  async #recorded<T>(kind: IssuedKind, request: X509SvidRequest | JwtSvidRequest | WitSvidRequest, issue: () => Promise<T>): Promise<T> {
    const from = this.#clock.now()
    try {
      const issued = await issue()
      this.#issuing[kind].done.record(this.#clock.now() - from)
      return issued
    } catch (error) {
      this.#issuing[kind].refused.record(this.#clock.now() - from)
      const { reason } = Failure.from(error)
      await this.#audit.append(issuanceRefused({ spiffeId: request.spiffeId, reason }, request.context)).catch(() => {})
      throw error
    }
  }
}

type IssuedKind = SvidKind | 'jwt' | 'wit'
type Issuing = Readonly<Record<'done' | 'refused', Timing>>

function truncatedBy(meter: Meter): X509Ports['truncated'] {
  const of = (kind: SvidKind) => meter.counter(caMetrics.truncated, { kind })
  return { workload: of('workload'), agent: of('agent'), server: of('server') }
}

/** Looked up once: what is counted for each SVID costs an addition. */
function issuingBy(meter: Meter): Readonly<Record<IssuedKind, Issuing>> {
  const of = (kind: IssuedKind): Issuing => ({
    done: meter.timing(caMetrics.issuing, { kind, outcome: 'done' }),
    refused: meter.timing(caMetrics.issuing, { kind, outcome: 'refused' }),
  })
  return { workload: of('workload'), agent: of('agent'), server: of('server'), jwt: of('jwt'), wit: of('wit') }
}
