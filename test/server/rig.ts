/** A whole server in memory, with real keys, a real CA and the policies that the program comes with. */
import { generateKeyPairSync } from 'node:crypto'
import { joinToken } from '../../src/attestation/node/join-token.ts'
import type { NodeVerifier } from '../../src/attestation/node-attestor.ts'
import { openTrail } from '../../src/audit/trail.ts'
import { memory as memoryKeys } from '../../src/ca/keys/memory.ts'
import { openCertificateAuthority } from '../../src/ca/own-authority.ts'
import { issuanceProfile } from '../../src/ca/profile.ts'
import { selfSigned } from '../../src/ca/upstream/self-signed.ts'
import type { World } from '../../src/kernel/driver.ts'
import { hours, minutes } from '../../src/kernel/duration.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { ownApiPolicies } from '../../src/main/policies.ts'
import type { RegistrationEntry } from '../../src/registry/entry.ts'
import type { AttestedNode } from '../../src/registry/node.ts'
import { remotePeer, type Caller, type RemotePeer } from '../../src/server/caller.ts'
import { attestAgent } from '../../src/server/attest-agent.ts'
import { EntryCache } from '../../src/server/entry-cache.ts'
import { consumeJoinToken, createJoinToken } from '../../src/server/manage-tokens.ts'
import { Policies } from '../../src/server/policies.ts'
import { Shadow } from '../../src/server/shadow.ts'
import type { Server } from '../../src/server/server.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { memory } from '../../src/store/memory.ts'
import type { Store } from '../../src/store/store.ts'
import type { Certificate } from '../../src/x509/certificate.ts'
import { createCertificateRequest } from '../../src/x509/certificate-request.ts'
import { signerOf } from '../../src/x509/signature.ts'
import { FakeIntents } from '../fakes/intents.ts'
import { FakeClock } from '../fakes/clock.ts'
import { seededRandom } from '../fakes/random.ts'
import { TestMeter } from '../support/counted.ts'
import { entry } from '../store/sample.ts'

export const operator: Caller = { kind: 'local', uid: 0, pid: 1, gid: 0 }
export const never = new AbortController().signal
export const here = parseTrustDomain('example.org')

export interface JoinedAgent {
  readonly node: AttestedNode
  readonly chain: readonly Certificate[]
  readonly privateKeyPem: string
  /** The agent's connection, as of now. */
  peer(): RemotePeer
}

export interface Rig extends AsyncDisposable {
  readonly server: Server
  readonly store: Store
  readonly clock: FakeClock
  readonly meter: TestMeter
  /** What is in the audit trail: `what` of each event. */
  audited(): string[]
  /** The next audit records fail. */
  breakAudit(): void
  readonly verifiers: Map<string, NodeVerifier>
  join(token?: string): Promise<JoinedAgent>
  /** Stores an entry below the agent. */
  give(agent: JoinedAgent, fields?: Parameters<typeof entry>[0]): Promise<RegistrationEntry>
}

export async function openRig({ agentTtl = hours(1), witSvid = false } = {}): Promise<Rig> {
  const clock = new FakeClock()
  const meter = new TestMeter()
  const lines: string[] = []
  let broken = false
  const world: World = {
    clock,
    random: seededRandom('server'),
    files: systemFiles,
    log: silentLog,
    meter,
    secrets: { read: () => Promise.reject(new Error('bug: no secrets here')) },
  }
  const audit = await openTrail(
    {
      async append(more) {
        if (broken) throw new Error('the disk is full')
        lines.push(...more)
      },
      async [Symbol.asyncDispose]() {},
    },
    world,
  )
  const store = await memory.open({}, world)
  const ca = await openCertificateAuthority({
    ...world,
    trustDomain: here,
    keys: await memoryKeys.open({}, world),
    upstream: await selfSigned.open({}, world),
    audit,
    journal: store.journal,
    intents: new FakeIntents(),
    serverId: 'one',
    profile: issuanceProfile({
      svid: { agent: agentTtl, additions: { subject: ['organization', 'organizationalUnit', 'commonName'], claims: ['tier', 'groups'] } },
    }),
    refreshHint: minutes(5),
    witSvid,
  })
  const verifiers = new Map<string, NodeVerifier>()
  const policies = await Policies.open(store.policies, await ownApiPolicies())
  const server: Server = {
    ...world,
    ...store,
    trustDomain: here,
    ca,
    audit,
    policies,
    shadow: new Shadow(),
    verifiers,
    entryCache: new EntryCache(store.entries, here),
  }
  verifiers.set(
    'join_token',
    await joinToken.openVerifier({}, { ...world, trustDomain: here, consumeJoinToken: (token) => consumeJoinToken(server, token) }),
  )
  const rig: Rig = {
    server,
    store,
    clock,
    meter,
    verifiers,
    audited: () => lines.map((line) => (JSON.parse(line) as { event: { what: string } }).event.what),
    breakAudit: () => (broken = true),
    async join(token) {
      const made = await createJoinToken(server, { ttl: minutes(5), ...(token === undefined ? {} : { token }) }, operator)
      const key = newKey()
      const evidence = { type: 'join_token', payload: Buffer.from(made.token.reveal()), csr: await key.csr() }
      const { svid } = await attestAgent(server, evidence, noChallenge, '127.0.0.1', never)
      const node = await server.nodes.find(svid.spiffeId)
      if (!node) throw new Error('the node was not recorded')
      return { node, chain: svid.chain, privateKeyPem: key.privateKeyPem, peer: () => peerWith(server, svid.chain) }
    },
    async give(agent, fields = {}) {
      const made = entry({ parentId: agent.node.id, ...fields })
      await store.entries.create(made)
      return made
    },
    async [Symbol.asyncDispose]() {
      await ca[Symbol.asyncDispose]()
      await store[Symbol.asyncDispose]()
      await audit[Symbol.asyncDispose]()
    },
  }
  return rig
}

export const peerWith = (server: Server, chain: readonly Certificate[]): RemotePeer =>
  remotePeer(
    server,
    chain.map(({ raw }) => raw),
    '192.0.2.7',
  )

export const noChallenge = (): Promise<never> => Promise.reject(new Error('nobody was to be challenged'))

/** A key, and requests signed by it. */
export function newKey(): {
  csr(wishes?: { uris?: string[]; dnsNames?: string[] }): Promise<Uint8Array>
  readonly privateKeyPem: string
  readonly spki: Uint8Array
} {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const signer = signerOf(privateKey)
  return {
    csr: (wishes = {}) => createCertificateRequest({ signer, ...wishes }),
    privateKeyPem: privateKey.export({ format: 'pem', type: 'pkcs8' }),
    spki: signer.publicKey,
  }
}

/** A request whose signature is not its key's. */
export async function forgedCsr(): Promise<Uint8Array> {
  const csr = Uint8Array.from(await newKey().csr())
  csr[csr.length - 1]! ^= 1
  return csr
}
