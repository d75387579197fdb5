import { openTrail } from '../../src/audit/trail.ts'
import type { CertificateAuthority } from '../../src/ca/certificate-authority.ts'
import type { CaJournal } from '../../src/ca/journal.ts'
import type { KeyManager } from '../../src/ca/key-manager.ts'
import { memory } from '../../src/ca/keys/memory.ts'
import { openCertificateAuthority } from '../../src/ca/own-authority.ts'
import { issuanceProfile, type KeyTypes, type ProfileAsWritten } from '../../src/ca/profile.ts'
import type { UpstreamAuthority } from '../../src/ca/upstream-authority.ts'
import { selfSigned } from '../../src/ca/upstream/self-signed.ts'
import type { World } from '../../src/kernel/driver.ts'
import { minutes, type Duration } from '../../src/kernel/duration.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { Secret, type Log, type LogFields } from '../../src/kernel/log.ts'
import { systemRandom, type Random } from '../../src/kernel/random.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseTrustDomain, type TrustDomain } from '../../src/spiffe/trust-domain.ts'
import { createCertificateRequest, parseCertificateRequest, proven, type ProvenKey } from '../../src/x509/certificate-request.ts'
import { generateKeyPair, type KeyType } from '../../src/x509/key-type.ts'
import { signerOf } from '../../src/x509/signature.ts'
import { FakeClock } from '../fakes/clock.ts'
import { FakeIntents } from '../fakes/intents.ts'
import { FakeJournal } from '../fakes/journal.ts'
import { TestMeter } from '../support/counted.ts'

export const trustDomain = parseTrustDomain('example.org')
export const workload = parseSpiffeId('spiffe://example.org/workload')
export const never = new AbortController().signal

/** Every line that was logged, as text. */
export class KeptLog implements Log {
  readonly lines: string[] = []
  readonly #fields: LogFields

  constructor(lines: string[] = [], fields: LogFields = {}) {
    this.lines = lines
    this.#fields = fields
  }

  debug(message: string, fields: LogFields = {}): void {
    this.#keep('debug', message, fields)
  }
  info(message: string, fields: LogFields = {}): void {
    this.#keep('info', message, fields)
  }
  warn(message: string, fields: LogFields = {}): void {
    this.#keep('warn', message, fields)
  }
  error(message: string, fields: LogFields = {}): void {
    this.#keep('error', message, fields)
  }
  with(fields: LogFields): Log {
    return new KeptLog(this.lines, { ...this.#fields, ...fields })
  }

  #keep(level: string, message: string, fields: LogFields): void {
    this.lines.push(
      `${level} ${message} ${JSON.stringify({ ...this.#fields, ...fields }, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value))}`,
    )
  }
}

export interface TestWorld extends World {
  readonly clock: FakeClock
  readonly log: KeptLog
  readonly meter: TestMeter
}

/** A world with a clock of its own; secrets are what they are called. */
export function testWorld({ clock = new FakeClock(), random = systemRandom }: { clock?: FakeClock; random?: Random } = {}): TestWorld {
  const secrets = { read: (reference: object) => Promise.resolve(new Secret(Object.values(reference).join())) }
  return { clock, random, files: systemFiles, log: new KeptLog(), meter: new TestMeter(), secrets }
}

export interface CaWishes {
  readonly world?: TestWorld
  readonly keys?: KeyManager
  readonly upstream?: UpstreamAuthority
  readonly journal?: CaJournal
  readonly intents?: FakeIntents
  readonly profile?: ProfileAsWritten
  readonly keyTypes?: () => KeyTypes
  readonly refreshHint?: Duration
  readonly witSvid?: boolean
  /** `example.org` when left out. */
  readonly trustDomain?: TrustDomain
  /** Called with each line before it is kept. */
  readonly onAudit?: (line: string) => void
}

/** A CA over real keys, and what it left in its trail. */
export interface TestAuthority extends AsyncDisposable {
  readonly ca: CertificateAuthority
  readonly world: TestWorld
  readonly keys: KeyManager
  readonly journal: CaJournal
  readonly intents: FakeIntents
  readonly audit: string[]
}

export async function openTestAuthority(wishes: CaWishes = {}): Promise<TestAuthority> {
  const world = wishes.world ?? testWorld()
  const keys = wishes.keys ?? (await memory.open({}, world))
  const journal = wishes.journal ?? new FakeJournal()
  const intents = wishes.intents ?? new FakeIntents()
  const lines: string[] = []
  const audit = await openTrail(
    {
      async append(more) {
        for (const line of more) wishes.onAudit?.(line)
        lines.push(...more)
      },
      async [Symbol.asyncDispose]() {},
    },
    world,
  )
  const ca = await openCertificateAuthority({
    ...world,
    keys,
    journal,
    intents,
    audit,
    upstream: wishes.upstream ?? (await selfSigned.open({}, world)),
    profile: issuanceProfile(wishes.profile),
    ...(wishes.keyTypes && { keyTypes: wishes.keyTypes }),
    trustDomain: wishes.trustDomain ?? trustDomain,
    serverId: 'server',
    refreshHint: wishes.refreshHint ?? minutes(5),
    witSvid: wishes.witSvid ?? false,
  })
  return { ca, world, keys, journal, intents, audit: lines, [Symbol.asyncDispose]: () => ca[Symbol.asyncDispose]() }
}

/** A key whose owner proved that it has it. */
export async function provenKey(
  type: KeyType = 'ec-p256',
  names: { readonly uris?: readonly string[]; readonly dnsNames?: readonly string[] } = {},
): Promise<ProvenKey> {
  const { privateKey } = await generateKeyPair(type)
  return proven(parseCertificateRequest(await createCertificateRequest({ signer: signerOf(privateKey), ...names })))
}

/** Moves the clock, and waits until the rotation, if it woke, sleeps again. */
export async function pass({ clock }: TestWorld, duration: Duration): Promise<void> {
  await clock.advance(duration)
  while (clock.sleepers === 0) await new Promise((resolve) => setImmediate(resolve))
}

/** Keeps a CA fresh while `deed` runs, and stops it then. */
export async function whileFresh(ca: CertificateAuthority, deed: () => Promise<void>): Promise<void> {
  const stop = new AbortController()
  const running = ca.keepFresh(stop.signal)
  try {
    await deed()
  } finally {
    stop.abort()
    await running
  }
}
