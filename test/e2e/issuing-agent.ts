import { hash } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { makeSvidKey, type SvidKey } from '../../src/agent/svid-key.ts'
import type { SignedX509Svid, UpstreamServer } from '../../src/agent/upstream-server.ts'
import { utf8 } from '../../src/kernel/bytes.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { type Category, Failure } from '../../src/kernel/failure.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { connectServer } from '../../src/server-api/client.ts'
import { createCertificateRequest } from '../../src/x509/certificate-request.ts'
import { idOf, type ServerProgram } from '../support/programs.ts'

/** What an agent was given: the serial number or `jti`, and the SHA-256 of the bytes that were signed. */
export interface Receipt {
  readonly name: string
  readonly hash: string
}

/** An agent that asks for certificates and tokens for as long as its server lives, and remembers each that it was given. */
export class IssuingAgent implements AsyncDisposable {
  readonly received: Receipt[] = []
  readonly #server: UpstreamServer
  readonly #key: SvidKey
  readonly #csr: Uint8Array
  #entryId = ''
  #renewal: PromiseWithResolvers<void> | undefined
  #isOver = false

  private constructor(server: UpstreamServer, key: SvidKey, csr: Uint8Array) {
    this.#server = server
    this.#key = key
    this.#csr = csr
  }

  /** Joins with a fresh token, and has one workload. */
  static async join(server: ServerProgram): Promise<IssuingAgent> {
    const upstream = connectServer({ host: '127.0.0.1', port: server.port }, { clock: systemClock, log: silentLog, meter: silentMeter })
    const key = await makeSvidKey()
    const agent = new IssuingAgent(upstream, key, await createCertificateRequest({ signer: key.signer }))
    const token = await server.joinToken()
    const bundle = await server.asOperator((admin, signal) => admin.bundle.find(signal))
    const prover = { type: 'join_token', payload: async () => utf8(token), async [Symbol.asyncDispose]() {} }
    const { svid } = await upstream.attest(prover, agent.#csr, bundle, AbortSignal.timeout(20_000))
    agent.#took(svid)
    upstream.use({ ...svid, privateKeyPem: key.privateKeyPem }, bundle)
    const [entry] = await server.entries(svid.spiffeId, { spiffeId: idOf('/crash'), selectors: ['unix:uid:0'] })
    agent.#entryId = entry!.id
    return agent
  }

  /** What the server makes of one request of the workload. */
  async sign(csr: Uint8Array): Promise<SignedX509Svid | Failure> {
    const [answer] = await this.#server.signX509([{ entryId: this.#entryId, csr }], AbortSignal.timeout(20_000))
    return answer!
  }

  /** Asks until the server is gone. @throws whatever the server refuses instead */
  async askUntilCutOff(onAsk: () => void): Promise<void> {
    const signal = AbortSignal.timeout(60_000)
    try {
      for (;;) {
        onAsk()
        await this.#ask(signal)
        if (this.#renewal) await this.#renew(signal)
        await pause(5)
      }
    } catch (error) {
      this.#isOver = true
      this.#renewal?.reject(error)
      if (!cutOff.has(Failure.from(error).category)) throw error
    }
  }

  /** Resolves when it has a new certificate of its own, and the bundle of that moment. */
  renewed(): Promise<void> {
    if (this.#isOver) return Promise.reject(new Error('the server is gone'))
    this.#renewal ??= Promise.withResolvers()
    return this.#renewal.promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]()
  }

  async #ask(signal: AbortSignal): Promise<void> {
    const wishes = Array.from({ length: 4 }, () => ({ entryId: this.#entryId, csr: this.#csr }))
    const certificates = this.#server.signX509(wishes, signal).then((outcomes) => {
      for (const outcome of outcomes) {
        if (outcome instanceof Failure) throw outcome
        this.#took(outcome)
      }
    })
    const token = this.#server.signJwt(this.#entryId, ['crash'], signal).then(({ token }) => {
      const [header, payload] = token.split('.') as [string, string]
      const { jti } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { jti: string }
      this.received.push({ name: jti, hash: hash('sha256', `${header}.${payload}`) })
    })
    const failed = (await Promise.allSettled([certificates, token])).find((outcome) => outcome.status === 'rejected')
    if (failed) throw failed.reason
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const bundle = await this.#server.bundle(signal)
    const svid = await this.#server.renew(this.#csr, signal)
    this.#took(svid)
    this.#server.use({ ...svid, privateKeyPem: this.#key.privateKeyPem }, bundle)
    this.#renewal?.resolve()
    this.#renewal = undefined
  }

  #took({ chain }: SignedX509Svid): void {
    this.received.push({ name: chain[0]!.serial, hash: hash('sha256', chain[0]!.tbs) })
  }
}

/** What a call meets when its server is killed. */
export const cutOff: ReadonlySet<Category> = new Set(['unavailable', 'cancelled', 'internal'])
