import { generateKeyPairSync } from 'node:crypto'
import type {
  AgentCredentials,
  PolicyDocuments,
  SignedJwtSvid,
  SignedWitSvid,
  SignedX509Svid,
  UpstreamServer,
} from '../../src/agent/upstream-server.ts'
import type { NodeProver } from '../../src/attestation/node-attestor.ts'
import { fromUtf8 } from '../../src/kernel/bytes.ts'
import type { Clock } from '../../src/kernel/clock.ts'
import { type Duration, hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import type { EntryDraft, RegistrationEntry } from '../../src/registry/entry.ts'
import type { TrustBundle } from '../../src/spiffe/bundle.ts'
import { parseSpiffeId, type SpiffeId } from '../../src/spiffe/id.ts'
import { makeJwtSvid } from '../../src/spiffe/jwt-svid.ts'
import { makeWitSvid } from '../../src/spiffe/wit-svid.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { parseTrustDomain, type TrustDomain } from '../../src/spiffe/trust-domain.ts'
import { parseCertificateRequest, proven } from '../../src/x509/certificate-request.ts'
import { signerFromKey, TestCa, type Wishes } from '../support/test-ca.ts'

export interface FakeServerOptions {
  readonly clock: Clock
  readonly trustDomain?: string
  readonly svidLifetime?: Duration
  /** Accepted once each. */
  readonly tokens?: readonly string[]
  readonly reattestable?: boolean
}

/** A server behind the agent's port, with real keys and signatures, that can be told to be away, to refuse, or to sign wrongly. */
export class FakeUpstreamServer implements UpstreamServer {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly tokens: Set<string>
  readonly reattestable: boolean
  svidLifetime: Duration
  /** Nothing answers while this is true. */
  away = false
  /** Every call after attestation is refused with this reason. */
  rejection: string | undefined
  /** What certificates are to have instead of what is right. */
  wishes: Wishes = {}
  /** SPIFFE ID put into the next tokens instead of the right one. */
  jwtSubject: SpiffeId | undefined
  readonly calls = { attest: 0, renew: 0, bundle: 0, entries: 0, signX509: 0, signJwt: 0, signWit: 0, postStatus: 0 }
  /** Whether it issues WIT-SVIDs. */
  witSvid = true
  /** How many SVIDs were asked for in each batch. */
  readonly batches: number[] = []
  readonly used: AgentCredentials[] = []
  readonly policySets = new WatchedValue<PolicyDocuments>({ version: 'v1', documents: [] })
  readonly federated = new Map<TrustDomain, TrustBundle>()
  #cas: { readonly ca: TestCa; readonly tainted: boolean }[]
  #sequence = 1n
  #jwtKeys: { readonly keyId: string; readonly tainted: boolean; readonly signer: ReturnType<typeof signerFromKey> }[]
  readonly #witKey = newJwtKey('wit-1')
  #entries: readonly RegistrationEntry[] = []
  #made = 0

  private constructor(options: FakeServerOptions, ca: TestCa) {
    this.trustDomain = parseTrustDomain(options.trustDomain ?? 'example.org')
    this.clock = options.clock
    this.tokens = new Set(options.tokens ?? ['token-1'])
    this.reattestable = options.reattestable ?? false
    this.svidLifetime = options.svidLifetime ?? hours(1)
    this.#cas = [{ ca, tainted: false }]
    this.#jwtKeys = [newJwtKey('jwt-1')]
  }

  static async start(options: FakeServerOptions): Promise<FakeUpstreamServer> {
    return new FakeUpstreamServer(options, await newCa(options.trustDomain ?? 'example.org', options.clock))
  }

  get currentBundle(): TrustBundle {
    return {
      trustDomain: this.trustDomain,
      x509Authorities: this.#cas.map(({ ca, tainted }) => ({ certificate: ca.certificate, tainted })),
      jwtAuthorities: this.#jwtKeys.map(({ keyId, signer, tainted }) => ({ keyId, publicKey: signer.publicKey, tainted })),
      witAuthorities: this.witSvid ? [{ keyId: 'wit-1', publicKey: this.#witKey.signer.publicKey, tainted: false }] : [],
      sequence: this.#sequence,
      refreshHint: minutes(5),
    }
  }

  /** An entry for workloads with these selectors; made now, after those before it. */
  add(path: string, selectors: readonly string[], more: Partial<EntryDraft> = {}): RegistrationEntry {
    const entry: RegistrationEntry = {
      id: `entry-${String(++this.#made).padStart(3, '0')}`,
      spiffeId: parseSpiffeId(`spiffe://${this.trustDomain}${path}`),
      parentId: parseSpiffeId(`spiffe://${this.trustDomain}/spire/agent/join_token/token-1`),
      selectors: selectors.map(parseSelector),
      x509SvidTtl: 0,
      jwtSvidTtl: 0,
      federatesWith: [],
      admin: false,
      downstream: false,
      storeSvid: false,
      dnsNames: [],
      hint: '',
      disableX509SvidPrefetch: false,
      jwtSvidIncludeJti: false,
      revision: 0n,
      createdAt: this.clock.now() + this.#made,
      ...more,
    }
    this.#entries = [...this.#entries, entry]
    return entry
  }

  change(id: string, changes: Partial<EntryDraft>): void {
    this.#entries = this.#entries.map((one) => (one.id === id ? { ...one, ...changes, id, revision: one.revision + 1n } : one))
  }

  remove(id: string): void {
    this.#entries = this.#entries.filter((one) => one.id !== id)
  }

  /** A new CA signs from now on; the old one is announced as tainted, or gone. */
  async rotateCa(old: 'tainted' | 'removed' | 'kept'): Promise<void> {
    const kept = old === 'removed' ? [] : this.#cas.map(({ ca }) => ({ ca, tainted: old === 'tainted' }))
    this.#cas = [...kept, { ca: await newCa(this.trustDomain, this.clock), tainted: false }]
    this.#sequence++
  }

  rotateJwtKey(): void {
    this.#jwtKeys = [...this.#jwtKeys.map((one) => ({ ...one, tainted: true })), newJwtKey(`jwt-${this.#jwtKeys.length + 1}`)]
    this.#sequence++
  }

  async attest(
    prover: NodeProver,
    csr: Uint8Array,
    _bundle: TrustBundle,
    signal: AbortSignal,
  ): Promise<{ svid: SignedX509Svid; reattestable: boolean }> {
    this.calls.attest++
    this.#answer(signal, { known: false })
    const token = fromUtf8(await prover.payload(signal))
    if (!this.reattestable && !this.tokens.delete(token)) {
      throw new Failure('permission_denied', 'join-token.not-accepted', { public: 'the join token is unknown, expired or already used' })
    }
    this.rejection = undefined
    return { svid: await this.#signAgent(csr, token), reattestable: this.reattestable }
  }

  use(credentials: AgentCredentials): void {
    this.used.push(credentials)
  }

  async renew(csr: Uint8Array, signal: AbortSignal): Promise<SignedX509Svid> {
    this.calls.renew++
    this.#answer(signal)
    return this.#signAgent(csr, 'token-1')
  }

  async bundle(signal: AbortSignal): Promise<TrustBundle> {
    this.calls.bundle++
    this.#answer(signal)
    return this.currentBundle
  }

  async federatedBundle(trustDomain: TrustDomain, signal: AbortSignal): Promise<TrustBundle | undefined> {
    this.#answer(signal)
    return this.federated.get(trustDomain)
  }

  async entries(signal: AbortSignal): Promise<readonly RegistrationEntry[]> {
    this.calls.entries++
    this.#answer(signal)
    // New objects each time, as they come off the wire.
    return this.#entries.map((one) => ({ ...one }))
  }

  async signX509(
    requests: readonly { readonly entryId: string; readonly csr: Uint8Array }[],
    signal: AbortSignal,
  ): Promise<readonly (SignedX509Svid | Failure)[]> {
    this.calls.signX509++
    this.batches.push(requests.length)
    this.#answer(signal)
    return Promise.all(
      requests.map(async ({ entryId, csr }) => {
        const entry = this.#entries.find((one) => one.id === entryId)
        if (!entry) return new Failure('not_found', 'entry.not-found', { public: `no entry \`${entryId}\`` })
        return this.#sign(csr, entry.spiffeId, entry.hint, entry.x509SvidTtl || this.svidLifetime)
      }),
    )
  }

  async signJwt(entryId: string, audience: readonly string[], signal: AbortSignal): Promise<SignedJwtSvid> {
    this.calls.signJwt++
    this.#answer(signal)
    const entry = this.#entries.find((one) => one.id === entryId)
    if (!entry) throw new Failure('not_found', 'entry.not-found', { public: `no entry \`${entryId}\`` })
    const spiffeId = this.jwtSubject ?? entry.spiffeId
    const issuedAt = this.clock.now()
    const expiresAt = issuedAt + (entry.jwtSvidTtl || minutes(5))
    const { signer, keyId } = this.#jwtKeys.at(-1)!
    const token = await makeJwtSvid(signer, keyId, { spiffeId, audience, issuedAt, expiresAt, jti: String(this.calls.signJwt) })
    return { spiffeId, token, issuedAt, expiresAt }
  }

  async signWit(
    requests: readonly { readonly entryId: string; readonly publicKey: Uint8Array; readonly signingAlgorithm?: string }[],
    signal: AbortSignal,
  ): Promise<readonly (SignedWitSvid | Failure)[]> {
    this.calls.signWit++
    this.#answer(signal)
    if (!this.witSvid) throw new Failure('unimplemented', 'ca.wit-off', { public: 'WIT-SVIDs are off' })
    return Promise.all(
      requests.map(async ({ entryId, publicKey }, index) => {
        const entry = this.#entries.find((one) => one.id === entryId)
        if (!entry) return new Failure('not_found', 'entry.not-found', { public: `no entry \`${entryId}\`` })
        const spiffeId = this.jwtSubject ?? entry.spiffeId
        const issuedAt = this.clock.now()
        const expiresAt = issuedAt + (entry.jwtSvidTtl || minutes(5))
        const content = { spiffeId, proofKey: publicKey, issuedAt, expiresAt, jti: `${this.calls.signWit}-${index}` }
        return { spiffeId, token: await makeWitSvid(this.#witKey.signer, 'wit-1', content), issuedAt, expiresAt }
      }),
    )
  }

  async *policies(signal: AbortSignal): AsyncGenerator<PolicyDocuments, void, void> {
    this.#answer(signal)
    for await (const documents of this.policySets.changes(signal)) {
      this.#answer(signal)
      yield documents
    }
  }

  async postStatus(_status: unknown, signal: AbortSignal): Promise<void> {
    this.calls.postStatus++
    this.#answer(signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.policySets.close()
  }

  #answer(signal: AbortSignal, { known = true } = {}): void {
    signal.throwIfAborted()
    if (this.away) throw new Failure('unavailable', 'rpc.unavailable', { public: 'the other side cannot be reached' })
    if (known && this.rejection !== undefined) throw new Failure('permission_denied', this.rejection, { public: 'agent is not accepted' })
  }

  #signAgent(csr: Uint8Array, token: string): Promise<SignedX509Svid> {
    return this.#sign(csr, parseSpiffeId(`spiffe://${this.trustDomain}/spire/agent/join_token/${token}`), '', this.svidLifetime)
  }

  async #sign(csr: Uint8Array, spiffeId: SpiffeId, hint: string, lifetime: Duration): Promise<SignedX509Svid> {
    const { spki } = await proven(parseCertificateRequest(csr))
    const now = this.clock.now()
    const { ca } = this.#cas.at(-1)!
    const { certificate } = await ca.leaf({
      uris: [spiffeId],
      spki,
      notBefore: now - seconds(10),
      notAfter: now + lifetime,
      ...this.wishes,
    })
    return { spiffeId, chain: [certificate], hint }
  }
}

function newCa(trustDomain: string, clock: Clock): Promise<TestCa> {
  return TestCa.create({ name: `root ${++cas}`, trustDomain, at: clock.now(), lifetime: hours(1000) })
}

function newJwtKey(keyId: string) {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { keyId, tainted: false, signer: signerFromKey(privateKey) }
}

let cas = 0
