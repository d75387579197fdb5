/** How long what we issue may live, and with which keys: from limits as written to limits as meant. */
import { formatDuration, hours, minutes, seconds, type Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { demandName } from '../spiffe/claims.ts'
import type { KeyType } from '../x509/key-type.ts'
import type { SubjectField } from '../x509/subject.ts'
import type { SvidKind } from './certificate-authority.ts'

/** Limits as an operator writes them; whatever is left out has a safe default. */
export interface ProfileAsWritten {
  readonly ca?: {
    readonly lifetime?: Duration
    readonly keyType?: KeyType
    readonly jwtKeyType?: KeyType
    readonly nameConstraints?: boolean
  }
  readonly svid?: {
    /** Lifetime of an X509-SVID of a workload when nothing is asked. */
    readonly x509?: Duration
    readonly x509Longest?: Duration
    readonly jwt?: Duration
    readonly jwtLongest?: Duration
    readonly agent?: Duration
    readonly server?: Duration
    /** What registration entries may add to their SVIDs: nothing when left out. */
    readonly additions?: { readonly subject?: readonly SubjectField[]; readonly claims?: readonly string[] }
  }
  readonly backdate?: Duration
  /** Refuse a key that is certified for another identity (C-12). */
  readonly oneKeyOneIdentity?: boolean
}

export interface LifetimeLimits {
  /** When nothing is asked. */
  readonly standard: Duration
  /** More is refused. */
  readonly longest: Duration
}

/** With what keys authorities are made. */
export interface KeyTypes {
  /** Of X.509 authorities. */
  readonly keyType: KeyType
  /** Of the keys that sign tokens. */
  readonly jwtKeyType: KeyType
}

/** Limits as meant. */
export interface IssuanceProfile {
  readonly x509: Readonly<Record<SvidKind, LifetimeLimits>>
  readonly jwt: LifetimeLimits
  readonly ca: KeyTypes & {
    readonly lifetime: Duration
    /** How many CAs there may be below ours (C-5). */
    readonly pathLength: number
    /** Whether the authorities that we certify ourselves, roots or not, may certify SPIFFE IDs of the trust domain alone (C-6). */
    readonly nameConstraints: boolean
  }
  /** How long before its making a certificate begins to be valid, for those whose clocks are late (C-2). */
  readonly backdate: Duration
  readonly oneKeyOneIdentity: boolean
  /** What entries may add. */
  readonly additions: { readonly subject: ReadonlySet<SubjectField>; readonly claims: ReadonlySet<string> }
}

/** @throws Failure `profile.out-of-range`, `profile.standard-above-longest`, `claims.reserved`, `claims.name` */
export function issuanceProfile({
  ca = {},
  svid = {},
  backdate = seconds(30),
  oneKeyOneIdentity = false,
}: ProfileAsWritten = {}): IssuanceProfile {
  const longest = svid.x509Longest ?? Math.max(hours(24), svid.x509 ?? 0, svid.agent ?? 0, svid.server ?? 0)
  const profile: IssuanceProfile = {
    x509: {
      workload: { standard: svid.x509 ?? hours(1), longest },
      agent: { standard: svid.agent ?? hours(1), longest },
      server: { standard: svid.server ?? svid.x509 ?? hours(1), longest },
    },
    jwt: { standard: svid.jwt ?? minutes(5), longest: svid.jwtLongest ?? Math.max(hours(1), svid.jwt ?? 0) },
    ca: {
      lifetime: ca.lifetime ?? hours(24),
      keyType: ca.keyType ?? 'ec-p256',
      jwtKeyType: ca.jwtKeyType ?? 'ec-p256',
      pathLength: 0,
      nameConstraints: ca.nameConstraints ?? false,
    },
    backdate,
    oneKeyOneIdentity,
    additions: { subject: new Set(svid.additions?.subject), claims: new Set(svid.additions?.claims) },
  }
  for (const name of profile.additions.claims) demandName(name)
  for (const [name, limits] of [...Object.entries(profile.x509), ['jwt', profile.jwt] as const]) demandLimits(name, limits)
  demandRange('ca.lifetime', profile.ca.lifetime, seconds(10))
  if (backdate < 0 || backdate > longestBackdate) throw outOfRange('backdate', backdate, `at most ${formatDuration(longestBackdate)}`)
  return profile
}

/**
 * The lifetime to grant: what is asked, or the standard when nothing is. Never capped silently.
 * @throws Failure `ca.lifetime-too-short`, `ca.lifetime-too-long`
 */
export function lifetimeFor(limits: LifetimeLimits, asked: Duration | undefined): Duration {
  if (asked === undefined || asked === 0) return limits.standard
  if (!(asked >= shortestLifetime)) {
    throw new Failure('invalid_argument', 'ca.lifetime-too-short', {
      public: `a lifetime of \`${String(asked)}\` ms is too short: expected at least ${formatDuration(shortestLifetime)}`,
    })
  }
  if (asked > limits.longest) {
    throw new Failure('invalid_argument', 'ca.lifetime-too-long', {
      public: `a lifetime of \`${formatDuration(asked)}\` is too long: at most ${formatDuration(limits.longest)}`,
    })
  }
  return asked
}

function demandLimits(name: string, { standard, longest }: LifetimeLimits): void {
  demandRange(`svid.${name}`, standard, shortestLifetime)
  if (standard <= longest) return
  throw new Failure('invalid_argument', 'profile.standard-above-longest', {
    public: `the standard lifetime of \`${name}\` is ${formatDuration(standard)}: expected at most the longest, ${formatDuration(longest)}`,
  })
}

function demandRange(name: string, duration: Duration, least: Duration): void {
  if (!(duration >= least)) throw outOfRange(name, duration, `at least ${formatDuration(least)}`)
}

function outOfRange(name: string, duration: Duration, expected: string): Failure {
  return new Failure('invalid_argument', 'profile.out-of-range', {
    public: `\`${name}\` is ${formatDuration(duration)}: expected ${expected}`,
  })
}

const shortestLifetime = seconds(1)
/** C-2. */
const longestBackdate = minutes(5)
