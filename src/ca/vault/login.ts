/** How a token is got: one function a way to log in. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { SecretReference, Secrets } from '../../kernel/driver.ts'
import { seconds } from '../../kernel/duration.ts'
import { Failure, failedWith } from '../../kernel/failure.ts'
import { Secret } from '../../kernel/log.ts'
import { readCredential } from './credentials.ts'
import type { VaultAuth, VaultSettings } from './settings.ts'
import type { Grant } from './token.ts'
import type { Connection, TlsMaterial } from './wire.ts'

export interface Login {
  readonly token: Secret
  readonly grant: Grant
  /** Made for us alone, so that we give it back in the end. */
  readonly ours: boolean
  readonly complaints: readonly string[]
}

/** What outlives one login: a secret id that was unwrapped cannot be unwrapped again. */
export interface LoginMemory {
  unwrapped?: { readonly wrapping: string; readonly secretId: Secret }
}

interface LoginPorts {
  readonly connection: Connection
  readonly secrets: Secrets
  readonly memory: LoginMemory
  readonly signal: AbortSignal
}

/** Whom we believe and, for certificate logins, who we are. @throws Failure `vault.file-missing`, `vault.loose-permissions` */
export async function readTls({ auth, caFile }: VaultSettings): Promise<TlsMaterial> {
  return {
    ...(caFile === undefined ? {} : { ca: await readCredential(caFile, { secret: false }) }),
    ...(auth.method === 'cert'
      ? { cert: await readCredential(auth.certFile, { secret: false }), key: await readCredential(auth.keyFile, { secret: true }) }
      : {}),
  }
}

/** @throws Failure `vault.*`, `secret.*` */
export async function logIn(auth: VaultAuth, ports: LoginPorts): Promise<Login> {
  const { secrets } = ports
  switch (auth.method) {
    case 'token':
      return lookUp(await secrets.read(auth.token), ports)
    case 'approle': {
      const roleId = typeof auth.roleId === 'string' ? auth.roleId : (await secrets.read(auth.roleId)).reveal()
      const secretId = auth.wrapped ? await unwrapped(auth.mount, auth.secretId, ports) : await secrets.read(auth.secretId)
      return ask(auth.mount, { role_id: roleId, secret_id: secretId.reveal() }, ports)
    }
    case 'kubernetes': {
      const jwt = await readCredential(auth.tokenFile, { secret: false })
      return ask(auth.mount, { role: auth.role, jwt: jwt.trim() }, ports)
    }
    case 'jwt':
      return ask(auth.mount, { role: auth.role, jwt: (await secrets.read(auth.jwt)).reveal() }, ports)
    case 'cert':
      return ask(auth.mount, auth.role === undefined ? {} : { name: auth.role }, ports)
  }
}

/** The grant that a login or a renewal tells. @throws Failure `vault.malformed-answer` */
export function readGrant(body: unknown): Grant & { readonly token: Secret } {
  const read = authAnswer.safeParse(body)
  if (!read.success) throw malformed('no token', read.error)
  const { client_token, lease_duration, renewable } = read.data.auth
  return { token: new Secret(client_token), ttl: lifeOf(lease_duration), renewable }
}

async function ask(mount: string, body: Readonly<Record<string, unknown>>, { connection, signal }: LoginPorts): Promise<Login> {
  const answer = await connection.send({ method: 'POST', path: ['auth', ...mount.split('/'), 'login'], body }, undefined, signal)
  const { token, ...grant } = readGrant(answer.body)
  return { token, grant, ours: true, complaints: [] }
}

/** A token that somebody gave us: what it says of itself, if it may. */
async function lookUp(token: Secret, { connection, signal }: LoginPorts): Promise<Login> {
  const given = { token, ours: false }
  try {
    const { body } = await connection.send({ method: 'GET', path: ['auth', 'token', 'lookup-self'] }, token, signal)
    const read = lookupAnswer.safeParse(body)
    if (!read.success) throw malformed('nothing of our token', read.error)
    const { ttl, renewable } = read.data.data
    return { ...given, grant: { ttl: lifeOf(ttl), renewable }, complaints: [] }
  } catch (error) {
    if (!failedWith(error, 'vault.permission-denied')) throw error
    // Denied either because the token is no good, which the next call tells, or because it may not look.
    const complaint = 'the token for the vault may not look itself up, so nobody renews it: see `vidimus vault policy`'
    return { ...given, grant: { ttl: Infinity, renewable: false }, complaints: [complaint] }
  }
}

/**
 * Trades a wrapping token for the secret id in it. That works once, for whoever comes first: if it does not work for us, somebody else
 * may have it. So it is also looked at before: what was not wrapped by this mount is not used.
 */
async function unwrapped(mount: string, reference: SecretReference, { connection, secrets, memory, signal }: LoginPorts): Promise<Secret> {
  const wrapping = await secrets.read(reference)
  const name = createHash('sha256').update(wrapping.reveal()).digest('hex')
  if (memory.unwrapped?.wrapping === name) return memory.unwrapped.secretId
  try {
    const lookup = { method: 'POST', path: ['sys', 'wrapping', 'lookup'], body: { token: wrapping.reveal() } } as const
    const wrappedBy = wrappingAnswer.parse((await connection.send(lookup, undefined, signal)).body).data.creation_path
    if (!wrappedBy.startsWith(`auth/${mount}/role/`) || !wrappedBy.endsWith('/secret-id'))
      throw new Failure('permission_denied', 'vault.foreign-wrapping', {
        public: `the wrapped secret id was made by \`${wrappedBy.slice(0, 120)}\`: expected \`auth/${mount}/role/…/secret-id\`; somebody may have exchanged it`,
      })
    const { body } = await connection.send({ method: 'POST', path: ['sys', 'wrapping', 'unwrap'] }, wrapping, signal)
    memory.unwrapped = { wrapping: name, secretId: new Secret(secretIdAnswer.parse(body).data.secret_id) }
    return memory.unwrapped.secretId
  } catch (error) {
    if (error instanceof z.ZodError) throw malformed('no secret id', error)
    if (!failedWith(error, 'vault.bad-request') && !failedWith(error, 'vault.permission-denied')) throw error
    throw new Failure('permission_denied', 'vault.unwrap-refused', {
      public:
        'the wrapped secret id cannot be unwrapped: it was unwrapped before or has ended; if nobody here did, somebody else has it: revoke it, and wrap a new one',
      cause: error,
    })
  }
}

/** Seconds; none for a token that does not end. */
const lifeOf = (ttl: number) => (ttl === 0 ? Infinity : seconds(ttl))

const malformed = (what: string, cause: unknown): Failure =>
  new Failure('failed_precondition', 'vault.malformed-answer', { public: `the vault answered, and told ${what}`, cause })

const wholeSeconds = z.number().min(0).max(1e10)
const authAnswer = z.object({
  auth: z.object({ client_token: z.string().min(1).max(8192), lease_duration: wholeSeconds, renewable: z.boolean() }),
})
const lookupAnswer = z.object({ data: z.object({ ttl: wholeSeconds, renewable: z.boolean().default(false) }) })
const wrappingAnswer = z.object({ data: z.object({ creation_path: z.string() }) })
const secretIdAnswer = z.object({ data: z.object({ secret_id: z.string().min(1).max(8192) }) })
