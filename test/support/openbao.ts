/** A real OpenBao server on a port of its own, in development mode, and what its operator does there. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort } from './programs.ts'

export class OpenBao {
  readonly token = 'root-token-of-the-test'
  readonly #program: string
  #process: ChildProcess | undefined
  #port = 0
  #tlsPort = 0

  constructor(program: string) {
    this.#program = program
  }

  get address(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  get port(): number {
    return this.#port
  }

  /** Where it listens with TLS, if it was started so. */
  get tlsAddress(): string {
    return `https://localhost:${this.#tlsPort}`
  }

  /** `tls` holds files in PEM. */
  async start(home: string, tls?: { readonly certFile: string; readonly keyFile: string }): Promise<void> {
    this.#port ||= await freePort()
    this.#tlsPort ||= tls ? await freePort() : 0
    const args = [
      'server',
      '-dev',
      '-dev-no-store-token',
      `-dev-root-token-id=${this.token}`,
      `-dev-listen-address=127.0.0.1:${this.#port}`,
    ]
    if (tls) {
      const listener = `listener "tcp" {\n  address = "127.0.0.1:${this.#tlsPort}"\n  tls_cert_file = "${tls.certFile}"\n  tls_key_file = "${tls.keyFile}"\n}\n`
      await writeFile(join(home, 'listener.hcl'), listener)
      args.push(`-config=${join(home, 'listener.hcl')}`)
    }
    this.#process = spawn(this.#program, args, { cwd: home, env: { PATH: process.env['PATH'] ?? '', HOME: home }, stdio: 'ignore' })
    for (let waited = 0; waited < 200; waited++) {
      const answer = await fetch(`${this.address}/v1/sys/health`).catch(() => undefined)
      if (answer?.ok) return
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    throw new Error('the OpenBao server did not start')
  }

  async stop(): Promise<void> {
    if (!this.#process || this.#process.exitCode !== null) return
    const ended = once(this.#process, 'exit')
    this.#process.kill('SIGTERM')
    await ended
  }

  async mountRoot(mount: string, { max = '87600h' } = {}): Promise<void> {
    await this.write(`sys/mounts/${mount}`, { type: 'pki', config: { max_lease_ttl: max } })
    await this.addRoot(mount, 'first')
  }

  /** Another root in the mount, under a name of its own. */
  async addRoot(mount: string, name: string): Promise<Record<string, unknown>> {
    return this.write(`${mount}/root/generate/internal`, {
      common_name: `${name === 'first' ? 'root' : name} of ${mount}`,
      issuer_name: name,
      key_type: 'ec',
      key_bits: 256,
      ttl: '87600h',
    })
  }

  async mountIntermediate(mount: string, root: string): Promise<void> {
    await this.write(`sys/mounts/${mount}`, { type: 'pki', config: { max_lease_ttl: '43800h' } })
    const { csr } = await this.write(`${mount}/intermediate/generate/internal`, {
      common_name: `intermediate of ${mount}`,
      key_type: 'ec',
      key_bits: 256,
    })
    const { certificate, issuing_ca } = await this.write(`${root}/root/sign-intermediate`, {
      csr,
      common_name: `intermediate of ${mount}`,
      ttl: '43800h',
    })
    await this.write(`${mount}/intermediate/set-signed`, { certificate: `${String(certificate)}\n${String(issuing_ca)}` })
  }

  /** Writes a policy and returns its name. */
  async policy(hcl: string): Promise<string> {
    const name = `policy-${Math.random().toString(36).slice(2)}`
    await this.write(`sys/policies/acl/${name}`, { policy: hcl })
    return name
  }

  /** A token with this policy and no other; `settings` as `auth/token/create` knows them. */
  async tokenFor(hcl: string, settings: object = {}): Promise<string> {
    const answer = await this.call('auth/token/create', { policies: [await this.policy(hcl)], no_default_policy: true, ...settings })
    return (answer as { auth: { client_token: string } }).auth.client_token
  }

  async revoke(token: string): Promise<void> {
    await this.write('auth/token/revoke', { token })
  }

  async seal(): Promise<void> {
    await this.call('sys/seal', {})
  }

  /** Writes, and gives the `data` of the answer. */
  async write(path: string, body: object, headers: Record<string, string> = {}): Promise<Record<string, unknown>> {
    return ((await this.call(path, body, headers)) as { data?: Record<string, unknown> } | undefined)?.data ?? {}
  }

  async read(path: string): Promise<Record<string, unknown>> {
    return ((await this.call(path)) as { data?: Record<string, unknown> } | undefined)?.data ?? {}
  }

  async call(path: string, body?: object, headers: Record<string, string> = {}): Promise<unknown> {
    const answer = await fetch(`${this.address}/v1/${path}`, {
      method: body ? 'POST' : 'GET',
      headers: { 'X-Vault-Token': this.token, ...headers },
      ...(body && { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${text}`)
    return text === '' ? undefined : JSON.parse(text)
  }
}
