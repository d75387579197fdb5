import { createServer, type Server } from 'node:http'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openVaultSession, type VaultSession } from '../../src/ca/vault/session.ts'
import { vaultSettings } from '../../src/ca/vault/settings.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { silentMeter } from '../../src/kernel/meter.ts'
import { systemFiles } from '../../src/kernel/files.ts'
import { systemRandom } from '../../src/kernel/random.ts'
import { systemSecrets } from '../../src/main/config/secrets.ts'
import { generateKeyPair } from '../../src/x509/key-type.ts'
import { z } from 'zod'
import { KeptLog, never } from '../ca/support.ts'
import { oid } from '../../src/x509/oid.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { OpenBao } from '../support/openbao.ts'
import { describeWithPeer } from '../support/peers.ts'
import { eventually } from '../support/programs.ts'
import { TestCa } from '../support/test-ca.ts'

describeWithPeer('openbao', 'logins at an OpenBao server', (found) => {
  const bao = new OpenBao(found.path)
  let folder: string
  let policy: string
  let answerer: Server
  let ca: TestCa

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vidimus-logins-'))
    ca = await TestCa.create({ at: systemClock.now(), name: 'tls root' })
    const server = await ca.leaf({ dnsNames: ['localhost'] })
    await bao.start(folder, {
      certFile: await write('server.pem', pem(server.certificate)),
      keyFile: await write('server.key', server.keyPem),
    })
    policy = await bao.policy(
      'path "auth/token/lookup-self" { capabilities = ["read"] } path "auth/token/renew-self" { capabilities = ["update"] }',
    )
    for (const method of ['approle', 'jwt', 'kubernetes', 'cert']) await bao.call(`sys/auth/${method}`, { type: method })
    await bao.write('auth/approle/role/vid', { token_policies: policy, token_no_default_policy: true, token_ttl: '1h' })
    answerer = await tokenReviews(['good-service-account-token', 'newer-service-account-token'])
  })

  afterAll(async () => {
    await bao.stop()
    answerer.close()
    await rm(folder, { recursive: true, force: true })
  })

  async function secretId(path = 'auth/approle/role/vid/secret-id', headers: Record<string, string> = {}): Promise<string> {
    const answer = (await bao.call(path, {}, headers)) as { data?: { secret_id: string }; wrap_info?: { token: string } }
    return answer.wrap_info?.token ?? answer.data!.secret_id
  }
  const roleId = async () => String((await bao.read('auth/approle/role/vid/role-id'))['role_id'])
  const write = async (name: string, content: string, mode = 0o600): Promise<string> => {
    const path = join(folder, name)
    await writeFile(path, content)
    await chmod(path, mode)
    return path
  }

  describe('V-12 an AppRole', () => {
    test('whose secret id is wrong is refused, tried again, and let in as soon as the file is right', async () => {
      const file = await write('secret-id', 'wrong-and-secret')
      await using session = open({ method: 'approle', roleId: await roleId(), secretId: { file } })
      await expect(lookUp(session)).rejects.toMatchObject({ reason: 'vault.bad-request' })
      expect(session.complaints().join()).toMatch(/^our token for the vault is missing: .*refused our request/)
      expect(`${session.complaints().join()}${session.log.lines.join()}`).not.toContain('wrong-and-secret')
    })

    test('whose secret id others can read is not used', async () => {
      const file = await write('loose-secret-id', await secretId(), 0o644)
      await using session = open({ method: 'approle', roleId: await roleId(), secretId: { file } })
      await expect(lookUp(session)).rejects.toMatchObject({ reason: 'secret.loose-permissions' })
    })

    test('lets in, and its token is given back in the end', async () => {
      const file = await write('good-secret-id', await secretId())
      let accessor: unknown
      {
        await using session = open({ method: 'approle', roleId: await roleId(), secretId: { file } })
        const { policies, accessor: name } = await lookUp(session)
        expect(policies).toEqual([policy])
        accessor = name
        await expect(bao.write('auth/token/lookup-accessor', { accessor })).resolves.toBeDefined()
      }
      // Its policy may not give the token back; with the printed policy it would be gone.
      await expect(bao.write('auth/token/lookup-accessor', { accessor })).resolves.toBeDefined()
    })

    test('takes a wrapped secret id once, and logs in again with what was in it', async () => {
      const file = await write('wrapped', await secretId(undefined, { 'X-Vault-Wrap-TTL': '60s' }))
      await using session = open({ method: 'approle', roleId: await roleId(), secretId: { file }, wrapped: true })
      await lookUp(session)
      await bao.revoke(session.token())
      expect((await lookUp(session))['policies']).toEqual([policy])
      // Another process finds the wrapping spent, and says what that may mean.
      await using other = open({ method: 'approle', roleId: await roleId(), secretId: { file }, wrapped: true })
      await expect(lookUp(other)).rejects.toMatchObject({ reason: 'vault.unwrap-refused' })
      expect(other.complaints().join()).toContain('somebody else has it')
    })

    test('refuses something that another path wrapped', async () => {
      const file = await write('foreign', await secretId('sys/wrapping/wrap', { 'X-Vault-Wrap-TTL': '60s' }))
      await using session = open({ method: 'approle', roleId: await roleId(), secretId: { file }, wrapped: true })
      await expect(lookUp(session)).rejects.toMatchObject({ reason: 'vault.foreign-wrapping' })
    })
  })

  describe('a Kubernetes service account', () => {
    beforeAll(async () => {
      const { port } = answerer.address() as AddressInfo
      await bao.write('auth/kubernetes/config', {
        kubernetes_host: `http://127.0.0.1:${port}`,
        disable_local_ca_jwt: true,
        kubernetes_ca_cert: pem(ca.certificate),
        token_reviewer_jwt: 'reviewer',
      })
      await bao.write('auth/kubernetes/role/vid', {
        bound_service_account_names: 'vidimus',
        bound_service_account_namespaces: 'vidimus-system',
        token_policies: policy,
        token_no_default_policy: true,
        audience: 'openbao',
      })
    })

    test('V-12 lets in with the token that its file holds at that moment', async () => {
      const tokenFile = await write('sa-token', serviceAccountToken('good-service-account-token'), 0o644)
      await using session = open({ method: 'kubernetes', role: 'vid', tokenFile })
      expect((await lookUp(session))['policies']).toEqual([policy])
      await write('sa-token', serviceAccountToken('newer-service-account-token'), 0o644)
      await bao.revoke(session.token())
      expect((await lookUp(session))['policies']).toEqual([policy])
      expect(reviewed.at(-1)).toContain('newer-service-account-token')
    })

    test('is refused where others may write the file', async () => {
      const tokenFile = await write('sa-token-loose', serviceAccountToken('good-service-account-token'), 0o666)
      await using session = open({ method: 'kubernetes', role: 'vid', tokenFile })
      await expect(lookUp(session)).rejects.toMatchObject({ reason: 'vault.loose-permissions' })
    })

    test('is refused when the cluster does not know it', async () => {
      const tokenFile = await write('sa-token-bad', serviceAccountToken('a-token-of-nobody'), 0o644)
      await using session = open({ method: 'kubernetes', role: 'vid', tokenFile })
      await expect(lookUp(session)).rejects.toMatchObject({ reason: 'vault.permission-denied' })
    })
  })

  test('a JWT lets in whoever it names, read anew at each login', async () => {
    const { publicKey, privateKey } = await generateKeyPair('ec-p256')
    await bao.write('auth/jwt/config', { jwt_validation_pubkeys: publicKey.export({ type: 'spki', format: 'pem' }) })
    await bao.write('auth/jwt/role/vid', {
      role_type: 'jwt',
      bound_audiences: 'openbao',
      user_claim: 'sub',
      bound_subject: 'spiffe://example.org/vidimus',
      token_policies: policy,
      token_no_default_policy: true,
    })
    const jwt = (subject: string) =>
      new SignJWT()
        .setProtectedHeader({ alg: 'ES256' })
        .setIssuedAt()
        .setSubject(subject)
        .setAudience('openbao')
        .setExpirationTime('5m')
        .sign(privateKey)
    const file = await write('jwt', await jwt('spiffe://example.org/somebody-else'))
    await using refused = open({ method: 'jwt', role: 'vid', jwt: { file } })
    await expect(lookUp(refused)).rejects.toMatchObject({ reason: 'vault.bad-request' })
    await write('jwt', await jwt('spiffe://example.org/vidimus'))
    await using session = open({ method: 'jwt', role: 'vid', jwt: { file } })
    expect((await lookUp(session))['policies']).toEqual([policy])
  })

  describe('V-12 a client certificate', () => {
    const certLogin = async (name: string) => {
      const { certificate, keyPem } = await ca.leaf({
        subject: [{ oid: oid.commonName, value: name }],
        uris: [`spiffe://example.org/${name}`],
      })
      return {
        method: 'cert',
        role: 'vid',
        certFile: await write('client.pem', pem(certificate), 0o644),
        keyFile: await write('client.key', keyPem),
      }
    }
    const overTls = async () => ({ address: bao.tlsAddress, caFile: await write('ca.pem', pem(ca.certificate), 0o644) })
    beforeAll(async () => {
      await bao.write('auth/cert/certs/vid', {
        certificate: pem(ca.certificate),
        allowed_uri_sans: 'spiffe://example.org/vidimus',
        token_policies: policy,
        token_no_default_policy: true,
        token_ttl: '1h',
      })
    })

    test('of somebody else is refused; ours lets in, and is read anew at each login', async () => {
      await using session = open(await certLogin('somebody-else'), await overTls())
      await expect(lookUp(session)).rejects.toMatchObject({ reason: 'vault.bad-request' })
      await using ours = open(await certLogin('vidimus'), await overTls())
      expect((await lookUp(ours))['policies']).toEqual([policy])
      await certLogin('somebody-else')
      await bao.revoke(ours.token())
      await expect(lookUp(ours)).rejects.toMatchObject({ reason: 'vault.bad-request' })
    })

    test('C-32 travels under a post-quantum key exchange, which this vault has and may be required to have', async () => {
      await using session = open(await certLogin('vidimus'), { ...(await overTls()) }, true)
      expect((await lookUp(session))['policies']).toEqual([policy])
      expect(session.log.lines.join('\n')).toContain('"keyExchange":"X25519MLKEM768"')
    })

    test('whose key others can read is not used', async () => {
      const login = await certLogin('vidimus')
      await chmod(login.keyFile, 0o640)
      await using session = open(login, await overTls())
      await expect(lookUp(session)).rejects.toMatchObject({ reason: 'vault.loose-permissions' })
    })

    test('is not shown to a server that nobody vouches for', async () => {
      await using session = open(await certLogin('vidimus'), { address: bao.tlsAddress })
      await expect(lookUp(session)).rejects.toMatchObject({ reason: 'vault.unreachable' })
    })
  })

  test('V-16 each session speaks to its own namespace', async () => {
    const namespaced: OpenSession[] = []
    for (const team of ['team-a', 'team-b']) {
      await bao.call(`sys/namespaces/${team}`, {})
      const answer = await bao.call('auth/token/create', { policies: ['default'] }, { 'X-Vault-Namespace': team })
      const { client_token } = (answer as { auth: { client_token: string } }).auth
      namespaced.push(open({ method: 'token', token: { file: await write(`token-${team}`, client_token) } }, { namespace: team }))
    }
    const [a, b] = await Promise.all(namespaced.map((session) => lookUp(session)))
    expect([a!['namespace_path'], b!['namespace_path']]).toEqual(['team-a/', 'team-b/'])
    for (const session of namespaced) await session[Symbol.asyncDispose]()
  })

  describe('V-8 the token', () => {
    test('of a few seconds is renewed again and again without a login, and is good all the while', async () => {
      const token = await bao.tokenFor(renewable, { period: '2s' })
      await using session = open({ method: 'token', token: { file: await write('periodic', token) } })
      await lookUp(session)
      await eventually('the token was renewed 3 times', async () => {
        await lookUp(session)
        return session.log.lines.filter((line) => line.startsWith('info renewed')).length >= 3
      })
      expect(session.log.lines.filter((line) => line.startsWith('info logged in'))).toHaveLength(1)
      expect(session.complaints()).toEqual([])
    })

    test('V-11 that can be renewed no longer is replaced by a login, before it ends', async () => {
      await bao.write('auth/approle/role/short', {
        token_policies: policy,
        token_no_default_policy: true,
        token_ttl: '3s',
        token_max_ttl: '4s',
      })
      const short = String((await bao.read('auth/approle/role/short/role-id'))['role_id'])
      const file = await write('short-secret-id', await secretId('auth/approle/role/short/secret-id'))
      await using session = open({ method: 'approle', roleId: short, secretId: { file } })
      await eventually('a second token was got', async () => {
        await lookUp(session)
        return session.log.lines.filter((line) => line.startsWith('info logged in')).length >= 3
      })
      expect(session.log.lines.filter((line) => line.startsWith('error'))).toEqual([])
    })

    test('that was revoked is noticed at the next call, and replaced within it', async () => {
      const file = await write('secret-id-again', await secretId())
      await using session = open({ method: 'approle', roleId: await roleId(), secretId: { file } })
      const { accessor } = await lookUp(session)
      await bao.revoke(session.token())
      expect((await lookUp(session))['accessor']).not.toBe(accessor)
    })

    test('V-9 many calls with a revoked token make one login', async () => {
      const file = await write('secret-id-many', await secretId())
      await using session = open({ method: 'approle', roleId: await roleId(), secretId: { file } })
      await lookUp(session)
      await bao.revoke(session.token())
      await Promise.all(Array.from({ length: 20 }, () => lookUp(session)))
      expect(session.log.lines.filter((line) => line.startsWith('info logged in'))).toHaveLength(2)
    })

    test('is kept where the policy lacks a path: a new one would not help', async () => {
      const token = await bao.tokenFor(renewable, { period: '60s' })
      await using session = open({ method: 'token', token: { file: await write('lacking', token) } })
      const call = session.call({ method: 'GET', path: ['sys', 'mounts'] }, never)
      await expect(call).rejects.toMatchObject({ reason: 'vault.permission-denied' })
      expect(session.log.lines.filter((line) => line.startsWith('info logged in'))).toHaveLength(1)
    })
  })

  describe('V-9, V-13, V-19 between us and the vault', () => {
    test.for([
      ['429 with `Retry-After`', { kind: 'answer', status: 429, headers: { 'retry-after': '1' } }],
      ['500', { kind: 'answer', status: 500 }],
      ['a proxy that is broken', { kind: 'answer', status: 502, body: '<html>' }],
      ['a cut', { kind: 'cut' }],
      ['a cut in the middle of the answer', { kind: 'cut-answer', after: 60 }],
      ['silence', { kind: 'stall' }],
    ] as const)('%s is passed over', async ([, fault]) => {
      await using proxy = await FaultProxy.open(bao.port)
      const token = await bao.tokenFor(renewable, { period: '60s' })
      await using session = open(
        { method: 'token', token: { file: await write('faulty', token) } },
        { address: proxy.address, timeout: '1s' },
      )
      await lookUp(session)
      proxy.dropAll()
      proxy.faults = [fault]
      await lookUp(session)
      expect(proxy.spoiled).toBe(1)
    })

    test('two megabytes of an answer are not read', async () => {
      await using proxy = await FaultProxy.open(bao.port)
      const token = await bao.tokenFor(renewable, { period: '60s' })
      await using session = open({ method: 'token', token: { file: await write('flooded', token) } }, { address: proxy.address })
      await lookUp(session)
      proxy.dropAll()
      proxy.faults = [{ kind: 'flood', bytes: 2 * 1024 * 1024 }]
      await expect(lookUp(session)).rejects.toMatchObject({ reason: 'vault.answer-too-long' })
    })
  })

  // The last one: a server in development mode forgets everything.
  test('V-10 a vault that is sealed, and one that is restarted, are outages that pass', async () => {
    await using session = open({ method: 'token', token: { file: await write('root-token', bao.token) } })
    await lookUp(session)
    await bao.seal()
    await expect(session.call({ method: 'GET', path: ['sys', 'mounts'] }, never)).rejects.toMatchObject({
      category: 'unavailable',
      reason: 'vault.sealed',
    })
    await bao.stop()
    await expect(session.call({ method: 'GET', path: ['sys', 'mounts'] }, never)).rejects.toMatchObject({
      category: 'unavailable',
      reason: 'vault.unreachable',
    })
    await bao.start(folder)
    await lookUp(session)
    expect(session.complaints()).toEqual([])
  }, 60_000)

  interface OpenSession extends VaultSession {
    readonly log: KeptLog
    /** The token that it used last. */
    token(): string
  }

  function open(auth: object, settings: object = {}, requirePostQuantum = false): OpenSession {
    const log = new KeptLog()
    let token = ''
    const parsed = z.strictObject(vaultSettings).parse({ address: bao.address, auth, ...settings })
    const session = openVaultSession(
      parsed,
      { clock: systemClock, random: systemRandom, files: systemFiles, secrets: systemSecrets, log, meter: silentMeter, requirePostQuantum },
      'pki',
    )
    return {
      settings: session.settings,
      log,
      token: () => token,
      async call(call, signal) {
        const answer = await session.call(call, signal)
        const { data } = answer.body as { data?: { id?: string } }
        token = data?.id ?? token
        return answer
      },
      ask: (call, signal) => session.ask(call, signal),
      ready: (signal) => session.ready(signal),
      complaints: () => session.complaints(),
      [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
    }
  }
})

const pem = ({ raw }: { readonly raw: Uint8Array }): string => formatPem('CERTIFICATE', raw)
const renewable = 'path "auth/token/lookup-self" { capabilities = ["read"] } path "auth/token/renew-self" { capabilities = ["update"] }'

async function lookUp(session: VaultSession): Promise<Record<string, unknown>> {
  const { body } = await session.call({ method: 'GET', path: ['auth', 'token', 'lookup-self'] }, AbortSignal.timeout(20_000))
  return (body as { data: Record<string, unknown> }).data
}

const reviewed: string[] = []

/** The part of a kube-apiserver that says whose token it is. */
async function tokenReviews(known: readonly string[]): Promise<Server> {
  const server = createServer((request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (part: string) => (text += part))
    request.on('end', () => {
      const { spec } = JSON.parse(text) as { spec: { token: string } }
      const name = (JSON.parse(Buffer.from(spec.token.split('.')[1]!, 'base64url').toString()) as { jti: string }).jti
      reviewed.push(name)
      const authenticated = known.includes(name)
      const user = { username: 'system:serviceaccount:vidimus-system:vidimus', uid: 'uid-1', groups: [] }
      response.setHeader('content-type', 'application/json')
      response.end(
        JSON.stringify({
          apiVersion: 'authentication.k8s.io/v1',
          kind: 'TokenReview',
          status: authenticated ? { authenticated, user, audiences: ['openbao'] } : { authenticated, error: 'unknown' },
        }),
      )
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

/** As a cluster makes them; the reviewer alone looks at it, by its `jti`. */
function serviceAccountToken(jti: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const now = Math.floor(Date.now() / 1000)
  const claims = {
    jti,
    iss: 'https://kubernetes.default.svc',
    sub: 'system:serviceaccount:vidimus-system:vidimus',
    aud: ['openbao'],
    iat: now,
    exp: now + 600,
    'kubernetes.io': { namespace: 'vidimus-system', serviceaccount: { name: 'vidimus', uid: 'uid-1' } },
  }
  return `${part({ alg: 'RS256', kid: 'k' })}.${part(claims)}.${Buffer.from('not looked at').toString('base64url')}`
}
