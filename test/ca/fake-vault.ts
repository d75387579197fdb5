import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Instant } from '../../src/kernel/clock.ts'
import { seconds } from '../../src/kernel/duration.ts'
import { parseCertificateRequest } from '../../src/x509/certificate-request.ts'
import type { Certificate } from '../../src/x509/certificate.ts'
import { formatPem, parsePem } from '../../src/x509/pem.ts'
import { TestCa, type Wishes } from '../support/test-ca.ts'

export interface Asked {
  readonly method: string
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: Record<string, unknown>
}

export interface Signed {
  readonly own: Certificate
  readonly root: Certificate
  readonly warnings?: readonly string[]
}

/** PEM: the server speaks TLS, and calls itself localhost. */
export interface ServerIdentity {
  readonly cert: string
  readonly key: string
  /** The groups for the key exchange; what the runtime has when left out. */
  readonly ecdhCurve?: string
}

/** What is answered instead of a certificate. */
export type Misbehaviour = (response: ServerResponse) => void

/** The part of Vault's HTTP API that signs an authority, with real certificates, and with every bad habit that is asked for. */
export class FakeVault implements AsyncDisposable {
  readonly token = 'hvs.a-token-that-nobody-may-read'
  /** The calls that were to sign, and those that were not. */
  readonly asked: Asked[] = []
  readonly besides: Asked[] = []
  /** What the token may not do, of what it is asked about. */
  lacks: readonly string[] = []
  /** Whom the mount names as its issuer; itself when left out. */
  issuer: Certificate | undefined
  /** What it tells beside it; its own root when empty. */
  besideIssuer: readonly Certificate[] = []
  /** The status that `sys/health` answers with. */
  health = 200
  /** Each call to sign takes the next of these; when none is left, calls are answered well. */
  misbehaves: Misbehaviour[] = []
  /** Changes what is certified. */
  wishes: Wishes = {}
  /** Changes how it is told; what Vault 1.11 and later say, when left out. */
  tells: (signed: Signed) => object = ({ own, root, warnings }) => ({
    data: { certificate: pem(own), issuing_ca: pem(root), ca_chain: [pem(own), pem(root)], serial_number: '00' },
    warnings: warnings ?? null,
  })
  readonly root: TestCa
  readonly #at: Instant
  readonly #server: Server

  private constructor(root: TestCa, at: Instant, tls?: ServerIdentity) {
    this.root = root
    this.#at = at
    const answer = (request: IncomingMessage, response: ServerResponse): void => void this.#answer(request, response)
    this.#server = tls ? createTlsServer(tls, answer) : createServer(answer)
  }

  static async open(at: Instant, tls?: ServerIdentity): Promise<FakeVault> {
    const vault = new FakeVault(await TestCa.create({ at, name: 'vault root', lifetime: seconds(3600 * 24 * 365) }), at, tls)
    vault.#server.listen(0, '127.0.0.1')
    await once(vault.#server, 'listening')
    return vault
  }

  get address(): string {
    const { port } = this.#server.address() as AddressInfo
    return 'setSecureContext' in this.#server ? `https://localhost:${port}` : `http://127.0.0.1:${port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = []
    for await (const part of request) parts.push(part as Buffer)
    const text = Buffer.concat(parts).toString()
    const body = (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>
    const asked = { method: request.method ?? '', path: request.url ?? '', headers: request.headers, body }
    const signs = asked.path.endsWith('/sign-intermediate')
    ;(signs ? this.asked : this.besides).push(asked)
    const bad = signs ? this.misbehaves.shift() : undefined
    if (bad) return bad(response)
    if (asked.path === '/v1/sys/health') return json(response, this.health, { initialized: true })
    if (request.headers['x-vault-token'] !== this.token) return refusing(403, 'permission denied')(response)
    if (signs) return json(response, 200, this.tells({ own: await this.#sign(body), root: this.root.certificate }))
    const answer = this.#facts(asked)
    if (answer) json(response, 200, { data: answer })
    else refusing(404, 'no handler for route')(response)
  }

  #facts({ path, body }: Asked): object | undefined {
    if (path === '/v1/auth/token/lookup-self') return { ttl: 0, renewable: false }
    if (path === '/v1/sys/capabilities-self') {
      return Object.fromEntries(
        (body['paths'] as string[]).map((one) => [one, this.lacks.includes(one) ? ['deny'] : ['create', 'read', 'update', 'delete']]),
      )
    }
    if (path.endsWith('/json')) {
      const beside = this.besideIssuer.length > 0 ? this.besideIssuer : [this.root.certificate]
      return { certificate: pem(this.issuer ?? this.root.certificate), ca_chain: beside.map(pem) }
    }
    return undefined
  }

  async #sign(body: Record<string, unknown>): Promise<Certificate> {
    const request = parseCertificateRequest(parsePem(String(body['csr']), { label: 'CERTIFICATE REQUEST' })[0]!.der)
    const wishes: Wishes = {
      spki: request.spki,
      subject: request.subject.attributes,
      uris: request.requestedUris,
      dnsNames: request.requestedDnsNames,
      ca: { pathLength: Number(body['max_path_length']) },
      keyUsage: ['keyCertSign', 'cRLSign'],
      extKeyUsage: [],
      notAfter: this.#at + seconds(Number.parseInt(String(body['ttl']), 10)),
    }
    return (await this.root.leaf({ ...wishes, ...this.wishes })).certificate
  }
}

export const refusing =
  (status: number, message: string, headers: Record<string, string> = {}): Misbehaviour =>
  (response) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
    json(response, status, { errors: [message] })
  }

export const pem = ({ raw }: { readonly raw: Uint8Array }): string => formatPem('CERTIFICATE', raw)

function json(response: ServerResponse, status: number, body: unknown): void {
  response.statusCode = status
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(body))
}
