/** How a vault is reached and who we are there: the settings that every driver of a vault has. */
import { z } from 'zod'
import { secretReference } from '../../kernel/driver.ts'
import { parseDuration, seconds, type Duration } from '../../kernel/duration.ts'
import { Failure } from '../../kernel/failure.ts'

/** V-1: a segment is never empty and never begins with a dot; what is joined of them needs no encoding and no cleaning. */
const segment = '[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}'
export const vaultSegment = z.string().regex(new RegExp(`^${segment}$`), 'expected letters, digits, `.`, `_` and `-`')
export const vaultPath = z
  .string()
  .regex(new RegExp(`^${segment}(?:/${segment}){0,15}$`), 'expected segments of letters, digits, `.`, `_` and `-`')

/** One row a way to log in. `mount` is where the auth method is mounted. */
const auth = z.discriminatedUnion('method', [
  z.strictObject({ method: z.literal('token'), token: secretReference }),
  z.strictObject({
    method: z.literal('approle'),
    mount: vaultPath.default('approle'),
    roleId: z.union([z.string().min(1).max(256), secretReference]),
    secretId: secretReference,
    /** The secret is a wrapping token that gives the secret id out once, as `vault write -wrap-ttl=…` makes it. */
    wrapped: z.boolean().default(false),
  }),
  z.strictObject({
    method: z.literal('kubernetes'),
    mount: vaultPath.default('kubernetes'),
    role: vaultSegment,
    tokenFile: z.string().min(1).default('/var/run/secrets/kubernetes.io/serviceaccount/token'),
  }),
  z.strictObject({ method: z.literal('jwt'), mount: vaultPath.default('jwt'), role: vaultSegment, jwt: secretReference }),
  z.strictObject({
    method: z.literal('cert'),
    mount: vaultPath.default('cert'),
    /** Which of the mount's roles; the vault tries them all when left out. */
    role: vaultSegment.optional(),
    certFile: z.string().min(1),
    keyFile: z.string().min(1),
  }),
])

/** Keys for the strict object of a driver. */
export const vaultSettings = {
  address: z.string().transform(readAddress),
  namespace: vaultPath.optional(),
  auth,
  /** PEM file with the CAs that may vouch for the server; those of the system when left out. Read anew at each login (V-12). */
  caFile: z.string().min(1).optional(),
  /** Believes any server. For a laboratory (V-18). */
  dangerouslySkipTlsVerification: z.boolean().default(false),
  /** For one call (V-13). */
  timeout: z.string().default('10s').transform(readTimeout),
}

export type VaultAuth = z.infer<typeof auth>

export interface VaultSettings {
  /** Scheme, host and port. */
  readonly address: string
  readonly namespace?: string | undefined
  readonly auth: VaultAuth
  readonly caFile?: string | undefined
  readonly dangerouslySkipTlsVerification: boolean
  readonly timeout: Duration
}

/** Of an upstream authority. */
export interface VaultPkiSettings extends VaultSettings {
  readonly mount: string
  readonly issuer?: string | undefined
}

/** Of a key manager. */
export interface VaultTransitSettings extends VaultSettings {
  readonly mount: string
  readonly prefix: string
}

/** HTTPS; without it only on this machine, for the token travels with each call. */
function readAddress(text: string, context: z.RefinementCtx): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const loopback = url !== undefined && loopbackHosts.has(url.hostname)
  if (
    url &&
    (url.protocol === 'https:' || (url.protocol === 'http:' && loopback)) &&
    `${url.origin}${url.pathname}` === `${text.replace(/\/$/, '')}/`
  )
    return url.origin
  context.addIssue({
    code: 'custom',
    message: 'expected an address like `https://vault.example.org:8200`, without a path; `http` only on this machine',
  })
  return z.NEVER
}

function readTimeout(text: string, context: z.RefinementCtx): Duration {
  try {
    const timeout = parseDuration(text)
    if (timeout >= seconds(1) && timeout <= seconds(60)) return timeout
    context.addIssue({ code: 'custom', message: `\`${text}\` is out of range: expected 1s to 60s` })
  } catch (error) {
    context.addIssue({ code: 'custom', message: Failure.from(error).message })
  }
  return z.NEVER
}

const loopbackHosts = new Set(['127.0.0.1', 'localhost', '[::1]'])
