/** The agent's socket, with answers that the test decides: real gRPC, real certificates. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { concat } from '../../src/kernel/bytes.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import {
  type JWTSVIDResponseSchema,
  SpiffeWorkloadAPI,
  type ValidateJWTSVIDResponseSchema,
  type WITSVIDResponseSchema,
  type X509SVIDResponseSchema,
} from '../../src/rpc/gen/spiffe/workload/workload_pb.ts'
import { WorkloadPolicies, type WorkloadPolicySetSchema } from '../../src/rpc/gen/vidimus/api/policy/v1/policy_pb.ts'
import { mount } from '../../src/rpc/handler.ts'
import { type Listener, listenUnix } from '../../src/rpc/listen.ts'
import { requireSecurityHeader } from '../../src/workload-api/security-header.ts'
import type { Issued, TestCa } from '../support/test-ca.ts'

type X509Answer = MessageInitShape<typeof X509SVIDResponseSchema>
type PolicyAnswer = MessageInitShape<typeof WorkloadPolicySetSchema>

/** X509SVID of the wire. */
interface Svid {
  readonly spiffeId: string
  readonly x509Svid: Uint8Array
  readonly x509SvidKey: Uint8Array
  readonly bundle: Uint8Array
  readonly hint?: string
}

/** Streams push what is set here, and end with it where it is a Failure. */
export class FakeAgent implements AsyncDisposable {
  readonly x509 = new WatchedValue<X509Answer | Failure>(noIdentityIssued)
  readonly policies = new WatchedValue<PolicyAnswer | Failure>(noIdentityIssued)
  readonly wit = new WatchedValue<MessageInitShape<typeof WITSVIDResponseSchema> | Failure>(noIdentityIssued)
  jwt: MessageInitShape<typeof JWTSVIDResponseSchema> | Failure = noIdentityIssued
  validated: MessageInitShape<typeof ValidateJWTSVIDResponseSchema> | Failure = noIdentityIssued
  /** How often each stream was opened. */
  readonly opened = { x509: 0, policies: 0 }
  readonly #directory: string
  #listener: Listener | undefined

  private constructor(directory: string) {
    this.#directory = directory
  }

  static async start(): Promise<FakeAgent> {
    const agent = new FakeAgent(await mkdtemp(join(tmpdir(), 'vw-')))
    await agent.appear()
    return agent
  }

  get address(): string {
    return `unix://${join(this.#directory, 's')}`
  }

  /** The agent is there again. */
  async appear(): Promise<void> {
    this.#listener = await listenUnix({
      path: join(this.#directory, 's'),
      mode: 0o600,
      log: silentLog,
      peerOf: () => undefined,
      wrap: requireSecurityHeader,
      limits: { grace: 10 },
      services: [
        mount<typeof SpiffeWorkloadAPI, undefined>(SpiffeWorkloadAPI, {
          fetchX509SVID: (_request, { signal }) => {
            this.opened.x509++
            return pushed(this.x509, signal)
          },
          fetchX509Bundles: async function* () {},
          fetchJWTBundles: async function* () {},
          fetchWITSVID: (_request, { signal }) => pushed(this.wit, signal),
          fetchWITBundles: async function* () {},
          fetchJWTSVID: async () => answered(this.jwt),
          validateJWTSVID: async () => answered(this.validated),
        }),
        mount<typeof WorkloadPolicies, undefined>(WorkloadPolicies, {
          watchPolicies: (_request, { signal }) => {
            this.opened.policies++
            return pushed(this.policies, signal)
          },
        }),
      ],
    })
  }

  /** The agent and its socket are gone; streams break. */
  async vanish(): Promise<void> {
    await this.#listener?.[Symbol.asyncDispose]()
    this.#listener = undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.vanish()
    await rm(this.#directory, { recursive: true, force: true })
  }
}

export const noIdentityIssued = new Failure('permission_denied', 'workload.no-identity', { public: 'no identity issued' })

/** An SVID as the wire carries it, with the bundle of `ca`; `changes` make it wrong. */
export function svidOf(ca: TestCa, { certificate, keyPem }: Issued, changes: Partial<Svid> = {}): Svid {
  return {
    spiffeId: certificate.subjectAltName?.uris[0] ?? '',
    x509Svid: certificate.raw,
    x509SvidKey: keyOf(keyPem),
    bundle: bundleOf(ca),
    ...changes,
  }
}

/** PKCS #8 in DER. */
export const keyOf = (pem: string): Uint8Array => Buffer.from(pem.replaceAll(/-----.*?-----|\s/g, ''), 'base64')

export const bundleOf = (...cas: readonly TestCa[]): Uint8Array => concat(cas.map(({ certificate }) => certificate.raw))

async function* pushed<T>(watched: WatchedValue<T | Failure>, signal: AbortSignal): AsyncGenerator<T, void, void> {
  for await (const value of watched.changes(signal)) yield answered(value)
}

function answered<T>(value: T | Failure): T {
  if (value instanceof Failure) throw value
  return value
}
