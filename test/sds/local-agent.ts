/** An agent whose workloads the test decides: real keys, certificates and bundles, no server and no kernel. */
import type { Agent } from '../../src/agent/agent.ts'
import type { HeldIdentity, Workload, WorkloadIdentities, WorkloadPolicies } from '../../src/agent/identities.ts'
import type { ShadowVerdict } from '../../src/agent/shadow.ts'
import type { PolicyDocument } from '../../src/policy/policy-set.ts'
import type { Peer } from '../../src/attestation/peer.ts'
import { type Clock, systemClock } from '../../src/kernel/clock.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { type Log, silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import type { TrustBundle } from '../../src/spiffe/bundle.ts'
import { parseSpiffeId, type SpiffeId } from '../../src/spiffe/id.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { parseTrustDomain, type TrustDomain } from '../../src/spiffe/trust-domain.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { TestCa, type Wishes } from '../support/test-ca.ts'

export interface LocalWorkload extends Workload {
  readonly identities: WatchedValue<WorkloadIdentities>
  readonly policies: WatchedValue<WorkloadPolicies>
  readonly peer: Peer
  /** Gives it new certificates for these SPIFFE IDs. */
  hold(...ids: readonly string[]): Promise<void>
  /** Applies policies to it: text by document name; and others to be tried beside them. */
  apply(documents: Readonly<Record<string, string>>, candidate?: Readonly<Record<string, string>>): void
}

export interface LocalAgent {
  readonly agent: Agent
  readonly ca: TestCa
  readonly foreign: TestCa
  readonly bundle: TrustBundle
  /** What the agent warned of, and its errors. */
  readonly warnings: readonly Readonly<Record<string, unknown>>[]
  /** Verdicts of a set that is tried. */
  readonly shadowed: readonly ShadowVerdict[]
  /** A workload that the kernel tells by its pid. */
  workload(pid: number, ids: readonly string[], options?: { readonly selectors?: readonly string[] }): Promise<LocalWorkload>
}

/** Trust domain `example.org`, federated with `other.test`. */
export async function localAgent(options: { readonly clock?: Clock } = {}): Promise<LocalAgent> {
  const clock = options.clock ?? systemClock
  const at = clock.now()
  const ca = await TestCa.create({ trustDomain: 'example.org', at })
  const foreign = await TestCa.create({ trustDomain: 'other.test', at })
  const bundle = bundleOf(ca)
  const workloads = new Map<number, LocalWorkload>()
  const warnings: Readonly<Record<string, unknown>>[] = []
  const shadowed: ShadowVerdict[] = []
  const agent: Agent = {
    trustDomain: bundle.trustDomain,
    clock,
    log: recordingLog(warnings),
    meter: silentMeter,
    bundle: new WatchedValue(bundle),
    async identify(peer) {
      const workload = workloads.get(peer.pid)
      if (!workload) throw new Failure('unavailable', 'workload.attestation-failed', { public: 'the caller could not be identified' })
      return workload
    },
    noteShadow: (verdict) => void shadowed.push(verdict),
    jwtSvids: () => Promise.reject(new Error('bug: this agent has no tokens')),
    validateJwt: () => Promise.reject(new Error('bug: this agent has no tokens')),
  }
  return {
    agent,
    ca,
    foreign,
    bundle,
    warnings,
    shadowed,
    async workload(pid, ids, { selectors = [] } = {}) {
      const federated = new Map<TrustDomain, TrustBundle>([[parseTrustDomain('other.test'), bundleOf(foreign)]])
      const seen = selectors.map(parseSelector)
      const identities = new WatchedValue<WorkloadIdentities>({ identities: [], bundle, federated })
      const policies = new WatchedValue<WorkloadPolicies>({ version: '', documents: [], spiffeIds: [], selectors: seen })
      const workload: LocalWorkload = {
        pid,
        selectors: seen,
        identities,
        policies,
        peer: { pid, uid: 1000, gid: 1000, stillThere: () => true, [Symbol.dispose]() {} },
        async hold(...wanted) {
          const held = await Promise.all(wanted.map((id) => heldIdentity(ca, parseSpiffeId(id))))
          identities.set({ identities: held, bundle, federated })
          policies.set({ ...policies.current, spiffeIds: held.map(({ spiffeId }) => spiffeId) })
        },
        apply(texts, tried) {
          const documentsOf = (from: typeof texts): PolicyDocument[] => Object.entries(from).map(([name, text]) => ({ name, text }))
          const { candidate: _, ...before } = policies.current
          const candidate = tried && { version: `c${++versions}`, documents: documentsOf(tried) }
          policies.set({ ...before, version: `v${++versions}`, documents: documentsOf(texts), ...(candidate && { candidate }) })
        },
      }
      await workload.hold(...ids)
      workloads.set(pid, workload)
      return workload
    },
  }
}

/** An identity with a certificate of its own, signed by `ca`. */
export async function heldIdentity(ca: TestCa, spiffeId: SpiffeId, wishes: Wishes = {}): Promise<HeldIdentity> {
  const { certificate, keyPem } = await ca.leaf({ uris: [spiffeId], ...wishes })
  return {
    entryId: `entry of ${spiffeId}`,
    spiffeId,
    hint: '',
    chain: [certificate],
    chainDer: certificate.raw,
    chainPem: formatPem('CERTIFICATE', certificate.raw),
    privateKeyDer: Buffer.from(keyPem.replaceAll(/-----.*?-----|\s/g, ''), 'base64'),
    privateKeyPem: keyPem,
  }
}

function bundleOf(ca: TestCa): TrustBundle {
  return {
    trustDomain: parseTrustDomain(ca.trustDomain),
    x509Authorities: [{ certificate: ca.certificate, tainted: false }],
    jwtAuthorities: [],
    witAuthorities: [],
    sequence: 1n,
  }
}

function recordingLog(warnings: object[], fields: object = {}): Log {
  const record = (message: string, more?: object) => void warnings.push({ message, ...fields, ...more })
  return { ...silentLog, warn: record, error: record, with: (more) => recordingLog(warnings, { ...fields, ...more }) }
}

let versions = 0
